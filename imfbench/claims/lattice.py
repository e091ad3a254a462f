"""The shape of a score over a lattice of time grids: convex, or of one valley, along each of their points."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from imfbench.claims.means import mean_of
from imfbench.claims.verdicts import ALPHA


def convexity_violations(scores: dict[tuple[int, ...], NDArray[np.float64]]) -> tuple[int, int, int]:
    """Midpoint inequalities of a cost along each point of the grid: f(m) ≤ (f(a) + f(b))/2 for a, b that differ in one point.

    A cost may be convex in each point and not in all of them together, which is more than a search of one point at a time needs.

    Args:
        scores: Lattice point → cost of each development utterance, (utterances,), lower is better.

    Returns:
        Inequalities, those violated by the mean, and those violated beyond noise (one-sided paired t test over the
        utterances, at ALPHA each).
    """
    points = sorted(scores)
    checked = violated = shown = 0
    for i, a in enumerate(points):
        for b in points[i + 1 :]:
            twice = tuple(x + y for x, y in zip(a, b, strict=True))
            middle = tuple(x // 2 for x in twice)
            moved = sum(x != y for x, y in zip(a, b, strict=True))
            if moved > 1 or any(x % 2 for x in twice) or middle not in scores:
                continue
            excess = mean_of(scores[middle] - (scores[a] + scores[b]) / 2)
            checked += 1
            violated += excess.value > 0
            shown += excess.above(0) < ALPHA
    return checked, violated, shown


def peak_violations(scores: dict[tuple[int, ...], NDArray[np.float64]]) -> tuple[int, int, int]:
    """Inequalities of a cost with one valley along each point: f(m) ≤ max(f(a), f(b)) for a < m < b that differ in it alone.

    It is what a ternary search needs, and weaker than convexity.

    Args:
        scores: As for ``convexity_violations``.

    Returns:
        Inequalities, those violated by the mean, and those where m is above both beyond noise.
    """
    checked = violated = shown = 0
    for middle in scores:
        for i in range(len(middle)):
            line = [p for p in scores if p[:i] + p[i + 1 :] == middle[:i] + middle[i + 1 :]]
            for a in (p for p in line if p[i] < middle[i]):
                for b in (p for p in line if p[i] > middle[i]):
                    above = [mean_of(scores[middle] - scores[end]) for end in (a, b)]
                    checked += 1
                    violated += min(mean.value for mean in above) > 0
                    shown += max(mean.above(0) for mean in above) < ALPHA
    return checked, violated, shown
