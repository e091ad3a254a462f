"""Intervals and paired tests for new speakers: utterances of a speaker resemble each other, so whole speakers are resampled.

An interval over utterances answers for new texts of *these* speakers. Where a figure is to hold for speakers that nobody has
heard yet, the speaker is the unit: a corpus figure is a ratio of sums over speakers, its interval resamples speakers, a paired
test flips the sign of a speaker's whole difference. Below ``stats.MINIMUM_CLUSTERS`` of them this is too narrow to be believed,
and is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from imfbench.metrics import rare_losses, stats
from imfbench.metrics.stats import MINIMUM_CLUSTERS, Array, Interval, Paired, TooFewClustersError


def require_clusters(labels: Sequence[Hashable], what: str = "speaker") -> int:
    """How many clusters there are.

    Args:
        labels: The cluster of each utterance, (utterances,).
        what: What a cluster is, for messages.

    Raises:
        TooFewClustersError: Fewer than 20, or an utterance of which the cluster is not known.
    """
    names = pd.Series(list(labels), dtype=object)
    unknown = int((names.isna() | (names == "")).sum())
    if unknown:
        raise TooFewClustersError(
            f"the {what} of {unknown} of {len(names)} utterances is not known, so whole {what}s cannot be resampled"
        )
    found = names.nunique()
    if found < MINIMUM_CLUSTERS:
        raise TooFewClustersError(
            f"there are {found} {what}s, and intervals that resample whole {what}s need at least {MINIMUM_CLUSTERS}: "
            f"below that they are far too narrow. Leave out the clustering, and limit the statement to these {what}s"
        )
    return int(found)


def bootstrap_ratio(
    numerators: ArrayLike, denominators: ArrayLike, clusters: Sequence[Hashable], **settings: Any
) -> Interval:
    """A ratio of sums over utterances and its interval for new clusters; over denominators of 1 it is the mean.

    Args:
        numerators: For each utterance, (utterances,); edits for WER.
        denominators: For each utterance, (utterances,), positive; reference words for WER.
        clusters: The cluster of each utterance, (utterances,).
        settings: ``n``, ``seed`` and ``level`` of ``stats.bootstrap_ratio``.

    Returns:
        The interval; its ``n`` counts clusters.

    Raises:
        TooFewClustersError: Fewer than 20 clusters.
        ValueError: A number is not finite, a length differs, or a denominator is not positive.
    """
    above, below = _sums((numerators, denominators), clusters)
    return stats.bootstrap_ratio(above, below, **settings)


def bootstrap_mean(values: ArrayLike, clusters: Sequence[Hashable], **settings: Any) -> Interval:
    """The mean over utterances and its interval for new clusters; arguments and errors as for ``bootstrap_ratio``."""
    return bootstrap_ratio(values, np.ones(len(clusters)), clusters, **settings)


def paired_ratio(
    a: ArrayLike, b: ArrayLike, denominators: ArrayLike, clusters: Sequence[Hashable], **settings: Any
) -> Paired:
    """``stats.paired_ratio`` for new clusters; denominators of 1 compare means.

    The p-value flips the sign of each cluster's whole difference.

    Args:
        a: Numerators of the first system, (utterances,).
        b: Numerators of the second, in the same order.
        denominators: Of both, (utterances,), positive.
        clusters: The cluster of each utterance, (utterances,).
        settings: ``n``, ``seed`` and ``level``.

    Returns:
        The comparison; its ``n`` counts clusters.

    Raises:
        TooFewClustersError, ValueError: As ``bootstrap_ratio``.
    """
    first, second, below = _sums((a, b, denominators), clusters)
    found = stats.paired_ratio(first, second, below, **settings)
    seen = stats.minimum_detectable(_linear(first - second, below))
    if (np.asarray(denominators) != 1).any():
        seen = max(seen or 0.0, rare_losses.fewest(first - second, below))
    return replace(found, minimum_detectable=seen)


def linearised(a: ArrayLike, b: ArrayLike, denominators: ArrayLike, clusters: Sequence[Hashable]) -> Array:
    """For each cluster a number, whose mean is the difference of the ratios and whose spread is that of it, (clusters,).

    Tests against a margin take them as they take differences of utterances: the usual linearisation of a ratio
    (Cochran, Sampling Techniques, section 6.3), without which clusters of unequal size would count as noise.
    """
    first, second, below = _sums((a, b, denominators), clusters)
    return _linear(first - second, below)


def bootstraps(clusters: Sequence[Hashable] | None) -> tuple[Callable[..., Interval], Callable[..., Interval]]:
    """How to resample means and ratios: over utterances, or over these clusters."""
    if clusters is None:
        return stats.bootstrap_mean, stats.bootstrap_ratio
    return partial(bootstrap_mean, clusters=clusters), partial(bootstrap_ratio, clusters=clusters)


def _linear(differences: Array, denominators: Array) -> Array:
    ratio = differences.sum() / denominators.sum()
    return np.asarray((differences - ratio * denominators) / denominators.mean() + ratio)


def _sums(columns: tuple[ArrayLike, ...], clusters: Sequence[Hashable]) -> tuple[Array, ...]:
    """The columns summed over each cluster, in the order of first appearance."""
    require_clusters(clusters)
    names = pd.Series(list(clusters), dtype=object)
    values = [np.asarray(column, dtype=np.float64) for column in columns]
    if any(len(value) != len(names) for value in values):
        raise ValueError(f"{len(names)} cluster names for columns of {[len(value) for value in values]} utterances")
    if not all(np.isfinite(value).all() for value in values):
        raise ValueError("a number is not finite; take failed utterances out, and count them, first")
    return tuple(pd.Series(value).groupby(names, sort=False).sum().to_numpy() for value in values)
