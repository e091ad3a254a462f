"""Whole runs on the embedded corpus: a network trained for a few steps, real sampling, a real scorer; small, not faked."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file

from imfbench import experiment
from imfbench.artefact import load_artefact, save_artefact
from imfbench.building import build_method
from imfbench.config import load
from imfbench.config_file import ConfigError
from imfbench.datasets.demo.corpus import DATA
from imfbench.features.griffin_lim import GriffinLim
from imfbench.pipeline import search as search_stage
from imfbench.pipeline import synthesise as synthesise_stage
from imfbench.pipeline import train as train_stage
from imfbench.pipeline import train_task, work
from imfbench.pipeline.context import Context
from imfbench.progress import Reporting, log
from imfbench.registry import VOCODERS
from imfbench.store import RunFolder, read_json

OWN = "own 2 NFE uniform"
STAGES = ("train", "synthesise", "score")
TIMED = ("seconds", "rtf", "start", "end")  # what no two runs share
KEPT = ("seconds", "rtf_n")


def config_file(folder: Path, root: Path = DATA, **changes: Any) -> Path:
    options = {"options": {"root": str(root)}}
    small = {"name": "dit", "config": {"dim": 32, "depth": 1, "heads": 2, "content_layers": 1}}
    values: dict[str, Any] = {
        "name": "small",
        "dataset": {"limit": 2, "prefer_short": True, **options},
        "dev": {"limit": 1, **options},
        "train_data": {"options": {"root": str(DATA)}},
        "training": {"steps": 4, "frames_per_batch": 400, "save_every": 1, "log_every": 1},
        "systems": [{"method": "teacher", "name": "own", "network": small, "nfe": [2]}],
        "metrics": ["sim"],
        "vocoder": "griffin-lim",
        "threads": 1,
        "device": "cpu",
        "score_cache": str(folder / "scores"),
        **changes,
    }
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def run(path: Path, out: Path, *settings: str, stages: tuple[Any, ...] = STAGES) -> Context:
    return experiment.run(load(str(path), settings), out, stages, Reporting(terminal=False))


def summaries(out: Path) -> dict[str, dict[str, Any]]:
    """Label → summary, without what is timed."""
    found = {}
    for path in sorted(out.glob("cells/*/summary.json")):
        row = json.loads(path.read_text())
        row = {k: v for k, v in row.items() if k in KEPT or not any(word in k for word in TIMED)}
        found[str(read_json(path.parent / "cell.json")["row"])] = row
    return found


def figures(out: Path) -> dict[str, pd.DataFrame]:
    """Label → utterances, without what is timed."""
    found = {}
    for path in sorted(out.glob("cells/*/utterances.parquet")):
        frame = pd.read_parquet(path)
        label = str(read_json(path.parent / "cell.json")["row"])
        found[label] = frame[[c for c in frame if c in KEPT or not any(w in c for w in TIMED)]]
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small.yaml and a finished run of it in out/."""
    folder = tmp_path_factory.mktemp("finished")
    context = run(config_file(folder), folder / "out")
    assert context.failures == {}
    return folder


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """The finished run again, to be changed."""
    shutil.copytree(finished, tmp_path / "copy")
    return tmp_path / "copy"


def test_a_run_leaves_what_the_design_promises(finished: Path) -> None:
    out = finished / "out"
    rows = summaries(out)
    assert sorted(rows) == ["ground-truth", OWN, "vocoded-ground-truth"]
    own = rows[OWN]
    assert own["n_expected"] == 2
    assert (own["steps"], own["nfe"], own["network_calls"], own["guidance"]) == (2, 2, 4, 2.0)
    assert own["train_steps"] == 4
    assert own["peak_memory"] > 0
    assert own["signatures"]["sim"].startswith("sim-v")
    assert rows["ground-truth"]["status"] == "ok"
    assert rows["ground-truth"]["not_measured"]["rtf_network"]
    assert rows["vocoded-ground-truth"]["vocoder"].startswith("griffin-lim")
    manifest = read_json(out / "manifest.json")
    assert manifest["status"] == "ok"
    assert manifest["artefacts"]["own"]["sha256"] == own["artefact_sha256"]
    assert manifest["packages"]["torch"]
    table = next(frame for frame in figures(out).values() if frame["nfe"].notna().all())
    assert list(table["status"]) == ["ok", "ok"]
    assert all((out / "cells" / own["key"] / path).is_file() for path in table["audio"])
    assert table["audio_sha256"].nunique() == 2


