"""How audio gets to a scorer's sampling rate, by name: other filters, other figures, if only in the last digits.

Each takes mono samples, (samples,), float32 within −1 to 1, with the sampling rate they have and the one wanted, in Hz, and gives
float32. Audio that has the wanted rate already is handed back as it is.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Annotated

import numpy as np
from pydantic import AfterValidator

from imfbench import interruption
from imfbench.features.audio import RESAMPLER, resample
from imfbench.registry import nearest

Resampler = Callable[[np.ndarray, int, int], np.ndarray]


def _scipy_fft(audio: np.ndarray, source: int, target: int) -> np.ndarray:
    """scipy.signal.resample over the whole recording at once: a brick wall in the spectrum, and the ends wrap around."""
    from scipy.signal import resample as by_fft

    # In double precision, as soundfile reads by default.
    return np.asarray(by_fft(audio.astype(np.float64), int(len(audio) * target / source)))


def _torchaudio_sinc(audio: np.ndarray, source: int, target: int) -> np.ndarray:
    """torchaudio's windowed sinc with its own settings (6 zero crossings, Hann, rolloff .99)."""
    import torch
    from torchaudio.functional import resample as by_sinc

    return np.asarray(by_sinc(torch.from_numpy(audio.astype(np.float32)), source, target).numpy())


def _swresample(audio: np.ndarray, source: int, target: int) -> np.ndarray:
    """FFmpeg's swresample to 16 bits by way of PyAV, as faster-whisper reads a file.

    The file is taken to be one of 16 bits: samples between those steps are rounded first.
    """
    import soundfile
    from faster_whisper.audio import decode_audio

    # Scaled here: libsndfile multiplies by 32767 where it reads by dividing through 32768.
    steps = np.clip(np.rint(audio.astype(np.float64) * 32768), -32768, 32767).astype(np.int16)
    file = io.BytesIO()
    with interruption.deferred():
        soundfile.write(file, steps, source, format="WAV", subtype="PCM_16")
    file.seek(0)
    return np.asarray(decode_audio(file, sampling_rate=target))


RESAMPLERS: dict[str, Resampler] = {
    RESAMPLER: resample,
    "scipy-fft": _scipy_fft,
    "torchaudio-sinc": _torchaudio_sinc,
    "swresample-s16": _swresample,
}


def _known(name: str) -> str:
    if name not in RESAMPLERS:
        raise ValueError(f"unknown resampler {name!r}: {nearest(name, list(RESAMPLERS))}")
    return name


ResamplerName = Annotated[str, AfterValidator(_known)]
"""A key of ``RESAMPLERS`` among a metric's settings; another name is an error that holds the nearest one."""


def resampled(audio: np.ndarray, source: int, target: int, name: str = RESAMPLER) -> np.ndarray:
    """The audio at ``target`` Hz by the resampler of a name.

    Raises:
        KeyError: No such resampler.
    """
    return audio if source == target else RESAMPLERS[name](audio, source, target)
