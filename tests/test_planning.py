"""``imfbench plan``: sums that hold, estimates that are near what is measured, and true shapes on a small machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner

from imfbench.building import build_method
from imfbench.cli import main
from imfbench.cli_plan import _table
from imfbench.config import load
from imfbench.config_file import ConfigError
from imfbench.pipeline.planning import plan_experiment
from imfbench.profiling import trainings
from imfbench.profiling.trainings import Sizes, price
from imfbench.train_settings import TrainConfig

CPU = torch.device("cpu")
SHAPE = {"dim": 64, "depth": 2, "heads": 2}


def sizes(method: str = "intmeanflow", config: dict[str, Any] | None = None, **settings: Any) -> Sizes:
    given = {"steps": 10, "frames_per_batch": 400, "precision": "fp32", **settings}
    return Sizes(method, config or {}, "dit", SHAPE, TrainConfig(**given))


def test_parts_add_up_and_are_those_of_the_network() -> None:
    found = price(sizes(), CPU, measure=False, flops_per_second=1e12)
    student = build_method("intmeanflow", {}, build_method("teacher", backbone_config=SHAPE), "dit", SHAPE).network
    weights = sum(p.numel() for p in student.parameters())
    buffers = sum(b.numel() for b in student.buffers())
    assert (found.parameters, found.trained, found.average) == (weights, weights, weights)
    assert found.teacher == weights - 2 * 64 * 64, "without the mixer of the second time"
    assert found.memory["weights"] == 4 * (weights + buffers)
    assert found.memory["gradients"] == 4 * weights
    assert found.memory["optimiser"] == 8 * weights
    assert sum(found.memory.values()) == found.peak
    assert found.seconds == pytest.approx(found.flops / (1e12 * trainings.EFFICIENCY))
    assert found.seconds_kind.startswith("estimate: ")


def test_characters_of_a_priced_batch_are_in_the_networks_table() -> None:
    """F5-TTS reads one text without a sign between prompt and target: such a sign would be outside of its embedding."""
    pytest.importorskip("f5_tts")
    shape = {"dim": 32, "depth": 1, "heads": 2, "text_dim": 16, "text_num_embeds": 4, "conv_layers": 1}
    small = Sizes(
        "intmeanflow", {}, "f5tts", shape, TrainConfig(steps=1, frames_per_batch=200, precision="fp32"), "text2mel"
    )
    assert price(small, CPU).seconds_kind == "measured"


@pytest.mark.slow
def test_memory_savers_are_seen_in_their_parts() -> None:
    plain = price(sizes(), CPU, measure=False, flops_per_second=1e12)
    rounded = price(sizes(teacher_dtype="bf16"), CPU, measure=False, flops_per_second=1e12)
    assert rounded.memory["teacher"] < 0.6 * plain.memory["teacher"]
    assert rounded.teacher == plain.teacher
    again = price(sizes(checkpoint_activations=True), CPU, measure=False, flops_per_second=1e12)
    assert again.memory["activations"] < plain.memory["activations"]
    assert again.flops > plain.flops


def test_an_estimate_is_near_what_is_measured_and_says_which_it_is() -> None:
    guessed = price(sizes(accumulate=2), CPU, measure=False, flops_per_second=1e12)
    measured = price(sizes(accumulate=2), CPU)
    assert (guessed.peak_kind, measured.peak_kind) == ("estimate", "cpu-live-tensors")
    assert measured.seconds_kind == "measured"
    assert guessed.peak == pytest.approx(measured.peak, rel=0.03)
    assert guessed.flops == measured.flops


def test_many_teacher_steps_are_reckoned_from_two(monkeypatch: pytest.MonkeyPatch) -> None:
    reckoned = price(sizes(config={"teacher_nfe": 6}), CPU, measure=False, flops_per_second=1e12)
    monkeypatch.setattr(trainings, "teacher_nfe", lambda _: None)
    followed = price(sizes(config={"teacher_nfe": 6}), CPU, measure=False, flops_per_second=1e12)
    assert reckoned.flops == pytest.approx(followed.flops, rel=1e-3)
    assert reckoned.peak == pytest.approx(followed.peak, rel=0.02)


def test_what_does_not_fit_or_takes_long_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainings, "available_memory", lambda _: 1000)
    found = price(sizes("teacher"), CPU)
    assert found.seconds_kind.startswith("estimate")
    assert "not run: needs about" in found.note
    monkeypatch.undo()
    monkeypatch.setattr(trainings, "matrix_product_speed", lambda *_: 1e3)
    assert "not run: a step is reckoned to take more than" in price(sizes("teacher"), CPU).note


def experiment(folder: Path, **changes: Any) -> Path:
    network = {"name": "dit", "config": SHAPE}
    values = {
        "name": "planned",
        "dataset": {"limit": 2, "prefer_short": True},
        "teacher": "base",
        "training": {"steps": 100, "frames_per_batch": 400, "precision": "fp32"},
        "systems": [
            {"method": "teacher", "name": "base", "network": network},
            {"method": "intmeanflow", "seeds": [0, 1], "nfe": [1]},
            {"method": "meanflow", "train": {"minutes": 2, "steps": None}, "nfe": [1]},
        ],
        "metrics": ["sim"], "vocoder": "griffin-lim", "references": [], "device": "cpu", "threads": 1,
        **changes,
    }  # fmt: skip
    path = folder / "planned.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def test_a_plan_of_an_experiment_has_every_training_and_the_whole(tmp_path: Path) -> None:
    words = ["plan", str(experiment(tmp_path)), "--out", str(tmp_path / "run"), "--format", "json", "--no-measuring"]
    result = CliRunner().invoke(main, [*words, "--tflops", "0.1"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    rows = {row["name"]: row for row in found["trainings"]}
    assert list(rows) == ["base", "intmeanflow-seed0", "intmeanflow-seed1", "meanflow"]
    assert rows["base"]["teacher"] == 0 < rows["intmeanflow-seed0"]["teacher"] == rows["base"]["parameters"]
    assert rows["intmeanflow-seed0"]["seconds"] == rows["intmeanflow-seed1"]["seconds"]
    assert rows["base"]["training_seconds"] == pytest.approx(100 * rows["base"]["seconds"])
    assert rows["meanflow"]["training_seconds"] == 120, "a budget of minutes is what it takes"
    assert rows["meanflow"]["steps"] == round(120 / rows["meanflow"]["seconds"])
    stages = {stage["stage"]: stage for stage in found["stages"]}
    assert stages["train"]["seconds"] == pytest.approx(sum(row["training_seconds"] for row in rows.values()))
    assert stages["train"]["disk"] > 4 * 5 * sum(row["trained"] for row in rows.values()) * 0.99
    assert "estimated" in stages["train"]["sources"]
    assert not (tmp_path / "run").exists(), "a plan writes nothing"


def test_a_run_that_was_moved_is_planned_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Path] = []

    def planned(_: Any, folder: Path, **__: Any) -> None:
        seen.append(folder)
        raise ConfigError("looked there")

    monkeypatch.setattr("imfbench.pipeline.planning.plan_experiment", planned)
    moved = tmp_path / "moved"
    moved.mkdir()
    experiment(tmp_path).rename(moved / "experiment.yaml")
    (moved / "manifest.json").write_text("{}")
    CliRunner().invoke(main, ["plan", str(moved)])
    (moved / ".lock").touch()
    for words in ([], ["--out", str(tmp_path / "other")]):
        assert "looked there" in CliRunner().invoke(main, ["plan", str(moved), *words]).output
    assert seen == [Path("runs/planned"), moved, tmp_path / "other"], "a published folder is made again elsewhere"


def test_the_table_says_what_is_estimated_and_what_a_budget_would_cut(tmp_path: Path) -> None:
    path = experiment(tmp_path, systems=[{"method": "teacher", "name": "base", "network": {"config": SHAPE}}])
    plan = plan_experiment(load(str(path)), tmp_path / "run", measure=False, flops_per_second=1e12)
    shown = _table(plan)
    assert "base" in shown
    assert "teacher on dit" in shown
    assert "estimate: " in shown
    result = CliRunner().invoke(main, ["plan", str(path), "--no-measuring", "--tflops", "1", "--memory", "10MB"])
    assert result.exit_code == 0, result.output
    assert "are there whatever the batch" in result.output


def test_a_teacher_that_is_not_here_needs_a_network_in_its_place(tmp_path: Path) -> None:
    systems = [{"method": "intmeanflow", "nfe": [1]}]
    path = experiment(tmp_path, teacher=str(tmp_path / "nowhere"), systems=systems)
    words = ["plan", str(path), "--no-measuring", "--tflops", "1"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert "--network NAME" in result.output
    assert "did you mean 'dit'" in CliRunner().invoke(main, [*words, "--network", "dti"]).output
    result = CliRunner().invoke(main, [*words, "--network", "dit", "--format", "json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["trainings"][0]["teacher"] > 8e6
    assert found["everything"] is None
    assert any("the whole experiment is not known" in note for note in found["notes"])


@pytest.mark.parametrize(
    ("words", "told"), [(["--tflops", "0"], "tflops"), (["--memory", "a lot"], "no size of memory")]
)
def test_the_command_refuses_with_words(tmp_path: Path, words: list[str], told: str) -> None:
    result = CliRunner().invoke(main, ["plan", str(experiment(tmp_path)), *words])
    assert result.exit_code == 2
    assert told in result.output
    assert "Traceback" not in result.output


@pytest.mark.slow
@pytest.mark.parametrize(("backbone", "package", "millions"), [
    ("f5tts", "f5_tts", (337, 341)), ("cosyvoice2", "cosyvoice", (110, 125)),
])  # fmt: skip
def test_published_networks_are_planned_at_their_true_shapes(
    backbone: str, package: str, millions: tuple[int, int]
) -> None:
    """Of a network that the machine might not hold four times, with a teacher in bf16 and recomputed activations."""
    pytest.importorskip(package)
    settings = TrainConfig(
        steps=1, frames_per_batch=8000, precision="bf16", teacher_dtype="bf16", checkpoint_activations=True
    )
    task = "text2mel" if backbone == "f5tts" else "token2mel"
    found = price(Sizes("intmeanflow", {"teacher_nfe": 16}, backbone, {}, settings, task), CPU, False, 4e14)
    low, high = millions
    assert low < found.parameters / 1e6 < high
    assert found.trained < found.parameters, "the encoder is frozen"
    assert found.memory["optimiser"] == 8 * found.trained
    assert found.peak > 16 * found.trained
    assert found.note == ""
