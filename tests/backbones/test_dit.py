"""The embedded backbone: what padding, prompts, dropping and the second time may and may not change."""

from __future__ import annotations

import pytest
import torch

from imfbench.backbones.dit import DiT, DiTConfig, rotary, rotate
from imfbench.method import Condition

SMALL = DiTConfig(bands=8, tokens=12, dim=32, depth=2, heads=2)


def network(seed: int = 0) -> DiT:
    torch.manual_seed(seed)
    net = DiT(SMALL)
    with torch.no_grad():  # the last layer starts at zero: an untrained network would equal everything
        for layer in (net.outlet, net.last_modulation):
            layer.weight.normal_(std=0.1)
    return net.eval()


def condition(rows: int = 2, frames: int = 21, prompt: int = 7, seed: int = 1) -> Condition:
    g = torch.Generator().manual_seed(seed)
    is_prompt = (torch.arange(frames) < prompt).expand(rows, -1)
    mel = torch.randn(rows, frames, 8, generator=g) * is_prompt[..., None]
    tokens = torch.randint(1, 12, (rows, frames), generator=g)
    return Condition(tokens, mel, is_prompt, torch.ones_like(is_prompt), torch.zeros(rows, dtype=torch.bool))


def inputs(c: Condition, seed: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*c.prompt_mel.shape, generator=g), torch.rand(len(c.prompt), generator=g)


def test_size_of_the_embedded_network() -> None:
    parameters = sum(p.numel() for p in DiT().parameters())
    assert parameters <= 12_000_000


def test_padding_changes_nothing() -> None:
    net, c = network(), condition(1)
    z, t = inputs(c)
    alone = net(z, t, None, c)
    more = 9  # an odd number of padding frames also moves the patches' borders
    fields = (c.tokens, c.prompt_mel, c.prompt, c.valid)
    longer = [torch.cat([x, torch.zeros(1, more, *x.shape[2:], dtype=x.dtype)], 1) for x in fields]
    padded = Condition(*longer, c.dropped)
    z_padded = torch.cat([z, torch.randn(1, more, 8)], 1)
    u = net(z_padded, t, None, padded)
    torch.testing.assert_close(u[:, : z.shape[1]], alone, atol=1e-5, rtol=1e-4)
    assert u[:, z.shape[1] :].abs().max() == 0


def test_prompt_frames_of_z_are_hidden_and_get_no_velocity() -> None:
    net, c = network(), condition()
    z, t = inputs(c)
    other = torch.where(c.prompt[..., None], torch.randn_like(z), z)
    u = net(z, t, None, c)
    torch.testing.assert_close(u, net(other, t, None, c))
    assert u[c.prompt].abs().max() == 0
    assert u[~c.prompt].abs().max() > 0


def test_dropped_rows_see_neither_tokens_nor_prompt() -> None:
    net = network()
    first, second = condition(seed=1), condition(seed=5)
    z, t = inputs(first)
    torch.testing.assert_close(net(z, t, None, first.drop()), net(z, t, None, second.drop()))
    assert not torch.allclose(net(z, t, None, first), net(z, t, None, second), atol=1e-3)


def test_rows_are_independent() -> None:
    net, c = network(), condition()
    z, t = inputs(c)
    both = net(torch.cat([z, z]), torch.cat([t, t]), None, c.twice())
    torch.testing.assert_close(both[:2], net(z, t, None, c), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(both[2:], net(z, t, None, c.drop()), atol=1e-5, rtol=1e-4)


def test_second_time_is_ignored_at_first_and_matters_once_trained() -> None:
    net, c = network(), condition()
    z, t = inputs(c)
    before = net(z, t, None, c)
    net.attach_second_time()
    for r in (t, t + 0.2, torch.ones_like(t)):
        torch.testing.assert_close(net(z, t, r, c), before)
    assert net.time.mixer is not None
    with torch.no_grad():
        net.time.mixer.weight[:, 32:].normal_(std=0.3)
    assert not torch.allclose(net(z, t, torch.ones_like(t), c), before, atol=1e-4)


def test_time_embedding_stays_in_float32_under_autocast() -> None:
    net, c = network(), condition()
    _, t = inputs(c)
    plain = net.time(t, None)
    with torch.autocast("cpu", torch.bfloat16):
        inside = net.time(t, None)
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, plain, atol=0, rtol=0)


def test_rotary_attention_depends_on_distance_alone() -> None:
    cos, sin = rotary(20, 16, torch.device("cpu"))
    g = torch.Generator().manual_seed(0)
    q, k = torch.randn(16, generator=g).expand(1, 1, 20, 16), torch.randn(16, generator=g).expand(1, 1, 20, 16)
    scores = (rotate(q, cos, sin) @ rotate(k, cos, sin).transpose(-1, -2))[0, 0]
    assert scores[3, 5].item() == pytest.approx(scores[11, 13].item(), abs=1e-4)
    assert scores[3, 5].item() != pytest.approx(scores[3, 9].item(), abs=1e-4)
