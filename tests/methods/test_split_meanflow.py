from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from scipy import stats
from torch import nn

from imfbench.method import Batch, State, interpolate, randn_like
from imfbench.methods.split_meanflow import SplitMeanFlow, SplitMeanFlowConfig
from imfbench.methods.teacher import Teacher, TeacherConfig

StateOf = Callable[..., State]


def split_meanflow(network: nn.Module, teacher_network: nn.Module, **config: Any) -> SplitMeanFlow:
    return SplitMeanFlow(SplitMeanFlowConfig(**config), network, Teacher(TeacherConfig(guidance=99.0), teacher_network))


@pytest.mark.parametrize("a", [-2.0, 1.0])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_the_exact_average_velocity_has_no_loss_and_no_gradient(
    a: float, share: float, batch_of: Any, state_of: StateOf, scaled_field: Any, decay_average: Any
) -> None:
    """dz/dt = a·z: two parts of an interval make exactly the whole, whatever the split, and u(z, t, t) = a·z."""
    batch, student = batch_of(rows=40), decay_average(a)
    method = split_meanflow(student, scaled_field(a), guidance=0.0, equal_share=share)
    loss, _ = method.loss(batch, state_of(batch))
    loss.backward()
    assert loss.item() < 1e-10
    assert abs(student.scale.grad.item()) < 1e-4
    wrong = decay_average(a, scale=1.2)
    loss, _ = split_meanflow(wrong, scaled_field(a), guidance=0.0, equal_share=share).loss(batch, state_of(batch))
    loss.backward()
    assert loss.item() > 1e-5
    if share:  # towards the solution; two parts alone do not know where that is, the rows with r = t do
        assert wrong.scale.grad.item() > 1e-3


def test_the_target_is_what_two_steps_of_the_network_reach(
    batch_of: Any, state_of: StateOf, scaled_field: Any, recorder: Any
) -> None:
    batch = batch_of(rows=20)
    student = recorder(scaled_field(0.7, 0.4, 0.3))
    loss, _ = split_meanflow(student, scaled_field(9.0), equal_share=0.0).loss(batch, state_of(batch, seed=4))
    (z, t, r, _), (z1, t1, s, _), (z2, s2, r2, _) = student.calls
    x0 = randn_like(batch.x1, torch.Generator().manual_seed(4))
    torch.testing.assert_close(z, interpolate(x0, batch.x1, t))
    assert torch.equal(z1, z)
    assert torch.equal(t1, t)
    assert torch.equal(s2, s)
    assert torch.equal(r2, r)
    assert ((t <= s) & (s <= r)).all()
    share = (s - t) / (r - t)
    assert share.std() > 0.15  # λ is uniform, not a half
    field = student.network
    with torch.no_grad():
        there = z + (s - t)[:, None, None] * field(z, t, s, batch.condition)
        torch.testing.assert_close(z2, there)
        end = there + (r - s)[:, None, None] * field(there, s, r, batch.condition)
        delta = field(z, t, r, batch.condition) - (end - z) / (r - t)[:, None, None]
    torch.testing.assert_close(loss, delta[batch.target].square().mean(), rtol=1e-3, atol=1e-6)


def test_the_laws_of_an_interval_and_of_its_split(
    batch_of: Any, state_of: StateOf, scaled_field: Any, recorder: Any
) -> None:
    batch = batch_of(rows=4000, frames=3)

    def drawn(**config: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        student = recorder(scaled_field())
        split_meanflow(student, scaled_field(), equal_share=0.0, **config).loss(batch, state_of(batch))
        (_, t, r, _), (_, _, s, _), _ = student.calls
        assert r is not None
        assert s is not None
        return t, r, (s - t) / (r - t)

    t, r, share = drawn()
    assert stats.kstest(t.numpy(), stats.beta(1, 2).cdf).pvalue > 0.001
    assert stats.kstest(r.numpy(), stats.beta(2, 1).cdf).pvalue > 0.001
    wide = r - t > 1e-3  # below, rounding is all there is of a share
    assert stats.kstest(share[wide].numpy(), "uniform").pvalue > 0.001
    t, r, _ = drawn(times="logit-normal", time_mean=0.8, time_std=0.5)
    both = torch.logit(torch.cat([t, r]).double())
    assert both.mean().item() == pytest.approx(0.8, abs=0.03)
    assert both.std().item() == pytest.approx(0.5, abs=0.03)


def test_rows_with_equal_times_learn_the_guided_velocity_and_alone_ask_the_teacher(
    batch_of: Any, state_of: StateOf, scaled_field: Any, recorder: Any
) -> None:
    batch = batch_of(rows=40)
    student, teacher = recorder(scaled_field(0.1, 0.2)), recorder(scaled_field(0.5, 1.0))
    split_meanflow(student, teacher, guidance=2.0, equal_share=0.25).loss(batch, state_of(batch))
    z, t, r, _ = student.calls[0]
    assert int((t == r).sum()) == 10
    assert len(teacher.calls[0][0]) == 20  # with the condition and without
    torch.testing.assert_close(teacher.calls[0][0][:10], z[t == r])
    assert [len(call[0]) for call in student.calls] == [40, 30, 30]
    # a share of 1 is out of bounds, so all rows but one in a thousand: the loss is that of plain distillation
    batch = batch_of(rows=4)
    student = recorder(scaled_field(0.1, 0.2))
    loss, _ = split_meanflow(student, scaled_field(0.5, 1.0), guidance=2.0, equal_share=0.999).loss(
        batch, state_of(batch)
    )
    z = student.calls[0][0]
    torch.testing.assert_close(loss, (0.1 * z + 0.2 - (0.5 * z + 3.0))[batch.target].square().mean())


def test_settings_that_make_no_sense() -> None:
    with pytest.raises(ValidationError, match="less than 1"):
        SplitMeanFlowConfig(equal_share=1.0)  # nothing would be learnt of steps
    assert split_meanflow(nn.Identity(), nn.Identity(), guidance=1.5).baked_guidance == 1.5


def test_gradient_does_not_go_through_the_target(batch: Batch, state_of: StateOf, scaled_field: Any) -> None:
    """At u = b everywhere the parts are b as well: an error of 0, and yet d/db of the prediction alone is 1."""
    student = scaled_field(0.0, 1.0)
    loss, _ = split_meanflow(student, scaled_field(0.0, 1.0), guidance=0.0).loss(batch, state_of(batch))
    assert loss.item() == pytest.approx(0, abs=1e-10)
    student = scaled_field(1.0, 0.0)  # Euler in two halves of z' = z goes further than in one
    loss, _ = split_meanflow(student, scaled_field(1.0), guidance=0.0, equal_share=0.0).loss(batch, state_of(batch))
    loss.backward()
    assert loss.item() > 1e-3
    assert student.a.grad.item() < 0  # the prediction must grow; with the target moving along it would shrink to 0
