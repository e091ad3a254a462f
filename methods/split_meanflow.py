"""SplitMeanFlow: the average velocity of an interval learnt from those of its two parts."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from imfbench.flow.guidance import guided_velocity
from imfbench.flow.times import Law, draw_intervals, draw_subset
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


class SplitMeanFlowConfig(MethodConfig):
    """Hyper-parameters of SplitMeanFlow."""

    guidance: float = 2.0
    """w of the teacher, baked into the student through the rows with r = t."""
    equal_share: float = Field(0.5, ge=0, lt=1)
    """Share of rows with r = t, which learn ṽ itself: all else follows from them, and the paper has half of the rows or more."""
    times: Law = "uniform"
    """Law of the two times, which are then sorted."""
    time_mean: float = 0.0
    """Mean of the logit-normal; positive is nearer to the data."""
    time_std: float = Field(1.0, gt=0)
    """Standard deviation of the logit-normal."""


@METHODS.register("split-meanflow")
class SplitMeanFlow(Method):
    """Interval splitting consistency (Guo et al. 2025, arXiv 2507.16884), with time from noise to data.

    ``(r − t)·u(z_t, t, r) = (s − t)·u(z_t, t, s) + (r − s)·u(z_s, s, r)`` for t ≤ s ≤ r, ``z_s = z_t + (s − t)·u(z_t, t, s)``.
    With ``s = t + λ·(r − t)``, λ uniform, the target is ``sg(λ·u(z_t, t, s) + (1 − λ)·u(z_s, s, r))`` of the network itself;
    neither a JVP nor a roll-out of the teacher. At r = t the target is the teacher's guided velocity ṽ.
    """

    Config = SplitMeanFlowConfig
    config: SplitMeanFlowConfig
    needs = Needs(teacher=True, two_times=True)
    kind: ClassVar[Kind] = "average"
    sampling_guidance = 0.0

    @property
    def baked_guidance(self) -> float:
        """w that the student has learnt."""
        return self.config.guidance

    def loss(self, batch: Batch, state: State) -> tuple[Tensor, dict[str, float]]:
        """Squared error of some rows against ṽ, of the others against their two parts."""
        assert self.teacher is not None
        c, g, x1 = self.config, state.generator, batch.x1
        x0 = randn_like(x1, g)
        t, r = draw_intervals(c.times, len(x1), g, c.time_mean, c.time_std)
        share = torch.rand(len(x1), generator=g)
        equal = draw_subset(len(x1), c.equal_share, g)
        t, r, share, equal = (each.to(x1.device) for each in (t, torch.where(equal, t, r), share, equal))
        z = interpolate(x0, x1, t)
        u = self.network(z, t, r, batch.condition)
        target = torch.empty_like(z)
        with torch.no_grad():
            if equal.any():
                of_teacher = batch.condition.rows(equal)
                target[equal] = guided_velocity(self.teacher.network, z[equal], t[equal], of_teacher, c.guidance)
            if not equal.all():
                other = ~equal
                of_network = batch.condition.rows(other)
                target[other] = self._parts(z[other], t[other], r[other], share[other], of_network)
        return squared_error(u - target, batch, state), {}

    def _parts(self, z: Tensor, t: Tensor, r: Tensor, share: Tensor, condition: Condition) -> Tensor:
        """The average velocity from ``t`` to ``r`` in two steps, the first of them ``share`` of the way."""
        s, part = torch.lerp(t, r, share), share[:, None, None]
        first = self.network(z, t, s, condition).float()
        second = self.network(z + (s - t)[:, None, None] * first, s, r, condition).float()
        return part * first + (1 - part) * second

    def velocity(self, z: Tensor, t: Tensor, r: Tensor, condition: Condition) -> Tensor:
        """The average velocity from ``t`` to ``r``, (batch, frames, bands); guidance is baked in."""
        u: Tensor = self.network(z, t, r, condition)
        return u
