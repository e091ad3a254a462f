"""Ctrl-C, SIGTERM and kill -9 at any moment: the same command ends in the same leaderboard."""

from __future__ import annotations

import multiprocessing
import multiprocessing.process
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from imfbench import experiment
from imfbench.cli import main
from imfbench.config import ExperimentConfig, load
from imfbench.pipeline.plan import Stage
from imfbench.reports.leaderboard import Leaderboard
from imfbench.store import read_json

Stages = tuple[Stage, ...]
# A server that has imported everything forks a process for each run: the moments of the kills are the run's, not the imports'.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        "imfbench.experiment",
        "imfbench.backbones.dit",
        "imfbench.datasets.demo.corpus",
        "imfbench.features.griffin_lim",
        "imfbench.methods.teacher",
        "imfbench.metrics.sim",
        "imfbench.reports.leaderboard",
        "imfbench.reports.page",
        "accelerate",
        "torch._dynamo",
    ]
)


def started(config: ExperimentConfig, out: Path, stages: Stages) -> multiprocessing.process.BaseProcess:
    process = SERVER.Process(target=experiment.run_all, args=(config, out, stages))
    process.start()
    return process


def finished(config: ExperimentConfig, out: Path, stages: Stages) -> float:
    """Run to the end; the seconds that it took."""
    begun = time.monotonic()
    process = started(config, out, stages)
    process.join()
    assert process.exitcode == 0
    if "report" not in stages:
        Leaderboard(pictures=False).write(out)
    return time.monotonic() - begun


def results(tiny: Any, out: Path) -> tuple[Any, ...]:
    """All that two runs must have in common: leaderboard, rows, weights."""
    tables = {label: frame[sorted(c for c in frame if "seconds" not in c)] for label, frame in tiny.tables(out).items()}
    return tiny.leaderboard(out), tables, load_file(out / "artefacts" / "own" / "model.safetensors")


def assert_same(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    assert one[0] == other[0]
    assert sorted(one[1]) == sorted(other[1])
    for label, frame in one[1].items():
        pd.testing.assert_frame_equal(frame, other[1][label])
    assert all(torch.equal(one[2][name], other[2][name]) for name in {*one[2], *other[2]})


def killed_often(tiny: Any, kills: int, stages: Stages, **changes: Any) -> set[str]:
    """Kill a run in each of ``kills`` equal parts of its time, and each time run the same again to its end.

    Returns how far the runs had come that were killed.
    """
    draw = random.Random(20)

    def config(number: int) -> ExperimentConfig:
        cache = str(tiny.folder / f"scores{number}")  # of its own, so that every run has to score
        return load(str(tiny.config(f"{number}.yaml", systems=tiny.trained, score_cache=cache, **changes)))

    whole = tiny.folder / "0" / "run"  # a leaderboard holds its folder's name
    seconds = finished(config(0), whole, stages)
    expected, killed, number, found = results(tiny, whole), 0, 0, set()
    while killed < kills:
        number += 1
        out = tiny.folder / str(number) / "run"
        begun = time.monotonic()
        process = started(config(number), out, stages)
        process.join(seconds * (killed + draw.random()) / kills)
        process.kill()
        process.join()
        if process.exitcode == 0:  # the machine has become faster: once more, by its new time
            seconds = min(0.9 * seconds, time.monotonic() - begun)
            continue
        assert process.exitcode == -signal.SIGKILL
        killed += 1
        found.add(reached(out))
        finished(config(number), out, stages)
        assert_same(results(tiny, out), expected)
        assert read_json(out / "manifest.json")["status"] == "ok"
        assert [path for path in out.rglob(".*") if path.name not in (".lock", ".apart")] == [], "half-written files"
    return found


def reached(out: Path) -> str:
    """How far a killed run had come."""
    for name in (
        "report/*",
        "leaderboard/*",
        "cells/*/utterances.parquet",
        "cells/*/audio/*",
        "artefacts/own/*",
        "manifest.json",
    ):
        if list(out.glob(name)):
            return name
    return "nothing"


def test_a_run_that_is_killed_ends_in_the_same_leaderboard(tiny) -> None:  # type: ignore[no-untyped-def]
    killed_often(tiny, 2, experiment.STAGES[:-1], references=["ground-truth"])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_run_that_is_killed_at_twenty_moments_ends_in_the_same_leaderboard(tiny) -> None:  # type: ignore[no-untyped-def]
    """With the reports: pictures and the page."""
    found = killed_often(tiny, 20, experiment.STAGES, reports=["leaderboard", "page"])
    assert found >= {"artefacts/own/*", "cells/*/audio/*"}
    assert len(list(tiny.folder.glob("*/run/report/index.html"))) > 20


@pytest.mark.parametrize(
    ("sent", "begun"), [(signal.SIGTERM, "artefacts/own/log.csv"), (signal.SIGINT, "cells/*/audio/*.flac")]
)
def test_an_interrupted_run_saves_its_state_and_says_so(tiny, sent: signal.Signals, begun: str) -> None:  # type: ignore[no-untyped-def]
    """In the training and in the synthesis; what was done is not done again."""
    training = {"steps": 20, "frames_per_batch": 400, "save_every": 1000, "log_every": 1}
    trained = {"systems": tiny.trained} if sent == signal.SIGTERM else {}
    path = tiny.config(training=training, dataset={"limit": 12, "prefer_short": True}, **trained)
    program = "import sys; from imfbench.cli import main; sys.argv[0] = 'imfbench'; main()"
    flag = "-P" if sys.version_info >= (3, 11) else "-B"
    command = [sys.executable, flag, "-c", program, "train" if trained else "synthesize"]
    process = subprocess.Popen([*command, str(path), "--out", str(tiny.out)], stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list(tiny.out.glob(begun)):
        time.sleep(0.01)
    process.send_signal(sent)
    _, told = process.communicate()
    assert process.returncode == 130, told
    assert f"stopped; what is done is kept in {tiny.out}. Go on with the same command:\n  imfbench " in told
    assert "Traceback" not in told
    assert read_json(tiny.out / "manifest.json")["status"] == "interrupted"
    if trained:
        assert "stopping after this step" in told
        step = torch.load(tiny.out / "artefacts" / "own" / "checkpoint.pt", weights_only=True)["step"]
        assert 1 <= step <= 20
        assert tiny.invoke(path, command="train").exit_code == 0
        assert read_json(tiny.out / "artefacts" / "own" / "status.json")["steps"] == 20
        log = pd.read_csv(tiny.out / "artefacts" / "own" / "log.csv")
        assert list(log["step"]) == list(range(1, 21)), "the steps before the interruption are not done again"
    else:
        made = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in tiny.out.glob("cells/*/audio/*.flac")}
        journalled = sum(len(p.read_text().splitlines()) for p in tiny.out.glob("cells/*/utterances.jsonl"))
        assert len(made) - 1 <= journalled <= len(made) < 36
        assert tiny.invoke(path, "dataset.limit=1", command="synthesize").exit_code == 0
        kept = [p for p, content in made.items() if (p.read_bytes(), p.stat().st_mtime_ns) == content]
        assert len(kept) >= journalled


def test_an_interruption_before_anything_began_says_that_too(tiny) -> None:  # type: ignore[no-untyped-def]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("imfbench.config.load", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        result = CliRunner().invoke(main, ["run", str(tiny.config())])
    assert result.exit_code == 130
    assert "stopped; nothing was begun. Go on with the same command:" in result.output
