"""MeanFlow: the average velocity learnt from its own derivative, which a JVP gives; the baseline."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from imfbench.flow.derivative import average_and_derivative
from imfbench.flow.guidance import drop_condition, guided_velocity
from imfbench.flow.times import Law, draw_intervals
from imfbench.flow.weighting import adaptive, normalising
from imfbench.method import Batch, Condition, Kind, Method, MethodConfig, Needs, State, interpolate, randn_like
from imfbench.registry import METHODS


class MeanFlowConfig(MethodConfig):
    """Hyper-parameters of MeanFlow; the power and the share of r = t are those of the paper's CIFAR code."""

    p: float = Field(0.75, ge=0)
    """Power of the adaptive weight 1/(‖Δ‖² + ε)^p; CIFAR .75, ImageNet 1, 0 is plain squared error. A teacher's ṽ has no
    noise, so that rows of r = t are soon learnt: a large p then spends the gradient on them."""
    epsilon: float = Field(1e-2, gt=0)
    """ε of the adaptive weight; published code uses 1e-2 and 1e-3."""
    equal_share: float = Field(0.25, ge=0, le=1)
    """Share of rows with r = t, which learn ṽ itself; CIFAR .25, ImageNet .75."""
    times: Law = "logit-normal"
    """Law of the two times, which are then sorted."""
    time_mean: float = 0.4
    """The paper's −0.4; its time runs the other way."""
    time_std: float = Field(1.0, gt=0)
    """Standard deviation of the logit-normal."""
    guidance_from: Literal["self", "teacher", "none"] = "teacher"
    """Whence ṽ: the network's own u (the paper), the teacher's guided velocity, or v = x1 − x0 as it is."""
    omega: float = 3.0
    """ω. The effective guidance ω/(1 − κ) is 1 + w, so 3 is F5-TTS's w = 2."""
    kappa: float = Field(0.0, lt=1)
    """κ, the share of u(z_t, t, t, c) in ṽ; with ``guidance_from: self`` only."""
    condition_dropout: float = Field(0.0, ge=0, lt=1)
    """Probability that a row loses its condition; ``self`` needs it (the paper .1), a teacher knows v(∅) already."""
    jvp: Literal["one_pass", "split"] = "split"
    """One dual pass with gradient, or du/dt without gradient and then an ordinary pass under autocast."""
    tangent_warmup: float = Field(0.0, ge=0, le=1)
    """Share of the training over which (r − t)·du/dt grows from nothing to its size (sCM, arXiv 2410.11081)."""
    tangent_normalisation: float | None = Field(None, gt=0)
    """c of sCM's g/(rms(g) + c) over the whole tangent g = Δ, in place of the adaptive weight; sCM .1."""

    @model_validator(mode="after")
    def _guidance_can_be_learnt(self) -> MeanFlowConfig:
        if self.kappa and self.guidance_from != "self":
            raise ValueError("kappa needs guidance_from: self; otherwise set omega alone")
        if self.guidance_from == "self" and self.omega + self.kappa != 1 and not self.condition_dropout:
            raise ValueError(
                "guidance_from: self needs condition_dropout above 0 (the paper .1), or u(∅) is never learnt"
            )
        return self


@METHODS.register("meanflow")
class MeanFlow(Method):
    """Mean flows (Geng et al. 2025, arXiv 2505.13447), with time from noise to data.

    ``u = v + (r − t)·du/dt``, hence the target ``sg(ṽ + (r − t)·du/dt)``, with du/dt the JVP of u along (ṽ, 1, 0) and
    ``ṽ = ω·v + κ·u(z_t, t, t, c) + (1 − ω − κ)·u(z_t, t, t, ∅)``. A row's loss is ``sg(1/(‖Δ‖² + ε)^p)·‖Δ‖²``.
    """

    Config = MeanFlowConfig
    config: MeanFlowConfig
    needs = Needs(teacher=True, two_times=True)
    kind: ClassVar[Kind] = "average"
    sampling_guidance = 0.0
    shares = ("squared_error",)
    variants: ClassVar[tuple[dict[str, Any], ...]] = ({"jvp": "one_pass"}, {"jvp": "split"})
    # The better law of times for so many evaluations, by the scorers on token2mel, at the best p: docs/results/options.
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "one-step": {"p": 0.5, "equal_share": 0.25, "times": "uniform"},
        "two-step": {"p": 0.5, "equal_share": 0.25, "times": "logit-normal"},
    }

    @property
    def baked_guidance(self) -> float:
        """w that the student learns; ω/(1 − κ) is 1 + w."""
        return 0.0 if self.config.guidance_from == "none" else self.config.omega / (1 - self.config.kappa) - 1

    def loss(self, batch: Batch, state: State) -> tuple[Tensor, dict[str, float]]:
        """Squared error against the identity, weighted; logs the plain error and weight; their product is the loss."""
        c, g, x1 = self.config, state.generator, batch.x1
        x0 = randn_like(x1, g)
        t, r = draw_intervals(c.times, len(x1), g, c.time_mean, c.time_std)
        r = torch.where(torch.rand(r.shape, generator=g) < c.equal_share, t, r)
        t, r = t.to(x1.device), r.to(x1.device)
        condition = drop_condition(batch.condition, c.condition_dropout, g)
        z = interpolate(x0, x1, t)
        v = self._guided(z, t, condition, x1 - x0)
        u, dudt = average_and_derivative(lambda *at: self.network(*at, condition), z, t, r, v, c.jvp)
        tangent = (r - t)[:, None, None] * dudt
        warm = min(1.0, state.progress / c.tangent_warmup) if c.tangent_warmup else 1.0
        delta = u.float() - (v + warm * tangent)

        error = (delta.square().sum(-1) * batch.target).sum(-1)
        elements = batch.target.sum(-1) * delta.shape[-1]
        plain = error.sum() / (state.frames * delta.shape[-1])
        if c.tangent_normalisation is not None:
            loss = (normalising(error, elements, c.tangent_normalisation) * error).sum()
            loss = loss / (state.frames * delta.shape[-1])
        else:
            loss = (adaptive(error, c.p, c.epsilon) * error).sum() / state.samples if c.p else plain
        weight = float(loss.detach() / plain.detach().clamp(min=1e-12))
        rms = float((tangent.square().sum(-1) * batch.target).sum() / elements.sum().clamp(min=1)) ** 0.5
        return loss, {"squared_error": float(plain.detach()), "weight": weight, "tangent_rms": rms}

    def velocity(self, z: Tensor, t: Tensor, r: Tensor, condition: Condition) -> Tensor:
        """The average velocity from ``t`` to ``r``, (batch, frames, bands); guidance is baked in."""
        u: Tensor = self.network(z, t, r, condition)
        return u

    @torch.no_grad()
    def _guided(self, z: Tensor, t: Tensor, condition: Condition, v: Tensor) -> Tensor:
        """ṽ; rows that lost their condition keep v."""
        c = self.config
        if c.guidance_from == "none":
            return v
        if c.guidance_from == "teacher":
            assert self.teacher is not None
            guided = guided_velocity(self.teacher.network, z, t, condition, c.omega - 1)
        else:
            both = self.network(torch.cat([z, z]), torch.cat([t, t]), torch.cat([t, t]), condition.twice())
            own, null = both.float().chunk(2)
            torch.clear_autocast_cache()  # else torch 2.9 takes weights cast without gradient (pytorch #112583)
            guided = c.omega * v + c.kappa * own + (1 - c.omega - c.kappa) * null
            guided = v + getattr(self.network, "guided_bands", 1.0) * (guided - v)
        return torch.where(condition.dropped[:, None, None], v, guided)
