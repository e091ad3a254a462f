"""The recognisers of the published scorers beside faster-whisper: Whisper and HuBERT by ``transformers``, Paraformer by FunASR.

Each hears one recording at a time, as the scripts do that are presets here, so that no figure depends on its neighbours in a
batch. Their packages are extras and imported when a model is loaded.
"""

from __future__ import annotations

import contextlib
import sys
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from imfbench import published, weights

if TYPE_CHECKING:
    from imfbench.metrics.recognisers import Decoding

SAMPLE_RATE = 16000
PRECISIONS = ("float32", "float16", "bfloat16")
LONGEST = 30
"""Seconds that Whisper hears in one go; the scripts that are presets here decode no further."""


class HubRecogniser(ABC):
    """A recogniser whose model is one of ``imfbench.published``, the user's own, or another one of the hub.

    Args:
        decoding: How it searches; None for one that does not.
        asr: A model of ``imfbench.published``, or a repository of the hub.
        path: The user's own folder; wins over ``asr``.
        compute: What it computes in; "auto" is float32, as in the scripts.
        device: Of the recogniser.
    """

    label: ClassVar[str]
    module: ClassVar[str]
    extra: ClassVar[str]
    languages: ClassVar[tuple[str, ...]] = ("en", "zh")

    def __init__(self, decoding: Decoding | None, asr: str, path: Path | None, compute: str, device: str) -> None:
        self.decoding, self.asr, self.path, self.device = decoding, asr, path, device
        self.compute = "float32" if compute == "auto" else compute
        self.workers = 1
        self._folder: Path | None = None
        if self.compute not in PRECISIONS:
            raise weights.MissingModelError(
                f"{self.label} computes in {', '.join(PRECISIONS)}, not in {compute!r}: correct metrics.wer.compute"
            )

    @property
    def folder(self) -> Path:
        """The model's folder, fetched from the hub if it is not on this machine.

        Raises:
            imfbench.weights.MissingModelError: It cannot be had, or its package is not installed.
        """
        if self._folder is None:
            model = published.published(self.asr)
            if model is not None:
                self._folder = published.obtain(model, self.path)
            else:
                if not published.installed(self.module):
                    raise weights.MissingModelError(
                        f"the recogniser {self.label!r} needs the package {self.module}: "
                        f"`pip install 'imfbench[{self.extra}]'`"
                    )
                self._folder = weights.find(self.label, self.path) if self.path else published.from_hub(self.asr)
        return self._folder

    def parts(self) -> dict[str, Any]:
        """Recogniser, sha256 of its weights, precision and, where it searches, how: its parts of the signature."""
        name = self.folder.name if self.path is not None else self.asr.rpartition("/")[2]
        found: dict[str, Any] = {
            "asr": published.label(f"{self.module}-{name}", self.folder, published.published(self.asr)),
            "compute": self.compute,
        }
        if self.decoding is not None:
            found |= {
                "beam": self.decoding.beam,
                "temperature": ",".join(f"{value:g}" for value in self.decoding.temperatures),
                "context": self.decoding.previous_text,
                "timestamps": self.decoding.timestamps,
            }
        return found

    def check_pickle(self) -> None:
        """Refuse weights in pickle form that hold anything but tensors.

        Raises:
            imfbench.weights.DamagedModelError: They would run code when they are read.
        """
        for name in ("pytorch_model.bin", "model.pt"):
            if (self.folder / name).is_file() and not (self.folder / "model.safetensors").is_file():
                weights.load_tensors(self.folder / name)

    @abstractmethod
    def load(self, threads: int | None) -> None:
        """Load the model; its threads are torch's."""

    @abstractmethod
    def transcribe(self, audio: np.ndarray, language: str) -> str:
        """What is heard in 16 kHz ``audio``, (samples,), float32."""


