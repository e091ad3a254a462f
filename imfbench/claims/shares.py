"""Shares and their differences, exactly: how many of so many."""

from __future__ import annotations

import math

from scipy import stats

from imfbench.claims.statistics import Tested
from imfbench.claims.verdicts import ALPHA
from imfbench.metrics.rare_losses import POWER


def share_at_most(
    hits: int, n: int, margin: float, possible: int | None = None, detectable: float | None = None
) -> Tested:
    """Is a share at most ``margin``? Exact (Clopper and Pearson, Biometrika 26, 1934).

    Args:
        hits: Of n, those that are certain: they speak against it.
        n: Of how many.
        margin: The share.
        possible: Those that may be hits, the certain ones among them: so few must speak for it. All are certain without it.
        detectable: What could have been seen of a single one; no share can be told, for each has a noise of its own.
    """
    most = hits if possible is None else possible
    p_support = float(stats.binom.cdf(most, n, margin))  # so few, were the share the margin
    p_refute = float(stats.binom.sf(hits - 1, n, margin))
    low, high = share_interval(hits, n)[0], share_interval(most, n)[1]
    return Tested(hits / n, low, high, n, margin, detectable, p_support, p_refute)


def share_interval(hits: int, n: int) -> tuple[float, float]:
    """The exact 95 % interval of a share."""
    low = 0.0 if hits == 0 else float(stats.beta.ppf(ALPHA, hits, n - hits + 1))
    high = 1.0 if hits == n else float(stats.beta.ppf(1 - ALPHA, hits + 1, n - hits))
    return low, high


def smaller_share(hits: int, n: int, other_hits: int, other_n: int) -> Tested:
    """Is the first share smaller than the second? Fisher's exact test, one-sided either way.

    Returns:
        The difference of the shares with Newcombe's interval from the two exact ones (Statistics in Medicine 17, 1998), and as
        ``minimum_detectable`` the true share of the second that is told from a first of 0 four times in five.
    """
    table = [[hits, n - hits], [other_hits, other_n - other_hits]]
    less, more = (float(stats.fisher_exact(table, alternative=side).pvalue) for side in ("less", "greater"))
    (low, high), (other_low, other_high) = share_interval(hits, n), share_interval(other_hits, other_n)
    first, second = hits / n, other_hits / other_n
    difference = first - second
    ends = (
        difference - math.hypot(first - low, other_high - second),
        difference + math.hypot(high - first, second - other_low),
    )
    needed = next(
        (k for k in range(other_n + 1)
         if stats.fisher_exact([[0, n], [k, other_n - k]], alternative="less").pvalue < ALPHA),
        None,
    )  # fmt: skip
    # So many hits are seen four times in five (Clopper and Pearson's relation of the binomial and the beta distribution).
    detectable = None if needed is None else float(stats.beta.ppf(POWER, needed, other_n - needed + 1))
    return Tested(difference, *ends, min(n, other_n), 0.0, detectable, less, more, training_seeds=min(n, other_n))
