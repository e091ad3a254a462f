"""What may be wrong with a recording: a file that was cut short, and what is worth a note though it can be scored.

libsndfile reads a wav or Ogg file whose end is missing as a shorter recording and says nothing, so the sizes that the file
itself announces are compared with what is there.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

SILENT = 1e-4
"""Peak (−80 dBFS) below which a recording is silent; the scorers' own bound."""
FULL_SCALE = 0.999
CLIPPED = 0.001
"""Share of samples, in runs of three or more at full scale, from which a recording is noted as clipped."""
REMEDY = "put a whole recording in its place, or take its row out of the list"
_UNKNOWN_SIZE = (0, 0xFFFFFFFF)  # what programs write that do not know the length beforehand
_LARGEST_PAGE = 27 + 255 + 255 * 255


class AudioError(ValueError):
    """A recording that cannot be used; the message names the file, what is wrong with it, and the remedy."""


def missing_bytes(path: Path) -> int:
    """How many bytes a wav or Ogg file lacks of what it announces; 0 for whole files and for other formats."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] == b"RIFF" and head[8:] == b"WAVE":
            while len(chunk := file.read(8)) == 8:
                name, length = struct.unpack("<4sI", chunk)
                if name == b"data":
                    return 0 if length in _UNKNOWN_SIZE else max(0, length - (size - file.tell()))
                file.seek(length + length % 2, 1)
        elif head[:4] == b"OggS":
            file.seek(max(0, size - _LARGEST_PAGE))
            tail = file.read()
            page = tail[tail.rfind(b"OggS") :]
            if len(page) < 27:
                return 27 - len(page)
            segments = page[27 : 27 + page[26]]
            return max(0, 27 + page[26] + sum(segments) - len(page))
    return 0


def audio_notes(samples: np.ndarray, rate: int, expected: int | None = None) -> list[str]:
    """What is worth a note of a recording that can be used: silence, clipping, several channels, another sampling rate.

    Args:
        samples: (samples,) or (samples, channels), before anything is mixed or resampled.
        rate: Its sampling rate.
        expected: The rate that is usual here; None says nothing about rates.
    """
    channels = samples[:, None] if samples.ndim == 1 else samples
    found = []
    if not channels.size or np.abs(channels).max() < SILENT:
        found.append("silent")
    elif (share := clipped_share(channels)) >= CLIPPED:
        found.append(f"clipped ({100 * share:.1f} % of its samples)")
    if channels.shape[1] > 1:
        found.append(f"{channels.shape[1]} channels, mixed down")
    if expected is not None and rate != expected:
        found.append(f"{rate} Hz, resampled")
    return found


def clipped_share(channels: np.ndarray) -> float:
    """Share of samples that stand in runs of three or more at or above full scale; one loud peak is no clipping."""
    loud = np.pad(np.abs(channels) >= FULL_SCALE, ((1, 1), (0, 0)))
    third = loud[:-2] & loud[1:-1] & loud[2:]  # the middle of three
    around = np.pad(third, ((1, 1), (0, 0)))
    return float((around[:-2] | around[1:-1] | around[2:]).mean())
