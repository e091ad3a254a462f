"""F5-TTS's long texts: cut into pieces that are spoken one by one with the same prompt, and cross-faded into one recording.

As ``f5_tts.infer.utils_infer`` does it (``infer_process``, ``chunk_text``, ``infer_batch_process``); its evaluation does not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from imfbench.features.f5_text import spaced, stopped

LONGEST_SECONDS = 22.0
"""Of prompt and piece together, at the prompt's rate of speech."""
CROSS_FADE = 0.15
"""Seconds that two pieces share."""
_BORDER = re.compile("(?<=[;:,.!?])\\s+|(?<=[；：，。！？])")
"""Behind a mark: a Latin one's white space goes, a Chinese one has none."""


def most_bytes(prompt: str, seconds: float, speed: float = 1.0) -> int:
    """How many bytes of text a piece may have: what the prompt's rate of speech leaves room for.

    Args:
        prompt: Its text, as it was given.
        seconds: The prompt's length.
        speed: Of speech; above 1 is faster.

    Returns:
        Bytes of UTF-8; 0 or fewer for a prompt of 22 s or more, which makes a piece of every clause.

    Raises:
        imfbench.features.f5_text.PromptError: The prompt's text is empty.
    """
    return int(len(stopped(prompt).encode()) / seconds * (LONGEST_SECONDS - seconds) * speed)


def pieces_of(text: str, most: int) -> list[str]:
    """A text in pieces of whole clauses, each of at most so many bytes unless a single clause has more.

    Args:
        text: To be spoken.
        most: Bytes of UTF-8 in a piece.

    Returns:
        The pieces in their order, without white space at their ends; none of a text that is empty.
    """
    pieces = [""]
    for clause in filter(None, _BORDER.split(text)):
        if len(pieces[-1].encode()) + len(clause.encode()) > most:
            pieces.append("")
        pieces[-1] += spaced(clause)
    return [piece.strip() for piece in pieces if piece.strip()]


def cross_faded(pieces: Sequence[np.ndarray], rate: int, seconds: float = CROSS_FADE) -> np.ndarray:
    """Recordings one after the other, each fading linearly into the next.

    Args:
        pieces: (samples,) each, one at least.
        rate: Their sampling rate, Hz.
        seconds: That two neighbours share; less where one of them is shorter.

    Returns:
        (samples,), float32: all samples less those that are shared.
    """
    whole = pieces[0]
    for piece in pieces[1:]:
        shared = min(int(seconds * rate), len(whole), len(piece))
        rising = np.linspace(0, 1, shared)
        before = whole[len(whole) - shared :]
        mixed = before * rising[::-1] + piece[:shared] * rising
        whole = np.concatenate([whole[: len(whole) - shared], mixed, piece[shared:]])
    return whole.astype(np.float32)
