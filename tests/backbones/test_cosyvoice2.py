"""CosyVoice 2's flow, wrapped, against the original on the same random weights."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_cosyvoice import SMALL, condition, numbers, original_flow, pair
from torch import Tensor

from imfbench.backbones.cosyvoice2 import CosyVoice2Config, CosyVoice2Flow
from imfbench.flow.derivative import along_path
from imfbench.method import Condition, encoded


def exactly(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=0, rtol=0)


def query(c: Condition) -> tuple[Tensor, Tensor, Tensor]:
    rows, frames = c.tokens.shape
    return numbers(rows, frames, 80), torch.linspace(0.1, 0.7, rows), torch.linspace(0.6, 1.0, rows)


def by_the_original(flow: Any, z: Tensor, t: Tensor, c: Condition, streaming: bool = False) -> Tensor:
    """Its estimator on the inputs that its ``inference`` and ``solve_euler`` make of a condition: zeros where it is dropped."""
    tokens, lengths = c.tokens[:, ::2], (c.tokens[:, ::2] > 0).sum(1)
    mu, _ = flow.encoder(
        flow.input_embedding((tokens - 1).clamp(min=0)) * (tokens > 0)[..., None], lengths, streaming=streaming
    )
    speaker = flow.spk_embed_affine_layer(F.normalize(c.speaker, dim=1))
    kept = (~c.dropped).float()[:, None, None]
    found: Tensor = flow.decoder.estimator(
        z.transpose(1, 2), c.valid[:, None].float(), (flow.encoder_proj(mu) * kept).transpose(1, 2), t, speaker * kept[..., 0],
        (c.prompt_mel * kept).transpose(1, 2), streaming=streaming,
    )  # fmt: skip
    return found.transpose(1, 2)


@pytest.mark.slow
def test_every_weight_of_the_official_flow_has_its_name_and_shape_and_the_velocity_is_the_originals() -> None:
    """Of CosyVoice2-0.5B, built by its yaml's values."""
    flow, ours = pair(CosyVoice2Config())
    expected = {name: value.shape for name, value in flow.state_dict().items()}
    assert {name: value.shape for name, value in ours.state_dict().items()} == expected
    size = {part: sum(p.numel() for p in module.parameters()) for part, module in ours.named_children()}
    assert size["decoder"] == 71_302_480
    assert sum(size.values()) == sum(p.numel() for p in flow.parameters())
    c = condition(30, vocabulary=6561)
    z, t, _ = query(c)
    with torch.no_grad():
        exactly(ours(z, t, None, c), by_the_original(flow, z, t, c))


def test_names_and_shapes_are_the_originals_and_its_class_is_left_alone() -> None:
    flow, ours = original_flow(), CosyVoice2Flow(SMALL)
    assert list(ours.state_dict()) == list(flow.state_dict())
    assert all(ours.state_dict()[name].shape == value.shape for name, value in flow.state_dict().items())
    assert type(flow.encoder.embed.pos_enc).__module__ == "cosyvoice.transformer.embedding"
    assert type(flow.decoder.estimator.time_mlp).__name__ == "TimestepEmbedding"


@pytest.mark.parametrize("streaming", [False, True])
@torch.no_grad()
def test_velocity_is_the_originals_to_the_last_bit_for_every_r(streaming: bool) -> None:
    flow, ours = pair(streaming=streaming)
    c = condition(rows=2)
    c = replace(c, dropped=torch.tensor([False, True]))
    z, t, r = query(c)
    expected = by_the_original(flow, z, t, c, streaming)
    exactly(ours(z, t, None, c), expected)
    exactly(ours(z, t, r, encoded(ours, c)), expected)
    other = by_the_original(flow, z, t, c, not streaming)
    assert (other - expected)[0].abs().max() > 1e-3, "the mask must matter, or nothing was shown"
    ours.attach_second_time()
    for end in (None, t, r, torch.ones_like(t)):
        exactly(ours(z, t, end, c), expected)


@torch.no_grad()
def test_dropped_rows_are_zeros_in_content_voice_and_prompt_as_in_the_originals_second_row() -> None:
    _, ours = pair()
    c = condition(rows=2)
    z, t, _ = query(c)
    other = Condition(
        c.tokens.flip(0), -c.prompt_mel, c.prompt, c.valid, c.dropped, -c.speaker if c.speaker is not None else None
    )
    exactly(ours(z, t, None, c.drop()), ours(z, t, None, other.drop()))
    estimator: Any = ours.decoder.estimator
    nothing = torch.zeros(2, 80, z.shape[1])
    zeros = estimator(z.transpose(1, 2), torch.ones(2, 1, z.shape[1]), nothing, t, nothing[..., 0], nothing)
    exactly(ours(z, t, None, c.drop()), zeros.transpose(1, 2))
    for name, changed in (("tokens", other.tokens), ("prompt_mel", other.prompt_mel), ("speaker", other.speaker)):
        found = ours(z, t, None, replace(c, **{name: changed}))
        assert (found - ours(z, t, None, c)).abs().max() > 1e-3, name


