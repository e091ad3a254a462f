"""What fails in one utterance stays there: memory that runs out, a scorer that raises; and what a training says."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from imfbench.config import load
from imfbench.devices import memory_told, memory_words, out_of_memory
from imfbench.flow.counting import CountMismatchError
from imfbench.metrics.base import ScoreItem
from imfbench.metrics.sim import SpeakerSimilarity
from imfbench.pipeline import synthesise as synthesise_stage
from imfbench.pipeline.context import Context, RunError
from imfbench.pipeline.score_workers import Recipe, by_processes
from imfbench.pipeline.train_task import TrainTask, lacking_memory
from imfbench.plugins import load_file
from imfbench.store import RunFolder, read_json, write_json
from imfbench.train_settings import TrainConfig
from imfbench.training import MEMORY, Training

OWN = "own 1 NFE uniform"


def too_much() -> None:
    """More memory than any machine has: the system's own refusal, as torch tells it on the CPU."""
    torch.empty(1 << 50)


def on_a_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.\nSee the documentation")


def in_numpy() -> None:
    np.empty(1 << 60, np.uint8)


def in_onnx() -> None:
    raise RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory for requested buffer")


SHORTAGES = [too_much, on_a_gpu, in_numpy, in_onnx]


@pytest.mark.parametrize("shortage", SHORTAGES)
def test_every_library_is_understood_when_memory_runs_out(shortage: Callable[[], None]) -> None:
    with pytest.raises((MemoryError, RuntimeError)) as caught:
        shortage()
    assert out_of_memory(caught.value)
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not out_of_memory(ValueError("out of memory"))


