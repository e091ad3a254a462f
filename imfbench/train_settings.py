"""How a network is trained: the settings of the one loop for all methods."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from imfbench.devices import Precision


class TrainConfig(BaseModel):
    """How to train; the same for every method."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int | None = Field(None, ge=1)
    """Optimiser steps. Give ``steps`` or ``minutes``; minutes are turned into steps once, by timing ten (the median)."""
    minutes: float | None = Field(None, gt=0)
    frames_per_batch: int = Field(2000, ge=1)
    """Mel frames of a batch, prompts and padding included."""
    accumulate: int = Field(1, ge=1)
    """Micro-batches of one optimiser step."""
    learning_rate: float = Field(3e-4, gt=0)
    schedule: Literal["constant", "linear", "trapezoid"] = "linear"
    """After the warm-up: constant; linear to 0; or constant and then linear to 0 over the last ``decay``."""
    decay: float = Field(0.25, gt=0, le=1)
    """Share of the steps in which "trapezoid" goes down."""
    warmup: int = Field(50, ge=0)
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = Field(1.0, gt=0)
    """Largest norm of the gradient."""
    ema: float = Field(0.99, ge=0, lt=1)
    """Decay of the weights' moving average, which is what is sampled; it starts lower: (1 + n)/(10 + n)."""
    precision: Precision = "auto"
    seed: int = 0
    save_every: int = Field(200, ge=1)
    log_every: int = Field(10, ge=1)


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """Learning rate of a step (0-based)."""
    rate = config.learning_rate * min(1.0, (step + 1) / max(1, config.warmup))
    left = (steps - step) / steps
    if config.schedule == "linear":
        return rate * left
    if config.schedule == "trapezoid":
        return rate * min(1.0, left / config.decay)
    return rate
