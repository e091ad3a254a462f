"""Tests of a small loss that reckon with the utterance nobody has seen: one that is lost altogether.

Word errors are mostly zeros. Where few utterances differ, or none, their standard deviation says next to nothing, and Student's
test takes the silence for certainty: if one utterance in fifty is lost whole, thirty utterances show no loss at all more often
than not, and the loss of two points is "ruled out". So a statement "the loss is smaller than the margin" is also tested over
the utterances that were seen *and one more, which loses all that an utterance can lose*, with the weights of a Bayesian
bootstrap (uniform over all weights that sum to 1). Where nothing differs the p-value is (1 − margin)ⁿ, the exact one, of which
the "rule of three" is the approximation: n utterances without an event leave a share of 3/n open.

The bound is Gaffke's for the mean of bounded values (Learned-Miller & Thomas, "A new confidence interval for the mean of a
bounded random variable", arXiv 1905.06208); where each utterance is either kept or lost it is Clopper and Pearson's. No shape
of the distribution is assumed; that it covers in general is a conjecture, which simulations bear out: ``docs/statistics.md``
has its level and what it costs.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

LOST = 1.0
"""What an utterance loses in word or character error rate if nothing of it is understood."""

DRAWS = 9999
"""Weights drawn for a p-value, whose floor is then 1e-4; more where many tests are corrected (``reports.comparison``)."""

FEWEST_DIFFERING = 6
"""Utterances that must differ for a sign-flip test to show anything: with five its two-sided p is 2⁻⁴ at the least."""

FEWEST_WORDS = 7.9
"""Words lost in utterances of their own, on average, of which six or more are seen four times in five (Poisson)."""

POWER = 0.8


def bounds(differences: NDArray[np.float64], lost: float, alpha: float) -> tuple[float, float]:
    """One-sided bounds of the mean, each at level 1 − alpha, either way reckoning with one more utterance.

    Args:
        differences: A score of a − b for each utterance, (utterances,).
        lost: What one more utterance could lose or gain, positive, in their unit.
        alpha: Of each bound.
    """
    low, high = (np.quantile(side * _means(side * differences, lost), a) for side, a in ((-1, alpha), (1, 1 - alpha)))
    return float(low), float(high)


def p_value(differences: NDArray[np.float64], margin: float, lost: float, draws: int = DRAWS) -> float:
    """P-value of "the mean is at most −margin"; arguments as for ``bounds``.

    A negative margin asks the same of a bound on the other side of 0; "at least +margin" is asked of −differences.
    """
    return float((np.count_nonzero(_means(-differences, lost, draws=draws) >= margin) + 1) / (draws + 1))


def difference_p_value(
    first: NDArray[np.float64], second: NDArray[np.float64], margin: float, lost: float, gained: float
) -> float:  # fmt: skip
    """P-value of "the first mean is at least ``margin`` below the second", over two sets of utterances.

    Each set has one more utterance: in the first it loses, in the second it gains all that it can.

    Args:
        first: A score of a − b for each utterance of one set, (utterances,), higher is better.
        second: Of another set.
        margin: Positive.
        lost: What the first set's further utterance loses, positive.
        gained: What the second set's gains: what b loses there.
    """
    return float((np.count_nonzero(_falls(first, second, lost, gained) >= margin) + 1) / (DRAWS + 1))


def difference_bound(
    first: NDArray[np.float64], second: NDArray[np.float64], lost: float, gained: float, alpha: float
) -> float:  # fmt: skip
    """The lower bound of the first mean minus the second at level 1 − alpha; arguments as for ``difference_p_value``."""
    return float(-np.quantile(_falls(first, second, lost, gained), 1 - alpha))


def fewest(
    differences: NDArray[np.float64], denominators: NDArray[np.float64], lost: float | None = None, alpha: float = 0.025
) -> float:  # fmt: skip
    """The smallest difference of a ratio of words that a test would find four times in five.

    Args:
        differences: Words of a − b, (utterances,); shares of one where seeds were averaged.
        denominators: Reference words, (utterances,).
        lost: For a test that reckons with one more utterance: what that loses, in units of the ratio. Without it the test flips
            signs, and needs ``FEWEST_DIFFERING`` utterances.
        alpha: Of that test, one-sided.
    """
    apart = np.abs(differences)
    least = 1.0 if lost is None else min(1.0, lost)  # of several networks and noise seeds one recording's share
    word = float(apart[apart > 1e-9].min(initial=least))
    words = FEWEST_WORDS
    if lost is not None:  # k differing utterances' weights against one: (1 + word/lost)^−k, as of gamma variables
        needed = math.ceil(math.log(1 / alpha) / math.log1p(word / denominators.mean() / lost))
        words = max(words, float(stats.gamma.ppf(POWER, max(FEWEST_DIFFERING, needed))))
    return words * word / float(denominators.sum())


def smallest_margin(n: int, lost: float, alpha: float) -> float:
    """The least margin within which a difference can be shown with so many utterances, even if none of them differs.

    It solves (1 − margin/lost)ⁿ = alpha; arguments as for ``utterances_needed``.
    """
    return float(lost * (1 - alpha ** (1 / n)))


def utterances_needed(margin: float, lost: float, alpha: float) -> int:
    """How many utterances it takes to show a difference within a margin, if none of them differs.

    Args:
        margin: The difference that would not matter.
        lost: What one more utterance could lose, in its unit.
        alpha: Of the one-sided test.
    """
    return 1 if margin >= lost else math.ceil(math.log(alpha) / math.log1p(-margin / lost))


def all_equal(differences: NDArray[np.float64]) -> bool:
    """Whether differences are one number, but for rounding: their standard deviation is no estimate of anything then."""
    return bool(np.ptp(differences) <= 1e-12 * max(1.0, float(np.abs(differences).max())))


def _falls(
    first: NDArray[np.float64], second: NDArray[np.float64], lost: float, gained: float
) -> NDArray[np.float64]:  # fmt: skip
    """How far the first mean is below the second under random weights of both, (draws,)."""
    return _means(-first, lost) + _means(second, gained, seed=1)  # other weights: the utterances are others


def _means(values: NDArray[np.float64], lost: float, seed: int = 0, draws: int = DRAWS) -> NDArray[np.float64]:
    """Means of the values and one more of ``lost`` under random weights, (draws,)."""
    # Equal values share one weight, which is gamma distributed: WER has few different ones, so memory stays small.
    found, counts = np.unique(np.round(values, 12), return_counts=True)
    return _weighted((*found.tolist(), max(lost, float(found.max()))), (*counts.tolist(), 1), seed, draws)


@lru_cache(maxsize=4)  # p-value and bound of a side, and the tests of a comparison, are of the same means
def _weighted(values: tuple[float, ...], counts: tuple[int, ...], seed: int, draws: int) -> NDArray[np.float64]:
    generator = np.random.default_rng(seed)
    total, weight = np.zeros(draws), np.zeros(draws)
    for value, count in zip(values, counts, strict=True):
        drawn = generator.gamma(count, size=draws)
        total += value * drawn
        weight += drawn
    return np.asarray(total / weight)
