"""Points and digits: every registered method that learns improves one step, distances know their answers, the command."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from scipy import stats

from imfbench.cli import main
from imfbench.config_file import ConfigError
from imfbench.method import Method
from imfbench.other_tasks import run
from imfbench.other_tasks.report import mean_interval, ratio_interval, table, write
from imfbench.other_tasks.tasks import TASKS, Task, energy_distance, frechet_distance
from imfbench.registry import METHODS
from imfbench.store import write_json
from imfbench.training import MEMORY

POINTS = TASKS["points"]


def small(task: Task, teacher: int, student: int) -> Task:
    """The task in fewer steps of a smaller network."""
    from dataclasses import replace

    changed = {"frames_per_batch": 192, "learning_rate": 4e-3, "ema": 0.97, "warmup": 5, "log_every": 1000}
    network = {**task.network, "dim": 32}
    return replace(
        task, network=network, teacher=task.teacher.model_copy(update={"steps": teacher, **changed}),
        student=task.student.model_copy(update={"steps": student, **changed}),
    )  # fmt: skip


SMALL = small(POINTS, 150, 50)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Method:
    return trained("teacher", None, tmp_path_factory.mktemp("teacher"))


def trained(name: str, teacher: Method | None, folder: Path) -> Method:
    write_json(folder / MEMORY, {"bytes": 1, "kind": "told"})  # which takes longer to measure than these to train
    method, result = run.trained(SMALL, name, teacher, 0, folder)
    assert result.status == "ok"
    return method


@functools.cache
def distance(method: Method, nfe: int) -> float:
    _, content = SMALL.held_out()
    return SMALL.figures(run.sample(SMALL, method, content, nfe, 0))["energy distance"]


def test_every_method_that_learns_from_a_teacher_is_tried() -> None:
    trainable = {name for name in METHODS if METHODS.get(name).needs.training}
    assert {*run.students()} == trainable - {"teacher"}
    assert {"meanflow", "intmeanflow", "split-meanflow", "shortcut", "reflow"} <= trainable


def test_the_teacher_learns_the_points_and_needs_its_steps(teacher: Method) -> None:
    assert distance(teacher, 32) < 0.05
    assert distance(teacher, 1) > 0.5


@pytest.mark.parametrize("name", run.students())
def test_a_few_steps_of_any_method_improve_one_step(name: str, teacher: Method, tmp_path: Path) -> None:
    student = trained(name, teacher, tmp_path)
    assert distance(student, 1) < 0.7 * distance(teacher, 1)
    assert getattr(student, "baked_guidance", 0.0) == 0


def test_what_is_trained_is_not_trained_again_and_not_taken_for_another(teacher: Method, tmp_path: Path) -> None:
    few = small(POINTS, 3, 3)
    write_json(tmp_path / MEMORY, {"bytes": 1, "kind": "told"})
    steps: list[int] = []
    for _ in range(2):
        method, _ = run.trained(few, "teacher", None, 0, tmp_path, lambda _, done, __: steps.append(done))
    assert steps == [1, 2, 3]
    assert method.network.config.bands == 2
    with pytest.raises(ConfigError, match="other settings; give this run another --out"):
        run.trained(small(POINTS, 4, 3), "teacher", None, 0, tmp_path)


def test_a_student_of_a_teacher_that_was_trained_otherwise_is_not_taken_for_this_ones(tmp_path: Path) -> None:
    for steps in (2, 3):
        write_json(tmp_path / str(steps) / MEMORY, {"bytes": 1, "kind": "told"})
    write_json(tmp_path / MEMORY, {"bytes": 1, "kind": "told"})
    first, _ = run.trained(small(POINTS, 2, 1), "teacher", None, 0, tmp_path / "2")
    run.trained(small(POINTS, 2, 1), "intmeanflow", first, 0, tmp_path)
    other, _ = run.trained(small(POINTS, 3, 1), "teacher", None, 0, tmp_path / "3")
    with pytest.raises(ConfigError, match="other settings"):
        run.trained(small(POINTS, 3, 1), "intmeanflow", other, 0, tmp_path)


def test_energy_distance_of_known_distributions() -> None:
    x = torch.special.ndtri((torch.arange(1000).double() + 0.5) / 1000)[:, None]
    assert energy_distance(x, x.flip(0)) == pytest.approx(0, abs=1e-12)
    # two normals a apart: E|N(a, 2)| = 2/√π·exp(−a²/4) + a·erf(a/2)
    apart = 2 / math.sqrt(math.pi) * math.exp(-1) + 2 * math.erf(1)
    assert energy_distance(x, x + 2) == pytest.approx(2 * apart - 4 / math.sqrt(math.pi), abs=0.005)


def test_frechet_distance_of_known_distributions() -> None:
    x = np.random.default_rng(0).normal(size=(20_000, 3))
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(x, x + np.array([3, 0, 4])) == pytest.approx(25, rel=1e-6)
    assert frechet_distance(x, 3 * x) == pytest.approx(3 * (3 - 1) ** 2, rel=0.05)


def test_intervals() -> None:
    mean, low, high = mean_interval([1.0, 2.0, 3.0])
    assert (mean, (low + high) / 2) == pytest.approx((2, 2))
    assert high - 2 == pytest.approx(stats.t.ppf(0.975, 2) / math.sqrt(3))
    assert math.isnan(mean_interval([1.0])[1])
    assert ratio_interval([2.0, 8.0], [1.0, 2.0])[0] == pytest.approx(math.sqrt(8))
    # seeds differ by far more than the methods: pairs know that the second is always a tenth less
    a = np.array([1.0, 5.0, 25.0])
    mean, low, high = ratio_interval(0.9 * a, a)
    assert (low, mean, high) == pytest.approx((0.9, 0.9, 0.9))


def rows(**distances: list[float]) -> pd.DataFrame:
    found: list[dict[str, Any]] = []
    for name, values in distances.items():
        for seed, value in enumerate(values):
            for nfe in run.NFES:
                found.append({"task": "points", "seed": seed, "method": name, "nfe": nfe, "distance": value / nfe,
                              "status": "ok", "steps": 9, "seconds_per_step": 0.002})  # fmt: skip
    return pd.DataFrame(found)


def test_the_table_says_less_only_where_the_interval_does() -> None:
    frame = rows(teacher=[1.0, 1.1, 0.9], good=[0.5, 0.54, 0.46], alike=[0.9, 1.3, 0.8], data=[0.1, 0.1, 0.1])
    text = table(POINTS, frame)
    lines = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if line.startswith("| ")}
    assert "less" in lines["good"]
    assert "× 0.5 [" in lines["good"]
    assert "not told apart" in lines["alike"]
    assert "data" not in lines
    assert "these networks, not the method" in table(POINTS, frame[frame["seed"] < 2])
    frame.loc[(frame["method"] == "good") & (frame["seed"] == 1), "status"] = "diverged"
    assert "diverged in 1 of 3" in table(POINTS, frame)


def test_the_files_that_are_written(tmp_path: Path) -> None:
    frame = rows(teacher=[1.0, 1.1, 0.9], good=[0.5, 0.5, 0.4], data=[0.1, 0.1, 0.1])
    samples = {"data": POINTS.held_out()[0], "good at 1": POINTS.held_out()[0]}
    paths = write({"points": (POINTS, frame, samples)}, tmp_path, "Made here.")
    assert [path.name for path in paths] == ["table.md", "figures.csv", "picture.png"]
    assert paths[0].read_text(encoding="utf-8").startswith("Made here.")
    assert len(pd.read_csv(paths[1])) == len(frame)
    assert paths[2].read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--task", "point"], "no task is called 'point': did you mean 'points'?"),
        (["--method", "reflwo"], "no method that learns from a teacher is called 'reflwo': did you mean 'reflow'"),
        (["--method", "teacher"], "no method that learns"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(arguments: list[str], told: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["other-tasks", *arguments, "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert told in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", ["points", "digits"])
def test_the_command_in_few_steps(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "digits":
        pytest.importorskip("sklearn")
    task: Callable[[], Task] = lambda: small(TASKS[name], 60, 20)  # noqa: E731
    monkeypatch.setitem(TASKS, name, task())
    out = tmp_path / "out"
    result = CliRunner().invoke(main, ["other-tasks", "--task", name, "--seeds", "2", "--out", str(out)])
    assert result.exit_code == 0, result.output
    found = pd.read_csv(out / "figures.csv")
    assert {*found["method"]} == {"teacher", "data", *run.students()}
    assert (found.groupby("method").size().drop("data") == 2 * len(run.NFES)).all()
    assert found["distance"].notna().all()
    assert "recognised" not in found or found["recognised"].between(0, 1).all()
