from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from imfbench.flow.solvers import euler
from imfbench.method import Batch, State, interpolate, randn_like
from imfbench.methods.shortcut import Shortcut, ShortcutConfig
from imfbench.methods.teacher import Teacher, TeacherConfig

StateOf = Callable[..., State]


def shortcut(network: nn.Module, teacher_network: nn.Module, **config: Any) -> Shortcut:
    return Shortcut(ShortcutConfig(**config), network, Teacher(TeacherConfig(guidance=99.0), teacher_network))


def loss_of(method: Shortcut, batch: Batch, state: State, ema: nn.Module | None = None) -> torch.Tensor:
    return method.loss(batch, replace(state, ema=ema or method.network))[0]


@pytest.mark.parametrize("a", [-2.0, 1.0])
def test_the_exact_average_velocity_has_no_loss_and_no_gradient(
    a: float, batch_of: Any, state_of: StateOf, scaled_field: Any, decay_average: Any
) -> None:
    """dz/dt = a·z: two exact half steps are the whole one. A half step of 1/M counts as d = 0, so it misses a little."""
    batch, student = batch_of(rows=64), decay_average(a)
    for finest, most in ((4096, 1e-6), (8, 0.1)):
        student.scale.grad = None
        method = shortcut(student, scaled_field(a), guidance=0.0, finest=finest, consistency_share=0.5)
        loss = loss_of(method, batch, state_of(batch))
        loss.backward()
        assert loss.item() < most
        if finest == 4096:
            assert abs(student.scale.grad.item()) < 1e-2
    assert loss.item() > 1e-6, "Euler's error at the finest size must show, or nothing was asked there"
    wrong = decay_average(a, scale=1.2)
    loss_of(
        shortcut(wrong, scaled_field(a), guidance=0.0, finest=4096), batch, state_of(batch), decay_average(a)
    ).backward()
    assert wrong.scale.grad.item() > 0.01


def test_the_target_is_what_two_half_steps_of_the_average_reach(
    batch_of: Any, state_of: StateOf, scaled_field: Any, recorder: Any, decay_average: Any
) -> None:
    batch = batch_of(rows=60)
    student, ema = recorder(scaled_field(0.2, 0.1)), recorder(decay_average(0.9))
    method = shortcut(student, scaled_field(), finest=8, consistency_share=1.0)
    loss = loss_of(method, batch, state_of(batch, seed=4), ema)
    z, t, r, _ = student.calls[0]
    x0 = randn_like(batch.x1, torch.Generator().manual_seed(4))
    torch.testing.assert_close(z, interpolate(x0, batch.x1, t))
    size = r - t
    assert sorted(set(size.tolist())) == [0.25, 0.5, 1.0]  # 2/M … 1
    assert ((t / size) % 1 == 0).all()
    assert (r <= 1).all()
    expected = []
    for row in range(60):
        asked = 0.0 if size[row] == 0.25 else float(size[row] / 2)  # 1/M counts as d = 0
        grid = torch.tensor([float(t[row]), float(t[row] + size[row] / 2), float(r[row])])
        field = lambda z, t, r, asked=asked: ema.network(z, t, t + asked, None)  # noqa: E731
        end = euler(field, z[row : row + 1], grid)
        expected.append((0.2 * z[row] + 0.1 - (end[0] - z[row]) / size[row])[batch.target[row]])
    torch.testing.assert_close(loss, torch.cat(expected).square().mean(), rtol=1e-4, atol=1e-6)


def test_sizes_are_equally_likely_and_so_are_the_places_of_each(
    batch_of: Any, state_of: StateOf, scaled_field: Any, recorder: Any
) -> None:
    batch, student = batch_of(rows=4000, frames=3), recorder(scaled_field())
    loss_of(shortcut(student, scaled_field(), finest=16, consistency_share=1.0), batch, state_of(batch), scaled_field())
    _, t, r, _ = student.calls[0]
    size = r - t
    for pieces in (1, 2, 4, 8):  # sizes 2/M … 1, of M = 16
        own = (size - 1 / pieces).abs() < 1e-6
        assert own.float().mean().item() == pytest.approx(0.25, abs=0.035)  # five standard errors
        places = torch.bincount((t[own] * pieces).round().long(), minlength=pieces)
        assert len(places) == pieces
        assert (places / own.sum() - 1 / pieces).abs().max() < 5 * (1 / pieces / own.sum()) ** 0.5


