"""What a scorer is: ``ScoreItem`` in, an observation (what the model heard), a row of figures out, a summary of rows.

A metric works on two levels. ``observe`` runs the model (transcript, embeddings, predicted MOS, pitch): it is dear,
reads only what ``cache_inputs`` lists, and its JSON-able result may be cached under ``cache_key``. ``score`` turns an
observation into the row's columns (edits, cosine): it is cheap and is done anew each time.
"""

from __future__ import annotations

import gc
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from imfbench.features.audio import RESAMPLER
from imfbench.metrics.resamplers import resampled

if TYPE_CHECKING:
    import pandas as pd

    from imfbench.metrics.signature import Signature


class ScoreError(RuntimeError):
    """This utterance cannot be scored; the message is the reason that stands in its row."""


@dataclass(frozen=True, eq=False)
class ScoreItem:
    """An utterance to be scored.

    Attributes:
        id: The utterance's id.
        audio: The generated part alone (never the prompt's frames), (samples,), float32, within −1 to 1.
        sample_rate: Samples a second of ``audio``.
        text: What should have been said.
        language: "en" or "zh".
        prompt_audio: The original prompt recording, (samples,), float32; for speaker similarity.
        prompt_rate: Samples a second of ``prompt_audio``.
    """

    id: str
    audio: np.ndarray
    sample_rate: int
    text: str
    language: str = "en"
    prompt_audio: np.ndarray | None = None
    prompt_rate: int | None = None


