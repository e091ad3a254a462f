"""Trainings that fit the machine, by the command line: several processes, a budget of memory, and memory that runs out."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from imfbench.artefact import load_artefact, save_artefact
from imfbench.building import build_method
from imfbench.config import load
from imfbench.pipeline import synthesise, train_task
from imfbench.pipeline.cells import cell_of
from imfbench.pipeline.context import Context
from imfbench.pipeline.train import FITTED
from imfbench.store import RunFolder, read_json, write_json
from imfbench.training import Training

TRAINING = {"steps": 3, "frames_per_batch": 500, "accumulate": 2, "precision": "fp32", "log_every": 1}


def trained(tiny: Any, name: str) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_artefact(tiny.folder / name / "artefacts" / "own")[0].network.state_dict()
    return found


def test_a_run_in_two_processes_trains_the_network_of_a_run_in_one(tiny) -> None:  # type: ignore[no-untyped-def]
    path = tiny.config(systems=tiny.trained, references=[], training=TRAINING)
    for name, processes in (("one", 1), ("two", 2)):
        result = tiny.invoke(path, f"training.processes={processes}", command="train", out=tiny.folder / name)
        assert result.exit_code == 0, result.output
        status = read_json(tiny.folder / name / "artefacts" / "own" / "status.json")
        assert (status["status"], status["steps"], status["processes"]) == ("ok", 3, processes)
    one, two = trained(tiny, "one"), trained(tiny, "two")
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, atol=2e-5, rtol=0)
    recipes = [read_json(tiny.folder / name / "artefacts" / "own" / "recipe.json") for name in ("one", "two")]
    assert recipes[0] == recipes[1], "how many share a training is no part of what it learns"


def test_processes_that_cannot_be_are_refused_before_anything_begins(tiny, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    path = tiny.config(systems=tiny.trained, references=[], training=TRAINING)
    told = tiny.refused(path, "training.processes=3")
    assert "accumulate = 3 with frames_per_batch = 333 keeps the step's size" in told
    told = tiny.refused(path, "training.processes=2", "workers=2")
    assert "workers = 2 train several side by side" in told
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert "--set training.processes=4" in tiny.refused(path)
    assert not (tiny.out / "artefacts").exists()


def test_a_budget_of_memory_cuts_batches_and_is_kept_by_a_repeated_command(
    tiny, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    path = tiny.config(systems=tiny.trained, references=[], training={**TRAINING, "frames_per_batch": 3000, "steps": 1})
    assert tiny.invoke(path, command="train", out=tiny.folder / "whole").exit_code == 0
    budget = round(0.7 * read_json(tiny.folder / "whole" / "artefacts" / "own" / "status.json")["peak_memory"])
    memory = f"training.memory={budget}"
    result = tiny.invoke(path, memory, command="train")
    assert result.exit_code == 0, result.output
    folder = tiny.out / "artefacts" / "own"
    recipe = read_json(folder / "recipe.json")
    cut = recipe["training"]
    assert cut["accumulate"] > 2
    assert 6000 <= cut["accumulate"] * cut["frames_per_batch"] < 6000 + cut["accumulate"]
    assert recipe[FITTED]["peak"] < budget
    assert "memory" not in cut
    assert read_json(folder / "status.json")["peak_memory"] < budget, "and its training, measured by itself, fits"
    with monkeypatch.context() as patch:
        patch.setattr(train_task, "fit", lambda *_: pytest.fail("measured again"))
        assert tiny.invoke(path, memory, command="train").exit_code == 0
    told = tiny.refused(path, "training.memory=4000GB", out=tiny.folder / "other")
    assert "are free" in told


def test_tables_show_the_batches_that_were_used_and_not_those_that_were_asked_for(tiny) -> None:  # type: ignore[no-untyped-def]
    """``training.memory`` made smaller ones of them: the recipe tells of a training that diverged, else the card."""
    path = tiny.config(systems=tiny.trained, references=[], training={**TRAINING, "memory": "1GB"})
    context = Context(load(str(path)), RunFolder(tiny.out))
    (row,) = context.plan.rows.values()
    folder = tiny.out / "artefacts" / "own"
    assert cell_of(context, row).about["train_frames_per_batch"] == 500
    write_json(folder / "recipe.json", {"training": {"frames_per_batch": 125}, FITTED: {"frames_per_batch": 125}})
    write_json(folder / "status.json", {"status": "diverged", "steps": 2})
    assert cell_of(context, row).about["train_frames_per_batch"] == 125
    (folder / "recipe.json").unlink()
    method = build_method("teacher", backbone_config=tiny.trained[0]["network"]["config"])
    save_artefact(folder, "teacher", method, {"name": "own", "task": "token2mel", "config": {"frames_per_batch": 250}})
    write_json(folder / "status.json", {"status": "ok", "steps": 3})
    assert cell_of(context, row).about["train_frames_per_batch"] == 250


def test_what_is_there_already_is_looked_up_once(tiny, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    """And not for each utterance, as each time the whole journal is read and every file looked for."""
    path = tiny.config(systems=[], references=["ground-truth"], dataset={"limit": 5, "prefer_short": True})
    context = Context(load(str(path)), RunFolder(tiny.out))
    looked, done = [], synthesise.done
    monkeypatch.setattr(synthesise, "done", lambda cell: (looked.append(cell), done(cell))[1])
    synthesise.synthesise(context, "ground-truth")
    (cell,) = looked
    assert len(done(cell)) == 5


def test_a_budget_that_nothing_fits_into_says_what_to_change(tiny) -> None:  # type: ignore[no-untyped-def]
    path = tiny.config(systems=tiny.trained, references=[], training=TRAINING)
    told = tiny.refused(path, "training.memory=1MB")
    assert "too little: with the smallest batches" in told
    assert "training.checkpoint_activations=true" in told


def test_memory_that_runs_out_is_told_in_measured_numbers(tiny, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    path = tiny.config(systems=tiny.trained, references=[], training=TRAINING)
    gradients = Training.gradients

    def short(self: Training, *arguments: Any) -> Any:
        if self.step == 2 and self.folder.name == "own":
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4000000000 bytes")
        return gradients(self, *arguments)

    monkeypatch.setattr(Training, "gradients", short)
    monkeypatch.setattr(train_task, "available_memory", lambda _: 1_500_000_000)
    told = tiny.refused(path)
    measured = json.loads((tiny.out / "artefacts" / "own" / "step_memory.json").read_text())["bytes"]
    assert (
        f"at most 500 frames a batch, 4 GB more were asked for, a step took {measured / 1e9:.3g} GB when it was" in told
    )
    assert "1.5 GB are free" in told
    assert "Lower training.frames_per_batch (now 500) and raise training.accumulate (now 2)" in told
