"""The derivative of an average velocity along its path, by forward-mode differentiation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

Average = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``u(z, t, r)``."""


@contextmanager
def forward_mode(device: torch.device) -> Iterator[None]:
    """Where a JVP is right: autocast off, and attention by the math kernel, since flash attention has no JVP."""
    with torch.autocast(device.type, enabled=False), sdpa_kernel(SDPBackend.MATH):
        yield


@contextmanager
def same_randomness(device: torch.device) -> Iterator[None]:
    """Leaves torch's random state as it found it, so that the pass after this one drops the same units."""
    where: dict[str, Any] = {"devices": []}  # an empty list still restores the CPU's state
    if device.type != "cpu":
        where = {"devices": [device], "device_type": device.type}
    with torch.random.fork_rng(**where):
        yield


def along_path(u: Average, z: Tensor, t: Tensor, r: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """``u(z, t, r)`` and ``du/dt = ∂_z u·v + ∂_t u`` with r fixed: the JVP along ``(v, 1, 0)``.

    Args:
        u: The average velocity; under grad mode both results carry gradients.
        z: (batch, …), float32.
        t: (batch,).
        r: (batch,).
        v: The path's velocity at ``z``, of its shape.

    Returns:
        ``u`` and ``du/dt``, each of ``z``'s shape.
    """
    with forward_mode(z.device):
        tangents = (v.to(z.dtype), torch.ones_like(t), torch.zeros_like(r))
        average, derivative = torch.func.jvp(u, (z, t, r), tangents)[:2]
    return average, derivative


def average_and_derivative(
    u: Average, z: Tensor, t: Tensor, r: Tensor, v: Tensor, form: Literal["one_pass", "split"]
) -> tuple[Tensor, Tensor]:
    """``u`` with its gradient, and ``du/dt`` without; arguments as for :func:`along_path`.

    ``one_pass`` differentiates through the dual pass, in float32. ``split`` takes the JVP without gradient and then an
    ordinary pass, which keeps autocast, the fast attention kernel and an ordinary pass's memory.
    """
    if form == "one_pass":
        average, derivative = along_path(u, z, t, r, v)
        return average, derivative.detach()
    with torch.no_grad(), same_randomness(z.device):
        _, derivative = along_path(u, z, t, r, v)
    return u(z, t, r), derivative
