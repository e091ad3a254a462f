from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from imfbench.flow.solvers import euler
from imfbench.flow.times import draw_shared_intervals
from imfbench.method import Batch, Condition, State, interpolate, randn_like
from imfbench.methods.intmeanflow import IntMeanFlow, IntMeanFlowConfig
from imfbench.methods.teacher import Teacher, TeacherConfig

StateOf = Callable[..., State]


def intmeanflow(network: nn.Module, teacher_network: nn.Module, **config: Any) -> IntMeanFlow:
    # the teacher's own guidance plays no part: the student's is baked in
    return IntMeanFlow(IntMeanFlowConfig(**config), network, Teacher(TeacherConfig(guidance=99.0), teacher_network))


class LinearAverage(nn.Module):
    """u = b + slope·(t + r)/2: the average velocity of b + slope·t."""

    def __init__(self, b: float, slope: float) -> None:
        super().__init__()
        self.b, self.slope = nn.Parameter(torch.tensor(b)), slope

    def forward(self, z: Tensor, t: Tensor, r: Tensor | None, condition: Condition) -> Tensor:
        assert r is not None
        return (self.b + self.slope * (t + r) / 2)[:, None, None].expand_as(z)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_exact_for_a_constant_velocity_with_guidance(
    k: int, batch: Batch, state_of: StateOf, scaled_field: Any
) -> None:
    # ṽ = v(c) + w·(v(c) − v(∅)) = 1 + 2
    student = LinearAverage(3.0, 0.0)
    loss, _ = intmeanflow(student, scaled_field(0.0, 1.0), teacher_nfe=k).loss(batch, state_of(batch))
    assert loss.item() < 1e-12
    other, _ = intmeanflow(student, scaled_field(0.0, 1.0), teacher_nfe=k, guidance=1.0).loss(batch, state_of(batch))
    assert other.item() == pytest.approx(1, rel=1e-5)


def test_error_of_the_target_for_a_known_integral(batch: Batch, state_of: StateOf, scaled_field: Any) -> None:
    """Teacher 1 + 2t: Euler's K left sums miss the integral by exactly (r − t)/K."""
    g = torch.Generator().manual_seed(0)
    torch.randn(batch.x1.shape, generator=g)
    t, r = draw_shared_intervals(4, g, 0, 0, 0)
    frames = batch.target.sum(-1)
    for k in (1, 2, 8):
        config = {"teacher_nfe": k, "guidance": 0.0}
        loss, _ = intmeanflow(LinearAverage(1.0, 2.0), scaled_field(0.0, 1.0, 2.0), **config).loss(
            batch, state_of(batch)
        )
        expected = (frames * ((r - t) / k) ** 2).sum() / frames.sum()
        assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_the_target_converges_with_k_at_eulers_order(
    batch: Batch, state_of: StateOf, scaled_field: Any, decay_average: Any
) -> None:
    ks = np.array([4, 8, 16, 32])
    losses = [
        intmeanflow(decay_average(-2.0), scaled_field(-2.0), teacher_nfe=int(k)).loss(batch, state_of(batch))[0].item()
        for k in ks
    ]
    assert -np.polyfit(np.log(ks), np.log(np.sqrt(losses)), 1)[0] == pytest.approx(1, abs=0.1)


def test_r_equal_t_is_plain_distillation_of_the_guided_velocity(
    batch: Batch, state_of: StateOf, scaled_field: Any, recorder: Any
) -> None:
    student = recorder(scaled_field(0.1, 0.2))
    loss, _ = intmeanflow(student, scaled_field(0.5, 1.0), equal_share=1.0, guidance=2.0).loss(batch, state_of(batch))
    z, t, r, _ = student.calls[0]
    assert torch.equal(t, r)
    delta = (0.1 * z + 0.2 - (0.5 * z + 3.0))[batch.target]
    torch.testing.assert_close(loss, delta.square().mean())


def test_start_is_built_from_data_and_the_teacher_sees_its_own_states(
    batch: Batch, state_of: StateOf, scaled_field: Any, recorder: Any
) -> None:
    student, teacher = recorder(scaled_field()), recorder(scaled_field(-1.0, 0.5))
    intmeanflow(student, teacher, teacher_nfe=3, guidance=1.0).loss(batch, state_of(batch, seed=2))
    z, t, r, _ = student.calls[0]
    x0 = randn_like(batch.x1, torch.Generator().manual_seed(2))
    torch.testing.assert_close(z, interpolate(x0, batch.x1, t))
    assert len(teacher.calls) == 3
    for k, (state, time, second, condition) in enumerate(teacher.calls):
        assert second is None  # the teacher knows one time
        assert condition.dropped.tolist() == [False] * 4 + [True] * 4
        torch.testing.assert_close(state, torch.cat([z, z]))
        torch.testing.assert_close(time, torch.cat([t + (r - t) * k / 3] * 2))
        z = z + ((r - t) / 3)[:, None, None] * (-z + 1.0)


