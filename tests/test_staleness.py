"""An experiment that was edited: networks and grids of its former settings are not taken for those of the present ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from imfbench.artefact import save_artefact
from imfbench.building import build_method
from imfbench.pipeline.score import table
from imfbench.store import read_json, write_json

OTHERS = "failed: the grid that is there was found by another search or for another network"


def rows(tiny: Any) -> dict[str, str]:
    """System → status of its row."""
    table = json.loads((tiny.out / "leaderboard" / "leaderboard.json").read_text())
    return {row["system"]: row["status"] for row in (table["rows"] if isinstance(table, dict) else table)}


def trained(tiny: Any, **changes: Any) -> list[dict[str, Any]]:
    return [{**tiny.trained[0], **changes}]


def test_rows_of_a_network_that_was_trained_otherwise_say_so(tiny: Any) -> None:
    """Steps, network, seed and the method's settings; what decides nothing may be changed, and a change back helps."""
    small = {"name": "dit", "config": {"dim": 16, "depth": 1, "heads": 2, "content_layers": 1}}
    assert tiny.invoke(tiny.config(systems=tiny.trained, references=[])).exit_code == 0
    for systems, told in (
        (trained(tiny, train={"steps": 9}), "training.steps 4, now 9"),
        (trained(tiny, train={"learning_rate": 0.5}), "training.learning_rate 0.0003, now 0.5"),
        (trained(tiny, network=small), "network.config.dim 32, now 16"),
        (trained(tiny, config={"condition_dropout": 0.4}), "method_config.condition_dropout 0.2, now 0.4"),
    ):
        made = tiny.invoke(tiny.config(systems=systems, references=[]), command="report")
        assert rows(tiny)["own"].startswith("failed: own was trained with other settings ("), made.output
        assert told in rows(tiny)["own"]
    assert tiny.invoke(tiny.config(systems=trained(tiny, train={"save_every": 3})), command="report").exit_code == 0
    assert rows(tiny)["own"] == "ok"


def students(tiny: Any, **changes: Any) -> list[dict[str, Any]]:
    return [{"method": "intmeanflow", "name": "student", "nfe": [1], **changes}]


def test_a_student_of_another_beginning_or_teacher_is_refused(tiny: Any) -> None:
    teacher = {"artefact": str(tiny.artefact()), "nfe": []}
    run = {"references": [], "teacher": teacher}
    assert tiny.invoke(tiny.config(systems=students(tiny), **run)).exit_code == 0
    shutil.copytree(tiny.artefact(), tiny.folder / "other")
    method = build_method("teacher", backbone_config={"dim": 32, "depth": 1, "heads": 2}, seed=7)
    save_artefact(tiny.folder / "other", "teacher", method, {"name": "other", "task": "token2mel"})
    other = {"references": [], "teacher": {**teacher, "artefact": str(tiny.folder / "other")}}
    for changes, told in (
        ({**run, "systems": students(tiny, second_time="random")}, "second_time 'identity', now 'random'"),
        (
            {**run, "systems": students(tiny, train={"teacher_dtype": "bf16"})},
            "training.teacher_dtype 'fp32', now 'bf16'",
        ),
        ({**run, "systems": students(tiny), "train_data": {"options": {"speeds": [1.0, 0.9]}}}, "train_data.options"),
        ({**other, "systems": students(tiny)}, "teacher_sha256"),
    ):
        tiny.invoke(tiny.config(**changes), command="report")
        assert told in rows(tiny)["student"]
    tiny.invoke(tiny.config(systems=students(tiny), **run), command="report")
    assert rows(tiny)["student"] == "ok"


def test_what_diverged_by_other_settings_is_not_told_of_the_present_ones(tiny: Any) -> None:
    assert tiny.invoke(tiny.config(systems=tiny.trained, references=[])).exit_code == 0
    status = tiny.out / "artefacts" / "own" / "status.json"
    write_json(status, {**read_json(status), "status": "diverged", "reason": "loss"})
    tiny.invoke(tiny.config(systems=trained(tiny, train={"learning_rate": 1e-5}), references=[]), command="report")
    assert rows(tiny)["own"].startswith("failed: own was trained with other settings (training.learning_rate")
    tiny.invoke(tiny.config(systems=tiny.trained, references=[]), command="report")
    assert rows(tiny)["own"] == "diverged"


def test_data_that_were_moved_are_the_same_by_their_revision(tiny: Any) -> None:
    run = {"systems": tiny.trained, "references": []}
    root = tiny.corpus()
    assert tiny.invoke(tiny.config(**run, train_data={"options": {"root": str(root)}})).exit_code == 0
    root.rename(tiny.folder / "moved")
    tiny.invoke(tiny.config(**run, train_data={"options": {"root": str(tiny.folder / "moved")}}), command="report")
    assert rows(tiny)["own"] == "ok"


