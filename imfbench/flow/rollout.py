"""Roll-outs of a velocity over an interval of its own for every row, and the average velocities they give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RollOut:
    """K equal Euler steps from ``t`` to ``r``.

    Attributes:
        t: Starts, (batch,).
        r: Ends, (batch,).
        states: z at the K + 1 points, (K + 1, batch, frames, bands).
        velocities: Velocities of the K steps, (K, batch, frames, bands).
    """

    t: Tensor
    r: Tensor
    states: Tensor
    velocities: Tensor

    @property
    def steps(self) -> int:
        """K."""
        return len(self.velocities)

    def time(self, k: Tensor) -> Tensor:
        """τ_k of each row, (batch,); exactly ``t`` for 0 and ``r`` for K."""
        return torch.lerp(self.t, self.r, k.to(self.t.dtype) / self.steps)

    def state(self, k: Tensor) -> Tensor:
        """z at τ_k of each row, (batch, frames, bands)."""
        return self.states[k, torch.arange(len(k), device=k.device)]

    def average(self, i: Tensor, j: Tensor) -> Tensor:
        """``Σ_{i≤k<j} Δτ_k·ṽ_k/(τ_j − τ_i)``, (batch, frames, bands), for points i < j of each row.

        The steps are equal, so this is the mean of j − i velocities. ``(z_j − z_i)/(τ_j − τ_i)`` would be the same, but
        loses digits where the interval is short and does not exist where r = t; here that case needs no branch.
        """
        k = torch.arange(self.steps, device=i.device)[:, None]
        inside = ((k >= i) & (k < j)).to(self.velocities.dtype)
        # Autocast would turn the product into bf16, and with it the target of training.
        with torch.autocast(self.velocities.device.type, enabled=False):
            return torch.einsum("kb,kbtd->btd", inside / inside.sum(0), self.velocities)


@torch.no_grad()
def roll_out(velocity: Callable[[Tensor, Tensor], Tensor], z: Tensor, t: Tensor, r: Tensor, steps: int) -> RollOut:
    """Roll ``dz/dt = velocity(z, t)`` from ``t`` to ``r``, (batch,), in equal Euler steps, without gradient.

    Args:
        velocity: ``ṽ(z, t)`` of ``z``'s shape.
        z: State at ``t``, (batch, frames, bands), float32.
        t: Starts.
        r: Ends.
        steps: K.
    """
    states, velocities = [z], []
    for k in range(steps):
        v = velocity(states[-1], torch.lerp(t, r, k / steps)).to(z.dtype)
        velocities.append(v)
        states.append(states[-1] + ((r - t) / steps)[:, None, None] * v)
    return RollOut(t, r, torch.stack(states), torch.stack(velocities))


def draw_pairs(rows: int, steps: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """For every row a pair of points ``0 ≤ i < j ≤ steps``, all pairs equally likely, (batch,) int64 on the CPU."""
    pairs = torch.combinations(torch.arange(steps + 1))
    i, j = pairs[torch.randint(len(pairs), (rows,), generator=generator)].unbind(1)
    return i, j