def _quiet() -> None:
    """transformers shows a bar of its own while it loads, and warns of settings that its checkpoints bring along."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


class TransformersWhisper(HubRecogniser):
    """Whisper by ``transformers``, as seed-tts-eval and ZipVoice call it: 30 s, greedy unless told otherwise."""

    label, module, extra = "transformers-whisper", "transformers", "transformers"

    def load(self, threads: int | None) -> None:
        """Load processor and model."""
        import torch
        from transformers import WhisperForConditionalGeneration, WhisperProcessor

        self.check_pickle()
        _quiet()
        self._dtype = getattr(torch, self.compute)
        self.processor = WhisperProcessor.from_pretrained(self.folder, local_files_only=True)
        model = WhisperForConditionalGeneration.from_pretrained(
            self.folder, dtype=self._dtype, local_files_only=True, weights_only=True
        )
        self.model = model.eval().to(self.device)

    def transcribe(self, audio: np.ndarray, language: str) -> str:
        """The text of the first 30 s."""
        import torch

        assert self.decoding is not None
        features = self.processor(audio, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
        told: dict[str, Any] = {"return_timestamps": self.decoding.timestamps, "num_beams": self.decoding.beam}
        if getattr(self.model.generation_config, "is_multilingual", True):
            told |= {"language": language, "task": "transcribe"}
        if self.decoding.temperatures != (0.0,):
            told["temperature"] = self.decoding.temperatures
        with torch.inference_mode():
            tokens = self.model.generate(features.to(self.device, self._dtype), **told)
        return str(self.processor.batch_decode(tokens, skip_special_tokens=True)[0]).strip()


class HubertCTC(HubRecogniser):
    """HuBERT with a CTC head by ``transformers``: the likeliest sign of each frame, repetitions joined, no language model."""

    label, module, extra = "hubert-ctc", "transformers", "transformers"
    languages: ClassVar[tuple[str, ...]] = ("en",)

    def load(self, threads: int | None) -> None:
        """Load feature extractor, signs and model."""
        import torch
        from transformers import HubertForCTC, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor

        self.check_pickle()
        _quiet()
        self._dtype = getattr(torch, self.compute)
        self.features = Wav2Vec2FeatureExtractor.from_pretrained(self.folder, local_files_only=True)
        self.tokens = Wav2Vec2CTCTokenizer.from_pretrained(self.folder, local_files_only=True)
        model = HubertForCTC.from_pretrained(self.folder, dtype=self._dtype, local_files_only=True, weights_only=True)
        self.model = model.eval().to(self.device)

    def transcribe(self, audio: np.ndarray, language: str) -> str:
        """What is heard, in the capitals that the model was trained on."""
        import torch

        values = self.features(audio, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_values
        with torch.inference_mode():
            signs = self.model(values.to(self.device, self._dtype)).logits.argmax(-1)
        return str(self.tokens.decode(signs[0])).strip()


class Paraformer(HubRecogniser):
    """Paraformer by FunASR, for Chinese."""

    label, module, extra = "paraformer", "funasr", "funasr"
    languages: ClassVar[tuple[str, ...]] = ("zh",)

    def parts(self) -> dict[str, Any]:
        """As of every recogniser, and that the noise which its front end adds is always the same."""
        return {**super().parts(), "dither": "seed0"}

    def load(self, threads: int | None) -> None:
        """Let FunASR build the model.

        Raises:
            imfbench.weights.DamagedModelError: The checkpoint would run code, or lacks tensors, which FunASR only warns of.
        """
        self.check_pickle()
        with contextlib.redirect_stdout(sys.stderr):  # it prints its version and more, where tables are printed
            from funasr import AutoModel

            self.model = AutoModel(
                model=str(self.folder), device=self.device, disable_update=True, disable_pbar=True, disable_log=True
            )
        file = self.folder / "model.pt"
        held = weights.load_tensors(file)
        for key in ("state_dict", "model_state_dict", "model"):  # FunASR's own checkpoints have either
            held = held.get(key, held)
        lacking = sorted(set(self.model.model.state_dict()) - {name.removeprefix("module.") for name in held})
        if lacking:
            raise weights.DamagedModelError(
                f"{file} is no checkpoint of the network in its config.yaml: it lacks {len(lacking)} tensors, such as "
                f"{lacking[0]}"
            )

    def transcribe(self, audio: np.ndarray, language: str) -> str:
        """What is heard: characters with spaces between them, as FunASR gives them.

        Its filterbank adds noise of one step of 16 bits, drawn anew each time: here from one seed, so that the same audio always
        gets the same text.
        """
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            (found,) = self.model.generate(input=audio, fs=SAMPLE_RATE, batch_size_s=300, disable_pbar=True)
        return str(found["text"]).strip()
