"""The backbone of text2mel: its layout against positions by hand, and what padding, prompts and dropping may not change."""

from __future__ import annotations

import pytest
import torch

from imfbench.backbones.aligning_dit import AligningDiT, AligningDiTConfig, Layout
from imfbench.backbones.dit import DiT, DiTConfig
from imfbench.data import Example, collate, join
from imfbench.features.alignment import BOUNDARY, SCALE, phone_ends, positions
from imfbench.flow.derivative import along_path
from imfbench.flow.guidance import guided_velocity
from imfbench.method import Batch, Condition

SMALL = AligningDiTConfig(bands=8, dim=32, depth=1, alignment_depth=1, heads=2, content_layers=1, text_layers=1)


def network(seed: int = 0) -> AligningDiT:
    torch.manual_seed(seed)
    net = AligningDiT(SMALL)
    with torch.no_grad():
        for layer in (net.aligner.outlet, net.aligner.last_modulation, net.mel.outlet, net.mel.last_modulation):
            layer.weight.normal_(std=0.1)
    return net.eval()


def example(name: str, phones: list[int], units: list[int], frames: int, seed: int) -> Example:
    mel = torch.randn(frames, 8, generator=torch.Generator().manual_seed(seed))
    return Example(name, "s", mel, torch.tensor(phones), phone_ends(units, frames))


def batch() -> Batch:
    first = example("a", [1, 2, 3], [8, 4, 8], 43, 1), example("b", [4, 5, 6, 7], [2, 9, 3, 6], 43, 2)
    second = example("c", [3, 9], [5, 9], 30, 3), example("d", [8, 5, 2], [3, 6, 5], 29, 4)
    return collate([join(*first, 0, 43), join(*second, 0, 30)], ("b", "d"))


