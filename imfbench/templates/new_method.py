"""The method new-method.

As it stands it is SplitMeanFlow: the average velocity of an interval is that of its two parts. Change it into your own.
`imfbench check --plugin FILE` says what is right and wrong with it, and `imfbench run EXPERIMENT --plugin FILE` puts it on a
leaderboard. It reads no files, chooses no device and logs nothing: the framework does that for it.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from imfbench.flow.guidance import guided_velocity
from imfbench.method import Batch, Condition, Method, MethodConfig, Needs, State, interpolate, randn_like, squared_error
from imfbench.registry import METHODS


class NewMethodConfig(MethodConfig):
    """The hyper-parameters. Each has a default and a sentence; an experiment sets them under `config`."""

    guidance: float = 2.0
    """w of the teacher's guided velocity v(c) + w·(v(c) − v(∅)), which is learnt, so that sampling needs no second pass."""
    instant_share: float = Field(0.5, ge=0, le=1)
    """Share of the rows that learn the teacher's velocity itself, an interval of no length."""


@METHODS.register("new-method")
class NewMethod(Method):
    """Interval splitting, after SplitMeanFlow (arXiv 2507.16884).

    For times t ≤ s ≤ r, (r − t)·u(z_t, t, r) = (s − t)·u(z_t, t, s) + (r − s)·u(z_s, s, r), and u(z, t, t) = ṽ(z, t). Write here
    what your method learns, and cite where it comes from.
    """

    Config = NewMethodConfig
    config: NewMethodConfig
    # What the framework must provide. A method without a teacher starts from a network with random weights.
    needs = Needs(teacher=True, two_times=True)
    # "average": velocity() is the mean over the whole step from t to r. "instantaneous": it is that of t alone.
    kind = "average"

    @property
    def baked_guidance(self) -> float:
        """w that the weights hold after training: a column of the leaderboard."""
        return self.config.guidance

    def loss(self, batch: Batch, state: State) -> tuple[Tensor, dict[str, float]]:
        """The whole interval against its two parts; some rows learn the teacher's guided velocity."""
        assert self.teacher is not None
        x1, c, g = batch.x1, batch.condition, state.generator  # x1 (rows, frames, bands); every draw comes from g
        # Three times a row in order, t ≤ s ≤ r: 0 is noise, 1 is data.
        t, s, r = torch.rand(3, len(x1), generator=g).sort(0).values.to(x1.device)
        instant = torch.rand(len(x1), generator=g).to(x1.device) < self.config.instant_share
        z = interpolate(randn_like(x1, g), x1, t)
        u = self.network(z, t, torch.where(instant, t, r), c)
        with torch.no_grad():  # the target: no gradient goes through it
            first = self.network(z, t, s, c)
            second = self.network(z + (s - t)[:, None, None] * first, s, r, c)
            share = ((s - t) / (r - t).clamp(min=1e-6))[:, None, None]
            whole = share * first + (1 - share) * second
            taught = guided_velocity(self.teacher.network, z, t, c, self.config.guidance)
        target = torch.where(instant[:, None, None], taught, whole)
        # squared_error knows which frames count (not the prompt's, not padding) and divides by the global batch's. The second
        # value is for figures of your own in the training log.
        return squared_error(u - target, batch, state), {"instant": float(instant.float().mean())}

    def velocity(self, z: Tensor, t: Tensor, r: Tensor, condition: Condition) -> Tensor:
        """What a sampling step from t to r adds, (r − t)·velocity: the average velocity in one network pass."""
        return self.network(z, t, r, condition)
