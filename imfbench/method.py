"""What a method is, and the few types that a method sees: ``Condition``, ``Batch``, ``State``, ``Needs``.

Time runs from 0 (noise) to 1 (data); mels are (batch, frames, bands), normalised; times are (batch,).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

Kind = Literal["instantaneous", "average"]


@dataclass(frozen=True)
class Condition:
    """Everything the network may know of an utterance: never a target mel.

    Attributes:
        tokens: Content of each mel frame, (batch, frames), int64; 0 is padding or "no content".
        prompt_mel: The prompt's normalised mel on the prompt's frames, zero elsewhere, (batch, frames, bands).
        prompt: True on the prompt's frames, (batch, frames), bool.
        valid: True on all frames that are not padding, (batch, frames), bool.
        dropped: True where guidance training or guidance itself drops the whole condition, (batch,), bool.
        speaker: A vector of the speaker, (batch, dims), for the backbones that take one.
        encoded: What a backbone's own ``encode`` made of this condition, (batch, frames, dims), dropped or not; None: the
            backbone encodes in every pass. See :func:`encoded`.
        gain: What the audio of the rows is multiplied by once it is made, (batch,); None: 1. No network sees it: F5-TTS hears
            quiet prompts louder than they are, and what it says is made as quiet as they were.
    """

    tokens: Tensor
    prompt_mel: Tensor
    prompt: Tensor
    valid: Tensor
    dropped: Tensor
    speaker: Tensor | None = None
    encoded: Tensor | None = None
    gain: Tensor | None = None

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The fields that there are, by name."""
        return {name: value for name in self.__dataclass_fields__ if (value := getattr(self, name)) is not None}

    def _each(self, change: Callable[[Tensor], Tensor]) -> Condition:
        return Condition(**{name: change(value) for name, value in self.tensors.items()})

    def drop(self, rows: Tensor | None = None) -> Condition:
        """The condition ∅ (all rows, or the rows where ``rows`` is True): tokens and prompt are hidden from the network."""
        return replace(self, dropped=torch.ones_like(self.dropped) if rows is None else self.dropped | rows)

    def twice(self) -> Condition:
        """Rows with the condition followed by the same rows without it, for one guided evaluation."""
        both = self._each(lambda value: torch.cat([value, value]))
        return replace(both, dropped=torch.cat([self.dropped, torch.ones_like(self.dropped)]))

    def rows(self, index: Tensor) -> Condition:
        """The rows of an index or a mask; an index may name a row more than once."""
        return self._each(lambda value: value[index])

    def to(self, device: torch.device | str) -> Condition:
        """The same condition on another device."""
        return self._each(lambda value: value.to(device))


@torch.no_grad()
def encoded(network: nn.Module, condition: Condition) -> Condition:
    """The condition with what a network's ``encode`` makes of it, so that passes that share a condition encode it once.

    Networks without an encoder of their own leave it as it is. Without gradient: for sampling, and for training where the encoder
    is frozen, which it is in every student of a network that has one.
    """
    if condition.encoded is not None or not hasattr(network, "encode"):
        return condition
    encode: Callable[[Condition], Tensor] = network.encode  # type: ignore[assignment]
    return replace(condition, encoded=encode(condition))


@dataclass(frozen=True)
class Batch:
    """A training batch.

    Attributes:
        x1: Data, (batch, frames, bands).
        condition: What the network may know.
        ids: Of the utterances.
        x0: The noise that belongs to ``x1``, of its shape, where a method prepared pairs; None: noise is drawn in the loss.
    """

    x1: Tensor
    condition: Condition
    ids: tuple[str, ...] = ()
    x0: Tensor | None = None

    @property
    def target(self) -> Tensor:
        """Frames that carry the loss: valid and not prompt, (batch, frames), bool."""
        return self.condition.valid & ~self.condition.prompt

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        x0 = None if self.x0 is None else self.x0.to(device)
        return replace(self, x1=self.x1.to(device), condition=self.condition.to(device), x0=x0)


