"""One utterance and one metric: what is known of it already, what must be decoded, what the model says, the row that follows."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from imfbench.data import Utterance
from imfbench.devices import free_memory, out_of_memory
from imfbench.disk import StoreError
from imfbench.features.audio import load_audio
from imfbench.metrics.base import Metric, ScoreError, ScoreItem
from imfbench.pipeline.context import STOPPING, told
from imfbench.pipeline.recordings import MISSING
from imfbench.score_cache import ScoreCache
from imfbench.store import content_hash, file_sha256
from imfbench.weights import DamagedModelError, MissingModelError

Row = dict[str, Any]


class LoadError(RuntimeError):
    """A scorer whose model cannot be loaded: no utterance gets a score from it."""


_STOPS = (LoadError, StoreError, DamagedModelError, MissingModelError)


@dataclass(frozen=True)
class Asked:
    """An utterance of a cell that is to be scored.

    Attributes:
        row: What the cell's table says of it.
        folder: The cell's folder, which ``audio`` in the row is relative to.
        utterance: What should have been said, and the prompt.
    """

    row: Row
    folder: Path
    utterance: Utterance


@dataclass(frozen=True)
class Ready:
    """An utterance that is decoded, resampled and waits for the model.

    Attributes:
        item: As the model takes it.
        key: Under which its observation is kept.
        files_key: Under which it is found by the files' sha256; None if the metric reads more than files.
    """

    item: ScoreItem
    key: str
    files_key: str | None


class Scorer:
    """A metric over utterances, its model loaded when it is first needed.

    Args:
        metric: Its model not yet loaded.
        cache: Known observations.
        overwrite: As in ``ExperimentConfig``.
    """

    def __init__(self, metric: Metric, cache: ScoreCache, overwrite: str) -> None:
        self.metric, self.cache, self.overwrite = metric, cache, overwrite
        self.signed: Row = {f"{metric.name}_signature": str(metric.signature)}
        self.model = str(metric.model_signature)
        self._prompts: dict[Path, str] = {}
        self._lock, self._models = threading.Lock(), contextlib.ExitStack()
        self._opened = False
        self.load_seconds = 0.0

    def known(self, asked: Asked) -> Row | None:
        """The metric's columns of an utterance if no model is needed for them; nothing is decoded."""
        row = asked.row
        if row["status"] == MISSING:
            with contextlib.suppress(ScoreError):  # a text that normalises to nothing stays without a figure
                nothing = self.metric.unheard(_unread(asked.utterance))
                reason = None if nothing else str(row["reason"])
                return {**(nothing or {}), **self.signed, f"{self.metric.name}_error": reason}
        if row["status"] != "ok":
            return self._failed(str(row["reason"]))
        if self.overwrite == "always":
            return None

        def find() -> Row | None:
            key = self._files_key(asked)
            same_as = None if key is None else (self.cache.get(key, self.model) or {}).get("same_as")
            observation = None if same_as is None else self.cache.get(str(same_as), self.model)
            return None if observation is None else self._row(_unread(asked.utterance), observation)

        return self._or_reason(find)

    def look(self, asked: Asked) -> Row | Ready:
        """Decode an utterance; its columns if the cache knows the samples, else what the model is to hear."""

        def decode() -> Row | Ready:
            item = score_item(asked, self.metric.reads)
            key, files_key = self.metric.cache_key(item), self._files_key(asked)
            observation = None if self.overwrite == "always" else self.cache.get(key, self.model)
            if observation is None:
                if self.overwrite == "only-cache":
                    raise ScoreError("not in the score cache, and overwrite is only-cache")
                return Ready(self.metric.prepare(item), key, files_key)
            self._point(files_key, key)
            return self._row(item, observation)

        return self._or_reason(decode)

    def hear(self, ready: Row | Ready) -> Row:
        """The columns of an utterance, by the model if they are not known. A failure is never cached."""
        if not isinstance(ready, Ready):
            return ready

        def observe() -> Row:
            self.open()
            observation = self.cache.put(ready.key, self.metric.observe(ready.item), self.model)
            self._point(ready.files_key, ready.key)
            return self._row(ready.item, observation)

        return self._or_reason(observe)

    def open(self) -> None:
        """Load the model if that was not done yet.

        Raises:
            LoadError: It cannot be loaded, which is no utterance's fault and not to be tried again for each of them.
        """
        with self._lock:
            if not self._opened:
                started = time.perf_counter()
                try:
                    self._models.enter_context(self.metric.loaded())
                except STOPPING:
                    raise
                except Exception as error:
                    raise LoadError(
                        f"the model of metric {self.metric.name!r} cannot be loaded: {told(error)}"
                    ) from error
                self._opened = True
                self.load_seconds = time.perf_counter() - started

    def close(self) -> None:
        """Free the model."""
        self._models.close()
        self._opened = False

    def _row(self, item: ScoreItem, observation: Row) -> Row:
        return {**self.metric.score(item, observation), **self.signed, f"{self.metric.name}_error": None}

    def _failed(self, reason: str) -> Row:
        return {**self.signed, f"{self.metric.name}_error": reason}

    def _or_reason(self, work: Callable[[], Any]) -> Any:
        """What ``work`` gives; whatever a scorer stumbles over is the reason of this row, and the others are scored."""
        try:
            return work()
        except _STOPS:
            raise
        except Exception as error:
            if out_of_memory(error):
                free_memory()
            return self._failed(told(error))

    def _files_key(self, asked: Asked) -> str | None:
        """Under what the score is found without decoding a file: the content of those that the metric reads, and the text."""
        reads, prompt = self.metric.reads, asked.utterance.prompt_audio
        if reads is None or ("prompt" in reads and not prompt.is_file()):
            return None
        check_unchanged(asked)
        content = {"audio": lambda: asked.row["audio_sha256"], "prompt": lambda: self._sha256_of_prompt(prompt)}
        told = (asked.utterance.text, asked.utterance.language)
        return content_hash([self.model, *(content[file]() for file in reads), *told])

    def _sha256_of_prompt(self, path: Path) -> str:
        if path not in self._prompts:  # one that many utterances share is read once
            self._prompts[path] = file_sha256(path)
        return self._prompts[path]

    def _point(self, files_key: str | None, key: str) -> None:
        if files_key is not None:
            self.cache.put(files_key, {"same_as": key}, self.model)


