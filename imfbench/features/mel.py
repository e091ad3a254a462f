"""The mel-spectrogram that the HiFi-GAN universal generator was trained on: 22.05 kHz, 80 bands, hop 256, natural logarithm."""

from __future__ import annotations

from functools import lru_cache

import torch
import torchaudio
from torch import Tensor

SAMPLE_RATE = 22_050
HOP = 256
WINDOW = 1024
BANDS = 80
FLOOR = 1e-5
# Over the embedded corpus; one number for all bands, so that a distance between mels is the same in both units.
MEAN, DEVIATION = -6.3, 3.1


@lru_cache
def filters() -> Tensor:
    """Slaney filters, (bands, WINDOW / 2 + 1)."""
    bank: Tensor = torchaudio.functional.melscale_fbanks(
        WINDOW // 2 + 1, 0.0, 8000.0, BANDS, SAMPLE_RATE, norm="slaney", mel_scale="slaney"
    )
    return bank.T.contiguous()


@lru_cache
def _window() -> Tensor:
    return torch.hann_window(WINDOW)


def log_mel(audio: Tensor) -> Tensor:
    """Logarithmic mel of ``audio`` (samples,) at 22.05 kHz: (frames, bands). Frame k is centred at sample 256·k + 128.

    Raises:
        ValueError: The audio is shorter than a window's margin.
    """
    margin = (WINDOW - HOP) // 2
    if len(audio) <= margin:
        raise ValueError(
            f"audio of {1000 * len(audio) / SAMPLE_RATE:.1f} ms is too short for a mel: give a longer recording"
        )
    padded = torch.nn.functional.pad(audio[None, None], (margin, margin), mode="reflect")[0]
    spectrum = torch.stft(padded, WINDOW, HOP, WINDOW, _window(), center=False, return_complex=True)
    magnitude = torch.sqrt(spectrum.real**2 + spectrum.imag**2 + 1e-9)[0]
    return torch.log(torch.clamp(filters() @ magnitude, min=FLOOR)).T.contiguous()


def normalise(mel: Tensor) -> Tensor:
    """Log-mel to the network's units."""
    return (mel - MEAN) / DEVIATION


def denormalise(mel: Tensor) -> Tensor:
    """The network's units to log-mel."""
    return mel * DEVIATION + MEAN


def frame_count(samples: int) -> int:
    """Frames of a mel of ``samples`` samples at 22.05 kHz."""
    return (samples + WINDOW - HOP - WINDOW) // HOP + 1
