"""Two tasks that are no speech, in the shapes of speech, so that methods, network and training loop need not know.

A point of the plane is a "mel" of one frame with two bands; an image of 8 × 8 pixels is one of eight frames with eight bands,
and the digit that it shows is the content of every frame. There is no prompt.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imfbench.method import Batch, Condition
from imfbench.registry import nearest
from imfbench.train_settings import TrainConfig


class OtherTaskError(ValueError):
    """A task that is not known, or whose data are not installed; the message says what to do."""


@dataclass(frozen=True)
class Task:
    """A distribution to learn, and how far samples are from it.

    Attributes:
        name: "points" or "digits".
        about: In a sentence.
        shape: Frames and bands.
        network: Configuration of the backbone ``dit``.
        guidance: w of the teacher, and of what students learn.
        distance: Name of the first figure, to be small.
        draw: Training rows from (rows, generator): data (rows, frames, bands) and content (rows,), 1 and above.
        held_out: Rows that no training sees: data and content.
        figures: Figures of samples, (rows, frames, bands), for the contents of ``held_out``.
        teacher: Training of the teacher.
        student: Training of every student.
    """

    name: str
    about: str
    shape: tuple[int, int]
    network: dict[str, Any]
    guidance: float
    distance: str
    draw: Callable[[int, torch.Generator], tuple[Tensor, Tensor]]
    held_out: Callable[[], tuple[Tensor, Tensor]]
    figures: Callable[[Tensor], dict[str, float]]
    teacher: TrainConfig
    student: TrainConfig

    def batches(self, frames_per_batch: int, seed: int, start_step: int = 0) -> Iterator[Batch]:
        """Endless batches; batch k depends on (seed, k) alone."""
        k = start_step
        while True:
            x1, content = self.draw(frames_per_batch // self.shape[0], _generator(f"{self.name}/{seed}/{k}"))
            yield Batch(x1, self.condition(content))
            k += 1

    def condition(self, content: Tensor) -> Condition:
        """What the network is told: the content of each row, the same in all frames."""
        rows, (frames, bands) = len(content), self.shape
        no = torch.zeros(rows, frames, dtype=torch.bool)
        tokens = content[:, None].expand(rows, frames).contiguous()
        return Condition(tokens, torch.zeros(rows, frames, bands), no, ~no, torch.zeros(rows, dtype=torch.bool))


def _generator(seed: str) -> torch.Generator:
    digest = hashlib.sha256(seed.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


# --- points -----------------------------------------------------------------------------------------------------------

HELD_OUT_POINTS = 2000


def draw_moons(rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two interleaved half circles with some noise, of mean 0 and standard deviation about 1: (rows, 1, 2)."""
    angle = math.pi * torch.rand(rows, generator=generator)
    upper = torch.rand(rows, generator=generator) < 0.5
    arc = torch.stack([angle.cos(), angle.sin()], -1)
    points = torch.where(upper[:, None], arc, torch.tensor([1.0, 0.5]) - arc)
    points = points + 0.06 * torch.randn(rows, 2, generator=generator)
    points = (points - torch.tensor([0.5, 0.25])) / torch.tensor([0.87, 0.5])
    return points[:, None], torch.ones(rows, dtype=torch.int64)


def energy_distance(x: Tensor, y: Tensor) -> float:
    """``2·E|X − Y| − E|X − X'| − E|Y − Y'|`` (Székely and Rizzo 2013) of two samples, with the zeros of the diagonals.

    So it is never negative, and two draws of one distribution come to about ``E|X − X'|·(1/n + 1/m)``, not to 0.

    Args:
        x: (n, dimensions).
        y: (m, dimensions).
    """
    x, y = x.double(), y.double()
    return float(2 * torch.cdist(x, y).mean() - torch.cdist(x, x).mean() - torch.cdist(y, y).mean())


@functools.cache
def _held_out_points() -> tuple[Tensor, Tensor]:
    return draw_moons(HELD_OUT_POINTS, _generator("held out"))


def _figures_of_points(samples: Tensor) -> dict[str, float]:
    return {"energy distance": energy_distance(samples.flatten(1), _held_out_points()[0].flatten(1))}


# --- digits -----------------------------------------------------------------------------------------------------------

_MEAN, _SCALE = 4.884, 6.017  # of all pixels


@dataclass(frozen=True)
class Digits:
    """scikit-learn's digits (1797 images, 10 contents), and a classifier that has seen the training half.

    Attributes:
        images: Normalised, (rows, 8, 8).
        content: Digit + 1, (rows,).
        training: Rows to train on; the others are held out.
        classifier: A fitted network with one hidden layer.
    """

    images: Tensor
    content: Tensor
    training: Tensor
    classifier: Any

    def features(self, images: Tensor) -> np.ndarray[Any, Any]:
        """The classifier's hidden layer, (rows, 32)."""
        hidden = images.flatten(1).double().numpy() @ self.classifier.coefs_[0] + self.classifier.intercepts_[0]
        return np.asarray(np.maximum(hidden, 0))


