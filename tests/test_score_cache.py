"""What the score cache must not do: give back what was not put, lose what was, or touch what is not its own."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from imfbench.cli import main
from imfbench.score_cache import EARLIER, ScoreCache
from imfbench.store import content_hash

MODEL = "wer-v1|asr:faster-whisper-base@d01c3014|beam:5"
KEY, OTHER = content_hash("one"), content_hash("other")


@pytest.fixture
def cache(tmp_path: Path) -> ScoreCache:
    return ScoreCache(tmp_path / "scores")


def entry_file(cache: ScoreCache, key: str = KEY) -> Path:
    (file,) = cache.folder.rglob(f"{key}.jsonl")
    return file


def test_it_gives_back_what_was_put(cache: ScoreCache) -> None:
    assert cache.get(KEY, MODEL) is None
    fresh = cache.put(
        KEY, {"embedding": np.array([0.1, 0.2], np.float32), "mos": float("nan"), "text": "a\nb 😀"}, MODEL
    )
    again = cache.get(KEY, MODEL)
    assert again is not None
    assert again["embedding"] == fresh["embedding"] == [float(np.float32(0.1)), float(np.float32(0.2))]
    assert np.isnan(again["mos"])
    assert again["text"] == "a\nb 😀"
    assert cache.get(KEY, MODEL.replace("beam:5", "beam:1")) is None
    assert cache.get(OTHER, MODEL) is None


def truncated(cache: ScoreCache, file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-3])


def without_its_end(cache: ScoreCache, file: Path) -> None:
    file.write_bytes(file.read_bytes()[:30])


def emptied(cache: ScoreCache, file: Path) -> None:
    file.write_bytes(b"")


def flipped_in_the_score(cache: ScoreCache, file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[data.index(b"two") + 2] ^= 1  # "two" becomes "twn", which is good JSON
    file.write_bytes(data)


def flipped_in_the_model(cache: ScoreCache, file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b"beam:5", b"beam:4"))


def another_programs(cache: ScoreCache, file: Path) -> None:
    file.write_text('{"hypothesis": "one two"}')


def another_entrys(cache: ScoreCache, file: Path) -> None:
    cache.put(OTHER, {"hypothesis": "three"}, MODEL)
    shutil.copy(entry_file(cache, OTHER), file)


def a_list(cache: ScoreCache, file: Path) -> None:
    file.write_text("[1]\n[2]")


@pytest.mark.parametrize(
    "damage",
    [
        truncated, without_its_end, emptied, flipped_in_the_score, flipped_in_the_model, another_programs, another_entrys,
        a_list,
    ],
)  # fmt: skip
def test_a_damaged_entry_is_named_and_made_again(
    damage: Callable[[ScoreCache, Path], None], cache: ScoreCache, caplog: pytest.LogCaptureFixture
) -> None:
    cache.put(KEY, {"hypothesis": "one two"}, MODEL)
    file = entry_file(cache)
    damage(cache, file)
    with caplog.at_level(logging.WARNING):
        assert cache.get(KEY, MODEL) is None
        assert cache.get(KEY, MODEL) is None
    (record,) = caplog.records
    assert str(file) in record.getMessage()
    assert "damaged" in record.getMessage()
    cache.put(KEY, {"hypothesis": "one two"}, MODEL)
    assert cache.get(KEY, MODEL) == {"hypothesis": "one two"}


def test_an_entry_that_cannot_be_read_or_replaced_ends_nothing(
    cache: ScoreCache, caplog: pytest.LogCaptureFixture
) -> None:
    cache.put(KEY, {"hypothesis": "one"}, MODEL)
    file = entry_file(cache)
    file.unlink()
    (file / "within").mkdir(parents=True)
    with caplog.at_level(logging.WARNING):
        assert cache.get(KEY, MODEL) is None
        assert cache.put(KEY, {"hypothesis": "two"}, MODEL) == {"hypothesis": "two"}
    told = [record.getMessage() for record in caplog.records]
    assert "cannot be read (Is a directory)" in told[0]
    assert str(file) in told[0]
    assert "scores are not cached" in told[1]


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="file owners are a matter of POSIX")
def test_an_entry_of_somebody_else_is_named_and_ends_nothing(
    cache: ScoreCache, caplog: pytest.LogCaptureFixture
) -> None:
    cache.put(KEY, {"hypothesis": "one"}, MODEL)
    file = entry_file(cache)
    file.chmod(0)
    me = os.geteuid()
    if me == 0:  # whom no permission stops
        os.seteuid(65534)
    try:
        with caplog.at_level(logging.WARNING):
            assert cache.get(KEY, MODEL) is None
    finally:
        os.seteuid(me)
    assert f"{file} of the score cache cannot be read (Permission denied)" in caplog.text


def test_many_damaged_entries_do_not_fill_the_screen(cache: ScoreCache, caplog: pytest.LogCaptureFixture) -> None:
    keys = [content_hash(i) for i in range(20)]
    for key in keys:
        cache.put(key, {"hypothesis": "one"}, MODEL)
        entry_file(cache, key).write_text("x")
    with caplog.at_level(logging.WARNING):
        assert [cache.get(key, MODEL) for key in keys] == [None] * 20
    assert len(caplog.records) == 6
    assert "not named" in caplog.records[-1].getMessage()


WRITER = """
import sys
from pathlib import Path
from imfbench.score_cache import ScoreCache
from imfbench.store import content_hash
cache, first = ScoreCache(Path(sys.argv[1])), int(sys.argv[2])
sys.stdout.write("ready\\n"); sys.stdout.flush(); sys.stdin.readline()
for i in range(first, first + 200):
    cache.put(content_hash(i), {"hypothesis": str(i) * 300}, "wer-v1")
    assert cache.get(content_hash(i), "wer-v1") == {"hypothesis": str(i) * 300}, i
