"""Mel-spectrograms as small pictures: one scale of colour, frequency and time for all that are compared."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from PIL import Image

from imfbench.features.audio import load_audio
from imfbench.features.mel import FLOOR, HOP, SAMPLE_RATE, log_mel

LOUDEST = 1.5
"""Log-mel of the brightest colour; the darkest is ``log(FLOOR)``, below which no mel goes."""
LEVELS = 48
SECONDS_PER_COLUMN = HOP / SAMPLE_RATE


def spectrogram(path: Path) -> bytes:
    """The log-mel of an audio file as a PNG: a column a frame of 256/22050 s, a row a band, low bands below.

    Raises:
        imfbench.features.audio_check.AudioError: There is no such file, or it cannot be decoded.
        ValueError: It is too short for a mel.
    """
    samples, _ = load_audio(path, SAMPLE_RATE)
    return picture(log_mel(torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32))).numpy())


def picture(mel: np.ndarray) -> bytes:
    """A log-mel (frames, bands) as a PNG with a palette."""
    low = float(np.log(FLOOR))
    share = np.clip((mel.T[::-1] - low) / (LOUDEST - low), 0.0, 1.0)
    image = Image.fromarray(np.rint(share * (LEVELS - 1)).astype(np.uint8), mode="P")
    colours = mpl.colormaps["magma"](np.linspace(0, 1, LEVELS))[:, :3]
    image.putpalette(np.rint(255 * colours).astype(np.uint8).tobytes())
    found = io.BytesIO()
    image.save(found, format="PNG", optimize=True)
    return found.getvalue()
