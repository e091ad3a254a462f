from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from imfbench.flow.solvers import euler
from imfbench.method import Batch, Condition, State, interpolate, randn_like
from imfbench.methods.reflow import ReFlow, ReFlowConfig
from imfbench.methods.teacher import Teacher, TeacherConfig

StateOf = Callable[..., State]


def reflow(network: nn.Module, teacher_network: nn.Module, **config: Any) -> ReFlow:
    return ReFlow(ReFlowConfig(**config), network, Teacher(TeacherConfig(guidance=99.0), teacher_network))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Straight(nn.Module):
    """The velocity of straight paths from x0 to e^a·x0: ``x1 − x0 = (e^a − 1)·x0`` and ``z_t = (1 + t·(e^a − 1))·x0``."""

    def __init__(self, growth: float) -> None:
        super().__init__()
        self.growth = nn.Parameter(torch.tensor(growth))

    def forward(self, z: Tensor, t: Tensor, r: Tensor | None, condition: Condition) -> Tensor:
        return (self.growth / (1 + t * self.growth))[:, None, None] * z


def test_a_pair_is_noise_and_where_the_guided_teacher_takes_it(batch: Batch, scaled_field: Any) -> None:
    teacher = scaled_field(-1.0, 0.5)  # guided: −z + 0.5·(1 + w)
    method = reflow(nn.Identity(), teacher, guidance=1.0, teacher_nfe=4, teacher_grid="uniform")
    pair = method.prepare(batch, generator(3))
    x0 = randn_like(batch.x1, generator(3))
    assert torch.equal(pair.x0, x0)
    torch.testing.assert_close(pair.x1, euler(lambda z, t, r: -z + 1.0, x0, torch.linspace(0, 1, 5)))
    assert pair.condition is batch.condition
    assert pair.ids == batch.ids
    # finer steps come to the exact solution of dz/dt = 1 − z
    fine = reflow(nn.Identity(), teacher, guidance=1.0, teacher_nfe=400).prepare(batch, generator(3))
    torch.testing.assert_close(fine.x1, 1 + (x0 - 1) * math.exp(-1), atol=0.01, rtol=0.01)


def test_the_loss_is_least_at_the_straight_field(batch_of: Any, state_of: StateOf, scaled_field: Any) -> None:
    """dz/dt = −z takes x0 to e^{−1}·x0: the field of the straight paths has no loss and no gradient, the teacher's has."""
    batch = batch_of(rows=40)
    growth = math.exp(-1) - 1
    found = {}
    for error in (-0.1, 0.0, 0.1):
        network = Straight(growth + error)
        method = reflow(network, scaled_field(-1.0), guidance=0.0, teacher_nfe=2000, teacher_grid="uniform")
        if not found:
            pair = method.prepare(batch, generator())
        loss, _ = method.loss(pair, state_of(batch))
        loss.backward()
        found[error] = loss.item(), network.growth.grad.item()
    assert found[0.0][0] < 1e-6
    assert abs(found[0.0][1]) < 1e-2
    assert found[-0.1][1] < -0.05
    assert found[0.1][1] > 0.05
    own, _ = reflow(scaled_field(-1.0), scaled_field(-1.0), guidance=0.0).loss(pair, state_of(batch))
    assert own.item() > 0.01


def test_pair_and_noise_stay_together_in_the_loss(
    batch: Batch, state_of: StateOf, scaled_field: Any, recorder: Any
) -> None:
    student = recorder(scaled_field())
    method = reflow(student, scaled_field(-1.0, 0.5))
    pair = method.prepare(batch, generator(3))
    loss, _ = method.loss(pair, state_of(batch, seed=9))
    assert pair.x0 is not None
    z, t, r, _ = student.calls[0]
    assert r is None
    torch.testing.assert_close(z, interpolate(pair.x0, pair.x1, t))
    torch.testing.assert_close(loss, (pair.x1 - pair.x0)[batch.target].square().mean())
    with torch.no_grad():  # other noise is another loss: what is learnt is the pair
        other, _ = method.loss(replace(pair, x0=pair.x0.roll(1, 0)), state_of(batch, seed=9))
    assert other.item() != pytest.approx(loss.item(), rel=1e-3)


def test_without_pairs_they_are_made_in_the_step(
    batch: Batch, state_of: StateOf, scaled_field: Any, recorder: Any
) -> None:
    teacher = recorder(scaled_field(-1.0, 0.5))
    method = reflow(scaled_field(), teacher, passes=0, teacher_nfe=3)
    loss, _ = method.loss(batch, state_of(batch, seed=9))
    assert len(teacher.calls) == 3
    pair = method.prepare(batch, generator(9))
    assert pair.x0 is not None
    torch.testing.assert_close(loss, (pair.x1 - pair.x0)[batch.target].square().mean())


@pytest.mark.parametrize(("passes", "wanted"), [(0, 0), (1, 100), (8, 13), (1000, 1)])
def test_each_pair_is_taken_as_often_as_asked(passes: int, wanted: int) -> None:
    assert reflow(nn.Identity(), nn.Identity(), passes=passes).batches_to_prepare(100) == wanted


def test_distillation_of_the_coupling_is_at_zero(
    batch: Batch, state_of: StateOf, scaled_field: Any, recorder: Any
) -> None:
    student = recorder(scaled_field())
    method = reflow(student, scaled_field(), start_at_zero=1.0)
    pair = method.prepare(batch, generator())
    method.loss(pair, state_of(batch))
    assert not student.calls[0][1].any()
    assert torch.equal(student.calls[0][0], pair.x0)


def test_times_are_uniform(batch_of: Any, state_of: StateOf, scaled_field: Any, recorder: Any) -> None:
    """Rectified flow's law: every part of the way is learnt as often as any other, but for the share at its beginning."""
    batch = batch_of(rows=4000)
    for share in (0.0, 0.25):
        student = recorder(scaled_field())
        method = reflow(student, scaled_field(), start_at_zero=share, teacher_nfe=1)
        method.loss(method.prepare(batch, generator()), state_of(batch))
        t = student.calls[0][1]
        inside = t[t > 0]
        assert len(t) - len(inside) == pytest.approx(share * len(t), abs=2)
        quarters = torch.histc(inside, 4, 0, 1) / len(inside)
        # five standard errors of a quarter of 3,000 rows are .04; the smaller of two uniforms has .44 in the first
        torch.testing.assert_close(quarters, torch.full((4,), 0.25), atol=0.04, rtol=0)


def test_an_unknown_grid_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValidationError, match="did you mean 'sway'"):
        ReFlowConfig(teacher_grid="sweay")
