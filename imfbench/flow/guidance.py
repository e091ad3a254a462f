"""Classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598) with F5-TTS's and CosyVoice 2's scale ``w``."""

from __future__ import annotations

from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn


class Droppable(Protocol):
    """What guidance asks of a condition: to be dropped, and to be paired with its dropped self."""

    @property
    def dropped(self) -> Tensor:
        """(batch,), bool."""

    def drop(self, rows: Tensor | None = None) -> Droppable:
        """The condition ∅, on all rows or on those that are True."""

    def twice(self) -> Droppable:
        """Rows with the condition, then the same rows without."""


C = TypeVar("C", bound=Droppable)


def guided(v_condition: Tensor, v_null: Tensor, w: float, bands: Tensor | None = None) -> Tensor:
    """``ṽ = v(c) + w·(v(c) − v(∅))``; w = 0 is no guidance. ``bands`` (bands,) multiplies w: 0 where there is to be none."""
    return v_condition + (w if bands is None else w * bands) * (v_condition - v_null)


def guided_velocity(
    network: nn.Module, z: Tensor, t: Tensor, condition: Droppable, w: float, r: Tensor | None = None
) -> Tensor:
    """The guided velocity from one pass through the network: ``batch`` rows if w = 0, else twice as many.

    Args:
        network: ``u(z, t, r, condition)``. Its ``guided_bands``, if it has them, say how much of w each band gets.
        z: (batch, frames, bands).
        t: (batch,).
        condition: What the network may know.
        w: Guidance.
        r: End of the interval, (batch,), for networks of two times.

    Returns:
        (batch, frames, bands), float32 at least (bf16 would lose what the difference of two velocities holds).
    """
    if w == 0:
        v: Tensor = network(z, t, r, condition)
        return v if v.dtype == torch.float64 else v.float()
    both = network(torch.cat([z, z]), torch.cat([t, t]), None if r is None else torch.cat([r, r]), condition.twice())
    both = both if both.dtype == torch.float64 else both.float()
    # With chunk(2) or len(z) an exported graph would hold for the number of rows alone that it was made with.
    rows = z.shape[0]
    return guided(both[:rows], both[rows:], w, getattr(network, "guided_bands", None))


def drop_condition(condition: C, probability: float, generator: torch.Generator) -> C:
    """The condition with the whole of it dropped on random rows, so that v(∅) is learnt as well.

    A draw is made also for ``probability`` = 0: the other draws of a step do not depend on it.
    """
    rows = torch.rand(condition.dropped.shape, generator=generator) < probability
    return condition.drop(rows.to(condition.dropped.device))  # type: ignore[return-value]
