"""What goes wrong in a search of time grids: a grid's own fault makes it the worst, all else ends the search."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from imfbench.config import load
from imfbench.metrics.base import ScoreError, ScoreItem
from imfbench.pipeline import search as stage
from imfbench.pipeline.context import Context
from imfbench.pipeline.search import SearchError, search_grid
from imfbench.progress import log
from imfbench.store import RunFolder

BEST = 0.45


class Metric:
    """The grid's inner point, which mels and audio here hold, should be ``BEST``."""

    name, summary_columns, signature = "sim", ("sim",), "sim-v0"

    def __init__(self, silent: Callable[[ScoreItem], bool]) -> None:
        self.silent = silent

    @contextlib.contextmanager
    def loaded(self) -> Iterator[Metric]:
        yield self

    def score(self, item: ScoreItem) -> dict[str, float]:
        if self.silent(item):
            raise ScoreError("the audio is silent, so it has no voice to compare")
        return {"sim": -abs(float(item.audio[0]) - BEST)}

    def summarise(self, rows: Any) -> dict[str, float]:
        return {"sim": rows["sim"].mean()}


class Vocoder:
    sample_rate = 24_000

    def __call__(self, mel: torch.Tensor) -> np.ndarray:
        return mel[:, 0].numpy()


@pytest.fixture
def searched(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """``searched(broken, silent)``: what a search comes to where the mels of some grids are broken, some audio silent."""
    own = {"method": "teacher", "name": "own", "artefact": str(tiny.artefact()), "nfe": [1]}
    own["search"] = {"method": "o3s", "nfe": [2], "score": "sim", "config": {"max_evaluations": 20}}
    path = tiny.config(systems=[own], references=[])

    def search(broken: Callable[[float], bool], silent: Callable[[ScoreItem], bool]) -> Any:
        def mel(_method: Any, _condition: Any, name: str, grid: torch.Tensor, *_: Any) -> Any:
            if broken(float(grid[1])):
                raise FloatingPointError(f"the sampled mel of {name} holds values that are not finite")
            return torch.full((4, 80), float(grid[1])), None

        monkeypatch.setattr(stage, "synthesize_mel", mel)
        context = Context(load(str(path)), RunFolder(tiny.out))
        monkeypatch.setattr(context, "metric", lambda _: Metric(silent))
        context.once("vocoder", Vocoder)
        search_grid(context, "own+o3s-2")
        return json.loads(Path(context.folder.grid("own+o3s-2")).read_text())

    return search


def far(item: ScoreItem) -> bool:
    """Of sampled audio alone, which is as short as its mel."""
    return len(item.audio) == 4 and abs(float(item.audio[0]) - BEST) > 0.2


def never(_: Any) -> bool:
    return False


@pytest.mark.parametrize(
    ("broken", "silent", "words"),
    [
        (lambda point: point > 0.55, never, "FloatingPointError: the sampled mel of "),
        (lambda point: point == 0.5, never, "FloatingPointError: the sampled mel of "),  # the start itself
        (never, far, "the audio is silent"),
    ],
)
def test_a_grid_without_a_figure_is_the_worst_and_the_search_goes_on(
    searched: Callable[..., Any], broken: Any, silent: Any, words: str, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(log, "propagate", True)
    caplog.set_level(logging.WARNING, "imfbench")
    found = searched(broken, silent)
    assert found["values"][1] == pytest.approx(BEST, abs=0.03)
    without = [row["grid"] for row in found["trace"] if row["score"] is None]
    assert without
    assert [row["grid"] for row in found["failed"]] == without
    assert all(row["reason"].startswith("development utterance ") and words in row["reason"] for row in found["failed"])
    told = {r.message for r in caplog.records if "cannot be scored and is the worst: development" in r.message}
    assert len(told) == len(without)


def test_a_search_without_faults_records_none(searched: Callable[..., Any]) -> None:
    assert "failed" not in searched(never, never)


def test_where_no_grid_has_a_figure_the_search_fails_with_the_first_reason(searched: Callable[..., Any]) -> None:
    words = r"^own\+o3s-2: no grid could be scored on the development set: development utterance .*the sampled mel of"
    with pytest.raises(SearchError, match=words):
        searched(lambda _: True, never)


def test_what_has_no_figure_for_its_prompt_either_ends_the_search_at_once(searched: Callable[..., Any]) -> None:
    """The prompt or the text is at fault: every further grid would meet it again."""
    asked: list[ScoreItem] = []

    def silent(item: ScoreItem) -> bool:
        asked.append(item)
        return True

    with pytest.raises(
        SearchError, match=r"^development utterance .*: the audio is silent.*; the recording .*\.flac has no figure"
    ):
        searched(never, silent)
    assert [len(item.audio) == 4 for item in asked] == [True, False]
    assert asked[1].audio is asked[1].prompt_audio


def test_a_teachers_reference_that_is_not_finite_ends_the_search(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"method": "teacher", "name": "own", "artefact": str(tiny.artefact()), "nfe": [1]}
    own["search"] = {"method": "o3s", "nfe": [2], "score": "teacher-distance", "config": {"max_evaluations": 5}}
    path = tiny.config(systems=[own], references=[], teacher={"artefact": str(tiny.artefact()), "nfe": [3]})
    asked: list[int] = []

    def mel(_method: Any, _condition: Any, name: str, grid: torch.Tensor, *_: Any) -> Any:
        asked.append(len(grid) - 1)
        raise FloatingPointError("not finite")

    monkeypatch.setattr(stage, "synthesize_mel", mel)
    context = Context(load(str(path)), RunFolder(tiny.out))
    with pytest.raises(SearchError, match=r"^development utterance"):
        search_grid(context, "own+o3s-2")
    assert asked == [3]
