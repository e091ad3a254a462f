"""Intervals, paired comparisons and corrections: the only way from per-utterance scores to a statement.

The unit of every function here is the utterance. Noise seeds are averaged per utterance first (`average_seeds`): they
are repetitions, not observations. Failed rows must be taken out, and counted, by the caller: a NaN is an error here, so
that no denominator shrinks in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from imfbench.metrics import rare_losses
from imfbench.metrics.scores import Array, Scores, aligned, check_positive, checked

MINIMUM_CLUSTERS = 20
"""Below so many clusters a clustered bootstrap is too narrow to be believed, and is refused."""

MINIMUM_TRAINING_SEEDS = 3
"""With fewer trained checkpoints a side, a statement is about checkpoints and not about methods."""

PERMUTATIONS = 9999
"""Sign flips drawn for a p-value, whose floor is then 2e-4; where fewer exist all of them are tried."""

DETECTABLE = 2.8
"""z(.975) + z(.80): the true difference, in standard errors, that a two-sided 5 % test finds four times in five."""


class TooFewClustersError(ValueError):
    """A clustered bootstrap over fewer than `MINIMUM_CLUSTERS` clusters."""


@dataclass(frozen=True)
class Interval:
    """A figure with its bootstrap interval.

    Attributes:
        value: The figure of the whole sample; NaN without any observation.
        low: Lower end; NaN with fewer than two observations, as is `high`.
        high: Upper end.
        n: Independent observations behind the figure: utterances, or clusters where those were resampled.
    """

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Paired:
    """What a paired comparison of `a` and `b` over the same utterances found.

    Attributes:
        difference: Mean of a − b, in the metric's own unit.
        low: Lower end of the paired bootstrap interval of the difference.
        high: Upper end.
        p: Two-sided sign-flip p-value of "no difference", not yet corrected for the number of comparisons (`holm`).
        n: Utterances.
        minimum_detectable: 2.8·sd(d)/√n; a true difference below this would most likely have been missed. Of a ratio at
            least `rare_losses.fewest`, of a mean None where all differences are equal.
    """

    difference: float
    low: float
    high: float
    p: float
    n: int
    minimum_detectable: float | None


@dataclass(frozen=True)
class MarginTest:
    """A test of "as good as" against a stated margin.

    Attributes:
        holds: Whether the claim is shown at `alpha`; False means "not shown", never "shown to be worse".
        p: The p-value of the claim's null hypothesis (for an equivalence the larger of the two).
        difference: Mean of a − b.
        low: Lower end of the Student interval of level 1 − 2·alpha (with `lost` the wider one): unless all differences are
            equal, the claim holds where it keeps within the margin.
        high: Upper end of that interval.
        margin: The margin as given.
        alpha: The level of each one-sided test.
        n: Utterances.
        minimum_detectable: 2.8·sd(d)/√n; a margin below it can hardly ever be met. None where all differences are equal.
    """

    holds: bool
    p: float
    difference: float
    low: float
    high: float
    margin: float
    alpha: float
    n: int
    minimum_detectable: float | None


def average_seeds(frame: pd.DataFrame, utterance: str = "id", seed: str = "noise_seed") -> pd.DataFrame:
    """Mean over noise seeds of every numeric column, a row per utterance, in the order of first appearance.

    A corpus figure stays what it is: mean edits over mean reference words is the same ratio of sums.

    Args:
        frame: A row per utterance and noise seed.
        utterance: Column that names the utterance.
        seed: Column that names the noise seed.

    Returns:
        A frame indexed by utterance. An utterance that misses a score at one of the seeds has NaN there, since its mean
        over the other seeds is not comparable with the rest; count these and take them out.

    Raises:
        ValueError: A column is missing, or an utterance stands twice under one seed.
    """
    missing = {utterance, seed} - set(frame.columns)
    if missing:
        raise ValueError(
            f"no column {', '.join(sorted(missing))} to average over seeds; there are {list(frame.columns)}"
        )
    twice = frame.duplicated([utterance, seed])
    if twice.any():
        first = frame.loc[twice].iloc[0]
        raise ValueError(
            f"utterance {first[utterance]!r} stands twice under {seed} {first[seed]}; keep one row of each"
        )
    numeric = [name for name in frame.select_dtypes(["number", "bool"]).columns if name not in (utterance, seed)]
    if frame[seed].nunique(dropna=False) == 1:  # nothing to average, and the table below takes longer than a test
        return frame.set_index(utterance)[numeric].astype(float)
    wide = frame.set_index([utterance, seed])[numeric].astype(float).unstack(seed)
    means = {name: wide[name].mean(axis=1, skipna=False) for name in numeric}
    return pd.DataFrame(means, columns=numeric).reindex(pd.Index(frame[utterance].unique(), name=utterance))


def bootstrap_mean(values: Scores, n: int = 2000, seed: int = 0, level: float = 0.95) -> Interval:
    """The mean and its percentile bootstrap interval.

    Args:
        values: A score per utterance, (utterances,).
        n: Resamples.
        seed: Seed of the resamples; the same scores always get the same interval.
        level: Confidence level.

    Raises:
        ValueError: A score is not finite.
    """
    scores = checked(values)
    return _bootstrap((scores,), lambda x, axis=-1: x.mean(axis), n, seed, level)


def bootstrap_ratio(
    numerators: Scores, denominators: Scores, n: int = 2000, seed: int = 0, level: float = 0.95
) -> Interval:
    """A ratio of sums, such as corpus WER (edits over reference words), and its percentile bootstrap interval.

    Whole utterances are resampled, so that long ones keep their weight.

    Args:
        numerators: For each utterance, (utterances,); edits for WER.
        denominators: For each utterance, (utterances,), positive; reference words for WER.
        n: Resamples, `seed` and `level` as for `bootstrap_mean`.

    Raises:
        ValueError: A number is not finite, the lengths differ, or a denominator is not positive.
    """
    above, below = aligned(numerators, denominators)
    check_positive(below)
    return _bootstrap((above, below), lambda x, y, axis=-1: x.sum(axis) / y.sum(axis), n, seed, level)


def paired_difference(
    a: Scores, b: Scores, n: int = 2000, seed: int = 0, level: float = 0.95, flips: int | None = None
) -> Paired:
    """Compare two systems by a per-utterance score over the same utterances and the same initial noise.

    Args:
        a: Scores of the first system, (utterances,). Two series are matched by their index.
        b: Scores of the second, in the same order or with the same index.
        n: Resamples of the interval.
        seed: Seed of resamples and sign flips.
        level: Confidence level of the interval.
        flips: Sign flips for a p-value that is at the floor of `PERMUTATIONS`, where a family of tests is large.

    Raises:
        ValueError: A score is not finite, or the two sides are not the same utterances, at least two.
    """
    first, second = aligned(a, b)
    return _paired(first - second, n, seed, level, flips)


def paired_ratio(
    a: Scores,
    b: Scores,
    denominators: Scores,
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    flips: int | None = None,
) -> Paired:
    """Compare two systems by a ratio of sums over the same denominators: corpus WER, whose references are the same.

    The difference is Σ(a − b)/Σ denominators; its interval resamples whole utterances, and the p-value flips the sign
    of each utterance's a − b. Numerators are counts: so few words that no test could show them are no detectable difference.

    Args:
        a: Numerators of the first system (edits), (utterances,). Series are matched by their index.
        b: Numerators of the second.
        denominators: Of both (reference words), positive.
        n: Resamples, `seed`, `level` and `flips` as for `paired_difference`.

    Raises:
        ValueError: As for `paired_difference` and `bootstrap_ratio`.
    """
    first, second, below = aligned(a, b, denominators)
    interval = bootstrap_ratio(first - second, below, n, seed, level)
    found = _paired((first - second) / below.mean(), n, seed, level, flips)
    seen = max(found.minimum_detectable or 0.0, rare_losses.fewest(first - second, below))
    return replace(found, low=interval.low, high=interval.high, minimum_detectable=seen)


def non_inferior(
    a: Scores, b: Scores, margin: float, *, higher_is_better: bool = True, alpha: float = 0.025,
    lost: float | None = None, draws: int = rare_losses.DRAWS,
) -> MarginTest:  # fmt: skip
    """Is `a` worse than `b` by less than `margin`? A one-sided paired t test.

    Where all differences are equal Student's p-value would be 0; it is the sign test's 2⁻ⁿ then.

    Args:
        a: Scores of the system under test, (utterances,). Two series are matched by their index.
        b: Scores of the reference system.
        margin: The loss that would still be accepted, positive, in the metric's own unit; state it before looking.
        higher_is_better: False for WER.
        alpha: Level of the test; .025 reads the usual 95 % interval.
        lost: What a single utterance can lose, for scores that are mostly equal, as those of WER (`rare_losses.LOST`, over
            the seeds averaged): the claim must then hold with one more utterance as well, which loses so much.
        draws: Weights that are drawn for that.

    Raises:
        ValueError: The margin is not positive, or the scores are not comparable.
    """
    first, second = aligned(a, b)
    below, above = _one_sided(first - second, margin, lost, draws)
    return _margin_test(first - second, margin, alpha, below if higher_is_better else above, lost)


def equivalent(
    a: Scores,
    b: Scores,
    margin: float,
    *,
    alpha: float = 0.05,
    lost: float | None = None,
    draws: int = rare_losses.DRAWS,
) -> MarginTest:
    """Do `a` and `b` differ by less than `margin` either way? Two one-sided paired t tests (TOST).

    Arguments and errors are those of `non_inferior`; `margin` is the difference that would not matter, and an alpha of
    .05 for each of the two tests reads the 90 % interval, as is usual for TOST.
    """
    first, second = aligned(a, b)
    return _margin_test(first - second, margin, alpha, max(_one_sided(first - second, margin, lost, draws)), lost)


def holm(pvalues: ArrayLike) -> Array:
    """Holm's step-down correction: p-values that may be compared with .05 however many comparisons were made.

    Args:
        pvalues: P-values of all comparisons of a table, (comparisons,).

    Returns:
        Corrected p-values in the same order, at most 1. Holm, Scandinavian Journal of Statistics 6 (1979).

    Raises:
        ValueError: A p-value is outside [0, 1].
    """
    raw = checked(pvalues)
    if ((raw < 0) | (raw > 1)).any():
        raise ValueError(f"p-values lie in [0, 1]; got {raw.tolist()}")
    order = np.argsort(raw)
    stepped = np.maximum.accumulate(raw[order] * np.arange(len(raw), 0, -1))
    corrected = np.empty_like(raw)
    corrected[order] = np.minimum(stepped, 1)
    return corrected


def minimum_detectable(differences: Scores) -> float | None:
    """2.8·sd(d)/√n of paired differences d, (utterances,): what could have been seen.

    NaN below two utterances; None where all are equal, since what does not vary tells nothing about how much it would.
    """
    d = checked(differences)
    if len(d) < 2:
        return float("nan")
    return None if rare_losses.all_equal(d) else float(DETECTABLE * d.std(ddof=1) / np.sqrt(len(d)))


def statement_scope(training_seeds: Sequence[int]) -> Literal["methods", "checkpoints"]:
    """What a comparison may speak about, given the training seeds of the side that has fewer of them."""
    return "methods" if len(set(training_seeds)) >= MINIMUM_TRAINING_SEEDS else "checkpoints"


def _bootstrap(data: tuple[Array, ...], statistic: Callable[..., Any], n: int, seed: int, level: float) -> Interval:
    size = len(data[0])
    if size < 2:
        return Interval(float(statistic(*data)) if size else float("nan"), float("nan"), float("nan"), size)
    # Percentile, not BCa: on utterance-level WER BCa covers no better, and it is undefined where all scores are equal.
    found = stats.bootstrap(
        data,
        statistic,
        n_resamples=n,
        batch=_batch(size),
        paired=True,
        vectorized=True,
        confidence_level=level,
        method="percentile",
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(float(statistic(*data)), float(found.low), float(found.high), size)


def _batch(size: int) -> int:
    """Resamples made at a time: memory must not grow with the utterances; the numbers drawn are the same."""
    return max(1, 4_000_000 // size)


def _paired(differences: Array, n: int, seed: int, level: float, flips: int | None) -> Paired:
    _check_two(differences)
    interval = bootstrap_mean(differences, n, seed, level)
    p = stats.permutation_test(
        (differences,),
        lambda d, axis=-1: d.mean(axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=PERMUTATIONS,
        batch=_batch(len(differences)),
        random_state=np.random.default_rng(seed),
    ).pvalue
    if flips is not None and flips > PERMUTATIONS and p <= 2 / (PERMUTATIONS + 1):
        p = _finer_p(differences, flips, seed)
    return Paired(interval.value, interval.low, interval.high, float(p), interval.n, minimum_detectable(differences))


def _finer_p(differences: Array, flips: int, seed: int) -> float:
    """The sign-flip p-value by more flips than SciPy draws in reasonable time: by matrix products, in batches."""
    generator = np.random.default_rng(seed)
    least = abs(differences.sum()) * (1 - 1e-12)
    extreme, batch = 0, _batch(len(differences))
    for done in range(0, flips, batch):
        signs = generator.integers(0, 2, (min(batch, flips - done), len(differences)), dtype=np.int8)
        extreme += np.count_nonzero(np.abs((2.0 * signs - 1) @ differences) >= least)
    return (extreme + 1) / (flips + 1)


def _one_sided(d: Array, margin: float, lost: float | None, draws: int) -> tuple[float, float]:
    """P-values of "the mean is at most −margin" and of "the mean is at least +margin"."""
    _check_two(d)
    if not margin > 0:
        raise ValueError(f"the margin must be positive, got {margin}; it is the difference that would not matter")
    if rare_losses.all_equal(d):
        least = 0.5 ** len(d)
        lower, upper = (least if d.mean() > -margin else 1.0), (least if d.mean() < margin else 1.0)
    else:
        lower = float(stats.ttest_1samp(d, -margin, alternative="greater").pvalue)
        upper = float(stats.ttest_1samp(d, margin, alternative="less").pvalue)
    if lost is not None:
        lower = max(lower, rare_losses.p_value(d, margin, lost, draws))
        upper = max(upper, rare_losses.p_value(-d, margin, lost, draws))
    return lower, upper


def _margin_test(d: Array, margin: float, alpha: float, p: float, lost: float | None) -> MarginTest:
    half = stats.t.ppf(1 - alpha, len(d) - 1) * d.std(ddof=1) / np.sqrt(len(d))
    mean = float(d.mean())
    low, high = float(mean - half), float(mean + half)
    if lost is not None:
        rare = rare_losses.bounds(d, lost, alpha)
        low, high = min(low, rare[0]), max(high, rare[1])
    return MarginTest(p < alpha, p, mean, low, high, margin, alpha, len(d), minimum_detectable(d))


def _check_two(differences: Array) -> None:
    if len(differences) < 2:
        raise ValueError(f"a paired comparison needs at least two utterances, got {len(differences)}")
