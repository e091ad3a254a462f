"""Semantic tokens of token2mel: a phone identity for every 25 ms, with content and timing and no speaker."""

from __future__ import annotations

import torch
from torch import Tensor

from imfbench.features.mel import HOP, SAMPLE_RATE

UNIT_SECONDS = 0.025


def units(phones: list[int], frames: list[int]) -> Tensor:
    """Repeat each phone over its 25 ms frames: (units,), int64."""
    return torch.repeat_interleave(torch.tensor(phones, dtype=torch.int64), torch.tensor(frames, dtype=torch.int64))


def tokens_of_frames(found: Tensor, frames: int, speed: float = 1.0) -> Tensor:
    """The unit of each mel frame: frame k, centred at (256·k + 128) / 22050 s, takes unit floor(time / 25 ms).

    Args:
        found: (units,).
        frames: Mel frames wanted.
        speed: Factor by which the audio was played faster than the units say.

    Returns:
        (frames,), int64; frames past the last unit take the last.
    """
    times = (torch.arange(frames, dtype=torch.float64) * HOP + HOP // 2) / SAMPLE_RATE * speed
    return found[(times / UNIT_SECONDS).long().clamp(max=len(found) - 1)]
