"""F5-TTS's network: what the wrapped one shares with the original class on the same weights, and the two things it adds."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

pytest.importorskip("f5_tts", reason="needs `pip install 'imfbench[f5]'`")

from small_f5 import BASE, V1, condition, network, original_of, states

from imfbench.backbones.f5tts import F5Config, F5DiT
from imfbench.backbones.originals import MissingPackageError, original
from imfbench.contracts import clauses
from imfbench.flow.derivative import Average, along_path
from imfbench.flow.guidance import guided_velocity
from imfbench.method import Condition, encoded

BOTH = pytest.mark.parametrize("config", [V1, BASE], ids=["v1", "base"])


def theirs(config: F5Config, c: Condition, z: Tensor, t: Tensor, masked: bool = False, **settings: bool) -> Tensor:
    """The original's velocity for a text as the original's callers give it: padded with −1 up to the longest text."""
    text = c.tokens[:, : int((c.tokens > 0).sum(1).max())] - 1
    network_ = original_of(network(config))
    with torch.no_grad():
        found: Tensor = network_(
            x=z, cond=c.prompt_mel, text=text, time=t, mask=c.valid if masked else None, **settings
        )
    return found


@BOTH
def test_unguided_velocity_is_the_originals_to_the_last_bit_for_every_r(config: F5Config) -> None:
    ours, c = network(config), condition()
    z, t = states(c)
    wanted = theirs(config, c, z, t)
    assert wanted.std() > 0.1
    with torch.no_grad():
        assert torch.equal(ours(z, t, None, c), wanted)
        ours.attach_second_time()
        for r in (None, t, t + 0.1, torch.ones(2), torch.zeros(2)):
            assert torch.equal(ours(z, t, r, c), wanted)
            assert torch.equal(ours(z, t, r, encoded(ours, c)), wanted)


def test_a_trained_mixer_hears_the_second_time() -> None:
    ours, c = network(), condition()
    z, t = states(c)
    ours.attach_second_time()
    with torch.no_grad():
        ours.transformer.time_embed.mixer.weight.add_(0.05)
        assert (ours(z, t, t, c) - ours(z, t, torch.ones(2), c)).abs().max() > 1e-3


@BOTH
def test_dropped_rows_are_the_originals_without_audio_and_text(config: F5Config) -> None:
    ours, c = network(config), condition()
    z, t = states(c)
    heard, silent = theirs(config, c, z, t), theirs(config, c, z, t, drop_audio_cond=True, drop_text=True)
    one = replace(c, dropped=torch.tensor([False, True]))
    with torch.no_grad():
        for given in (c.drop(), encoded(ours, c).drop()):
            assert torch.equal(ours(z, t, None, given), silent)
        for given in (one, encoded(ours, one)):
            torch.testing.assert_close(ours(z, t, None, given), torch.stack([heard[0], silent[1]]), atol=2e-6, rtol=0)
    assert (heard - silent).abs().max() > 0.1


@BOTH
@pytest.mark.parametrize("ahead", [False, True], ids=["encoding", "encoded"])
def test_guidance_is_the_originals_packed_pass(config: F5Config, ahead: bool) -> None:
    ours, c = network(config), condition()
    z, t = states(c)
    v_condition, v_null = theirs(config, c, z, t, cfg_infer=True).chunk(2)
    with torch.no_grad():
        found = guided_velocity(ours, z, t, encoded(ours, c) if ahead else c, 2.0)
    torch.testing.assert_close(found, v_condition + (v_condition - v_null) * 2.0, atol=1e-5, rtol=0)


@BOTH
def test_padding_changes_nothing(config: F5Config) -> None:
    """The padded row has the velocity that the original gives the utterance alone, dropped or not, encoded ahead or not."""
    ours, c = network(config), condition((23, 15, 19), (9, 12, 19), (7, 5, 0))
    z, t = states(c)
    longer = Condition(*(torch.nn.functional.pad(x, (0, 0, 0, 4) if x.ndim == 3 else (0, 4)) for x in (
        c.tokens, c.prompt_mel, c.prompt, c.valid)), dropped=c.dropped)  # fmt: skip
    z_longer = torch.nn.functional.pad(z, (0, 0, 0, 4), value=3.0)  # every row has padding
    for dropped in (False, True):
        with torch.no_grad():
            found = [
                ours(z_, t, None, ahead.drop() if dropped else ahead)
                for z_, given in ((z, c), (z_longer, longer))
                for ahead in (given, encoded(ours, given))
            ]
        for row, frames in enumerate((23, 15, 19)):
            index = torch.tensor([row])
            alone = Condition(*(getattr(c, n)[index, :frames] for n in ("tokens", "prompt_mel", "prompt", "valid")),
                              dropped=c.dropped[index])  # fmt: skip
            wanted = theirs(config, alone, z[index, :frames], t[index], drop_audio_cond=dropped, drop_text=dropped)[0]
            for u in found:
                torch.testing.assert_close(u[row, :frames], wanted, atol=1e-5, rtol=0)
                assert u[row, frames:].abs().sum() == 0


@BOTH
def test_the_originals_own_setting_hears_padding_as_the_original_does(config: F5Config) -> None:
    c = condition((23, 15), (9, 12), (7, 5))
    z, t = states(c)
    plain = network(config.model_copy(update={"attn_mask_enabled": False}))
    wanted = theirs(config, c, z, t, masked=True)
    with torch.no_grad():
        for given in (c, encoded(plain, c)):
            torch.testing.assert_close(plain(z, t, None, given)[c.valid], wanted[c.valid], atol=2e-6, rtol=0)
        assert (network(config)(z, t, None, c) - wanted)[1, :15].abs().max() > 0.01


@pytest.mark.parametrize("settings", [{}, {"pe_attn_head": 1}, {"qk_norm": "rms_norm"}], ids=str)
def test_attention_without_padding_is_the_originals_masked_attention(settings: dict[str, object]) -> None:
    """No convolution in the text's encoder, whose padding the original does not leave out."""
    ours, c = network(V1.model_copy(update={"conv_layers": 0, **settings})), condition((23, 15), (9, 12), (7, 5))
    z, t = states(c)
    masking = original_of(ours, attn_mask_enabled=True)
    with torch.no_grad():
        wanted = masking(x=z, cond=c.prompt_mel, text=c.tokens - 1, time=t, mask=c.valid)
        torch.testing.assert_close(ours(z, t, None, c)[c.valid], wanted[c.valid], atol=2e-6, rtol=0)


