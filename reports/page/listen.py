"""What can be listened to: for each chosen utterance its prompt, its recordings and every row's speech, within a size budget."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from imfbench.data import Utterance
from imfbench.devices import available_cores
from imfbench.features.audio_check import AudioError
from imfbench.reports.columns import Quality, qualities
from imfbench.reports.grouping import labels
from imfbench.reports.page.audio import opus
from imfbench.reports.page.choose import choose
from imfbench.reports.page.sources import Prompts, Source, Table
from imfbench.reports.page.spectrograms import spectrogram
from imfbench.reports.page.words import edits
from imfbench.reports.results import Cell


@dataclass
class Media:
    """Sound and pictures, each content once, within a budget.

    Attributes:
        embed: As data in the page, or as files beside it.
        budget: Bytes, as they stand in the page or in the files.
        kilobits: Bit rate of the sound.
        places: What a page refers to by index: data URLs, or paths from the page.
        files: Name → bytes of the files beside the page.
        used: Bytes that are taken.
    """

    embed: bool
    budget: float
    kilobits: int
    places: list[str] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    used: int = 0
    _known: dict[str, tuple[int, int, float]] = field(default_factory=dict)

    def take(self, wanted: dict[str, Path]) -> dict[str, tuple[int, int, float] | str]:
        """Sound, spectrogram and seconds of all these files, or of none of them if the budget does not allow all.

        Args:
            wanted: Content (its hash, or whatever stands for it) → file.

        Returns:
            Content → indices of sound and spectrogram and the length in seconds, or why there is none.
        """
        found: dict[str, tuple[int, int, float] | str] = {}
        made: dict[str, tuple[bytes, bytes, float]] = {}
        unknown = {content: path for content, path in wanted.items() if content not in self._known}
        found |= {content: self._known[content] for content in wanted if content in self._known}
        with ThreadPoolExecutor(available_cores()) as pool:
            for content, one in zip(unknown, pool.map(self._made, unknown.values()), strict=True):
                if isinstance(one, str):
                    found[content] = one
                else:
                    made[content] = one
        size = sum(self._size(len(sound)) + self._size(len(image)) for sound, image, _ in made.values())
        if self.used + size > self.budget:
            told = f"left out: sound and spectrograms may take {self.budget / 1e6:g} MB in all"
            return dict.fromkeys(wanted, told)
        self.used += size
        for content, (sound, image, seconds) in made.items():
            here = self._add(sound, "audio/ogg", "opus"), self._add(image, "image/png", "png"), seconds
            found[content] = self._known[content] = here
        return found

    def _made(self, path: Path) -> tuple[bytes, bytes, float] | str:
        try:
            sound, seconds = opus(path, self.kilobits)
            return sound, spectrogram(path), seconds
        except (AudioError, ValueError) as error:
            return str(error).replace(f"{path}", path.name)

    def _size(self, length: int) -> int:
        return 4 * ((length + 2) // 3) if self.embed else length

    def _add(self, data: bytes, kind: str, ending: str) -> int:
        if self.embed:
            self.places.append(f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}")
        else:
            name = f"{len(self.places):04d}.{ending}"
            self.files[name] = data
            self.places.append(f"media/{name}")
        return len(self.places) - 1


def listening(source: Source, media: Media, number: int, seed: int) -> list[dict[str, Any]]:
    """The listening page's data: a table each, with its rows, scores and chosen utterances.

    The first utterances of all tables come first into the budget.
    """
    prompts = Prompts()
    tables = [t for t in source.tables if any(c.utterances is not None for c in t.group.cells)]
    found = [_table(table) for table in tables]
    chosen = [choose(table.group.cells, number, seed) for table in tables]
    order = [list(one) for one in chosen]
    made: dict[tuple[int, str], dict[str, Any]] = {}
    for place in range(max(map(len, order), default=0)):
        for i, table in enumerate(tables):
            if place < len(order[i]):
                utterance = order[i][place]
                made[i, utterance] = _utterance(table, utterance, chosen[i][utterance], media, prompts)
    for i, entry in enumerate(found):
        entry["utterances"] = [made[i, utterance] for utterance in order[i]]
    return found


def _table(table: Table) -> dict[str, Any]:
    names = labels(table.group.cells)
    rows = []
    for cell in _cells(table):
        nfe, key = cell.value("nfe"), str(cell.row["key"])
        name = names[key] + ("" if nfe is None else f", {nfe:g} NFE")
        rows.append({"key": key, "name": name, "system": cell.system, "nfe": nfe, "reference": cell.reference})
    figures = [[q.name, q.title + (f" {q.unit}" if q.unit else ""), q.scale, q.decimals] for q in _figures(table)]
    return {"title": table.group.title, "rows": rows, "figures": figures}


def _cells(table: Table) -> list[Cell]:
    return [cell for cell in table.group.cells if not cell.reported]


def _figures(table: Table) -> list[Quality]:
    tables = [c.utterances for c in table.group.cells if c.utterances is not None]
    return [q for q in qualities([c.row for c in table.group.cells]) if any(q.per_utterance in t for t in tables)]


def _utterance(table: Table, name: str, why: list[str], media: Media, prompts: Prompts) -> dict[str, Any]:
    cells = _cells(table)
    rows = [_row_of(cell, name) for cell in cells]
    first = next(row for row in rows if row is not None)
    prompt = next((p for c in cells if isinstance(p := prompts.of(c, name), Utterance)), None)
    prompt_missing = "" if prompt else str(prompts.of(cells[0], name))
    wanted: dict[str, Path] = {}
    reasons: list[str] = []
    contents: list[str] = []
    for cell, row in zip(cells, rows, strict=True):
        path, reason = _file(cell, row)
        content = "" if path is None or row is None else str(row.get("audio_sha256") or path)
        if path is not None:
            wanted[content] = path
        contents.append(content)
        reasons.append(reason)
    if prompt is not None:
        wanted[f"prompt:{prompt.prompt_audio}"] = prompt.prompt_audio
    taken = media.take(wanted)
    samples = []
    for cell, row, content, reason in zip(cells, rows, contents, reasons, strict=True):
        samples.append(_sample(table, cell, row, taken.get(content, reason)))
    return {
        "id": name,
        "text": _text(first, "text"),
        "speaker": _text(first, "speaker"),
        "why": why,
        "prompt": _prompt(prompt, prompt_missing, taken),
        "samples": samples,
    }


def _prompt(prompt: Utterance | None, missing: str, taken: dict[str, Any]) -> dict[str, Any]:
    if prompt is None:
        return {"missing": f"the prompt is not known: {missing}"}
    return {"text": prompt.prompt_text, **_place(taken[f"prompt:{prompt.prompt_audio}"])}


def _place(found: tuple[int, int, float] | str) -> dict[str, Any]:
    if isinstance(found, str):
        return {"missing": found}
    return {"sound": found[0], "image": found[1], "seconds": round(found[2], 3)}


def _sample(
    table: Table, cell: Cell, row: dict[str, Any] | None, found: tuple[int, int, float] | str
) -> dict[str, Any]:
    if row is None:
        return {"missing": "this row has no such utterance", "scores": [], "words": []}
    scores = [_number(row.get(q.per_utterance)) for q in _figures(table)]
    words = edits(row.get("reference_normalised"), row.get("hypothesis_normalised"))
    shown = [word if kind == "ok" else [kind, word, heard] for kind, word, heard in words]
    return {
        **_place(found),
        "scores": scores,
        "words": shown,
        "said": _text(row, "hypothesis"),
        "note": _text(row, "notes"),
    }


def _row_of(cell: Cell, utterance: str) -> dict[str, Any] | None:
    if cell.utterances is None:
        return None
    rows = cell.utterances[cell.utterances["id"].astype(str) == utterance]
    return None if rows.empty else {str(key): value for key, value in rows.iloc[0].to_dict().items()}


def _file(cell: Cell, row: dict[str, Any] | None) -> tuple[Path | None, str]:
    """An utterance's audio file, or why there is none."""
    if row is None:
        status = str(cell.row["status"])
        return None, "this row has no such utterance" if status == "ok" else status
    if row.get("status", "ok") != "ok":
        return None, f"{row['status']}: {_text(row, 'reason') or 'no reason is on record'}"
    if cell.folder is None or not _text(row, "audio"):
        return None, "the run kept no audio of it"
    path = cell.folder / str(row["audio"])
    return (path, "") if path.is_file() else (None, f"the audio file {path.name} is not here")


def _text(row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    return value if isinstance(value, str) else ""


def _number(value: Any) -> float | None:
    return None if value is None or isinstance(value, str) or pd.isna(value) else round(float(value), 4)
