"""The statistics of claims: paired differences held against margins, ratios and spreads."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from imfbench.claims.means import contrast_of, mean_of
from imfbench.claims.verdicts import ALPHA
from imfbench.metrics import rare_losses
from imfbench.metrics.rare_losses import POWER

Losses = tuple[float, float]
"""What a lost recording of a, and one of b, takes off the mean of an utterance's differences or adds to it; both positive."""
Array = NDArray[np.float64]
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
        minimum_detectable: The true difference, ratio or share that would most likely (four times in five) have been seen; of a
            lattice's inequalities how much too high the score of a single one must be.
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


def falls_by_less(
    first: ArrayLike, second: ArrayLike, margin: float, higher_is_better: bool = True, lost: Losses | None = None,
    paired: bool = False, against: tuple[tuple[Array, Array], tuple[Array, Array]] | None = None,
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
        against: ``first`` and ``second`` with what is missing counted as it makes the further loss larger, and smaller.

    Returns:
        The contrast, with its interval; refuted where it is shown to be worse than the margin.

    Raises:
        ValueError: The margin is not positive, or as ``contrast_of``.
    """
    if not margin > 0:
        raise ValueError(f"the margin must be positive, got {margin}; it is the difference that would not matter")
    sign = 1.0 if higher_is_better else -1.0
    pairs = [(first, second), *(against or ((first, second), (first, second)))]
    sets, worst, best = ((sign * _matrix(hard), sign * _matrix(plain)) for hard, plain in pairs)
    gain, least, most = (mean_of(h - p) if paired else contrast_of(h, p) for h, p in (sets, worst, best))
    # With what is missing a spread may be smaller as well: what is said must hold with it and without it.
    within, beyond = max(m.above(-margin) for m in (gain, least)), max(m.below(-margin) for m in (gain, most))
    low, high = min(gain.interval[0], least.interval[0]), max(gain.interval[1], most.interval[1])
    seen, smallest = gain.minimum_detectable, None
    if lost is not None:
        # Below it, so many utterances cannot show that nothing more is lost, even where nothing is.
        hard, plain = (values.mean(0) for values in sets)
        smallest = -rare_losses.difference_bound(0 * hard, 0 * plain, *lost, ALPHA)
        seen = max(seen or 0.0, smallest)
        hard, plain = (values.mean(0) for values in worst)
        within = max(within, rare_losses.difference_p_value(hard, plain, margin, *lost))
        if high > -margin:  # what shows a loss beyond the margin needs nothing that was not seen
            low = min(low, rare_losses.difference_bound(hard, plain, *lost, ALPHA))
    ends = (low, high) if higher_is_better else (-high, -low)
    n = sets[0].shape[1]
    return Tested(
        sign * gain.value, *ends, n, margin, seen, within, beyond, training_seeds=gain.seeds, smallest_margin=smallest
    )


def compare(
    differences: ArrayLike, margin: float, test: Comparison, higher_is_better: bool = True, lost: Losses | None = None,
    words: ArrayLike | None = None, against: tuple[ArrayLike, ArrayLike] | None = None,
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
            the side and its noise seeds): "within the margin" and "there is a gain" must then hold with one more recording as
            well, which is lost by whom it is said of, and the interval reaches as far. "Beyond the margin" need not.
        words: Of a ratio of sums, the denominators (reference words), (utterances,): so few words that no test could show them
            are no detectable difference, however small the spread (``rare_losses.fewest``).
        against: ``differences`` with what is missing counted against a, and against b: what is said must hold with it and without
            it; it is not in the estimate.

    Returns:
        What was found. ``minimum_detectable`` is never less than what ``words`` allows, nor, where the claim is "within the
        margin", than the smallest margin that so many utterances can show.

    Raises:
        ValueError: The margin is not positive, or as ``mean_of``.
    """
    if not margin > 0:
        raise ValueError(f"the margin must be positive, got {margin}; it is the difference that would not matter")
    sign = 1.0 if higher_is_better else -1.0
    worst, best = against or (differences, differences)
    gain = Gain(sign * _matrix(differences), sign * _matrix(worst), sign * _matrix(best), lost)
    mean = gain.mean
    seen, smallest = mean.minimum_detectable, None
    if words is not None:
        below = np.asarray(words, dtype=np.float64)
        unseen = None if lost is None else {"better": lost[0], "different": max(lost)}.get(test)
        fewest = rare_losses.fewest(gain.by_utterance * below.mean(), below, unseen, ALPHA)
        seen = max(seen or 0.0, fewest)
    if lost is not None:
        smallest = rare_losses.smallest_margin(mean.n, most_lost(lost, test), ALPHA)
        if test in ("non-inferior", "equivalent"):
            seen = max(seen or 0.0, smallest)
    no_loss, no_gain = gain.above(-margin), gain.below(margin)
    within = max(no_loss, no_gain)
    much_worse, much_better = gain.below(-margin, unseen=False), gain.above(margin, unseen=False)
    pairs = {
        "non-inferior": (no_loss, much_worse),
        "inferior": (much_worse, no_loss),
        "better": (gain.above(0), no_gain),
        "equivalent": (within, min(much_better, much_worse)),
        "different": (min(gain.above(0), gain.below(0)), within),
    }
    low, high = gain.interval(margin, test)
    ends = (low, high) if higher_is_better else (-high, -low)
    return Tested(
        sign * mean.value, *ends, mean.n, margin, seen, *pairs[test], training_seeds=mean.seeds, smallest_margin=smallest
    )  # fmt: skip


def _matrix(differences: ArrayLike) -> Array:
    return np.atleast_2d(np.asarray(differences, dtype=np.float64))


class Gain:
    """The mean gain of a over b, held against bounds; of WER, with what is missing and one more recording that is lost.

    Args:
        gains: Gain of each utterance, (training seeds, utterances), higher is better.
        worst: The same with what is missing counted against a, (training seeds, utterances).
        best: Against b.
        lost: As for ``compare``.
    """

    def __init__(self, gains: Array, worst: Array, best: Array, lost: Losses | None) -> None:
        self.mean, self.by_utterance, self.lost = mean_of(gains), gains.mean(0), lost
        self._least, self._worst, self._most, self._best = mean_of(worst), worst.mean(0), mean_of(best), best.mean(0)

    def above(self, bound: float, unseen: bool = True) -> float:
        """P-value of "the mean gain is at most ``bound``"; of WER with one more recording, but for ``unseen=False``."""
        found = max(self.mean.above(bound), self._least.above(bound))
        if self.lost is None or not unseen:
            return found
        return max(found, rare_losses.p_value(self._worst, -bound, self.lost[0]))

    def below(self, bound: float, unseen: bool = True) -> float:
        """P-value of "the mean gain is at least ``bound``"."""
        found = max(self.mean.below(bound), self._most.below(bound))
        if self.lost is None or not unseen:
            return found
        return max(found, rare_losses.p_value(-self._best, bound, self.lost[1]))

    def interval(self, margin: float, test: Comparison) -> tuple[float, float]:
        """Its 95 % interval, as far as the p-values that decide the test leave it."""
        low = min(self.mean.interval[0], self._least.interval[0])
        high = max(self.mean.interval[1], self._most.interval[1])
        one_sided = test in ("non-inferior", "inferior")
        beyond = (one_sided or test == "equivalent") and (high <= -margin or (test == "equivalent" and low >= margin))
        if self.lost is None or beyond:
            return low, high
        low = min(low, rare_losses.bounds(self._worst, self.lost[0], ALPHA)[0])
        return low, high if one_sided else max(high, rare_losses.bounds(self._best, self.lost[1], ALPHA)[1])


def most_lost(lost: Losses, test: Comparison) -> float:
    """What the one more recording loses or gains where a test says "within the margin": of two sides the larger."""
    return {"non-inferior": lost[0], "inferior": lost[0], "better": lost[1]}.get(test, max(lost))


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
