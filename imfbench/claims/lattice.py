"""The shape of a score over a lattice of time grids: convex, or of one valley, along each of their points."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from imfbench.claims.means import Mean, mean_of
from imfbench.claims.verdicts import ALPHA


class Violations(NamedTuple):
    """Inequalities of a cost, and how many are violated."""

    checked: int
    by_mean: int
    """Violated by the mean over the utterances."""
    beyond_noise: int
    """Violated by a one-sided paired t test over the utterances, at ALPHA each."""
    seen: float | None
    """An excess of the cost that would be shown four times in five, of the median inequality; None where nothing varies."""


def convexity_violations(scores: dict[tuple[int, ...], NDArray[np.float64]]) -> Violations:
    """Midpoint inequalities of a cost along each point of the grid: f(m) ≤ (f(a) + f(b))/2 for a, b that differ in one point.

    A cost may be convex in each point and not in all of them together, which is more than a search of one point at a time needs.

    Args:
        scores: Lattice point → cost of each development utterance, (utterances,), lower is better.
    """
    points = sorted(scores)
    excesses = []
    for i, a in enumerate(points):
        for b in points[i + 1 :]:
            twice = tuple(x + y for x, y in zip(a, b, strict=True))
            middle = tuple(x // 2 for x in twice)
            moved = sum(x != y for x, y in zip(a, b, strict=True))
            if moved > 1 or any(x % 2 for x in twice) or middle not in scores:
                continue
            excesses.append((mean_of(scores[middle] - (scores[a] + scores[b]) / 2),))
    return _count(excesses)


def peak_violations(scores: dict[tuple[int, ...], NDArray[np.float64]]) -> Violations:
    """Inequalities of a cost with one valley along each point: f(m) ≤ max(f(a), f(b)) for a < m < b that differ in it alone.

    It is what a ternary search needs, and weaker than convexity.

    Args:
        scores: As for ``convexity_violations``.
    """
    excesses = []
    for middle in scores:
        for i in range(len(middle)):
            line = [p for p in scores if p[:i] + p[i + 1 :] == middle[:i] + middle[i + 1 :]]
            for a in (p for p in line if p[i] < middle[i]):
                for b in (p for p in line if p[i] > middle[i]):
                    excesses.append(tuple(mean_of(scores[middle] - scores[end]) for end in (a, b)))
    return _count(excesses)


def _count(excesses: Iterable[tuple[Mean, ...]]) -> Violations:
    """Of inequalities that are violated where each of their excesses is above 0."""
    checked = by_mean = beyond_noise = 0
    seen = []
    for parts in excesses:
        checked += 1
        by_mean += min(part.value for part in parts) > 0
        beyond_noise += max(part.above(0) for part in parts) < ALPHA
        found = [part.minimum_detectable for part in parts if part.minimum_detectable is not None]
        if found:
            seen.append(max(found))  # each part must be seen
    return Violations(checked, by_mean, beyond_noise, statistics.median(seen) if seen else None)
