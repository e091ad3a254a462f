"""Small batches and networks for the tests of methods."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from imfbench.data import collate, text_tokens
from imfbench.method import Batch, Condition, State

BANDS = 6


class ScaledField(nn.Module):
    """v = a·z + b + slope·t with the condition, a·z without: linear, with parameters, blind to r."""

    def __init__(self, a: float = 0.0, b: float = 0.0, slope: float = 0.0) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.tensor(a)), nn.Parameter(torch.tensor(b))
        self.slope = slope

    def forward(self, z: Tensor, t: Tensor, r: Tensor | None, condition: Condition) -> Tensor:
        own = (self.b + self.slope * t)[:, None, None].expand_as(z)
        return self.a * z + torch.where(condition.dropped[:, None, None], torch.zeros_like(own), own)


class DecayAverage(nn.Module):
    """The exact average velocity of dz/dt = a·z: ``u = z·(e^{a(r − t)} − 1)/(r − t)``, times ``scale``."""

    def __init__(self, a: float, scale: float = 1.0) -> None:
        super().__init__()
        self.a, self.scale = a, nn.Parameter(torch.tensor(scale))

    def forward(self, z: Tensor, t: Tensor, r: Tensor | None, condition: Condition) -> Tensor:
        x = self.a * (t * 0 if r is None else r - t)
        small = x.abs() < 1e-2
        ratio = torch.where(small, 1 + x / 2 + x**2 / 6 + x**3 / 24, torch.expm1(x) / torch.where(small, 1.0, x))
        return self.scale * self.a * ratio[:, None, None] * z


class Recorder(nn.Module):
    """Passes on to another network, and keeps what it was asked."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.calls: list[tuple[Tensor, Tensor, Tensor | None, Condition]] = []

    def forward(self, z: Tensor, t: Tensor, r: Tensor | None, condition: Condition) -> Tensor:
        self.calls.append((z, t, r, condition))
        found: Tensor = self.network(z, t, r, condition)
        return found


def make_batch(rows: int = 4, frames: int = 9, bands: int = BANDS, seed: int = 0) -> Batch:
    """Rows with a prompt of 2 frames and up to 3 frames of padding; the last row has no prompt."""
    g = torch.Generator().manual_seed(seed)
    x1 = torch.randn(rows, frames, bands, generator=g)
    at = torch.arange(frames)
    valid = at < frames - torch.arange(rows)[:, None] % 4
    prompt = (at < 2).expand(rows, frames).clone()
    prompt[-1] = False
    tokens = torch.randint(1, 20, (rows, frames), generator=g) * valid
    condition = Condition(tokens, x1 * prompt[..., None], prompt, valid, torch.zeros(rows, dtype=torch.bool))
    return Batch(x1, condition, tuple(f"utterance-{i}" for i in range(rows)))


def make_text_batch() -> Batch:
    """text2mel: three utterances of different lengths with prompts, and one that has none."""
    rows = []
    for i, (phones, frames, length) in enumerate(((5, 22, 12), (3, 15, 8), (4, 13, 9), (4, 20, 0))):
        g = torch.Generator().manual_seed(i)
        mel = torch.randn(length + frames, BANDS + 1, generator=g)
        prompt = torch.randint(1, 100, (3 if length else 0,), generator=g)
        target = torch.randint(1, 100, (phones,), generator=g)
        rows.append((mel, text_tokens(prompt, target, len(mel)), length))
    return collate(rows, ("a", "b", "c", "d"))


def make_state(batch: Batch, seed: int = 0, progress: float = 0.5) -> State:
    """The state of a step whose global batch is ``batch``."""
    generator = torch.Generator().manual_seed(seed)
    return State(10, progress, generator, float(batch.target.sum()), float(len(batch.x1)))


@pytest.fixture
def batch() -> Batch:
    return make_batch()


@pytest.fixture
def text_batch() -> Batch:
    return make_text_batch()


@pytest.fixture
def batch_of() -> Callable[..., Batch]:
    return make_batch


@pytest.fixture
def state_of() -> Callable[..., State]:
    return make_state


@pytest.fixture
def scaled_field() -> type[ScaledField]:
    return ScaledField


@pytest.fixture
def decay_average() -> type[DecayAverage]:
    return DecayAverage


@pytest.fixture
def recorder() -> type[Recorder]:
    return Recorder
