"""Sweeps that run: what a changed value makes anew, what is made once, what a plan costs, and a kill in the middle."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from imfbench import training
from imfbench.cli import main
from imfbench.config import load
from imfbench.pipeline.context import Context
from imfbench.pipeline.cost import costs_of, left_of, total
from imfbench.pipeline.measurements import LIKE, MEASURED, Figure, Measurements, step_key
from imfbench.store import RunFolder, read_json

PRICED = ("train", "search", "synthesise", "score")


def swept(tiny: Any, rates: list[float]) -> list[dict[str, Any]]:
    systems = copy.deepcopy(tiny.trained)
    systems[0]["train"] = {"learning_rate": rates}
    return systems


def made(out: Path) -> dict[str, int]:
    """Audio and weights with the time of their writing."""
    found = [*out.glob("**/cells/*/audio/*"), *out.glob("**/artefacts/*/model.safetensors")]
    return {str(path.relative_to(out)): path.stat().st_mtime_ns for path in found}


def test_a_changed_value_makes_what_depends_on_it_anew_and_equal_work_is_done_once(  # type: ignore[no-untyped-def]
    tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []
    real = training.train

    def counted(*given: Any, **named: Any) -> Any:
        trained.append(given[4].name)
        return real(*given, **named)

    monkeypatch.setattr("imfbench.pipeline.train_task.train", counted)
    again = [{**tiny.trained[0], "name": "again", "train": {"learning_rate": 1e-3}}]
    systems = swept(tiny, [1e-3, 2e-3])
    path = tiny.config(systems=systems + again, metrics=["f0cv"], noise_seeds=[0])
    assert tiny.invoke(path).exit_code == 0
    assert trained == ["own-learning_rate=0.001", "own-learning_rate=0.002"], "the third is the first once more"
    before = made(tiny.out)
    assert len([name for name in before if "audio" in name]) == 2 * (2 + 3)

    path = tiny.config(systems=swept(tiny, [1e-3, 3e-3]) + again, metrics=["f0cv"], noise_seeds=[0])
    assert tiny.invoke(path).exit_code == 0
    assert trained[2:] == ["own-learning_rate=0.003"]
    after = made(tiny.out)
    new = {name for name in after if before.get(name) != after[name] and "/.apart/" not in name}
    assert len(new) == 1 + 2, "one network and its two utterances"
    assert {row["system"] for row in tiny.leaderboard() if row["kind"] == "sampled"} == {
        "again", "own-learning_rate=0.001", "own-learning_rate=0.003",
    }  # fmt: skip

    # The same networks in two number types: nothing is trained again, and recordings are no other ones.
    path = tiny.config(systems=systems, metrics=["f0cv"], precision=["fp32", "bf16"])
    assert tiny.invoke(path).exit_code == 0
    assert len(trained) == 3
    rows = [(row["system"], row["dtype"]) for row in tiny.leaderboard()]
    assert len(rows) == len({*rows}) == 2 + 2 * 2
    shared = [path for path in tiny.out.glob("precision=bf16/cells/*/audio/*") if path.stat().st_nlink > 1]
    assert len(shared) == 4, "the audio of the references is the first experiment's"


def test_a_changed_search_finds_its_grid_anew_and_touches_nothing_else(tiny) -> None:  # type: ignore[no-untyped-def]
    ready = {"method": "teacher", "name": "own", "artefact": str(tiny.artefact()), "nfe": [2], "grid": "uniform"}

    def run(
        evaluations: int, dev: int = 1, metrics: tuple[str, ...] = ("f0cv",)
    ) -> tuple[dict[str, Any], dict[str, int]]:
        search = {"method": "o3s", "nfe": [2], "score": "sim", "config": {"max_evaluations": evaluations}}
        path = tiny.config(systems=[{**ready, "search": search}], dev={"limit": dev}, metrics=list(metrics))
        assert tiny.invoke(path).exit_code == 0
        (file,) = tiny.out.glob("grids/*.json")
        own = {
            str(read_json(cell / "cell.json")["system"]): audio.stat().st_mtime_ns
            for cell in tiny.out.glob("cells/*") for audio in cell.glob("audio/*")
        }  # fmt: skip
        return {**read_json(file), "written": file.stat().st_mtime_ns}, own

    first, audio = run(3)
    assert run(3) == (first, audio)
    scored_too = run(3, metrics=("f0cv", "sim"))
    assert scored_too == (first, audio), "a further metric searches nothing"
    for changed in ({"evaluations": 4}, {"evaluations": 4, "dev": 2}):
        grid, now = run(**changed)
        assert grid["recipe_hash"] != first["recipe_hash"]
        assert grid["written"] > first["written"]
        assert {name for name in now if now[name] != audio.get(name)} <= {"own+o3s"}
        first = grid


def test_the_cost_of_a_plan_is_its_work_times_what_was_measured(tiny) -> None:  # type: ignore[no-untyped-def]
    systems = [
        *swept(tiny, [1e-3, 2e-3]),
        {
            "method": "teacher",
            "name": "guided",
            "artefact": str(tiny.artefact()),
            "nfe": [3],
        },
    ]
    systems[0] |= {
        "nfe": [1, 4],
        "search": {"method": "o3s", "nfe": 2, "score": "sim", "config": {"max_evaluations": 7}},
    }
    context = Context(load(str(tiny.config(systems=systems))), RunFolder(tiny.out))
    left = left_of(context, {})
    found = Measurements()
    for artefact in left.trainings:
        found.keep(("step", step_key(context, artefact)), 10.0, MEASURED)
        found.keep(("training bytes", step_key(context, artefact)), 5.0, MEASURED)
        found.keep(("step memory", step_key(context, artefact)), 700.0, MEASURED)
    for key, value in (
        (("call", "other"), 1.0),
        (("vocoder", context.vocoder_name), 100.0),
        (("audio bytes", ""), 1000.0),
    ):
        found.keep(key, value, MEASURED)
    train, search, synthesise, score = costs_of(left, found, PRICED)
    assert (train.seconds, train.disk, train.memory) == (2 * 4 * 10.0, 10.0, 700.0)
    assert (search.seconds, score.seconds) == (None, None), "nobody has measured the scorer"
    found.keep(("score", "sim"), 10_000.0, MEASURED)
    found.keep(("load", "sim"), 7.0, MEASURED)
    _, search, synthesise, score = costs_of(left, found, PRICED)
    # Two searches of 7 grids on one utterance: two unguided calls with their classifier-free twins, a vocoder, a score.
    guided = 2  # tiny teachers guide by default: two calls an evaluation
    assert search.seconds == 2 * 7 * (2 * guided + 100 + 10_000)
    # Per student rows of 1, 4 and (searched) 2 evaluations; guided has 3: two utterances and two unclocked passes each.
    calls = (2 + 2) * guided * (2 * (1 + 4 + 2) + 3)
    calls += 2 * guided * 7  # and one evaluation of each of two utterances before the clock, in seven rows
    assert synthesise.seconds == calls + 2 * (7 + 1) * 100
    assert synthesise.disk == 2 * (7 + 2) * 1000
    assert synthesise.sources == {LIKE, MEASURED}
    assert score.seconds == 2 * 9 * 10_000 + 7
    assert total([train, search], 2).seconds == (80 + search.seconds) / 2
    assert found.get("call", "other") == Figure(1.0, MEASURED)


def test_a_dry_run_measures_a_first_cell_and_writes_nothing(tiny) -> None:  # type: ignore[no-untyped-def]
    path = tiny.config(systems=swept(tiny, [1e-3, 2e-3]), metrics=["f0cv"])
    result = CliRunner().invoke(main, ["run", str(path), "--dry-run", "--out", str(tiny.out)])
    assert result.exit_code == 0, result.output
    words = " ".join(result.output.split())
    assert "plan: 0 of 4 cells have their audio; 2 trainings; about" in words
    assert "not measured" not in words, result.output
    assert not tiny.out.exists()
    told = CliRunner().invoke(main, ["run", str(path), "--max-cells", "3", "--out", str(tiny.out)])
    assert told.exit_code == 2
    assert "tiny has 4 cells, with 2 trainings, and --max-cells allows 3: nothing was begun" in told.output
    assert not tiny.out.exists()


TRAINED, FIRST, LAST = (
    "artefacts/own-learning_rate=0.001/status.json",
    "cells/*/audio/*",
    "precision=bf16/cells/*/audio/*",
)


@pytest.mark.parametrize("moments", [(FIRST,), pytest.param((TRAINED, FIRST, LAST), marks=pytest.mark.slow)])
def test_a_sweep_that_is_killed_goes_on_and_ends_in_the_same_leaderboard(tiny, moments: tuple[str, ...]) -> None:  # type: ignore[no-untyped-def]
    config = {"systems": swept(tiny, [1e-3, 2e-3]), "precision": ["fp32", "bf16"]}
    program = "import sys; from imfbench.cli import main; sys.argv[0] = 'imfbench'; main()"
    flag = "-P" if sys.version_info >= (3, 11) else "-B"

    def command(name: str) -> tuple[list[str], Path]:
        path = tiny.config(f"{name}.yaml", **config, score_cache=str(tiny.folder / f"scores of {name}"))
        out = tiny.folder / name / "run"  # a leaderboard holds its folder's name
        return [sys.executable, flag, "-c", program, "run", str(path), "--out", str(out)], out

    undisturbed, whole = command("whole")
    subprocess.run(undisturbed, check=True, capture_output=True)
    disturbed, out = command("killed")
    for seen in moments:
        process = subprocess.Popen(disturbed, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        while process.poll() is None and not list(out.glob(seen)):
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    weights = {name: when for name, when in made(out).items() if "artefacts" in name}
    assert weights
    subprocess.run(disturbed, check=True, capture_output=True)
    assert {name: when for name, when in made(out).items() if name in weights} == weights
    assert read_json(out / "manifest.json")["status"] == "ok"
    assert tiny.leaderboard(out) == tiny.leaderboard(whole)
