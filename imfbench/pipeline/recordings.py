"""Speech that another program made: its files are matched to the utterances of a test set, and scored where they lie."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imfbench.config import Recordings
from imfbench.data import Utterance
from imfbench.features.audio import load_noted
from imfbench.features.audio_check import AudioError
from imfbench.pipeline.cells import Cell
from imfbench.pipeline.context import Context, RunError
from imfbench.progress import log
from imfbench.schema import SCHEMA_VERSION
from imfbench.store import CellFolder, file_sha256, write_json

SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3")
UNREAD = (".m4a", ".aac", ".mp4", ".wma", ".webm", ".amr")
"""Endings of audio in formats that libsndfile does not read: such files are told, and not taken for absent."""
HEARD_RATE = 16000
"""Hz that recognisers, embedders and MOS predictors hear: a recording of less lacks a part of what they listen to."""
MATCHING = "files.json"
"""In the cell's folder: which files were left out and which are lacking."""
PREFIXES = ("", "gen_", "gen-")
MISSING = "missing"
"""Status of an utterance without a readable file, where that counts as nothing said."""
NOTHING_SAID = "; in WER all of its words count as deleted"
_SHOWN = 5


@dataclass(frozen=True)
class Matched:
    """Which file is which utterance.

    Attributes:
        files: Utterance id → its file.
        missing: Ids without a file, in the order of the test set.
        extra: Files that belong to no utterance.
        twice: Id → its files, where there is more than one.
        unread: Id → its only file, in a format that cannot be read; other files of such formats are ``extra``.
    """

    files: dict[str, Path] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    extra: list[Path] = field(default_factory=list)
    twice: dict[str, list[Path]] = field(default_factory=dict)
    unread: dict[str, Path] = field(default_factory=dict)


def match(folder: Path, ids: Iterable[str], every: Iterable[str] = ()) -> Matched:
    """Match the audio files below a folder to utterances by name.

    A file belongs to the utterance whose id is its path below the folder without ending, or its name without ending, or
    follows ``gen_`` there; the names under which a run keeps ids that make no file name are known as well.

    Args:
        folder: Where to look, in all folders below too.
        ids: Of the utterances that are wanted.
        every: Of the whole test set: files of those that are not wanted, as under a limit, are not ``extra``.
    """
    found = Matched()
    wanted = dict.fromkeys(ids)
    names: dict[str, str] = {}
    for utterance in {**wanted, **dict.fromkeys(every)}:
        for name in (utterance, CellFolder(Path()).audio(utterance).stem):
            names.setdefault(_composed(name), utterance)
    files: dict[str, list[Path]] = defaultdict(list)
    for path in _audio_files(folder):
        below = path.relative_to(folder).with_suffix("")
        candidates = (below.as_posix(), *(below.name.removeprefix(prefix) for prefix in PREFIXES))
        belongs = next((names[name] for name in map(_composed, candidates) if name in names), None)
        if belongs is None:
            found.extra.append(path)
        else:
            files[belongs].append(path)
    for utterance in wanted:
        every_file = files.get(utterance, [])
        own = [path for path in every_file if not _unread(path)]
        others = [path for path in every_file if _unread(path)]
        if len(own) > 1:
            found.twice[utterance] = own
        elif own:
            found.files[utterance] = own[0]
        elif others:
            found.unread[utterance] = others.pop(0)
        else:
            found.missing.append(utterance)
        found.extra.extend(others)
    return found


def _composed(name: str) -> str:
    """The name with each accent in its letter: file systems part them, lists do not."""
    return unicodedata.normalize("NFC", name)


def _unread(path: Path) -> bool:
    return path.suffix.lower() in UNREAD


def _audio_files(folder: Path) -> Iterator[Path]:
    for where, folders, files in os.walk(folder):
        folders.sort()
        yield from (Path(where, name) for name in sorted(files) if Path(name).suffix.lower() in SUFFIXES + UNREAD)


