"""The score stage: one metric over all cells, its model loaded once and freed before the next one comes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from imfbench.data import Utterance
from imfbench.devices import free_memory, out_of_memory
from imfbench.features.audio import load_audio
from imfbench.metrics.base import Metric, ScoreError, ScoreItem
from imfbench.pipeline.cells import Cell, all_cells
from imfbench.pipeline.context import STOPPING, Context, told
from imfbench.pipeline.recordings import MISSING
from imfbench.pipeline.summary import summarise
from imfbench.progress import log
from imfbench.store import StoreError, content_hash, file_sha256, write_parquet
from imfbench.weights import DamagedModelError, MissingModelError

Observe = Callable[[ScoreItem], dict[str, Any]]


class LoadError(RuntimeError):
    """A scorer whose model cannot be loaded: no utterance gets a score from it."""


def score(context: Context, name: str) -> None:
    """Score every utterance of every cell with one metric; write tables and summaries."""
    metric = context.metric(name)
    cells = [cell for cell in all_cells(context) if cell.status == "ok"]
    sets = [{u.id: u for u in context.utterances(context.test_set(cell.row))} for cell in cells]
    total = sum(map(len, sets))
    with on_demand(metric) as observe, context.reporting.bar(f"score {name}", total) as bar:
        for cell, utterances in zip(cells, sets, strict=True):
            frame = table(cell, list(utterances.values()))
            records = [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]

            def one(row: dict[str, Any], cell: Cell = cell, known: dict[str, Utterance] = utterances) -> dict[str, Any]:
                return _scored(context, metric, cell, row, known[str(row["id"])], observe)

            rows = []
            for scored in observe.map(one, records):
                rows.append(scored)
                bar.advance()
            write_parquet(cell.folder.table, with_columns(frame, metric, rows))
            errors = [reason for row in rows if (reason := row[f"{name}_error"])]
            if errors:
                log.warning(
                    "%s: %s has no score for %d of %d: %s", cell.row.label, name, len(errors), len(rows), errors[0]
                )
            notes = [note for row in rows if (note := row.get(f"{name}_note"))]
            if notes:
                log.warning("%s: %s: %d of %d rows: %s", cell.row.label, name, len(notes), len(rows), notes[0])
    for cell in all_cells(context):
        summarise(context, cell)


class OnDemand:
    """A metric's ``observe``, its model loaded when first called; as many calls side by side as the model allows."""

    def __init__(self, metric: Metric, model: contextlib.ExitStack) -> None:
        self._metric, self._model = metric, model
        self._lock = threading.Lock()
        self._opened = False

    def __call__(self, item: ScoreItem) -> dict[str, Any]:
        """What the model says of an utterance."""
        with self._lock:
            if not self._opened:
                try:
                    self._model.enter_context(self._metric.loaded())
                except STOPPING:
                    raise
                except Exception as error:  # no utterance's fault, and not to be tried again for each of them
                    name = self._metric.name
                    raise LoadError(f"the model of metric {name!r} cannot be loaded: {told(error)}") from error
                self._opened = True
        return self._metric.observe(item)

    def map(
        self, one: Callable[[dict[str, Any]], dict[str, Any]], rows: list[dict[str, Any]]
    ) -> Iterator[dict[str, Any]]:
        """``one`` of every row, in order. The first runs alone: only then is known how many may."""
        yield from map(one, rows[:1])
        with ThreadPoolExecutor(self._metric.workers) as pool:
            futures = [pool.submit(one, row) for row in rows[1:]]
            try:
                for future in futures:
                    yield future.result()
            finally:  # Ctrl-C does not wait for what has not begun
                pool.shutdown(wait=False, cancel_futures=True)


@contextlib.contextmanager
def on_demand(metric: Metric) -> Iterator[OnDemand]:
    """The metric, to be loaded when it is first asked and freed at the end."""
    with contextlib.ExitStack() as model:
        yield OnDemand(metric, model)


def table(cell: Cell, utterances: list[Utterance]) -> pd.DataFrame:
    """A cell's rows, one for each expected utterance in order, with the figures that are known of the same audio."""
    made = cell.folder.journal.rows()
    rows: list[dict[str, Any]] = []
    for u in utterances:
        row = dict(made.get(u.id) or {"id": u.id, "text": u.text, "status": "failed", "reason": "not synthesised"})
        row |= row.pop("counts", None) or {}
        rows.append(row)
    frame = pd.DataFrame(rows)
    for column in _COLUMNS:
        if column not in frame:
            frame[column] = None
    if not cell.folder.table.is_file():
        return frame
    present = pd.read_parquet(cell.folder.table)
    further = [column for column in present.columns if column not in frame.columns]
    if not further:
        return frame
    known = present[["id", "audio_sha256", *further]].dropna(subset=["audio_sha256"])
    return frame.merge(known, on=["id", "audio_sha256"], how="left", validate="one_to_one")


