"""The real pipeline from end to end, small: the shipped teacher, two-step trainings, a search, real scorers, the leaderboard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner

from imfbench.cli import main

ROWS = {
    ("ground-truth", None),
    ("vocoded-ground-truth", None),
    *{("teacher", nfe) for nfe in (32, 3, 2, 1)},
    *{("meanflow", nfe) for nfe in (1, 2)},
    *{("intmeanflow", nfe) for nfe in (1, 2, 3)},
    ("intmeanflow+o3s", 2),
}
TEXT_ROWS = {
    ("ground-truth", None),
    ("vocoded-ground-truth", None),
    *{("teacher", nfe) for nfe in (16, 3, 1)},
    *{(method, nfe) for method in ("meanflow", "intmeanflow") for nfe in (1, 3)},
}
SHORT = {
    ("ground-truth", None),
    ("vocoded-ground-truth", None),
    ("teacher", 32),
    ("teacher", 1),
    ("meanflow", 1),
    ("intmeanflow", 2),
    ("intmeanflow+o3s", 2),
}
SETTINGS = ["training.steps=2", "workers=1", "dev.limit=2", "systems.intmeanflow.search.config.max_evaluations=4"]
FEWER = [
    "then=[]", "teacher.nfe=[32, 1]", "systems.meanflow.nfe=[1]", "systems.intmeanflow.nfe=[2]", "training.frames_per_batch=400",
]  # fmt: skip


@pytest.fixture(scope="module", params=["short", pytest.param("whole", marks=pytest.mark.slow)])
def whole(request: pytest.FixtureRequest) -> bool:
    """All rows of the quickstart, or those of one task that cost least and hold one of every kind."""
    return bool(request.param == "whole")


@pytest.fixture(scope="module")
def out(whole: bool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of ``imfbench run quickstart --limit 1`` with two-step trainings."""
    folder = tmp_path_factory.mktemp("quickstart")
    settings = [*SETTINGS, *([] if whole else FEWER), f"score_cache={folder / 'scores'}"]
    given = [part for text in settings for part in ("--set", text)]
    arguments = ["run", "quickstart", "--limit", "1", *given, "--out", str(folder / "out")]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return folder / "out"


@pytest.fixture(scope="module")
def rows(out: Path) -> dict[tuple[str, int | None], dict[str, Any]]:
    """(system, NFE) → summary."""
    found = [json.loads(path.read_text()) for path in out.glob("cells/*/summary.json")]
    return {(row["system"], row["nfe"]): row for row in found}


@pytest.fixture(scope="module")
def text_rows(out: Path) -> dict[tuple[str, int | None], dict[str, Any]]:
    """(system, NFE) → summary, of text2mel."""
    found = [json.loads(path.read_text()) for path in out.glob("text2mel/cells/*/summary.json")]
    return {(row["system"], row["nfe"]): row for row in found}


@pytest.mark.timeout(900)
def test_every_promised_row_is_there_and_well(whole: bool, rows: dict[Any, dict[str, Any]]) -> None:
    assert set(rows) == (ROWS if whole else SHORT)
    for row in rows.values():
        assert row["status"] == "ok", row
        assert (row["n_expected"], row["n_scored"]) == (1, 1), row["not_measured"]
        assert set(row["signatures"]) == {"wer", "sim", "mos", "f0cv"}


def test_scores_tell_speech_from_noise(rows: dict[Any, dict[str, Any]]) -> None:
    truth, copy = rows["ground-truth", None], rows["vocoded-ground-truth", None]
    assert truth["wer"] <= 0.1
    assert copy["wer"] <= 0.1
    assert truth["sim"] > 0.8
    assert truth["mos_distillmos"] > 3.5
    # One utterance is too few for WER to tell; the predicted MOS of one step is lower by far more than its spread.
    assert rows["teacher", 32]["mos_distillmos"] > rows["teacher", 1]["mos_distillmos"] + 0.5


def test_the_rows_of_text2mel_are_of_artefacts_that_ship(whole: bool, text_rows: dict[Any, dict[str, Any]]) -> None:
    assert set(text_rows) == (TEXT_ROWS if whole else set())
    for (system, nfe), row in text_rows.items():
        assert row["status"] == "ok", row
        assert (row["task"], row["n_scored"]) == ("text2mel", 1), row["not_measured"]
        assert row["dataset"].endswith(", true length")
        if nfe is not None:
            assert row["network_calls"] == (2 * nfe if system == "teacher" else nfe)
    # Alignment and sound out of one step: what the teacher at its own step count has, nobody has at one.
    assert not whole or text_rows["teacher", 16]["mos_distillmos"] > text_rows["teacher", 1]["mos_distillmos"] + 0.5


def test_counts_are_measured_and_students_need_no_guidance(rows: dict[Any, dict[str, Any]]) -> None:
    for (system, nfe), row in rows.items():
        if nfe is not None:
            assert (row["steps"], row["network_calls"]) == (nfe, 2 * nfe if system == "teacher" else nfe)
            assert row["guidance"] == (2.0 if system == "teacher" else 0.0)
            assert row["rtf_network"] > 0
            assert row["rtf_total"] > row["rtf_network"]
            assert row["peak_memory"] > 0
    assert {row["train_steps"] for (system, _), row in rows.items() if "meanflow" in system} == {2}


def test_the_search_kept_its_budget_and_its_trace(out: Path, rows: dict[Any, dict[str, Any]]) -> None:
    grid = json.loads((out / "grids" / "intmeanflow+o3s-2.json").read_text())
    assert grid["evaluations"] == len(grid["trace"]) == 4
    assert grid["score"] >= grid["start_score"]
    assert grid["values"] == rows["intmeanflow+o3s", 2]["grid_values"]
    assert len(grid["recipe"]["dev"][3]) == 1


def test_the_leaderboard_holds_all_rows_in_three_forms_with_plots(whole: bool, out: Path) -> None:
    folder = out / "leaderboard"
    assert len(pd.read_csv(folder / "leaderboard.csv")) == (len(ROWS) + len(TEXT_ROWS) if whole else len(SHORT))
    assert json.loads((folder / "leaderboard.json").read_text())
    assert "intmeanflow+o3s" in (folder / "leaderboard.md").read_text()
    for plot in ("quality_nfe", "pareto", "training"):
        assert (folder / f"{plot}.png").stat().st_size > 1000