@dataclass
class State:
    """What the training loop tells a method about the step.

    Attributes:
        step: Optimiser steps done.
        progress: Share of the training that is done, 0 to 1.
        generator: The random source of the step (on the CPU, seeded, checkpointed); use it for every draw.
        frames: Loss frames of the **global** batch (all processes, all accumulated micro-batches).
        samples: Rows of the global batch.
        ema: The EMA copy of the network, for methods whose target needs it; else None.
    """

    step: int
    progress: float
    generator: torch.Generator
    frames: float
    samples: float
    ema: nn.Module | None = None


class Needs(BaseModel):
    """What the framework must provide before a method can train or sample."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    teacher: bool = False
    """A frozen teacher method is passed as ``teacher``; the student starts from its weights."""
    two_times: bool = False
    """The network gets its second time (the mixer W = [I, 0]) before training."""
    ema_target: bool = False
    """``State.ema`` is given."""
    training: bool = True
    """False for a method without a loss (a search)."""


class MethodConfig(BaseModel):
    """Base of a method's hyper-parameters; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Method(ABC):
    """A way to train a velocity network and to evaluate it while sampling.

    Args:
        config: An instance of the class's ``Config``.
        network: The backbone ``u(z, t, r, condition)``; ``r`` is None for networks of one time.
        teacher: The frozen teacher, if ``needs.teacher``; sampling needs none.

    Raises:
        ValueError: The network refuses to learn from that teacher's (``check_teacher`` of the backbone, where it has one).
    """

    Config: ClassVar[type[MethodConfig]] = MethodConfig
    needs: ClassVar[Needs] = Needs()
    kind: ClassVar[Kind] = "instantaneous"
    variants: ClassVar[tuple[dict[str, Any], ...]] = ({},)
    """Settings whose training costs differ: `imfbench profile` shows each as a row of its own."""
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    """Settings with a name, which an experiment takes by ``preset: NAME``; no preset is a default."""
    shares: ClassVar[tuple[str, ...]] = ()
    """Figures of ``loss`` that are divided by the global batch's size as the loss is: a step's is their sum over its batches. The
    others, ratios and means of a batch, are averaged."""

    def __init__(self, config: Any, network: nn.Module, teacher: Method | None = None) -> None:
        self.config = config
        self.network = network
        self.teacher = teacher
        check = getattr(network, "check_teacher", None)
        if teacher is not None and check is not None:
            check(teacher.network)

    @abstractmethod
    def loss(self, batch: Batch, state: State) -> tuple[Tensor, dict[str, float]]:
        """The training loss, a scalar over the global batch's size, and figures to log."""

    def batches_to_prepare(self, batches: int) -> int:
        """How many batches ``prepare`` is to make for a training that takes ``batches`` of them; 0, as here, is none.

        Fewer than are taken are used several times, in another order each time. Their making is part of the training: a
        budget in minutes pays for it, a killed run goes on with the batch at which it stopped, and they are gone at the end.
        """
        return 0

    def prepare(self, batch: Batch, generator: torch.Generator) -> Batch:
        """A batch as the loss is to be given it, such as pairs of noise and a teacher's end point; without gradient.

        Args:
            batch: As the dataset has it.
            generator: The random source of this batch; all that is drawn comes from it.
        """
        raise NotImplementedError(f"{type(self).__name__} wants prepared batches, but does not say how they are made")

    @abstractmethod
    def velocity(self, z: Tensor, t: Tensor, r: Tensor, condition: Condition) -> Tensor:
        """The velocity used for the step from ``t`` to ``r``, (batch, frames, bands)."""


def randn_like(x: Tensor, generator: torch.Generator) -> Tensor:
    """Normal noise of ``x``'s shape from a CPU generator, on ``x``'s device: the same on every device."""
    return torch.randn(x.shape, generator=generator, dtype=torch.float32).to(x.device)


def interpolate(x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
    """``z_t = (1 − t)·x0 + t·x1`` with ``t`` of shape (batch,)."""
    t = t[:, None, None]
    return (1 - t) * x0 + t * x1


def squared_error(delta: Tensor, batch: Batch, state: State) -> Tensor:
    """‖Δ‖² over loss frames and all bands, divided by the global count of such frames and the number of bands."""
    error = (delta.float() ** 2).sum(-1)
    return (error * batch.target).sum() / (state.frames * delta.shape[-1])
