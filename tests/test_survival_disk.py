"""Full disks, folders that cannot be written, two runs at once: one message, exit code 2, and the same command goes on."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from imfbench import experiment
from imfbench.config import load
from imfbench.features.audio import load_audio, save_audio
from imfbench.pipeline.plan import Job
from imfbench.score_cache import ScoreCache
from imfbench.store import RunFolder, StoreError, atomic, content_hash, write_json
from imfbench.training_log import TrainingLog

GOES_ON = "what was done before is kept, and the same command goes on from there"


@contextlib.contextmanager
def file_sizes(most: int) -> Iterator[None]:
    """A quota without a mount: no file of this process grows beyond ``most`` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def small_disk(folder: Path, size: str, *more: str) -> Iterator[Path]:
    """A file system of its own in memory; skips where mounting is not allowed."""
    folder.mkdir()
    options = ",".join([f"size={size}", *more])
    command = ["mount", "-t", "tmpfs", "-o", options, "imfbench-test", str(folder)]
    try:
        made = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        pytest.skip(f"no small disk can be mounted here: {error}")
    if made.returncode:
        pytest.skip(f"no small disk can be mounted here: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


# --- every kind of write ----------------------------------------------------------------------------------------------


def test_every_kind_of_file_says_that_the_disk_is_full(tmp_path: Path) -> None:
    """libsndfile, torch and safetensors hide the reason or leave a shorter file; none of them writes to a path of ours."""
    from imfbench.building import build_method
    from imfbench.training import TrainConfig, Training

    method = build_method("teacher", backbone_config={"dim": 32, "depth": 1, "heads": 2})
    training = Training(method, None, TrainConfig(steps=1), tmp_path, torch.device("cpu"))  # type: ignore[arg-type]
    noise = np.random.default_rng(0).normal(0, 0.1, 24_000).astype(np.float32)
    journal, log = RunFolder(tmp_path).cell("aa").journal, TrainingLog(tmp_path / "log.csv", 0)
    journal.append({"id": "a", "text": "x" * 1000})
    log.write({"step": 1, "seconds": "x" * 1000})
    save_audio(tmp_path / "a.flac", noise[:100], 24_000)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    writes = {
        "a.flac": lambda: save_audio(tmp_path / "a.flac", noise, 24_000),
        "checkpoint.pt": training.save,
        "a.json": lambda: write_json(tmp_path / "a.json", ["x" * 3000]),
        "utterances.jsonl": lambda: journal.append({"id": "b", "text": "x" * 3000}),
        "log.csv": lambda: log.write({"step": 2, "seconds": "x" * 3000}),
    }
    for name, write in writes.items():
        with (
            file_sizes(2000),
            pytest.raises(StoreError, match=rf"{name} cannot be written: File too large\. Make room"),
        ):
            write()
    assert list(journal.rows()) == ["a"], "a torn row does not count"
    journal.append({"id": "b", "text": "again"})
    assert list(journal.rows()) == ["a", "b"]
    log.write({"step": 2, "seconds": 3})
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert sorted(after) == sorted(before), "nothing is left of what could not be written"
    assert after[tmp_path / "a.flac"] == before[tmp_path / "a.flac"]
    assert len(load_audio(tmp_path / "a.flac")[0]) == 100


def test_a_torn_row_of_a_training_log_is_dropped_when_the_training_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("step,seconds,loss\n1,0.5,2\n2,1.0,1\n1")  # torn from 10,5.0,0.5
    TrainingLog(path, 5).write({"step": 3, "seconds": 1.5, "loss": 0.5})
    assert path.read_text().split() == ["step,seconds,loss", "1,0.5,2", "2,1.0,1", "3,1.5,0.5"]


# --- whole runs -------------------------------------------------------------------------------------------------------


def test_a_disk_that_fills_up_stops_the_run_and_loses_nothing(tiny) -> None:  # type: ignore[no-untyped-def]
    """The checkpoint is the first file that is too large; with more room, audio of the reference rows is."""
    path = tiny.config(systems=tiny.trained)
    with file_sizes(100_000):
        told = tiny.refused(path)
    assert f"{tiny.out}/artefacts/own/checkpoint.pt cannot be written: File too large. Make room there" in told
    assert GOES_ON in told
    whole = tiny.config("whole.yaml", systems=tiny.trained, score_cache=str(tiny.folder / "other"))
    assert tiny.invoke(whole, out=tiny.folder / "whole").exit_code == 0
    assert tiny.invoke(path, command="train").exit_code == 0
    with file_sizes(40_000):
        told = tiny.refused(path)
    assert ".flac cannot be written: File too large" in told
    assert tiny.invoke(path).exit_code == 0
    assert tiny.leaderboard() == tiny.leaderboard(tiny.folder / "whole")
    assert not [p for p in tiny.out.rglob(".*") if p.name not in (".lock", ".apart")], "no temporary file is left"


def test_a_full_disk_stops_the_run_and_loses_nothing(tiny, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    path = tiny.config(references=["ground-truth"])
    with small_disk(tiny.folder / "disk", "400k") as disk:
        told = tiny.refused(path, out=disk / "run")
        assert f"only 0 MB are free at {disk / 'run'}, a run needs 500: make room" in told
        monkeypatch.setattr(experiment, "SMALLEST_DISK", 0)
        filler = disk / "filler"
        filler.write_bytes(b"\0" * 320_000)
        told = tiny.refused(path, out=disk / "run")
        assert ".flac cannot be written: No space left on device. Make room there" in told
        assert GOES_ON in told
        made = {p: p.read_bytes() for p in (disk / "run").glob("cells/*/audio/*.flac")}
        filler.unlink()
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        assert tiny.invoke(path, out=disk / "run").exit_code == 0
        assert {p: p.read_bytes() for p in made} == made
        assert tiny.invoke(path).exit_code == 0
        assert tiny.leaderboard() == tiny.leaderboard(disk / "run")


def test_a_read_only_disk_is_refused(tiny) -> None:  # type: ignore[no-untyped-def]
    with small_disk(tiny.folder / "disk", "1m", "ro") as disk:
        told = tiny.refused(tiny.config(), out=disk / "run")
    assert f"{disk / 'run'} cannot be written: Read-only file system. Choose another folder (--out" in told


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(mode=0o500)
    before = os.geteuid()
    if before == 0:  # root may write anywhere, so it becomes nobody for a moment
        os.seteuid(65534)
    try:
        told = r"run cannot be written: Permission denied\. Choose another folder \(--out"
        with pytest.raises(StoreError, match=told), RunFolder(tmp_path / "theirs" / "run").lock():
            pass
    finally:
        os.seteuid(before)


def test_a_file_in_the_place_of_a_folder_is_refused(tiny) -> None:  # type: ignore[no-untyped-def]
    path = tiny.config()
    (tiny.folder / "runs").write_text("kept")
    told = tiny.refused(path, out=tiny.folder / "runs" / "tiny")
    assert "cannot be written: a file stands where a folder has to be. Choose another folder (--out" in told
    tiny.out.mkdir()
    (tiny.out / "cells").write_text("kept")
    assert "a file stands where a folder has to be" in tiny.refused(path)
    assert (tiny.folder / "runs").read_text() == (tiny.out / "cells").read_text() == "kept"


def test_a_cache_that_cannot_be_made_or_written(tiny, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    """Without a folder for it nothing begins; a score that cannot be cached stands in its row all the same."""
    (tiny.folder / "file").write_text("")
    path = tiny.config(score_cache=str(tiny.folder / "file"), references=["ground-truth"], systems=[])
    result = tiny.invoke(path)
    assert result.exit_code == 0, result.output
    assert result.output.count("scores are not cached: ") == 1
    (table,) = tiny.tables().values()
    assert table["sim"].notna().all()
    monkeypatch.setenv("IMFBENCH_CACHE", str(tiny.folder / "file"))
    told = tiny.refused(tiny.config(score_cache=None))
    assert f"the cache folder {tiny.folder / 'file'} cannot be made" in told
    assert "set the environment variable IMFBENCH_CACHE" in told


def test_the_second_of_two_runs_in_one_folder_is_refused(tiny) -> None:  # type: ignore[no-untyped-def]
    path = tiny.config(references=["ground-truth"], systems=[])
    program = (
        "import sys; from pathlib import Path; from imfbench.store import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).lock():\n    print('held', flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-P" if sys.version_info >= (3, 11) else "-B", "-c", program, str(tiny.out)]
    first = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        told = tiny.refused(path)
        assert (
            f"{tiny.out} is in use by process {first.pid}: wait until it ends, or give this run another folder" in told
        )
        assert not (tiny.out / "cells").exists()
    finally:
        first.communicate(timeout=60)
    assert tiny.invoke(path).exit_code == 0


def test_a_run_of_several_parts_holds_its_folder_until_the_last_one_ends(tiny) -> None:  # type: ignore[no-untyped-def]
    path = tiny.config(references=["ground-truth"], systems=[], metrics=[], then=[{"name": "second"}])
    refused = []

    class Meanwhile:
        """Does no job; in the middle of each part another command begins in the whole's folder."""

        def run(self, jobs: Sequence[Job], perform: Any, failed: Any) -> None:
            before = {name: (tiny.out / name).read_bytes() for name in ("experiment.yaml", "manifest.json")}
            told = tiny.refused(path, "dataset.limit=1")
            assert f"{tiny.out} is in use by process {os.getpid()}: wait until it ends" in told
            assert before == {name: (tiny.out / name).read_bytes() for name in before}
            refused.append((perform.context.config.name, {job.stage for job in jobs}))

    experiment.run_all(load(str(path)), tiny.out, executor=Meanwhile())
    work = {"synthesise"}
    assert refused == [("tiny", work), ("second", work), ("tiny", {"report"})]
    with RunFolder(tiny.out).lock():
        pass


def test_what_a_killed_process_left_half_written_is_swept_away(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    kept = [".apart/x/summary.json", "aa/utterances.jsonl", "aa/audio/.hidden.flac", "aa/audio/b-12345678.flac"]
    (tmp_path / ".imfbench-k3_x9abc.json").write_text("{")
    left = ["aa/.imfbench-k3_x9abc.json", "aa/audio/.imfbench-12345678.flac"]
    for name in (*kept, *left):
        write_json(tmp_path / "cells" / name, {})
    reports = [
        tmp_path / name for name in ("report/.imfbench-k3_x9abc.html", "tensorboard/own/.imfbench-k3_x9abc.imfbench")
    ]
    for path in reports:
        path.parent.mkdir(parents=True)
        path.write_text("<")
    (tmp_path / "report" / "index.html").write_text("<p>")
    with folder.lock():
        found = [str(p.relative_to(tmp_path / "cells")) for p in (tmp_path / "cells").rglob("*") if p.is_file()]
    assert sorted(found) == sorted(kept)
    assert not (tmp_path / ".imfbench-k3_x9abc.json").exists()
    assert not [path for path in reports if path.exists()]
    assert (tmp_path / "report" / "index.html").read_text() == "<p>"


def test_a_score_cache_on_a_full_disk_gives_what_it_was_given(tmp_path: Path) -> None:
    cache = ScoreCache(tmp_path)
    with file_sizes(10):
        assert cache.put(content_hash("a"), {"mos": 3.5, "more": "x" * 50}, "mos-v1")["mos"] == 3.5
    assert cache.get(content_hash("a"), "mos-v1") is None
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_run_removes_no_hidden_file_that_is_not_its_own(tmp_path: Path) -> None:
    """Whatever folder is named for it: what a killed process left has a name that nothing else has."""
    own = [".env-template", ".bashrc-original", ".notes.part", "report/.htaccess-original"]
    for name in own:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    with atomic(tmp_path / "cells" / "one.json") as temporary:
        left = shutil.copy(temporary, temporary.with_name(".imfbench-k3_x9abc.json"))
        temporary.write_text("{}")
    with RunFolder(tmp_path).lock():
        assert [(tmp_path / name).is_file() for name in own] == [True] * 4
        assert not Path(left).exists()