@BOTH
def test_gradients_are_the_originals(config: F5Config) -> None:
    ours, c = network(config), condition()
    z, t = states(c)
    twin = original_of(ours)
    twin(x=z, cond=c.prompt_mel, text=c.tokens - 1, time=t).square().sum().backward()
    ours.attach_second_time()
    ours(z, t, torch.ones(2), c).square().sum().backward()
    wanted = {f"transformer.{name}": p.grad for name, p in twin.named_parameters()}
    found = {name: p.grad for name, p in ours.named_parameters()}
    mixer = found.pop("transformer.time_embed.mixer.weight")
    assert mixer is not None
    assert mixer[:, V1.dim :].abs().max() > 0, "the half that hears r is trained"
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert found[name] is not None, name
        scale = float(gradient.abs().max())
        torch.testing.assert_close(found[name], gradient, atol=1e-5 * max(1.0, scale), rtol=1e-4)


@pytest.mark.parametrize("lengths", [(23, 23), (23, 15)], ids=["whole", "padded"])
def test_the_derivative_along_the_path_is_that_of_differences(lengths: tuple[int, ...]) -> None:
    ours, c = network(), condition(lengths, (9, 12), (7, 5))
    ours.attach_second_time()
    ours.double()
    z, t = (x.double() for x in states(c))
    c = encoded(ours, replace(c, prompt_mel=c.prompt_mel.double()))
    v, r = torch.randn_like(z), torch.ones_like(t)
    u = _double(ours, c)
    with torch.no_grad():
        average, derivative = along_path(u, z, t, r, v)
        torch.testing.assert_close(average, u(z, t, r), atol=1e-9, rtol=0)
        h = 1e-7  # times are multiplied by 1000 within the network
        differences = (u(z + h * v, t + h, r) - u(z - h * v, t - h, r)) / (2 * h)
    assert differences.abs().max() > 1
    torch.testing.assert_close(derivative, differences, atol=1e-3, rtol=1e-3)