def inputs(b: Batch, seed: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(b.x1.shape, generator=g), torch.rand(len(b.x1), generator=g)


def test_size_of_the_embedded_network() -> None:
    assert sum(p.numel() for p in AligningDiT().parameters()) <= 13_500_000


def test_layout_puts_frames_where_durations_say() -> None:
    b = batch()
    layout = Layout(b.condition, 0.25)
    durations = torch.zeros(layout.tokens.shape)
    durations[0, :3], durations[0, 4:8] = torch.tensor([8.0, 4, 8]), torch.tensor([2.0, 9, 3, 6])
    durations[1, :2], durations[1, 3:6] = torch.tensor([5.0, 9]), torch.tensor([3.0, 6, 5])
    found = layout.positions(durations)
    # the band that training learns, read back as positions behind prompt and boundary
    truth = layout.even + b.x1[..., 8] / SCALE
    torch.testing.assert_close(found[b.target], truth[b.target], atol=0.1, rtol=0)  # frames are whole, ends are not
    prompt = positions(phone_ends([8, 4, 8], 43), 43)
    torch.testing.assert_close(found[0, :43], prompt, atol=0.1, rtol=0)


def test_padding_changes_nothing() -> None:
    net, b = network(), batch()
    z, t = inputs(b)
    u = net(z, t, None, b.condition)
    short = join(example("c", [3, 9], [5, 9], 30, 3), example("d", [8, 5, 2], [3, 6, 5], 29, 4), 0, 30)
    alone = collate([short], ("d",))
    frames = alone.x1.shape[1]
    torch.testing.assert_close(u[1:, :frames], net(z[1:, :frames], t[1:], None, alone.condition), atol=1e-5, rtol=1e-4)
    assert u[1, frames:].abs().max() == 0


def test_one_call_is_one_call_also_of_an_odd_number_of_frames() -> None:
    net, b = network(), batch()
    z, t = inputs(b)
    calls = []
    net.register_forward_hook(lambda *_: calls.append(1))
    odd = Condition(
        *(getattr(b.condition, n)[:, :-1] for n in ("tokens", "prompt_mel", "prompt", "valid")), b.condition.dropped
    )
    assert net(z[:, :-1], t, None, odd).shape == z[:, :-1].shape
    assert calls == [1]


def test_prompt_frames_of_z_are_hidden_and_get_no_velocity() -> None:
    net, b = network(), batch()
    z, t = inputs(b)
    u = net(z, t, None, b.condition)
    torch.testing.assert_close(u, net(torch.where(b.target[..., None], z, z + 1), t, None, b.condition))
    assert u[~b.target].abs().max() == 0
    assert u[b.target].abs().min() > 0


def test_dropped_rows_see_neither_text_nor_prompt() -> None:
    net, b = network(), batch()
    z, t = inputs(b)
    other = Condition(
        b.condition.tokens.roll(1, 1) * 2 % 11, b.condition.prompt_mel + 1, b.condition.prompt, b.condition.valid,
        b.condition.dropped,
    )  # fmt: skip
    torch.testing.assert_close(net(z, t, None, b.condition.drop()), net(z, t, None, other.drop()))
    assert not torch.allclose(net(z, t, None, b.condition), net(z, t, None, other), atol=1e-3)


def test_guidance_leaves_the_alignment_alone() -> None:
    net, b = network(), batch()
    z, t = inputs(b)
    plain, guided = (guided_velocity(net, z, t, b.condition, w) for w in (0.0, 2.0))
    torch.testing.assert_close(guided[..., 8], plain[..., 8], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(guided[..., :8], plain[..., :8], atol=1e-3)


def test_phones_are_looked_up_where_the_alignment_is_heading() -> None:
    """Near t = 1 the band in z is the alignment: another one must give another mel velocity, also at the same mel."""
    net, b = network(), batch()
    z, _ = inputs(b)
    t = torch.full((2,), 0.999)
    moved = z.clone()
    moved[..., 8] += SCALE
    u, v = net(z, t, None, b.condition), net(moved, t, None, b.condition)
    assert (u - v)[b.target][:, :8].abs().mean() > 1e-3


@pytest.mark.parametrize("second_time", [False, True])
def test_derivative_along_the_path(second_time: bool) -> None:
    net, b = network(), batch()
    if second_time:
        net.attach_second_time()
    z, t = inputs(b)
    t = t * 0.5 + 0.2
    r, v = t + 0.2, torch.randn_like(z)

    def u(z: torch.Tensor, t: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = net(z, t, r if second_time else None, b.condition)
        return found

    with torch.no_grad():
        _, derivative = along_path(u, z, t, r, v)
        step = 4e-3
        difference = (u(z + step * v, t + step, r) - u(z - step * v, t - step, r)) / (2 * step)
    assert (derivative - difference).abs().max() < 0.05 * difference.abs().max()


def test_it_starts_from_a_token2mel_network() -> None:
    shape = {k: v for k, v in SMALL.model_dump().items() if k in DiTConfig.model_fields}
    source, net = DiT(DiTConfig(**shape)), AligningDiT(SMALL)
    net.start_from(source)
    for key, value in source.state_dict().items():
        assert torch.equal(net.state_dict()[f"mel.{key}"], value)
    with pytest.raises(ValueError, match="no weights of DiT fit"):
        net.start_from(DiT(DiTConfig(**{**shape, "depth": 2})))


def test_with_the_true_alignment_it_is_token2mels_network() -> None:
    """Band and velocity that lead to the true positions, away from phone boundaries: the same mel velocity as from units."""
    net = AligningDiT(SMALL).eval()
    prompt, target = example("p", [1, 2, 3], [8, 8, 8], 52, 1), example("t", [4, 5, 6], [8, 8, 8], 52, 2)
    mel, tokens, length = join(prompt, target, 0, 52)
    b = collate([(mel, tokens, length)], ("t",))
    layout = Layout(b.condition, 0.05)
    at = layout.even + b.x1[..., 8] / SCALE
    at = torch.where(b.target, at, layout.positions(torch.ones(layout.tokens.shape) * (layout.tokens != BOUNDARY)))
    content = layout.look_up(net.mel.content(layout.tokens), at)
    phones = layout.tokens.gather(1, at.long().clamp(max=layout.tokens.shape[1] - 1))
    inside = ((at % 1) > 0.2) & ((at % 1) < 0.8)
    torch.testing.assert_close(content[inside], net.mel.content(phones)[inside], atol=1e-3, rtol=1e-3)
    assert inside.sum() > 50
