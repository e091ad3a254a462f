"""Several processes at work side by side: the same figures as one, failures that stay where they are, and stopping."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from imfbench.config import load
from imfbench.config_file import ConfigError
from imfbench.executors.processes import ProcessExecutor, WorkerError, _next
from imfbench.pipeline.context import Context, RunError
from imfbench.pipeline.other_runs import take_over
from imfbench.pipeline.plan import Job
from imfbench.pipeline.reuse import RECIPE
from imfbench.pipeline.train_task import TrainTask
from imfbench.pipeline.work import RunWork
from imfbench.store import RunFolder, read_json
from imfbench.training import MEMORY, STATUS


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Jobs that write down when they were done; workers import their module by its path."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return importlib.import_module("deeds").Deeds(tmp_path)


def train(subject: str, *needs: str) -> Job:
    return Job("train", subject, needs)


def done(work: Any, *jobs: Job) -> dict[str, Exception]:
    """Do the jobs with two workers; job → error."""
    failed: dict[str, Exception] = {}
    ProcessExecutor(2).run(jobs, work, lambda job, error: failed.update({job.subject: error}))
    return failed


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_order_company_and_faults(work: Any, tmp_path: Path) -> None:
    last = Job("score", "last", ("train:after", "train:long-1"))
    jobs = (
        train("long-1"),
        train("long-2"),
        train("killed"),
        train("clumsy"),
        train("after", "train:long-1", "train:killed"),
    )
    failed = done(work, *jobs, last)

    assert sorted(failed) == [
        "clumsy",
        "killed",
    ]  # "after" was tried though what it needs had failed: it says so itself
    assert isinstance(failed["killed"], WorkerError)
    assert "SIGKILL" in str(failed["killed"])
    assert "memory" in str(failed["killed"])
    assert isinstance(failed["clumsy"], WorkerError)
    assert str(failed["clumsy"]) == "TwoPartsError: a fault at line 4"

    (a, b), (c, d) = work.when("long-1"), work.when("long-2")
    assert max(a, c) < min(b, d), "two at a time"
    assert work.when("after")[0] > b
    pids = {(tmp_path / f"{job.subject}.began").read_text().split()[1] for job in jobs}
    assert str(os.getpid()) not in pids
    assert (tmp_path / "last.began").read_text().split()[1] == str(os.getpid())  # one writes scores and reports
    heard = (tmp_path / "after.ended").read_text().split()[1:]
    assert {"train:long-1", "train:long-2"} <= {*heard}, "what one worker finds out, the next job's is told"


def test_an_error_that_stops_a_run_keeps_its_kind(work: Any) -> None:
    def stop(_: Job, error: Exception) -> None:
        raise error

    with pytest.raises(ConfigError, match=r"my\.yaml, line 3"):
        ProcessExecutor(2).run([train("refused"), train("long-1")], work, stop)


def test_a_worker_that_cannot_begin_ends_the_run_instead_of_all_its_jobs(work: Any) -> None:
    work.__class__ = type("Ended", (type(work),), {"__reduce__": lambda self: (os._exit, (3,))})
    with pytest.raises(RunError, match=r"before its first job \(exit code 3\)"):
        done(work, train("a"), train("b"), train("c"))


def test_what_is_next(work: Any) -> None:
    first, second, other = train("timed-1"), train("timed-2"), train("other")
    after = Job("synthesise", "row", (first.name,))
    assert _next([other, first], [], work.times) == (first, True), "it is begun before another job would disturb it"
    assert _next([second, other], [first], work.times) == (None, False), "and nothing more until it can be alone"
    assert _next([second, other], [first], lambda job: False) == (second, False)
    assert _next([after], [first], work.times) == (None, False)
    assert _next([after, other], [other], work.times) == (after, False), "needs that are not on the list have been met"


def test_what_is_timed_is_timed_alone_and_first(work: Any, tmp_path: Path) -> None:
    """Minutes become steps by a clock: beside another job a method would be given fewer than its time is worth."""
    jobs = (
        train("long-1"),
        train("timed-1"),
        train("timed-2", "train:long-1"),
        train("long-2"),
        train("timed-refused"),
    )
    failed = done(work, *jobs)

    assert sorted(failed) == ["timed-refused"]
    assert not (tmp_path / "timed-refused.began").exists(), "what cannot be timed is not trained"
    timed = [tuple(map(float, (tmp_path / f"timed-{i}.timed").read_text().split())) for i in (1, 2)]
    spans = {job.subject: work.when(job.subject) for job in jobs if job.subject != "timed-refused"}
    for begin, end in timed:
        beside = [name for name, (began, ended) in spans.items() if began < end and begin < ended]
        assert not beside, f"{beside} were at work while steps were timed"
    assert timed[0][1] < min(began for began, _ in spans.values()), "nothing waits for it but what it goes before"
    assert timed[1][0] > spans["long-1"][1]
    (a, b), (c, d) = spans["long-1"], spans["long-2"]
    assert max(a, c) < min(b, d), "the rest goes side by side"


@pytest.fixture
def timer(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """What a training's minutes are worth by the clock of this test, by name; 7 steps if nothing is said."""
    steps: dict[str, int] = {}
    monkeypatch.setattr(TrainTask, "carry_out", lambda self, context, bar=None: steps.get(self.name, 7))
    return steps


