"""Small batches and networks for the tests of methods."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from imfbench.contracts.batches import make_batch, make_state
from imfbench.method import Batch, Condition, State


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


@pytest.fixture
def batch() -> Batch:
    return make_batch()


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
