"""The audio of a manifest's row: a stretch of a file by soundfile, or a cut of lhotse by lhotse."""

from __future__ import annotations

import copy
import json

import numpy as np
import soundfile

from imfbench.data import DatasetError
from imfbench.features.audio import load_audio
from imfbench.features.audio_check import AudioError
from imfbench.manifest_rows import Row


def read_audio(row: Row) -> tuple[np.ndarray, int]:
    """The audio of a row, mono, (samples,), float32, and its rate in Hz.

    Raises:
        AudioError: It cannot be read; the message begins with the file's name.
        DatasetError: It takes the package lhotse, which is not installed.
    """
    if row.audio is None:
        return _by_lhotse(row)
    return load_audio(row.audio) if row.whole else _stretch(row)


def _stretch(row: Row) -> tuple[np.ndarray, int]:
    assert row.audio is not None
    try:
        with soundfile.SoundFile(row.audio) as file:
            rate = int(file.samplerate)
            begin = round(row.start * rate)
            if begin >= file.frames > 0:
                raise AudioError(
                    f"{row.audio} is shorter than the manifest says: it has {file.frames / rate:.2f} s, and the stretch begins "
                    f"at {row.start:.2f} s"
                )
            file.seek(begin)
            frames = -1 if row.seconds is None else round(row.seconds * rate)
            samples = file.read(frames, dtype="float32", always_2d=True)
    except (OSError, soundfile.LibsndfileError):
        load_audio(row.audio)  # says what is wrong in full
        raise AudioError(f"{row.audio} cannot be read") from None
    if not len(samples) or not np.isfinite(samples).all():
        load_audio(row.audio)
        raise AudioError(f"{row.audio} holds no samples, or none that are finite, at {row.start:.2f} s")
    if row.channel is not None and row.channel >= samples.shape[1]:
        raise AudioError(f"{row.audio} lacks the channel that the manifest names: {row.channel} of {samples.shape[1]}")
    found = samples.mean(1) if row.channel is None else samples[:, row.channel]
    return np.ascontiguousarray(found), rate


def _by_lhotse(row: Row) -> tuple[np.ndarray, int]:
    """Whatever a cut is: mixed, transformed, from an archive."""
    try:
        from lhotse.serialization import deserialize_item
    except ImportError:
        raise DatasetError(
            f"{row.id} is no plain stretch of a file, and the package lhotse, which reads it, is not installed: pip install "
            "'imfbench[lhotse]'"
        ) from None
    assert row.cut is not None
    # A copy: lhotse takes what it is given apart.
    described = copy.deepcopy({key: value for key, value in row.cut.items() if key != "imfbench"})
    at, length = row.cut["imfbench"]
    try:
        cut = deserialize_item(described)
        if at > 0 or abs(length - cut.duration) > 1e-3:
            cut = cut.truncate(offset=at, duration=length)
        audio = cut.load_audio()
    except Exception as error:  # lhotse and what it reads with raise many kinds
        raise AudioError(f"{row.id} cannot be read by lhotse ({type(error).__name__}: {str(error)[:200]})") from None
    return np.asarray(audio, np.float32).mean(0), int(cut.sampling_rate)


def state_of(row: Row) -> str:
    """What tells a row's recording from a changed one: its stretch, and the file's size; "" if it is not there.

    Not its time, which a copy changes: hearing a large corpus again takes days.
    """
    stretch = [row.start, row.seconds, row.channel]
    if row.audio is None:  # lhotse's
        return json.dumps([*stretch, row.cut], sort_keys=True, default=str)
    try:
        found = row.audio.stat()
    except OSError:
        return ""
    return json.dumps([*stretch, found.st_size])
