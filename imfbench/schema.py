"""The schema of results: its version, and every column of ``utterances.parquet``. ``docs/results.md`` repeats it.

The version goes up when a key is removed or changes its meaning. New keys do not raise it: readers leave alone what they do not
know. Results without a version are from before there was one, and are of version 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from imfbench.disk import StoreError

SCHEMA_VERSION = 1
VERSION_KEY = "schema_version"


class SchemaError(StoreError):
    """Results of a newer schema than this package knows; the message says what to do."""


class DamagedTableError(StoreError, ValueError):
    """A table that cannot be read; the message says what to do."""


def check_version(version: Any, path: Path) -> None:
    """Refuse results whose keys may mean something else.

    Raises:
        SchemaError: They are of a newer schema, or their version is no number.
    """
    if version is None:
        return
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise SchemaError(f"{path}: {VERSION_KEY} is {version!r}, which is no version: make the results again")
    if version > SCHEMA_VERSION:
        raise SchemaError(
            f"{path} was written by a newer imfbench: its {VERSION_KEY} is {version}, and this one knows them up to "
            f"{SCHEMA_VERSION}. Update imfbench, or make the results again with this one"
        )


def read_utterances(path: Path) -> pd.DataFrame:
    """The table of a cell's utterances.

    Raises:
        SchemaError: It is of a newer schema.
        DamagedTableError: It is no whole table.
        OSError: It cannot be read.
    """
    try:
        found = pd.read_parquet(path)
    except ValueError as error:  # Arrow's own are of this kind
        raise DamagedTableError(
            f"{path} is damaged ({str(error).splitlines()[0][:120]}): remove it, and `imfbench score` or `run` makes it again"
        ) from None
    check_version(found.attrs.get(VERSION_KEY), path)
    return found


@dataclass(frozen=True)
class Key:
    """One column of ``utterances.parquet``, or one key of a JSON file.

    Attributes:
        name: The column or key.
        type: In words: string, number, integer, and "or null" where a value may be lacking.
        unit: Unit of the figure, or "".
        present: When there is such a column.
        meaning: One sentence.
    """

    name: str
    type: str
    unit: str
    present: str
    meaning: str


def _metric(name: str, *columns: Key) -> list[Key]:
    when = f"if `{name}` was scored"
    return [
        *(Key(c.name, c.type, c.unit, when, c.meaning) for c in columns),
        Key(f"{name}_error", "string or null", "", when, f"Why the row has no score of `{name}`; null if it has one."),
        Key(f"{name}_signature", "string", "", when, "How the columns before it were made."),
    ]


_NUMBER, _WHOLE, _TEXT = "number or null", "integer or null", "string or null"
# fmt: off
UTTERANCE: tuple[Key, ...] = (
    Key("id", "string", "", "always", "The utterance, as the test set names it."),
    Key("text", "string", "", "always", "What should have been said."),
    Key("language", _TEXT, "", "always", "Of the text: `en` or `zh`."),
    Key("speaker", _TEXT, "", "always", "Whose voice; where a list names none, what stands for it."),
    Key("prompt_id", _TEXT, "", "always", "The prompt's recording."),
    Key("reference_seconds", _NUMBER, "s", "always", "Length of the test set's own recording."),
    Key("status", "string", "", "always", "`ok`, `failed`, or `missing` (no readable file, and that was allowed)."),
    Key("reason", _TEXT, "", "always", "Why the status is not `ok`."),
    Key("notes", _TEXT, "", "always",
        "What is worth a look: silent, clipped, resampled or mixed-down recordings, silent or clipped output."),
    Key("audio", _TEXT, "", "always", "The audio file, from the cell's folder."),
    Key("audio_sha256", _TEXT, "", "always", "sha256 of that file."),
    Key("seconds", _NUMBER, "s", "always", "Length of the audio."),
    Key("sample_rate", _NUMBER, "Hz", "if another program made the speech", "Sampling rate of the file."),
    Key("network_seconds", _NUMBER, "s", "always", "Wall time of the network; null without one."),
    Key("vocoder_seconds", _NUMBER, "s", "always", "Wall time of the vocoder; null without one."),
    Key("steps", _WHOLE, "", "always", "Intervals of the time grid, measured."),
    Key("nfe", _WHOLE, "", "always", "Velocity evaluations, measured."),
    Key("network_calls", _WHOLE, "", "always", "Rows sent through the network, measured."),
    Key("device", _TEXT, "", "always", "Device that sampled and was timed."),
    Key("threads", _WHOLE, "", "always", "CPU threads."),
    Key("hardware", _TEXT, "", "since rows name it", "Model of that device."),
    Key("workers", _WHOLE, "", "since there is `--workers`", "Processes that were at work side by side while it was timed."),
    Key("timing", _WHOLE, "", "since rows name it",
        "How it was timed: 2, on a CPU, with the kernels for its length made before the clock starts; without it 1."),
    *_metric(
        "wer",
        Key("wer", _NUMBER, "fraction", "", "Edits over the words that are compared (characters in Chinese)."),
        Key("substitutions", _WHOLE, "", "", "Words that were said as others."),
        Key("deletions", _WHOLE, "", "", "Words that were not said."),
        Key("insertions", _WHOLE, "", "", "Words that were said besides."),
        Key("reference_words", _WHOLE, "", "", "What the reference counts for in the corpus figure."),
        Key("reference_normalised", _TEXT, "", "", "The text as it was compared."),
        Key("hypothesis_normalised", _TEXT, "", "", "The transcript as it was compared."),
        Key("hypothesis", _TEXT, "", "", "The transcript."),
        Key("wer_note", _TEXT, "", "", "Why the speech may be of another language than the text."),
    ),
    *_metric("sim", Key("sim", _NUMBER, "cosine", "", "Similarity of the voice to the prompt's recording (SIM-o).")),
    *_metric("mos", Key("mos_distillmos", _NUMBER, "MOS, 1 to 5", "", "Opinion predicted by DistillMOS.")),
    *_metric("utmos", Key("mos_utmos", _NUMBER, "MOS, 1 to 5", "", "Opinion predicted by UTMOS.")),
    *_metric(
        "dnsmos",
        Key("mos_dnsmos_speech", _NUMBER, "MOS, 1 to 5", "", "Opinion of the speech alone predicted by DNSMOS P.835."),
        Key("mos_dnsmos_background", _NUMBER, "MOS, 1 to 5", "", "Opinion of the background; higher is less intrusive."),
        Key("mos_dnsmos", _NUMBER, "MOS, 1 to 5", "", "Opinion of the whole."),
    ),
    *_metric(
        "f0cv",
        Key("f0cv", _NUMBER, "ratio", "", "Standard deviation of F0 over its mean."),
        Key("f0_mean", _NUMBER, "Hz", "", "Mean of F0 over voiced frames."),
        Key("voiced_share", _NUMBER, "fraction", "", "Share of the frames that are voiced."),
    ),
)
"""Columns of ``utterances.parquet``; metrics of plug-ins add theirs in the same form."""

FURTHER: tuple[Key, ...] = (
    Key("peak_memory_of", "string", "", "if memory was measured", "What was sampled for it."),
    Key("train_peak_memory_kind", _TEXT, "", "if a network was sampled", "What `train_peak_memory` counts."),
    *(Key(f"rtf_{part}_{figure}", "number", "s/s", "if speed was timed", f"{told} of `rtf_{part}` over utterances.")
      for part in ("vocoder", "total") for figure, told in (("median", "Median"), ("p95", "95th percentile"))),
    Key("run", "string", "", "in `imfbench compare`", "The folder that the row is of."),
    Key("own_name", "string", "", "in `imfbench compare`, if two runs have a system of one name", "What its run calls it."),
    Key("rtf_n", "integer", "", "if speed was timed", "Utterances that were timed."),
    Key("source", "string", "", "if a paper reported the row", "Where its figures were published."),
)
"""Keys that a row has besides the documented columns of the leaderboard."""
# fmt: on


def key_table(keys: Iterable[Key]) -> str:
    """Keys as a Markdown table."""
    lines = ["| key | type | unit | present | meaning |", "| --- | --- | --- | --- | --- |"]
    lines += [f"| `{k.name}` | {k.type} | {k.unit or '–'} | {k.present} | {k.meaning} |" for k in keys]
    return "\n".join(lines)
