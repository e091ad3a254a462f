"""One set of transcripts under all protocols: how much of a gap between two figures is only the scorer.

Only the text side is compared, since the transcripts are given: who listens makes further differences, which no table of
transcripts can show.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from imfbench.datasets.lists import language_of
from imfbench.metrics.protocols import PROTOCOLS, protocol_of
from imfbench.metrics.text_rules import LANGUAGES
from imfbench.metrics.wer import COUNTS, score_transcripts
from imfbench.schema import read_utterances
from imfbench.store import StoreError, natural, read_json

TABLES = (
    "utterances.parquet",
    "transcripts.parquet",
    "transcripts.csv",
    "transcripts.tsv",
    "transcripts.jsonl",
)
REFERENCE = ("reference", "text")
HYPOTHESIS = ("hypothesis", "transcript")
FORM = f"a folder with {', '.join(TABLES)}: columns {' or '.join(REFERENCE)}, and {' or '.join(HYPOTHESIS)}"


class TranscriptsError(ValueError):
    """A folder or table that holds no transcripts; the message says what is looked for."""


def read_transcripts(place: Path, language: str | None = None) -> pd.DataFrame:
    """The transcripts of a run, of a cell, or of any folder or file that holds a table of them.

    Args:
        place: A table, or a folder with one of ``TABLES``, with ``cells/*/utterances.parquet``, or with folders of such tables.
        language: "en" or "zh": of all rows. Without it a table's column ``language`` says, and where there is none Chinese
            characters do.

    Returns:
        A row an utterance: ``system`` (a table's own column, else the row's name in a run, else the folder's name),
        ``language``, ``id`` where the table has one, ``reference`` and ``hypothesis`` (None where there is no transcript).

    Raises:
        TranscriptsError: There is no such table, or it lacks a column.
    """
    files = [place] if place.is_file() else list(_tables(place))
    if not files:
        raise TranscriptsError(f"no transcripts in {place}; what is looked for is a run, a cell, or {FORM}")
    frames = [_read(file, language).assign(part=_part(file, place)) for file in files]
    frames.sort(key=lambda frame: (frame["part"].max(), natural(str(frame["system"].max()))))
    found = pd.concat(frames, ignore_index=True)
    found["system"] = found["part"].where(found["part"] == "", found["part"] + ": ") + found["system"]
    return found.drop(columns="part")


def compare_protocols(transcripts: pd.DataFrame, protocols: Sequence[str] | None = None) -> pd.DataFrame:
    """Every system under every protocol.

    Args:
        transcripts: As ``read_transcripts`` gives them.
        protocols: Names in ``PROTOCOLS``, in the order wanted; all without it.

    Returns:
        A row for each system, language and protocol that knows the language: ``wer`` (as the protocol aggregates), ``aggregate``,
        ``corpus``, ``mean`` (fractions), edits and ``reference_words`` summed, ``n_expected``, ``n_scored``, ``signature``.

    Raises:
        imfbench.metrics.protocols.UnknownProtocolError: No protocol has the name.
        imfbench.weights.MissingModelError: A protocol needs a package that is not installed.
        TranscriptsError: There are no rows, or no protocol knows their language.
    """
    chosen = [protocol_of(name) for name in protocols or PROTOCOLS]
    rows = []
    for (system, language), group in transcripts.groupby(["system", "language"], sort=False):
        for protocol in chosen:
            if language not in protocol.languages:
                continue
            scored = score_transcripts(group["reference"], group["hypothesis"], protocol, str(language))
            given = scored.attrs
            rows.append(
                {"system": system, "language": language, "protocol": protocol.name}
                | {
                    "wer": given["wer"],
                    "aggregate": protocol.aggregate,
                    "corpus": given["corpus"],
                    "mean": given["mean"],
                }
                | {name: int(scored[name].sum()) for name in COUNTS}
                | {name: given[name] for name in ("n_expected", "n_scored", "signature")}
            )
    if not rows:
        known = f"none of {', '.join(protocol.name for protocol in chosen)} has a rule for their language"
        raise TranscriptsError(f"nothing to compare: {known if len(transcripts) else 'the tables have no rows'}")
    return pd.DataFrame(rows)


def side_by_side(compared: pd.DataFrame) -> pd.DataFrame:
    """The figures that the protocols print, in percent: a row for each system and language, a column for each protocol.

    ``gap`` is the widest difference within a row, in percentage points: what the text side alone is worth. Unknown where a
    protocol does not know the language.
    """
    percent = compared.assign(wer=compared["wer"] * 100)
    wide = percent.pivot_table("wer", ["system", "language"], "protocol", sort=False, dropna=False, observed=True)
    wide = wide[list(dict.fromkeys(compared["protocol"]))].dropna(how="all")
    wide["gap"] = wide.max(axis=1) - wide.min(axis=1)
    counts = compared.groupby(["system", "language"], sort=False)["n_expected"].first()
    wide.insert(0, "n", counts.reindex(wide.index))
    wide.columns.name = None
    return wide.reset_index()


def _tables(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        return
    own = [folder / name for name in TABLES if (folder / name).is_file()]
    if own:
        yield own[0]
        return
    cells = [
        *sorted((folder / "cells").glob("*/")),
        *sorted(folder.glob("*/cells/*/")),
    ]  # of the run, of its further parts
    below = cells or sorted(folder.glob("*/"))
    for part in below:
        if not part.name.startswith("."):
            yield from ([part / name for name in TABLES if (part / name).is_file()][:1])


