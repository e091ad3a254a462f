"""Manifests of training speech: which recordings there are, what is said in them, by whom, and how long they are.

Four forms are read, told apart by name and content: cuts or recordings and supervisions of lhotse (``.jsonl``, ``.jsonl.gz``),
lines of JSON (Emilia's among them), a table (``.csv``, ``.tsv``), and what F5-TTS prepares (a folder with ``raw.arrow`` or
``raw/``). A cut that is one stretch of a file is read here; any other (mixed, transformed, from an archive or a command) is left
to the package lhotse.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imfbench.data import DatasetError

AUDIO = ("audio", "audio_path", "audio_filepath", "audio_file", "wav", "path")
TEXT = ("text", "sentence", "transcript")
SPEAKER = ("speaker", "speaker_id", "spk")
SECONDS = ("duration", "seconds", "dur")
ID = ("id", "utt", "key")
FORMS = (
    "lhotse's cuts, or recordings with `supervisions` (.jsonl, .jsonl.gz); lines of JSON or a table (.csv, .tsv) with "
    f"{', '.join((AUDIO[0], TEXT[0], SPEAKER[0], SECONDS[0]))}; or a folder with F5-TTS's raw.arrow"
)
SHOWN = 8


@dataclass(frozen=True, slots=True)
class Row:
    """A stretch of speech.

    Attributes:
        id: Its name, unique in its manifest.
        text: What is said; characters and syllables where F5-TTS's preparation has converted it already.
        speaker: Who says it; empty where the manifest does not tell.
        seconds: How long it is; None where the manifest does not tell.
        audio: The file; None for a cut that lhotse is to load.
        start: Where in the file it begins, in seconds.
        channel: Of the file; None is the mean of all.
        whole: Whether it is all of the file, whose length is then to be what the manifest says.
        cut: lhotse's own description, for lhotse to load.
    """

    id: str
    text: str | tuple[str, ...]
    speaker: str
    seconds: float | None
    audio: Path | None
    start: float = 0.0
    channel: int | None = None
    whole: bool = False
    cut: Mapping[str, Any] | None = None


def read_rows(
    manifests: Sequence[Path], supervisions: Sequence[Path] = (), audio_root: Path | None = None
) -> list[Row]:
    """The rows of manifests, in their order.

    Args:
        manifests: Files, or folders that F5-TTS prepared.
        supervisions: lhotse's texts of recordings, where ``manifests`` are such.
        audio_root: What paths are relative to; each manifest's own folder without it.

    Raises:
        DatasetError: One is missing or empty, or cannot be read; the message names the file and the line.
    """
    told = _Told()
    texts: dict[str, list[dict[str, Any]]] = {}
    for path in supervisions:
        for number, line in _json_lines(_there(path), told):
            if told.lacks(path, number, line, "recording_id", "text", "duration"):
                continue
            texts.setdefault(str(line["recording_id"]), []).append(line)
    rows: list[Row] = []
    for path in manifests:
        found = _rows(_there(path), texts, bool(supervisions), audio_root, told)
        rows += _unique(path, found, told)
    told.end()
    if not rows:
        names = ", ".join(map(str, manifests))
        raise DatasetError(
            f"{names} holds no speech with a text: a manifest is {FORMS}. Recordings of lhotse need `supervisions`"
        )
    return rows


class _Told:
    """What is wrong with manifests, gathered so that all of it is told at once."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.count = 0

    def add(self, path: Path, number: int, told: str) -> None:
        self.count += 1
        if len(self.lines) < SHOWN:
            self.lines.append(f"{path}, line {number}: {told}")

    def lacks(self, path: Path, number: int, line: Mapping[str, Any], *keys: str) -> bool:
        lacking = [key for key in keys if line.get(key) is None]
        if lacking:
            self.add(path, number, f"it has no {' and no '.join(lacking)}, but {', '.join(list(line)[:SHOWN])}")
        return bool(lacking)

    def end(self) -> None:
        if self.lines:
            further = self.count - len(self.lines)
            more = [f"… and {further} more such lines"] if further else []
            raise DatasetError(
                "\n".join([*self.lines, *more, f"Mend these lines or remove them; a manifest is {FORMS}"])
            )


