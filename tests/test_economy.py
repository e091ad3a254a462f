"""Settings that save memory or time: what must be equal is equal, and trainings of before they existed stay known."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from process_tasks import CPU, SHAPE, Tones, method_of, settings
from torch import Tensor, nn

from imfbench import economy
from imfbench.backbones.dit import Block
from imfbench.building import build_method
from imfbench.config_file import ConfigError
from imfbench.economy import blocks_of, hold_in_bf16
from imfbench.metrics.memory import peak_memory
from imfbench.progress import log
from imfbench.registry import BACKBONES
from imfbench.train_settings import TrainConfig
from imfbench.training import Training


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(log, "propagate", True)
    caplog.set_level(logging.WARNING, "imfbench")
    return caplog


def gradients(case: str, **changes: Any) -> tuple[Tensor, Training]:
    training = Training(method_of(case), Tones(), settings(1, accumulate=1, **changes), Path(), CPU)
    training.gradients(next(training.micro_batches()), 30)
    return torch.cat([p.grad.flatten() for p in training.method.network.parameters()]), training


@pytest.mark.parametrize("case", ["teacher", "meanflow, split", "meanflow, one pass", "intmeanflow"])
def test_recomputed_activations_have_the_same_gradients(case: str, said: pytest.LogCaptureFixture) -> None:
    plain, _ = gradients(case)
    saved, training = gradients(case, checkpoint_activations=True)
    assert torch.equal(saved, plain)
    assert ("kept; MeanFlow's jvp: split" in said.text) == (case == "meanflow, one pass")
    assert all("forward" not in block.__dict__ for block in blocks_of(training.method.network)), (
        "for a step, not for good"
    )


def test_recomputed_activations_take_less_memory_and_each_block_runs_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[bool] = []
    forward = Block.forward
    monkeypatch.setattr(Block, "forward", lambda *a, **k: (ran.append(torch.is_grad_enabled()), forward(*a, **k))[1])

    def peak(**changes: Any) -> int:
        first = build_method("teacher", {}, backbone_config={**SHAPE, "depth": 8})
        training = Training(first, Tones(), settings(1, accumulate=1, **changes), Path(), CPU)
        micro = next(training.micro_batches())
        training.gradients(micro, 30)
        ran.clear()
        with peak_memory("cpu") as found:
            training.gradients(micro, 30)
        return found.bytes

    plain = peak()
    assert len(ran) == 8
    saved = peak(checkpoint_activations=True)
    assert len(ran) == 16
    assert saved < 0.75 * plain


def test_dropout_is_the_same_when_a_block_runs_again_and_when_a_step_is_repeated() -> None:
    class Forgetful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = None
            self.repeated = (nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5)),)
            self.block, self.has_second_time = self.repeated[0], False

        def forward(self, z: Tensor, t: Tensor, r: Tensor | None, condition: Any) -> Tensor:
            found: Tensor = self.block(z)
            return found

    method = build_method("teacher", {}, backbone_config=SHAPE)
    method.network = Forgetful()
    found = []
    for recomputes in (False, True, False):
        method.network.zero_grad()
        torch.rand(3)  # whatever else drew from torch's own generator
        config = settings(1, accumulate=1, checkpoint_activations=recomputes)
        training = Training(method, Tones(), config, Path(), CPU)
        training.gradients(next(training.micro_batches()), 30)
        found.append(method.network.block[0].weight.grad.clone())
    assert found[0].abs().sum() > 0
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_a_compiler_that_fails_is_told_once_and_the_step_goes_on(
    monkeypatch: pytest.MonkeyPatch, said: pytest.LogCaptureFixture
) -> None:
    def broken(function: Any) -> Any:
        def call(*_: Any, **__: Any) -> Any:
            raise RuntimeError("no working C++ compiler\nand more")

        return call

    plain, _ = gradients("meanflow, split")
    monkeypatch.setattr(economy.torch, "compile", broken)
    found, _ = gradients("meanflow, split", compile=True)
    assert torch.equal(found, plain)
    assert said.text.count("torch.compile fails here (RuntimeError: no working C++ compiler)") == 1


def test_what_is_compiled_is_called_outside_of_jvps(
    monkeypatch: pytest.MonkeyPatch, said: pytest.LogCaptureFixture
) -> None:
    called: list[int] = []
    monkeypatch.setattr(economy.torch, "compile", lambda own: lambda *a, **k: (called.append(0), own(*a, **k))[1])
    plain, _ = gradients("meanflow, split")
    found, _ = gradients("meanflow, split", compile=True)
    assert torch.equal(found, plain)
    assert len(called) == 2 * SHAPE["depth"], "the teacher's guided pass and the student's; not the JVP"
    assert said.text.count("compile: blocks run as they are inside a JVP") == 1


@pytest.mark.slow
def test_compiled_blocks_compute_what_they_did(said: pytest.LogCaptureFixture) -> None:
    plain, _ = gradients("intmeanflow")
    found, _ = gradients("intmeanflow", compile=True)
    if "torch.compile fails here" in said.text:
        pytest.skip("no compiler")
    torch.testing.assert_close(found, plain, rtol=1e-3, atol=1e-5 * float(plain.abs().max()))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_teacher_in_bf16_takes_half_and_rounds_its_targets(precision: str) -> None:
    teacher = method_of("teacher").network
    held = copy.deepcopy(teacher)
    hold_in_bf16(held)
    hold_in_bf16(held)

    def size(network: nn.Module) -> int:
        return sum(p.numel() * p.element_size() for p in network.parameters())

    assert size(held) < 0.6 * size(teacher)
    batch = next(Tones().batches(300, 0))
    t = torch.full((len(batch.x1),), 0.4)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16", cache_enabled=False):
        exact = teacher(batch.x1, t, None, batch.condition)
        rounded = held(batch.x1, t, None, batch.condition)
    error = float((rounded - exact).abs().max() / exact.abs().max())
    assert 0 < error < 0.02 or (precision == "bf16" and error < 0.02)
    plain, _ = gradients("intmeanflow", precision=precision)
    with_it, training = gradients("intmeanflow", precision=precision, teacher_dtype="bf16")
    assert training.method.network.blocks[0].qkv.weight.dtype == torch.float32, "the student is none of its business"
    assert float((with_it - plain).norm() / plain.norm()) < 0.02


def test_what_a_teacher_shares_with_its_student_is_not_rounded() -> None:
    network = nn.Module()
    network.encoder, network.rest = nn.Linear(4, 4), nn.Linear(4, 4)
    network.frozen = (network.encoder,)
    hold_in_bf16(network)
    assert network.encoder.weight.dtype == torch.float32
    assert network.rest.parametrizations.weight.original.dtype == torch.bfloat16
    assert network.rest.weight.dtype == torch.float32


def test_an_average_on_the_cpu_is_the_same() -> None:
    found = []
    for device in ("same", "cpu"):
        _, training = gradients("intmeanflow", ema_device=device)
        training.prepared.zero_grad(set_to_none=True)
        for micro, _ in zip(training.micro_batches(), range(3), strict=False):
            training.advance(micro, 30)
        found.append(torch.cat([p.flatten() for p in training.ema.parameters()]))
    assert torch.equal(*found)


def test_a_method_that_learns_from_the_average_wants_it_where_it_trains() -> None:
    with pytest.raises(ConfigError, match="ema_device: same"):
        gradients("shortcut", ema_device="cpu")


@pytest.mark.parametrize("name", ["dit", "aligning-dit"])
def test_backbones_name_their_blocks(name: str) -> None:
    cls = BACKBONES.get(name)
    network = cls(cls.Config(dim=32, depth=3, heads=2))
    blocks = blocks_of(network)
    assert len(blocks) >= 3
    assert all(any(block is module for module in network.modules()) for block in blocks)


BEFORE = {
    "steps": 5, "minutes": None, "frames_per_batch": 2000, "accumulate": 1, "learning_rate": 3e-4, "schedule": "linear",
    "decay": 0.25, "warmup": 50, "weight_decay": 0.01, "betas": [0.9, 0.99], "clip": 1.0, "ema": 0.99, "precision": "auto",
    "seed": 0,
}  # fmt: skip
"""What trainings were known by before the settings of this module were added."""


def test_settings_at_their_defaults_are_in_no_record() -> None:
    assert TrainConfig(steps=5).decisive() == BEFORE
    carried_out = {
        "processes": 2,
        "accumulate": 2,
        "checkpoint_activations": True,
        "ema_device": "cpu",
        "save_every": 9,
    }
    assert TrainConfig(steps=5, **carried_out).decisive() == {**BEFORE, "accumulate": 2}
    deciding = {"compile": True, "teacher_dtype": "bf16", "memory": 24 * 10**9}
    assert TrainConfig(steps=5, **deciding).decisive() == {**BEFORE, **deciding}
    assert TrainConfig(steps=5, **deciding).decisive("memory", "minutes").keys() == {
        *BEFORE.keys() - {"minutes"}, "compile", "teacher_dtype",
    }  # fmt: skip
