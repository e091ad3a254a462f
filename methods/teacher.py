"""The teacher: conditional flow matching with guidance."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from imfbench.flow.guidance import drop_condition, guided_velocity
from imfbench.flow.times import Law, draw_times
from imfbench.method import Batch, Condition, Kind, Method, MethodConfig, State, interpolate, randn_like, squared_error
from imfbench.registry import METHODS


class TeacherConfig(MethodConfig):
    """Hyper-parameters of the teacher."""

    guidance: float = 2.0
    """w of sampling; F5-TTS 2, CosyVoice 2 0.7, 0 is none. Costs a second network row an evaluation."""
    condition_dropout: float = Field(0.2, ge=0, lt=1)
    """Probability that a training row loses its whole condition, which is how v(∅) is learnt (F5-TTS: 0.2)."""
    times: Law = "uniform"
    """Law of the training times; ``logit-normal`` as in Stable Diffusion 3."""
    time_mean: float = 0.0
    """Mean of the logit-normal; positive is nearer to the data."""
    time_std: float = Field(1.0, gt=0)
    """Standard deviation of the logit-normal."""
    stratified: bool = True
    """One time from each of as many equal parts of the law as a batch has rows, which calms the loss of small batches."""


@METHODS.register("teacher")
class Teacher(Method):
    """Conditional flow matching on straight paths (Lipman et al. 2022, arXiv 2210.02747).

    ``z_t = (1 − t)·x0 + t·x1``, loss ``‖v_θ(z_t, t, c) − (x1 − x0)‖²``; sampled with
    ``ṽ = v(c) + w·(v(c) − v(∅))`` (Ho and Salimans 2022, arXiv 2207.12598).
    """

    Config = TeacherConfig
    config: TeacherConfig
    kind: ClassVar[Kind] = "instantaneous"
    baked_guidance: ClassVar[None] = None

    @property
    def sampling_guidance(self) -> float:
        """w while sampling."""
        return self.config.guidance

    def loss(self, batch: Batch, state: State) -> tuple[Tensor, dict[str, float]]:
        """Squared error of the velocity at a random time, with the condition dropped on random rows."""
        c, g = self.config, state.generator
        x0 = randn_like(batch.x1, g)
        t = draw_times(c.times, len(batch.x1), g, c.time_mean, c.time_std, c.stratified).to(batch.x1.device)
        condition = drop_condition(batch.condition, c.condition_dropout, g)
        v = self.network(interpolate(x0, batch.x1, t), t, None, condition)
        return squared_error(v - (batch.x1 - x0), batch, state), {}

    def velocity(self, z: Tensor, t: Tensor, r: Tensor, condition: Condition) -> Tensor:
        """The guided velocity at ``t``; ``r`` plays no part."""
        return guided_velocity(self.network, z, t, condition, self.config.guidance)
