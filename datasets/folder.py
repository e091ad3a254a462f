"""A folder with a csv: texts, prompts and recordings of one's own."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

from imfbench.data import DatasetCard, DatasetError, SetCard, Utterance
from imfbench.datasets.listed import ListedSet, Task
from imfbench.datasets.lists import (
    Complaints,
    id_problem,
    language_of,
    lines,
    path_problem,
    speaker_of,
    text_problem,
)

NEEDED = ("id", "text", "prompt_audio")
FURTHER = ("prompt_text", "target_audio", "speaker", "language", "seconds")


class CsvFolder(ListedSet):
    """A folder with test.csv: columns id, text, prompt_audio; prompt_text, target_audio, speaker, language where known.

    The first line names the columns, in any order; between fields stands a comma, a semicolon or a tab, whichever the first line
    has. A field in quotation marks may hold it, two of them in such a field stand for one. ``seconds`` may tell the recording's
    length. Other columns are ignored. Another set is another file, ``dev.csv`` the set "dev".

    Args:
        root: The folder; paths of recordings are below it.
        language: Of all rows without a column for it; otherwise a row that holds a Chinese character is Chinese.
        task: Whose conditions are asked for.
        features: token2mel: a folder of S3 tokens and speaker vectors by id; see ``ListedSet``.
    """

    name: ClassVar[str] = "folder"
    card: ClassVar[DatasetCard] = DatasetCard(
        sets={"test": SetCard(None, "en, zh")},
        licence="your own",
        source="your own",
        layout="test.csv and the recordings that it names",
    )

    def __init__(
        self,
        root: str | Path,
        language: Literal["en", "zh"] | None = None,
        task: Task = "token2mel",
        features: str | Path | None = None,
    ) -> None:
        super().__init__(root, task, features)
        self.language = language

    @property
    def sets(self) -> list[str]:
        """The names of the csv files."""
        return sorted((path.stem for path in self.root.glob("*.csv")), key=lambda name: (name != "test", name))

    def read(self, split: str) -> list[Utterance]:
        """The utterances of ``<split>.csv``.

        Raises:
            DatasetError: It is not there or lacks columns, or rows of it are wrong.
        """
        path = self.root / f"{split}.csv"
        wrong = Complaints(path)
        prompts: dict[str, Path] = {}
        found = []
        for number, row in _rows(path, wrong):
            row = {column: value.strip() for column, value in row.items()}
            if told := _problem(row):
                wrong.add(number, told)
                continue
            if wrong.twice(number, row["id"]):
                continue
            prompt = prompts.setdefault(row["prompt_audio"], self.root / row["prompt_audio"])
            target, seconds = row.get("target_audio"), row.get("seconds")
            utterance = Utterance(
                id=row["id"],
                text=row["text"],
                language=row.get("language") or self.language or language_of(row["text"]),
                speaker=row.get("speaker") or speaker_of(prompt.stem),
                prompt_id=prompt.stem,
                prompt_text=row.get("prompt_text", ""),
                prompt_audio=prompt,
                target_audio=self.root / target if target else None,
                seconds=float(seconds) if seconds else None,
            )
            found.append(self.listed(utterance, path, number))
        wrong.end("" if found else f"a line with {', '.join(NEEDED)} and what else is known")
        return found


def _rows(path: Path, wrong: Complaints) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a csv below its first line, each with the number of its last line."""
    numbered = lines(path)
    number, first = next(numbered, (0, ""))
    if not number:
        raise DatasetError(f"{path} is empty; its first line names the columns {', '.join([*NEEDED, *FURTHER])}")
    between = max(",;\t", key=first.count)
    columns = [column.strip() for column in next(csv.reader([first], delimiter=between))]
    lacking = [column for column in NEEDED if column not in columns]
    if lacking or len(set(columns)) < len(columns):
        told = f"lacks {', '.join(lacking)}" if lacking else "names a column twice"
        raise DatasetError(f"{path}, line {number}: the first line {told}; it has {', '.join(columns)}")
    for number, line in numbered:
        # Line by line: a quotation mark that is never closed costs its own row, not all that follow.
        try:
            fields = next(csv.reader([line], delimiter=between, strict=True))
        except csv.Error as error:
            wrong.add(number, f"{error}; close the quotation mark, and keep each row in one line")
            continue
        if len(fields) != len(columns):
            told = f"{len(fields)} fields instead of {len(columns)} ({', '.join(columns)})"
            wrong.add(number, f"{told}; put a text that holds a {between!r} between quotation marks")
            continue
        yield number, dict(zip(columns, fields, strict=True))


def _problem(row: dict[str, str]) -> str:
    """What is wrong with a row's fields, in words; empty if nothing is."""
    told = id_problem("id", row["id"]) or path_problem("prompt_audio", row["prompt_audio"])
    told = (
        told
        or text_problem("text", row["text"])
        or text_problem("prompt_text", row.get("prompt_text", ""), needed=False)
    )
    told = told or text_problem("speaker", row.get("speaker", ""), needed=False)
    if not told and row.get("target_audio"):
        told = path_problem("target_audio", row["target_audio"])
    if not told and row.get("language", "") not in ("", "en", "zh"):
        told = f"the language {row['language']!r} is neither en nor zh"
    if not told and not re.fullmatch(r"(\d+(\.\d+)?)?", row.get("seconds", "")):
        told = f"seconds {row['seconds']!r} is no length in seconds"
    return told
