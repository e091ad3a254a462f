"""F5-TTS's text: its characters and pinyin, the ending of a prompt's text, the duration rule and the loudness rule.

All of it is as ``f5_tts.infer.utils_infer`` does it, which is what the released checkpoints are run with; the conversion itself
is the original's function. Lengths of texts are in bytes of UTF-8, so that a Chinese character counts as three letters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from imfbench.backbones.f5tts import original_module
from imfbench.features import phones

TARGET_RMS = 0.1
"""Prompts below it are scaled up to it."""
SHORT_TEXT = 10
"""Bytes below which a text is spoken at ``SHORT_SPEED``: the prompt's rate would leave it no time."""
SHORT_SPEED = 0.3
PADDING = -1
"""What the original pads character numbers with."""


class VocabularyError(ValueError):
    """A vocabulary's file that cannot be used; the message names the file and says what is wrong with it."""


class PromptError(phones.PromptError):
    """A prompt that F5-TTS's rules cannot use; the message says why."""


def read_vocabulary(path: Path | str) -> dict[str, int]:
    """A ``vocab.txt``: character or pinyin syllable → its number, which is that of its line, from 0.

    Raises:
        VocabularyError: It cannot be read, does not begin with the space, or has a line twice.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8") as file:
            lines = [line.removesuffix("\n") for line in file]
    except UnicodeDecodeError as error:
        raise VocabularyError(
            f"{path} is not text in UTF-8 ({error.reason}): give the checkpoint's vocab.txt"
        ) from None
    except OSError as error:
        raise VocabularyError(f"{path} cannot be read ({error.strerror}): give the checkpoint's vocab.txt") from None
    if not lines or lines[0] != " ":
        raise VocabularyError(
            f"the first line of {path} is {lines[0] if lines else 'missing'!r}, not a space: number 0 is the space, and stands "
            "for every unknown character too. An editor may have stripped it: fetch the checkpoint's vocab.txt again"
        )
    numbers: dict[str, int] = {}
    for number, line in enumerate(lines):
        if line in numbers:
            raise VocabularyError(
                f"{path} has {line!r} on line {numbers[line] + 1} and again on line {number + 1}, so the lines behind it "
                "have numbers that the network has no place for: remove one, or fetch the checkpoint's vocab.txt again"
            )
        numbers[line] = number
    return numbers


def characters(texts: Sequence[str], polyphone: bool = True) -> list[list[str]]:
    """Texts as the network reads them: characters, and a pinyin syllable with its tone for each Chinese character.

    Args:
        texts: Prompt's text and text to speak joined, as :func:`ended` leaves the former.
        polyphone: Whether words decide how their characters are read.

    Raises:
        imfbench.backbones.originals.MissingPackageError: f5-tts, rjieba or pypinyin is not installed.
    """
    found: list[list[str]] = original_module("utils").convert_char_to_pinyin(list(texts), polyphone=polyphone)
    return found


def numbers(texts: Sequence[Sequence[str]], vocabulary: Mapping[str, int]) -> Tensor:
    """Characters' numbers, (texts, longest), int64, padded with −1; 0 for those that the vocabulary has not."""
    rows = [torch.tensor([vocabulary.get(c, 0) for c in text], dtype=torch.int64) for text in texts]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PADDING)


def tokens(text: Tensor, frames: int) -> Tensor:
    """``numbers`` as a condition has them: one more, 0 behind the text, (texts, frames). A longer text is cut, as upstream."""
    return torch.nn.functional.pad((text + 1)[:, :frames], (0, max(0, frames - text.shape[1])))


def unknown(texts: Sequence[Sequence[str]], vocabulary: Mapping[str, int]) -> list[str]:
    """Characters that the vocabulary has not, each once, in their order: the network reads them as spaces."""
    return list(dict.fromkeys(c for text in texts for c in text if c not in vocabulary))


def ended(prompt: str) -> str:
    """A prompt's text with the sentence's end and the spaces that upstream puts before the text to speak.

    ``"Yes"``, ``"Yes."`` and ``"Yes. "`` all become ``"Yes.  "``; what ends in ``。`` stays as it is.

    Raises:
        PromptError: It is empty: upstream then transcribes the prompt.
    """
    return spaced(stopped(prompt))


def stopped(prompt: str) -> str:
    """A prompt's text with a full stop and one space: what upstream's preparation makes of it, and counts the rate of speech by.

    Raises:
        PromptError: It is empty.
    """
    if not prompt.strip():
        raise PromptError("F5-TTS needs the text of its prompt, and it is empty: give what is said in the recording")
    if not prompt.endswith((". ", "。")):
        prompt += " " if prompt.endswith(".") else ". "
    return prompt


def spaced(prompt: str) -> str:
    """A prompt's text as upstream's evaluation takes it: a space behind it if its last character is a byte, no full stop."""
    return prompt + " " if len(prompt[-1].encode()) == 1 else prompt


def frames_to_generate(
    prompt_frames: int, prompt: str, text: str, speed: float = 1.0, slow_short_texts: bool = True
) -> int:
    """The duration rule: the prompt's frames for each byte of its text, times the bytes of the text to speak.

    Args:
        prompt_frames: Whole hops in the prompt's audio (one less than its centred mel has frames).
        prompt: Its text, as :func:`ended` or :func:`spaced` leaves it.
        text: To speak.
        speed: Of speech; above 1 is faster.
        slow_short_texts: Whether texts below ``SHORT_TEXT`` bytes take ``SHORT_SPEED`` in place of ``speed``; upstream's
            evaluation, which also counts all frames of the prompt's mel, has no such rule.

    Raises:
        PromptError: The speed is not above 0.
    """
    if speed <= 0:
        raise PromptError(f"the speed of speech is {speed:g}: it must be above 0; 1 is the prompt's")
    letters = len(text.encode())
    if slow_short_texts and letters < SHORT_TEXT:
        speed = SHORT_SPEED
    return int(prompt_frames / len(prompt.encode()) * letters / speed)


def scaled_up(audio: np.ndarray) -> tuple[np.ndarray, float]:
    """The loudness rule for a prompt: scaled up to ``TARGET_RMS`` if it is quieter. Before any change of the sampling rate.

    Args:
        audio: (samples,), mono.

    Returns:
        The audio that the network hears, float32, and the RMS that it had, for :func:`gain_back`.

    Raises:
        PromptError: It is silent.
    """
    heard = torch.from_numpy(np.ascontiguousarray(audio, dtype=np.float32))
    rms = torch.sqrt(torch.mean(torch.square(heard)))
    if not rms > 0:
        raise PromptError("the prompt's recording is silent: give one with speech in it")
    if rms < TARGET_RMS:
        heard = heard * TARGET_RMS / rms
    return heard.numpy(), float(rms)


def gain_back(rms: float) -> float:
    """The loudness rule for the output: what makes it as quiet as the prompt was, ``rms``, if that had been scaled up; else 1.

    Upstream's inference and its evaluation have the same rule.
    """
    return rms / TARGET_RMS if rms < TARGET_RMS else 1.0
