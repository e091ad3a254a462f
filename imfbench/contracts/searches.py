"""The contract of searches of time grids."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from imfbench.contracts.clauses import Clause, about, expect
from imfbench.flow.grids import GridError, make_grid, uniform
from imfbench.flow.search import SearchLimits, SearchResult
from imfbench.registry import METHODS


@dataclass(frozen=True)
class Searcher:
    """A registered search."""

    name: str
    options: dict[str, Any]

    def search(self, *arguments: Any) -> SearchResult:
        """What it finds."""
        cls = METHODS.get(self.name)
        found: SearchResult = cls(cls.Config(**self.options)).search(*arguments)
        return found


def contract(name: str, options: dict[str, Any]) -> list[Clause]:
    """The clauses of a search."""
    return about(Searcher(name, options), name, SEARCH)


def score(grid: Tensor) -> float:
    """Uneven, with several maxima."""
    return math.sin(17 * grid[1].item()) + math.cos(9 * float(grid.square().sum()))


def result_is_valid_counted_and_never_worse_than_the_start(part: Searcher) -> None:
    """The grid is valid and scores no less than the start; every evaluation is counted, none is made twice or over the limit."""
    for steps in (2, 3, 5):
        for start in ("uniform", "sway"):
            calls: list[tuple[float, ...]] = []

            def evaluate(grid: Tensor, calls: list[tuple[float, ...]] = calls) -> float:
                calls.append(tuple(grid.tolist()))
                return score(grid)

            begin, at = make_grid(start, steps), f"({steps} steps from {start})"
            result = part.search(evaluate, steps, begin, SearchLimits(max_evaluations=40))
            try:
                valid = make_grid(result.grid, steps).tolist() == result.grid.tolist()
            except GridError as error:
                expect(False, f"a grid of {steps} steps that rises from 0 to 1", f"{error} {at}")
            expect(valid, f"a grid of {steps} steps that rises from 0 to 1", f"{result.grid.tolist()} {at}")
            own = score(result.grid)
            expect(
                math.isclose(result.score, own, abs_tol=1e-9), f"the grid's own score {own:g}", f"{result.score:g} {at}"
            )
            expect(own >= score(begin), f"a score no lower than the start's, {score(begin):g}", f"{own:g} {at}")
            told = f"{result.evaluations} told, {len(result.trace)} in the trace, {len(calls)} made {at}"
            expect(result.evaluations == len(calls) == len(result.trace), "every evaluation told and traced", told)
            expect(len(calls) <= 40, "no more evaluations than the limit of 40", f"{len(calls)} {at}")
            expect(len(set(calls)) == len(calls), "no grid scored twice", f"{len(calls) - len(set(calls))} again {at}")
            expect(bool(result.stopped), "words on why the search ended", f"none {at}")


def is_reproducible(part: Searcher) -> None:
    """Two searches of the same scores find the same grid by the same trace."""
    runs = [part.search(score, 3, uniform(3), SearchLimits(20)) for _ in range(2)]
    expect(torch.equal(runs[0].grid, runs[1].grid), "the same grid twice", [run.grid.tolist() for run in runs])
    expect(runs[0].trace == runs[1].trace, "the same trace twice", "two that differ")


def one_step_says_that_there_is_nothing_to_search(part: Searcher) -> None:
    """A grid of one step comes back at once, with nothing scored."""
    result = part.search(score, 1, uniform(1), SearchLimits())
    expect(result.grid.tolist() == [0, 1], "the grid [0, 1]", result.grid.tolist())
    expect(result.evaluations == 0, "no evaluation", result.evaluations)
    expect("nothing to search" in result.stopped, "'nothing to search' as the reason", repr(result.stopped))


SEARCH = (
    result_is_valid_counted_and_never_worse_than_the_start,
    is_reproducible,
    one_step_says_that_there_is_nothing_to_search,
)
