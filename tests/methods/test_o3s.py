from __future__ import annotations

import json
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from imfbench.flow.grids import make_grid, uniform
from imfbench.flow.search import SearchLimits
from imfbench.methods.o3s import O3S, O3SConfig

KNOWN = "a whole sweep met only known grids"


def peak_at(*points: float) -> Callable[[Tensor], float]:
    """A score with its maximum, 0, at the inner points."""
    return lambda grid: -float((grid[1:-1] - torch.tensor(points, dtype=torch.float64)).abs().sum())


def promised(width: float, tolerance: float) -> int:
    """Evaluations of a ternary search: two for each cut by a third."""
    return 2 * math.ceil(math.log(width / tolerance) / math.log(1.5))


@pytest.mark.parametrize("optimum", [0.01, 0.1, 0.37, 0.5, 0.8, 0.99])
@pytest.mark.parametrize("tolerance", [0.05, 0.01])
def test_one_point_is_found_within_the_promised_evaluations(optimum: float, tolerance: float) -> None:
    search = O3S(O3SConfig(steps=2, tolerance=tolerance))
    result = search.search(peak_at(optimum))
    assert abs(result.grid[1].item() - optimum) <= tolerance
    assert result.evaluations <= 1 + promised(
        0.98, tolerance
    )  # the start, and one ternary search; memory does the rest
    assert result.score == peak_at(optimum)(result.grid)


@pytest.mark.parametrize("optimum", [(0.1, 0.3, 0.9), (0.4, 0.5, 0.6), (0.02, 0.04, 0.06)])
def test_several_points_are_found(optimum: tuple[float, ...]) -> None:
    result = O3S(O3SConfig(steps=4, tolerance=0.01, max_evaluations=1000)).search(peak_at(*optimum))
    torch.testing.assert_close(result.grid[1:-1], torch.tensor(optimum, dtype=torch.float64), rtol=0, atol=0.012)
    sweeps = result.trace[-1].sweep
    assert result.evaluations <= 1 + sweeps * 3 * promised(0.98, 0.01)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("start", ["uniform", "sway"])
def test_never_worse_than_the_start_whatever_the_score(seed: int, start: str) -> None:
    g = torch.Generator().manual_seed(seed)
    seen: dict[tuple[float, ...], float] = {}

    def noise(grid: Tensor) -> float:
        key = tuple(grid.tolist())
        assert key not in seen, "scored twice"
        seen[key] = torch.randn((), generator=g).item()
        return seen[key]

    begin = make_grid(start, 3)
    result = O3S(O3SConfig(steps=3, max_evaluations=60)).search(noise, 3, begin)
    assert next(iter(seen)) == tuple(begin.tolist())
    assert result.score == max(seen.values()) == seen[tuple(result.grid.tolist())]
    assert result.evaluations == len(seen) == len(result.trace) <= 60
    assert [row.number for row in result.trace] == list(range(1, len(seen) + 1))


def test_a_tie_keeps_the_incumbent() -> None:
    result = O3S(O3SConfig(steps=3)).search(lambda grid: 1.0)
    torch.testing.assert_close(result.grid, uniform(3))
    assert [row.best for row in result.trace] == [True] + [False] * (result.evaluations - 1)


def test_a_plateau_shrinks_towards_the_incumbent() -> None:
    # only the start's third scores: cutting both sides of a tie would lose it
    result = O3S(O3SConfig(steps=2, tolerance=0.01)).search(lambda grid: float(grid[1] < 0.25), 2, [0, 0.2, 1])
    assert result.grid.tolist() == [0, 0.2, 1]
    assert min(row.grid[1] for row in result.trace[1:]) < 0.25


def test_limits() -> None:
    search = O3S(O3SConfig(steps=3, tolerance=0.001, max_evaluations=50))
    assert search.search(peak_at(0.2, 0.7)).evaluations == 50
    result = search.search(peak_at(0.2, 0.7), limits=SearchLimits(max_evaluations=7))
    assert result.evaluations == 7
    assert result.stopped == "the limit of 7 evaluations"
    assert search.search(peak_at(0.2, 0.7), limits=SearchLimits(max_evaluations=1)).grid.tolist() == uniform(3).tolist()


def test_a_sweep_without_gain_is_the_last_whatever_the_patience() -> None:
    """Around an unmoved grid the next one meets known grids alone, which cost nothing: patience of 1 does not ask for it."""
    for patience, stopped in ((1, "1 sweep without gain"), (2, KNOWN), (9, KNOWN), (None, KNOWN)):
        result = O3S(O3SConfig(steps=3, patience=patience)).search(lambda grid: -grid.diff().var().item())
        assert result.stopped == stopped
        assert torch.equal(result.grid, uniform(3))  # the best
        assert result.trace[-1].sweep == 1
        assert result.evaluations <= 1 + 2 * promised(2 / 3, 0.02)


def test_the_minimum_gap_is_kept() -> None:
    result = O3S(O3SConfig(steps=4, minimum_gap=0.05, tolerance=0.001, max_evaluations=500)).search(peak_at(0, 0, 0))
    for row in result.trace:
        assert min(b - a for a, b in zip(row.grid, row.grid[1:], strict=False)) >= 0.05 - 1e-6
    assert result.grid[1].item() == pytest.approx(0.05, abs=0.002)


def test_a_score_that_is_not_a_number_never_wins() -> None:
    result = O3S(O3SConfig(steps=2)).search(lambda grid: math.nan if grid[1] > 0.4 else -abs(grid[1].item() - 0.3))
    assert result.grid[1].item() == pytest.approx(0.3, abs=0.02)
    assert json.dumps(result.to_dict(), allow_nan=False)


def test_one_step_has_nothing_to_search_and_says_so() -> None:
    def never(grid: Tensor) -> float:
        raise AssertionError

    result = O3S(O3SConfig(steps=1)).search(never)
    assert result.grid.tolist() == [0, 1]
    assert result.evaluations == 0
    assert "nothing to search" in result.stopped
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["score"] is None


def test_a_start_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="has 2 steps, but 3"):
        O3S(O3SConfig(steps=3)).search(peak_at(0.5, 0.6), 3, [0, 0.5, 1])
