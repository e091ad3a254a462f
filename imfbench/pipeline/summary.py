"""A cell's summary: one flat row of the leaderboard, with counts, signatures, and a reason for every figure it lacks."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from imfbench.devices import machine_name
from imfbench.metrics.base import Metric
from imfbench.metrics.speed import TIMING, speed_of_rows
from imfbench.metrics.stats import TooFewClustersError
from imfbench.pipeline.cells import UNTOLD, Cell, write_about
from imfbench.pipeline.context import Context
from imfbench.schema import SCHEMA_VERSION, VERSION_KEY, read_utterances
from imfbench.store import read_json, write_json, write_parquet

RTF = ("rtf_network", "rtf_vocoder", "rtf_total")
NO_NETWORK = "no network takes part"
NOT_TOLD = "not known: the file from which the network was imported does not tell it"
GUIDED_WHILE_SAMPLING = "does not apply: its guidance is chosen while sampling"
ONLY_SPEECH = "another program's: only its speech is here"
OVER_UTTERANCES = "intervals and tests are over utterances"
ELSEWHERE = "trained elsewhere, on other hardware and batches: see the artefact's card"
COLUMNS = (
    VERSION_KEY, "task", "system", "kind", "method", "teacher_nfe", "grid", "grid_values", "solver", "guidance",
    "trained_guidance", "steps", "nfe", "network_calls", "dataset", "vocoder", "n_expected", "n_scored", "cluster",
    "n_clusters", *RTF, "rtf_network_median", "rtf_network_p95", "peak_memory", "peak_memory_kind", "train_steps",
    "train_frames_per_batch", "train_seconds_per_step", "train_peak_memory", "train_seed", "device", "threads", "workers",
    "dtype", "batch", "noise_seed", "status", "artefact_sha256", "key",
)  # fmt: skip
"""Columns that every summary has, with or without a value; the metrics' own come on top."""


def summarise(context: Context, cell: Cell) -> None:
    """Write ``summary.json`` from what is known of the cell so far."""
    if not cell.folder.identity.is_file() or cell.status != "ok":
        write_about(cell, None)
    known = {**read_json(cell.folder.identity), **cell.about}
    frame = read_utterances(cell.folder.table) if cell.status == "ok" and cell.folder.table.is_file() else None
    found: dict[str, Any] = {key: value for key, value in known.items() if key not in ("identity", "row", "hardware")}
    found |= {"key": cell.folder.key, "status": cell.status, "signatures": {}, "not_measured": {}, "n_scored": 0}
    found |= {VERSION_KEY: SCHEMA_VERSION}
    found["cluster"] = context.config.cluster
    found |= {"n_expected": len(context.utterances(context.test_set(cell.row)))}
    found = dict.fromkeys(COLUMNS) | found
    missing: dict[str, str] = found["not_measured"]
    if frame is None:
        reason = cell.status if cell.status != "ok" else _unmade(context, cell)
        found["status"] = reason
        for metric in _metrics(context):
            missing |= dict.fromkeys(_with_interval(metric), reason)
        missing |= dict.fromkeys((*RTF, "peak_memory"), reason)
    else:
        frame = _with_speakers(context, cell, frame)
        found |= _counts(context, frame)
        _speed(cell, frame, found, missing)
        for metric in _metrics(context):
            _quality(context, metric, frame, found, missing)
        failed = frame[frame["status"] != "ok"]
        if len(failed) == len(frame):
            found["status"] = f"failed: {failed['reason'].iloc[0]}"
        elif context.config.metrics and len(found["signatures"]) == len(context.config.metrics):
            figures = _figures(context, found)
            if not any(map(_is_figure, figures.values())):
                found["status"] = f"failed: {missing[next(iter(figures))]}"
    if found["status"] == "ok" and found["trained_guidance"] is None:
        chosen = "trained_guidance" in known
        missing["trained_guidance"] = GUIDED_WHILE_SAMPLING if chosen else "not on record in the cell"
    found |= {column: None for setting, column in UNTOLD.items() if setting in cell.untold}
    missing |= {column: NOT_TOLD for setting, column in UNTOLD.items() if setting in cell.untold}
    _explain(cell, found, missing)
    if context.config.cluster is None:
        missing |= dict.fromkeys(("cluster", "n_clusters"), OVER_UTTERANCES)
    write_json(cell.folder.summary, found)


def _metrics(context: Context) -> list[Metric]:
    return [context.metric(name) for name in context.config.metrics]


