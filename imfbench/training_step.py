"""The parts of a training step: the loss as one module, its random draws, clipping, and the moving average of the weights."""

from __future__ import annotations

import contextlib
import inspect
import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from imfbench.data import DatasetError
from imfbench.devices import Precision, autocast
from imfbench.economy import Economy
from imfbench.method import Batch, Method, State, encoded


class StepLoss(nn.Module):
    """The loss as a module's forward, so that DDP and autocast wrap the whole of it, JVP included.

    DDP arms its hooks when it is called, and they fire as gradients reach the parameters: whatever the loss does with the network
    in between, several passes, a JVP or passes without gradient, is seen by them.
    """

    def __init__(self, method: Method, device: torch.device, precision: Precision, economy: Economy) -> None:
        super().__init__()
        self.network = method.network
        self._method = [method]  # in a list: its teacher is no part of what is trained
        self._device, self._precision, self._economy = device, precision, economy

    def forward(self, batch: Batch, state: State) -> tuple[Tensor, dict[str, float]]:
        """The loss of a batch, a scalar over the global batch's size, and the method's figures."""
        method = self._method[0]
        with autocast(self._device, self._precision), self._economy.applied(method):
            if method.teacher is not None:
                batch = replace(batch, condition=encoded(method.teacher.network, batch.condition))
            return method.loss(batch, state)


def step_generator(seed: int, step: int, batch: int = 0) -> torch.Generator:
    """The random source of one batch of a step, by its number within the step: the same whichever process takes it."""
    return torch.Generator().manual_seed(_number(seed, step, batch))


def _number(seed: int, step: int, batch: int) -> int:
    return (seed * 1_000_003 + step) * 1_009 + batch


@contextlib.contextmanager
def seeded(seed: int, step: int, batch: int, device: torch.device) -> Iterator[None]:
    """Torch's own random state, from which dropout draws, as it belongs to a batch of a step; the former one afterwards."""
    where = {"devices": []} if device.type == "cpu" else {"devices": [device], "device_type": device.type}
    with torch.random.fork_rng(**where):  # type: ignore[arg-type]
        torch.manual_seed(_number(seed, step, batch))
        yield


@torch.no_grad()
def ema_update(ema: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the average towards the weights, ``ema ← decay·ema + (1 − decay)·weights``, on the average's own device."""
    averages = list(ema.parameters())
    values = [value.detach().to(averages[0].device) for value in network.parameters()]
    get_ema_multi_avg_fn(decay)(averages, values, None)


def clipped(parameters: list[nn.Parameter], longest: float) -> float:
    """Shorten the gradients to a common norm of ``longest`` where theirs is larger; returns what it was.

    It must be known here for the log anyway, so gradients that are short enough need not be multiplied by 1: on a CPU that is a
    tenth of what a step's update takes.
    """
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    told = float(norm)
    if not told + 1e-6 <= longest:  # torch's own small term, and what is not a number
        torch.nn.utils.clip_grads_with_norm_(parameters, longest, norm)
    return told


def in_steps(batches: Iterator[Batch], count: int) -> Iterator[list[Batch]]:
    """Batches, ``count`` of them at a time.

    Raises:
        DatasetError: There are no more.
    """
    for steps in itertools.count():
        found = list(itertools.islice(batches, count))
        if len(found) < count:
            raise DatasetError(
                f"the training data ended after {steps * count + len(found)} batches of this process: `batches` of a dataset is "
                "to go on for ever, from its first recording again"
            )
        yield found


def batches_of(data: Any, frames_per_batch: int, seed: int, start: int, stride: int) -> Iterator[Batch]:
    """Batches ``start``, ``start + stride``, … of training data; data that know ``stride`` need not make those in between."""
    if stride == 1:
        found: Iterator[Batch] = data.batches(frames_per_batch, seed, start)
        return found
    if "stride" in inspect.signature(data.batches).parameters:
        found = data.batches(frames_per_batch, seed, start, stride=stride)
        return found
    return itertools.islice(data.batches(frames_per_batch, seed, start), 0, None, stride)
