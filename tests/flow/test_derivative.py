from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imfbench.flow.derivative import along_path, average_and_derivative, same_randomness


class SmallTransformer(nn.Module):
    """Attention, norm, dropout and both times: what a backbone is made of."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inlet, self.qkv, self.outlet = nn.Linear(6, 16), nn.Linear(16, 48), nn.Linear(16, 4)
        self.norm, self.dropout = nn.LayerNorm(16), nn.Dropout(dropout)

    def forward(self, z: Tensor, t: Tensor, r: Tensor) -> Tensor:
        times = torch.stack([(3 * t).sin(), (r - t).cos()], -1)[:, None].expand(-1, z.shape[1], -1)
        h = self.dropout(self.norm(self.inlet(torch.cat([z, times], -1))))
        q, k, v = (x[:, None] for x in self.qkv(h).chunk(3, -1))
        return self.outlet(h + F.scaled_dot_product_attention(q, k, v)[:, 0])


def case() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    z, v = torch.randn(2, 3, 5, 4, generator=g)
    t, r = torch.rand(2, 3, generator=g).sort(0).values
    return z, t, r, v


def test_jvp_is_the_finite_difference_along_the_path() -> None:
    network = SmallTransformer().double()
    z, t, r, v = (x.double() for x in case())
    u, derivative = along_path(network, z, t, r, v)
    torch.testing.assert_close(u, network(z, t, r))
    h = 1e-5
    difference = (network(z + h * v, t + h, r) - network(z - h * v, t - h, r)) / (2 * h)
    torch.testing.assert_close(derivative, difference, rtol=1e-7, atol=1e-8)
    other = (network(z + h * v, t + h, r + h) - network(z - h * v, t - h, r - h)) / (2 * h)
    assert (derivative - other).abs().max() > 1e-3  # r is held fixed


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_both_forms_give_the_same_values_and_gradients(dropout: float) -> None:
    results = []
    for form in ("one_pass", "split"):
        network = SmallTransformer(dropout)
        torch.manual_seed(5)
        u, derivative = average_and_derivative(network, *case(), form)  # type: ignore[arg-type]
        assert not derivative.requires_grad
        u.square().sum().backward()
        results.append([u.detach(), derivative, *(p.grad for p in network.parameters())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_the_passes_of_split_drop_the_same_units() -> None:
    network = SmallTransformer(0.5)
    z, t, r, _ = case()
    torch.manual_seed(3)
    with same_randomness(z.device):
        first = network(z, t, r)
    torch.testing.assert_close(first, network(z, t, r))
    assert not torch.allclose(first, network(z, t, r))


def test_autocast_is_off_inside_and_back_on_after() -> None:
    seen: list[torch.dtype] = []
    layer = nn.Linear(4, 4)

    def u(z: Tensor, t: Tensor, r: Tensor) -> Tensor:
        found = layer(z)
        seen.append(found.dtype)
        return found

    with torch.autocast("cpu", torch.bfloat16):
        average_and_derivative(u, *case(), "split")
    assert seen == [torch.float32, torch.bfloat16]
