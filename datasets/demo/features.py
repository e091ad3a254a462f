"""Features of the embedded corpus' recordings, for networks of any mel format, computed once and kept in the cache folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from imfbench.cache import cache_folder
from imfbench.data import DatasetError, Example
from imfbench.datasets.demo.harder import with_noise
from imfbench.datasets.demo.rows import COPY
from imfbench.features.audio import load_audio, resample
from imfbench.features.units import tokens_of_frames
from imfbench.features.voice import voice_of
from imfbench.inputs import EMBEDDED, Inputs
from imfbench.store import write_bytes

REVISION = 1  # raise it when the same audio would get other features
Rows = list[tuple[dict[str, Any], Path]]


class Features:
    """What networks are given of recordings.

    Args:
        inputs: Of the networks.
        vocabulary: Phones → tokens.
        units: A row of alignments.jsonl → its 25 ms units.
    """

    def __init__(
        self, inputs: Inputs, vocabulary: dict[str, int], units: Callable[[dict[str, Any]], torch.Tensor]
    ) -> None:
        self.inputs, self._vocabulary, self._units = inputs, vocabulary, units

    def example(self, row: dict[str, Any], path: Path, speed: float = 1.0, noise: bool = False) -> Example:
        """The features of a recording, played faster by a factor, or with noise."""
        mel, each = self.inputs.mel, self.inputs.frames_per_token
        audio, rate = load_audio(path)
        audio = with_noise(audio, row["id"]) if noise else audio
        audio = resample(audio, rate * speed, mel.sample_rate)
        spectrogram = mel.normalise(mel.log_mel(torch.from_numpy(audio)))
        spectrogram = spectrogram[: len(spectrogram) // each * each]
        tokens = tokens_of_frames(self._units(row), len(spectrogram), speed, mel, each)
        voice = None if self.inputs.speaker_dims is None else voice_of(audio, mel.sample_rate)
        return Example(row["id"], _speaker(row, speed), spectrogram, tokens, voice=voice)

    def digest(self, rows: Rows) -> str:
        """Of all that decides features: the rows, their files' sizes, the vocabulary, the inputs and this code's revision."""
        missing = [path for _, path in rows if not path.is_file()]
        if missing:
            raise DatasetError(f"no audio file {missing[0]}, a training utterance ({len(missing)} are missing): {COPY}")
        described = [
            [row["id"], row["speaker"], row["phones"], row["frames"], path.stat().st_size] for row, path in rows
        ]
        text = json.dumps([described, sorted(self._vocabulary), self._settings()])
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def _settings(self) -> list[Any]:
        mel = self.inputs.mel
        first = [mel.sample_rate, mel.hop, mel.window, mel.bands, mel.mean, mel.deviation, REVISION]
        if mel == EMBEDDED.mel and self.inputs.frames_per_token == 1 and self.inputs.speaker_dims is None:
            return first  # what was kept before there were other inputs stays good
        return [*first, *astuple(mel), self.inputs.frames_per_token, self.inputs.speaker_dims]

    def of(self, rows: Rows, speed: float, key: str) -> list[Example]:
        """The features of training utterances, from the cache if they are there; ``key`` is what the file's name begins with."""
        name = key if self.inputs.mel == EMBEDDED.mel else f"{key}-{self.inputs.mel.name}"
        path = cache_folder() / "features" / f"{name}-{speed:g}-{self.digest(rows)}.safetensors"
        stored = _stored(path)
        if stored is not None:
            lengths = stored["lengths"].tolist()
            mels, tokens = stored["mels"].split(lengths), stored["tokens"].split(lengths)
            voices: Any = stored["voices"] if "voices" in stored else [None] * len(rows)
            return [
                Example(row["id"], _speaker(row, speed), m.float(), t.long(), voice=v)
                for (row, _), m, t, v in zip(rows, mels, tokens, voices, strict=True)
            ]
        found = [self._training_example(row, audio, speed) for row, audio in rows]
        features = {
            "mels": torch.cat([e.mel for e in found]).half(),
            "tokens": torch.cat([e.tokens for e in found]).to(torch.int16),
            "lengths": torch.tensor([len(e.mel) for e in found]),
        }
        if voices := [e.voice for e in found if e.voice is not None]:
            features["voices"] = torch.stack(voices)
        write_bytes(path, save(features))
        return self.of(rows, speed, key)  # as stored, so that a first and a second run train on the same numbers

    def _training_example(self, row: dict[str, Any], path: Path, speed: float) -> Example:
        try:
            return self.example(row, path, speed)
        except ValueError as error:
            file = "" if str(path) in str(error) else f" ({path})"
            raise DatasetError(f"training utterance {row['id']!r}: {error}{file}") from None


def _speaker(row: dict[str, Any], speed: float) -> str:
    return str(row["speaker"]) if speed == 1 else f"{row['speaker']}@{speed:g}"


def _stored(path: Path) -> dict[str, torch.Tensor] | None:
    """Features that were kept, or None: what cannot be read is made again."""
    try:
        return load_file(path) if path.is_file() else None
    except (OSError, SafetensorError):
        return None
