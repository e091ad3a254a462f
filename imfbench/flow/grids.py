"""Time grids: tensors ``0 = τ0 < … < τN = 1`` in float64.

A grid is data; the functions here are its named constructors.
"""

from __future__ import annotations

import difflib
import inspect
import math
import re
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

EPSS_POINTS: dict[int, list[int]] = {
    5: [0, 2, 4, 8, 16, 32],
    6: [0, 2, 4, 6, 8, 16, 32],
    7: [0, 2, 4, 6, 8, 16, 24, 32],
    10: [0, 2, 4, 6, 8, 12, 16, 20, 24, 28, 32],
    12: [0, 2, 4, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32],
    16: [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32],
}
"""Empirically pruned steps of F5-TTS in 1/32, before sway (Zheng et al. 2025, arXiv 2505.19931)."""

SMALLEST_GAP = 1e-6
"""Times reach the network as float32: closer points could become the same time."""


class GridError(ValueError):
    """A time grid or its description is not valid; the message says which part and what would be."""


def uniform(steps: int) -> Tensor:
    """``τ_i = i/N``, (steps + 1,)."""
    if steps < 1:
        raise GridError(f"a time grid needs at least 1 step, not {steps}")
    return torch.arange(steps + 1, dtype=torch.float64) / steps


def sway(steps: int, s: float = -1.0) -> Tensor:
    """``τ + s·(cos(πτ/2) − 1 + τ)`` over uniform τ (F5-TTS, arXiv 2410.06885); s = −1 is CosyVoice 2's cosine grid.

    Raises:
        GridError: ``s`` is outside [−1, 2/(π − 2)], where the times would not rise.
    """
    largest = 2 / (math.pi - 2)
    if not -1 <= s <= largest:
        raise GridError(f"sway(s) rises only for s between -1 and {largest:.3f}, not {s:g}")
    return _sway(uniform(steps), s)


def shift(steps: int, a: float = 0.5) -> Tensor:
    """``aτ/(1 + (a − 1)τ)`` over uniform τ (ZipVoice, arXiv 2506.13053); a < 1 puts more steps near the noise."""
    if a <= 0:
        raise GridError(f"shift(a) needs a > 0, not {a:g}")
    tau = uniform(steps)
    grid = a * tau / (1 + (a - 1) * tau)
    grid[-1] = 1.0  # exactly, where rounding would miss it, as for a = 0.3
    return grid


def epss(steps: int) -> Tensor:
    """F5-TTS's pruned steps under sway(−1); step counts without a published list are uniform with sway(−1)."""
    points = EPSS_POINTS.get(steps)
    return _sway(uniform(steps) if points is None else torch.tensor(points, dtype=torch.float64) / 32, -1.0)


GRIDS: dict[str, Callable[..., Tensor]] = {"uniform": uniform, "sway": sway, "shift": shift, "epss": epss}
_NAMED = ("uniform", "sway", "epss", "shift(0.5)", "shift(0.7)")


def make_grid(spec: str | Sequence[float] | Tensor, steps: int | None = None) -> Tensor:
    """A grid from its description.

    Args:
        spec: ``"uniform"``, ``"sway"``, ``"sway(-0.8)"``, ``"shift(0.7)"``, ``"epss"``, or an explicit list of points.
        steps: The number of intervals; needed for a name, checked against an explicit list.

    Returns:
        The points, (steps + 1,), float64.

    Raises:
        GridError: Unknown name, wrong argument, or points that are not ``0 = τ0 < … < τN = 1``.
    """
    if not isinstance(spec, str):
        return check_grid(spec, steps)
    match = re.fullmatch(r"\s*([A-Za-z][\w-]*)\s*(?:\(([^()]*)\))?\s*", spec)
    name = match.group(1) if match else spec
    if match is None or name not in GRIDS:
        close = difflib.get_close_matches(name, GRIDS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(GRIDS)}, or a list of points"
        raise GridError(f"unknown time grid {spec!r}: {hint}")
    if steps is None:
        raise GridError(f"the time grid {spec!r} needs a number of steps")
    try:
        arguments = [float(part) for part in (match.group(2) or "").split(",") if part.strip()]
    except ValueError:
        raise GridError(
            f"time grid {spec!r}: {match.group(2)!r} is not a number; write for example sway(-0.8)"
        ) from None
    allowed = len(inspect.signature(GRIDS[name]).parameters) - 1
    if len(arguments) > allowed:
        raise GridError(f"time grid {spec!r}: {name} takes {allowed or 'no'} argument{'s' * (allowed > 1)}")
    return check_grid(GRIDS[name](steps, *arguments), steps)


def check_grid(points: Sequence[float] | Tensor, steps: int | None = None) -> Tensor:
    """``points`` as a float64 tensor.

    Raises:
        GridError: They are not ``0 = τ0 < … < τN = 1``, or not ``steps`` intervals.
    """
    try:
        grid = torch.as_tensor(points, dtype=torch.float64).detach().cpu()
    except (TypeError, ValueError) as error:
        raise GridError(f"a time grid is a list of numbers, not {points!r}") from error
    if grid.ndim != 1 or len(grid) < 2:
        raise GridError(f"a time grid is a list of at least two points such as [0, 0.65, 1], not {points!r}")
    values = grid.tolist()
    shown = _show(values)
    if not all(math.isfinite(value) for value in values):
        raise GridError(f"time grid {shown} has a point that is not finite")
    if values[0] != 0 or values[-1] != 1:
        raise GridError(f"time grid {shown} must start at 0 (noise) and end at 1 (data)")
    for i, (left, right) in enumerate(pairwise(values)):
        if right - left < SMALLEST_GAP:
            raise GridError(
                f"time grid {shown} must rise: point {i + 1} ({right:g}) does not exceed point {i} ({left:g})"
            )
    if steps is not None and len(values) - 1 != steps:
        raise GridError(f"time grid {shown} has {len(values) - 1} steps, but {steps} were asked for")
    return grid


def grid_name(spec: str | Sequence[float] | Tensor, steps: int | None = None) -> str:
    """The canonical name of a grid: equal values have equal names (sway at one step is ``"uniform"``).

    Args:
        spec: A grid, or a description as :func:`make_grid` takes it.
        steps: As for :func:`make_grid`.

    Returns:
        The first of uniform, sway, epss, shift(0.5), shift(0.7) with these values; else the description as given, if it
        is a name; else the points, ``"[0,0.65,1]"``.
    """
    grid = make_grid(spec, steps)
    for name in _NAMED:
        if torch.allclose(make_grid(name, len(grid) - 1), grid, rtol=0, atol=SMALLEST_GAP / 2):
            return name
    return spec.replace(" ", "") if isinstance(spec, str) else _show(grid.tolist())


def _sway(tau: Tensor, s: float) -> Tensor:
    swayed = tau + s * (torch.cos(math.pi / 2 * tau) - 1 + tau)
    swayed[0], swayed[-1] = 0.0, 1.0  # cos(π/2) is 6e-17, not 0
    return swayed


def _show(values: list[float]) -> str:
    return "[" + ",".join(f"{value:.6g}" for value in values) + "]"