def _with_speakers(context: Context, cell: Cell, frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with the speakers that the list has now: no audio hangs on them, and clusters do."""
    now = {u.id: u.speaker for u in context.utterances(context.test_set(cell.row))}
    speakers = [now.get(id, before) for id, before in zip(frame["id"], frame["speaker"], strict=True)]
    if speakers == frame["speaker"].tolist():
        return frame
    frame = frame.assign(speaker=speakers)
    write_parquet(cell.folder.table, frame)
    return frame


def _counts(context: Context, frame: pd.DataFrame) -> dict[str, Any]:
    """Expected and scored utterances, and the measured steps, evaluations and network calls."""
    scored = frame["status"] == "ok"
    metrics = _metrics(context)
    # Speech without a pitch has no F0 variation, which ranks nothing: ``f0cv_n`` counts it, this count does not.
    for metric in [m for m in metrics if m.higher_is_better is not None] or metrics:
        column = f"{metric.name}_error"
        scored &= frame[column].isna() if column in frame else False
    found: dict[str, Any] = {"n_scored": int(scored.sum())}
    if context.config.cluster is not None:
        found["n_clusters"] = int(frame.loc[scored, context.config.cluster].nunique())
    for column in ("steps", "nfe", "network_calls"):
        values = frame[column].dropna().unique()
        if len(values) > 1:
            raise ValueError(f"{column} differs between the utterances of one cell: {sorted(values)}")
        if len(values):
            found[column] = int(values[0])
    return found


def _speed(cell: Cell, frame: pd.DataFrame, found: dict[str, Any], missing: dict[str, str]) -> None:
    """RTF over the utterances that were made, if all were timed under the same conditions."""
    made = frame[frame["status"] == "ok"]
    columns, conditions = speed_of_rows(made, cell.row.kind != "vocoded-ground-truth")
    found |= columns
    if "device" in found and found.get("hardware") is None:  # rows that do not name it, of a cell that another run made
        found["hardware"] = machine_name((read_json(cell.folder.identity) or {}).get("hardware") or {}, found["device"])
    if len(conditions) > 1:
        told = ", ".join(
            f"{row['device']}{' (' * bool(row['hardware'])}{row['hardware']}{')' * bool(row['hardware'])} with {row['threads']} "
            f"threads in {row['workers']} processes{' before lengths were warmed up' * (row['timing'] < TIMING)}"
            for row in conditions.to_dict("records")
        )
        missing |= dict.fromkeys(
            RTF, f"its utterances were timed on {told}; --set overwrite=always times all of them anew"
        )


def _quality(
    context: Context, metric: Metric, frame: pd.DataFrame, found: dict[str, Any], missing: dict[str, str]
) -> None:
    """A metric's figures with intervals, or why there are none."""
    column = f"{metric.name}_signature"
    signature = str(metric.signature)
    scored = column in frame and bool((frame[column] == signature).all())
    figures: dict[str, Any] = {}
    too_few = ""
    if scored:
        try:
            figures = _summarised(metric, frame, context.config.cluster)
        except TooFewClustersError as error:  # of those that were scored; the whole set was looked at before
            too_few = str(error)
    errors = frame[f"{metric.name}_error"].dropna() if scored else pd.Series(dtype=object)
    for name in _with_interval(metric):
        value = figures.get(name)
        if _is_figure(value):
            continue
        if too_few:
            missing[name] = too_few
        elif scored and len(errors) == len(frame):
            missing[name] = f"no utterance could be scored: {errors.iloc[0]}"
        else:
            failure = context.failure_of(f"score:{metric.name}") or "not scored yet: `imfbench score` does it"
            missing[name] = "too few scored utterances" if scored else failure
    found |= figures
    if scored:
        found["signatures"][metric.name] = signature


def _summarised(metric: Metric, frame: pd.DataFrame, cluster: str | None) -> dict[str, Any]:
    # A plug-in's metric may have a summary of its own that knows no clusters, and is asked for none in vain.
    return metric.summarise(frame) if cluster is None else metric.summarise(frame, cluster=cluster)


def _with_interval(metric: Metric) -> list[str]:
    return [f"{name}{end}" for name in metric.summary_columns for end in ("", "_low", "_high")]


def _unmade(context: Context, cell: Cell) -> str:
    reason = context.failure_of(f"synthesise:{cell.row.label}")
    if reason is None and any(row.get("status") == "ok" for row in cell.folder.journal.rows().values()):
        failures = (context.failure_of(f"score:{name}") for name in context.config.metrics)
        reason = next(filter(None, failures), "not scored yet; `imfbench score` or `run` does it")
    return f"failed: {reason or 'not synthesised; `imfbench synthesize` or `run` does it'}"


def _figures(context: Context, found: dict[str, Any]) -> dict[str, Any]:
    return {name: found.get(name) for metric in _metrics(context) for name in metric.summary_columns}


def _is_figure(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def _explain(cell: Cell, found: dict[str, Any], missing: dict[str, str]) -> None:
    """A reason for every column of cost and training that has no value."""
    kind = cell.row.kind
    if kind == "recordings":
        missing |= {name: ONLY_SPEECH for name in COLUMNS if found.get(name) is None}
    elif kind == "ground-truth":
        missing |= dict.fromkeys((*RTF, "peak_memory"), "a recording: nothing was generated")
    elif kind == "vocoded-ground-truth":
        missing |= dict.fromkeys(("rtf_network", "peak_memory"), NO_NETWORK)
    if kind in ("ground-truth", "vocoded-ground-truth"):
        missing |= dict.fromkeys(("method", "teacher_nfe", "guidance", "trained_guidance", "dtype"), NO_NETWORK)
    if cell.elsewhere:
        missing |= dict.fromkeys(("train_seconds_per_step", "train_peak_memory", "train_peak_memory_kind"), ELSEWHERE)
    for name in ("train_steps", "train_frames_per_batch", "train_seconds_per_step", "train_peak_memory", "train_seed"):
        if found.get(name) is None:
            missing.setdefault(name, NO_NETWORK if kind != "sampled" else "not on record in the artefact's card")
    for name in (*RTF, "peak_memory"):
        if found.get(name) is None:
            missing.setdefault(name, "not measured: no utterance was made")
    for name, of in _GO_TOGETHER.items():
        if found.get(name) is None and of in missing:
            missing.setdefault(name, missing[of])


_GO_TOGETHER = {
    "rtf_network_median": "rtf_network",
    "rtf_network_p95": "rtf_network",
    "peak_memory_kind": "peak_memory",
    "batch": "rtf_total",
    "device": "rtf_total",
    "threads": "rtf_total",
    "workers": "rtf_total",
}