def _there(path: Path) -> Path:
    if not path.exists():
        raise DatasetError(
            f"there is no manifest {path}: correct the option `manifest` (or `supervisions`), or prepare the data as "
            f"docs/paper_experiments.md says. It is {FORMS}"
        )
    return path


def _rows(
    path: Path, texts: Mapping[str, list[dict[str, Any]]], supervised: bool, root: Path | None, told: _Told
) -> Iterator[Row]:
    if path.is_dir() or path.suffix == ".arrow":
        yield from _prepared(path, root)
    elif path.suffix in (".csv", ".tsv"):
        yield from _table(path, root, told)
    else:
        for number, line in _json_lines(path, told):
            base = root or path.parent
            if line.get("type", "").endswith("Cut"):
                yield from _cut(path, number, line, base, told)
            elif "sources" in line:
                if supervised:
                    yield from _recorded(line, texts.get(str(line.get("id")), []), base)
                else:
                    told.add(path, number, "it is a recording of lhotse without a text: give `supervisions` as well")
            elif (row := _plain(path, number, line, base, told)) is not None:
                yield row


def _unique(path: Path, rows: Iterator[Row], told: _Told) -> Iterator[Row]:
    seen: set[str] = set()
    for number, row in enumerate(rows, 1):
        if row.id in seen:
            told.add(path, number, f"the id {row.id!r} is given twice; give one of the two another")
        seen.add(row.id)
        yield row


def _json_lines(path: Path, told: _Told) -> Iterator[tuple[int, dict[str, Any]]]:
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8") as file:  # type: ignore[operator]
            for number, text in enumerate(file, 1):
                if not text.strip():
                    continue
                try:
                    line = json.loads(text)
                except ValueError as error:
                    told.add(path, number, f"not JSON ({error})")
                    continue
                if isinstance(line, dict):
                    yield number, line
                else:
                    told.add(path, number, f"a {type(line).__name__}, not a mapping of keys to values")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DatasetError(
            f"the manifest {path} cannot be read ({type(error).__name__}: {error}): it was cut short, or is of another form. "
            f"It is {FORMS}"
        ) from None


def _plain(path: Path, number: int, line: Mapping[str, Any], base: Path, told: _Told) -> Row | None:
    """A row that names its audio itself; ``start`` and ``speaker`` where it has them."""
    audio, text = _of(line, AUDIO), _of(line, TEXT)
    if audio is None or text is None:
        lacking = " and no ".join(name for name, value in (("audio", audio), ("text", text)) if value is None)
        told.add(path, number, f"it has no {lacking}, but {', '.join(map(str, list(line)[:SHOWN]))}")
        return None
    seconds = _of(line, SECONDS)
    try:
        length = None if seconds in (None, "") else float(seconds)
        start = float(line.get("start") or 0)
    except (TypeError, ValueError):
        told.add(path, number, f"its length {seconds!r} or start {line.get('start')!r} is no number of seconds")
        return None
    return Row(
        str(_of(line, ID) or audio),
        tuple(map(str, text)) if isinstance(text, list) else str(text),
        str(_of(line, SPEAKER) or ""),
        length,
        _below(base, str(audio)),
        start,
        whole=line.get("start") in (None, ""),
    )


def _table(path: Path, root: Path | None, told: _Told) -> Iterator[Row]:
    from imfbench.datasets.lists import lines  # plain lines, a byte order mark or not

    numbered = lines(path)
    _, first = next(numbered, (0, ""))
    between = max(",;\t|", key=first.count)
    columns = [column.strip() for column in next(csv.reader([first], delimiter=between), [])]
    for number, text in numbered:
        fields = next(csv.reader([text], delimiter=between), [])
        if len(fields) != len(columns):
            told.add(path, number, f"{len(fields)} fields instead of {len(columns)} ({', '.join(columns)})")
            continue
        row = _plain(path, number, dict(zip(columns, fields, strict=True)), root or path.parent, told)
        if row is not None:
            yield row


