"""One's own text in the voice of one's own prompt, as the networks trained on the embedded corpus expect them."""

from __future__ import annotations

import re
import unicodedata

import numpy as np
import torch

from imfbench.data import make_text_condition
from imfbench.features import mel
from imfbench.features.phones import EDGE, Phonemizer, TextError
from imfbench.method import Condition

PROMPT_SECONDS = (1.0, 10.0)
LONGEST = 16.0
"""Seconds of speech in one piece: training utterances end well before."""
# Medians of the corpus' recordings: seconds of silence before and after the speech, and the speech's root mean square.
_BEFORE, _AFTER = 0.34, 0.65
_LOUDNESS = 0.093
_QUIET = 10 ** (-40 / 20)


def own_condition(
    vocabulary: dict[str, int],
    prompt: np.ndarray,
    prompt_text: str,
    text: str,
    british: bool = False,
    speed: float = 1.0,
) -> Condition:
    """The condition of text2mel for a text that no list holds; its length by F5-TTS's rule, the prompt's rate.

    Args:
        vocabulary: Phones → tokens.
        prompt: The prompt's speech, (samples,), at the mel's sampling rate.
        prompt_text: What it says.
        text: What is to be said.
        british: Whether words are said the British way.
        speed: 1.2 is a fifth faster than the prompt.

    Returns:
        A batch of 1.

    Raises:
        TextError: No speech in the prompt, nothing to say, or signs that cannot be said.
        MissingPhonemizerError: The extra ``g2p`` is not installed.
    """
    speech = prepared(prompt)
    phonemize = Phonemizer()
    spoken, wanted = (tokens(phonemize, vocabulary, words, british) for words in (prompt_text, text))
    spectrogram = mel.normalise(mel.log_mel(torch.from_numpy(speech)))
    # Edges are silence of a fixed length; the prompt's rate is that of what is between.
    edges = round((_BEFORE + _AFTER) * mel.SAMPLE_RATE / mel.HOP)
    rate = (len(spectrogram) - edges) / (len(spoken) - 2)
    frames = edges + round(rate * (len(wanted) - 2) / speed)
    if frames * mel.HOP / mel.SAMPLE_RATE > LONGEST:
        raise TextError(
            f"the text would take {frames * mel.HOP / mel.SAMPLE_RATE:.0f} s at the prompt's pace, more than {LONGEST:.0f} s in "
            "one piece: give it sentence by sentence"
        )
    return make_text_condition(spectrogram, spoken, wanted, frames)


def prepared(prompt: np.ndarray) -> np.ndarray:
    """A prompt like the corpus': its silences trimmed, the corpus' put there instead, and as loud."""
    hop = mel.SAMPLE_RATE // 100
    blocks = prompt[: len(prompt) // hop * hop].reshape(-1, hop)
    level = np.sqrt((blocks.astype(np.float64) ** 2).mean(1))
    highest = level.max(initial=0.0)
    loud = np.flatnonzero((level > _QUIET * highest) & (highest > 1e-4))
    seconds = (loud[-1] + 1 - loud[0]) * hop / mel.SAMPLE_RATE if len(loud) else 0.0
    low, high = PROMPT_SECONDS
    if not low <= seconds <= high:
        raise TextError(f"the prompt holds {seconds:.1f} s of speech; {low:.0f} to {high:.0f} s are needed")
    speech = prompt[loud[0] * hop : (loud[-1] + 1) * hop]
    speech = speech * (_LOUDNESS / np.sqrt(np.mean(speech.astype(np.float64) ** 2)))
    return np.pad(speech, (round(_BEFORE * mel.SAMPLE_RATE), round(_AFTER * mel.SAMPLE_RATE))).astype(np.float32)


def tokens(phonemize: Phonemizer, vocabulary: dict[str, int], text: str, british: bool) -> torch.Tensor:
    """The tokens of a text, silence at its edges included, (phones,).

    Raises:
        TextError: Nothing to say, or signs that English has no sound for.
    """
    text = unicodedata.normalize("NFKC", text).strip()
    if not re.search(r"\w", text):
        raise TextError(f"there is nothing to say in {text!r}")
    foreign = sorted({c for c in text if c.isalpha() and not unicodedata.name(c, "").startswith("LATIN")})
    if foreign:
        raise TextError(f"the text holds {' '.join(foreign)}, which this English voice cannot say: {text!r}")
    phones = [p for p in phonemize.phones(text, british) if p in vocabulary]
    if len(phones) < 3:
        raise TextError(f"{text!r} has no phones that the voice knows")
    assert phones[0] == phones[-1] == EDGE
    return torch.tensor([vocabulary[p] for p in phones])
