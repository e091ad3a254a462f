"""What F5-TTS's ``CFM.sample`` does around its solver: the length of what is sampled, the frames that are kept and cut off."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from imfbench.features.f5_text import PADDING, tokens
from imfbench.method import Condition

LONGEST = 65_536
"""Upstream's own limit in frames; its text encoder has positions for 8,192."""


def condition_of(
    prompts: Sequence[Tensor], text: Tensor, durations: Sequence[int], longest: int = LONGEST
) -> Condition:
    """The condition of a batch as ``CFM.sample`` makes it.

    Args:
        prompts: Of each row the prompt's log-mel, (frames, bands).
        text: Characters' numbers of prompt and text to speak, (batch, longest), padded with −1.
        durations: Frames of prompt and target together; at least one more than the prompt has, and than the text has characters,
            are sampled, so that there is something to hear.
        longest: Frames to which they are cut.
    """
    heard = torch.tensor([len(mel) for mel in prompts])
    least = torch.maximum((text != PADDING).sum(1), heard) + 1
    total = torch.maximum(least, torch.tensor(list(durations))).clamp(max=longest)
    frames = int(total.max())
    at = torch.arange(frames)
    mel = pad_sequence(list(prompts), batch_first=True)[:, :frames]
    return Condition(
        tokens=tokens(text, frames),
        prompt_mel=torch.nn.functional.pad(mel, (0, 0, 0, frames - mel.shape[1])),
        prompt=at < heard[:, None],
        valid=at < total[:, None],
        dropped=torch.zeros(len(prompts), dtype=torch.bool),
    )


def whole(z: Tensor, condition: Condition) -> Tensor:
    """Prompt and target: the end of the path, with the prompt's own mel on its frames, (batch, frames, bands)."""
    return torch.where(condition.prompt[..., None], condition.prompt_mel, z)


def generated(z: Tensor, condition: Condition, cut: Sequence[int]) -> list[Tensor]:
    """What is spoken, of each row (frames, bands), behind the first ``cut`` frames.

    Upstream's inference cuts the whole hops of the prompt's audio, one fewer than its centred mel has frames, so that the
    prompt's last frame is the first of what is heard; its evaluation cuts all of the prompt's frames.
    """
    ends = condition.valid.sum(1).tolist()
    return [row[start:end] for row, start, end in zip(whole(z, condition), cut, ends, strict=True)]