def test_every_missing_figure_has_a_reason(finished: Path) -> None:
    columns = ("rtf_network", "rtf_vocoder", "rtf_total", "peak_memory", "sim", "train_steps", "train_seed", "method")
    for path in (finished / "out").glob("cells/*/summary.json"):
        row = json.loads(path.read_text())
        for column in columns:
            assert (row[column] is None) == (column in row["not_measured"]), (row["system"], column)


def test_a_repeated_run_does_nothing_and_changes_no_figure(copy: Path) -> None:
    out = copy / "out"
    kept = ["artefacts/own/model.safetensors", *(str(p.relative_to(out)) for p in out.glob("cells/*/utterances.jsonl"))]
    before = {name: (out / name).read_bytes() for name in kept}
    shown = summaries(out)
    run(copy / "small.yaml", out)
    assert {name: (out / name).read_bytes() for name in kept} == before
    assert summaries(out) == shown
    assert len(read_json(out / "manifest.json")["runs"]) == 2


def test_a_killed_run_ends_with_the_figures_of_one_that_was_not(finished: Path, tmp_path: Path) -> None:
    """Ctrl-C in the training, the same command, SIGKILL in the synthesis, the same command once more."""
    path, out = config_file(tmp_path), tmp_path / "out"
    program = "import sys; from imfbench.cli import main; sys.argv[0] = 'imfbench'; main()"
    command = [sys.executable, "-P", "-c", program, "run", str(path), "--out", str(out)]
    told = {}
    for begun, how in (("artefacts/own/checkpoint.pt", signal.SIGINT), ("cells/*/audio/*.flac", signal.SIGKILL)):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        while process.poll() is None and not list(out.glob(begun)):
            time.sleep(0.002)
        process.send_signal(how)
        _, told[how] = process.communicate()
        assert process.returncode == {signal.SIGINT: 130, signal.SIGKILL: -signal.SIGKILL}[how], told
    assert "Go on with the same command:\n  imfbench run" in told[signal.SIGINT]
    assert "Traceback" not in told[signal.SIGINT]
    run(path, out)
    one, other = (load_file(folder / "artefacts/own/model.safetensors") for folder in (finished / "out", out))
    assert all(torch.equal(one[name], other[name]) for name in {*one, *other})
    expected, found = figures(finished / "out"), figures(out)
    assert sorted(expected) == sorted(found)
    for label in expected:
        pd.testing.assert_frame_equal(expected[label], found[label])
    files = ("key", "artefact_sha256")
    for label, row in summaries(finished / "out").items():
        again = summaries(out)[label]
        assert {k: v for k, v in row.items() if k not in files} == {k: v for k, v in again.items() if k not in files}


def test_a_larger_limit_keeps_what_was_made(copy: Path) -> None:
    out = copy / "out"
    before = {p.parent.name: p.read_bytes() for p in out.glob("cells/*/utterances.jsonl")}
    run(copy / "small.yaml", out, "dataset.limit=3")
    after = {p.parent.name: p.read_bytes() for p in out.glob("cells/*/utterances.jsonl")}
    assert all(after[key].startswith(rows) and len(after[key]) > len(rows) for key, rows in before.items())
    assert {row["n_expected"] for row in summaries(out).values()} == {3}
    run(copy / "small.yaml", out, "dataset.limit=1")
    assert {row["n_expected"] for row in summaries(out).values()} == {1}
    assert {len(frame) for frame in figures(out).values()} == {1}


