"""A training in two processes: it learns what one process does from the same batches, and ends as a whole."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from process_tasks import CASES, CPU, STEPS, Steps, Tones, Train, method_of, settings
from pydantic import ValidationError

from imfbench.artefact import load_artefact
from imfbench.distribution import ProcessEnded, anywhere, count, summed, together
from imfbench.train_settings import TrainConfig
from imfbench.training import Training, train
from imfbench.training_step import batches_of


@pytest.fixture(scope="module")
def steps() -> tuple[dict[str, Any], dict[str, Any]]:
    """The same steps in one process and in two."""
    told: list[Any] = []
    two = together(Steps(2), 2, CPU, told.append)
    assert told == ["all cases"], "only the first process is heard"
    return Steps(1)(lambda _: None), two


@pytest.mark.parametrize("case", CASES)
def test_two_processes_have_the_gradient_and_the_weights_of_one(
    steps: tuple[dict[str, Any], dict[str, Any]], case: str
) -> None:
    """JVP included. The loss divides by the frames of the whole step, of which each process has another number."""
    (loss, gradient, weights, figures, frames), (loss2, gradient2, weights2, figures2, frames2) = (
        found[case] for found in steps
    )
    assert 0 < frames2 < frames
    assert frames2 != pytest.approx(frames / 2, rel=0.02), "the case must be able to tell a mean of means"
    assert loss2 == pytest.approx(loss, rel=1e-5)
    scale = np.abs(gradient).max()
    np.testing.assert_allclose(gradient2 / scale, gradient / scale, atol=2e-6)
    np.testing.assert_allclose(weights2, weights, atol=2e-5)
    for one, two in zip(figures, figures2, strict=True):
        assert set(one) == set(two)
        assert two == pytest.approx(one, rel=2e-3, abs=1e-6)
    assert [f["step"] for f in figures] == list(range(1, STEPS + 1))


@pytest.mark.slow
def test_a_stopped_training_goes_on_in_another_number_of_processes(tmp_path: Path) -> None:
    """Whichever process is told to stop, all stop after the same step, and the first one has saved it."""
    train(method_of("meanflow, split"), "meanflow", Tones(), settings(1, steps=8), tmp_path / "whole", CPU)
    told: list[Any] = []
    with pytest.raises(ProcessEnded, match="stopped by a signal"):
        together(Train(tmp_path / "parts", 2, "stopped", 1, 5), 2, CPU, told.append)
    assert told[-1] == ("step", 5, 0)
    assert torch.load(tmp_path / "parts" / "checkpoint.pt", weights_only=True)["step"] == 5
    result = Train(tmp_path / "parts", 1)(lambda _: None)
    assert (result.status, result.steps, result.processes) == ("ok", 8, 1)
    one, two = (load_artefact(tmp_path / name)[0].network.state_dict() for name in ("whole", "parts"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=2e-5, rtol=0)
    lines = (tmp_path / "parts" / "log.csv").read_text().splitlines()[1:]
    assert [int(line.partition(",")[0]) for line in lines] == list(range(1, 9)), (
        "one process writes, and each step once"
    )


def test_a_killed_process_ends_the_others_and_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProcessEnded, match=r"process 2 of 2 was ended by SIGKILL.*memory runs out"):
        together(Train(tmp_path, 2, "killed", 1, 3), 2, CPU)
    assert not (tmp_path / "status.json").exists()


def test_memory_that_runs_out_in_one_is_told_as_that(tmp_path: Path) -> None:
    """The other one misses it and complains as well; its complaint is not the reason."""
    with pytest.raises(MemoryError, match="no more of it"):
        together(Train(tmp_path, 2, "memory", 1, 2), 2, CPU)


def test_outside_of_a_group_everything_is_of_one() -> None:
    assert count() == 1
    assert summed([1.5, 2.0], CPU) == [1.5, 2.0]
    assert anywhere(True, CPU)
    assert not anywhere(False, CPU)


def test_processes_take_turns_with_the_batches_of_one() -> None:
    whole = [b.ids for b, _ in zip(batches_of(Tones(), 150, 0, 0, 1), range(9), strict=False)]
    shares = [
        [b.ids for b, _ in zip(batches_of(Tones(), 150, 0, rank, 3), range(3), strict=False)] for rank in range(3)
    ]
    assert [ids for step in zip(*shares, strict=True) for ids in step] == whole


def test_a_dataset_that_knows_strides_makes_no_batch_in_vain() -> None:
    class Strides(Tones):
        def batches(self, frames_per_batch: int, seed: int, start_step: int = 0, stride: int = 1) -> Any:
            asked.append((start_step, stride))
            return Tones.batches(self, frames_per_batch, seed, start_step)

    asked: list[tuple[int, int]] = []
    next(batches_of(Strides(), 150, 0, 4, 2))
    assert asked == [(4, 2)]


def test_batches_that_cannot_be_shared_are_refused_with_what_can() -> None:
    with pytest.raises(ValidationError, match=re.escape("accumulate = 4 with frames_per_batch = 1500")):
        TrainConfig(processes=4, accumulate=3, frames_per_batch=2000)


def test_draws_of_a_batch_are_its_own() -> None:
    """Two batches of one step must not get one stream of draws: it would then matter who takes which."""
    training = Training(method_of("teacher"), Tones(), settings(1, accumulate=2), Path(), CPU)
    micro = next(training.micro_batches())
    training.gradients([micro[0], micro[1]], 30)
    both = [p.grad.clone() for p in training.method.network.parameters()]
    alone = []
    for i in (0, 1):
        training.prepared.zero_grad(set_to_none=True)
        state = training.state(micro, 30)
        state.generator = torch.Generator().manual_seed((settings(1).seed * 1_000_003) * 1_009 + i)
        training.wrapped(micro[i], state)[0].backward()
        alone.append([p.grad.clone() for p in training.method.network.parameters()])
    for whole, first, second in zip(both, *alone, strict=True):
        torch.testing.assert_close(whole, first + second, atol=1e-6, rtol=1e-4)
