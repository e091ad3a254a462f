"""A smoke test for an accelerator (`make test-gpu`): train, distil, synthesise, memory, speed. It skips loudly without one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
import torch

from imfbench.building import build_method
from imfbench.data import Example, training_batches
from imfbench.devices import autocast, dtype_name, free_memory, out_of_memory, resolve_device
from imfbench.flow.grids import make_grid
from imfbench.method import Batch
from imfbench.metrics.memory import peak_memory
from imfbench.metrics.speed import time_passes
from imfbench.sampling import synthesize_mel
from imfbench.training import TrainConfig, train

pytestmark = pytest.mark.gpu
SHAPE = {"dim": 64, "depth": 2, "heads": 2}


@pytest.fixture(scope="module")
def device() -> torch.device:
    found = resolve_device("auto")
    if found.type == "cpu":
        pytest.skip("NO GPU: training, sampling, memory and speed on an accelerator were NOT tested")
    return found


class Noise:
    """Random mels: enough to run everything."""

    def batches(self, frames_per_batch: int, seed: int, start_step: int = 0) -> Iterator[Batch]:
        g = torch.Generator().manual_seed(0)
        examples = [
            Example(f"e{i}", "s", torch.randn(200, 80, generator=g), torch.randint(1, 90, (200,), generator=g))
            for i in range(6)
        ]
        return training_batches(examples, frames_per_batch, seed, start_step)


def test_train_distil_and_sample(device: torch.device, tmp_path: Path) -> None:
    teacher = build_method("teacher", {}, backbone_config=SHAPE)
    config = TrainConfig(steps=20, frames_per_batch=2000, warmup=2, learning_rate=1e-3)
    result = train(teacher, "teacher", Noise(), config, tmp_path / "teacher", device)
    assert result.status == "ok"
    assert result.peak_memory is not None
    assert result.peak_memory > 4 * result.parameters
    assert result.precision == dtype_name(device)
    batch = next(Noise().batches(400, 1))
    condition = batch.condition.rows(torch.tensor([0]))
    on_cpu, _ = synthesize_mel(teacher_on(teacher, "cpu"), condition, "u", make_grid("uniform", 4))
    on_gpu, counts = synthesize_mel(teacher_on(teacher, device), condition, "u", make_grid("uniform", 4), device=device)
    assert counts.network_calls == 8
    torch.testing.assert_close(on_gpu, on_cpu, atol=2e-2, rtol=1e-2)  # the same noise: only rounding differs
    for name in ("meanflow", "intmeanflow"):
        student = build_method(name, {}, teacher)
        outcome = train(student, name, Noise(), config.model_copy(update={"steps": 3}), tmp_path / name, device)
        assert outcome.status == "ok"
        mel, counts = synthesize_mel(student, condition, "u", make_grid("uniform", 1), device=device)
        assert counts.network_calls == 1
        assert bool(torch.isfinite(mel).all())


def teacher_on(method, device):
    method.network.to(device)
    return method


def test_memory_and_time_react_to_work(device: torch.device) -> None:
    teacher = build_method("teacher", {}, backbone_config=SHAPE)
    teacher.network.to(device)
    peaks, seconds = [], []
    for frames in (4_000, 32_000):
        batch = max(islice(Noise().batches(frames, 0), 2), key=lambda b: b.x1.numel()).to(device)
        t = torch.full((len(batch.x1),), 0.5, device=device)

        def run(batch: Batch = batch, t: torch.Tensor = t) -> None:
            with autocast(device, "auto"):
                teacher.network(batch.x1, t, None, batch.condition).sum().backward()
            teacher.network.zero_grad(set_to_none=True)

        run()
        with peak_memory(device) as peak:
            run()
        peaks.append(peak.bytes)
        seconds.append(min(time_passes(run, 3, 5, device)))
    assert peaks[1] > 2 * peaks[0]
    assert all(s > 0 for s in seconds)


def test_memory_that_runs_out_on_the_accelerator_is_understood(device: torch.device) -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 46, device=device)
    assert out_of_memory(caught.value)
    free_memory()
    assert torch.zeros(1, device=device).item() == 0
