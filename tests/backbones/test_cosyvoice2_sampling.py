"""Our sampler on CosyVoice 2's flow against the original's: the same noise, grid, guidance and weights give the same mel."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_cosyvoice import CFM, SMALL, numbers, original_cfm, pair
from torch import Tensor, nn

from imfbench.backbones.cosyvoice2 import CosyVoice2Config, CosyVoice2Flow
from imfbench.backbones.cosyvoice2_sampling import LONGEST, fixed_noise, lay_out
from imfbench.features.s3_tokens import TokenRateError
from imfbench.flow.grids import sway
from imfbench.flow.guidance import guided_velocity
from imfbench.flow.solvers import euler
from imfbench.method import Condition, encoded, interpolate

GUIDANCE = 0.7


def tokens(number: int, seed: int) -> Tensor:
    return torch.randint(SMALL.vocab_size, (number,), generator=torch.Generator().manual_seed(seed))


PROMPT, TARGET, MEL, SPEAKER = tokens(5, 1), tokens(9, 2), numbers(10, 80, seed=3), numbers(192, seed=4)


@torch.no_grad()
def sample(network: CosyVoice2Flow, c: Condition, grid: Tensor) -> Tensor:
    """(frames, bands) by our solver, grid and guidance, from the original's noise."""
    known = encoded(network, c)
    noise = fixed_noise(c.tokens.shape[1])[None]
    return euler(lambda z, t, r: guided_velocity(network, z, t, known, GUIDANCE), noise, grid)[0]


class Recorder(nn.Module):
    """An estimator that says zero and keeps what it was asked."""

    def forward(self, x: Tensor, mask: Tensor, mu: Tensor, t: Tensor, *_: Any, **__: Any) -> Tensor:
        self.x, self.t = x, t
        return torch.zeros_like(x)


def original_sampler(estimator: nn.Module) -> Any:
    from omegaconf import DictConfig

    return original_cfm().CausalConditionalCFM(
        240, DictConfig(content=CFM), n_spks=1, spk_emb_dim=80, estimator=estimator
    )


def test_the_fixed_noise_is_the_originals_buffer() -> None:
    buffer = original_sampler(Recorder()).rand_noise[0].T
    torch.testing.assert_close(fixed_noise(LONGEST), buffer, atol=0, rtol=0)
    torch.testing.assert_close(fixed_noise(30), buffer[:30], atol=0, rtol=0)
    with pytest.raises(ValueError, match="15001 frames"):
        fixed_noise(LONGEST + 1)


@pytest.mark.parametrize(
    "config", [SMALL, pytest.param(CosyVoice2Config(), marks=pytest.mark.slow)], ids=["small", "true"]
)
@pytest.mark.parametrize("streaming", [False, True])
def test_the_mel_is_the_originals_at_every_number_of_steps(streaming: bool, config: CosyVoice2Config) -> None:
    flow, ours = pair(config, streaming=streaming)
    small = config == SMALL
    c = lay_out(PROMPT, MEL, TARGET if small else tokens(25, 2), SPEAKER)  # a chunk more than one, and whole
    with torch.no_grad():
        mu = ours.encode(c).transpose(1, 2)
        speaker = flow.spk_embed_affine_layer(torch.nn.functional.normalize(SPEAKER[None], dim=1))
    found = {}
    for steps in (1, 2, 3, 10, 32) if small else (1, 2, 3, 10):
        mel, other = (
            flow.decoder(
                mu=mu, mask=torch.ones(1, 1, mu.shape[2]), spks=speaker, cond=c.prompt_mel.transpose(1, 2), n_timesteps=steps,
                streaming=mask,
            )[0][0].T
            for mask in (streaming, not streaming)
        )  # fmt: skip
        found[steps] = sample(ours, c, sway(steps, -1.0))
        torch.testing.assert_close(found[steps], mel, atol=2e-4, rtol=1e-4)
        assert (other - mel).abs().max() > 1e-3, "the mask must matter, or nothing was shown"
    assert (found[3] - found[2]).abs().max() > 0.01, (
        "another number of steps must make another mel, or nothing was shown"
    )


def added_up(steps: int) -> Tensor:
    """The times that the original visits: its cosine grid, the steps of which it adds up in float32."""
    span = 1 - torch.cos(torch.linspace(0, 1, steps + 1) * 0.5 * torch.pi)
    times = [span[0]]
    for end in span[1:]:
        times.append(times[-1] + (end - times[-1]))
    return torch.stack(times).double()


