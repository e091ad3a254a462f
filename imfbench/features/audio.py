"""Audio files in and out: soundfile for files, soxr (HQ) for sampling rates."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import soundfile
import soxr

from imfbench import interruption
from imfbench.features.audio_check import REMEDY, AudioError, audio_notes, missing_bytes

RESAMPLER = "soxr-hq"


def load_audio(path: Path, rate: int | None = None) -> tuple[np.ndarray, int]:
    """Read a file as mono float32.

    Args:
        path: wav, FLAC, Opus: whatever libsndfile reads.
        rate: Wanted sampling rate in Hz; None keeps the file's.

    Returns:
        (samples,) in [-1, 1] and the sampling rate.

    Raises:
        AudioError: There is no such file, it cannot be decoded, is cut short or empty, or holds values that are not finite.
    """
    audio, found = _read(path)
    samples = audio.mean(axis=1)
    return (resample(samples, found, rate), rate) if rate else (samples, found)


def load_noted(path: Path) -> tuple[np.ndarray, int, list[str]]:
    """Read a file as ``load_audio`` does, and beside its samples and rate what is worth a note (``audio_notes``)."""
    audio, found = _read(path)
    return audio.mean(axis=1), found, audio_notes(audio, found)


def notes_of_file(path: Path, expected: int | None = None) -> list[str]:
    """What is worth a note of a recording (see ``audio_notes``); raises as ``load_audio`` does."""
    return audio_notes(*_read(path), expected)


def _read(path: Path) -> tuple[np.ndarray, int]:
    try:
        if not path.is_file():
            raise AudioError(f"no audio file {path}: {REMEDY}")
        missing = missing_bytes(path)
        audio, found = soundfile.read(path, dtype="float32", always_2d=True)
    except OSError as error:
        raise AudioError(f"{path} cannot be read ({error.strerror or error}): {REMEDY}") from None
    except soundfile.LibsndfileError as error:
        told = "it is an empty file" if path.stat().st_size == 0 else str(error).rpartition(": ")[2].rstrip(".")
        raise AudioError(f"{path} cannot be decoded ({told}): {REMEDY}") from None
    if missing:
        raise AudioError(f"{path} is cut short, its last {missing} bytes are missing: {REMEDY}")
    if len(audio) == 0:
        raise AudioError(f"{path} holds no samples: {REMEDY}")
    if not np.isfinite(audio).all():
        raise AudioError(f"{path} holds values that are not finite: {REMEDY}")
    return audio, found


def resample(audio: np.ndarray, source: float, target: float) -> np.ndarray:
    """Change the sampling rate from ``source`` to ``target`` Hz."""
    if source == target:
        return audio
    found: np.ndarray = soxr.resample(audio, source, target, quality="HQ")
    return found.astype(np.float32)


def save_audio(path: Path, audio: np.ndarray, rate: int) -> None:
    """Write 16-bit PCM (wav or FLAC, by the name's ending) whole or not at all.

    Raises:
        StoreError: The file cannot be written, for instance to a full disk.
    """
    from imfbench.store import write_bytes  # brings pandas, which scorers that only read audio need not wait for

    kind = {".wav": "WAV", ".flac": "FLAC"}[path.suffix]
    # libsndfile would write to a full disk without a word of why it stopped: it encodes, Python writes.
    encoded = io.BytesIO()
    with interruption.deferred():
        soundfile.write(encoded, np.clip(audio, -1, 1), rate, subtype="PCM_16", format=kind)
    write_bytes(path, encoded.getvalue())
