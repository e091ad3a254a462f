"""The lines of the embedded corpus' files, and what can be wrong with them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from imfbench.data import DatasetError

COPY = "copy the corpus again, `imfbench doctor` compares every file with its sha256"


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file of the corpus without their ends, each with its number from 1.

    Raises:
        DatasetError: It cannot be read, or a line is not UTF-8.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}): {COPY}") from None
    for number, line in enumerate(content.removesuffix(b"\n").split(b"\n"), 1):
        try:
            yield number, line.decode("utf-8").removesuffix("\r")
        except UnicodeDecodeError as error:
            raise DatasetError(f"{path}, line {number} is not UTF-8 ({error.reason}): {COPY}") from None


def row_problem(row: Any) -> str:
    """What is wrong with a row of alignments.jsonl, in words; empty if it can be used. Whether phones are known is not asked."""
    if not isinstance(row, dict) or not isinstance(row.get("id"), str):
        return "is no JSON object with an id"
    whose, phones, frames = f"(of {row['id']!r})", row.get("phones"), row.get("frames")
    if not isinstance(row.get("speaker"), str):
        return f"{whose} has no text as `speaker`"
    seconds = row.get("seconds")
    if not isinstance(seconds, int | float) or not 0 < seconds < float("inf"):
        return f"{whose} has no number above 0 as `seconds`"
    if not isinstance(phones, list) or not phones or not all(isinstance(phone, str) for phone in phones):
        return f"{whose} has no list of texts as `phones`"
    if (
        not isinstance(frames, list)
        or not all(type(count) is int and count >= 0 for count in frames)
        or not sum(frames)
    ):
        return f"{whose} has no list of whole numbers as `frames`"
    if len(phones) != len(frames):
        return f"{whose} has {len(phones)} `phones` and {len(frames)} `frames`, which must be as many"
    return ""