def take_recordings(context: Context, cell: Cell, utterances: list[Utterance]) -> None:
    """Note the file of every utterance, by content, so that a changed file gets new scores.

    Raises:
        RunError: There is no such folder, a file stands twice, or one is missing or cannot be read and that is refused.
    """
    system = next(r for r in context.config.recordings if r.name == cell.row.system)
    folder = Path(system.folder)
    if not folder.is_dir():
        raise RunError(f"{system.name}: no such folder {folder}: name the folder that holds its audio files")
    test_set = context.test_set(cell.row)
    every = [utterance.id for utterance in context.dataset(test_set).utterances(test_set.split)]
    found = match(folder, [utterance.id for utterance in utterances], every)
    _check(system, found, folder, str(cell.about["dataset"]), utterances[0].id)
    if found.extra:
        log.warning(
            "%s: %d files belong to no utterance and are left out: %s; all of them stand in %s",
            system.name, len(found.extra), _listed(path.relative_to(folder).as_posix() for path in found.extra),
            cell.folder.path / MATCHING,
        )  # fmt: skip
    known = cell.folder.journal.rows()
    rows = []
    with context.reporting.bar(f"reading {system.name}", len(utterances)) as bar:
        for utterance in utterances:
            path = found.files.get(utterance.id) or found.unread.get(utterance.id)
            rows.append(_row(cell, utterance, path, known.get(utterance.id)))
            bar.advance()
    cell.folder.journal.replace(rows)
    missing = {*found.missing}
    unreadable = {
        row["id"]: row["reason"].removesuffix(NOTHING_SAID)
        for row in rows
        if row["status"] != "ok" and row["id"] not in missing
    }
    write_json(cell.folder.path / MATCHING, _matching(folder, found, unreadable, len(utterances)))
    _refuse(system, found.missing, unreadable, len(utterances))


def _check(system: Recordings, found: Matched, folder: Path, dataset: str, like: str) -> None:
    """Refuse two files for one utterance, and folders without a file that could be one.

    Raises:
        RunError: Such a folder.
    """
    if found.twice:
        first, files = next(iter(found.twice.items()))
        told = " and ".join(str(path) for path in files[:3])
        more = f" (and {len(found.twice) - 1} more utterances)" if len(found.twice) > 1 else ""
        raise RunError(f"{system.name}: {first!r} has {len(files)} files, {told}{more}: leave one of them")
    if not found.files and not found.unread:
        raise RunError(
            f"{system.name}: none of the {len(found.extra)} audio files below {folder} belongs to an utterance of "
            f"{dataset}, whose ids look like {like!r}: files are called by id, as {like}.wav or gen_{like}.wav; is it the "
            "right --dataset?"
        )


def _matching(folder: Path, found: Matched, unreadable: dict[str, str], expected: int) -> dict[str, Any]:
    """What ``files.json`` holds; ``docs/results.md`` has its keys."""
    return {
        "schema_version": SCHEMA_VERSION,
        "folder": str(folder),
        "n_expected": expected,
        "n_read": expected - len(found.missing) - len(unreadable),
        "missing": found.missing,
        "unreadable": unreadable,
        "extra": [path.relative_to(folder).as_posix() for path in found.extra],
    }


def _row(cell: Cell, utterance: Utterance, path: Path | None, known: dict[str, Any] | None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": utterance.id,
        "text": utterance.text,
        "language": utterance.language,
        "speaker": utterance.speaker,
        "prompt_id": utterance.prompt_id,
        "reference_seconds": utterance.seconds,
    }
    if path is None:
        return row | {"status": MISSING, "reason": f"no audio file{NOTHING_SAID}", "notes": None}
    if _unread(path):
        reason = f"{path}: files of the format {path.suffix} are not read; convert it to wav or FLAC"
        return row | {"status": MISSING, "reason": reason + NOTHING_SAID, "notes": None}
    sha256 = file_sha256(path)
    # The way from one folder to the other is followed by the system, through links if a folder lies behind one.
    where = os.path.relpath(path.parent.resolve() / path.name, cell.folder.path.resolve())
    if known is not None and known.get("audio_sha256") == sha256 and known["status"] == "ok":
        return {**known, **row, "audio": where}
    try:
        samples, rate, notes = load_noted(path)
    except AudioError as error:
        return row | {"status": MISSING, "reason": f"{error}{NOTHING_SAID}", "notes": None}
    if rate < HEARD_RATE:
        notes.append(f"of {rate} Hz, less than the {HEARD_RATE} Hz that is listened to")
    noted = "; ".join(f"recording {note}" for note in notes) or None
    made = {"audio": where, "audio_sha256": sha256, "seconds": len(samples) / rate, "sample_rate": rate}
    return row | {"status": "ok", "reason": None, "notes": noted, **made}


def _refuse(system: Recordings, missing: list[str], unreadable: dict[str, str], expected: int) -> None:
    told = []
    if missing:
        told.append(f"{len(missing)} of {expected} utterances have no file ({_listed(missing)})")
    if unreadable:
        reasons = (f"{utterance}: {reason}" for utterance, reason in unreadable.items())
        told.append(f"{len(unreadable)} cannot be read ({_listed(reasons)})")
    if not told:
        return
    if system.missing == "refuse":
        raise RunError(
            f"{system.name}: {'; '.join(told)}. Make them, or count them as texts of which nothing was said with "
            "--allow-missing"
        )
    log.warning("%s: %s: they count as texts of which nothing was said", system.name, "; ".join(told))


def _listed(texts: Iterable[str]) -> str:
    found = list(texts)
    return ", ".join(found[:_SHOWN]) + (f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")
