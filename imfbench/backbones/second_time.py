"""The mixer of two times around another network's time embedding (IntMeanFlow, section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def identity_mixer(dim: int) -> nn.Linear:
    """``W = [I, 0]`` of shape dim × 2·dim, without bias: a student that ignores r at first."""
    mixer = nn.Linear(2 * dim, dim, bias=False)
    with torch.no_grad():
        mixer.weight.copy_(torch.eye(dim, 2 * dim))
    return mixer


class TwoTimes(nn.Module):
    """A time embedding, ``e = W·[e_t ; e_r]`` once the mixer is attached; in float32 outside autocast.

    It has the layers of the embedding that it stands for under their own names, so that a checkpoint's keys stay the same; W is
    ``mixer.weight`` beside them.

    Args:
        layers: Name → layer, in the order in which they follow one another.
        sinusoids: Times (batch,) → what the first layer takes.
        dim: Of the embedding.
    """

    def __init__(self, layers: dict[str, nn.Module], sinusoids: nn.Module, dim: int) -> None:
        super().__init__()
        self._order = tuple(layers)
        self._sinusoids = [sinusoids]  # in a list: it has no weights, and no place among the checkpoint's keys
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.dim = dim
        self.mixer: nn.Linear | None = None

    def attach(self) -> None:
        """Add W; nothing changes if it is there already."""
        if self.mixer is None:
            weight = next(self.parameters())
            self.mixer = identity_mixer(self.dim).to(weight.device, weight.dtype)

    def _embed(self, t: Tensor) -> Tensor:
        weight = next(self.parameters())
        x = self._sinusoids[0](t).to(weight.dtype)
        for name in self._order:
            x = getattr(self, name)(x)
        return x

    def forward(self, times: Tensor) -> Tensor:
        """Embedding of t, (batch,), or of [t, r], (batch, 2): (batch, dim)."""
        with torch.autocast(times.device.type, enabled=False):
            if self.mixer is None:
                return self._embed(times)
            found: Tensor = self.mixer(torch.cat([self._embed(times[:, 0]), self._embed(times[:, 1])], -1))
            return found


def both_times(t: Tensor, r: Tensor | None, second: bool) -> Tensor:
    """What :class:`TwoTimes` takes: t, or [t, r] with r = t where none is given, (batch, 2)."""
    return torch.stack([t, t if r is None else r], -1) if second else t
