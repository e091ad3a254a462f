"""What a search of time grids takes and gives: a way to evaluate candidates, limits, and the grid with its trace."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from imfbench.flow.grids import check_grid

Evaluate = Callable[[Tensor], float]
"""Score of a grid (steps + 1,) on the development set, higher is better; the same noise for every candidate. −∞: the grid leads
to something that cannot be scored."""


LIMIT_REACHED = "the limit of"
"""How ``stopped`` begins where a search was cut off by the number of grids that it may score."""


@dataclass(frozen=True)
class SearchLimits:
    """Limits of the framework on top of the search's own.

    Attributes:
        max_evaluations: The largest number of grids that may be scored; None is no limit.
    """

    max_evaluations: int | None = None


@dataclass(frozen=True)
class Evaluation:
    """One scored grid: its number from 1, the sweep (0 is the start), the point that was moved, and whether it won."""

    number: int
    sweep: int
    point: int | None
    grid: tuple[float, ...]
    score: float
    best: bool


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        grid: The best grid seen, (steps + 1,), float64.
        score: Its score; nan if nothing was scored.
        trace: Every evaluation, in order.
        evaluations: How many grids were scored.
        stopped: Why the search ended, in words; ``LIMIT_REACHED`` and how many, where it was cut off.
    """

    grid: Tensor
    score: float
    trace: list[Evaluation] = field(default_factory=list)
    evaluations: int = 0
    stopped: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; a score that is not finite is None."""
        trace = [asdict(row) | {"score": row.score if math.isfinite(row.score) else None} for row in self.trace]
        return {
            "grid": self.grid.tolist(),
            "score": self.score if math.isfinite(self.score) else None,
            "evaluations": self.evaluations,
            "stopped": self.stopped,
            "trace": trace,
        }


class OutOfEvaluations(Exception):
    """The scorebook has scored all it may."""


class Scorebook:
    """Scores grids once each, counts, and remembers the best; a tie keeps the incumbent.

    Args:
        evaluate: The score.
        max_evaluations: How many grids may be scored.
    """

    def __init__(self, evaluate: Evaluate, max_evaluations: int) -> None:
        self._evaluate = evaluate
        self._left = max_evaluations
        self._scores: dict[tuple[float, ...], float] = {}
        self.trace: list[Evaluation] = []
        self.best: tuple[float, ...] = ()
        self.best_score = -math.inf

    def score(self, grid: tuple[float, ...], sweep: int = 0, point: int | None = None) -> float:
        """Score of a grid; nan scores as the worst.

        Raises:
            OutOfEvaluations: It is not known yet, and the limit is reached.
        """
        if grid not in self._scores:
            if not self._left:
                raise OutOfEvaluations
            self._left -= 1
            score = float(self._evaluate(check_grid(grid)))
            score = -math.inf if math.isnan(score) else score
            wins = not self.best or score > self.best_score
            if wins:
                self.best, self.best_score = grid, score
            self._scores[grid] = score
            self.trace.append(Evaluation(len(self.trace) + 1, sweep, point, grid, score, wins))
        return self._scores[grid]
