"""What may be wrong with a recording: a file that was cut short, and what is worth a note though it can be scored.

libsndfile reads most files whose end is missing as shorter recordings and says nothing, so the sizes that a file itself
announces are compared with what is there.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np

SILENT = 1e-4
"""Peak (−80 dBFS) below which a recording is silent; the scorers' own bound."""
FULL_SCALE = 0.999
CLIPPED = 0.001
"""Share of samples, in runs of three or more at full scale, from which a recording is noted as clipped."""
REMEDY = "put a whole recording in its place, or take its row out of the list"
_UNKNOWN_SIZE = 0x7F000000
"""Programs that write into a pipe announce the most that they can (ffmpeg 0xFFFFFFFF, SoX 0x7FFFF000), or nothing."""
_LARGEST = 1 << 62
"""The same where a size has 64 bits."""
_LARGEST_PAGE = 27 + 255 + 255 * 255
_SAMPLES = (b"data", b"SSND", b"BODY")
"""The chunk that holds the samples, in wav, in AIFF, and in 8SVX."""


class AudioError(ValueError):
    """A recording that cannot be used; the message names the file, where it is known, what is wrong with it, and the remedy."""


def missing_bytes(path: Path) -> int:
    """How many bytes a file lacks of what it announces; 0 for whole files and for those that announce nothing.

    Read are the sizes of wav, RF64, Wave64, AIFF, 8SVX, CAF, AU, NIST Sphere and Ogg.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(24)
        file.seek(12)
        form, kind = head[:4], head[8:12]
        end = 0
        if (form, kind) in ((b"RIFF", b"WAVE"), (b"RF64", b"WAVE")):
            end = _end_of_samples(file, "<4sI")
        elif (form, kind) == (b"RIFX", b"WAVE") or form == b"FORM":
            end = _end_of_samples(file, ">4sI")
        elif form == b"caff":
            file.seek(8)
            end = _end_of_samples(file, ">4sQ")
        elif form == b"riff":
            end = _end_of_wave64(file)
        elif form in (b".snd", b"dns.") and len(head) == 24:
            start, length = struct.unpack("<II" if form == b"dns." else ">II", head[4:12])
            end = start + length if length < _UNKNOWN_SIZE else 0
        elif form == b"NIST":
            end = _end_of_sphere(file)
        elif form == b"OggS":
            end = size + _missing_of_page(file, size)
    return max(0, end - size)


def _end_of_samples(file: BinaryIO, form: str) -> int:
    """Where the samples end in a file of chunks whose heads have this form, by what it announces; 0 if it does not say."""
    large = 0
    while len(head := file.read(struct.calcsize(form))) == struct.calcsize(form):
        name, length = struct.unpack(form, head)
        content = file.tell()
        if name == b"ds64":  # RF64: the true lengths, which the chunks' own fields cannot hold
            _, large = struct.unpack("<QQ", file.read(16).ljust(16, b"\0"))
        if name in _SAMPLES:
            length = large if length == 0xFFFFFFFF else length
            return content + length if length < (_LARGEST if large or "Q" in form else _UNKNOWN_SIZE) else 0
        if length >= _LARGEST:
            break
        file.seek(content + length + (length % 2 if "I" in form else 0))  # chunks of RIFF and AIFF begin at even places
    return 0


def _end_of_wave64(file: BinaryIO) -> int:
    file.seek(40)
    while len(head := file.read(24)) == 24:
        name, length = struct.unpack(
            "<16sQ", head
        )  # the length counts these 24 bytes, the next begins at a multiple of 8
        if name.startswith(b"data"):
            return file.tell() - 24 + length if length < _LARGEST else 0
        if not 24 <= length < _LARGEST:
            break
        file.seek(length - 24 + -length % 8, 1)
    return 0


def _end_of_sphere(file: BinaryIO) -> int:
    file.seek(0)
    header = file.read(1024)
    fields = {name: int(value) for name, value in re.findall(rb"^(\w+) -\w+ (\d+)$", header, re.MULTILINE)}
    size = re.match(rb"NIST_1A\n\s*(\d+)\n", header)
    try:
        return (
            int(size[1]) + fields[b"sample_count"] * fields[b"sample_n_bytes"] * fields[b"channel_count"] if size else 0
        )
    except KeyError:
        return 0


def _missing_of_page(file: BinaryIO, size: int) -> int:
    """What the last page of an Ogg file lacks."""
    file.seek(max(0, size - _LARGEST_PAGE))
    tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    if len(page) < 27:
        return 27 - len(page)
    segments = page[27 : 27 + page[26]]
    return max(0, 27 + page[26] + sum(segments) - len(page))


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
