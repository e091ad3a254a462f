"""The calibration of the statistics: the committed figures are those of the page, and the experiment is what it says it is."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

CLONE = Path(__file__).parent.parent
FOLDER = CLONE / "docs" / "results" / "calibration"


@pytest.fixture(scope="module")
def calibration() -> ModuleType:
    spec = importlib.util.spec_from_file_location("calibration", CLONE / "benchmarks" / "calibration.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def sides() -> tuple[pd.DataFrame, pd.DataFrame]:
    rows = pd.read_csv(FOLDER / "utterances.csv")
    first, second = (side.set_index("id") for _, side in rows.groupby("noise_seed"))
    return first, second


def test_the_page_has_the_committed_figures_and_they_keep_what_is_asked_for(calibration: ModuleType) -> None:
    found = json.loads((FOLDER / "calibration.json").read_text())
    assert calibration.as_markdown(found) in (CLONE / "docs" / "statistics.md").read_text(encoding="utf-8")
    assert found["comparisons"] == 1000
    assert found["planted_in_minimum_detectable"] == 2.0
    assert found["utterances"] == pd.read_csv(FOLDER / "utterances.csv")["id"].nunique()
    assert calibration.passed(found)


def test_both_sides_are_one_system_and_its_noise_is_real(
    calibration: ModuleType, sides: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    first, second = sides
    assert list(first.index) == list(second.index)
    assert (first["sim"] != second["sim"]).all()
    generator = np.random.default_rng(0)
    a, b = calibration.draw(first, second, len(first), generator)
    drawn = {frozenset(pair) for pair in zip(a["sim"], b["sim"], strict=True)}
    assert drawn <= {frozenset(pair) for pair in zip(first["sim"], second["sim"], strict=True)}
    share = np.isin(a["sim"], first["sim"]).mean()
    assert 0.1 < share < 0.9, "the coin must give A utterances of both seeds"


def test_what_is_planted_is_there_on_average(calibration: ModuleType, sides: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    first, _ = sides
    generator = np.random.default_rng(0)
    more = [calibration.plant(first, "wer", 0.1, generator)["deletions"] - first["deletions"] for _ in range(200)]
    assert np.mean([d.sum() for d in more]) / first["reference_words"].sum() == pytest.approx(0.1, rel=0.1)
    assert (calibration.plant(first, "sim", 0.1, generator)["sim"] - first["sim"]).to_numpy() == pytest.approx(0.1)


def test_the_size_is_twice_what_its_own_comparison_detects(
    calibration: ModuleType, sides: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    generator = np.random.default_rng(0)
    for figure in ("wer", "sim"):
        size = calibration.planted_size(*sides, figure, 2.0, generator)
        seen = [
            calibration.detectable(calibration.plant(sides[0], figure, size, generator), sides[1], figure)
            for _ in range(200)
        ]
        assert size == pytest.approx(2 * np.mean(seen), rel=0.1), figure


def test_a_few_comparisons_run_through(calibration: ModuleType) -> None:
    found = calibration.calibrate(pd.read_csv(FOLDER / "utterances.csv"), comparisons=8, planted=6.0, seed=1)
    assert found["found"] == 1.0
    assert found["false_alarms_any_figure"] < 0.5
    assert set(found["figures"]) == set(calibration.FIGURES)


def test_a_table_of_one_seed_is_refused(calibration: ModuleType) -> None:
    rows = pd.read_csv(FOLDER / "utterances.csv")
    with pytest.raises(SystemExit, match="1 noise seeds, two are needed"):
        calibration.calibrate(rows[rows["noise_seed"] == 0], 1, 2.0, 0)
