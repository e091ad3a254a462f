"""Draws of training times, (batch,) float32 on the CPU from a CPU generator: the same on every device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

Law = Literal["uniform", "logit-normal", "cosine"]


def draw_times(
    law: Law, rows: int, generator: torch.Generator, mean: float = 0.0, std: float = 1.0, stratified: bool = False
) -> Tensor:
    """Times in [0, 1]: uniform u, ``sigmoid(mean + std·n)`` with normal n (logit-normal, arXiv 2403.03206), or ``1 − cos(πu/2)``.

    A logit-normal of positive mean favours times near the data (t = 1). The last, ``cosine``, favours times near the noise: it is
    CosyVoice 2's law, and what ``sway(−1)`` makes of uniform points, so that training sees what sampling visits. ``stratified``
    draws one time from each of ``rows`` parts of equal probability, in random order: each row keeps the law, and a small batch's
    mean varies less (variational diffusion models, arXiv 2107.00630, appendix I.1, spread the times of a batch likewise).
    """
    u = torch.rand(rows, generator=generator)
    if stratified:
        u = (torch.randperm(rows, generator=generator) + u) / rows
    if law == "uniform":
        return u
    if law == "cosine":
        return 1 - torch.cos(math.pi / 2 * u)
    return torch.sigmoid(mean + std * torch.special.ndtri(u.double().clamp(1e-12, 1 - 1e-12)).float())


def draw_intervals(
    law: Law, rows: int, generator: torch.Generator, mean: float = 0.0, std: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Two independent draws, sorted: ``t ≤ r``."""
    a, b = (draw_times(law, rows, generator, mean, std) for _ in range(2))
    return torch.minimum(a, b), torch.maximum(a, b)


def draw_subset(rows: int, share: float, generator: torch.Generator) -> Tensor:
    """Random rows, (batch,) bool: ``share`` of them on average, and never a whole row more or less than that.

    The work of a step is then nearly the same each time, where each row by itself would make it vary.
    """
    chosen = math.floor(share * rows + torch.rand((), generator=generator).item())
    return torch.randperm(rows, generator=generator) < chosen


def draw_from_grids(grids: Sequence[Sequence[float]], rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """For every row one interval ``(τ_i, τ_{i+1})``, equally likely among all intervals of the grids."""
    pairs = torch.tensor([pair for grid in grids for pair in pairwise(grid)])
    t, r = pairs[torch.randint(len(pairs), (rows,), generator=generator)].unbind(1)
    return t, r


def draw_shared_intervals(
    rows: int,
    generator: torch.Generator,
    equal: float,
    at_zero: float,
    from_grids: float,
    grids: Sequence[Sequence[float]] = (),
) -> tuple[Tensor, Tensor]:
    """Two sorted uniforms, but for three disjoint shares of the rows.

    Args:
        rows: Rows.
        generator: Random source.
        equal: Share of rows with r = t.
        at_zero: Share of rows with t = 0.
        from_grids: Share of rows whose (t, r) is an interval of ``grids``.
        grids: Time grids.
    """
    t, r = draw_intervals("uniform", rows, generator)
    lot = torch.rand(rows, generator=generator)
    r = torch.where(lot < equal, t, r)
    t = torch.where((equal <= lot) & (lot < equal + at_zero), torch.zeros_like(t), t)
    if from_grids:
        chosen = lot >= 1 - from_grids
        grid_t, grid_r = draw_from_grids(grids, rows, generator)
        t, r = torch.where(chosen, grid_t, t), torch.where(chosen, grid_r, r)
    return t, r