def _double(ours: F5DiT, c: Condition) -> Average:
    """The velocity without the wrapper's rounding to float32, in which no difference could be taken."""

    def u(z: Tensor, t: Tensor, r: Tensor) -> Tensor:
        mask = None if bool(c.valid.all()) else c.valid
        found: Tensor = ours.transformer(
            x=z, cond=c.prompt_mel, text=c.encoded, time=torch.stack([t, r], -1), mask=mask, drop_text=c.dropped
        )
        return found

    return u


def test_a_copy_has_its_own_padding_and_velocity() -> None:
    """Students are deep copies of their teacher; the hooks of a copy must not look at the first one's padding."""
    ours, c = network(), condition((23, 15), (9, 12), (7, 5))
    z, t = states(c)
    other = copy.deepcopy(ours)
    with torch.no_grad():
        wanted = ours(z, t, None, c)
        for parameter in ours.parameters():
            parameter.zero_()
        assert torch.equal(other(z, t, None, c), wanted)
        hooks = other.transformer.text_embed.text_blocks[0]._forward_pre_hooks.values()
    assert [hook.__self__ for hook in hooks] == [other.transformer]


def test_bf16_and_recomputed_activations_give_nearly_and_exactly_the_same() -> None:
    c = condition((23, 15), (9, 12), (7, 5))
    z, t = states(c)
    ours, again = network(), network(V1.model_copy(update={"checkpoint_activations": True}))
    with torch.no_grad():
        wanted = ours(z, t, None, c)
        with torch.autocast("cpu", torch.bfloat16):
            found = ours(z, t, None, c)
    assert found.dtype == torch.float32
    assert (found - wanted).abs().mean() < 0.02 * wanted.abs().mean()
    for each in (ours, again):
        each(z, t, None, c).square().sum().backward()
    for p, q in zip(ours.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


def test_a_network_of_another_shape_is_refused_and_an_unknown_setting_too() -> None:
    with pytest.raises(ValueError, match="cannot start from the weights of F5DiT"):
        network().start_from(network(BASE))
    ours, other = network(), network(seed=1)
    ours.start_from(other)
    assert all(torch.equal(p, q) for p, q in zip(ours.parameters(), other.parameters(), strict=True))
    with pytest.raises(ValueError, match="text_masking"):
        F5Config(text_masking=True)  # type: ignore[call-arg]


def test_a_missing_package_is_told_with_its_extra() -> None:
    with pytest.raises(MissingPackageError, match=r"imfbench\[f5\]"):
        original("f5_tts_of_another_world.model", extra="f5")


@BOTH
def test_it_keeps_the_contract_of_backbones(config: F5Config) -> None:
    shape = {**config.model_dump(exclude_defaults=True), "text_num_embeds": 120, "depth": 1}
    for clause in clauses("backbone", "f5tts", shape):
        clause()


@pytest.mark.slow
@BOTH
def test_true_shape_has_the_originals_size_and_velocity(config: F5Config) -> None:
    shape = F5Config(text_mask_padding=config.text_mask_padding, pe_attn_head=config.pe_attn_head)
    ours, c = network(shape), condition((64,), (20,), (21,))
    parameters = sum(p.numel() for p in ours.parameters())
    assert round(parameters / 1e6, 1) == 337.1
    z, t = states(c)
    with torch.no_grad():
        wanted = original_of(ours)(x=z, cond=c.prompt_mel, text=c.tokens[:, :20] - 1, time=t)
        assert torch.equal(ours(z, t, None, c), wanted)
        ours.attach_second_time()
        assert torch.equal(ours(z, t, torch.ones(1), c), wanted)
