"""What F5-TTS's network is given of a text and a prompt, by the rules of its own inference (:mod:`imfbench.features.f5_text`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from imfbench.data import make_text_condition
from imfbench.features.audio import resample
from imfbench.features.f5_text import characters, ended, frames_to_generate, gain_back, numbers, scaled_up, tokens
from imfbench.features.mel import MelFormat
from imfbench.method import Condition


def character_tokens(text: str, vocabulary: Sequence[str]) -> Tensor:
    """A text's characters, and pinyin, as a condition has them: their numbers + 1, (characters,); 1, the space, for unknown ones.

    Args:
        text: What is said.
        vocabulary: The lines of ``vocab.txt``.
    """
    found = numbers(characters([text]), {character: number for number, character in enumerate(vocabulary)})
    return found[0] + 1


def character_condition(
    vocabulary: Sequence[str], prompt: np.ndarray, rate: int, prompt_text: str, text: str, mel: MelFormat,
    speed: float = 1.0, frames: int | None = None,
) -> Condition:  # fmt: skip
    """The condition of one utterance, a batch of 1.

    The prompt is scaled up to the original's loudness if it is quieter, ``gain`` is what makes the output as quiet as it was, and
    its text ends as the original ends it. The mel is
    centred and has a frame more than the prompt has whole hops; the original counts hops, and so is one frame nearer to the end.

    Args:
        vocabulary: The lines of ``vocab.txt``.
        prompt: The prompt's speech, (samples,), at the recording's own rate.
        rate: That, Hz.
        prompt_text: What it says.
        text: What is to be said.
        mel: The network's format.
        speed: 1.2 is a fifth faster than the prompt.
        frames: To generate; None is the original's rule, the prompt's frames for each byte of its text.

    Raises:
        imfbench.features.f5_text.PromptError: The prompt is silent, or its text empty.
        MissingPackageError: The extra ``f5`` is not installed.
    """
    spoken = ended(prompt_text)
    audio, rms = scaled_up(prompt)
    audio = resample(audio, rate, mel.sample_rate)
    spectrogram = mel.normalise(mel.log_mel(torch.from_numpy(audio)))
    hops = len(audio) // mel.hop
    wanted = frames_to_generate(hops, spoken, text, speed) if frames is None else frames
    row = character_tokens(spoken + text, vocabulary)
    total = max(hops + wanted, len(row) + 1, len(spectrogram) + 1)
    found = make_text_condition(spectrogram, row[:0], row[:0], total - len(spectrogram), "plain")
    return replace(found, tokens=tokens(row[None] - 1, total), gain=torch.tensor([gain_back(rms)]))
