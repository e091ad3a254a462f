"""What a search of time grids is scored by: the sign, the weights, and the teacher's references."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from imfbench.claims.measurements import _metric_cost
from imfbench.config import load
from imfbench.pipeline import search as stage
from imfbench.pipeline.context import Context
from imfbench.pipeline.search import search_grid
from imfbench.pipeline.teacher_distance import TeacherDistance, mel_distance
from imfbench.store import RunFolder

BEST = 0.45


class Metric:
    """The distance of ``BEST`` from the grid's inner point, which mels and audio here hold; as ``wer``, and else negated."""

    signature = "v0"

    def __init__(self, name: str) -> None:
        self.name, self.summary_columns, self.higher_is_better = name, (name,), name != "wer"

    @contextlib.contextmanager
    def loaded(self) -> Iterator[Metric]:
        yield self

    def score(self, item: Any) -> dict[str, float]:
        away = abs(float(item.audio[0]) - BEST)
        return {self.name: -away if self.higher_is_better else away}

    def summarise(self, rows: Any) -> dict[str, float]:
        return {self.name: rows[self.name].mean()}


class Vocoder:
    sample_rate = 24_000

    def __call__(self, mel: torch.Tensor) -> np.ndarray:
        return mel[:, 0].numpy()


@pytest.fixture
def searched(
    tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[float, list[dict[str, Any]], list[int]]]:
    """``searched(score, teacher's NFE)``: the point that is found, the trace, and the steps of each of the teacher's grids."""

    def search(score: Any, nfe: tuple[int, ...] = (3,)) -> tuple[float, list[dict[str, Any]], list[int]]:
        own = {"method": "teacher", "name": "own", "artefact": str(tiny.artefact()), "nfe": [1]}
        own["search"] = {"method": "o3s", "nfe": [2], "score": score, "config": {"max_evaluations": 20}}
        path = tiny.config(systems=[own], references=[], teacher={"artefact": str(tiny.artefact()), "nfe": list(nfe)})
        others: list[int] = []

        def mel(_method: Any, _condition: Any, _name: str, grid: torch.Tensor, *_: Any) -> Any:
            steps = len(grid) - 1
            if steps != 2:  # the teacher: 3 steps stand for what is sought, other numbers for something far away
                others.append(steps)
            return torch.full((4, 80), float(grid[1]) if steps == 2 else BEST if steps == max(nfe) else 0.9), None

        monkeypatch.setattr(stage, "synthesize_mel", mel)
        context = Context(load(str(path)), RunFolder(tiny.out))
        monkeypatch.setattr(context, "metric", Metric)
        context.once("vocoder", Vocoder)
        search_grid(context, "own+o3s-2")
        found = json.loads(Path(context.folder.grid("own+o3s-2")).read_text())
        return found["values"][1], found["trace"], others

    return search


def test_the_distance_to_the_teacher_is_a_mean_and_less_is_better() -> None:
    mel = torch.randn(6, 80, generator=torch.Generator().manual_seed(0))
    assert mel_distance(mel, mel + 0.5) == pytest.approx(0.5)
    score = TeacherDistance({"a": mel, "b": mel})
    for moved, expected in (((0.0, 0.0), 0.0), ((0.5, 0.5), -0.5), ((1.0, -1.0), -1.0), ((0.0, 1.0), -0.5)):
        assert score({"a": mel + moved[0], "b": mel + moved[1]}) == pytest.approx(expected)
    with pytest.raises(KeyError):
        score({"a": mel})
    with pytest.raises(ValueError, match="not of the same utterance"):
        mel_distance(mel, mel[:-1])


@pytest.mark.parametrize(
    "score",
    [
        "teacher-distance",
        "sim",
        {"sim": 2.0},
        {"wer": -1.0},
        {"wer": -3.0, "sim": 0.5},
        {"wer": -2.0, "teacher-distance": 0.5},
    ],
)
def test_a_search_ends_where_its_score_is_best(searched: Callable[..., Any], score: Any) -> None:
    point, trace, _ = searched(score)
    assert point == pytest.approx(BEST, abs=0.03)
    weights = score if isinstance(score, dict) else {"sim": 1.0}
    for row in trace:
        away = abs(row["grid"][1] - BEST)
        expected = sum(weight * (away if name == "wer" else -away) for name, weight in weights.items())
        assert row["score"] == pytest.approx(expected, abs=1e-6)


def test_the_references_are_the_teachers_at_its_most_evaluations(searched: Callable[..., Any]) -> None:
    point, _, others = searched("teacher-distance", (1, 5, 3))
    assert point == pytest.approx(BEST, abs=0.03)
    assert set(others) == {5}


@pytest.mark.parametrize("name", ["sim", "wer"])
def test_as_a_cost_a_metric_is_less_where_it_is_better(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a lattice both are the distance from the best point, whichever way the figure goes."""
    monkeypatch.setattr("imfbench.features.audio.load_audio", lambda _: (np.zeros(9), 24_000))
    monkeypatch.setattr(
        stage,
        "heard",
        lambda metric, vocoder, u, mel, condition, prompt: metric.score(SimpleNamespace(audio=vocoder(mel))),
    )
    context = SimpleNamespace(metric=Metric, vocoder=Vocoder)
    cost, close = _metric_cost(context, name, {"u": None})
    utterance = SimpleNamespace(id="u", prompt_audio="p.flac")
    for point in (0.1, BEST, 0.9):
        assert cost(utterance, torch.full((4, 80), point)) == pytest.approx(abs(point - BEST), abs=1e-6)
    close()
