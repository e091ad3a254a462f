"""Lists in the form of Seed-TTS-eval: ``utt|prompt_text|prompt_wav|text``, and a fifth field ``gt_wav`` where there is one.

A byte order mark and Windows line ends are taken as they are; everything else that is wrong is told with file and line, all of
it at once, before any work begins.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from pathlib import Path

from imfbench.data import DatasetError

FIELDS = ("utt", "prompt_text", "prompt_wav", "text", "gt_wav")
LONGEST_ID = 150
"""Bytes of an id, which names files."""
_TOLD = 8


@dataclass(frozen=True)
class ListRow:
    """A row of a list.

    Attributes:
        line: Its line, from 1.
        id: Unique in the list.
        prompt_text: What the prompt says; may be empty.
        prompt_audio: The prompt's recording, below the dataset's folder.
        text: What is to be said.
        target_audio: The recording of the text, if the list has the fifth field.
    """

    line: int
    id: str
    prompt_text: str
    prompt_audio: Path
    text: str
    target_audio: Path | None


def read_list(path: Path, fields: tuple[int, ...] = (4, 5)) -> list[ListRow]:
    """The rows of a list; paths in it are below its own folder.

    Args:
        path: The list.
        fields: How many fields a row may have.

    Raises:
        DatasetError: The list is not there, is not UTF-8 or is empty, or rows of it are wrong: too few or too many fields, an
            empty id, prompt or text, an id that stands twice, an id or path that leaves the folder. Files are not opened.
    """
    rows: list[ListRow] = []
    wrong: list[str] = []
    first: dict[str, int] = {}
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        parts = [part.strip() for part in line.split("|")]
        if told := _problem(parts, fields):
            wrong.append(f"{path}, line {number}: {told}")
            continue
        name = parts[0]
        if name in first:
            wrong.append(
                f"{path}, line {number}: the id {name!r} stands in line {first[name]} already; give one of the two another id"
            )
            continue
        first[name] = number
        target = path.parent / parts[4] if len(parts) == 5 else None
        rows.append(ListRow(number, name, parts[1], path.parent / parts[2], parts[3], target))
    if wrong:
        more = [f"… and {len(wrong) - _TOLD} more such lines"] if len(wrong) > _TOLD else []
        raise DatasetError("\n".join([*wrong[:_TOLD], *more]))
    if not rows:
        raise DatasetError(f"{path} holds no rows; each is a line {'|'.join(FIELDS[: fields[-1]])}")
    return rows


def _lines(path: Path) -> list[str]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DatasetError(
            f"the list {path} cannot be read ({error.strerror}): is this the folder of the dataset?"
        ) from None
    try:
        # Not splitlines(): it would also cut a text at characters such as U+2028.
        return data.decode("utf-8-sig").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DatasetError(f"{path}, line {line}: not UTF-8 ({error.reason}); save the list in that encoding") from None


def _problem(parts: list[str], fields: tuple[int, ...]) -> str:
    """What is wrong with a row's fields, in words; empty if nothing is."""
    if len(parts) not in fields:
        wanted = " or ".join(f"{n} ({'|'.join(FIELDS[:n])})" for n in fields)
        return f"{len(parts)} fields instead of {wanted}; no text may hold a |"
    for name, value in zip(FIELDS, parts, strict=False):
        if not value and name != "prompt_text":
            return f"the field {name} is empty; fill it in, or remove the row"
        if name in ("utt", "prompt_wav", "gt_wav") and (told := _outside(value)):
            return f"{name} {value!r} {told}"
    if len(parts[0].encode()) > LONGEST_ID:
        return f"the id {parts[0][:20]!r}… has more than {LONGEST_ID} bytes and cannot name a file; shorten it"
    return ""


def _outside(value: str) -> str:
    """Why a path is none below the folder of the list; empty if it is one. Links are the user's own and are followed."""
    if "\0" in value:
        return "holds a zero byte; remove it"
    if "\\" in value or re.match("[A-Za-z]:/", value):
        return "is written as Windows writes paths; write it relative to the list's folder, with /"
    if posixpath.isabs(value):
        return "is absolute; write it relative to the list's folder"
    if posixpath.normpath(value).split("/")[0] in ("..", "."):
        return "leaves the dataset's folder; move the file there and name it without '..'"
    return ""
