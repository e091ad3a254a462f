"""Means of paired differences with training seeds as a source of chance, their intervals and p-values."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from imfbench.claims.verdicts import ALPHA
from imfbench.metrics import rare_losses
from imfbench.metrics.rare_losses import POWER
from imfbench.metrics.stats import DETECTABLE, MINIMUM_TRAINING_SEEDS

MANY = 1000
"""Degrees of freedom beyond which Student's distribution is as good as the normal one."""


@dataclass(frozen=True)
class Mean:
    """A mean with its standard error and degrees of freedom; ``seeds`` training seeds took part in it."""

    value: float
    error: float
    freedom: float
    n: int
    seeds: int

    def above(self, bound: float) -> float:
        """P-value of "the mean is at most ``bound``"."""
        if self.error == 0:
            return self._equal if self.value > bound else 1.0
        return float(stats.t.sf((self.value - bound) / self.error, self.freedom))

    def below(self, bound: float) -> float:
        """P-value of "the mean is at least ``bound``"."""
        if self.error == 0:
            return self._equal if self.value < bound else 1.0
        return float(stats.t.cdf((self.value - bound) / self.error, self.freedom))

    @property
    def _equal(self) -> float:
        """P-value where all differences are equal and Student's is 0, as with words of few utterances: the sign test's."""
        return float(0.5**self.n)

    @property
    def interval(self) -> tuple[float, float]:
        """Student's 95 % interval."""
        half = stats.t.ppf(1 - ALPHA, self.freedom) * self.error
        return float(self.value - half), float(self.value + half)

    @property
    def minimum_detectable(self) -> float | None:
        """What is shown four times in five: 2.8 standard errors of many differences, 3.8 where there are 4 degrees of freedom.

        None where all differences are equal, which tells nothing of how much they would vary.
        """
        return detectable_errors(self.freedom) * self.error if self.error else None


def detectable_errors(freedom: float) -> float:
    """Standard errors that Student's one-sided test at 2.5 % shows four times in five, by the noncentral t distribution.

    Args:
        freedom: Degrees of freedom, at least 1.
    """
    if freedom > MANY:
        return DETECTABLE
    critical = stats.t.ppf(1 - ALPHA, freedom)
    return float(optimize.brentq(lambda shift: stats.nct.sf(critical, freedom, shift) - POWER, 0, 10 * critical))


def mean_of(differences: ArrayLike) -> Mean:
    """The mean of paired differences, (training seeds, utterances).

    From three training seeds on both seeds and utterances are drawn by chance, crossed: the variance of the mean is
    (MS_utterances + MS_seeds − MS_rest)/(utterances·seeds), either alone where the other is no more than the rest, with
    Satterthwaite's degrees of freedom (Clark, Journal of Verbal Learning and Verbal Behavior 12, 1973: quasi-F), so that the
    interval speaks about methods. With fewer the seeds are averaged and it speaks about these checkpoints.

    Raises:
        ValueError: Fewer than two utterances, or a value that is not finite.
    """
    d: NDArray[np.float64] = np.atleast_2d(np.asarray(differences, dtype=np.float64))
    seeds, n = d.shape
    if n < 2:
        raise ValueError(f"a paired comparison needs at least two utterances, got {n}")
    if not np.isfinite(d).all():
        raise ValueError("a difference is not finite: take failed utterances out, and count them")
    value = float(d.mean())
    by_utterance = d.mean(0)
    alone = 0.0 if rare_losses.all_equal(by_utterance) else float(by_utterance.var(ddof=1) / n)
    if seeds < MINIMUM_TRAINING_SEEDS:
        return Mean(value, math.sqrt(alone), n - 1, n, seeds)
    of_utterances = seeds * float(by_utterance.var(ddof=1))
    of_seeds = n * float(d.mean(1).var(ddof=1))
    rest = d - by_utterance - d.mean(1, keepdims=True) + value
    of_rest = float((rest**2).sum() / ((seeds - 1) * (n - 1)))
    if of_seeds <= of_rest:  # no more than the utterances' own noise: the seeds add nothing
        return Mean(value, math.sqrt(alone), n - 1, n, seeds)
    if of_utterances <= of_rest:
        return Mean(value, math.sqrt(of_seeds / (n * seeds)), seeds - 1, n, seeds)
    total = of_utterances + of_seeds - of_rest
    freedom = total**2 / (of_utterances**2 / (n - 1) + of_seeds**2 / (seeds - 1) + of_rest**2 / ((seeds - 1) * (n - 1)))
    return Mean(value, math.sqrt(total / (n * seeds)), freedom, n, seeds)


def contrast_of(first: ArrayLike, second: ArrayLike) -> Mean:
    """The mean of paired differences over one set of utterances minus that over another, by the same training seeds.

    The utterances of the sets are independent. From three training seeds on the seeds are crossed with them as in ``mean_of``:
    what varies by chance is how much more a network loses on the one set.

    Args:
        first: a − b, (training seeds, utterances of one set).
        second: a − b, (the same training seeds, utterances of the other).

    Raises:
        ValueError: Other numbers of training seeds, fewer than two utterances, or a value that is not finite.
    """
    sets = [np.atleast_2d(np.asarray(values, dtype=np.float64)) for values in (first, second)]
    means = [mean_of(d) for d in sets]
    seeds = len(sets[0])
    if len(sets[1]) != seeds:
        raise ValueError(f"a contrast of sets needs the same training seeds in both, got {seeds} and {len(sets[1])}")
    n = min(mean.n for mean in means)
    value = means[0].value - means[1].value
    # Of each set: variance of its mean over utterances, and what of it would be there if utterances did not differ.
    parts, rests = [], []
    for d in sets:
        by_utterance, m = d.mean(0), d.shape[1]
        parts.append((0.0 if rare_losses.all_equal(by_utterance) else float(by_utterance.var(ddof=1) / m), m - 1))
        rest = d - by_utterance - d.mean(1, keepdims=True) + d.mean()
        rests.append((float((rest**2).sum() / (max(seeds - 1, 1) * (m - 1) * m * seeds)), max(seeds - 1, 1) * (m - 1)))
    alone = sum(variance for variance, _ in parts)
    welch = alone**2 / sum(variance**2 / freedom for variance, freedom in parts) if alone else n - 1
    if seeds < MINIMUM_TRAINING_SEEDS:
        return Mean(value, math.sqrt(alone), welch, n, seeds)
    of_seeds = float((sets[0].mean(1) - sets[1].mean(1)).var(ddof=1) / seeds)
    of_rest = sum(variance for variance, _ in rests)
    if of_seeds <= of_rest:  # no more than the utterances' own noise: the seeds add nothing
        return Mean(value, math.sqrt(alone), welch, n, seeds)
    if alone <= of_rest:
        return Mean(value, math.sqrt(of_seeds), seeds - 1, n, seeds)
    total = alone + of_seeds - of_rest
    freedom = total**2 / sum(v**2 / f for v, f in (*parts, (of_seeds, seeds - 1), *rests))
    return Mean(value, math.sqrt(total), freedom, n, seeds)