def _unread(utterance: Utterance) -> ScoreItem:
    """The utterance's texts without its audio, for what no model is needed for."""
    return ScoreItem(utterance.id, np.zeros(0, np.float32), 16_000, utterance.text, utterance.language)


def check_unchanged(asked: Asked) -> Path:
    """The utterance's audio file.

    Raises:
        ScoreError: It is not the one that was written or matched.
    """
    path = asked.folder / str(asked.row["audio"])
    if not path.is_file() or file_sha256(path) != asked.row["audio_sha256"]:
        raise ScoreError(f"{path} is missing or was changed; --set overwrite=always makes it again")
    return path


def score_item(asked: Asked, reads: tuple[str, ...] | None = None) -> ScoreItem:
    """What scorers read of an utterance: the audio as it was stored, the text, the prompt's recording.

    Args:
        asked: The utterance.
        reads: As a metric has it. A prompt that the metric does not read is left unread, so that one without a recording has the
            figure that it has where the score is known already; None: it may read the prompt.

    Raises:
        ScoreError: The audio file is not the one that the run wrote.
    """
    u = asked.utterance
    audio, rate = load_audio(check_unchanged(asked))
    item = replace(_unread(u), audio=audio, sample_rate=rate)
    if reads is not None and "prompt" not in reads:
        return item
    prompt, prompt_rate = load_audio(u.prompt_audio)
    return replace(item, prompt_audio=prompt, prompt_rate=prompt_rate)