class MetricConfig(BaseModel):
    """Base of a metric's settings; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Metric(ABC):
    """A scorer.

    Args:
        config: An instance of the class's ``Config``; None takes the defaults.
        device: Where the model is to run ("cpu", "auto" is not known here). The signature may depend on it.
        threads: Threads for models that bring their own pool (CTranslate2, ONNX Runtime); None follows torch's count.

    Attributes:
        name: The name in the registry and at the head of the signature.
        columns: The keys of a row.
        summary_columns: The columns that ``summarise`` averages.
        higher_is_better: False for error rates, None where neither direction is better.
        reads: Which files ``observe`` reads, of "audio" and "prompt", if it and ``row`` read nothing else but the text and
            language: a known score is then found by the files' sha256, and nothing is decoded. None: by decoded content.
    """

    Config: ClassVar[type[MetricConfig]] = MetricConfig
    name: ClassVar[str]
    columns: ClassVar[tuple[str, ...]]
    summary_columns: ClassVar[tuple[str, ...]] = ()
    higher_is_better: ClassVar[bool | None] = True
    reads: ClassVar[tuple[str, ...] | None] = None

    def __init__(self, config: Any = None, device: str = "cpu", threads: int | None = None) -> None:
        self.config: Any = self.Config() if config is None else config
        self.device = str(device)
        self.threads = threads
        self._model: Any = None

    @property
    @abstractmethod
    def model_signature(self) -> Signature:
        """What an observation depends on: model, sha256, precision, decoding, resampling."""

    @property
    def signature(self) -> Signature:
        """What a figure depends on: the model's signature and all that is done to an observation."""
        return self.model_signature

    @abstractmethod
    def open_model(self) -> Any:
        """Load the model on ``self.device`` and return it.

        Raises:
            imfbench.weights.MissingModelError: Its package or file is absent; the message says how to get it.
        """

    def prepare(self, item: ScoreItem) -> ScoreItem:
        """The item as ``observe`` would have it, done while the model listens to the one before: resampled, say.

        It changes no observation, and no key: those are of the item as it was.

        Raises:
            ScoreError: The utterance cannot be scored.
        """
        return item

    @abstractmethod
    def observe(self, item: ScoreItem) -> dict[str, Any]:
        """Run the model over the utterance; the result holds JSON types only.

        Raises:
            ScoreError: The utterance cannot be scored.
        """

    @abstractmethod
    def row(self, item: ScoreItem, observation: Mapping[str, Any]) -> dict[str, Any]:
        """The row's columns from an observation; runs no model.

        Raises:
            ScoreError: The utterance cannot be scored.
        """

    def score(self, item: ScoreItem, observation: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The row's columns, from ``observation`` if given (a cached one), else from a fresh one.

        Raises:
            ScoreError: The utterance cannot be scored; it becomes a failed row and is never cached.
        """
        return self.row(item, self.observe(item) if observation is None else observation)

    def unheard(self, item: ScoreItem) -> dict[str, Any] | None:
        """The row of an utterance of which nothing was said; None where the metric has no figure for silence."""
        return None

    def cache_inputs(self, item: ScoreItem) -> list[Any]:
        """Everything of the item that ``observe`` reads: arrays, numbers, texts."""
        return [item.audio, item.sample_rate]

    def cache_key(self, item: ScoreItem) -> str:
        """sha256 over the model's signature and the content of every input that ``observe`` reads."""
        return content_hash(str(self.model_signature), *self.cache_inputs(item))

    @property
    def workers(self) -> int:
        """How many threads may call ``observe`` at the same time, once the model is loaded."""
        return 1

    @property
    def model(self) -> Any:
        """The loaded model.

        Raises:
            RuntimeError: ``load`` was not called.
        """
        if self._model is None:
            raise RuntimeError(
                f"the model of metric {self.name!r} is not loaded: use `with metric.loaded(device, threads):`"
            )
        return self._model

    def load(self, device: str | None = None, threads: int | None = None) -> None:
        """Load the model, on another device or with another thread count than at construction if given."""
        self.device = self.device if device is None else str(device)
        self.threads = self.threads if threads is None else threads
        if self._model is None:
            self._model = self.open_model()

    def unload(self) -> None:
        """Free the model, so that metrics can be run one after the other in little memory."""
        import torch

        self._model = None
        gc.collect()
        if torch.accelerator.is_available():
            torch.accelerator.empty_cache()

    @contextmanager
    def loaded(self, device: str | None = None, threads: int | None = None) -> Iterator[Metric]:
        """``load`` on entry, ``unload`` on exit."""
        self.load(device, threads)
        try:
            yield self
        finally:
            self.unload()

    def summarise(self, rows: pd.DataFrame, cluster: str | None = None) -> dict[str, float]:
        """Mean and 95 % bootstrap interval of each summary column: ``x``, ``x_low``, ``x_high``, ``x_n`` (utterances).

        Args:
            rows: One row an utterance, or an utterance (``id``) and ``noise_seed``, which are averaged first. Failed
                rows hold NaN and are left out here; the caller states how many were expected.
            cluster: A column ("speaker") whose values are resampled whole; utterances without it.

        Raises:
            imfbench.metrics.stats.TooFewClustersError: Fewer than 20 clusters.
        """
        from imfbench.metrics.clustered import bootstraps

        summary: dict[str, float] = {}
        for column in self.summary_columns:
            scored = by_utterance(rows, [column])
            mean, _ = bootstraps(clusters_of(rows, scored, cluster))
            summary |= interval_columns(column, mean, scored[column])
        return summary


def interval_columns(name: str, bootstrap: Any, *values: Any) -> dict[str, float]:
    """``bootstrap(*values)`` as flat columns; not a number where nothing was scored."""
    if len(values[0]) == 0:
        return {name: float("nan"), f"{name}_low": float("nan"), f"{name}_high": float("nan"), f"{name}_n": 0}
    interval = bootstrap(*(np.asarray(value, dtype=np.float64) for value in values))
    return {
        name: interval.value,
        f"{name}_low": interval.low,
        f"{name}_high": interval.high,
        f"{name}_n": len(values[0]),
    }


def by_utterance(rows: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """A row for each utterance that was scored, its noise seeds averaged first: seeds are not further utterances.

    An utterance that failed at one of its seeds is left out, as its mean over the others compares with nothing.
    """
    from imfbench.metrics.stats import average_seeds

    if any(column not in rows for column in columns):  # every row failed
        return rows.iloc[:0].reindex(columns=columns).astype(float)
    numbers = rows.astype(dict.fromkeys(columns, float))
    if {"id", "noise_seed"} <= set(rows.columns):
        return average_seeds(numbers[["id", "noise_seed", *columns]]).dropna()
    return numbers[columns].dropna()


def clusters_of(rows: pd.DataFrame, scored: pd.DataFrame, cluster: str | None) -> list[Any] | None:
    """The cluster of each utterance that ``by_utterance`` left, in its order; None where none is asked for."""
    if cluster is None or scored.empty:
        return None
    if scored.index.name == "id":  # noise seeds were averaged
        return list(rows.drop_duplicates("id").set_index("id")[cluster].reindex(scored.index))
    return list(rows.loc[scored.index, cluster])


def content_hash(*parts: Any) -> str:
    """sha256 of arrays (type, shape and samples) and JSON values, in order."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"array {part.dtype.str} {part.shape} ".encode())
            digest.update(np.ascontiguousarray(part).tobytes())
        else:
            digest.update(f"value {json.dumps(part, sort_keys=True)} ".encode())
    return digest.hexdigest()


def at_rate(item: ScoreItem, target: int, resampler: str = RESAMPLER) -> ScoreItem:
    """The item with its generated part at ``target`` samples a second; raises as ``clip`` does."""
    return replace(item, audio=clip(item.audio, item.sample_rate, target, resampler=resampler), sample_rate=target)


def clip(
    audio: np.ndarray, sample_rate: int, target: int, what: str = "audio", resampler: str = RESAMPLER
) -> np.ndarray:
    """The audio at ``target`` samples a second, float32, by a resampler of ``resamplers.RESAMPLERS``.

    Raises:
        ScoreError: It is not a mono array, is empty, or holds values that are not finite.
    """
    if audio.ndim != 1:
        raise ScoreError(f"the {what} has shape {audio.shape}; expected mono, (samples,)")
    if audio.size == 0:
        raise ScoreError(f"the {what} is empty")
    if not np.isfinite(audio).all():
        raise ScoreError(f"the {what} holds values that are not finite")
    found = resampled(audio.astype(np.float32, copy=False), sample_rate, target, resampler)
    if found.size == 0:
        raise ScoreError(f"the {what} is too short: {audio.size} samples at {sample_rate} Hz")
    return np.ascontiguousarray(found, dtype=np.float32)
