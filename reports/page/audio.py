"""Sound for a page: Opus in Ogg, the same bytes for the same samples.

The Ogg encoder of libsndfile numbers its streams by chance; here every stream has the number 0, with new checksums (RFC 3533).
"""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import soundfile

from imfbench.features.audio import load_audio, resample

RATE = 24_000
"""Sampling rate that is encoded, in Hz: Opus knows 8, 12, 16, 24 and 48 kHz."""
_POLYNOMIAL = 0x04C11DB7
_FASTEST, _SLOWEST = 256_000, 6_000  # bits a second per channel at libsndfile's compression levels 0 and 1


def opus(path: Path, kilobits: int) -> tuple[bytes, float]:
    """An audio file as Opus.

    Args:
        path: Whatever libsndfile reads.
        kilobits: Bit rate aimed at, in kbit/s.

    Returns:
        The Ogg file, and its length in seconds.

    Raises:
        imfbench.features.audio_check.AudioError: There is no such file, or it cannot be decoded.
    """
    samples, rate = load_audio(path)
    return encode(resample(samples, rate, RATE), kilobits), len(samples) / rate


def encode(samples: np.ndarray, kilobits: int) -> bytes:
    """Samples (n,) at ``RATE`` as an Ogg file with Opus."""
    level = (_FASTEST - 1000 * kilobits) / (_FASTEST - _SLOWEST)
    found = io.BytesIO()
    soundfile.write(
        found, np.clip(samples, -1, 1), RATE, format="OGG", subtype="OPUS", compression_level=min(max(level, 0.0), 1.0)
    )
    return renumbered(found.getvalue())


def renumbered(ogg: bytes) -> bytes:
    """An Ogg file whose streams have the number 0."""
    pages, at = [], 0
    while at < len(ogg):
        if ogg[at : at + 4] != b"OggS":
            raise ValueError(f"no Ogg page at byte {at}")
        segments = ogg[at + 26]
        end = at + 27 + segments + sum(ogg[at + 27 : at + 27 + segments])
        page = bytearray(ogg[at:end])
        page[14:18] = bytes(4)
        page[22:26] = bytes(4)
        page[22:26] = struct.pack("<I", _checksum(bytes(page)))
        pages.append(bytes(page))
        at = end
    return b"".join(pages)


def _table() -> list[int]:
    found = []
    for byte in range(256):
        value = byte << 24
        for _ in range(8):
            value = (value << 1) ^ (_POLYNOMIAL if value & 0x80000000 else 0)
        found.append(value & 0xFFFFFFFF)
    return found


_TABLE = _table()


def _checksum(data: bytes) -> int:
    value = 0
    for byte in data:
        value = ((value << 8) & 0xFFFFFFFF) ^ _TABLE[(value >> 24) ^ byte]
    return value
