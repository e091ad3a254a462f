"""The statistics of claims: paired differences with training seeds as a source of chance, ratios, shares and spreads."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from imfbench.claims.verdicts import ALPHA
from imfbench.metrics import rare_losses
from imfbench.metrics.stats import DETECTABLE, MINIMUM_TRAINING_SEEDS

POWER = 0.8
MANY = 1000
"""Degrees of freedom beyond which Student's distribution is as good as the normal one."""
Losses = tuple[float, float]
"""What a lost recording of a, and one of b, takes off the mean of an utterance's differences or adds to it; both positive."""
Comparison = Literal["non-inferior", "inferior", "better", "equivalent", "different"]


@dataclass(frozen=True)
class Tested:
    """What a test found.

    Attributes:
        estimate: The figure that the claim is about.
        low: Lower end of its 95 % interval; None where it has none.
        high: Upper end.
        n: Independent observations: utterances, seeds, pairs of sizes or inequalities.
        margin: What the estimate is held against.
        minimum_detectable: The true difference, ratio or share that would most likely (four times in five) have been seen.
        p_support: P-value of "the claim is not so".
        p_refute: P-value of "the claim is so".
        training_seeds: Trained networks a side, where the figure is theirs.
        smallest_margin: Below it so many utterances cannot show that a difference is within the margin, even if nothing differs;
            None where they set no such bound.
    """

    estimate: float
    low: float | None
    high: float | None
    n: int
    margin: float
    minimum_detectable: float | None
    p_support: float
    p_refute: float
    training_seeds: int | None = None
    smallest_margin: float | None = None


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


def falls_by_less(
    first: ArrayLike, second: ArrayLike, margin: float, higher_is_better: bool = True, lost: Losses | None = None,
    paired: bool = False,
) -> Tested:  # fmt: skip
    """Is a − b, over one set of utterances, worse than over another by less than the margin?

    Args:
        first: a − b, (training seeds, utterances of the harder set), in the figure's own unit.
        second: a − b, (the same training seeds, utterances of the set that it is held against).
        margin: Positive: the further loss that would not matter.
        higher_is_better: False for WER.
        lost: As for ``compare``: one more recording of each set counts, the harder set's lost by a network of a, the other's by
            one of b.
        paired: Whether the sets have the same utterances, in the same order, such as with noisy and with clean prompts.

    Returns:
        The contrast, with its interval; refuted where it is shown to be worse than the margin.

    Raises:
        ValueError: The margin is not positive, or as ``contrast_of``.
    """
    if not margin > 0:
        raise ValueError(f"the margin must be positive, got {margin}; it is the difference that would not matter")
    sign = 1.0 if higher_is_better else -1.0
    gains = [sign * np.atleast_2d(np.asarray(values, dtype=np.float64)) for values in (first, second)]
    gain = mean_of(gains[0] - gains[1]) if paired else contrast_of(*gains)
    within, beyond = gain.above(-margin), gain.below(-margin)
    low, high = gain.interval
    seen, smallest = gain.minimum_detectable, None
    if lost is not None:
        hard, plain = (values.mean(0) for values in gains)
        # Below it, so many utterances cannot show that nothing more is lost, even where nothing is.
        smallest = -rare_losses.difference_bound(0 * hard, 0 * plain, *lost, ALPHA)
        seen = max(seen or 0.0, smallest)
        within = max(within, rare_losses.difference_p_value(hard, plain, margin, *lost))
        if high > -margin:  # what shows a loss needs nothing that was not seen
            low = min(low, rare_losses.difference_bound(hard, plain, *lost, ALPHA))
    ends = (low, high) if higher_is_better else (-high, -low)
    n = gains[0].shape[1]
    return Tested(
        sign * gain.value, *ends, n, margin, seen, within, beyond, training_seeds=gain.seeds, smallest_margin=smallest
    )