"""


def test_processes_that_write_at_once_lose_nothing(cache: ScoreCache) -> None:
    """Three, each 200 entries of which it shares half with the next."""
    begin = (sys.executable, "-W", "error", "-c", WRITER, str(cache.folder))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    writers = [subprocess.Popen([*begin, str(first)], **pipes) for first in (0, 100, 200)]  # type: ignore[call-overload]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("\n")
        writer.stdin.flush()
    assert [(writer.communicate(timeout=200)[1], writer.returncode) for writer in writers] == [("", 0)] * 3
    assert all(cache.get(content_hash(i), "wer-v1") == {"hypothesis": str(i) * 300} for i in range(400))
    assert len([path for path in cache.folder.rglob("*") if path.is_file()]) == 400


def filled(cache: ScoreCache) -> None:
    for i, model in enumerate([MODEL, MODEL, "wer-v1|beam:1", "mos-v1|predictor:distillmos"]):
        cache.put(content_hash(i), {"x": i}, model)


def test_what_it_holds_is_counted_by_metric_and_model(cache: ScoreCache) -> None:
    filled(cache)
    (cache.folder / "notes.txt").write_text("mine")
    (cache.folder / KEY[:2]).mkdir()
    (cache.folder / KEY[:2] / f"{KEY}.json").write_text("{}")
    found = [(s.metric, s.model, s.entries) for s in cache.sections()]
    assert found == [
        ("mos", "mos-v1|predictor:distillmos", 1),
        ("wer", MODEL, 2),
        ("wer", "wer-v1|beam:1", 1),
        (EARLIER, "", 1),
    ]
    files = [path for path in cache.folder.rglob("*.json*") if path.is_file()]
    assert sum(s.bytes for s in cache.sections()) == sum(path.stat().st_size for path in files)


def test_clearing_takes_what_was_named_and_nothing_else(cache: ScoreCache) -> None:
    filled(cache)
    (cache.folder / "notes.txt").write_text("mine")
    removed = cache.clear({"wer"})
    assert removed.entries == 3
    assert [s.metric for s in cache.sections()] == ["mos"]
    assert cache.get(content_hash(3), "mos-v1|predictor:distillmos") == {"x": 3}
    assert cache.clear().entries == 1
    assert [path.name for path in cache.folder.rglob("*")] == ["notes.txt"]


def imfbench(*arguments: object, answer: str | None = None) -> Result:
    return CliRunner().invoke(main, ["cache", *map(str, arguments)], input=answer)


def test_the_command_counts_asks_and_clears(cache: ScoreCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMFBENCH_CACHE", str(tmp_path))
    filled(cache)
    shown = imfbench("info")
    assert f"{cache.folder}: 4 entries" in shown.output
    assert MODEL in shown.output
    told = json.loads(imfbench("info", "--format", "json").output)
    assert [section["entries"] for section in told["sections"]] == [1, 2, 1]
    refused = imfbench("clear", "wer", answer="n\n")
    assert "Remove 3 entries" in refused.output
    assert refused.exit_code != 0
    assert len(cache.sections()) == 3
    assert imfbench("clear", "wer", answer="y\n").exit_code == 0
    assert [section.metric for section in cache.sections()] == ["mos"]
    assert "removed 1 entry" in imfbench("clear", "--all", "--yes").output
    assert cache.sections() == []
    assert imfbench("clear", "--all", "--yes").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("clear",), "name the metrics"),
        (("clear", "wer", "--all"), "name the metrics"),
        (("clear", "wr"), "holds nothing of 'wr': did you mean 'wer'"),
    ],
)
def test_wrong_words_are_answered(arguments: tuple[str, ...], words: str, cache: ScoreCache) -> None:
    filled(cache)
    result = imfbench(*arguments, "--folder", cache.folder)
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())
    assert sum(section.entries for section in cache.sections()) == 4
