"""What lists of utterances have in common: how lines are read, and what no id, path or text may hold.

A byte order mark and Windows line ends are taken as they are (the published list of LibriSpeech-PC has them); everything else
that is wrong is told with file and line, all of it at once, before any work begins.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from imfbench.data import DatasetError

LONGEST_ID = 150
"""Bytes of an id, which names files."""
_TOLD = 8


class Complaints:
    """What is wrong with a list, gathered row by row.

    Args:
        path: The list.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._told: list[str] = []
        self._count = 0
        self._first: dict[str, int] = {}

    def add(self, line: int, told: str) -> None:
        """A row is wrong."""
        self._count += 1
        if len(self._told) < _TOLD:
            self._told.append(f"{self._path}, line {line}: {told}")

    def twice(self, line: int, name: str) -> bool:
        """Whether the id stands in an earlier line, which is then told."""
        first = self._first.setdefault(name, line)
        if first != line:
            self.add(line, f"the id {name!r} stands in line {first} already; give one of the two another id")
        return first != line

    def end(self, empty: str = "") -> None:
        """Raise if anything was wrong.

        Args:
            empty: What a row would look like, if the list has none.

        Raises:
            DatasetError: The first few wrong rows, and how many there are besides.
        """
        if self._told:
            further = self._count - len(self._told)
            raise DatasetError("\n".join([*self._told, *([f"… and {further} more such lines"] if further else [])]))
        if empty:
            raise DatasetError(f"{self._path} holds no rows; each is {empty}")


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a list that are not empty, without their ends, each with its number from 1.

    Raises:
        DatasetError: It cannot be read or is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            # Not Python's text mode: it would also end a line at a lone carriage return.
            for number, data in enumerate(file, 1):
                line = _decoded(path, number, data)
                if line.strip():
                    yield number, line
    except OSError as error:
        raise DatasetError(
            f"the list {path} cannot be read ({error.strerror}): is this the folder of the dataset?"
        ) from None


def _decoded(path: Path, number: int, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig" if number == 1 else "utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{path}, line {number}: not UTF-8 ({error.reason}); save the list in that encoding"
        ) from None


def id_problem(field: str, value: str) -> str:
    """Why an id cannot name files; empty if it can."""
    if told := path_problem(field, value):
        return told
    if "/" in value:
        return f"{field} {value!r} holds a /, but an id names one file; write another sign in its place"
    if len(value.encode()) > LONGEST_ID:
        return f"the id {value[:20]!r}… has more than {LONGEST_ID} bytes and cannot name a file; shorten it"
    return ""


def path_problem(field: str, value: str, below: Path | None = None) -> str:
    """Why a path is none below the folder of the list; empty if it is one. Links are the user's own and are followed.

    Args:
        field: Its column.
        value: As the list has it.
        below: A folder below which it may lie by an absolute path.
    """
    told = ""
    if not value:
        told = f"the field {field} is empty; fill it in, or remove the row"
    elif "\0" in value:
        told = f"{field} {value!r} holds a zero byte; remove it"
    elif "\\" in value or re.match("[A-Za-z]:/", value):
        told = f"{field} {value!r} is written as Windows writes paths; write it relative to the list's folder, with /"
    elif posixpath.isabs(value) and (below is None or not _is_below(value, below)):
        told = f"{field} {value!r} is absolute; write it relative to the list's folder"
    elif posixpath.normpath(value).split("/")[0] in ("..", "."):
        told = f"{field} {value!r} leaves the dataset's folder; move the file there and name it without '..'"
    return told or _control(field, value)


def _is_below(value: str, folder: Path) -> bool:
    # A relative folder is the user's too, and `..` in the path must not lead out of it.
    return Path(posixpath.normpath(value)).is_relative_to(posixpath.normpath(folder.absolute().as_posix()))


def text_problem(field: str, value: str, needed: bool = True) -> str:
    """Why a text cannot be said and compared; empty if it can. Markup is the text's own and is left as it is."""
    if needed and not value.strip():
        return f"the field {field} is empty; fill it in, or remove the row"
    return _control(field, value)


def _control(field: str, value: str) -> str:
    # Invisible, part of a word to every normaliser, and read by terminals; a tab is a space to all of them.
    found = re.search("[\x00-\x08\x0a-\x1f\x7f-\x9f]", value)
    if found is None:
        return ""
    place = found.start() + 1
    return f"{field} {value[:40]!r} holds the control character U+{ord(found[0]):04X} at place {place}; remove it"


def speaker_of(prompt_id: str) -> str:
    """Who speaks a prompt, by its name: the number before the first hyphen in LibriSpeech's and DiDiSpeech's names.

    Other names, such as Common Voice's, do not tell: each prompt then stands for a speaker of its own.
    """
    found = re.fullmatch(r"(\d+)(-\d+){1,2}", prompt_id)
    return found[1] if found else prompt_id


def language_of(text: str) -> str:
    """ "zh" for a text that holds a Chinese character, else "en"."""
    return "zh" if re.search("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]", text) else "en"
