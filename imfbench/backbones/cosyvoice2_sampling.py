"""What CosyVoice 2's own ``inference`` puts around the network: how prompt and target are laid out, and the noise it starts from.

The rest of it is ours by other names: its cosine grid is ``sway(-1)``, its guidance .7 is ``w``, its solver is Euler, and the
frames of the prompt are cut off at the end. σ_min = 10⁻⁶ is in its training alone: ``z_t = (1 − (1 − σ_min)·t)·x0 + t·x1`` is our
path with ``σ_min·t·x0`` more, its velocity ours with ``σ_min·x0`` more: a few units in the last place of float32 in a mel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from imfbench.features.s3_tokens import FRAMES_PER_TOKEN, check_token_rate
from imfbench.method import Condition

LONGEST = 15_000
"""Frames of the original's buffer of noise: 300 s."""


def fixed_noise(frames: int, bands: int = 80) -> Tensor:
    """The noise that the original starts every utterance from, (frames, bands): its buffer of seed 0, from the beginning.

    For comparisons with the original only. A student that is distilled from it would know one noise.

    Raises:
        ValueError: More frames than the original has noise for.
    """
    if frames > LONGEST:
        raise ValueError(f"{frames} frames, but the original's noise has {LONGEST}: 300 s, prompt and target together")
    buffer = torch.randn(1, bands, LONGEST, generator=torch.Generator().manual_seed(0))
    return buffer[0, :, :frames].T.contiguous()


def lay_out(prompt_tokens: Tensor, prompt_mel: Tensor, tokens: Tensor, speaker: Tensor) -> Condition:
    """The condition of one utterance, as the original concatenates prompt and target.

    Args:
        prompt_tokens: S3 tokens of the prompt, (tokens,); the speech tokenizer's numbers from 0.
        prompt_mel: Its log-mel, (2 · tokens, bands); a frame or two that are left over are cut off, as the original does.
        tokens: S3 tokens that are to be spoken, (tokens,).
        speaker: CAM++'s vector, (dims,).

    Returns:
        A batch of one row.

    Raises:
        TokenRateError: Prompt tokens and mel are not of one recording.
    """
    check_token_rate(len(prompt_mel), len(prompt_tokens), "the prompt")
    kept = min(len(prompt_mel) // FRAMES_PER_TOKEN, len(prompt_tokens))
    content = torch.cat([prompt_tokens[:kept], tokens]).long().clamp(min=0) + 1
    frames = content.repeat_interleave(FRAMES_PER_TOKEN)[None]
    prompt = torch.arange(frames.shape[1], device=frames.device)[None] < FRAMES_PER_TOKEN * kept
    mel = torch.zeros(1, frames.shape[1], prompt_mel.shape[1], dtype=prompt_mel.dtype, device=prompt_mel.device)
    mel[0, : FRAMES_PER_TOKEN * kept] = prompt_mel[: FRAMES_PER_TOKEN * kept]
    nothing_dropped = torch.zeros(1, dtype=torch.bool, device=frames.device)
    return Condition(frames, mel, prompt, torch.ones_like(prompt), nothing_dropped, speaker[None])
