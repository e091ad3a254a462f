"""Scores as statistics take them: one dimension, every number finite, two sides over the same utterances."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

Scores = ArrayLike | pd.Series
Array = NDArray[np.float64]


def checked(values: Scores) -> Array:
    """A score per utterance, (utterances,), all of them finite.

    Raises:
        ValueError: They are not; the message names the first that is not.
    """
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim != 1:
        raise ValueError(f"expected a score per utterance in one dimension, got shape {scores.shape}")
    bad = np.flatnonzero(~np.isfinite(scores))
    if len(bad):
        name = values.index[bad[0]] if isinstance(values, pd.Series) else bad[0]
        raise ValueError(
            f"{len(bad)} of {len(scores)} scores are not finite, the first at {name!r}; "
            "take failed utterances out, and count them, before asking for statistics"
        )
    return scores


def aligned(*columns: Scores) -> tuple[Array, ...]:
    """The columns in the order of the first; series are matched by their index, if all of them are series.

    Raises:
        ValueError: A score is not finite, or the sides are not the same utterances, each once.
    """
    series = [column for column in columns if isinstance(column, pd.Series)]
    if len(series) == len(columns):
        first = series[0].index
        for index in (column.index for column in series):
            if index.has_duplicates:
                raise ValueError("an utterance stands twice in the index; average noise seeds first (average_seeds)")
            alone = first.symmetric_difference(index)
            if len(alone):
                raise ValueError(f"{len(alone)} utterances stand on one side only, such as {alone[0]!r}; pair the rest")
        columns = tuple(column.reindex(first) for column in series)
    aligned = tuple(checked(column) for column in columns)
    if len({len(column) for column in aligned}) > 1:
        raise ValueError(f"the sides are of unequal length ({[len(x) for x in aligned]}); give the same utterances")
    return aligned


def check_positive(denominators: Array) -> None:
    """Raise ValueError for a denominator that is not positive."""
    if (denominators <= 0).any():
        raise ValueError("a denominator is not positive; an utterance without reference words is a failed row")
