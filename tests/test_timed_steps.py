"""Steps that minutes were turned into: they are those of one training, and another of the same name is timed anew."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from imfbench.config import ExperimentConfig, load
from imfbench.config_file import ConfigError
from imfbench.pipeline import train_task
from imfbench.pipeline.context import Context
from imfbench.pipeline.plan import step_content
from imfbench.pipeline.train import train_artefact
from imfbench.store import RunFolder

K = "systems.pupil.config.teacher_nfe"


@pytest.fixture
def timed(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration with a teacher and a student by minutes, and a run folder in which both were timed: 2 steps and 3."""
    monkeypatch.setattr(train_task, "budget_to_steps", lambda *_: 2)
    pupil = {"method": "intmeanflow", "name": "pupil", "config": {"teacher_nfe": 2}, "nfe": [1]}
    path = tiny.config(
        systems=[*tiny.trained, pupil],
        teacher={"artefact": "own", "nfe": [2]},
        training={"minutes": 0.5, "frames_per_batch": 400},
        references=[],
    )
    context = Context(load(str(path)), RunFolder(tiny.out))
    systems = [
        system.model_copy(update={"train": {"steps": i + 2}, "timed_minutes": 0.5})
        for i, system in enumerate(context.config.systems)
    ]
    tiny.out.mkdir()
    context.record(context.config.model_copy(update={"systems": systems}))
    return path


def steps(path: Path, out: Path, *settings: str) -> dict[str, int | None]:
    """System → steps that are known before anything is timed."""
    config = Context(load(str(path), settings), RunFolder(out)).config
    return {system.label: system.train.get("steps") for system in config.systems}


@pytest.mark.parametrize(
    ("changes", "known"),
    [
        ((), {"own": 2, "pupil": 3}),
        (("training.seed=7", "training.save_every=9", "systems.pupil.nfe=[4]"), {"own": 2, "pupil": 3}),
        (("systems.pupil.config.guidance=2",), {"own": 2, "pupil": 3}),  # the default, written out
        ((f"{K}=4",), {"own": 2, "pupil": None}),
        (("training.frames_per_batch=800",), {"own": None, "pupil": None}),
        (("systems.pupil.train.precision=bf16",), {"own": 2, "pupil": None}),
        (("systems.own.network.config.depth=2",), {"own": None, "pupil": None}),  # which is the student's network too
        (("training.minutes=0.6",), {"own": None, "pupil": None}),
    ],
)
def test_recorded_steps_are_those_of_the_same_training(
    timed: Path, tiny: Any, changes: tuple[str, ...], known: dict[str, int | None]
) -> None:
    """By the folder's record, and by the recorded experiment itself, here and elsewhere."""
    recorded = tiny.out / "experiment.yaml"
    assert steps(timed, tiny.out, *changes) == known
    assert steps(recorded, tiny.out, *changes) == known
    assert steps(recorded, tiny.folder / "elsewhere", *changes) == known


def test_a_record_that_was_edited_by_hand_is_not_believed(timed: Path, tiny: Any) -> None:
    recorded = tiny.out / "experiment.yaml"
    recorded.write_text(recorded.read_text().replace("teacher_nfe: 2", "teacher_nfe: 4"))
    assert steps(recorded, tiny.out) == {"own": 2, "pupil": None}
    assert steps(timed, tiny.out, f"{K}=4") == {"own": 2, "pupil": None}


def test_a_record_from_before_contents_were_recorded_is_compared_by_its_own(timed: Path, tiny: Any) -> None:
    recorded = tiny.out / "experiment.yaml"
    values = yaml.safe_load(recorded.read_text())
    for system in values["systems"]:
        assert system.pop("timed_for")
    recorded.write_text(yaml.safe_dump(values))
    assert steps(timed, tiny.out) == {"own": 2, "pupil": 3}
    assert steps(timed, tiny.out, f"{K}=4") == {"own": 2, "pupil": None}
    assert steps(recorded, tiny.folder / "elsewhere") == {"own": 2, "pupil": 3}
    values["systems"][1]["method"] = "gone"
    recorded.write_text(yaml.safe_dump(values))
    assert steps(timed, tiny.out) == {"own": 2, "pupil": None}


def test_what_was_timed_for_is_no_part_of_what_decides_the_figures(timed: Path, tiny: Any) -> None:
    """Hashes of before stay, and an experiment without timed steps is written as it was."""
    values = yaml.safe_load((tiny.out / "experiment.yaml").read_text())
    with_it = ExperimentConfig.model_validate(values)
    for system in values["systems"]:
        del system["timed_for"]
    without = ExperimentConfig.model_validate(values)
    assert with_it.hash == without.hash
    assert "timed_for:" in with_it.dump()
    assert "timed_for:" not in without.dump()
    assert step_content(with_it, 1) == step_content(without, 1)


def test_another_training_of_the_same_name_is_refused_and_never_gets_its_steps(
    timed: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder that stands in its way may be removed as the message says: then it is timed."""
    (tiny.out / "experiment.yaml").unlink()
    own = tiny.config("own.yaml", systems=tiny.trained, training={"minutes": 0.5, "frames_per_batch": 400})
    train_artefact(Context(load(str(own)), RunFolder(tiny.out)), "own")
    changed = ("training.frames_per_batch=500",)
    with pytest.raises(ConfigError, match=r"frames_per_batch 400 → 500"):
        train_artefact(Context(load(str(own), changed), RunFolder(tiny.out)), "own")
    shutil.rmtree(tiny.out / "artefacts" / "own")
    asked: list[Any] = []
    monkeypatch.setattr(train_task, "budget_to_steps", lambda *given: asked.append(given) or 1)
    context = Context(load(str(own), changed), RunFolder(tiny.out))
    train_artefact(context, "own")
    assert len(asked) == 1
    assert context.config.systems[0].train["steps"] == 1
