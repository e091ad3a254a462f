"""The score stage: one metric over all cells, its model loaded once and freed before the next one comes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterator
from typing import Any

import pandas as pd
import psutil

from imfbench import plugins
from imfbench.data import Utterance
from imfbench.metrics.base import Metric
from imfbench.pipeline.cells import Cell, all_cells
from imfbench.pipeline.context import Context
from imfbench.pipeline.score_workers import Recipe, Took, by_processes, by_threads
from imfbench.pipeline.scorer import Asked, Row, Scorer
from imfbench.pipeline.sources import MADE_FROM
from imfbench.pipeline.summary import summarise
from imfbench.progress import Bar, log
from imfbench.schema import SCHEMA_VERSION, VERSION_KEY, read_utterances
from imfbench.store import read_json, write_json, write_parquet

COSTS = "costs.json"
"""In the run folder: what scoring took, by metric."""


def score(context: Context, name: str) -> None:
    """Score every utterance of every cell with one metric; write tables and summaries."""
    metric = context.metric(name)
    scorer = Scorer(metric, context.cache, context.config.overwrite)
    cells = [cell for cell in all_cells(context) if cell.status == "ok"]
    took: list[Took] = []
    with contextlib.ExitStack() as running:
        running.callback(scorer.close)
        before = psutil.Process().memory_info().rss
        tables = [_table_of(context, cell) for cell in cells]
        with context.reporting.bar(f"score {name}", sum(len(table.asked) for table in tables)) as bar:
            for one in tables:
                bar.advance(one.look_up(scorer))
            # One after another through all cells: a model, in as many processes as there are, is loaded once.
            made = running.enter_context(
                contextlib.closing(_made(context, scorer, [asked for one in tables for asked in one.unknown], took))
            )
            heard, started = sum(len(one.unknown) for one in tables), time.perf_counter()
            for one in tables:
                rows = one.completed(made, bar)
                write_parquet(one.cell.folder.table, with_columns(one.frame, metric, rows))
                errors = [reason for row in rows if (reason := row[f"{name}_error"])]
                if errors:
                    log.warning(
                        "%s: %s has no score for %d of %d: %s",
                        one.cell.row.label, name, len(errors), len(rows), errors[0],
                    )  # fmt: skip
                notes = [note for row in rows if (note := row.get(f"{name}_note"))]
                if notes:
                    log.warning("%s: %s: %d of %d rows: %s", one.cell.row.label, name, len(notes), len(rows), notes[0])
            if heard:
                seconds = time.perf_counter() - started
                took = took or [Took(scorer.load_seconds, psutil.Process().memory_info().rss - before)]
                _record_cost(context, name, heard, seconds, took)
    for cell in all_cells(context):
        summarise(context, cell)


def where_scored(context: Context, metric: str) -> dict[str, Any]:
    """On what a scorer's seconds hang besides itself."""
    return {
        "device": context.device.type, "machine": context.machine, "threads": context.threads_of(context.config.workers),
        "options": context.config.metrics.get(metric, {}),
    }  # fmt: skip


def _record_cost(context: Context, metric: str, heard: int, seconds: float, took: list[Took]) -> None:
    """Keep what the scorer took, for the plans of later runs; of several times under like conditions the one that heard most."""
    path, here = context.folder.path / COSTS, where_scored(context, metric)
    costs = read_json(path) or {}
    present = costs.get(metric, {})
    if present.get("utterances", 0) > heard and all(present.get(name, value) == value for name, value in here.items()):
        return
    loading, memory = (max(getattr(one, what) for one in took) for what in ("load_seconds", "memory"))
    cost = {
        "utterances": heard,
        "seconds": max(0.0, seconds - loading),
        "load_seconds": loading,
        "memory": max(0, memory),
    }
    write_json(path, {**costs, metric: {**cost, "workers": min(context.config.workers, heard), **here}})