def test_another_step_count_uses_the_same_artefact_and_only_asked_rows_are_shown(copy: Path) -> None:
    out = copy / "out"
    weights = (out / "artefacts/own/model.safetensors").read_bytes()
    run(copy / "small.yaml", out, "systems.own.nfe=[1]")
    work.report(Context(load(str(copy / "small.yaml"), ("systems.own.nfe=[1]",)), RunFolder(out)), "leaderboard")
    assert (out / "artefacts/own/model.safetensors").read_bytes() == weights
    assert sorted(summaries(out)) == ["ground-truth", "own 1 NFE uniform", "vocoded-ground-truth"]
    assert (out / "leaderboard" / "leaderboard.md").is_file()


def test_each_length_is_warmed_up_before_it_is_timed(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[tuple[str, int]] = []
    warm_up, sample = synthesise_stage.warm_up, synthesise_stage.synthesize_mel

    def warmed(method: Any, condition: Any, *others: Any) -> None:
        events.append(("warm", condition.valid.shape[1]))
        warm_up(method, condition, *others)

    def sampled(method: Any, condition: Any, *others: Any) -> Any:
        events.append(("pass", condition.valid.shape[1]))
        return sample(method, condition, *others)

    class Prepared(GriffinLim):
        def prepare(self, frames: int) -> None:
            events.append(("prepared", frames))

        def __call__(self, mel: torch.Tensor) -> np.ndarray:
            events.append(("vocoded", len(mel)))
            return super().__call__(mel)

    monkeypatch.setattr(synthesise_stage, "warm_up", warmed)
    monkeypatch.setattr(synthesise_stage, "synthesize_mel", sampled)
    monkeypatch.setattr(VOCODERS, "get", lambda _: Prepared)
    run(copy / "small.yaml", copy / "out", "systems.own.nfe=[1, 3]", "dataset.limit=4", stages=("synthesise",))
    monkeypatch.undo()
    lengths = [frames for what, frames in events if what == "warm"]
    assert len(set(lengths)) >= 3
    assert len(lengths) == 4 + 4, "each utterance of both rows: a library forgets lengths"
    for i, (what, frames) in enumerate(events):
        if what == "warm":  # the passes before are those of the row's warm-up and of its memory
            assert events[i + 1] == ("pass", frames)
    vocoded = [i for i, (what, _) in enumerate(events) if what == "vocoded"]
    assert all(("prepared", events[i][1]) in events[:i] for i in vocoded[1:]), "the first is the warm-up"


def test_other_training_settings_under_the_same_name_are_refused(copy: Path) -> None:
    with pytest.raises(ConfigError, match=r"training\.learning_rate 0\.0003 → 0\.001.*another name"):
        run(copy / "small.yaml", copy / "out", "training.learning_rate=0.001")


def test_a_time_budget_becomes_steps_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, out = config_file(tmp_path, training={"minutes": 0.002, "frames_per_batch": 400}), tmp_path / "out"
    run(path, out, stages=("train",))
    recorded = yaml.safe_load((out / "experiment.yaml").read_text())["systems"][0]
    assert recorded["timed_minutes"] == 0.002
    assert recorded["train"]["steps"] == read_json(out / "artefacts/own/status.json")["steps"]

    def never(*_: Any) -> int:
        raise AssertionError("timed twice")

    monkeypatch.setattr(train_task, "budget_to_steps", never)
    run(path, out, stages=("train",))
    run(out / "experiment.yaml", out, stages=("train",))
    RunFolder(out).experiment.unlink()
    run(path, out, stages=("train",))  # the artefact's recipe knows as well
    with pytest.raises(AssertionError, match="timed twice"):
        train_stage.train_artefact(Context(load(str(path), ("training.minutes=0.003",)), RunFolder(out)), "own")


def test_steps_that_were_asked_for_are_not_taken_for_timed_ones(copy: Path) -> None:
    path = config_file(copy, training={"minutes": 0.2, "frames_per_batch": 400, "save_every": 1, "log_every": 1})
    run(path, copy / "out", "training.steps=4", stages=("train",))
    with pytest.raises(ConfigError, match=r"training\.steps 4 →"):
        run(path, copy / "out", stages=("train",))


def test_a_diverged_training_is_a_row_and_the_run_goes_on(tmp_path: Path) -> None:
    training = {"steps": 60, "frames_per_batch": 300, "learning_rate": 1e18, "warmup": 0, "schedule": "constant"}
    dataset = {"limit": 1, "options": {"root": str(DATA)}}
    own = {**yaml.safe_load(config_file(tmp_path).read_text())["systems"][0]}
    own["search"] = {"method": "o3s", "nfe": [2], "score": "sim", "config": {"max_evaluations": 3}}
    path = config_file(tmp_path, training=training, dataset=dataset, systems=[own])
    context = run(path, tmp_path / "out", stages=("train", "search", "synthesise", "score"))
    assert context.failures == {}
    assert read_json(tmp_path / "out" / "manifest.json")["status"] == "ok"
    rows = summaries(tmp_path / "out")
    assert rows["own+o3s 2 NFE searched"]["status"] == "diverged"
    assert rows[OWN]["train_frames_per_batch"] == 300
    assert rows[OWN]["status"] == "diverged"
    assert rows[OWN]["not_measured"]["sim"] == "diverged"
    assert rows[OWN]["train_steps"] < 60
    assert rows["ground-truth"]["status"] == "ok"
    assert rows["ground-truth"]["sim"] > 0


def test_a_search_without_any_score_fails_alone_and_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = config_file(tmp_path)
    values = yaml.safe_load(path.read_text())
    values["systems"][0]["search"] = {"method": "o3s", "nfe": [2], "score": "sim", "config": {"max_evaluations": 2}}
    path.write_text(yaml.safe_dump(values))
    monkeypatch.setattr(search_stage, "_metric_score", lambda *_: lambda mels: float("nan"))
    monkeypatch.setattr(log, "propagate", True)
    context = run(path, tmp_path / "out", stages=("train", "search", "synthesise", "score"))
    assert list(context.failures.values()) == ["SearchError: own+o3s-2: no grid could be scored on the development set"]
    rows = summaries(tmp_path / "out")
    assert rows[OWN]["status"] == "ok"
    assert [row["status"].partition(":")[0] for label, row in rows.items() if "searched" in label] == ["failed"]
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert {record.getMessage() for record in errors} == {
        f"search:own+o3s-2 failed, the run goes on: {context.failures['search:own+o3s-2']}"
    }
    assert all(record.exc_info is None for record in errors)
    recipe_of = search_stage.recipe_of_search(context, next(iter(context.plan.searches.values())), [], "")
    assert recipe_of["vocoder"].startswith("griffin-lim")


def test_what_the_training_of_a_ready_network_cost_is_no_figure_of_the_run(copy: Path) -> None:
    ready = {"method": "teacher", "name": "ready", "artefact": str(copy / "out" / "artefacts" / "own"), "nfe": [2]}
    path = config_file(copy, systems=[ready], references=[])
    run(path, copy / "ready")
    (summary,) = [json.loads(p.read_text()) for p in (copy / "ready").glob("cells/*/summary.json")]
    assert (summary["train_steps"], summary["train_frames_per_batch"]) == (4, 400)
    for column in ("train_seconds_per_step", "train_peak_memory"):
        assert summary[column] is None
        assert summary["not_measured"][column].startswith("trained elsewhere")
    assert summary["trained_guidance"] is None
    assert "while sampling" in summary["not_measured"]["trained_guidance"]


def test_other_minutes_make_recorded_steps_outdated(tmp_path: Path) -> None:
    timed = {"method": "teacher", "name": "own", "nfe": [2], "train": {"steps": 7}, "timed_minutes": 2}
    path = config_file(tmp_path, systems=[timed], training={"minutes": 2})
    folder = RunFolder(tmp_path / "out")
    kept, other = (Context(load(str(path), s), folder).config.systems[0] for s in ((), ("training.minutes=3",)))
    assert (kept.train, kept.timed_minutes) == ({"steps": 7}, 2)
    assert (other.train, other.timed_minutes) == ({}, None)


def test_an_utterance_that_fails_is_counted(copy: Path, tmp_path: Path) -> None:
    """One prompt and one target are no audio: rows with a reason, beside utterances that are well."""
    damaged = tmp_path / "corpus"
    for file in DATA.rglob("*"):
        if file.is_file():
            link = damaged / file.relative_to(DATA)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file)
    line = (DATA / "test" / "meta.lst").read_text().splitlines()[0].split("|")
    for name in (line[2], line[4]):
        (damaged / "test" / name).unlink()
        (damaged / "test" / name).write_text("no audio")
    dataset = {"split": "test", "options": {"root": str(damaged)}, "limit": 1}
    path = config_file(copy, dataset=dataset)
    run(path, copy / "out", "dataset.limit=5")
    rows = {k: v for k, v in summaries(copy / "out").items() if v["n_expected"] == 5}
    for label in ("ground-truth", OWN):
        frame = pd.read_parquet(copy / "out/cells" / rows[label]["key"] / "utterances.parquet").set_index("id")
        assert len(frame) == 5
        assert frame.loc[line[0], "status"] == "failed"
        assert "cannot be decoded" in frame.loc[line[0], "reason"]
        assert (frame["status"] == "ok").sum() >= 1
        assert rows[label]["n_scored"] < 5
    assert rows["ground-truth"]["status"] == "ok"


