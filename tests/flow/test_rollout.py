from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from imfbench.flow.rollout import draw_pairs, roll_out

ROWS = 5


def case(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    z = torch.randn(ROWS, 3, 2, generator=g, dtype=dtype)
    t = torch.tensor([0.0, 0.1, 0.2, 0.5, 0.3], dtype=dtype)
    r = torch.tensor([1.0, 0.4, 0.9, 1.0, 0.3], dtype=dtype)  # the last row has r = t
    return z, t, r


def points(value: int) -> Tensor:
    return torch.full((ROWS,), value)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_exact_for_a_constant_velocity(steps: int) -> None:
    z, t, r = case()
    path = roll_out(lambda z, t: torch.full_like(z, 3.0), z, t, r, steps)
    torch.testing.assert_close(path.average(points(0), points(steps)), torch.full_like(z, 3.0))
    torch.testing.assert_close(path.states[-1], z + 3 * (r - t)[:, None, None])


def test_known_error_for_a_velocity_linear_in_time() -> None:
    z, t, r = case()
    for steps in (1, 2, 4):
        average = roll_out(lambda z, t: 2 * t[:, None, None] + 0 * z, z, t, r, steps).average(points(0), points(steps))
        # the integral of 2τ over [t, r] is (t + r)(r − t); Euler's left sums fall short by (r − t)/K
        expected = (t + r - (r - t) / steps)[:, None, None].expand_as(average)
        torch.testing.assert_close(average, expected)


def test_converges_to_the_integral_with_order_1_in_k() -> None:
    z, t, r = case()
    z, t, r = z[:4], t[:4], r[:4]
    h = (r - t)[:, None, None]
    exact = z * torch.expm1(-2 * h) / h
    ks = np.array([8, 16, 32, 64])
    errors = [
        (roll_out(lambda z, t: -2 * z, z, t, r, int(k)).average(points(0)[:4], points(int(k))[:4]) - exact).abs().max()
        for k in ks
    ]
    assert -np.polyfit(np.log(ks), np.log(errors), 1)[0] == pytest.approx(1, abs=0.1)


def test_r_equal_t_gives_the_velocity_itself() -> None:
    z, t, _ = case()
    path = roll_out(lambda z, t: z.sin() + t[:, None, None], z, t, t, 4)
    torch.testing.assert_close(path.average(points(0), points(4)), z.sin() + t[:, None, None])


def test_partial_sums_are_the_average_velocities_of_their_part() -> None:
    z, t, r = case()
    path = roll_out(lambda z, t: -2 * z + t[:, None, None], z[:4], t[:4], r[:4], 5)
    for i in range(5):
        for j in range(i + 1, 6):
            a, b = points(i)[:4], points(j)[:4]
            quotient = (path.state(b) - path.state(a)) / (path.time(b) - path.time(a))[:, None, None]
            torch.testing.assert_close(path.average(a, b), quotient)


def test_rows_may_have_different_parts() -> None:
    z, t, r = case()
    path = roll_out(lambda z, t: -z, z, t, r, 4)
    i, j = torch.tensor([0, 1, 2, 3, 0]), torch.tensor([4, 2, 4, 4, 1])
    for row in range(ROWS):
        expected = path.velocities[i[row] : j[row], row].mean(0)
        torch.testing.assert_close(path.average(i, j)[row], expected)
        torch.testing.assert_close(path.state(i)[row], path.states[i[row], row])


def test_short_intervals_lose_no_digits() -> None:
    z, t, _ = case(torch.float32)
    r = t + 1e-6
    path = roll_out(lambda z, t: z.cos(), z, t, r, 4)
    quotient = (path.states[-1] - z) / (r - t)[:, None, None]
    assert (path.average(points(0), points(4)) - z.cos()).abs().max() < 1e-5
    assert (quotient - z.cos()).abs().max() > 1e-2  # why the target is not written so


def test_ends_are_hit_exactly() -> None:
    g = torch.Generator().manual_seed(0)
    t, r = torch.rand(2, 1000, generator=g).sort(0).values
    path = roll_out(lambda z, t: z, torch.zeros(1000, 1, 1), t, r, 7)
    assert torch.equal(path.time(torch.zeros(1000, dtype=torch.long)), t)
    assert torch.equal(path.time(torch.full((1000,), 7)), r)


def test_no_gradient_and_the_states_dtype() -> None:
    z, t, r = case(torch.float32)
    weight = torch.ones(1, requires_grad=True)
    path = roll_out(lambda z, t: (weight * z).bfloat16(), z, t, r, 2)
    assert path.states.dtype == path.velocities.dtype == torch.float32
    assert not path.velocities.requires_grad


def test_pairs_are_ordered_and_equally_likely() -> None:
    i, j = draw_pairs(12_000, 3, torch.Generator().manual_seed(0))
    assert (i < j).all()
    seen, counts = torch.stack([i, j], 1).unique(dim=0, return_counts=True)
    assert len(seen) == 6
    assert (counts / 12_000 - 1 / 6).abs().max() < 0.015


def test_averages_are_float32_under_autocast() -> None:
    """The average is the target of training: in bf16 it would hold eight bits."""
    g = torch.Generator().manual_seed(0)
    z, t, r = torch.randn(3, 5, 4, generator=g), torch.zeros(3), torch.rand(3, generator=g)
    path = roll_out(lambda z, t: torch.sin(z) + t[:, None, None], z, t, r, 4)
    i, j = torch.zeros(3, dtype=torch.long), torch.full((3,), 4)
    with torch.autocast("cpu", torch.bfloat16):
        inside = path.average(i, j)
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, path.average(i, j), atol=0, rtol=0)
