"""Audio files in and out: soundfile for files, soxr (HQ) for sampling rates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
import soxr

RESAMPLER = "soxr-hq"


def load_audio(path: Path, rate: int | None = None) -> tuple[np.ndarray, int]:
    """Read a file as mono float32.

    Args:
        path: wav, FLAC, Opus: whatever libsndfile reads.
        rate: Wanted sampling rate in Hz; None keeps the file's.

    Returns:
        (samples,) in [-1, 1] and the sampling rate.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file cannot be decoded, is empty or holds values that are not finite.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no audio file {path}")
    try:
        audio, found = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path} cannot be decoded: {error}") from None
    samples = audio.mean(axis=1)
    if len(samples) == 0:
        raise ValueError(f"{path} holds no samples")
    if not np.isfinite(samples).all():
        raise ValueError(f"{path} holds values that are not finite")
    return (resample(samples, found, rate), rate) if rate else (samples, found)


def resample(audio: np.ndarray, source: float, target: float) -> np.ndarray:
    """Change the sampling rate from ``source`` to ``target`` Hz."""
    if source == target:
        return audio
    found: np.ndarray = soxr.resample(audio, source, target, quality="HQ")
    return found.astype(np.float32)


def save_audio(path: Path, audio: np.ndarray, rate: int) -> None:
    """Write 16-bit PCM (wav or FLAC, by the name's ending) under a temporary name, then rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    kind = {".wav": "WAV", ".flac": "FLAC"}[path.suffix]
    soundfile.write(temporary, np.clip(audio, -1, 1), rate, subtype="PCM_16", format=kind)
    temporary.replace(path)
