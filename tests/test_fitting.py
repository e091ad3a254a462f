"""Batches for a budget of memory: the largest that fit, the step's size kept, nothing run that is bound to be too large."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from imfbench import fitting
from imfbench.building import build_method
from imfbench.config_file import ConfigError
from imfbench.data import Example, training_batches
from imfbench.fitting import HEADROOM, Peak, fit, search
from imfbench.method import Batch
from imfbench.train_settings import TrainConfig, bytes_of

CPU = torch.device("cpu")
SHAPE = {"bands": 8, "tokens": 12, "dim": 32, "depth": 2, "heads": 2}
STEADY = 1000


class Machine:
    """A step of n frames takes 1000 + 2n + n²/100 bytes; beyond ``room`` memory runs out."""

    def __init__(self, room: float = math.inf) -> None:
        self.room, self.ran = room, []

    def __call__(self, frames: int, batches: int) -> Peak | None:
        self.ran.append(frames)
        taken = STEADY + 2 * frames + frames**2 // 100
        return None if taken > self.room else Peak(taken, "made up", STEADY)


def settings(memory: int, frames: int = 1000, accumulate: int = 1, processes: int = 1) -> TrainConfig:
    return TrainConfig(memory=memory, frames_per_batch=frames, accumulate=accumulate, processes=processes)


@pytest.mark.parametrize("budget", [1400, 2000, 3000, 5000, 9000, 50_000])
@pytest.mark.parametrize("processes", [1, 3])
def test_the_largest_batches_that_fit_are_found(budget: int, processes: int) -> None:
    machine = Machine()
    found = search(settings(budget, processes=processes), 40, machine)
    assert found.peak * HEADROOM <= budget
    assert found.accumulate % processes == 0
    step = found.frames_per_batch * found.accumulate
    assert 1000 <= step < 1000 + found.accumulate, "the step keeps its frames, up to what a division leaves"
    assert all(Machine()(n, 1).bytes <= 1.6 * budget for n in machine.ran), "nothing far too large is run"
    larger = found.accumulate // processes - 1
    if larger:
        frames = math.ceil(1000 / (larger * processes))
        slack = 1 if larger < 4 else 1.35  # a few cuts do not try every number of batches
        assert Machine()(frames, 1).bytes * HEADROOM * slack > budget


def test_memory_that_runs_out_on_the_way_is_too_large() -> None:
    found = search(settings(50_000), 40, Machine(room=2000))
    assert found.peak <= 2000
    assert None in found.measured.values()


def test_what_never_fits_says_what_it_needs_and_what_to_lower() -> None:
    with pytest.raises(ConfigError) as error:
        search(settings(1050), 40, Machine())
    told = str(error.value)
    assert "too little" in told
    assert "40 frames each" in told
    assert "weights, gradients, optimiser, average and teacher" in told
    assert "training.checkpoint_activations=true" in told


class Tones:
    """Rows of two lengths."""

    def batches(self, frames_per_batch: int, seed: int, start_step: int = 0) -> Iterator[Batch]:
        g = torch.Generator().manual_seed(0)
        examples = [
            Example(f"e{i}", "s", torch.randn(n, 8, generator=g), torch.ones(n, dtype=torch.int64))
            for i, n in enumerate((16, 24, 40, 40))
        ]
        return training_batches(examples, frames_per_batch, seed, start_step, seconds_per_frame=0.2, pool=12)


@pytest.mark.slow
def test_a_real_training_is_fitted_by_running_it() -> None:
    """The fit's own peak is what ``step_memory`` measures at its settings, and half the budget gives smaller batches."""
    method = build_method("teacher", {}, backbone_config=SHAPE)
    before = [p.clone() for p in method.network.parameters()]
    config = TrainConfig(frames_per_batch=800, precision="fp32", memory=10**9)
    free = fit(method, Tones(), config, CPU)
    assert (free.frames_per_batch, free.accumulate) == (800, 1)
    less = fit(method, Tones(), config.model_copy(update={"memory": round(0.7 * free.peak)}), CPU)
    assert less.accumulate > 1
    assert less.peak * HEADROOM <= 0.7 * free.peak
    assert less.kind == "cpu-live-tensors"
    assert all(torch.equal(a, b) for a, b in zip(before, method.network.parameters(), strict=True))


def test_more_than_is_free_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "available_memory", lambda _: 5 * 10**9)
    method = build_method("teacher", {}, backbone_config=SHAPE)
    with pytest.raises(ConfigError, match=r"24 GB, but only 5 GB are free"):
        fit(method, Tones(), settings(24 * 10**9), CPU)


@pytest.mark.parametrize(
    ("written", "bytes"),
    [("24GB", 24 * 10**9), ("1.5 gb", 1_500_000_000), ("16GiB", 16 * 2**30), (12345, 12345), (None, None)],
)
def test_sizes_as_people_write_them(written: Any, bytes: int | None) -> None:
    assert bytes_of(written) == bytes
    assert TrainConfig(memory=written).memory == bytes


@pytest.mark.parametrize("written", ["24 apples", "GB", "-3GB", "0GB", True])
def test_what_is_no_size_is_refused(written: Any) -> None:
    with pytest.raises(ValueError, match="no size of memory"):
        bytes_of(written)
