"""The columns of a leaderboard: name, type, unit, meaning, when present. ``docs/leaderboard.md`` repeats them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from imfbench.plugins import source_of
from imfbench.registry import METRICS, BrokenEntryError

Group = Literal["sampling", "quality", "cost", "training", "record"]
Better = Literal["lower", "higher", ""]

REFERENCES = ("ground-truth", "vocoded-ground-truth")
"""Systems that are recordings, not output of a model: shown first, never ranked, never tested."""
TEACHER = "teacher"
RECORDINGS = "recordings"
"""Kind of the rows of which only the speech is known."""
REPORTED = "reported"
"""Kind and status of the rows that were imported from papers."""


@dataclass(frozen=True)
class Column:
    """One column of ``leaderboard.csv`` and one key of each row of ``leaderboard.json``.

    Attributes:
        name: The key.
        type: JSON type, in words.
        unit: Unit of the figure, or "".
        group: The table of ``leaderboard.md`` in which it may stand.
        meaning: One sentence.
        present: When it has a value.
        header: Short title in tables; "" keeps it out of them.
    """

    name: str
    type: str
    unit: str
    group: Group
    meaning: str
    present: str = "always"
    header: str = ""


@dataclass(frozen=True)
class Quality:
    """A quality figure that is ranked, tested and plotted.

    Attributes:
        name: Column of the row (``name_low`` and ``name_high`` hold its interval).
        per_utterance: Column of ``utterances.parquet`` that paired tests compare.
        signature: Key of the row's ``signatures``.
        title: Title in tables, with the predictor's name where there is one.
        better: Which direction is better; "" where neither is.
        scale: Factor from the stored to the displayed figure.
        unit: Unit of the displayed figure, or "".
        decimals: Decimals of the displayed figure.
    """

    name: str
    per_utterance: str
    signature: str
    title: str
    better: Better
    scale: float = 1.0
    unit: str = ""
    decimals: int = 2

    @property
    def low(self) -> str:
        """Column of the interval's lower end."""
        return f"{self.name}_low"

    @property
    def high(self) -> str:
        """Column of the interval's upper end."""
        return f"{self.name}_high"

    @property
    def label(self) -> str:
        """Title with the unit, for headers and axes."""
        return f"{self.title} ({self.unit})" if self.unit else self.title


_CHECKS = ("dnsmos",)
"""Predictors that hear noise and hardly tell systems apart: shown, and not ranked."""
_PREDICTORS = {"distillmos": "DistillMOS", "utmos": "UTMOS", "dnsmos": "DNSMOS"}
_KNOWN = {
    "wer": Quality("wer", "wer", "wer", "WER", "lower", 100.0, "%", 1),
    "sim": Quality("sim", "sim", "sim", "SIM-o", "higher", decimals=3),
    "f0cv": Quality("f0cv", "f0cv", "f0cv", "F0 CV", "", decimals=3),
}


def quality(name: str) -> Quality:
    """The quality figure in column ``name``; a MOS has its predictor in the column's name and in the title.

    A figure of a plug-in's metric has the metric's direction. Where the plug-in is not loaded it has none: it is shown, and
    not ranked.
    """
    if name in _KNOWN:
        return _KNOWN[name]
    if not name.startswith("mos_"):
        return _of_plugins().get(name) or Quality(name, name, name, name, "", decimals=3)
    predictor = name.removeprefix("mos_")
    signature = "mos" if predictor == "distillmos" else predictor
    better: Better = "" if predictor in _CHECKS else "higher"
    return Quality(name, name, signature, f"MOS ({_PREDICTORS.get(predictor, predictor)})", better)


def _of_plugins() -> dict[str, Quality]:
    """The figures of metrics that do not ship, by their columns."""
    directions: dict[bool | None, Better] = {True: "higher", False: "lower", None: ""}
    found = {}
    for metric in METRICS.names():
        if source_of("metric", metric) is not None:
            with contextlib.suppress(BrokenEntryError):
                cls = METRICS.get(metric)
                for column in cls.summary_columns:
                    found[column] = Quality(
                        column, column, metric, column, directions[cls.higher_is_better], decimals=3
                    )
    return found


def qualities(rows: Iterable[Mapping[str, Any]]) -> list[Quality]:
    """The quality figures that these rows name, measured or not: WER, SIM, each MOS predictor's, F0 variation, others'."""
    rows = list(rows)
    names = {name for row in rows for name in (*row, *(row.get("not_measured") or {}))}
    mos = sorted(n for n in names if n.startswith("mos_") and not n.endswith(("_low", "_high", "_n")))
    scored = {metric for row in rows for metric in row.get("signatures") or {}}
    others = sorted(({*_of_plugins()} | scored) - {*_KNOWN, *mos})
    return [quality(name) for name in ("wer", "sim", *mos, "f0cv", *others) if name in names]


_SAMPLED = "if a network was sampled"
_CLUSTERED = "if `--cluster` asked for it"
_SCORED = "if the metric was scored"
_TRAINED = "if the artefact's training is on record"
_TRAINED_HERE = "if the artefact was trained in this run"
_TIMED = "if speed was timed"
_WEIGHED = "if memory was measured"


