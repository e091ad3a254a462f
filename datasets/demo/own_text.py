"""One's own text in the voice of one's own prompt, as the networks trained on the embedded corpus expect them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

import numpy as np
import torch

from imfbench.data import make_text_condition
from imfbench.features.mel import HIFIGAN, MelFormat
from imfbench.features.phones import EDGE, Phonemizer, PromptError, TextError
from imfbench.inputs import EMBEDDED, Inputs
from imfbench.method import Condition

PROMPT_SECONDS = (1.0, 10.0)
LONGEST = 16.0
"""Seconds of speech in one piece: training utterances end well before."""
# Medians of the corpus' recordings: seconds of silence before and after the speech, and the speech's root mean square.
_BEFORE, _AFTER = 0.34, 0.65
_LOUDNESS = 0.093
_QUIET = 10 ** (-40 / 20)
_PACE = (4.0, 40.0)
"""Phones a second, spaces included, that anyone speaks; the corpus has 9.5 to 23.5."""
_MARKS = {";": ",", ":": ",", "—": ",", "–": ",", "…": "."}  # the corpus knows ! , . ? alone


def own_condition(
    vocabulary: dict[str, int],
    prompt: np.ndarray,
    prompt_text: Callable[[], str],
    text: str,
    british: bool = False,
    speed: float = 1.0,
    inputs: Inputs = EMBEDDED,
) -> Condition:
    """The condition of text2mel for a text that no list holds; its length by F5-TTS's rule, the prompt's rate.

    Args:
        vocabulary: Phones → tokens.
        prompt: The prompt's speech, (samples,), at the mel's sampling rate.
        prompt_text: Gives what it says; not asked before all else is known to be right, as a recogniser may have to listen.
        text: What is to be said.
        british: Whether words are said the British way.
        speed: 1.2 is a fifth faster than the prompt.
        inputs: What the network is given.

    Returns:
        A batch of 1.

    Raises:
        PromptError: Too little or too much speech in the prompt.
        TextError: Nothing to say, signs that cannot be said, or a prompt's text that is not what the prompt says.
        MissingPhonemizerError: The extra ``g2p`` is not installed.
    """
    mel = inputs.mel
    speech = prepared(prompt, mel)
    phonemize = Phonemizer()
    wanted = tokens(phonemize, vocabulary, text, british)
    heard = prompt_text()
    spoken = tokens(phonemize, vocabulary, heard, british, "the prompt's text")
    spectrogram = mel.normalise(mel.log_mel(torch.from_numpy(speech)))
    # Edges are silence of a fixed length; the prompt's rate is that of what is between.
    edges = round((_BEFORE + _AFTER) * mel.sample_rate / mel.hop)
    rate = (len(spectrogram) - edges) / (len(spoken) - 2)
    seconds = len(speech) / mel.sample_rate - _BEFORE - _AFTER
    if not _PACE[0] <= (len(spoken) - 2) / seconds <= _PACE[1]:
        raise TextError(
            f"the prompt's text {heard!r} has {len(spoken) - 2} phones for {seconds:.1f} s of speech, which cannot be what it "
            "says: give what the recording says, word for word, with --prompt-text or as the prompt's text in the list"
        )
    frames = edges + round(rate * (len(wanted) - 2) / speed)
    if frames * mel.hop / mel.sample_rate > LONGEST:
        raise TextError(
            f"the text would take {frames * mel.hop / mel.sample_rate:.0f} s at the prompt's pace, more than {LONGEST:.0f} s in "
            "one piece: give it sentence by sentence"
        )
    return make_text_condition(spectrogram, spoken, wanted, frames, inputs.text)


def prepared(prompt: np.ndarray, mel: MelFormat = HIFIGAN) -> np.ndarray:
    """A prompt at the mel's sampling rate like the corpus': its silences trimmed, the corpus' put there instead, and as loud.

    Raises:
        PromptError: Too little or too much speech.
    """
    if len(prompt):
        prompt = prompt - prompt.mean(dtype=np.float64)  # a microphone's offset would be no silence
    hop = mel.sample_rate // 100
    blocks = prompt[: len(prompt) // hop * hop].reshape(-1, hop)
    level = np.sqrt((blocks**2).mean(1))
    highest = level.max(initial=0.0)
    loud = np.flatnonzero((level > _QUIET * highest) & (highest > 1e-4))
    if not len(loud):
        raise PromptError("it is silent: record it again, or give another")
    seconds = (loud[-1] + 1 - loud[0]) * hop / mel.sample_rate
    low, high = PROMPT_SECONDS
    if seconds < low:
        raise PromptError(f"it holds {seconds:.1f} s of speech, less than {low:.0f} s: give a longer one")
    if seconds > high:
        raise PromptError(
            f"it holds {seconds:.1f} s of speech, more than {high:.0f} s: cut it to a sentence or two, and in a noisy place also "
            "what comes before and after them"
        )
    speech = prompt[loud[0] * hop : (loud[-1] + 1) * hop]
    speech = speech * (_LOUDNESS / np.sqrt(np.mean(speech**2)))
    return np.pad(speech, (round(_BEFORE * mel.sample_rate), round(_AFTER * mel.sample_rate))).astype(np.float32)


def tokens(
    phonemize: Phonemizer, vocabulary: dict[str, int], text: str, british: bool, what: str = "the text"
) -> torch.Tensor:
    """The tokens of a text, silence at its edges included, (phones,).

    Args:
        phonemize: Text → phones.
        vocabulary: Phones → tokens.
        text: English.
        british: Whether words are said the British way.
        what: Which text it is, in messages.

    Raises:
        TextError: Nothing to say, or signs that English has no sound for.
    """
    text = unicodedata.normalize("NFKC", text).strip()
    if not re.search(r"\w", text):
        raise TextError(f"there is nothing to say in {what}, {text!r}: give it words")
    foreign = sorted({c for c in text if c.isalpha() and not unicodedata.name(c, "").startswith("LATIN")})
    if foreign:
        raise TextError(
            f"{what} holds {' '.join(foreign)}, which this English voice cannot say: {text!r}; write it in Latin letters"
        )
    phones = phonemize.phones(re.sub(r"([!,.?])[!,.?]+", r"\1", text), british)
    unknown = sorted({p for p in phones if p not in vocabulary and any(map(str.isalpha, p))})
    if unknown:
        raise TextError(
            f"{what} holds sounds that this voice cannot make ({' '.join(unknown)}): {text!r}; say it in other words"
        )
    known = [p for p in (_MARKS.get(p, p) for p in phones) if p in vocabulary]
    if len(known) < 3:
        raise TextError(f"{what}, {text!r}, has no phones that the voice knows: give it words")
    assert known[0] == known[-1] == EDGE
    return torch.tensor([vocabulary[p] for p in known])
