"""Shortcut models: one step of size d learnt from two of size d/2 of the averaged network."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from imfbench.flow.guidance import drop_condition, guided_velocity
from imfbench.flow.times import draw_subset, draw_times
from imfbench.method import (
    Batch,
    Condition,
    Kind,
    Method,
    MethodConfig,
    Needs,
    State,
    interpolate,
    randn_like,
    squared_error,
)
from imfbench.registry import METHODS


class ShortcutConfig(MethodConfig):
    """Hyper-parameters of shortcut models."""

    finest: int = Field(128, ge=2)
    """M, a power of two: step sizes are 2/M, 4/M … 1, and a half step of 1/M counts as d = 0. The paper 128."""
    consistency_share: float = Field(0.25, ge=0, le=1)
    """Share of rows that learn a step from its halves; the paper 1/4. The others learn the velocity, d = 0."""
    guidance: float = 2.0
    """w, baked in."""
    guidance_from: Literal["teacher", "self"] = "teacher"
    """``teacher``: rows with d = 0 learn its guided velocity, so that all sizes are guided. ``self``, the paper: they learn
    x1 − x0, and half steps at d = 0 are guided by the network's own v(∅); sampling in M steps is then not guided."""
    condition_dropout: float = Field(0.0, ge=0, lt=1)
    """Probability that a row loses its condition; ``self`` needs it (the paper .1), a teacher knows v(∅) already."""

    @model_validator(mode="after")
    def _can_be_learnt(self) -> ShortcutConfig:
        if self.finest & (self.finest - 1):
            raise ValueError(f"finest must be a power of two such as 64 or 128, not {self.finest}: steps are halved")
        if self.guidance_from == "self" and self.guidance and not self.condition_dropout:
            raise ValueError(
                "guidance_from: self needs condition_dropout above 0 (the paper .1), or v(∅) is never learnt"
            )
        return self


@METHODS.register("shortcut")
class Shortcut(Method):
    """One step diffusion via shortcut models (Frans et al. 2024, arXiv 2410.12557).

    ``s(z_t, t, d)`` is the average velocity of a step of size d, here ``u(z_t, t, t + d)``: the size is the second time.
    At d = 0 it is the velocity; ``s(z_t, t, d) = sg((s'(z_t, t, d/2) + s'(z', t + d/2, d/2))/2)`` with
    ``z' = z_t + d/2·s'(z_t, t, d/2)`` and s' the network's moving average. d is a power of ½ and t a multiple of it: 1, 2, 4, 8 …
    uniform steps are what it is trained for, and every other grid asks for sizes that it has not seen.
    """

    Config = ShortcutConfig
    config: ShortcutConfig
    needs = Needs(teacher=True, two_times=True, ema_target=True)
    kind: ClassVar[Kind] = "average"
    sampling_guidance = 0.0

    @property
    def baked_guidance(self) -> float:
        """w that the student has learnt."""
        return self.config.guidance

    def loss(self, batch: Batch, state: State) -> tuple[Tensor, dict[str, float]]:
        """Squared error of some rows against two half steps, of the others against the velocity."""
        assert self.teacher is not None
        assert state.ema is not None
        c, g, x1, rows = self.config, state.generator, batch.x1, len(batch.x1)
        x0 = randn_like(x1, g)
        two = draw_subset(rows, c.consistency_share, g)
        pieces = 2 ** torch.randint(int(math.log2(c.finest)), (rows,), generator=g)
        start = (torch.rand(rows, generator=g) * pieces).floor() / pieces
        t = torch.where(two, start, draw_times("uniform", rows, g)).to(x1.device)
        two, size = two.to(x1.device), torch.where(two, 1 / pieces, 0.0).to(x1.device)
        condition = drop_condition(batch.condition, c.condition_dropout, g)
        z = interpolate(x0, x1, t)
        u = self.network(z, t, t + size, condition)
        target = x1 - x0
        with torch.no_grad():
            if two.any():
                target[two] = self._halves(state.ema, z[two], t[two], size[two], condition.rows(two))
            one = ~two & ~condition.dropped
            if c.guidance_from == "teacher" and one.any():
                guided = guided_velocity(self.teacher.network, z[one], t[one], condition.rows(one), c.guidance)
                target[one] = guided
        return squared_error(u - target, batch, state), {}

    def _halves(self, ema: nn.Module, z: Tensor, t: Tensor, size: Tensor, condition: Condition) -> Tensor:
        """The average velocity of two steps of ``size``/2 each."""
        half = size / 2
        asked = torch.where(half * self.config.finest > 1, half, 0.0)
        first = self._step(ema, z, t, asked, condition)
        second = self._step(ema, z + half[:, None, None] * first, t + half, asked, condition)
        return (first + second) / 2

    def _step(self, ema: nn.Module, z: Tensor, t: Tensor, size: Tensor, condition: Condition) -> Tensor:
        """The averaged network's velocity for a step, guided at d = 0 if the guidance is to be its own."""
        u: Tensor = ema(z, t, t + size, condition).float()
        smallest = (size == 0) & ~condition.dropped
        if self.config.guidance_from == "self" and smallest.any():
            z, t = z[smallest], t[smallest]
            u[smallest] = guided_velocity(ema, z, t, condition.rows(smallest), self.config.guidance, t)
        return u

    def velocity(self, z: Tensor, t: Tensor, r: Tensor, condition: Condition) -> Tensor:
        """The average velocity of a step from ``t`` to ``r``, (batch, frames, bands); guidance is baked in."""
        u: Tensor = self.network(z, t, r, condition)
        return u