def test_reuse_gives_a_target_for_every_pair(batch: Batch, state_of: StateOf, scaled_field: Any, recorder: Any) -> None:
    student = recorder(LinearAverage(1.0, 2.0))
    config = {"teacher_nfe": 4, "guidance": 0.0, "reuse": 6}
    loss, _ = intmeanflow(student, scaled_field(0.0, 1.0, 2.0), **config).loss(batch, state_of(batch))
    z, t, r, condition = student.calls[0]
    assert len(student.calls) == 1
    assert len(z) == len(condition.valid) == 7 * 4
    whole = (r - t)[:4]
    parts = ((r - t).view(7, 4) / whole * 4).round()
    torch.testing.assert_close(parts * whole / 4, (r - t).view(7, 4), atol=1e-6, rtol=0)
    assert parts[0].tolist() == [4] * 4
    assert set(parts.flatten().tolist()) == {1, 2, 3, 4}
    # a part of j − i steps misses its integral by its length/(j − i) = (r − t)/K, as the whole does
    frames = batch.target.sum(-1)
    assert loss.item() == pytest.approx(((frames * (whole / 4) ** 2).sum() / frames.sum()).item(), rel=1e-4)
    # its start is on the teacher's path: z_τ = z_t + ∫(1 + 2τ) by left sums, hence below the exact integral
    x0 = randn_like(batch.x1, torch.Generator().manual_seed(0))
    exact = interpolate(x0, batch.x1, t[:4]) + ((t + t**2).view(7, 4) - (t + t**2)[:4])[..., None, None]
    gap = exact - z.view(7, *batch.x1.shape)
    assert (gap >= -1e-5).all()
    assert gap.max() < 0.25


def test_starts_on_the_teachers_trajectory(batch: Batch, state_of: StateOf, scaled_field: Any, recorder: Any) -> None:
    student, teacher = recorder(scaled_field()), scaled_field(-1.0, 0.5)
    config = {"on_trajectory": 1.0, "trajectory_nfe": 5, "guidance": 1.0}
    intmeanflow(student, teacher, **config).loss(batch, state_of(batch, seed=4))
    z, t, _, _ = student.calls[0]
    x0 = randn_like(batch.x1, torch.Generator().manual_seed(4))
    for row in range(len(z)):
        grid = torch.linspace(0, 1, 6).double() * t[row].double()
        expected = euler(lambda z, t, r: -z + 1.0, x0[row : row + 1], grid)
        torch.testing.assert_close(z[row : row + 1], expected)


def test_only_the_chosen_share_starts_there(batch_of: Any, state_of: StateOf, scaled_field: Any, recorder: Any) -> None:
    batch, student, teacher = batch_of(rows=200), recorder(scaled_field()), recorder(scaled_field(-1.0))
    intmeanflow(student, teacher, on_trajectory=0.3).loss(batch, state_of(batch, seed=4))
    x0 = randn_like(batch.x1, torch.Generator().manual_seed(4))
    z, t, _, _ = student.calls[0]
    moved = (z - interpolate(x0, batch.x1, t)).abs().amax((1, 2)) > 1e-6
    assert moved.float().mean().item() == pytest.approx(0.3, abs=0.1)
    assert len(teacher.calls) == 8 + 4
    assert len(teacher.calls[0][0]) == 2 * int(moved.sum())


def test_draws_on_grids_and_from_zero(batch_of: Any, state_of: StateOf, scaled_field: Any, recorder: Any) -> None:
    batch, student = batch_of(rows=500, frames=2), recorder(scaled_field())
    config = {"grids": [[0, 0.65, 1]], "grid_share": 0.5, "start_at_zero": 0.25}
    intmeanflow(student, scaled_field(), **config).loss(batch, state_of(batch))
    _, t, r, _ = student.calls[0]
    on_grid = ((t == 0) & (r == torch.tensor(0.65))) | ((t == torch.tensor(0.65)) & (r == 1))
    assert on_grid.float().mean().item() == pytest.approx(0.5, abs=0.06)
    assert ((t == 0) & ~on_grid).float().mean().item() == pytest.approx(0.25, abs=0.06)


def test_the_roll_out_keeps_a_float32_state_under_autocast(batch: Batch, state_of: StateOf, recorder: Any) -> None:
    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 6)

        def forward(self, z: Tensor, t: Tensor, r: Tensor | None, condition: Any) -> Tensor:
            found: Tensor = self.layer(z)
            return found

    student, teacher = recorder(Linear()), recorder(Linear())
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = intmeanflow(student, teacher).loss(batch, state_of(batch))
        assert teacher(*teacher.calls[0]).dtype == torch.bfloat16  # the framework's autocast holds for the teacher
    assert all(call[0].dtype == torch.float32 for call in teacher.calls + student.calls)
    assert loss.dtype == torch.float32
    loss.backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert all(p.grad is not None for p in student.parameters())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"teacher_nfe": 0}, "greater than or equal to 1"),
        ({"equal_share": 0.6, "start_at_zero": 0.6}, "must not exceed 1"),
        ({"grid_share": 0.5}, "grid_share needs grids"),
        ({"grids": [[0, 0.5]]}, "must start at 0 .* and end at 1"),
        ({"reuse": 1, "teacher_nfe": 1}, "at least 2"),
        ({"nfe": 4}, "nfe"),
    ],
)
def test_settings_that_make_no_sense(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        IntMeanFlowConfig(**config)


def test_shares_may_be_all_of_the_rows() -> None:
    """Their sum is 1.0000000000000002 in floating point."""
    assert IntMeanFlowConfig(equal_share=0.33, start_at_zero=0.56, grid_share=0.11, grids=((0, 1),)).grid_share == 0.11
