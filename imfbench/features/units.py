"""Semantic tokens of token2mel: a phone identity for every 25 ms, with content and timing and no speaker."""

from __future__ import annotations

import torch
from torch import Tensor

from imfbench.features.mel import HIFIGAN, MelFormat

UNIT_SECONDS = 0.025


def units(phones: list[int], frames: list[int]) -> Tensor:
    """Repeat each phone over its 25 ms frames: (units,), int64."""
    return torch.repeat_interleave(torch.tensor(phones, dtype=torch.int64), torch.tensor(frames, dtype=torch.int64))


def tokens_of_frames(
    found: Tensor, frames: int, speed: float = 1.0, mel: MelFormat = HIFIGAN, frames_per_token: int = 1
) -> Tensor:
    """The unit of each mel frame: a frame takes the unit at its centre, floor(time / 25 ms).

    Args:
        found: (units,).
        frames: Mel frames wanted.
        speed: Factor by which the audio was played faster than the units say.
        mel: Says when a frame is centred.
        frames_per_token: Frames that share a token: the unit at the middle of them all.

    Returns:
        (frames,), int64; frames past the last unit take the last.
    """
    groups = -(-frames // frames_per_token)
    times = mel.centres(groups * frames_per_token)
    if frames_per_token > 1:  # every fifth middle of 40 ms lies on a border of 25 ms units, and takes the later one
        times = times.view(groups, frames_per_token).mean(1).repeat_interleave(frames_per_token)[:frames] + 1e-9
    times = times * speed
    return found[(times / UNIT_SECONDS).long().clamp(max=len(found) - 1)]