def test_only_cache_scores_from_the_cache_alone(copy: Path) -> None:
    out = copy / "out"
    before = summaries(out)
    run(copy / "small.yaml", out, "overwrite=only-cache")
    assert summaries(out) == before
    run(copy / "small.yaml", out, "overwrite=only-cache", f"score_cache={copy / 'empty'}")
    row = summaries(out)["ground-truth"]
    assert row["n_scored"] == 0
    assert "not in the score cache" in row["not_measured"]["sim"]
    run(copy / "small.yaml", out, f"score_cache={copy / 'empty'}")
    assert summaries(out) == before


def test_audio_that_was_changed_is_not_scored(copy: Path) -> None:
    out = copy / "out"
    row = summaries(out)["ground-truth"]
    (file, *_) = sorted((out / "cells" / row["key"] / "audio").iterdir())
    file.write_bytes(file.read_bytes()[:-100])
    run(copy / "small.yaml", out, stages=("score",))
    after = summaries(out)["ground-truth"]
    assert (row["n_scored"], after["n_scored"]) == (2, 1)
    run(copy / "small.yaml", out, "overwrite=always")
    assert np.isclose(summaries(out)["ground-truth"]["sim"], row["sim"])


def test_a_stage_without_what_it_needs_says_which_command_gives_it(tmp_path: Path) -> None:
    run(config_file(tmp_path), tmp_path / "out", stages=("synthesise", "score"))
    row = summaries(tmp_path / "out")[OWN]
    assert row["status"].startswith("failed: own is not trained")
    assert "imfbench train" in row["status"]


def test_settings_that_an_imported_file_does_not_tell_are_no_figures(copy: Path) -> None:
    """Its K and guidance, which the method's defaults would be taken for."""
    folder = copy / "imported"
    student = build_method("intmeanflow", {}, load_artefact(copy / "out" / "artefacts" / "own")[0])
    _, card = load_artefact(copy / "out" / "artefacts" / "own")
    kept = {k: v for k, v in card.items() if k not in ("sha256", "training")}
    save_artefact(folder, "intmeanflow", student, {**kept, "unknown": ["teacher_nfe", "guidance"]})
    ready = {"method": "intmeanflow", "name": "ready", "artefact": str(folder), "nfe": [2]}
    run(config_file(copy, systems=[ready], references=[]), copy / "ready")
    (summary,) = [json.loads(p.read_text()) for p in (copy / "ready").glob("cells/*/summary.json")]
    for column in ("teacher_nfe", "trained_guidance"):
        assert summary[column] is None
        assert (
            summary["not_measured"][column]
            == "not known: the file from which the network was imported does not tell it"
        )
