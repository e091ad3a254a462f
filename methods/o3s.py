"""O3S: a search of the time grid of a trained sampler."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from imfbench.flow.grids import check_grid, uniform
from imfbench.flow.search import LIMIT_REACHED, Evaluate, OutOfEvaluations, Scorebook, SearchLimits, SearchResult
from imfbench.method import MethodConfig, Needs
from imfbench.registry import METHODS


class O3SConfig(MethodConfig):
    """Limits of the search."""

    steps: int = Field(2, ge=1)
    """N, the steps of the grid that is sought; 1 has nothing to search."""
    tolerance: float = Field(0.02, ge=1e-4)
    """Width of the bracket at which a ternary search ends."""
    patience: int | None = Field(None, ge=1)
    """Sweeps without gain after which the search ends; None is the paper's N. Every grid is scored once, so after one such sweep
    the next meets known grids alone: more than 1 finds the same grid by the same evaluations."""
    max_evaluations: int = Field(100, ge=1)
    """The largest number of grids that are scored, the start included."""
    minimum_gap: float = Field(0.01, ge=1e-4, lt=1)
    """Smallest distance of neighbouring points."""


@METHODS.register("o3s")
class O3S:
    """Optimal step sampling search (Wang et al. 2025, arXiv 2510.07979).

    One sweep is i = N − 1 … 1, each a ternary search of τ_i in [τ_{i−1}, τ_{i+1}] with the other points fixed. Every
    grid is scored once; a tie keeps the incumbent; the best grid seen is returned, so it is never worse than the start
    on the set it was searched on. A bracket of width L costs 2·⌈log(L/tolerance)/log 1.5⌉ evaluations at most.
    """

    Config: ClassVar[type[MethodConfig]] = O3SConfig
    needs: ClassVar[Needs] = Needs(training=False)

    def __init__(self, config: O3SConfig) -> None:
        self.config = config

    def search(
        self,
        evaluate: Evaluate,
        steps: int | None = None,
        start: Tensor | Sequence[float] | None = None,
        limits: SearchLimits | None = None,
    ) -> SearchResult:
        """The best grid seen, with the trace of all evaluations.

        Args:
            evaluate: Score of a grid, higher is better.
            steps: N; the config's if None.
            start: The first grid, (steps + 1,); uniform if None.
            limits: What the framework allows, if less than the config does.
        """
        steps = self.config.steps if steps is None else steps
        grid = uniform(steps) if start is None else check_grid(start, steps)
        if steps == 1:
            return SearchResult(grid, math.nan, stopped="nothing to search: a grid of one step has no point to move")
        allowed = [self.config.max_evaluations, limits.max_evaluations if limits else None]
        book = Scorebook(evaluate, min(limit for limit in allowed if limit is not None))
        try:
            stopped = self._sweep(book, tuple(grid.tolist()), self.config.patience or steps)
        except OutOfEvaluations:
            stopped = f"{LIMIT_REACHED} {len(book.trace)} evaluations"
        best = check_grid(book.best) if book.best else grid
        return SearchResult(best, book.best_score, book.trace, len(book.trace), stopped)

    def _sweep(self, book: Scorebook, start: tuple[float, ...], patience: int) -> str:
        book.score(start)
        sweep = idle = 0
        while idle < patience:
            sweep += 1
            before, scored = book.best, len(book.trace)
            for i in range(len(start) - 2, 0, -1):
                self._ternary(book, i, sweep)
            if len(book.trace) == scored:
                return "a whole sweep met only known grids"  # so would every further one
            idle = 0 if book.best != before else idle + 1
        return f"{patience} sweep{'s' * (patience > 1)} without gain"

    def _ternary(self, book: Scorebook, i: int, sweep: int) -> None:
        left, right = book.best[:i], book.best[i + 1 :]
        low, high = left[-1] + self.config.minimum_gap, right[0] - self.config.minimum_gap
        while high - low > self.config.tolerance:
            a, b = (round(low + (high - low) * part, 6) for part in (1 / 3, 2 / 3))
            at_a, at_b = (book.score((*left, x, *right), sweep, i) for x in (a, b))
            tie, incumbent = at_a == at_b, book.best[i]
            if at_a < at_b or (tie and incumbent >= a):
                low = a
            if at_a > at_b or (tie and incumbent <= b):
                high = b
