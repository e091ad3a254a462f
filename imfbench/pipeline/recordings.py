"""Speech that another program made: its files are matched to the utterances of a test set, and scored where they lie."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imfbench.config import Recordings
from imfbench.data import Utterance
from imfbench.features.audio import load_audio, notes_of_file
from imfbench.features.audio_check import AudioError
from imfbench.pipeline.cells import Cell
from imfbench.pipeline.context import Context, RunError
from imfbench.progress import log
from imfbench.store import CellFolder, file_sha256

SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3")
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
    """

    files: dict[str, Path] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    extra: list[Path] = field(default_factory=list)
    twice: dict[str, list[Path]] = field(default_factory=dict)


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
            names.setdefault(name, utterance)
    files: dict[str, list[Path]] = defaultdict(list)
    for path in _audio_files(folder):
        below = path.relative_to(folder).with_suffix("")
        candidates = (below.as_posix(), *(below.name.removeprefix(prefix) for prefix in PREFIXES))
        belongs = next((names[name] for name in candidates if name in names), None)
        if belongs is None:
            found.extra.append(path)
        else:
            files[belongs].append(path)
    for utterance in wanted:
        own = files.get(utterance, [])
        if len(own) > 1:
            found.twice[utterance] = own
        elif own:
            found.files[utterance] = own[0]
        else:
            found.missing.append(utterance)
    return found


def _audio_files(folder: Path) -> Iterator[Path]:
    for where, folders, files in os.walk(folder):
        folders.sort()
        yield from (Path(where, name) for name in sorted(files) if Path(name).suffix.lower() in SUFFIXES)


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
    if found.twice:
        first, files = next(iter(found.twice.items()))
        told = " and ".join(str(path) for path in files[:3])
        more = f" (and {len(found.twice) - 1} more utterances)" if len(found.twice) > 1 else ""
        raise RunError(f"{system.name}: {first!r} has {len(files)} files, {told}{more}: leave one of them")
    if not found.files:
        raise RunError(
            f"{system.name}: none of the {len(found.extra)} audio files below {folder} belongs to an utterance of "
            f"{cell.about['dataset']}, whose ids look like {utterances[0].id!r}: files are called by id, as "
            f"{utterances[0].id}.wav or gen_{utterances[0].id}.wav; is it the right --dataset?"
        )
    if found.extra:
        log.warning(
            "%s: %d files belong to no utterance and are left out: %s",
            system.name, len(found.extra), _listed(path.relative_to(folder).as_posix() for path in found.extra),
        )  # fmt: skip
    known = cell.folder.journal.rows()
    rows = []
    with context.reporting.bar(f"reading {system.name}", len(utterances)) as bar:
        for utterance in utterances:
            rows.append(_row(cell, utterance, found.files.get(utterance.id), known.get(utterance.id)))
            bar.advance()
    cell.folder.journal.replace(rows)
    unreadable = {
        row["id"]: row["reason"].removesuffix(NOTHING_SAID)
        for row in rows
        if row["status"] != "ok" and row["id"] in found.files
    }
    _refuse(system, found.missing, unreadable, len(utterances))


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
    sha256 = file_sha256(path)
    where = os.path.relpath(path, cell.folder.path)
    if known is not None and known.get("audio_sha256") == sha256 and known["status"] == "ok":
        return {**known, **row, "audio": where}
    try:
        notes = [f"recording {note}" for note in notes_of_file(path)]
        samples, rate = load_audio(path)
    except AudioError as error:
        return row | {"status": MISSING, "reason": f"{error}{NOTHING_SAID}", "notes": None}
    made = {"audio": where, "audio_sha256": sha256, "seconds": len(samples) / rate, "sample_rate": rate}
    return row | {"status": "ok", "reason": None, "notes": "; ".join(notes) or None, **made}


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
