"""The shape of a score over a lattice of time grids, where it is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from imfbench.claims.lattice import convexity_violations, peak_violations
from imfbench.claims.shares import share_at_most
from imfbench.claims.verdicts import decide

NOISE = np.random.default_rng(0).standard_normal(8)

LATTICE = [(i, j) for i in range(1, 8) for j in range(i + 1, 8)]


def test_convexity_on_a_lattice() -> None:
    utterances = 0.001 * NOISE
    bowl = {p: (p[0] - 3) ** 2 + (p[1] - 5) ** 2 + p[0] * utterances for p in LATTICE}
    checked, *found = convexity_violations(bowl)
    assert checked == 26  # by hand: 6 + 4 + 2 + 1 along each of the two points
    assert found[:2] == [0, 0]
    hill = {p: -cost for p, cost in bowl.items()}
    assert convexity_violations(hill)[:3] == (checked, checked, checked)
    # A saturating cost is not convex, yet has one valley along each point.
    slope = {p: np.sqrt(p[0]) + (p[1] - 5) ** 2 / 50 + utterances for p in LATTICE}
    assert convexity_violations(slope)[:3] == (checked, checked / 2, checked / 2)
    assert peak_violations(slope)[1:3] == (0, 0)
    assert peak_violations(bowl)[1:3] == (0, 0)
    assert peak_violations({p: -((p[0] - 3) ** 2) + utterances for p in LATTICE})[2] > 0


def test_convex_in_each_point_is_less_than_convex_in_both() -> None:
    """x² + y² + 3xy is a saddle along x = −y, and a parabola along x and along y: what a sweep over single points meets."""
    saddle = {(x, y): x**2 + y**2 + 3 * x * y + 0.001 * NOISE for x, y in LATTICE}
    assert saddle[2, 5][0] > (saddle[1, 6][0] + saddle[3, 4][0]) / 2  # both moved: not convex
    assert convexity_violations(saddle)[1:3] == (0, 0)


@pytest.mark.parametrize("count", [convexity_violations, peak_violations])
def test_the_excess_that_could_have_been_seen_is_seen_four_times_in_five(count: Any) -> None:
    """One inequality of three points, whose middle lies as far above the others as is said, and the same without any noise."""
    rng = np.random.default_rng(5)
    shape = {(1,): 0.0, (2,): 1.0, (3,): 0.0}
    told = np.median([count({p: rng.standard_normal(8) for p in shape}).seen for _ in range(400)])
    hits = [count({p: told * up + rng.standard_normal(8) for p, up in shape.items()}).beyond_noise for _ in range(1000)]
    if count is convexity_violations:
        assert np.mean(hits) == pytest.approx(0.8, abs=0.05)
    else:
        assert 0.6 < np.mean(hits) < 0.85  # both ends must be below: a little less often
    assert count(dict.fromkeys(shape, np.zeros(8))).seen is None


def test_three_shapes_of_a_cost_have_three_verdicts() -> None:
    """One valley along each point, a hill, and noise alone."""
    rng = np.random.default_rng(7)
    costs: dict[str, Any] = {
        "supported": {p: np.sqrt(p[0]) + (p[1] - 5) ** 2 / 50 + 0.001 * NOISE for p in LATTICE},
        "not supported": {p: -((p[0] - 4) ** 2) - (p[1] - 4) ** 2 + 0.001 * rng.standard_normal(8) for p in LATTICE},
        "underpowered": {p: rng.standard_normal(8) for p in LATTICE},
    }
    for verdict, cost in costs.items():
        found = peak_violations(cost)
        assert _verdict(share_at_most(found.beyond_noise, found.checked, 0.1, found.by_mean)) == verdict


def test_noise_alone_is_not_near_convex() -> None:
    """Half of the inequalities are violated by the mean and hardly any beyond noise: that shows nothing, either way."""
    points = [(i, j) for i in range(1, 10) for j in range(i + 1, 10)]
    beyond_noise_alone = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        checked, violated, shown, _ = convexity_violations({p: rng.standard_normal(8) for p in points})
        assert checked == 68
        assert violated > 0.3 * checked
        beyond_noise_alone += _verdict(share_at_most(shown, checked, 0.1)) == "supported"
        assert _verdict(share_at_most(shown, checked, 0.1, violated)) == "underpowered"
    assert beyond_noise_alone > 5  # what a count of the violations beyond noise would have let pass


def _verdict(found: Any) -> str:
    return decide(found.p_support, found.p_refute).verdict
