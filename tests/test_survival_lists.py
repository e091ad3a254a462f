"""Lists and folders of datasets: what is wrong is told with file and line before any work begins, and all of it at once."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imfbench.data import DatasetError
from imfbench.datasets.demo.corpus import DemoCorpus
from imfbench.datasets.seed_tts_list import read_list

GOOD = "a-1|He said so.|prompts/a.wav|What is it?|wavs/a-1.wav"


@pytest.fixture
def written(tmp_path: Path):  # type: ignore[no-untyped-def]
    def _write(content: str | bytes) -> Path:
        path = tmp_path / "meta.lst"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return _write


def complaint(path: Path, **options: Any) -> str:
    with pytest.raises(DatasetError) as error:
        read_list(path, **options)
    return str(error.value)


def test_a_list_of_five_fields_or_four(written) -> None:  # type: ignore[no-untyped-def]
    path = written(f"{GOOD}\na-2||prompts/a.wav|Nothing.\n")
    five, four = read_list(path)
    assert (five.line, five.id, five.prompt_text, five.text) == (1, "a-1", "He said so.", "What is it?")
    assert five.prompt_audio == path.parent / "prompts" / "a.wav"
    assert five.target_audio == path.parent / "wavs" / "a-1.wav"
    assert (four.line, four.prompt_text, four.target_audio) == (2, "", None)


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + GOOD.encode(),
        GOOD.encode() + b"\r\n",
        b"\xef\xbb\xbf" + GOOD.encode() + b"\r\n\r\n",
        b"\n" + GOOD.encode() + b"\n\n",
    ],
    ids=["byte order mark", "Windows line ends", "both", "empty lines"],
)
def test_marks_and_line_ends_of_other_systems_are_accepted(written, content: bytes) -> None:  # type: ignore[no-untyped-def]
    (row,) = read_list(written(content))
    assert (row.id, row.text) == ("a-1", "What is it?")
    assert str(row.target_audio).endswith("wavs/a-1.wav")


def test_a_text_may_hold_what_python_takes_for_a_line_end(written) -> None:  # type: ignore[no-untyped-def]
    (row,) = read_list(written(GOOD.replace("What is", "What\u2028is")))
    assert row.text == "What\u2028is it?"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("a-2|text|prompts/a.wav", "3 fields instead of 4 (utt|prompt_text|prompt_wav|text) or 5"),
        (GOOD + "|more", "6 fields instead of 4"),
        ("a-2 text prompts/a.wav", "1 fields instead of"),
        ("|x|prompts/a.wav|What?", "the field utt is empty"),
        ("a-2|x||What?", "the field prompt_wav is empty"),
        ("a-2|x|prompts/a.wav|  ", "the field text is empty; fill it in, or remove the row"),
        ("a-2|x|prompts/a.wav|What?|", "the field gt_wav is empty"),
        ("a-1|x|prompts/a.wav|What?", "the id 'a-1' stands in line 1 already"),
        ("../a|x|prompts/a.wav|What?", "utt '../a' leaves the dataset's folder"),
        ("/etc/passwd|x|prompts/a.wav|What?", "utt '/etc/passwd' is absolute"),
        ("a-2|x|../../secret.wav|What?", "prompt_wav '../../secret.wav' leaves the dataset's folder"),
        ("a-2|x|a/../../b.wav|What?", "leaves the dataset's folder"),
        ("a-2|x|/data/a.wav|What?", "prompt_wav '/data/a.wav' is absolute; write it relative to the list's folder"),
        ("a-2|x|prompts\\a.wav|What?", "as Windows writes paths"),
        ("a-2|x|C:/a.wav|What?", "as Windows writes paths"),
        ("a-2|x|prompts/a.wav|What?|../a.wav", "gt_wav '../a.wav' leaves"),
        ("a-2|x|a\0.wav|What?", "zero byte"),
        (f"{'ä' * 80}|x|prompts/a.wav|What?", "more than 150 bytes"),
    ],
)
def test_a_wrong_row_is_told_with_file_and_line(written, row: str, words: str) -> None:  # type: ignore[no-untyped-def]
    path = written(f"{GOOD}\n{row}\n")
    told = complaint(path)
    assert words in told
    assert told.startswith(f"{path}, line 2: ")


def test_all_wrong_rows_are_told_at_once_but_not_a_thousand(written) -> None:  # type: ignore[no-untyped-def]
    path = written("\n".join([GOOD, *(f"b-{i}|x" for i in range(30))]))
    told = complaint(path).splitlines()
    assert [line.partition(":")[0] for line in told[:8]] == [f"{path}, line {n}" for n in range(2, 10)]
    assert told[8:] == ["… and 22 more such lines"]


def test_files_that_are_no_lists(written, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert "holds no rows" in complaint(written("\n\r\n"))
    told = complaint(written(f"{GOOD}\na-2|x|y|".encode() + b"\xe9t\xe9\n"))
    assert "meta.lst, line 2: not UTF-8" in told
    assert "cannot be read (No such file" in complaint(tmp_path / "none.lst")
    assert "5 (utt|prompt_text|prompt_wav|text|gt_wav)" in complaint(written("a|b|c|d\n"), fields=(5,))


# --- the same by the command line: exit code 2, nothing begun ---------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("|", "", 1), "4 fields instead of 5"),
        (lambda text: text + text.splitlines()[0] + "\n", "line 4: the id 'test-af_sarah-000' stands in line 1 already"),
        (lambda text: text.replace("test-af_sarah-001|", "test-af_sarah-9|"), "holds no phones of 'test-af_sarah-9'"),
        (lambda text: text.replace("prompt-af_sarah-001.", "prompt-x."), "holds no phones of 'prompt-x'"),
        (lambda text: text.replace("prompts/", "../prompts/", 1), "line 1: prompt_wav '../prompts/prompt-af_sarah-000.flac'"),
    ],
)  # fmt: skip
def test_a_run_on_a_wrong_list_is_refused_with_its_line(tiny, change, words: str) -> None:  # type: ignore[no-untyped-def]
    root = tiny.corpus()
    path = root / "test" / "meta.lst"
    path.write_text(change(path.read_text()))
    told = tiny.refused(tiny.config(dataset={"options": {"root": str(root)}}))
    assert f"{path}, line " in told
    assert words in told
    assert not (tiny.out / "cells").exists()


def test_a_run_takes_a_list_from_windows(tiny) -> None:  # type: ignore[no-untyped-def]
    root = tiny.corpus()
    path = root / "test" / "meta.lst"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    config = tiny.config(dataset={"options": {"root": str(root)}}, references=["ground-truth"], systems=[])
    assert tiny.invoke(config, command="synthesize").exit_code == 0
    assert tiny.invoke(config, command="score").exit_code == 0
    (table,) = tiny.tables().values()
    assert list(table.index) == [f"test-af_sarah-00{i}" for i in range(3)]
    assert set(table["status"]) == {"ok"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": "tets"}, "no split 'tets': did you mean 'test'?"),
        ({"options": {"root": "nowhere"}}, "nowhere is no folder of the demo corpus"),
        ({"options": {"extra": "nowhere"}}, "nowhere holds no further training speech: correct the option `extra`"),
    ],
)
def test_a_dataset_that_is_not_there_is_refused(tiny, options: dict[str, Any], words: str) -> None:  # type: ignore[no-untyped-def]
    assert words in tiny.refused(tiny.config(dataset=options))


def without(row: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != key}


DAMAGED_ROWS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no id": (lambda row: without(row, "id"), "is no JSON object with an id"),
    "no object": (lambda row: [row], "is no JSON object with an id"),
    "no speaker": (lambda row: without(row, "speaker"), "(of {id!r}) has no text as `speaker`"),
    "no seconds": (lambda row: without(row, "seconds"), "(of {id!r}) has no number above 0 as `seconds`"),
    "no number": (lambda row: row | {"seconds": "4.2"}, "(of {id!r}) has no number above 0 as `seconds`"),
    "no phones": (lambda row: without(row, "phones"), "(of {id!r}) has no list of texts as `phones`"),
    "no frames": (lambda row: without(row, "frames"), "(of {id!r}) has no list of whole numbers as `frames`"),
    "half frames": (
        lambda row: row | {"frames": [0.5] * len(row["frames"])},
        "(of {id!r}) has no list of whole numbers as `frames`",
    ),
    "a frame too few": (lambda row: row | {"frames": row["frames"][1:]}, " `frames`, which must be as many"),
}


@pytest.mark.parametrize("kind", DAMAGED_ROWS)
def test_a_damaged_row_of_the_alignments_is_told_with_its_line(tiny, kind: str) -> None:  # type: ignore[no-untyped-def]
    damage, words = DAMAGED_ROWS[kind]
    root = tiny.corpus()
    path = root / "test" / "alignments.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    row = json.loads(lines[4])
    lines[4] = json.dumps(damage(row))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(DatasetError) as error:
        DemoCorpus(root).utterances("test")
    told = str(error.value)
    assert told.startswith(f"{path}, line 5 ")
    assert words.format(id=row["id"]) in told
    assert told.endswith("copy the corpus again, `imfbench doctor` compares every file with its sha256")


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("test/alignments.jsonl", lambda lines: [*lines[:-1], lines[-1][:-40]], "line {last} is no JSON object with an id"),
        ("test/alignments.jsonl", lambda lines: [b"\xff" + lines[0], *lines[1:]], "line 1 is not UTF-8 (invalid start byte)"),
        ("test/alignments.jsonl", lambda lines: [re.sub(b'"seconds": [0-9.]+, ', b"", lines[0]), *lines[1:]], "as `seconds`"),
        ("phones.txt", lambda lines: [*lines[:2], b"\xff", *lines[3:]], "line 3 is not UTF-8 (invalid start byte)"),
        ("phones.txt", lambda lines: [*lines[:2], lines[1], *lines[2:]], "line 3 is a phone again"),
        ("phones.txt", lambda lines: [*lines[:2], b"", *lines[2:]], "line 3 is empty"),
    ],
)  # fmt: skip
def test_damaged_alignments_and_phones_are_told_with_their_line(tiny, name: str, damage, words: str) -> None:  # type: ignore[no-untyped-def]
    root = tiny.corpus()
    path = root / name
    lines = path.read_bytes().removesuffix(b"\n").split(b"\n")
    damaged = damage(lines)
    assert damaged != lines
    path.write_bytes(b"\n".join(damaged) + b"\n")
    told = tiny.refused(tiny.config(dataset={"options": {"root": str(root)}}))
    assert f"{path}, line " in told
    assert words.format(last=len(lines)) in told
    assert "copy the corpus again" in told
    assert not (tiny.out / "cells").exists()


def test_a_corpus_with_the_line_ends_of_windows_has_the_same_phones(tiny) -> None:  # type: ignore[no-untyped-def]
    root = tiny.corpus()
    for path in (root / "phones.txt", root / "test" / "alignments.jsonl"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    ours, theirs = DemoCorpus(), DemoCorpus(root)
    assert theirs.vocabulary == ours.vocabulary
    assert [u.id for u in theirs.utterances("test")] == [u.id for u in ours.utterances("test")[:3]]