def by_minutes(tiny: Any, *settings: str) -> RunWork:
    """The work of a run with two equal trainings by minutes, and one with two seeds."""
    own = {**tiny.trained[0], "train": {"minutes": 1}}
    systems = [
        own,
        {**own, "name": "twin", "nfe": [2]},
        {**own, "name": "seeds", "train": {"minutes": 2}, "seeds": [3, 4]},
    ]
    path = tiny.config(systems=systems, training={"frames_per_batch": 400, "save_every": 1})
    return RunWork(Context(load(str(path), settings), RunFolder(tiny.out)))


def test_trainings_are_timed_unless_their_steps_are_known(tiny, timer: dict[str, int]) -> None:  # type: ignore[no-untyped-def]
    work = by_minutes(tiny)
    jobs = work.context.plan.jobs
    assert {name for name, job in jobs.items() if work.times(job)} == {
        name for name in jobs if name.startswith("train:")
    }
    work.begin(jobs["train:seeds-seed3"])
    assert not work.times(jobs["train:seeds-seed4"]), "its seeds have the same steps"
    assert work.times(jobs["train:own"])

    other = by_minutes(tiny)  # another process, which had begun before
    other.context.config = load(str(tiny.folder / "tiny.yaml"))
    other.hear(work.news())
    assert not other.times(jobs["train:seeds-seed3"])
    steps = [system.train.get("steps") for system in other.context.config.systems]
    assert steps == [None, None, 7]


def test_equal_trainings_stay_equal_when_one_is_timed(tiny, timer: dict[str, int]) -> None:  # type: ignore[no-untyped-def]
    """A run that was killed between the clock and the training trains one of them, and not both with steps of their own."""
    work = by_minutes(tiny)
    work.begin(work.context.plan.jobs["train:own"])
    again = by_minutes(tiny)
    assert again.context.config.systems[0].train["steps"] == 7
    assert "train:own" in again.context.plan.jobs["train:twin"].needs


def test_settings_can_change_until_a_training_begins(tiny, timer: dict[str, int]) -> None:  # type: ignore[no-untyped-def]
    work = by_minutes(tiny)
    work.begin(work.context.plan.jobs["train:own"])
    timer["own"] = 9
    changed = by_minutes(tiny, "training.frames_per_batch=500")
    assert changed.times(changed.context.plan.jobs["train:own"]), "steps of other batches"
    changed.begin(changed.context.plan.jobs["train:own"])
    folder = changed.context.folder.artefact("own")
    recipe = read_json(folder / RECIPE)
    assert (recipe["training"]["steps"], recipe["training"]["frames_per_batch"]) == (9, 500)

    (folder / MEMORY).write_text("{}")  # written before the first step
    back = by_minutes(tiny)
    with pytest.raises(ConfigError, match="frames_per_batch"):
        back.begin(back.context.plan.jobs["train:own"])


def test_what_another_run_trained_is_taken_though_this_one_has_timed_it(tiny, timer: dict[str, int]) -> None:  # type: ignore[no-untyped-def]
    work = by_minutes(tiny)
    work.begin(work.context.plan.jobs["train:seeds-seed3"])
    there = tiny.folder / "there" / "artefacts" / "any"
    shutil.copytree(tiny.artefact(), there)
    recipe = read_json(work.context.folder.artefact("seeds-seed3") / RECIPE)
    recipe["training"] |= {"steps": 11, "seed": 4}
    (there / RECIPE).write_text(json.dumps(recipe))
    (there / STATUS).write_text(json.dumps({"status": "ok", "steps": 11}))

    again = by_minutes(tiny)
    assert take_over(again.context.config, tiny.out, [tiny.folder / "there"]) == 1
    taken = read_json(RunFolder(tiny.out).artefact("seeds-seed4") / RECIPE)
    assert taken["training"]["steps"] == 11
    assert by_minutes(tiny).context.config.systems[2].train["steps"] == 11, "for its other seed too"


def test_impossible_numbers_and_work() -> None:
    with pytest.raises(ValueError, match="1 is the fewest"):
        ProcessExecutor(0)
    with pytest.raises(TypeError, match=r"imfbench\.executors\.Work"):
        ProcessExecutor(2).run([], lambda job: None, lambda job, error: None)