def test_memory_that_runs_out_in_one_utterance_fails_that_row(tiny, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    """Also where it is the first, which memory is measured on: the others are made, and the same command makes it later."""
    path = tiny.config(dataset={"limit": 3, "prefer_short": True}, references=[])
    sample, seen = synthesise_stage.synthesize_mel, []

    def sampled(method: Any, condition: Any, utterance: str, *rest: Any) -> Any:
        if utterance not in seen:
            seen.append(utterance)
        if utterance == seen[0]:
            too_much()
        return sample(method, condition, utterance, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(synthesise_stage, "synthesize_mel", sampled)
        result = tiny.invoke(path)
    assert result.exit_code == 0, result.output
    table = tiny.tables()[OWN]
    assert sorted(table["status"]) == ["failed", "ok", "ok"]
    reason = table.loc[seen[0], "reason"]
    assert "memory ran out: a shorter prompt, a smaller network, --set precision=bf16" in reason
    assert len(reason.splitlines()) == 1
    assert reason in " ".join(result.output.split())
    (row,) = tiny.leaderboard()
    assert (row["n_expected"], row["n_scored"]) == (3, 2)
    assert row["peak_memory"] > 0, "it is measured on the first utterance that can be sampled"
    assert tiny.invoke(path).exit_code == 0
    assert set(tiny.tables()[OWN]["status"]) == {"ok"}


@pytest.mark.parametrize("step", [0, 3])
def test_memory_that_runs_out_in_training_says_what_to_lower(tiny, monkeypatch: pytest.MonkeyPatch, step: int) -> None:  # type: ignore[no-untyped-def]
    """In the rehearsal at once, or after three steps, which are kept though only every hundredth is saved."""
    training = {"steps": 4, "frames_per_batch": 400, "save_every": 100, "precision": "fp32"}
    path = tiny.config(systems=tiny.trained, references=[], training=training)
    gradients = Training.gradients

    def short(self: Training, *arguments: Any) -> Any:
        if self.step == step and (step == 0 or self.folder.name == "own"):
            on_a_gpu()
        return gradients(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "gradients", short)
        told = tiny.refused(path)
    assert told.startswith("imfbench: own: memory ran out while training (OutOfMemoryError: CUDA out of memory. Tried")
    assert "Lower training.frames_per_batch (now 400) and raise training.accumulate (now 1)" in told
    assert "at most 400 frames a batch" in told
    assert "9.66 GB more were asked for" in told
    assert " GB are free beside it" in told
    assert ("GB when it was measured" in told) == (step > 0)
    assert len(told.splitlines()) == 1
    folder = tiny.out / "artefacts" / "own"
    assert (folder / "checkpoint.pt").is_file() == (step > 0)
    if step:
        assert torch.load(folder / "checkpoint.pt", weights_only=True)["step"] == 3
        assert tiny.invoke(path, command="train").exit_code == 0
        assert tiny.invoke(path, command="train", out=tiny.folder / "whole").exit_code == 0
        name = "artefacts/own/model.safetensors"
        assert (tiny.out / name).read_bytes() == (tiny.folder / "whole" / name).read_bytes()


def test_memory_that_runs_out_within_an_update_saves_nothing_half_done(tiny, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    path = tiny.config(systems=tiny.trained, references=[], training={"steps": 4, "frames_per_batch": 400})
    update = torch.optim.AdamW.step

    def short(self: Any, *arguments: Any, **options: Any) -> Any:
        update(self, *arguments, **options)
        if len(calls) == 4:  # two steps of the rehearsal, two of the training
            on_a_gpu()
        calls.append(0)

    calls: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", short)
        assert "memory ran out while training" in tiny.refused(path)
    assert not (tiny.out / "artefacts" / "own" / "checkpoint.pt").exists()


def test_memory_that_runs_out_in_a_search_fails_its_rows_alone(tiny, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    own = {"method": "teacher", "name": "own", "artefact": str(tiny.artefact()), "nfe": [1]}
    own["search"] = {"method": "o3s", "nfe": [2], "score": "sim", "config": {"max_evaluations": 2}}
    monkeypatch.setattr("imfbench.pipeline.search.synthesize_mel", lambda *_: on_a_gpu())
    result = tiny.invoke(tiny.config(systems=[own], references=[]))
    assert result.exit_code == 1
    status = {row["system"]: row["status"] for row in tiny.leaderboard()}
    assert status["own"] == "ok"
    assert status["own+o3s"].startswith("failed: OutOfMemoryError")
    assert "memory ran out: a shorter prompt" in status["own+o3s"]


# --- scorers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("shapes cannot be\nmultiplied"), "RuntimeError: shapes cannot be multiplied"),
        (IndexError("list index out of range"), "IndexError: list index out of range"),
        (MemoryError(), "MemoryError; memory ran out: "),
    ],
)
def test_a_scorer_that_raises_on_one_utterance_scores_the_others(  # type: ignore[no-untyped-def]
    tiny, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    path = tiny.config(dataset={"limit": 3, "prefer_short": True}, references=["ground-truth"], systems=[])
    observe, seen = SpeakerSimilarity.observe, []

    def observed(self: SpeakerSimilarity, item: ScoreItem) -> dict[str, Any]:
        seen.append(item.id)
        if len(seen) == 2:
            raise error
        return observe(self, item)

    with monkeypatch.context() as patch:
        patch.setattr(SpeakerSimilarity, "observe", observed)
        result = tiny.invoke(path)
    assert result.exit_code == 0, result.output
    (table,) = tiny.tables().values()
    assert words in table.loc[seen[1], "sim_error"]
    assert list(table.loc[[seen[0], seen[2]], "sim_error"].isna()) == [True, True]
    assert list(table["status"]) == ["ok"] * 3
    (row,) = tiny.leaderboard()
    assert (row["n_expected"], row["n_scored"]) == (3, 2)
    assert tiny.invoke(path).exit_code == 0
    assert len(seen) == 3
    assert tiny.leaderboard()[0]["n_scored"] == 3, "a failure is not cached: the same command tries it again"


def test_a_scorer_whose_model_cannot_be_loaded_fails_once_and_the_others_score(  # type: ignore[no-untyped-def]
    tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def broken(self: SpeakerSimilarity) -> None:
        tries.append(0)
        raise OSError("libcublas.so.12: cannot open shared object file")

    monkeypatch.setattr(SpeakerSimilarity, "open_model", broken)
    path = tiny.config(references=["ground-truth"], systems=[], metrics=["sim", "f0cv"])
    result = tiny.invoke(path)
    assert result.exit_code == 1
    assert len(tries) == 1, "not once an utterance"
    (row,) = tiny.leaderboard()
    assert row["f0cv"] > 0
    told = "LoadError: the model of metric 'sim' cannot be loaded: OSError: libcublas.so.12: cannot open shared object file"
    assert row["not_measured"]["sim"] == told
    assert told in " ".join(result.output.split())


HUNGRY = '''
import multiprocessing, os, signal
from imfbench.metrics.prosody import PitchVariation
from imfbench.metrics.signature import Signature
from imfbench.registry import METRICS

@METRICS.register("hungry")
class Hungry(PitchVariation):
    """How long it is; the first process that is asked is ended as the system does it when memory runs out."""
    name = "hungry"
    columns = summary_columns = ("length",)
    signature = model_signature = Signature("hungry", 1, unit="s")
    def open_model(self):
        return self
    def observe(self, item):
        try:
            open({marker!r}, "x").close()
        except FileExistsError:
            return {{"seconds": len(item.audio) / item.sample_rate}}
        assert multiprocessing.parent_process() is not None
        os.kill(os.getpid(), signal.SIGKILL)
    def row(self, item, observation):
        return {{"length": observation["seconds"]}}
'''


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("fresh_plugins")
def test_a_process_that_scores_and_is_killed_stops_the_run_and_the_same_command_ends(tiny) -> None:  # type: ignore[no-untyped-def]
    plugin, marker = tiny.folder / "hungry.py", tiny.folder / "killed"
    plugin.write_text(HUNGRY.format(marker=str(marker)))
    load_file(plugin)
    path = tiny.config(references=["ground-truth"], systems=[], metrics=["hungry"])
    assert tiny.invoke(path, command="synthesize").exit_code == 0
    result = tiny.invoke(path, "workers=2", command="score")
    assert marker.is_file()
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    told = "imfbench: a process that scores hungry was ended from outside, most likely because memory ran out: each of the 2 --w"
    assert told in result.output
    assert result.output.strip().endswith("what is scored is kept, so repeat the command with fewer")
    assert tiny.invoke(path, command="score").exit_code == 0
    (table,) = tiny.tables().values()
    assert table["length"].gt(0).tolist() == [True, True]
    assert table["hungry_error"].isna().all()


LETHAL = '''
import multiprocessing, os, signal
from imfbench.features.griffin_lim import GriffinLim
from imfbench.registry import VOCODERS

@VOCODERS.register("lethal")
class Lethal(GriffinLim):
    """The first process that samples with it is ended as the system does it when memory runs out."""
    name = "lethal"
    def __init__(self):
        super().__init__(2)
    def __call__(self, mel):
        try:
            open({marker!r}, "x").close()
        except FileExistsError:
            return super().__call__(mel)
        assert multiprocessing.parent_process() is not None
        os.kill(os.getpid(), signal.SIGKILL)
'''


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("fresh_plugins")
def test_a_process_that_samples_and_is_killed_fails_its_rows_and_the_next_command_makes_them(tiny) -> None:  # type: ignore[no-untyped-def]
    plugin = tiny.folder / "lethal.py"
    plugin.write_text(LETHAL.format(marker=str(tiny.folder / "killed")))
    load_file(plugin)
    path = tiny.config(references=[], vocoder="lethal")
    result = tiny.invoke(path, "workers=2")
    assert result.exit_code == 1, result.output
    told = "WorkerError: the worker's process ended (SIGKILL, which is what the system does to a process when memory runs out"
    (table,) = tiny.tables().values()
    assert table["reason"].str.startswith(told).tolist() == [True, True]
    assert table["sim_error"].tolist() == table["reason"].tolist()
    (row,) = tiny.leaderboard()
    assert row["status"].startswith(f"failed: {told}")
    assert tiny.invoke(path).exit_code == 0  # in this process, which is there already
    (table,) = tiny.tables().values()
    assert table["status"].tolist() == ["ok", "ok"]
    assert table["reason"].isna().all()
    (row,) = tiny.leaderboard()
    assert (row["status"], row["n_scored"]) == ("ok", 2)


def test_the_reason_of_a_row_whose_job_failed_outlives_the_command(tiny, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    """Whichever command comes next, until one that samples."""

    def miscounted(*_: Any) -> None:
        raise CountMismatchError("2 network calls instead of 1")

    path = tiny.config(references=[])
    with monkeypatch.context() as patch:
        patch.setattr(synthesise_stage, "synthesize_mel", miscounted)
        assert tiny.invoke(path, command="synthesize").exit_code == 1
    told = "CountMismatchError: 2 network calls instead of 1"
    assert tiny.invoke(path, command="report").exit_code == 0
    assert [row["status"] for row in tiny.leaderboard()] == [f"failed: {told}"]
    for metrics in ("[sim]", "[sim, f0cv]"):
        assert tiny.invoke(path, f"metrics={metrics}", command="score").exit_code == 0
        (table,) = tiny.tables().values()
        assert set(table["reason"]) == {told}
    assert tiny.invoke(path).exit_code == 0
    assert [row["status"] for row in tiny.leaderboard()] == ["ok"]
    assert read_json(tiny.out / "manifest.json")["failures"] == {}


def test_a_process_that_cannot_begin_to_score_says_why(tmp_path: Path) -> None:
    gone = tmp_path / "gone.py"
    recipe = Recipe("sim", {}, "cpu", 1, tmp_path / "scores", "only-missing", (gone,))
    with pytest.raises(RunError) as error:
        list(by_processes(recipe, 2, [None]))  # type: ignore[list-item]
    told = str(error.value)
    assert told.startswith("a process that is to score sim cannot begin: FileNotFoundError: ")
    assert str(gone) in told
    assert told.endswith("; mend that, or repeat the command with --workers 1")
    assert "memory" not in told


CUDA = (
    "CUDA out of memory. Tried to allocate 1.50 GiB. GPU 0 has a total capacity of 79.11 GiB of which 512.00 MiB is free. "
    "Including non-PyTorch memory, this process has 78.60 GiB memory in use. Of the allocated memory 76.00 GiB is allocated by "
    "PyTorch, and 1.20 GiB is reserved by PyTorch but unallocated."
)
CPU = (
    "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes."
)


def test_the_numbers_are_those_that_the_allocators_measured() -> None:
    assert memory_told(torch.OutOfMemoryError(CUDA)) == (round(1.5 * 2**30), 76 * 2**30)
    assert memory_told(RuntimeError(CPU)) == (4096, None)
    assert memory_told(MemoryError()) == (None, None)
    assert memory_words(torch.OutOfMemoryError(CUDA)) == "83.2 GB were needed, of which 81.6 GB were there"
    assert memory_words(RuntimeError(CPU)) == "4.1e-06 GB more were asked for"
    assert memory_words(MemoryError()) == ""


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.OutOfMemoryError(CUDA), "83.2 GB were needed, of which 81.6 GB were there"),
        (RuntimeError(CPU), "4.1e-06 GB more were asked for"),
    ],
)
def test_a_training_without_memory_tells_measured_numbers(tiny, error: Exception, words: str) -> None:  # type: ignore[no-untyped-def]
    settings = TrainConfig.model_validate({"steps": 1, "frames_per_batch": 400})
    config = load(str(tiny.config(systems=tiny.trained)))
    context = Context(config, RunFolder(tiny.out))
    told = lacking_memory(error, TrainTask("train", "own", settings), context)
    assert words in told
    assert "a step took" not in told, "none was measured"
    (tiny.out / "artefacts" / "own").mkdir(parents=True)
    write_json(tiny.out / "artefacts" / "own" / MEMORY, {"bytes": 2_500_000_000, "kind": "allocator"})
    assert "a step took 2.5 GB when it was measured" in lacking_memory(
        error, TrainTask("train", "own", settings), context
    )