@pytest.fixture
def searched(tiny: Any) -> dict[str, Any]:
    """A run with a grid that was searched for a network that it trained."""
    search = {"method": "o3s", "nfe": [2], "score": "sim", "config": {"max_evaluations": 3}}
    run = {"systems": trained(tiny, nfe=[1], search=search), "references": []}
    assert tiny.invoke(tiny.config(**run)).exit_code == 0
    assert rows(tiny) == {"own": "ok", "own+o3s": "ok"}
    return run


def test_another_searchs_grid_is_not_sampled_with(tiny: Any, searched: dict[str, Any]) -> None:
    path = tiny.out / "grids" / "own+o3s-2.json"
    found = read_json(path)
    asked = found["recipe"]
    for recipe, status in (
        ({**asked, "artefact_sha256": "0" * 64}, OTHERS),
        ({**asked, "noise_seed": 3}, OTHERS),
        ({**asked, "signatures": {"sim": "sim-v0|of:another"}, "dtype": "bfloat16"}, "ok"),  # `search` compares them
        (asked, "ok"),
    ):
        write_json(path, {**found, "recipe": recipe, "recipe_hash": "0" * 64})
        tiny.invoke(tiny.config(**searched), command="report")
        assert rows(tiny)["own+o3s"].startswith(status)
        assert rows(tiny)["own"] == "ok"
    # Another score, and the search for it fails: the reason stands in its row, not the former grid's figures.
    other = [
        {**searched["systems"][0], "search": {**searched["systems"][0]["search"], "config": {"max_evaluations": 2}}}
    ]
    tiny.invoke(tiny.config(**{**searched, "systems": other}), command="report")
    assert rows(tiny)["own+o3s"].startswith(OTHERS)


def test_a_network_trained_anew_does_not_get_the_grid_of_the_former_one(tiny: Any, searched: dict[str, Any]) -> None:
    shutil.rmtree(tiny.out / "artefacts" / "own")
    again = {**searched, "systems": [{**searched["systems"][0], "train": {"seed": 5}}]}
    for command in ("train", "synthesize", "score", "report"):
        tiny.invoke(tiny.config(**again), command=command)
    assert rows(tiny)["own"] == "ok"
    assert rows(tiny)["own+o3s"].startswith(OTHERS)
    assert tiny.invoke(tiny.config(**again)).exit_code == 0
    assert rows(tiny)["own+o3s"] == "ok"


def test_the_peak_of_another_device_does_not_stand_beside_speech_that_is_made_again(tiny: Any) -> None:
    path = tiny.config(references=[])
    assert tiny.invoke(path).exit_code == 0
    (file,) = tiny.out.glob("cells/*/cell.json")
    own = read_json(file)
    assert own["peak_memory_kind"] == "cpu-live-tensors"
    write_json(file, {**own, "peak_memory": 7, "peak_memory_kind": "cuda-peak-allocated"})
    for overwrite, expected in (("only-missing", 7), ("always", own["peak_memory"])):
        assert tiny.invoke(path, f"overwrite={overwrite}").exit_code == 0
        assert read_json(file)["peak_memory"] == expected


@pytest.mark.parametrize(("kind", "taken"), [("cpu-live-tensors", True), ("cuda-peak-allocated", False)])
def test_a_peak_is_taken_over_from_the_same_kind_of_device(tiny: Any, kind: str, taken: bool) -> None:
    """Of an equal row in another experiment of the run."""
    assert tiny.invoke(tiny.config(references=[])).exit_code == 0
    (file,) = tiny.out.glob("cells/*/cell.json")
    write_json(file, {**read_json(file), "peak_memory": 7, "peak_memory_kind": kind})
    assert tiny.invoke(tiny.config(references=[], then=[{"name": "more"}])).exit_code == 0
    (other,) = (path for path in tiny.out.rglob("cell.json") if path != file)
    assert (read_json(other)["peak_memory"] == 7) == taken


def test_clusters_are_of_the_speakers_that_the_list_has_now(tmp_path: Path) -> None:
    """The list of the first run did not tell them, so that each prompt was a speaker; audio and scores stay."""
    before = {"id": "u0", "text": "a", "speaker": "prompt-0", "status": "ok", "audio_sha256": "0", "seconds": 1.0}
    journal = SimpleNamespace(rows=lambda: {"u0": before})
    cell = SimpleNamespace(folder=SimpleNamespace(journal=journal, table=tmp_path / "none"))
    now = SimpleNamespace(id="u0", text="a", speaker="somebody")
    found = table(cell, [now], "not made")  # type: ignore[arg-type, list-item]
    assert found.loc[0, ["speaker", "audio_sha256", "status"]].tolist() == ["somebody", "0", "ok"]
