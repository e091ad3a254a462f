"""Steps that can be run again and again: of a training, the whole loop's, or of sampling."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from imfbench.building import build_method
from imfbench.devices import Precision, autocast
from imfbench.flow.counting import count_network
from imfbench.flow.grids import uniform
from imfbench.flow.solvers import SOLVERS
from imfbench.method import Batch, Method, encoded
from imfbench.metrics.speed import time_passes
from imfbench.pipeline.plan import TEACHER
from imfbench.preparation import rehearsed
from imfbench.profiling.sizes import Size
from imfbench.registry import METHODS
from imfbench.training import TrainConfig, Training

Stage = Literal["training", "sampling"]
STEPS = 1_000_000
"""Of the training that a step is taken from: enough that no schedule ends."""


@dataclass(frozen=True)
class Step:
    """A step that is ready.

    Attributes:
        run: Takes it; it may be taken again.
        prime: Allocates what a first step leaves behind for all that follow: the optimiser's state.
        method: Whose it is.
        rows: Rows of the batch.
        prepare: Makes one of the batches that a method wants before it trains (ReFlow's pairs), as the step takes it; does
            nothing where it wants none.
        share: How many of those are made for each step.
    """

    run: Callable[[], Any]
    prime: Callable[[], Any]
    method: Method
    rows: int
    prepare: Callable[[], Any] = lambda: None
    share: float = 0.0

    @property
    def parameters(self) -> int:
        """Of the method's own network."""
        return sum(parameter.numel() for parameter in self.method.network.parameters())

    def seconds(self, device: torch.device) -> float:
        """Wall time of the step, with its share of what is made before the training."""
        # First: a step that finds nothing made would make it in its own time.
        made = time_passes(self.prepare, 0, 1, device)[0] if self.share else 0.0
        return self.share * made + time_passes(self.run, 0, 1, device)[0]

    def network_calls(self) -> int:
        """Take the step and count the rows that go through the method's own network, for each row of the batch."""
        with count_network(self.method.network) as count:
            self.run()
        return count.rows // self.rows


class _NoData:
    """The batch is given to every step by hand."""

    def batches(self, frames_per_batch: int, seed: int, start_step: int = 0) -> Iterator[Batch]:
        return iter(())


def ready_step(
    method: str, config: dict[str, Any], size: Size, stage: Stage, nfe: int, device: torch.device, precision: Precision,
    masks: tuple[torch.Tensor, ...] | None = None,
) -> Step:  # fmt: skip
    """Build networks of random weights, a batch, and the step.

    Args:
        method: A name of the registry.
        config: Its settings.
        size: Of network and batch.
        stage: "training": forward, backward, clipping, optimiser and EMA, as ``imfbench train`` does them. "sampling": the
            whole batch from noise over a uniform grid, by Euler.
        nfe: Evaluations of a sampling.
        device: Where.
        precision: Of autocast.
        masks: From ``Size.masks``, if they are to be real where all else is fake.
    """
    batch = size.batch_of(size.masks() if masks is None else masks).to(device)
    shape = size.network().model_dump()
    needs_teacher = METHODS.get(method).needs.teacher
    teacher = build_method(TEACHER, {}, None, size.backbone, shape) if needs_teacher else None
    made = build_method(method, config, teacher, size.backbone, shape)
    if stage == "training":
        return _training(made, batch, device, precision)
    return sampling_step(made, batch, nfe, device, precision)


def training_step(
    method: Method, batch: Batch, device: torch.device, config: TrainConfig, batches: int = 1
) -> tuple[Step, Training]:
    """A step of a training of ``batches`` equal batches, and the training that it is of."""
    training = Training(method, _NoData(), config, Path(), device)
    share = method.batches_to_prepare(STEPS) / STEPS
    taken: list[Batch] = []

    def prepare() -> None:
        taken[:] = rehearsed(method, [batch], device, config)

    def run() -> None:
        if not taken:
            prepare()
        training.advance(taken * batches, STEPS)

    def prime() -> None:
        for parameter in method.network.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter)
        training.prepared.step()
        training.prepared.zero_grad(set_to_none=True)

    return Step(run, prime, method, len(batch.x1), prepare, share), training


def _training(method: Method, batch: Batch, device: torch.device, precision: Precision) -> Step:
    config = TrainConfig.model_validate({"steps": STEPS, "precision": precision})
    return training_step(method, batch, device, config)[0]


def sampling_step(method: Method, batch: Batch, nfe: int, device: torch.device, precision: Precision) -> Step:
    """A sampling of a whole batch over a uniform grid, by Euler."""
    method.teacher = None
    method.network.to(device).eval()
    start = batch.x1

    def run() -> None:
        with torch.no_grad(), autocast(device, precision):
            condition = encoded(method.network, batch.condition)
            SOLVERS["euler"](lambda z, t, r: method.velocity(z, t, r, condition), start, uniform(nfe))

    return Step(run, lambda: None, method, len(batch.x1))
