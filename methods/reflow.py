"""ReFlow: flow matching on pairs of noise and the teacher's end point from it, which makes the paths straight."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
from pydantic import Field, field_validator
from torch import Tensor

from imfbench.flow.grids import make_grid
from imfbench.flow.guidance import guided_velocity
from imfbench.flow.solvers import euler
from imfbench.flow.times import draw_subset, draw_times
from imfbench.method import (
    Batch,
    Condition,
    Kind,
    Method,
    MethodConfig,
    Needs,
    State,
    encoded,
    interpolate,
    randn_like,
    squared_error,
)
from imfbench.registry import METHODS


class ReFlowConfig(MethodConfig):
    """Hyper-parameters of ReFlow."""

    guidance: float = 2.0
    """w of the teacher, baked into the pairs."""
    teacher_nfe: int = Field(16, ge=1)
    """The teacher's Euler steps from noise to end point; the paper has an adaptive solver's 100 or so."""
    teacher_grid: str = "sway"
    """Their time grid."""
    passes: int = Field(8, ge=0)
    """How often each pair is trained on, at another time each time; 0 makes new pairs in every step."""
    start_at_zero: float = Field(0.0, ge=0, le=1)
    """Share of rows with t = 0: at 1 it is the paper's distillation of the coupling, for a single step."""

    @field_validator("teacher_grid")
    @classmethod
    def _is_a_grid(cls, grid: str) -> str:
        make_grid(grid, 2)
        return grid


@METHODS.register("reflow")
class ReFlow(Method):
    """Rectified flow's second round (Liu et al. 2022, arXiv 2209.03003).

    Pairs (x0, x̂1): noise, and where the teacher's guided ODE takes it. Loss ``‖v_θ((1 − t)·x0 + t·x̂1, t, c) − (x̂1 − x0)‖²``. As
    the pairs' paths hardly cross, the velocity changes little along a path, and few Euler steps follow it.

    A pair costs ``2·teacher_nfe`` forwards of the network, a training step some three. In a comparison at equal time, pairs of
    every step anew would leave a tenth of the steps, so pairs are made beforehand as in the paper, are paid from the same
    budget, and serve ``passes`` times. That their noise is seen again is the price; the times are new each time.
    """

    Config = ReFlowConfig
    config: ReFlowConfig
    needs = Needs(teacher=True)
    kind: ClassVar[Kind] = "instantaneous"
    sampling_guidance = 0.0

    @property
    def baked_guidance(self) -> float:
        """w that the student has learnt."""
        return self.config.guidance

    def batches_to_prepare(self, batches: int) -> int:
        """Enough for every one to be taken ``passes`` times."""
        return -(-batches // self.config.passes) if self.config.passes else 0

    @torch.no_grad()
    def prepare(self, batch: Batch, generator: torch.Generator) -> Batch:
        """The batch with noise and the teacher's end point in place of the data."""
        assert self.teacher is not None
        teacher, w, x0 = self.teacher.network, self.config.guidance, randn_like(batch.x1, generator)
        condition = encoded(teacher, batch.condition)  # once for all of the teacher's steps
        grid = make_grid(self.config.teacher_grid, self.config.teacher_nfe)
        end = euler(lambda z, t, r: guided_velocity(teacher, z, t, condition, w), x0, grid)
        return replace(batch, x0=x0, x1=end)

    def loss(self, batch: Batch, state: State) -> tuple[Tensor, dict[str, float]]:
        """Squared error of the velocity on the straight line of each pair."""
        pair = batch if batch.x0 is not None else self.prepare(batch, state.generator)
        assert pair.x0 is not None
        t = draw_times("uniform", len(pair.x1), state.generator)
        t = t.masked_fill(draw_subset(len(t), self.config.start_at_zero, state.generator), 0.0).to(pair.x1.device)
        v = self.network(interpolate(pair.x0, pair.x1, t), t, None, pair.condition)
        return squared_error(v - (pair.x1 - pair.x0), pair, state), {}

    def velocity(self, z: Tensor, t: Tensor, r: Tensor, condition: Condition) -> Tensor:
        """The velocity at ``t``, (batch, frames, bands); guidance is baked in."""
        v: Tensor = self.network(z, t, None, condition)
        return v
