"""Solvers of ``dz/dt = v(z, t)`` over a time grid. Each asks the velocity with the end ``r`` of the step it is in.

With an average velocity, Euler's ``z_r = z_t + (r − t)·u(z_t, t, r)`` is exact (arXiv 2505.13447), and a
midpoint makes no sense.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Tensor

Velocity = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``v(z, t, r)`` with ``z`` (batch, …) and float32 times (batch,)."""


class SolverError(ValueError):
    """No such solver, or one that the velocity's kind forbids."""


def euler(velocity: Velocity, z: Tensor, grid: Tensor) -> Tensor:
    """Explicit Euler, order 1, one evaluation a step.

    Args:
        velocity: ``v(z, t, r)``.
        z: State at ``grid[0]``, (batch, …); its dtype is kept, so give float32 or better.
        grid: Times, (steps + 1,).

    Returns:
        The state at ``grid[-1]``.
    """
    for t, r in _steps(grid):
        z = z + (r - t) * velocity(z, _time(t, z), _time(r, z)).to(z.dtype)
    return z


def midpoint(velocity: Velocity, z: Tensor, grid: Tensor) -> Tensor:
    """Explicit midpoint, order 2, two evaluations a step; arguments as for :func:`euler`."""
    for t, r in _steps(grid):
        middle = (t + r) / 2
        half = z + (middle - t) * velocity(z, _time(t, z), _time(r, z)).to(z.dtype)
        z = z + (r - t) * velocity(half, _time(middle, z), _time(r, z)).to(z.dtype)
    return z


SOLVERS: dict[str, Callable[[Velocity, Tensor, Tensor], Tensor]] = {"euler": euler, "midpoint": midpoint}
_EVALUATIONS = {"euler": 1, "midpoint": 2}


def evaluations_per_step(name: str) -> int:
    """Velocity evaluations of one step of the solver ``name``."""
    check_solver(name)
    return _EVALUATIONS[name]


def check_solver(name: str, kind: str = "instantaneous") -> None:
    """Raise unless the solver exists and fits the kind of velocity.

    Raises:
        SolverError: Unknown name, or any solver but Euler for ``kind = "average"``.
    """
    if name not in SOLVERS:
        raise SolverError(f"unknown solver {name!r}: known are {', '.join(SOLVERS)}")
    if kind == "average" and name != "euler":
        raise SolverError(
            f"solver {name!r} needs an instantaneous velocity, this method learns the average velocity of whole steps: "
            "use euler"
        )


def _steps(grid: Tensor) -> Iterator[tuple[float, float]]:
    times = grid.tolist()  # step sizes in float64: the sum of the steps is 1
    return pairwise(times)


def _time(t: float, z: Tensor) -> Tensor:
    return torch.full((z.shape[0],), t, dtype=torch.float32, device=z.device)