def _part(file: Path, run: Path) -> str:
    """The further experiment of a run (``then``) to which a cell's table belongs; "" for the first."""
    within = file.relative_to(run).parts if file.is_relative_to(run) else ()
    return within[0] if len(within) == 4 and within[1] == "cells" else ""


def _read(file: Path, language: str | None) -> pd.DataFrame:
    try:
        if file.suffix == ".parquet":
            table = read_utterances(file)
        elif file.suffix == ".jsonl":
            table = pd.read_json(file, lines=True, dtype=False)
        elif file.suffix in (".csv", ".tsv"):
            table = _read_text(file)
        else:
            raise TranscriptsError(f"{file} is no table of transcripts; there may be {', '.join(TABLES)}")
    except (OSError, ValueError, pd.errors.ParserError) as error:
        if isinstance(error, TranscriptsError):
            raise
        raise TranscriptsError(f"{file} cannot be read as a table: {error}") from error
    found = {}
    for wanted, names in (("reference", REFERENCE), ("hypothesis", HYPOTHESIS)):
        present = [name for name in names if name in table.columns]
        if not present:
            raise TranscriptsError(
                f"{file} has no column {' or '.join(names)}; there are {', '.join(map(str, table.columns))}. "
                "A run gets transcripts from metric wer"
            )
        column = table[present[0]].astype(object)
        found[wanted] = column.where(column.notna(), None)
    frame = pd.DataFrame(found).assign(system=table["system"].astype(str) if "system" in table else _name(file))
    if language is None and "language" in table:
        frame["language"] = table["language"]
    else:
        frame["language"] = [language or language_of(str(text)) for text in frame["reference"]]
    unknown = set(frame["language"]) - set(LANGUAGES)
    if unknown:
        raise TranscriptsError(
            f"{file} has rows of language {', '.join(map(repr, sorted(map(str, unknown))))}; "
            f"there are rules for {' and '.join(LANGUAGES)}, and --language says which to take"
        )
    if "id" in table:
        frame["id"] = table["id"]
    return frame


def _read_text(file: Path) -> pd.DataFrame:
    """A table of texts. All is text: "NA" and "null" may have been said, and an empty transcript is one.

    Raises:
        ValueError: A row has not as many fields as the first line names; the message has its line.
    """
    # Between tabs quotation marks belong to the texts; between commas they hold those that have a comma themselves.
    form: dict[str, Any] = {"delimiter": ",", "strict": True}
    remedy = "put a text that holds a comma between quotation marks"
    if file.suffix == ".tsv":
        form = {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
        remedy = "no text may hold a tab or a line break"
    with file.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.reader(lines, **form)
        try:
            columns = next(reader, [])
            rows = []
            for fields in reader:
                if fields and len(fields) != len(columns):
                    told = f"line {reader.line_num} has {len(fields)} fields instead of {len(columns)}"
                    raise ValueError(f"{told}; {remedy}")
                rows += [fields] if fields else []
        except csv.Error as error:
            raise ValueError(f"line {reader.line_num}: {error}; close the quotation marks") from None
    return pd.DataFrame(rows, columns=columns, dtype=object)


def _name(file: Path) -> str:
    folder = file.resolve().parent
    try:
        cell = read_json(folder / "cell.json")
    except (StoreError, OSError):
        cell = None
    row = cell.get("row") if isinstance(cell, dict) else None
    return str(row or (folder.name if file.name in TABLES else file.stem))