def systems(tiny: Any) -> list[dict[str, Any]]:
    """A teacher that is trained here, a student of it with two seeds, and a search."""
    search = {"method": "o3s", "nfe": [2], "score": "teacher-distance", "config": {"max_evaluations": 3}}
    student = {"method": "intmeanflow", "name": "pupil", "config": {"teacher_nfe": 2}}
    teacher = {**tiny.trained[0], "train": {"steps": 4}}
    return [
        teacher,
        {**student, "seeds": [0, 1], "nfe": [1]},
        {**student, "name": "seeker", "nfe": [1], "search": search},
    ]


def settings(tiny: Any) -> dict[str, Any]:
    training = {"minutes": 0.0001, "frames_per_batch": 400}
    return {
        "systems": systems(tiny),
        "training": training,
        "teacher": {"artefact": "own", "nfe": [2]},
        "dataset": {"limit": 1, "prefer_short": True},
    }


@pytest.mark.slow
def test_a_run_by_two_workers_ends_as_one_by_one_does(tiny) -> None:  # type: ignore[no-untyped-def]
    one, two = tiny.folder / "1" / "run", tiny.folder / "2" / "run"
    config = str(tiny.config(**settings(tiny)))
    for out, workers in ((one, "1"), (two, "2")):  # processes both: what pytest has loaded changes a last bit
        command = [sys.executable, "-m", "imfbench", "run", config, "--out", str(out), "--workers", workers]
        subprocess.run(command, check=True, capture_output=True)
    # Minutes that are one step each: with the machine's speed the number of steps would differ between the runs.
    recorded = read_steps(one)
    assert set(recorded.values()) == {1}
    assert read_steps(two) == recorded
    first, second = tiny.tables(one), tiny.tables(two)
    assert sorted(first) == sorted(second)
    for label, frame in first.items():
        same = [c for c in frame if "seconds" not in c and c != "workers"]
        pd.testing.assert_frame_equal(frame[same], second[label][same], obj=label)
    rows = {row["system"]: row for row in read_json(two / "leaderboard" / "leaderboard.json")["rows"]}
    assert (rows["pupil"]["workers"], rows["pupil"]["threads"]) == (2, 1)
    assert rows["ground-truth"]["workers"] is None
    assert read_json(two / "manifest.json")["workers"] == 2
    assert read_json(two / "manifest.json")["status"] == "ok"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_broken_plugin_is_told_once_by_however_many_processes(tiny) -> None:  # type: ignore[no-untyped-def]
    broken = tiny.folder / "broken.py"
    broken.write_text("no_such_name\n")
    config = tiny.config(systems=[], references=["ground-truth"])
    command = [sys.executable, "-m", "imfbench", "run", str(config), "--out", str(tiny.out)]
    found = subprocess.run([*command, "--workers", "2", "--plugin", str(broken)], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert found.stderr.count("NameError") == 1, found.stderr
    assert "PluginWarning" not in found.stderr


def read_steps(out: Path) -> dict[str, int]:
    """System → steps that its minutes came to, as the run folder has them on record."""
    import yaml

    found = yaml.safe_load((out / "experiment.yaml").read_text())["systems"]
    return {system["name"]: system["train"]["steps"] for system in found if system["timed_minutes"]}


def until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    """Wait for it; a machine may be slow."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Whether a process runs, and is not only remembered."""
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def children(pid: int) -> list[int]:
    return [int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="asks Linux about processes")
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_workers_stop_with_the_run_and_the_same_command_goes_on(tiny, number: signal.Signals) -> None:  # type: ignore[no-untyped-def]
    """Ctrl-C reaches the whole process group of a terminal, SIGTERM and SIGKILL the run alone."""
    changes = {"training": {"steps": 120, "frames_per_batch": 400, "save_every": 1, "log_every": 1}}
    path = tiny.config(systems=[{**tiny.trained[0], "seeds": [0, 1]}], **changes)
    command = [sys.executable, "-m", "imfbench", "run", str(path), "--out", str(tiny.out), "--workers", "2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    until(lambda: len(list(tiny.out.glob("artefacts/*/checkpoint.pt"))) == 2)
    workers = [
        pid for pid in children(process.pid) if "multiprocessing.spawn" in Path(f"/proc/{pid}/cmdline").read_text()
    ]
    assert len(workers) == 2
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    told = process.communicate(timeout=120)[1]
    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    until(lambda: not any(map(alive, workers)), 60)
    if number != signal.SIGKILL:
        assert "Go on with the same command" in told
        assert "Traceback" not in told
    logs = [tiny.out / "artefacts" / f"own-seed{seed}" / "log.csv" for seed in (0, 1)]
    before = [log.read_text().splitlines()[:2] for log in logs]
    assert tiny.invoke(path, "workers=2").exit_code == 0
    for log, kept in zip(logs, before, strict=True):
        lines = log.read_text().splitlines()
        assert lines[: len(kept)] == kept, "gone on with, not begun again"
        assert [int(line.partition(",")[0]) for line in lines[1:]] == list(range(1, 121))