class _Table:
    """A cell's rows, of which some are known.

    Args:
        cell: The cell.
        utterances: What it should hold, in order.
        unmade: Why there is nothing of those that it does not hold.
    """

    def __init__(self, cell: Cell, utterances: list[Utterance], unmade: str) -> None:
        self.cell, self.frame = cell, table(cell, utterances, unmade)
        records = [{str(key): value for key, value in row.items()} for row in self.frame.to_dict("records")]
        known = {u.id: u for u in utterances}
        self.asked = [Asked(row, cell.folder.path, known[str(row["id"])]) for row in records]
        self.known: list[Row | None] = []

    def look_up(self, scorer: Scorer) -> int:
        """Find what needs no model; the number of such rows."""
        self.known = [scorer.known(one) for one in self.asked]
        return len(self.known) - len(self.unknown)

    @property
    def unknown(self) -> list[Asked]:
        """The utterances that must be listened to, or at least decoded."""
        return [asked for asked, row in zip(self.asked, self.known, strict=True) if row is None]

    def completed(self, made: Iterator[Row], bar: Bar) -> list[Row]:
        """All rows, the unknown ones taken from ``made``."""
        rows: list[Row] = []
        for known in self.known:
            if known is None:
                known = next(made)
                bar.advance()
            rows.append(known)
        return rows


def _table_of(context: Context, cell: Cell) -> _Table:
    unmade = context.failure_of(f"synthesise:{cell.row.label}") or "not synthesised"
    return _Table(cell, context.utterances(context.test_set(cell.row)), unmade)


def _made(context: Context, scorer: Scorer, asked: list[Asked], took: list[Took]) -> Generator[Row, None, None]:
    workers = min(context.config.workers, len(asked))
    if workers > 1:
        return by_processes(_recipe(context, scorer, workers), workers, asked, took.append)
    return by_threads(scorer, asked)


def _recipe(context: Context, scorer: Scorer, workers: int) -> Recipe:
    name = scorer.metric.name
    return Recipe(
        metric=name,
        options=context.config.metrics.get(name, {}),
        device=str(context.device),
        threads=context.threads_of(workers),
        cache=scorer.cache.folder,
        overwrite=scorer.overwrite,
        plugins=plugins.files(),
        model_dir=context.config.model_dir,
    )


def table(cell: Cell, utterances: list[Utterance], unmade: str) -> pd.DataFrame:
    """A cell's rows, one for each expected utterance in order, with the figures that are known of the same audio.

    One that the cell holds nothing of, as its job ended before it came to it, fails with the reason ``unmade``.
    """
    made = cell.folder.journal.rows()
    rows: list[dict[str, Any]] = []
    for u in utterances:
        row = dict(made.get(u.id) or {"id": u.id, "text": u.text, "status": "failed", "reason": unmade})
        row |= row.pop("counts", None) or {}
        row.pop(MADE_FROM, None)
        row["speaker"] = u.speaker  # as the list has it now: no audio hangs on it, and clusters do
        rows.append(row)
    frame = pd.DataFrame(rows)
    for column in _COLUMNS:
        if column not in frame:
            frame[column] = None
    if not cell.folder.table.is_file():
        return frame
    present = read_utterances(cell.folder.table)
    further = [column for column in present.columns if column not in frame.columns]
    if not further:
        return frame
    # A row without audio keeps what is known of it too, such as the WER of a missing file, as long as it has none.
    known = present[["id", *further]].assign(content=present["audio_sha256"].fillna(""))
    expected = frame.assign(content=frame["audio_sha256"].fillna(""))
    return expected.merge(known, on=["id", "content"], how="left", validate="one_to_one").drop(columns="content")


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
    "hardware",
    "threads",
    "workers",
    "timing",
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
    found = pd.concat([frame.drop(columns=[c for c in own if c in frame]), scores], axis=1)
    found.attrs = {VERSION_KEY: SCHEMA_VERSION}  # parquet keeps it beside the columns
    return found