def test_shares_and_whom_they_ask(batch_of: Any, state_of: StateOf, scaled_field: Any, recorder: Any) -> None:
    batch = batch_of(rows=80)
    student, teacher, ema = (
        recorder(scaled_field(0.1, 0.2)),
        recorder(scaled_field(0.5, 1.0)),
        recorder(scaled_field()),
    )
    loss_of(shortcut(student, teacher, guidance=2.0), batch, state_of(batch), ema)
    z, t, r, _ = student.calls[0]
    assert int((r > t).sum()) == 20  # the paper's quarter
    assert [len(call[0]) for call in ema.calls] == [20, 20]
    assert len(teacher.calls[0][0]) == 2 * 60  # guided
    torch.testing.assert_close(teacher.calls[0][0][:60], z[r == t])
    assert t[r == t].std() > 0.2


def test_rows_of_no_size_learn_the_teachers_guided_velocity(
    batch: Batch, state_of: StateOf, scaled_field: Any, recorder: Any
) -> None:
    student = recorder(scaled_field(0.1, 0.2))
    method = shortcut(student, scaled_field(0.5, 1.0), guidance=2.0, consistency_share=0.0)
    loss = loss_of(method, batch, state_of(batch))
    z, t, r, _ = student.calls[0]
    assert torch.equal(t, r)
    torch.testing.assert_close(loss, (0.1 * z + 0.2 - (0.5 * z + 3.0))[batch.target].square().mean())


def test_the_papers_own_guidance(batch_of: Any, state_of: StateOf, scaled_field: Any, recorder: Any) -> None:
    """Rows of d = 0 learn x1 − x0, some without their condition; half steps at d = 0, and only they, are guided."""
    batch, config = batch_of(rows=400, frames=3), {"guidance_from": "self", "guidance": 2.0, "condition_dropout": 0.1}
    student, teacher = recorder(scaled_field(0.0, 0.0)), recorder(scaled_field())
    loss = loss_of(shortcut(student, teacher, consistency_share=0.0, **config), batch, state_of(batch, seed=4))
    x0 = randn_like(batch.x1, torch.Generator().manual_seed(4))
    torch.testing.assert_close(loss, (batch.x1 - x0)[batch.target].square().mean())
    assert not teacher.calls
    assert student.calls[0][3].dropped.float().mean().item() == pytest.approx(0.1, abs=0.05)

    student = recorder(scaled_field(0.0, 0.0))
    ema = scaled_field(0.0, 1.0)  # v(c) = 1, v(∅) = 0: guided it is 3
    loss = loss_of(shortcut(student, teacher, consistency_share=1.0, finest=4, **config), batch, state_of(batch), ema)
    _, t, r, condition = student.calls[0]
    target = torch.where(condition.dropped, 0.0, torch.where(r - t == 0.5, 3.0, 1.0))
    frames = batch.target.sum(1)
    torch.testing.assert_close(loss, (target**2 * frames).sum() / frames.sum())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"finest": 100}, "power of two such as 64 or 128, not 100"),
        ({"guidance_from": "self"}, "condition_dropout above 0"),
        ({"consistency_share": 1.5}, "less than or equal to 1"),
    ],
)
def test_settings_that_make_no_sense(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ShortcutConfig(**config)


def test_a_batch_whose_rows_have_all_lost_their_condition_is_learnt_from(
    batch_of: Any, state_of: StateOf, scaled_field: Any, recorder: Any
) -> None:
    """Their target is x1 − x0, and there is nothing to ask the teacher."""
    batch, teacher = batch_of(rows=2), recorder(scaled_field())
    method = shortcut(scaled_field(0.0, 0.0), teacher, consistency_share=0.0, condition_dropout=0.999, guidance=2.0)
    loss = loss_of(method, batch, state_of(batch, seed=4))
    x0 = randn_like(batch.x1, torch.Generator().manual_seed(4))
    torch.testing.assert_close(loss, (batch.x1 - x0)[batch.target].square().mean())
    assert not teacher.calls
