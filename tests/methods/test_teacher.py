from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from imfbench.method import Batch, Condition, State, interpolate, randn_like
from imfbench.methods.teacher import Teacher, TeacherConfig


def test_the_loss_is_that_of_conditional_flow_matching(
    batch: Batch, state_of: Callable[..., State], scaled_field: Any, recorder: Any
) -> None:
    network = recorder(scaled_field(0.3, 0.2))
    loss, _ = Teacher(TeacherConfig(condition_dropout=0.0), network).loss(batch, state_of(batch, seed=3))
    x0 = randn_like(batch.x1, torch.Generator().manual_seed(3))
    z, t, r, condition = network.calls[0]
    assert r is None
    assert not condition.dropped.any()
    torch.testing.assert_close(z, interpolate(x0, batch.x1, t))
    delta = (network.network(z, t, None, condition) - (batch.x1 - x0))[batch.target]
    torch.testing.assert_close(loss, delta.square().mean())


def test_the_minimiser_is_the_conditional_expectation(batch_of: Callable[..., Batch], state_of: Any) -> None:
    """Data x1 = 2 everywhere: the best constant velocity is E[x1 − x0] = 2."""

    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.value = nn.Parameter(torch.tensor(0.0))

        def forward(self, z: Tensor, t: Tensor, r: Tensor | None, condition: Condition) -> Tensor:
            return self.value.expand_as(z)

    batch = batch_of(rows=8, frames=40)
    batch = Batch(torch.full_like(batch.x1, 2.0), batch.condition)
    network = Constant()
    teacher = Teacher(TeacherConfig(), network)
    optimizer = torch.optim.SGD([network.value], 0.2)
    for step in range(40):
        optimizer.zero_grad()
        teacher.loss(batch, state_of(batch, seed=step))[0].backward()
        optimizer.step()
    assert network.value.item() == pytest.approx(2, abs=0.06)


def test_the_condition_is_dropped_as_often_as_asked(
    batch_of: Any, state_of: Any, scaled_field: Any, recorder: Any
) -> None:
    batch, network = batch_of(rows=2000, frames=2), recorder(scaled_field())
    Teacher(TeacherConfig(condition_dropout=0.2), network).loss(batch, state_of(batch))
    assert network.calls[0][3].dropped.float().mean().item() == pytest.approx(0.2, abs=0.03)


@pytest.mark.parametrize(("law", "median"), [("uniform", 0.5), ("logit-normal", 1 / (1 + math.exp(-0.8)))])
def test_the_law_of_times(
    law: Any, median: float, batch_of: Any, state_of: Any, scaled_field: Any, recorder: Any
) -> None:
    batch, network = batch_of(rows=4000, frames=2), recorder(scaled_field())
    Teacher(TeacherConfig(times=law, time_mean=0.8), network).loss(batch, state_of(batch))
    assert network.calls[0][1].median().item() == pytest.approx(median, abs=0.02)


@pytest.mark.parametrize("stratified", [True, False])
def test_times_of_a_batch_are_stratified_unless_told_otherwise(
    stratified: bool, batch_of: Any, state_of: Any, scaled_field: Any, recorder: Any
) -> None:
    batch = batch_of(rows=16, frames=3)
    assert TeacherConfig().stratified
    spread = []
    for seed in range(5):
        network = recorder(scaled_field())
        Teacher(TeacherConfig(times="uniform", stratified=stratified), network).loss(batch, state_of(batch, seed=seed))
        spread.append(((network.calls[0][1] * 16).floor().sort().values == torch.arange(16)).all().item())
    assert spread == [stratified] * 5


@pytest.mark.parametrize("w", [0.0, 2.0])
def test_sampling_is_guided(w: float, batch: Batch, scaled_field: Any) -> None:
    teacher = Teacher(TeacherConfig(guidance=w), scaled_field(0.5, 1.0))
    z, t = torch.randn_like(batch.x1), torch.full((len(batch.x1),), 0.3)
    v = teacher.velocity(z, t, torch.ones_like(t), batch.condition)
    torch.testing.assert_close(v, 0.5 * z + 1.0 + w * 1.0)
    assert teacher.sampling_guidance == w
