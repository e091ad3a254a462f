"""Lists in the form of Seed-TTS-eval: ``utt|prompt_text|prompt_wav|text``, and a fifth field ``gt_wav`` where there is one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from imfbench.datasets.lists import LONGEST_ID, Complaints, id_problem, lines, path_problem, text_problem

__all__ = ["FIELDS", "LONGEST_ID", "ListRow", "read_list"]

FIELDS = ("utt", "prompt_text", "prompt_wav", "text", "gt_wav")


@dataclass(frozen=True, slots=True)
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
            empty id, prompt or text, an id that stands twice, an id or path that leaves the folder, a control character.
            Files are not opened.
    """
    rows: list[ListRow] = []
    wrong = Complaints(path)
    for number, line in lines(path):
        # Texts stay as they are inside the line, as the published scripts read them: some count a leading space.
        parts = [part if i in (1, 3) else part.strip() for i, part in enumerate(line.strip().split("|"))]
        if told := _problem(parts, fields):
            wrong.add(number, told)
        elif not wrong.twice(number, parts[0]):
            target = path.parent / parts[4] if len(parts) == 5 else None
            rows.append(ListRow(number, parts[0], parts[1], path.parent / parts[2], parts[3], target))
    wrong.end("" if rows else f"a line {'|'.join(FIELDS[: fields[-1]])}")
    return rows


def _problem(parts: list[str], fields: tuple[int, ...]) -> str:
    """What is wrong with a row's fields, in words; empty if nothing is."""
    if len(parts) not in fields:
        wanted = " or ".join(f"{n} ({'|'.join(FIELDS[:n])})" for n in fields)
        return f"{len(parts)} fields instead of {wanted}; no text may hold a |"
    found = [
        id_problem("utt", parts[0]),
        text_problem("prompt_text", parts[1], needed=False),
        path_problem("prompt_wav", parts[2]),
        text_problem("text", parts[3]),
        path_problem("gt_wav", parts[4]) if len(parts) == 5 else "",
    ]
    return next(filter(None, found), "")