@functools.cache
def digits() -> Digits:
    """The digits and their classifier.

    Raises:
        OtherTaskError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
        from sklearn.neural_network import MLPClassifier
    except ImportError:
        raise OtherTaskError(
            "the digits are scikit-learn's, which is not installed: pip install 'imfbench[digits]', or leave the task out "
            "(--task points)"
        ) from None
    data = load_digits()
    images = torch.from_numpy((data.images - _MEAN) / _SCALE).float()
    content = torch.from_numpy(data.target).long() + 1
    order = torch.randperm(len(images), generator=_generator("digits"))
    training = torch.zeros(len(images), dtype=torch.bool)
    training[order[: len(images) // 2]] = True
    classifier = MLPClassifier((32,), max_iter=1000, random_state=0)
    classifier.fit(images[training].flatten(1).numpy(), content[training].numpy())
    return Digits(images, content, training, classifier)


def _draw_digits(rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    given = digits()
    chosen = given.training.nonzero()[:, 0]
    chosen = chosen[torch.randint(len(chosen), (rows,), generator=generator)]
    # A pixel has 17 values: noise of that width makes it a number, as a density needs.
    blur = (torch.rand(rows, 8, 8, generator=generator) - 0.5) / _SCALE
    return given.images[chosen] + blur, given.content[chosen]


def _held_out_digits() -> tuple[Tensor, Tensor]:
    given = digits()
    return given.images[~given.training], given.content[~given.training]


def frechet_distance(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> float:
    """``|μ_x − μ_y|² + tr(Σ_x + Σ_y − 2·(Σ_x·Σ_y)^½)`` of features (rows, dimensions): FID's formula (arXiv 1706.08500)."""
    cov_x, cov_y = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    # The trace of the root by the eigenvalues, which are not negative: idle units make the product singular.
    root = np.sqrt(np.linalg.eigvals(cov_x @ cov_y).real.clip(min=0)).sum()
    apart = x.mean(0) - y.mean(0)
    return float(apart @ apart + np.trace(cov_x + cov_y) - 2 * root)


def _figures_of_digits(samples: Tensor) -> dict[str, float]:
    given, (held_out, content) = digits(), _held_out_digits()
    # As the data are: between black and white.
    images = samples.clamp(-_MEAN / _SCALE, (16 - _MEAN) / _SCALE)
    found = given.classifier.predict(images.flatten(1).numpy())
    distance = frechet_distance(given.features(images), given.features(held_out))
    return {"Fréchet distance": distance, "recognised": float((found == content.numpy()).mean())}


# --- by name ----------------------------------------------------------------------------------------------------------

_TRAINING: dict[str, Any] = {"precision": "fp32", "weight_decay": 0.0, "warmup": 20, "log_every": 50, "save_every": 500}
TASKS: dict[str, Task] = {
    "points": Task(
        "points", "two moons, 2 dimensions, without condition", (1, 2),
        {"bands": 2, "tokens": 2, "dim": 64, "depth": 1, "heads": 2, "patch": 1, "content_layers": 0, "convolution": 1},
        0.0, "energy distance", draw_moons, _held_out_points, _figures_of_points,
        TrainConfig(steps=1200, frames_per_batch=256, learning_rate=3e-3, ema=0.99, **_TRAINING),
        TrainConfig(steps=500, frames_per_batch=256, learning_rate=2e-3, ema=0.99, **_TRAINING),
    ),
    "digits": Task(
        "digits", "scikit-learn's digits, 8 × 8 pixels, by digit, guidance w = 0.5", (8, 8),
        {"bands": 8, "tokens": 11, "dim": 64, "depth": 2, "heads": 2, "patch": 1, "content_layers": 0, "convolution": 3},
        0.5, "Fréchet distance", _draw_digits, _held_out_digits, _figures_of_digits,
        TrainConfig(steps=1200, frames_per_batch=512, learning_rate=3e-3, ema=0.99, **_TRAINING),
        TrainConfig(steps=200, frames_per_batch=512, learning_rate=2e-3, ema=0.99, **_TRAINING),
    ),
}  # fmt: skip
"""The tasks, by name."""


def task_of(name: str) -> Task:
    """A task by its name.

    Raises:
        OtherTaskError: There is none; the message has the nearest.
    """
    if name not in TASKS:
        raise OtherTaskError(f"no task is called {name!r}: {nearest(name, list(TASKS))}")
    return TASKS[name]