def compare(
    differences: ArrayLike, margin: float, test: Comparison, higher_is_better: bool = True, lost: Losses | None = None,
    words: ArrayLike | None = None,
) -> Tested:  # fmt: skip
    """A claim about the mean of a − b.

    Args:
        differences: a − b, (training seeds, utterances), in the figure's own unit.
        margin: Positive. "non-inferior" and "inferior": the loss that is accepted; "better": the gain that would matter;
            "equivalent" and "different": the difference that would not matter.
        test: "non-inferior" is refuted where the loss is shown to exceed the margin; "inferior" is its opposite; "better" is
            refuted where a gain of the margin is ruled out; "equivalent" where the difference is shown to exceed the margin;
            "different" where it is shown to stay within.
        higher_is_better: False for WER.
        lost: How much an utterance's mean difference loses if a network of a loses a recording of it, and gains if one of b does,
            for figures of which most differences are 0, as those of WER are (``rare_losses.LOST``, divided by the networks of
            the side and its noise seeds): "within the margin" must then hold with one more recording as well, which is lost,
            and the interval reaches as far on that side.
        words: Of a ratio of sums, the denominators (reference words), (utterances,): so few words that no test could show them
            are no detectable difference, however small the spread (``rare_losses.fewest``).

    Returns:
        What was found. ``minimum_detectable`` is never less than what ``words`` allows, nor, where the claim is "within the
        margin", than the smallest margin that so many utterances can show.

    Raises:
        ValueError: The margin is not positive, or as ``mean_of``.
    """
    if not margin > 0:
        raise ValueError(f"the margin must be positive, got {margin}; it is the difference that would not matter")
    mean = mean_of(differences)
    gain = mean if higher_is_better else Mean(-mean.value, mean.error, mean.freedom, mean.n, mean.seeds)
    no_loss, no_gain = gain.above(-margin), gain.below(margin)
    low, high = gain.interval
    seen, smallest = mean.minimum_detectable, None
    by_utterance = np.atleast_2d(np.asarray(differences, dtype=np.float64)).mean(0)
    if words is not None:
        below = np.asarray(words, dtype=np.float64)
        seen = max(seen or 0.0, rare_losses.fewest(by_utterance * below.mean(), below))
    if lost is not None:
        gains = by_utterance * (1 if higher_is_better else -1)
        rare = rare_losses.p_values(gains, margin, lost[0], gained=lost[1])
        no_loss, no_gain = max(no_loss, rare[0]), max(no_gain, rare[1])
        low, high = _widened(low, high, rare_losses.bounds(gains, lost[0], ALPHA, lost[1]), margin, test)
        smallest = rare_losses.smallest_margin(mean.n, most_lost(lost, test), ALPHA)
        if test in ("non-inferior", "equivalent"):
            seen = max(seen or 0.0, smallest)
    within = max(no_loss, no_gain)
    pairs = {
        "non-inferior": (no_loss, gain.below(-margin)),
        "inferior": (gain.below(-margin), no_loss),
        "better": (gain.above(0), no_gain),
        "equivalent": (within, min(gain.above(margin), gain.below(-margin))),
        "different": (min(gain.above(0), gain.below(0)), within),
    }
    ends = (low, high) if higher_is_better else (-high, -low)
    return Tested(
        mean.value, *ends, mean.n, margin, seen, *pairs[test], training_seeds=mean.seeds, smallest_margin=smallest
    )


def most_lost(lost: Losses, test: Comparison) -> float:
    """What the one more recording loses or gains where a test says "within the margin": of two sides the larger."""
    return {"non-inferior": lost[0], "inferior": lost[0], "better": lost[1]}.get(test, max(lost))


def _widened(
    low: float, high: float, bounds: tuple[float, float], margin: float, test: Comparison
) -> tuple[float, float]:
    """An interval of gains whose ends reach as far as the bounds where they speak for "within the margin".

    What shows a loss, a gain or a difference needs nothing that was not seen: there the interval stays as it is.
    """
    shown = {"equivalent": margin, "different": 0.0}.get(test, math.inf)
    loss_matters = test != "better" and high > -margin and low <= shown
    gain_matters = test not in ("non-inferior", "inferior") and high >= -shown
    return (min(low, bounds[0]) if loss_matters else low), (max(high, bounds[1]) if gain_matters else high)