@pytest.mark.parametrize("streaming", [False, True])
@torch.no_grad()
def test_encoding_is_the_originals_of_each_row_alone_whatever_stands_beside_it(streaming: bool) -> None:
    """The original's own encoding of a padded batch is another one: its lookahead sees the padding, in training alone."""
    flow, ours = pair(streaming=streaming)
    lengths = [11, 6, 9]
    c = condition(lengths=lengths)
    found = ours.encode(c)
    apart = 0.0
    padded = flow.input_embedding((c.tokens[:, ::2] - 1).clamp(min=0)) * (c.tokens[:, ::2] > 0)[..., None]
    together = flow.encoder_proj(flow.encoder(padded, torch.tensor(lengths), streaming=streaming)[0])
    for row, length in enumerate(lengths):
        tokens = c.tokens[row : row + 1, : 2 * length : 2] - 1
        h, _ = flow.encoder(flow.input_embedding(tokens), torch.tensor([length]), streaming=streaming)
        alone = flow.encoder_proj(h)[0]
        torch.testing.assert_close(found[row, : 2 * length], alone, atol=2e-6, rtol=1e-5)
        apart = max(apart, float((together[row, : 2 * length] - alone).abs().max()))
    torch.testing.assert_close(found[0], together[0])
    assert apart > 1e-3


@torch.no_grad()
def test_a_row_does_not_depend_on_padding() -> None:
    _, ours = pair()
    c = condition(lengths=[11, 6])
    z, t, _ = query(c)
    alone = Condition(
        *(value[1:, :12] for value in (c.tokens, c.prompt_mel, c.prompt, c.valid)), c.dropped[1:], c.speaker[1:]
    )
    together = ours(z, t, None, c)
    torch.testing.assert_close(together[1:, :12], ours(z[1:, :12], t[1:], None, alone), atol=1e-5, rtol=1e-4)
    assert not together[1, 12:].any()


@torch.no_grad()
def test_an_odd_number_of_frames_is_encoded() -> None:
    _, ours = pair()
    c = condition()
    shorter = Condition(*(value[:, :-1] for value in (c.tokens, c.prompt_mel, c.prompt, c.valid)), c.dropped, c.speaker)
    exactly(ours.encode(shorter), ours.encode(c)[:, :-1])


def test_derivative_along_the_path_is_that_of_reverse_mode() -> None:
    """Forward mode against two passes of reverse mode; the original takes no float64, where a difference would do."""
    _, ours = pair()
    ours.attach_second_time()
    c = encoded(ours, condition(tokens=6))
    z, t, r = query(c)
    v = numbers(*z.shape, seed=8)
    with torch.no_grad():
        u, forward = along_path(lambda *a: ours(*a, c), z, t, r, v)
        torch.testing.assert_close(u, ours(z, t, r, c), atol=1e-5, rtol=0)  # another kernel of attention
    inputs, tangents = (z, t), (v, torch.ones_like(t))
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        _, reverse = torch.autograd.functional.jvp(lambda z, t: ours(z, t, r, c), inputs, tangents)
    scale = float(reverse.abs().max())
    assert scale > 1
    torch.testing.assert_close(forward, reverse, atol=1e-4 * scale, rtol=0)


def test_encoding_is_exact_after_a_pass_in_bf16_and_trains_after_one_in_inference_mode() -> None:
    flow, ours = pair()
    c = condition()
    with torch.no_grad():
        expected = ours.encode(c)
        with torch.autocast("cpu", torch.bfloat16):
            assert (ours.encode(c) - expected).abs().max() > 1e-4
        exactly(ours.encode(c), expected)
    table = copy.deepcopy(flow.encoder.embed.pos_enc)
    before = table(torch.zeros(1, 9, 512))[1]
    table(torch.zeros(1, 9, 512, dtype=torch.bfloat16))
    assert not torch.equal(table(torch.zeros(1, 9, 512))[1], before), (
        "the original keeps what bf16 left, or nothing was shown"
    )
    long = condition(5200)  # longer than the table of positions was made for
    with torch.inference_mode():
        ours.encoder.embed.pos_enc(torch.zeros(1, long.tokens.shape[1] // 2, 512))
    ours.encode(c).square().mean().backward()
    gradient = ours.encoder.encoders[0].self_attn.linear_pos.weight.grad
    assert gradient is not None
    assert bool(gradient.any())


def test_a_student_starts_from_a_teacher_of_the_same_shape_and_mask_only() -> None:
    _, ours = pair()
    student = CosyVoice2Flow(SMALL)
    student.start_from(ours)
    assert all(bool((a == b).all()) for a, b in zip(student.parameters(), ours.parameters(), strict=True))
    with pytest.raises(ValueError, match="teacher and student must have the same mask"):
        CosyVoice2Flow(SMALL.model_copy(update={"streaming": True})).start_from(ours)


def test_a_condition_without_a_speaker_is_refused() -> None:
    _, ours = pair()
    c = replace(condition(), speaker=None)
    with pytest.raises(ValueError, match="speaker vector"):
        ours(*query(c), c)
