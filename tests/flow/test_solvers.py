from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from imfbench.flow.grids import make_grid
from imfbench.flow.solvers import SOLVERS, SolverError, Velocity, check_solver, evaluations_per_step


def forced_decay(z: Tensor, t: Tensor, r: Tensor) -> Tensor:
    """dz/dt = cos 3t − 2z."""
    return torch.cos(3 * t.double())[:, None] - 2 * z


def forced_decay_at_1(z0: Tensor) -> Tensor:
    particular = lambda t: (2 * np.cos(3 * t) + 3 * np.sin(3 * t)) / 13  # noqa: E731
    return (z0 - particular(0)) * np.exp(-2) + particular(1)


@pytest.mark.parametrize("spec", ["uniform", "sway", "shift(0.7)"])
@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("midpoint", 2)])
def test_order_of_convergence(solver: str, order: int, spec: str) -> None:
    z0 = torch.tensor([[1.0, -0.5]], dtype=torch.float64)
    steps = np.array([16, 32, 64, 128])
    errors = [
        (SOLVERS[solver](forced_decay, z0, make_grid(spec, int(n))) - forced_decay_at_1(z0)).abs().max().item()
        for n in steps
    ]
    slope = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert slope == pytest.approx(order, abs=0.12)


def test_midpoint_is_exact_for_velocities_linear_in_time_and_euler_is_not() -> None:
    velocity: Velocity = lambda z, t, r: 2 * t.to(z.dtype)[:, None] + 0 * z  # noqa: E731
    z0, grid = torch.zeros(1, 1, dtype=torch.float64), make_grid("uniform", 4)
    assert SOLVERS["midpoint"](velocity, z0, grid).item() == pytest.approx(1, abs=1e-12)
    assert SOLVERS["euler"](velocity, z0, grid).item() == pytest.approx(1 - 1 / 4, abs=1e-12)


@pytest.mark.parametrize("spec", [[0, 1], [0, 0.9, 1], [0, 0.2, 0.25, 1]])
def test_euler_with_the_average_velocity_is_exact_on_every_grid(spec: list[float]) -> None:
    def average(z: Tensor, t: Tensor, r: Tensor) -> Tensor:
        h = (r.double() - t.double())[:, None]
        return z * torch.expm1(-2 * h) / h

    z0 = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z1 = SOLVERS["euler"](average, z0, make_grid(spec))
    torch.testing.assert_close(z1, z0 * np.exp(-2), rtol=1e-6, atol=0)


def test_the_velocity_gets_float32_times_of_the_step_and_the_state_keeps_its_dtype() -> None:
    seen: list[tuple[float, float]] = []

    def velocity(z: Tensor, t: Tensor, r: Tensor) -> Tensor:
        assert t.dtype == r.dtype == torch.float32
        assert t.shape == r.shape == (2,)
        seen.append((round(t[0].item(), 4), round(r[1].item(), 4)))
        return torch.zeros_like(z, dtype=torch.bfloat16)  # a network under autocast

    z = torch.zeros(2, 3)
    assert SOLVERS["euler"](velocity, z, make_grid([0, 0.3, 1])).dtype == torch.float32
    assert seen == [(0, 0.3), (0.3, 1)]
    seen.clear()
    SOLVERS["midpoint"](velocity, z, make_grid([0, 0.3, 1]))
    assert seen == [(0, 0.3), (0.15, 0.3), (0.3, 1), (0.65, 1)]


@pytest.mark.parametrize("solver", list(SOLVERS))
def test_declared_evaluations_are_the_measured_ones(solver: str) -> None:
    calls = 0

    def velocity(z: Tensor, t: Tensor, r: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return z

    SOLVERS[solver](velocity, torch.zeros(1, 1), make_grid("sway", 5))
    assert calls == 5 * evaluations_per_step(solver)


def test_refusals() -> None:
    check_solver("euler", "average")
    check_solver("midpoint", "instantaneous")
    with pytest.raises(SolverError, match="use euler"):
        check_solver("midpoint", "average")
    with pytest.raises(SolverError, match="known are euler, midpoint"):
        check_solver("heun")
