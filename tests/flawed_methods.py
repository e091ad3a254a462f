"""Methods and searches that break one clause of their contract each, and what is to be said of them."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from imfbench.flow.search import SearchLimits, SearchResult
from imfbench.method import Batch, Condition, Method, State, squared_error
from imfbench.methods.intmeanflow import IntMeanFlow
from imfbench.methods.o3s import O3S
from imfbench.methods.reflow import ReFlow
from imfbench.methods.teacher import Teacher


class OwnRandomness(Teacher):
    def loss(self, batch: Batch, state: State) -> tuple[Tensor, dict[str, float]]:
        return super().loss(
            batch, replace(state, generator=torch.Generator().manual_seed(torch.randint(9999, ()).item()))
        )  # type: ignore[arg-type]


class LossEverywhere(Teacher):
    def loss(self, batch: Batch, state: State) -> tuple[Tensor, dict[str, float]]:
        everything = replace(batch, condition=replace(batch.condition, prompt=batch.condition.prompt & False))
        v = self.network(batch.x1, torch.rand(len(batch.x1), generator=state.generator), None, batch.condition)
        return squared_error(v - batch.x1, everything, state), {}


class OwnMean(Teacher):
    def loss(self, batch: Batch, state: State) -> tuple[Tensor, dict[str, float]]:
        return super().loss(batch, replace(state, frames=float(batch.target.sum())))


class LogsTensors(Teacher):
    def loss(self, batch: Batch, state: State) -> tuple[Tensor, dict[str, float]]:
        loss, _ = super().loss(batch, state)
        return loss, {"loss": loss}  # type: ignore[dict-item]


class NoKind(Method):
    Config, sampling_guidance = Teacher.Config, Teacher.sampling_guidance
    loss, velocity = Teacher.loss, Teacher.velocity  # type: ignore[assignment]


class DeafVelocity(Teacher):
    def velocity(self, z: Tensor, t: Tensor, r: Tensor, condition: Condition) -> Tensor:
        return super().velocity(z, t, r, condition.drop())


class DeafTraining(Teacher):
    def loss(self, batch: Batch, state: State) -> tuple[Tensor, dict[str, float]]:
        return super().loss(replace(batch, condition=batch.condition.drop()), state)


class AnothersTokens(Teacher):
    """Each row learns from the tokens of its neighbour."""

    def loss(self, batch: Batch, state: State) -> tuple[Tensor, dict[str, float]]:
        c = batch.condition
        return super().loss(replace(batch, condition=replace(c, tokens=c.tokens.roll(1, 0))), state)


class NoPaper(Teacher):
    """A docstring without a source."""


class OneMorePass(IntMeanFlow):
    def velocity(self, z: Tensor, t: Tensor, r: Tensor, condition: Condition) -> Tensor:
        return (self.network(z, t, r, condition) + self.network(z, t, r, condition)) / 2


class OverTheLimit(O3S):
    def search(
        self, evaluate: Any, steps: Any = None, start: Any = None, limits: SearchLimits | None = None
    ) -> SearchResult:
        return super().search(evaluate, steps, start, None)


class StartsElsewhere(IntMeanFlow):
    def velocity(self, z: Tensor, t: Tensor, r: Tensor, condition: Condition) -> Tensor:
        return 1.1 * super().velocity(z, t, r, condition)


class OtherWhenAlone(IntMeanFlow):
    def velocity(self, z: Tensor, t: Tensor, r: Tensor, condition: Condition) -> Tensor:
        return super().velocity(z, t, r, condition) + (self.teacher is None)


class SeesTheOthers(Teacher):
    def velocity(self, z: Tensor, t: Tensor, r: Tensor, condition: Condition) -> Tensor:
        return super().velocity(z, t, r, condition) + z.mean((0, 1))


class DoublePrecision(Teacher):
    def velocity(self, z: Tensor, t: Tensor, r: Tensor, condition: Condition) -> Tensor:
        return super().velocity(z, t, r, condition).double()


class NoGradient(Teacher):
    def loss(self, batch: Batch, state: State) -> tuple[Tensor, dict[str, float]]:
        loss, logs = super().loss(batch, state)
        return loss.detach(), logs


class LosesAGradientInBf16(Teacher):
    """As where a weight's cast was made without gradient and is taken again."""

    def loss(self, batch: Batch, state: State) -> tuple[Tensor, dict[str, float]]:
        weight = next(self.network.parameters())
        weight.requires_grad_(not torch.is_autocast_enabled("cpu"))
        found = super().loss(batch, state)
        weight.requires_grad_(True)
        return found


