"""The checks of a folder of results: what anybody can find out who has the folder alone, without a model and without the audio.

Every figure is made again from the utterances, every test from the figures, and every table from the tests.
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from imfbench.disk import StoreError
from imfbench.doctor import Finding
from imfbench.metrics.base import Metric, ScoreError
from imfbench.metrics.protocols import Protocol
from imfbench.metrics.signature import parse
from imfbench.metrics.speed import speed_of_rows
from imfbench.metrics.wer import COLUMNS, count_edits, transcript_signature
from imfbench.publishing import SUMS
from imfbench.registry import METRICS, BrokenEntryError
from imfbench.reports.leaderboard import analyse, as_csv, complete, pictures_in, record, written
from imfbench.reports.page.words import edits
from imfbench.reports.results import Cell, RunFolderError, read_run
from imfbench.schema import UTTERANCE
from imfbench.store import file_sha256, plain
from imfbench.weights import MissingModelError

WEIGHTS = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".onnx", ".npz", ".gguf")
TIMES = ("status", "seconds", "network_seconds", "vocoder_seconds", "device", "threads")
ABOUT = "README.md"
"""What the owner of a folder writes about it; it may be changed at any time."""
_CLOSE = 1e-9
Options = Mapping[str, dict[str, Any]]
"""Metric → its settings in the experiment."""


def verify(folder: Path) -> Iterator[Finding]:
    """Check a results folder: hashes, no weights, schema, and all that follows from the utterances made again.

    Yields:
        A finding for each thing that was looked at, "bad" where something is wrong.
    """
    yield from _sums(folder)
    weights = [file for file in folder.rglob("*") if file.suffix.lower() in WEIGHTS]
    if weights:
        names = ", ".join(file.relative_to(folder).as_posix() for file in weights[:3])
        yield Finding("bad", "weights", f"{names}: a results folder holds none; remove them and publish again")
    try:
        results = read_run(folder)
    except (RunFolderError, StoreError) as error:
        yield Finding("bad", "schema", str(error))
        return
    for name in results.unfinished:
        yield Finding("bad", "schema", f"cells/{name} has no summary.json")
    found = 0
    settings = [_options(folder, cell) for cell in results.cells]
    for cell, options in zip(results.cells, settings, strict=True):
        for problem in (
            *_schema(cell),
            *_counts(cell, options),
            *_unsigned(cell),
            *_edits(cell, options),
            *_audio(cell),
        ):
            found += 1
            yield Finding("bad", _name(cell), problem)
    if not found:
        told = f"{len(results.cells)} rows are of the schema, with their counts, signatures, edits and audio"
        yield Finding("ok", "rows", told)
    for cell, options in zip(results.cells, settings, strict=True):
        yield from _aggregates(cell, options)
        yield from _speed(cell)
    yield from _board(folder, results.cells)


def _sums(folder: Path) -> Iterator[Finding]:
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    except OSError:
        yield Finding("bad", SUMS, f"{folder / SUMS} is not there: `imfbench publish RUN` makes such a folder")
        return
    listed = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    present = {f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file()} - {
        SUMS,
        *({ABOUT} - {*listed}),
    }
    wrong = [f"{name} is missing" for name in sorted({*listed} - present)]
    wrong += [f"{name} is not listed" for name in sorted(present - {*listed})]
    wrong += [
        f"{name} is not what was published" for name in sorted(present & {*listed})
        if file_sha256(folder / name) != listed[name]
    ]  # fmt: skip
    for problem in wrong:
        yield Finding("bad", SUMS, problem)
    if not wrong:
        yield Finding("ok", SUMS, f"{len(listed)} files are what was published")


def _schema(cell: Cell) -> Iterator[str]:
    if not cell.ok:
        return
    if cell.utterances is None:
        yield "there is no utterances.parquet"
        return
    wanted = [key.name for key in UTTERANCE if key.present == "always"]
    if absent := [name for name in wanted if name not in cell.utterances]:
        yield f"utterances.parquet has no column {', '.join(absent)}"


def _counts(cell: Cell, options: Options) -> Iterator[str]:
    frame = cell.utterances
    if frame is None:
        return
    if len(frame) != cell.row["n_expected"]:
        yield f"n_expected is {cell.row['n_expected']}, and utterances.parquet has {len(frame)} rows"
    for name in ("steps", "nfe", "network_calls"):
        found = sorted(frame[name].dropna().unique()) if name in frame else []
        if cell.ok and found and found != [cell.row.get(name)]:
            yield f"{name} is {cell.row.get(name)}, and {', '.join(f'{value:g}' for value in found)} in utterances.parquet"
    made = int((frame["status"] == "ok").sum()) if "status" in frame else len(frame)
    if cell.ok and cell.row["n_scored"] > made:
        yield f"n_scored is {cell.row['n_scored']}, and {made} utterances were made"
    known = []
    for name in cell.signatures:
        with contextlib.suppress(BrokenEntryError, KeyError, ValueError):
            known.append(METRICS.get(name))
    counted = [metric for metric in known if metric.higher_is_better is not None] or known
    if cell.ok and {*options} and {*options} <= {*cell.signatures} & {*METRICS.names()} and "status" in frame:
        errors = [frame[f"{metric.name}_error"].isna() for metric in counted if f"{metric.name}_error" in frame]
        scored = (
            int((frame["status"] == "ok").where(pd.concat(errors, axis=1).all(axis=1), False).sum()) if errors else made
        )
        if cell.row["n_scored"] != scored:
            yield f"n_scored is {cell.row['n_scored']}, and {scored} utterances have every score"


def _edits(cell: Cell, options: Options) -> Iterator[str]:
    """Normalised texts, edits and WER of each utterance, from its text and its transcript, by the rule of the signature.

    Where that rule is not here (a plug-in's protocol, another version of a package), the edits alone, from the texts as they are.
    """
    frame = cell.utterances
    if frame is None or "wer" not in cell.signatures:
        return
    rule = _rule(cell, options.get("wer", {})) if "text" in frame and "hypothesis" in frame else None
    wrong: dict[str, list[str]] = {}
    for row in frame[frame["wer"].notna()].to_dict("records") if "wer" in frame else ():
        for column in _unlike(row, rule):
            wrong.setdefault(column, []).append(str(row["id"]))
    for column, ids in wrong.items():
        yield f"{column} of {len(ids)} utterances is not what text and transcript make it ({', '.join(ids[:3])})"


def _rule(cell: Cell, settings: Mapping[str, Any]) -> tuple[Protocol, str] | None:
    """Protocol and language by which the row's WER was made, if they are here as its signature has them."""
    try:
        metric = METRICS.get("wer")
        config = metric.Config(**settings)
        protocol, language = metric(config).protocol, config.language
        here = parse(str(transcript_signature(protocol, language)))[2]
        there = parse(cell.signatures["wer"])[2]
    except (ValueError, KeyError, TypeError, MissingModelError, BrokenEntryError):
        return None
    same = all(there.get(key) == value for key, value in here.items() if key not in ("asr", "language"))
    return (protocol, language) if same else None


def _unlike(row: Mapping[str, Any], rule: tuple[Protocol, str] | None) -> list[str]:
    """Columns of an utterance that are not what is made of its texts."""
    if rule is not None:
        if not isinstance(row["hypothesis"], str):
            return ["hypothesis"]
        try:
            made = count_edits(str(row["text"]), row["hypothesis"], *rule)
        except MissingModelError:
            return _unlike(row, None)
        except ScoreError:  # a text of no words has no figure
            made = dict.fromkeys(COLUMNS)
        return [column for column, value in made.items() if column in row and not _same(row[column], value)]
    texts = row.get("reference_normalised"), row.get("hypothesis_normalised")
    if not all(isinstance(text, str) for text in texts):
        return []
    kinds = [kind for kind, _, _ in edits(*texts)]
    same = len(kinds) - kinds.count("ok") == row["substitutions"] + row["deletions"] + row["insertions"]
    return [] if same else ["substitutions, deletions or insertions"]


def _audio(cell: Cell) -> Iterator[str]:
    if cell.folder is None or cell.utterances is None or "audio_sha256" not in cell.utterances:
        return
    for row in cell.utterances.dropna(subset=["audio", "audio_sha256"]).to_dict("records"):
        file = cell.folder / str(row["audio"])
        if file.is_file() and file_sha256(file) != row["audio_sha256"]:
            yield f"{row['audio']} is not the audio that was scored"


def _aggregates(cell: Cell, options: Options) -> Iterator[Finding]:
    """Every figure of every metric, with its interval, made again from the utterances."""
    frame = cell.utterances
    if frame is None or not cell.ok:
        return
    count = 0
    for name in cell.signatures:
        if name not in METRICS:
            yield Finding("note", _name(cell), f"the metric {name} is not known here: its figures were not made again")
            continue
        try:
            cls = METRICS.get(name)
            metric: Metric = cls(cls.Config(**options.get(name, {})))
            cluster = cell.row.get("cluster")
            made = metric.summarise(frame) if cluster is None else metric.summarise(frame, cluster=cluster)
        except (BrokenEntryError, ValueError, KeyError) as error:
            yield Finding("bad", _name(cell), f"{name} cannot be made again ({type(error).__name__}: {error})")
            continue
        for column, value in made.items():
            count += 1
            if not _same(cell.row.get(column), value):
                told = f"{column} is {cell.row.get(column)} in summary.json, and {value} by its utterances"
                yield Finding("bad", _name(cell), told)
    if count:
        yield Finding("ok", _name(cell), f"{count} figures made again from {len(frame)} utterances")


def _same(told: Any, made: Any) -> bool:
    if told is None or made is None or pd.isna(made):
        return told is None and (made is None or bool(pd.isna(made)))
    if isinstance(made, str):
        return bool(told == made)
    return isinstance(told, (int, float)) and math.isclose(float(told), float(made), rel_tol=_CLOSE, abs_tol=_CLOSE)


def _options(folder: Path, cell: Cell) -> Options:
    """The settings of the metrics in the experiment that made the cell."""
    run = cell.folder.parent.parent if cell.folder is not None else folder
    try:
        experiment = yaml.safe_load((run / "experiment.yaml").read_text(encoding="utf-8"))
        return dict(experiment.get("metrics") or {})
    except (OSError, yaml.YAMLError, AttributeError):
        return {}


def _speed(cell: Cell) -> Iterator[Finding]:
    """Every figure of speed with its conditions, made again from the seconds of the utterances."""
    frame = cell.utterances
    if frame is None or not cell.ok or any(name not in frame for name in TIMES):
        return
    made, _ = speed_of_rows(frame[frame["status"] == "ok"], cell.recording != "vocoded-ground-truth")
    told = {name for name in cell.row if name.startswith("rtf_") and cell.row[name] is not None}
    if cell.row.get("workers") is None and made.get("workers") == 1:
        made.pop("workers")  # a row from before workers were known of
    wrong = 0
    for name in sorted({*told, *made}):
        if not _same(cell.row.get(name), made.get(name)):
            wrong += 1
            yield Finding("bad", _name(cell), _otherwise(name, cell.row.get(name), made.get(name)))
    if made and not wrong:
        yield Finding("ok", _name(cell), f"{len(made)} figures of speed made again")


def _unsigned(cell: Cell) -> Iterator[str]:
    """Figures that no signature pins, and signatures that are not those of the utterances."""
    if not cell.ok:
        return
    signed = cell.signatures
    of: dict[str, str] = {}
    for name in METRICS.names():
        with contextlib.suppress(BrokenEntryError):
            of |= dict.fromkeys(METRICS.get(name).summary_columns, name)
    of["wer_corpus"] = "wer"
    unknown = [name for name in signed if name not in METRICS]
    for column in (key for key in cell.row if key in of or f"{key}_low" in cell.row):
        # What a metric that is not known here calls its figures is not known either.
        lacking = of[column] not in signed if column in of else not unknown
        if lacking and any(cell.row.get(f"{column}{end}") is not None for end in ("", "_low", "_high")):
            yield f"{column} has no signature: nothing says how it was made, and it was not made again"
    frame = cell.utterances
    if frame is None:
        return
    for name, text in signed.items():
        if f"{name}_signature" not in frame or not (frame[f"{name}_signature"] == text).all():
            yield f"the signature of {name} is not that of its utterances"


def _board(folder: Path, cells: list[Cell]) -> Iterator[Finding]:
    """The leaderboard: its rows against the summaries, its tests against the utterances, its other files against these."""
    place = folder / "leaderboard"
    try:
        told = json.loads((place / "leaderboard.json").read_text(encoding="utf-8"))
        rows = {row["key"]: row for row in told["rows"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        yield Finding("bad", "leaderboard", f"{place / 'leaderboard.json'} cannot be read ({type(error).__name__})")
        return
    wrong = [_name(cell) for cell in cells if not _shows(rows.get(cell.row["key"]), cell)]
    if wrong or len(told["rows"]) != len(cells):
        names = ", ".join(wrong[:3]) or "more rows"
        yield Finding("bad", "leaderboard", f"leaderboard.json does not show the summaries ({names})")
        return
    yield Finding("ok", "leaderboard", f"{len(rows)} rows as in the summaries")
    try:
        results, groups, rankings, tests = analyse(folder)
        made = plain(record(results, groups, rankings, tests, told["rows"]))
        unlike = next(_differences({**made, "run": told["run"]}, told, ""), None)
        if unlike is None:
            page = written(replace(results, name=str(told["run"])), groups, told, pictures_in(place))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        yield Finding("bad", "leaderboard", f"its tests cannot be made again ({type(error).__name__}: {error})")
        return
    if unlike is not None:
        yield Finding("bad", "leaderboard", f"leaderboard.json: {_otherwise(*unlike)}")
        return
    yield Finding("ok", "leaderboard", f"{len(tests)} tests and all rankings made again")
    wrong = [*_csv(place / "leaderboard.csv", told["rows"]), *_text(place / "leaderboard.md", page)]
    for problem in wrong:
        yield Finding("bad", "leaderboard", problem)
    if not wrong:
        yield Finding("ok", "leaderboard", "leaderboard.csv and leaderboard.md say what leaderboard.json says")


def _shows(row: Mapping[str, Any] | None, cell: Cell) -> bool:
    """Whether a row of the leaderboard has what the summary has, and no figure besides."""
    made = {key: value for key, value in complete(cell).items() if key != "not_measured"}
    return row is not None and all(row.get(k) == v for k, v in made.items()) and {*row} <= {*made, "not_measured"}


def _differences(made: Any, told: Any, where: str) -> Iterator[tuple[str, Any, Any]]:
    """Where two JSON values differ by more than the last digits of their numbers: the place, what is told, what was made."""
    if isinstance(made, dict) and isinstance(told, dict):
        for key in sorted({*made, *told}):
            yield from _differences(made.get(key), told.get(key), f"{where}.{key}" if where else str(key))
    elif isinstance(made, list) and isinstance(told, list) and len(made) == len(told):
        for number, (one, other) in enumerate(zip(made, told, strict=True)):
            yield from _differences(one, other, f"{where}[{number}]")
    elif not (made == told or (_is_number(made) and _is_number(told) and _same(told, made))):
        yield where, told, made


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _otherwise(what: str, told: Any, made: Any) -> str:
    shown = [text if len(text := json.dumps(plain(value))) < 80 else "something else" for value in (told, made)]
    return f"{what} is {shown[0]}, and {shown[1]} by the utterances"


def _csv(file: Path, rows: list[dict[str, Any]]) -> Iterator[str]:
    try:
        with file.open(encoding="utf-8", newline="") as opened:
            found = list(csv.DictReader(opened))
    except (OSError, ValueError, csv.Error) as error:
        yield f"{file.name} cannot be read ({type(error).__name__})"
        return
    with io.StringIO(as_csv(rows)) as opened:
        wanted = list(csv.DictReader(opened))
    if len(found) != len(wanted):
        yield f"{file.name} has {len(found)} rows, and leaderboard.json {len(wanted)}"
    for one, other in zip(found, wanted, strict=False):
        for key in (key for key in {**one, **other} if one.get(key) != other.get(key)):
            yield f"{file.name}: {key} of {other['key']} is {one.get(key)!r}, and {other.get(key)!r} in leaderboard.json"


def _text(file: Path, wanted: str) -> Iterator[str]:
    try:
        found = file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        yield f"{file.name} cannot be read ({type(error).__name__})"
        return
    pairs = enumerate(itertools.zip_longest(found.splitlines(), wanted.splitlines(), fillvalue="nothing"), 1)
    if line := next((number for number, (one, other) in pairs if one != other), None):
        yield f"{file.name}, line {line}: it does not say what leaderboard.json says"


def _name(cell: Cell) -> str:
    nfe = cell.value("nfe")
    return f"{cell.row['task']}: {cell.system}" + ("" if nfe is None else f" at {nfe:g} NFE")