def ratio_at_least(numerators: ArrayLike, denominators: ArrayLike, at_least: float) -> Tested:
    """Is a ratio, such as seconds of the teacher over seconds of the student, at least so large?

    Args:
        numerators: Of each utterance, positive, (utterances,).
        denominators: Of the same utterances, positive.
        at_least: The claimed ratio.

    Returns:
        The geometric mean of the utterances' ratios with its interval (Student's, on logarithms).
    """
    above, below = (np.asarray(values, dtype=np.float64) for values in (numerators, denominators))
    mean = mean_of(np.log(above) - np.log(below))
    bound = math.log(at_least)
    low, high = (math.exp(end) for end in mean.interval)
    detectable = None if mean.minimum_detectable is None else at_least * math.exp(mean.minimum_detectable)
    estimate = math.exp(mean.value)
    return Tested(estimate, low, high, mean.n, at_least, detectable, mean.above(bound), mean.below(bound))


def all_above(ratios: ArrayLike, at_least: float, floors: ArrayLike = (), ceilings: ArrayLike = ()) -> Tested:
    """Do ratios of a figure that does not vary (bytes of a step) all exceed a bound? Certain either way.

    Args:
        ratios: That are known.
        at_least: The bound.
        floors: What further ratios are no less than: they can show that the bound is exceeded, and never that it is not.
        ceilings: What further ratios are no more than: the other way round.

    Returns:
        The smallest ratio, with the smallest and largest as its range; it is no confidence interval, and open where the ends
        are bounds.

    Raises:
        ValueError: There is nothing to go by.
    """
    known, above, below = (np.asarray(values, dtype=np.float64) for values in (ratios, floors, ceilings))
    every = np.concatenate([known, above, below])
    if not len(every):
        raise ValueError("there is no ratio")
    shown = bool((np.concatenate([known, above]) > at_least).all()) and not len(below)
    refuted = bool((np.concatenate([known, below]) <= at_least).any())
    low, high = (None if len(below) else float(every.min())), (None if len(above) else float(every.max()))
    return Tested(float(every.min()), low, high, len(every), at_least, None, float(not shown), float(not refuted))


def smaller_spread(first: ArrayLike, second: ArrayLike) -> Tested:
    """Is the standard deviation over seeds smaller in the first? The F test of two variances.

    Args:
        first: A figure for each seed, (seeds,), on a scale on which it is about normal: logarithms of losses and norms.
        second: The other method's.

    Returns:
        The ratio of the standard deviations, first over second, with its interval; the margin is 1.

    Raises:
        ValueError: Fewer than two seeds a side, or no spread at all.
    """
    a, b = (np.asarray(values, dtype=np.float64) for values in (first, second))
    if min(len(a), len(b)) < 2:
        raise ValueError("a spread needs at least two seeds a side")
    if not (np.isfinite(a).all() and np.isfinite(b).all()) or a.std() == 0 or b.std() == 0:
        raise ValueError("a seed's figure is not finite, or all seeds of a side have the same")
    ratio = float(a.var(ddof=1) / b.var(ddof=1))
    law = stats.f(len(a) - 1, len(b) - 1)
    low, high = (math.sqrt(ratio / law.ppf(level)) for level in (1 - ALPHA, ALPHA))
    # sd ratio that is told from 1 four times in five, written as a ratio below 1.
    detectable = math.sqrt(law.ppf(ALPHA) / law.ppf(POWER))
    return Tested(
        math.sqrt(ratio), low, high, min(len(a), len(b)), 1.0, detectable, float(law.cdf(ratio)), float(law.sf(ratio)),
        training_seeds=min(len(a), len(b)),
    )  # fmt: skip
