"""A speaker's vector for networks that take one, where the corpus brings none."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imfbench.features.audio import resample
from imfbench.features.audio_check import AudioError

DIMS = 256
"""Of Resemblyzer's vectors."""


@lru_cache(1)
def _embedder() -> Any:
    from imfbench.metrics.sim import Resemblyzer, SpeakerSimilarity

    found = Resemblyzer(SpeakerSimilarity.Config(), "cpu", None)
    found.load()
    return found


def voice_of(audio: np.ndarray, rate: int) -> Tensor:
    """Resemblyzer's vector of a recording, (256,), of unit length: the embedder that ``sim`` scores with by default.

    A network that is given it has been told what that score compares; CosyVoice 2's own is CAM++'s, of 192.

    Args:
        audio: (samples,).
        rate: Its sampling rate, Hz.

    Raises:
        MissingModelError: The package with its weights is not installed.
        AudioError: The audio is silent.
    """
    from imfbench.metrics.sim import SAMPLE_RATE

    if not len(audio) or float(np.abs(audio).max()) < 1e-4:
        raise AudioError("it is silent, so it has no voice: give another recording")
    return torch.from_numpy(_embedder().embed(resample(audio, rate, SAMPLE_RATE)).astype(np.float32))
