"""What a killed, repeated or doubled run may not break."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from imfbench.store import (
    Journal,
    RunFolder,
    StoreError,
    atomic,
    content_hash,
    plain,
    read_json,
    write_json,
    write_parquet,
)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    write_json(path, {"wer": 0.5})

    def killed() -> None:
        with atomic(path) as temporary:
            temporary.write_text("half of it")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        killed()
    assert read_json(path) == {"wer": 0.5}
    assert list(tmp_path.iterdir()) == [path]


def test_nan_becomes_null_in_json(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": float("nan"), "b": [np.float32(0.5), np.int64(3)], "c": Path("x")})
    assert read_json(tmp_path / "a.json") == {"a": None, "b": [0.5, 3], "c": "x"}
    assert plain((1, float("inf"))) == [1, None]


def test_parquet_is_written_whole(tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": ["a", "b"], "wer": [0.1, None]})
    write_parquet(tmp_path / "deep" / "utterances.parquet", frame)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "deep" / "utterances.parquet"), frame)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (1, "1"),
        (1, True),
        ([1], 1),
        (["ab"], ["a", "b"]),
        ([["a"], "b"], ["a", ["b"]]),
        (np.zeros(4, np.float32), np.zeros(4, np.float64)),
        (np.zeros((2, 2)), np.zeros(4)),
        (None, "None"),
        ({"a": 1}, [["a", 1]]),
        (b"x", "x"),
    ],
)
def test_hashes_tell_types_and_shapes_apart(one: object, other: object) -> None:
    assert content_hash(one) != content_hash(other)


def test_hashes_ignore_the_order_of_keys_and_refuse_what_has_no_content(tmp_path: Path) -> None:
    assert content_hash({"a": 1, "b": [0.5]}) == content_hash({"b": (0.5,), "a": 1})
    assert content_hash(np.float64(0.5)) == content_hash(0.5)
    with pytest.raises(TypeError, match="Path"):
        content_hash(tmp_path)


def test_a_journal_survives_a_torn_line(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "utterances.jsonl")
    journal.append({"id": "a", "text": "one\u2028line", "status": "failed"})
    journal.append({"id": "b", "seconds": 1.5})
    with open(journal.path, "ab") as file:
        file.write('{"id": "c", "text": "ä'.encode()[:-1])  # killed while writing, in the middle of a character
    assert list(journal.rows()) == ["a", "b"]
    journal.append({"id": "a", "text": "again", "status": "ok"})
    assert journal.rows() == {
        "a": {"id": "a", "text": "again", "status": "ok"},
        "b": {"id": "b", "seconds": 1.5},
    }
    assert len(journal.path.read_bytes().split(b"\n")) == 4


def test_a_run_folder_has_one_owner_at_a_time(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from imfbench.store import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).lock():\n    print('held', flush=True); time.sleep(60)\n"
    )
    owner = subprocess.Popen([sys.executable, "-P", "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "held\n"
        with pytest.raises(StoreError, match=rf"in use by process {owner.pid}.*--out"), RunFolder(tmp_path).lock():
            pass
    finally:
        owner.kill()
        owner.wait()
    with RunFolder(tmp_path).lock():  # a killed owner holds nothing
        pass


def test_cells_that_are_not_asked_for_are_set_apart_and_come_back(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for key in ("aa", "bb"):
        write_json(folder.cell(key).summary, {"key": key})
    assert folder.show_only(["aa"]) == ["bb"]
    assert folder.show_only(["aa"]) == [], "told once"
    assert [path.parent.name for path in sorted((tmp_path / "cells").glob("*/summary.json"))] == ["aa"]
    assert folder.show_only(["bb"]) == ["aa"]
    assert [path.parent.name for path in sorted((tmp_path / "cells").glob("*/summary.json"))] == ["bb"]
    assert json.loads(folder.cell("bb").summary.read_text()) == {"key": "bb"}


def test_utterance_ids_become_safe_file_names(tmp_path: Path) -> None:
    cell = RunFolder(tmp_path).cell("aa")
    assert cell.audio("test-01").name == "test-01.flac"
    names = {cell.audio(id).name for id in ("a/b", "a b", "../a", "a_b")}
    assert len(names) == 4
    assert all(cell.audio(id).parent == tmp_path / "cells" / "aa" / "audio" for id in ("a/b", "../a"))