def _interval(name: str, unit: str) -> list[Column]:
    low, high = "Lower end of the 95 % bootstrap interval of", "Upper end of the interval of"
    return [
        Column(f"{name}_low", "number or null", unit, "quality", f"{low} `{name}`.", _SCORED),
        Column(f"{name}_high", "number or null", unit, "quality", f"{high} `{name}`.", _SCORED),
        Column(f"{name}_n", "integer or null", "", "quality", f"Utterances behind `{name}`.", _SCORED),
    ]


# fmt: off
COLUMNS: tuple[Column, ...] = (
    Column("task", "string", "", "record", "Task, such as `token2mel`."),
    Column("system", "string", "", "record",
           "What made the speech: `ground-truth`, `vocoded-ground-truth`, `teacher`, or a student (`+o3s`: on a searched grid).",
           header="System"),
    Column("kind", "string", "", "record",
           "`sampled` for a network's output, `recordings` for another program's speech, `reported` for a paper's, else a "
           "reference."),
    Column("method", "string or null", "", "sampling", "Registered method of the artefact.", _SAMPLED, "Method"),
    Column("teacher_nfe", "integer or null", "", "training",
           "Teacher steps K behind each training target.", "if a teacher made the training targets", "Teacher steps K"),
    Column("grid", "string or null", "", "sampling", "Name of the time grid.", _SAMPLED, "Grid"),
    Column("grid_values", "array of numbers or null", "", "sampling",
           "Points of the time grid, 0 to 1.", _SAMPLED, "Grid points"),
    Column("solver", "string or null", "", "sampling", "ODE solver.", _SAMPLED, "Solver"),
    Column("guidance", "number or null", "", "sampling",
           "w of v(c) + w·(v(c) − v(∅)) while sampling; 0 is none or baked in.", _SAMPLED, "Guidance"),
    Column("trained_guidance", "number or null", "", "training",
           "w that the training baked into the network; 0 is none.", "if a student was sampled", "Guidance baked in"),
    Column("steps", "integer or null", "", "sampling", "Intervals of the grid, measured.", _SAMPLED, "Steps"),
    Column("nfe", "integer or null", "", "sampling", "Velocity evaluations per sample, measured.", _SAMPLED, "NFE"),
    Column("network_calls", "integer or null", "", "sampling",
           "Rows sent through the network per sample, measured; a guided evaluation is 2.", _SAMPLED, "Network calls"),
    Column("dataset", "string", "", "record", "Test set."),
    Column("vocoder", "string or null", "", "sampling",
           "Vocoder that made the audio.", "if the audio was vocoded", "Vocoder"),
    Column("n_expected", "integer", "", "quality", "Utterances that should have been scored."),
    Column("n_scored", "integer", "", "quality", "Utterances that were scored."),
    Column("cluster", "string or null", "", "record",
           "What was resampled whole for intervals and tests (`speaker`), where it was not utterances.", _CLUSTERED),
    Column("n_clusters", "integer or null", "", "record", "How many of them were scored.", _CLUSTERED),
    Column("wer", "number or null", "fraction", "quality",
           "Word error rate as the protocol aggregates (`agg` in its signature); by default the corpus figure.", _SCORED),
    *_interval("wer", "fraction"),
    Column("wer_corpus", "number or null", "fraction", "quality", "All edits over all reference words.", _SCORED),
    *_interval("wer_corpus", "fraction"),
    Column("wer_mean", "number or null", "fraction", "quality",
           "Mean of the utterances' word error rates.", _SCORED, "Mean utterance WER"),
    *_interval("wer_mean", "fraction"),
    Column("wer_above_half", "number or null", "fraction", "quality",
           "Share of utterances with a word error rate above one half.", _SCORED, "WER > 50 %"),
    *_interval("wer_above_half", "fraction"),
    Column("sim", "number or null", "cosine", "quality",
           "Speaker similarity of the generated part to the prompt's recording (SIM-o).", _SCORED),
    *_interval("sim", "cosine"),
    Column("mos_distillmos", "number or null", "MOS, 1 to 5", "quality",
           "Mean opinion score predicted by DistillMOS; every predictor has its own `mos_…` columns.", _SCORED),
    *_interval("mos_distillmos", "MOS"),
    Column("mos_utmos", "number or null", "MOS, 1 to 5", "quality", "Mean opinion score predicted by UTMOS.", _SCORED),
    *_interval("mos_utmos", "MOS"),
    Column("mos_dnsmos", "number or null", "MOS, 1 to 5", "quality", "Mean opinion score predicted by DNSMOS P.835.", _SCORED),
    *_interval("mos_dnsmos", "MOS"),
    Column("f0cv", "number or null", "ratio", "quality",
           "Coefficient of variation of F0, mean over utterances.", _SCORED),
    *_interval("f0cv", "ratio"),
    Column("rtf_network", "number or null", "s/s", "cost",
           "Network seconds over generated seconds, aggregate.", _TIMED, "RTF network"),
    Column("rtf_network_median", "number or null", "s/s", "cost", "Median over utterances.", _TIMED, "median"),
    Column("rtf_network_p95", "number or null", "s/s", "cost", "95th percentile over utterances.", _TIMED, "p95"),
    Column("rtf_vocoder", "number or null", "s/s", "cost",
           "Vocoder seconds over generated seconds, aggregate.", _TIMED, "RTF vocoder"),
    Column("rtf_total", "number or null", "s/s", "cost", "Network and vocoder together.", _TIMED, "RTF"),
    Column("peak_memory", "integer or null", "bytes", "cost", "Peak memory of inference.", _WEIGHED, "Peak memory"),
    Column("peak_memory_kind", "string or null", "", "cost",
           "What `peak_memory` counts: `cpu-live-tensors`, or the accelerator's allocator.", _WEIGHED, "counted as"),
    Column("train_steps", "integer or null", "steps", "training",
           "Optimiser steps of the artefact.", _TRAINED, "Steps"),
    Column("train_frames_per_batch", "integer or null", "frames", "training",
           "Mel frames of a training batch, prompts and padding included.", _TRAINED, "Frames per batch"),
    Column("train_seconds_per_step", "number or null", "s", "training",
           "Wall time of a training step, with its share of what was prepared.", _TRAINED_HERE, "Seconds per step"),
    Column("train_peak_memory", "integer or null", "bytes", "training",
           "Peak memory of a training step.", _TRAINED_HERE, "Peak memory"),
    Column("train_seed", "integer or null", "", "training", "Seed of the training.", _TRAINED, "Seed"),
    Column("device", "string or null", "", "cost",
           "Device that sampled and was timed.", "if something was generated", "Device"),
    Column("hardware", "string or null", "", "cost",
           "Model of that device: its utterances', else the run's manifest's.", "if it is on record", "Hardware"),
    Column("threads", "integer or null", "", "cost", "CPU threads.", "if something was generated", "Threads"),
    Column("workers", "integer or null", "", "cost",
           "Processes that were at work side by side while it was timed.", "if something was generated", "Processes"),
    Column("dtype", "string or null", "", "cost", "Number type of the network.", _SAMPLED, "Dtype"),
    Column("batch", "integer or null", "", "cost", "Utterances per batch while timed.", _TIMED, "Batch"),
    Column("noise_seed", "integer or null", "", "sampling", "Seed of the initial noise.", _SAMPLED, "Noise seed"),
    Column("status", "string", "", "record", "`ok`, `diverged`, or `failed: reason`.", header="Status"),
    Column("signatures", "object", "", "record", "Metric → how its figure was made."),
    Column("not_measured", "object", "", "record", "Column → why it has no value."),
    Column("artefact_sha256", "string or null", "", "record", "What was sampled: sha256 of weights and `vocab.txt`.", _SAMPLED),
    Column("key", "string", "", "record", "The cell's key; its folder is `cells/<key>`."),
    Column("schema_version", "integer", "", "record", "Version of this schema."),
)
# fmt: on

