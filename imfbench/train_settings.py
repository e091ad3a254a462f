"""How a network is trained: the settings of the one loop for all methods."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from imfbench.config_values import Portion
from imfbench.devices import Precision

Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""Of a training or of initial noise: torch's generator on the CPU takes no more digits than these."""

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def bytes_of(value: Any) -> Any:
    """Bytes of a size as people write it: 24GB, 500 MB, 16GiB, or a plain number of bytes.

    Raises:
        ValueError: It is no size.
    """
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", str(value))
    if found is None or found[2].lower() not in _UNITS or not float(found[1]):
        raise ValueError(f"{value!r} is no size of memory: write it like 24GB, 500MB or 16GiB")
    return round(float(found[1]) * _UNITS[found[2].lower()])


class TrainConfig(BaseModel):
    """How to train; the same for every method.

    What an optimiser step learns from is ``accumulate`` batches of ``frames_per_batch`` frames, however many ``processes`` share
    them: batches and random draws are numbered within the step, so that two processes learn what one does, up to rounding.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int | None = Field(None, ge=1)
    """Optimiser steps. Give ``steps`` or ``minutes``; minutes are turned into steps once, by timing ten (the median) while no
    other job of the run is at work."""
    minutes: float | None = Field(None, gt=0)
    """Minutes that the training may take on this machine, with nothing beside it; of no effect where ``steps`` is set."""
    frames_per_batch: int = Field(2000, ge=1)
    """Mel frames of a batch, prompts and padding included."""
    accumulate: int = Field(1, ge=1)
    """Batches of one optimiser step, one after another; the processes of a training share them."""
    learning_rate: float = Field(3e-4, gt=0)
    """AdamW's, when the warm-up is over."""
    schedule: Literal["constant", "linear", "trapezoid"] = "linear"
    """After the warm-up: constant; linear to 0; or constant and then linear to 0 over the last ``decay``."""
    decay: float = Field(0.25, gt=0, le=1)
    """Share of the steps in which "trapezoid" goes down."""
    warmup: int = Field(50, ge=0)
    """Steps over which the learning rate rises evenly to its size; no more than a few of a training of minutes."""
    weight_decay: float = Field(0.01, ge=0)
    """AdamW's, of all weights that are trained."""
    betas: tuple[Portion, Portion] = (0.9, 0.99)
    """AdamW's decays of the gradient's average and of its square's."""
    clip: float = Field(1.0, gt=0)
    """Largest norm of the gradient."""
    ema: float = Field(0.99, ge=0, lt=1)
    """Decay of the weights' moving average, which is what is sampled; it starts lower: (1 + n)/(10 + n)."""
    precision: Precision = "auto"
    """Of training alone; sampling has the experiment's. ``auto`` is bf16 autocast where the device is fast at it, else fp32."""
    seed: Seed = 0
    """Of weights that begin at random, of the batches and of all that is drawn for them; a system's ``seeds`` are several."""
    save_every: int = Field(200, ge=1)
    """Steps from one checkpoint to the next, from which a killed training goes on."""
    log_every: int = Field(10, ge=1)
    """Steps from one line of ``log.csv`` to the next."""
    processes: int = Field(1, ge=1)
    """Processes of one training (PyTorch's DDP), each on an accelerator of its own, or all on the CPU. ``accumulate`` must be a
    multiple."""
    memory: Annotated[int | None, BeforeValidator(bytes_of)] = Field(None, ge=1)
    """Bytes that a step may take, such as 24GB: by measuring steps ``frames_per_batch`` is lowered and ``accumulate`` raised as
    much as that needs; their product stays."""
    checkpoint_activations: bool = False
    """Compute the activations of the transformer blocks again in the backward pass: less memory, about a third more time, the
    same gradients."""
    compile: bool = False
    """torch.compile of the transformer blocks of network and teacher; where that fails they run as they are, with a warning."""
    ema_device: Literal["same", "cpu"] = "same"
    """Where the moving average is kept: "cpu" saves the accelerator a copy of the weights for a transfer of them a step."""
    teacher_dtype: Literal["fp32", "bf16"] = "fp32"
    """In what the teacher's weights are held; bf16 takes half the memory and rounds its targets."""

    @model_validator(mode="after")
    def _can_be_shared(self) -> TrainConfig:
        if self.memory is None and self.accumulate % self.processes:
            least = -(-self.accumulate // self.processes) * self.processes
            frames = max(1, self.frames_per_batch * self.accumulate // least)
            raise ValueError(
                f"accumulate = {self.accumulate} batches a step cannot be shared by processes = {self.processes}: it must be a "
                f"multiple, and accumulate = {least} with frames_per_batch = {frames} keeps the step's size"
            )
        return self

    def decisive(self, *but: str) -> dict[str, Any]:
        """The settings as they enter what a training is known by, JSON's types; those in ``but`` are left out.

        Left out is what changes how a training is carried out and not what it learns. What was added after trainings had been
        recorded stands in it only where it is not at its default: their records stay what they are.
        """
        found = self.model_dump(mode="json", exclude={*WITHOUT_EFFECT, *but})
        return {key: value for key, value in found.items() if key not in _LATER or value != self._default(key)}

    def _default(self, key: str) -> Any:
        return type(self).model_fields[key].default


WITHOUT_EFFECT = frozenset({"save_every", "log_every", "processes", "checkpoint_activations", "ema_device"})
"""Settings of how a training is carried out."""
_LATER = frozenset({"memory", "compile", "teacher_dtype"})


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """Learning rate of a step (0-based)."""
    rate = config.learning_rate * min(1.0, (step + 1) / max(1, config.warmup))
    left = (steps - step) / steps
    if config.schedule == "linear":
        return rate * left
    if config.schedule == "trapezoid":
        return rate * min(1.0, left / config.decay)
    return rate
