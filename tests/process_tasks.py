"""What the processes of ``test_processes`` do: they are started anew, so it must be importable by name."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from imfbench import distribution
from imfbench.building import build_method
from imfbench.data import Example, training_batches
from imfbench.method import Batch, Method
from imfbench.train_settings import TrainConfig
from imfbench.training import Training, train

CPU = torch.device("cpu")
SHAPE = {"bands": 8, "tokens": 12, "dim": 32, "depth": 2, "heads": 2}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "teacher": ("teacher", {}),
    "meanflow, one pass": ("meanflow", {"jvp": "one_pass", "condition_dropout": 0.2}),
    "meanflow, split": ("meanflow", {"jvp": "split", "p": 1.0}),
    "intmeanflow": ("intmeanflow", {"teacher_nfe": 2, "reuse": 1}),
    "shortcut": ("shortcut", {}),
}
STEPS = 4


class Tones:
    """Rows of many lengths, so that processes have different numbers of frames."""

    def __init__(self) -> None:
        g = torch.Generator().manual_seed(0)
        table = torch.randn(12, 8, generator=g)
        self.examples = []
        for i, frames in enumerate((20, 24, 28, 60, 64, 72)):
            tokens = torch.randint(1, 12, (frames,), generator=g)
            self.examples.append(Example(f"e{i}", f"s{i % 2}", table[tokens], tokens))

    def batches(self, frames_per_batch: int, seed: int, start_step: int = 0) -> Iterator[Batch]:
        return training_batches(self.examples, frames_per_batch, seed, start_step, seconds_per_frame=0.2, pool=12)


def method_of(case: str) -> Method:
    """A method whose teacher's weights are all random, as the zeros of a new network would hide gradients."""
    name, config = CASES[case]
    first = build_method("teacher", {}, backbone_config=SHAPE)
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in first.network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=g))
    return first if name == "teacher" else build_method(name, config, first)


def settings(processes: int, **changes: Any) -> TrainConfig:
    base = {
        "steps": 30, "frames_per_batch": 300, "accumulate": 4, "learning_rate": 1e-3, "warmup": 2, "precision": "fp32",
        "save_every": 50, "log_every": 1, "processes": processes,
    }  # fmt: skip
    return TrainConfig(**(base | changes))


@dataclass(frozen=True)
class Steps:
    """Gradients of a first step and weights after a few, of every case."""

    processes: int

    def __call__(self, tell: Callable[[Any], None]) -> dict[str, Any]:
        found = {}
        for case in CASES:
            method = method_of(case)
            training = Training(method, Tones(), settings(self.processes), Path(), CPU)
            batches = training.micro_batches()
            micro = next(batches)
            loss, _ = training.gradients(micro, 30)
            gradient = torch.cat([p.grad.flatten() for p in method.network.parameters()])
            training.prepared.zero_grad(set_to_none=True)
            figures = [training.advance(micro, 30)] + [training.advance(next(batches), 30) for _ in range(STEPS - 1)]
            weights = torch.cat([p.detach().flatten() for p in training.ema.parameters()])
            frames = sum(float(batch.target.sum()) for batch in micro)
            found[case] = loss, gradient.numpy(), weights.numpy(), figures, frames
        tell("all cases")
        return found


@dataclass(frozen=True)
class Train:
    """A whole training in a folder; of process ``number`` something may be told to happen after step ``at``."""

    folder: Path
    processes: int
    event: str = ""
    number: int = 0
    at: int = 0

    def __call__(self, tell: Callable[[Any], None]) -> Any:
        def progress(step: int, steps: int, loss: float) -> None:
            tell(("step", step, distribution.index()))
            if step == self.at and distribution.index() == self.number:
                if self.event == "killed":
                    os.kill(os.getpid(), signal.SIGKILL)
                if self.event == "stopped":
                    raise KeyboardInterrupt
                if self.event == "memory":
                    raise MemoryError("no more of it")

        return train(
            method_of("meanflow, split"), "meanflow", Tones(), settings(self.processes, steps=8), self.folder, CPU,
            progress=progress,
        )  # fmt: skip