BY_NAME = {column.name: column for column in COLUMNS}
REQUIRED = ("task", "system", "dataset", "n_expected", "n_scored", "status")
"""Keys without which a summary cannot be placed in any table."""


def own_name(row: Mapping[str, Any]) -> str:
    """What its run calls a row's system: beside other runs it may be called otherwise."""
    return str(row.get("own_name") or row["system"])


def missing_reason(row: Mapping[str, Any], name: str) -> str:
    """Why ``name`` has no value in ``row``: the run's own words first, else what follows from the kind of row."""
    base = name.removesuffix("_low").removesuffix("_high").removesuffix("_n")
    told = row.get("not_measured") or {}
    if told.get(name) or told.get(base):
        return str(told.get(name) or told[base])
    if row["status"] != "ok":
        return str(row["status"])
    if name in ("cluster", "n_clusters"):
        return "intervals and tests are over utterances"
    group = BY_NAME[name].group if name in BY_NAME else "quality"
    if own_name(row) in REFERENCES and (group in ("sampling", "training") or name.startswith("rtf_network")):
        return "does not apply: a recording, not a model's output"
    if own_name(row) == "ground-truth" and group == "cost":
        return "does not apply: nothing was generated"
    if name == "hardware":
        return "the run's manifest does not tell it"
    if name == "teacher_nfe":
        return "does not apply: no teacher steps in its training"
    if name == "trained_guidance" and own_name(row) == TEACHER:
        return "does not apply: its guidance is chosen while sampling"
    metric = quality("wer" if base.startswith("wer") else base).signature
    if group == "quality" and metric not in (row.get("signatures") or {}):
        return f"the metric {metric} was not scored"
    return "the run left no value and no reason"


def schema_table() -> str:
    """The documented schema of a row, as a Markdown table."""
    lines = ["| key | type | unit | present | meaning |", "| --- | --- | --- | --- | --- |"]
    lines += [f"| `{c.name}` | {c.type} | {c.unit or '–'} | {c.present} | {c.meaning} |" for c in COLUMNS]
    return "\n".join(lines)