def _prepared(path: Path, root: Path | None) -> Iterator[Row]:
    """What F5-TTS's ``prepare_*.py`` left: Arrow's stream of audio_path, text and duration."""
    import pyarrow

    files = [path] if path.is_file() else [path / "raw.arrow"]
    if not files[0].is_file():
        files = sorted((path / "raw").glob("*.arrow"))
    if not files:
        mels = path / "mel.arrow"
        told = "holds no raw.arrow"
        if mels.is_file():
            told = "holds mel.arrow, mels of one fixed format, while mels are made here in the network's own, but no raw.arrow"
        raise DatasetError(f"{path} {told}: give a folder that F5-TTS's prepare_*.py made of recordings, or {FORMS}")
    base = root or path.parent
    for file in files:
        try:
            with pyarrow.memory_map(str(file)) as source, pyarrow.ipc.open_stream(source) as stream:
                for batch in stream:
                    for line in batch.to_pylist():
                        text = line["text"]
                        yield Row(
                            str(line["audio_path"]),
                            tuple(text) if isinstance(text, list) else str(text),
                            str(_of(line, SPEAKER) or ""),
                            float(line["duration"]),
                            _below(base, str(line["audio_path"])),
                            whole=True,
                        )
        except (OSError, KeyError, pyarrow.ArrowInvalid) as error:
            raise DatasetError(
                f"{file} cannot be read as F5-TTS's prepared data ({type(error).__name__}: {error}): it has the columns "
                "audio_path, text and duration; prepare it again"
            ) from None


def _cut(path: Path, number: int, cut: dict[str, Any], base: Path, told: _Told) -> Iterator[Row]:
    """A row for each supervision of a cut, whose times are relative to the cut's beginning."""
    if told.lacks(path, number, cut, "id"):
        return
    spoken = list(_of_tracks(cut) if cut["type"] == "MixedCut" else cut.get("supervisions") or [])
    source = _file_of(cut.get("recording"), base) if cut["type"] == "MonoCut" else None
    names = [supervision.get("id") for supervision in spoken]  # those of a mixture may be the same
    for k, supervision in enumerate(spoken):  # none: silence or noise, nothing to learn from
        name = str(cut["id"])
        if len(spoken) > 1:
            name += f"-{supervision['id'] if len(set(names)) == len(names) else k}"
        at, length = float(supervision.get("start") or 0), float(supervision.get("duration") or 0)
        if source is None:
            stretch = {**cut, "imfbench": [at, length]}
            text, speaker = str(supervision.get("text") or ""), str(supervision.get("speaker") or "")
            yield Row(name, text, speaker, length, None, cut=stretch)
            continue
        channel = cut.get("channel")
        yield Row(
            name,
            str(supervision.get("text") or ""),
            str(supervision.get("speaker") or ""),
            length,
            source,
            float(cut.get("start") or 0) + at,
            channel if isinstance(channel, int) else None,
        )


def _of_tracks(cut: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Supervisions of a mixed cut: each track's, moved by where the track begins."""
    for track in cut.get("tracks", ()):
        for supervision in track.get("cut", {}).get("supervisions") or []:
            yield {**supervision, "start": float(supervision["start"]) + float(track.get("offset") or 0)}


def _recorded(recording: dict[str, Any], supervisions: Sequence[Mapping[str, Any]], base: Path) -> Iterator[Row]:
    source = _file_of(recording, base)
    for supervision in supervisions:
        at, length = float(supervision.get("start") or 0), float(supervision["duration"])
        name, text = str(supervision.get("id") or recording["id"]), str(supervision.get("text") or "")
        channel = supervision.get("channel", 0)
        cut = None
        if source is None:
            cut = {
                "id": name, "start": 0.0, "duration": recording["duration"], "channel": channel, "supervisions": [],
                "recording": recording, "type": "MonoCut", "imfbench": [at, length],
            }  # fmt: skip
        one = channel if isinstance(channel, int) else None
        yield Row(name, text, str(supervision.get("speaker") or ""), length, source, at, one, cut=cut)


def _file_of(recording: Any, base: Path) -> Path | None:
    """The one file that a recording of lhotse is, untransformed; None if it is anything else."""
    if not isinstance(recording, Mapping) or recording.get("transforms"):
        return None
    sources = recording.get("sources") or []
    if len(sources) != 1 or sources[0].get("type") != "file":
        return None
    return _below(base, str(sources[0]["source"]))


def _below(base: Path, path: str) -> Path:
    """Written absolutely, or relative to ``base``."""
    return base / Path(path).expanduser()


def _of(line: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((line[name] for name in names if line.get(name) not in (None, "")), None)