_COLUMNS = (
    "id",
    "text",
    "language",
    "speaker",
    "prompt_id",
    "reference_seconds",
    "status",
    "reason",
    "notes",
    "audio",
    "audio_sha256",
    "seconds",
    "network_seconds",
    "vocoder_seconds",
    "steps",
    "nfe",
    "network_calls",
    "device",
    "threads",
    "workers",
)


def with_columns(frame: pd.DataFrame, metric: Metric, rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The table with a metric's columns in place of older ones of the same metric.

    ``<metric>_error`` says why a row has none, ``<metric>_signature`` how they were made.
    """
    own = [*metric.columns, f"{metric.name}_error", f"{metric.name}_signature"]
    scores = pd.DataFrame(rows, columns=own, index=frame.index)
    # Columns without any value need a type all the same, or two cells' tables would not fit together.
    for column in scores.columns[scores.isna().all()]:
        scores[column] = scores[column].astype("float64" if column in metric.summary_columns else "object")
    return pd.concat([frame.drop(columns=[c for c in own if c in frame]), scores], axis=1)


def _scored(
    context: Context, metric: Metric, cell: Cell, row: dict[str, Any], utterance: Utterance, observe: Observe
) -> dict[str, Any]:
    """The metric's columns of one utterance, or the reason why there are none."""
    signed = {f"{metric.name}_signature": str(metric.signature)}
    if row["status"] == MISSING:
        nothing = ScoreItem(utterance.id, np.zeros(0, np.float32), 16_000, utterance.text, utterance.language)
        with contextlib.suppress(ScoreError):  # a text that normalises to nothing stays without a figure
            return {**(metric.unheard(nothing) or {}), **signed, f"{metric.name}_error": str(row["reason"])}
    if row["status"] != "ok":
        return {**signed, f"{metric.name}_error": str(row["reason"])}
    try:
        key = _files_key(context, metric, cell, row, utterance)
        known = None if key is None or context.config.overwrite == "always" else _behind(context, key)
        if known is None:
            item = score_item(cell, row, utterance)
            known = _observation(context, metric, item, observe)
            if key is not None:
                context.cache.put(key, {"same_as": metric.cache_key(item)})
        else:
            item = ScoreItem(utterance.id, np.zeros(0, np.float32), 16_000, utterance.text, utterance.language)
        return {**metric.score(item, known), **signed, f"{metric.name}_error": None}
    except (LoadError, StoreError, DamagedModelError, MissingModelError):
        raise
    except Exception as error:  # whatever a scorer stumbles over is the reason of this row, and the others are scored
        if out_of_memory(error):
            free_memory()
        return {**signed, f"{metric.name}_error": told(error)}


def _files_key(context: Context, metric: Metric, cell: Cell, row: dict[str, Any], utterance: Utterance) -> str | None:
    """Under what the score is found without decoding a file: the content of the files that the metric reads."""
    prompt = utterance.prompt_audio
    if metric.reads is None or ("prompt" in metric.reads and not prompt.is_file()):
        return None
    _check_unchanged(cell, row)
    content = {
        "audio": lambda: row["audio_sha256"],
        "prompt": lambda: context.once(f"sha256:{prompt}", lambda: file_sha256(prompt)),
    }
    return content_hash([str(metric.model_signature), *(content[file]() for file in metric.reads)])


def _behind(context: Context, key: str) -> dict[str, Any] | None:
    """The observation that a key by files points to."""
    same_as = (context.cache.get(key) or {}).get("same_as")
    return None if same_as is None else context.cache.get(str(same_as))


def _check_unchanged(cell: Cell, row: dict[str, Any]) -> Path:
    path = cell.folder.path / str(row["audio"])
    if not path.is_file() or file_sha256(path) != row["audio_sha256"]:
        raise ScoreError(f"{path} is missing or was changed; --set overwrite=always makes it again")
    return path


def score_item(cell: Cell, row: dict[str, Any], utterance: Utterance) -> ScoreItem:
    """What scorers read of an utterance: the audio as it was stored, the text, the prompt's recording.

    Raises:
        ScoreError: The audio file is not the one that the run wrote.
    """
    audio, rate = load_audio(_check_unchanged(cell, row))
    prompt, prompt_rate = load_audio(utterance.prompt_audio)
    return ScoreItem(utterance.id, audio, rate, utterance.text, utterance.language, prompt, prompt_rate)


def _observation(context: Context, metric: Metric, item: ScoreItem, observe: Observe) -> dict[str, Any]:
    """What the model says of the audio, from the cache if it is known. A failure is never cached."""
    overwrite = context.config.overwrite
    key = metric.cache_key(item)
    known = None if overwrite == "always" else context.cache.get(key)
    if known is None and overwrite == "only-cache":
        raise ScoreError("not in the score cache, and overwrite is only-cache")
    return context.cache.put(key, observe(item)) if known is None else known
