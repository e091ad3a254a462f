"""A training's step beside one written by hand: learning rate, AdamW, clipping, the moving average, and micro-batches."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from imfbench.contracts.batches import make_batch
from imfbench.method import Batch, Condition, Method, MethodConfig, Needs, State, squared_error
from imfbench.train_settings import TrainConfig
from imfbench.training import Training


class Fixed(Method):
    """A loss that draws nothing: the squared distance of a linear layer of x1 from 1."""

    Config = MethodConfig
    needs = Needs()
    kind = "instantaneous"

    def loss(self, batch: Batch, state: State) -> tuple[Tensor, dict[str, float]]:
        return squared_error(self.network(batch.x1) - 1, batch, state), {}

    def velocity(self, z: Tensor, t: Tensor, r: Tensor, condition: Any) -> Tensor:
        return z


def training(**settings: Any) -> Training:
    torch.manual_seed(0)
    network = nn.Linear(4, 4)
    config = TrainConfig.model_validate({"steps": 8, "frames_per_batch": 100, "precision": "fp32", **settings})
    return Training(Fixed(MethodConfig(), network), None, config, Path(), torch.device("cpu"))  # type: ignore[arg-type]


def batches(count: int) -> list[Batch]:
    return [replace(made, x1=made.x1 + i) for i in range(count) for made in [make_batch(rows=3, bands=4, seed=i)]]


@pytest.mark.parametrize("schedule", ["constant", "linear", "trapezoid"])
def test_steps_are_adamws_at_the_schedules_rate_and_the_average_follows(schedule: str) -> None:
    """Unusual settings, so that a default in the place of one of them shows; the norm of 1e-2 clips every step."""
    settings = {"learning_rate": 3e-2, "betas": (0.6, 0.8), "weight_decay": 0.3, "ema": 0.4, "warmup": 3, "clip": 1e-2}
    found = training(schedule=schedule, decay=0.5, **settings)
    network = copy.deepcopy(found.method.network)
    average = copy.deepcopy(network)
    optimizer = torch.optim.AdamW(network.parameters(), 1.0, betas=(0.6, 0.8), weight_decay=0.3)
    for k, batch in enumerate(batches(5), start=1):
        figures = found.advance([batch], 8)
        left = (8 - (k - 1)) / 8
        shape = {"constant": 1.0, "linear": left, "trapezoid": min(1.0, left / 0.5)}[schedule]
        optimizer.param_groups[0]["lr"] = figures["learning_rate"]
        assert figures["learning_rate"] == pytest.approx(3e-2 * min(1.0, k / 3) * shape)
        optimizer.zero_grad()
        loss = ((network(batch.x1) - 1) ** 2)[batch.target].mean()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 1e-2)
        assert norm > 1e-2
        assert figures["grad_norm"] == pytest.approx(float(norm), rel=1e-5)
        assert figures["loss"] == pytest.approx(loss.item(), rel=1e-5)
        optimizer.step()
        decay = min(0.4, (1 + k) / (10 + k))  # 2/11, 3/12, 4/13, 5/14, then .4
        with torch.no_grad():
            for mean, value in zip(average.parameters(), network.parameters(), strict=True):
                mean.mul_(decay).add_(value, alpha=1 - decay)
        for ours, theirs in ((found.method.network, network), (found.ema, average)):
            for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
                torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    gap = max(float((a - b).abs().max()) for a, b in zip(network.parameters(), average.parameters(), strict=True))
    assert gap > 1e-3, "an average that is the network itself would show nothing"


def test_micro_batches_have_the_gradient_of_their_union() -> None:
    """Of other numbers of frames: each frame of the step counts the same, in whichever of its batches it lies."""
    long, short = (make_batch(rows=rows, frames=24, bands=4, seed=rows) for rows in (4, 2))
    short = replace(short, condition=replace(short.condition, valid=short.condition.valid & (torch.arange(24) < 9)))
    each = [b.condition.tensors for b in (long, short)]
    whole = Condition(**{name: torch.cat([one[name] for one in each]) for name in each[0]})
    union = Batch(torch.cat([long.x1, short.x1]), whole, (*long.ids, *short.ids))
    gradients = []
    for micro in ([long, short], [union]):
        found = training(accumulate=len(micro))
        loss, _ = found.gradients(micro, 8)
        gradients.append((loss, [p.grad.clone() for p in found.method.network.parameters()]))  # type: ignore[union-attr]
    assert gradients[0][0] == pytest.approx(gradients[1][0], rel=1e-5)
    for one, other in zip(gradients[0][1], gradients[1][1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
        assert other.abs().max() > 1e-3
