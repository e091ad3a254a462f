"""An experiment that was edited: networks and grids of its former settings are not taken for those of the present ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

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
        (trained(tiny, network=small), "network "),
        (trained(tiny, config={"condition_dropout": 0.4}), "method_config.condition_dropout 0.2, now 0.4"),
    ):
        made = tiny.invoke(tiny.config(systems=systems, references=[]), command="report")
        assert rows(tiny)["own"].startswith("failed: own was trained with other settings ("), made.output
        assert told in rows(tiny)["own"]
    assert tiny.invoke(tiny.config(systems=trained(tiny, train={"save_every": 3})), command="report").exit_code == 0
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
    for recipe, status in (
        ("0" * 64, OTHERS),
        (found["recipe_hash"], "ok"),
    ):
        write_json(path, {**found, "recipe_hash": recipe})
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