class LearnsNothing(Teacher):
    def loss(self, batch: Batch, state: State) -> tuple[Tensor, dict[str, float]]:
        loss, logs = super().loss(batch, state)
        return 1e-30 * loss, logs


class PreparesByChance(ReFlow):
    def prepare(self, batch: Batch, generator: torch.Generator) -> Batch:
        return super().prepare(batch, torch.Generator().manual_seed(random.randrange(2**31)))


class Wandering(O3S):
    def search(
        self, evaluate: Any, steps: Any = None, start: Any = None, limits: SearchLimits | None = None
    ) -> SearchResult:
        found = super().search(evaluate, steps, start, limits)
        return replace(found, trace=random.sample(found.trace, len(found.trace)))


class SearchesOneStep(O3S):
    def search(
        self, evaluate: Any, steps: Any = None, start: Any = None, limits: SearchLimits | None = None
    ) -> SearchResult:
        return replace(super().search(evaluate, steps, start, limits), evaluations=1)


METHOD_FLAWS: list[tuple[str, type, str, str, str]] = [
    ("method", OwnRandomness, "all randomness", "the same loss for the same state.generator", "then"),
    ("method", LossEverywhere, "carry no gradient", "no loss on prompt and padding frames", "loss on"),
    ("method", OwnMean, "global batch", "half the loss when twice the frames", "of"),
    ("method", LogsTensors, "loss reaches", "figures to log that are words with floats", "tensor"),
    ("method", NoKind, "kind is declared", "a class that says its kind", "none in it"),
    ("method", DeafVelocity, "velocity listens", "another velocity for other tokens", "and not dropped?"),
    ("method", DeafTraining, "training shows", "rows with their condition", "none"),
    ("method", AnothersTokens, "no other rows condition", "a row whose loss hangs on its own condition", "in the other rows"),
    ("method", NoPaper, "declares", "a docstring that cites the paper", "A docstring without a source."),
    ("method", OneMorePass, "measured counts", "as many network calls as declared", "euler"),
    ("method", OverTheLimit, "result is valid", "no more evaluations than the limit of 40", "steps from"),
    ("method", StartsElsewhere, "at initialisation", "the teacher's velocity at t", "differs"),
    ("method", OtherWhenAlone, "a teacher is needed", "the same velocity without the teacher", "differs"),
    ("method", SeesTheOthers, "a row does not depend", "the velocity of the utterance alone", "differs"),
    ("method", DoublePrecision, "velocity has the mels shape", "finite float32 of shape", "float64"),
    ("method", NoGradient, "loss reaches", "a loss with a gradient", "hangs on no weight"),
    ("method", LosesAGradientInBf16, "autocast keeps", "gradients for the same weights", "a difference in"),
    ("method", LearnsNothing, "training steps stay finite", "another velocity after ten steps", "mean square change"),
    ("method", PreparesByChance, "what is prepared", "the same batch for the same generator", "differs"),
    ("method", LossEverywhere, "carry no loss", "the same loss whatever stands", "then"),
    ("method", Wandering, "is reproducible", "the same trace twice", "two that differ"),
    ("method", SearchesOneStep, "one step says", "no evaluation", "1"),
]  # fmt: skip
"""Kind, part, words of the clause's name, of what was expected, and of what was found."""