@pytest.mark.parametrize("steps", [3, 10])
def test_over_the_originals_own_times_little_is_left_of_the_difference(steps: int) -> None:
    flow, ours = pair()
    expected = original_inference(flow, PROMPT, MEL, TARGET, False, steps)
    c = lay_out(PROMPT, MEL, TARGET, SPEAKER)
    apart = {
        name: float((sample(ours, c, grid)[len(MEL) :] - expected).abs().max())
        for name, grid in (("theirs", added_up(steps)), ("ours", sway(steps, -1.0)))
    }
    assert apart["theirs"] < 1e-5
    assert apart["theirs"] < apart["ours"] < 2e-4


@pytest.mark.parametrize("streaming", [False, True])
def test_inference_from_tokens_to_the_mel_of_the_target_is_the_originals(streaming: bool) -> None:
    flow, ours = pair(streaming=streaming)
    expected = original_inference(flow, PROMPT, MEL, TARGET, streaming)
    found = sample(ours, lay_out(PROMPT, MEL, TARGET, SPEAKER), sway(10, -1.0))[len(MEL) :]
    assert found.shape == expected.shape == (18, 80)
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)
    other = original_inference(flow, PROMPT, MEL, TARGET, not streaming)
    assert (other - expected).abs().max() > 0.01


def original_inference(
    flow: Any, prompt: Tensor, mel: Tensor, target: Tensor, streaming: bool, steps: int = 10
) -> Tensor:
    """The mel of the target; 10 steps are written into its code."""
    sampler = flow.decoder.forward
    if steps != 10:
        flow.decoder.forward = lambda **inputs: sampler(**inputs | {"n_timesteps": steps})
    try:
        found, _ = flow.inference(
            token=target[None], token_len=torch.tensor([len(target)]), prompt_token=prompt[None],
            prompt_token_len=torch.tensor([len(prompt)]), prompt_feat=mel[None], prompt_feat_len=torch.tensor([len(mel)]),
            embedding=SPEAKER[None], streaming=streaming, finalize=True,
        )  # fmt: skip
    finally:
        flow.decoder.forward = sampler
    return found[0].T.clone()


def test_a_prompt_is_cut_to_whole_tokens_and_one_of_another_rate_is_refused() -> None:
    whole = lay_out(PROMPT, MEL, TARGET, SPEAKER)
    for mel in (torch.cat([MEL, MEL[:1]]), torch.cat([MEL, MEL[:2]])):
        c = lay_out(PROMPT, mel, TARGET, SPEAKER)
        assert all(torch.equal(getattr(c, name), getattr(whole, name)) for name in ("tokens", "prompt_mel", "prompt"))
    c = lay_out(PROMPT, MEL[:9], TARGET, SPEAKER)
    assert int(c.prompt.sum()) == 8
    assert c.tokens[0, 8] == TARGET[0] + 1
    with pytest.raises(TokenRateError, match="the prompt has 20 mel frames and 5 tokens"):
        lay_out(PROMPT, torch.cat([MEL, MEL]), TARGET, SPEAKER)


def test_the_originals_training_path_is_ours_but_for_a_millionth_of_the_noise() -> None:
    """σ_min = 1e-6, with noise and mels as large as they come: z_t differs by σ_min·t·x0, v by σ_min·x0."""
    asked = Recorder()
    x1 = -12 + 10 * torch.rand(4, 80, 50, generator=torch.Generator().manual_seed(0))
    zeros = torch.zeros_like(x1)
    sampler = original_sampler(asked)  # seeds all randomness with 0
    torch.manual_seed(7)
    loss, _ = sampler.compute_loss(x1, torch.ones(4, 1, 50), zeros, zeros[..., 0], zeros)
    torch.manual_seed(7)
    t = 1 - torch.cos(torch.rand(4, 1, 1) * 0.5 * torch.pi)
    x0 = torch.randn_like(x1)
    torch.testing.assert_close(asked.t, t.flatten(), atol=0, rtol=0)
    path = interpolate(x0, x1, t.flatten())
    assert float((path - asked.x).abs().max()) < 1e-6 * float(x0.abs().max()) + 2e-6  # float32 at 12 resolves 1e-6
    exact = ((1 - 1e-6) * x0.double() - x1.double()).square().mean()
    assert float(loss) == pytest.approx(float(exact), rel=1e-6)
    assert float((x1.double() - x0.double()).square().mean()) == pytest.approx(float(exact), rel=1e-6)
