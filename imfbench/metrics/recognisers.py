"""Speech recognisers behind the word error rate: 16 kHz audio in, text out."""

from __future__ import annotations

import ctypes
import importlib.util
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from imfbench import published, weights
from imfbench.metrics.hub_recognisers import HubertCTC, Paraformer, TransformersWhisper
from imfbench.registry import nearest

log = logging.getLogger(__name__)
MOST_WORKERS = 4


@dataclass(frozen=True)
class Decoding:
    """How a recogniser searches.

    Attributes:
        beam: Beam width; 1 is greedy.
        temperatures: Tried in order until a decoding passes Whisper's checks; above 0 it samples.
        previous_text: Whether a 30 s window is conditioned on the text of the one before.
        timestamps: Whether timestamp tokens are decoded.
        join: What stands between segments, which usually begin with a space of their own.
    """

    beam: int = 5
    temperatures: tuple[float, ...] = (0.0,)
    previous_text: bool = False
    timestamps: bool = False
    join: str = ""


class FasterWhisper:
    """Whisper through CTranslate2, in int8 on the CPU and float16 elsewhere unless told otherwise.

    Args:
        decoding: How to decode.
        asr: A model of ``imfbench.weights`` ("whisper-base"), or a name or repository known to faster-whisper
            ("large-v3"), which is taken from the hub.
        path: The user's own model folder in CTranslate2's format; wins over ``asr``.
        compute: CTranslate2's compute type, or "auto".
        device: Of the recogniser; CTranslate2 knows CPUs and NVIDIA GPUs, others fall back to the CPU.
    """

    def __init__(self, decoding: Decoding, asr: str, path: Path | None, compute: str, device: str) -> None:
        self.decoding = decoding
        self.asr, self.path = asr, path
        kind, _, index = device.partition(":")
        if kind != "cpu" and (reason := _unusable(kind)):
            log.warning("the recogniser runs on the CPU, in int8: %s", reason)
            kind, index = "cpu", ""
        self.kind, self.index = kind, int(index or 0)
        self.compute = ("int8" if kind == "cpu" else "float16") if compute == "auto" else compute
        self.workers = 1
        self._folder: Path | None = None

    @property
    def folder(self) -> Path:
        """The model's folder, verified if it is a known one, fetched if it has to come from the hub.

        Raises:
            imfbench.weights.MissingModelError: It is not there and cannot be had.
        """
        if self._folder is None:
            model = published.published(self.asr)
            if self.path is not None or self.asr in weights.KNOWN:
                self._folder = weights.find(self.asr, self.path)
            elif model is not None and model.module == "faster_whisper":
                self._folder = published.obtain(model)
            else:
                self._folder = self._from_hub()
        return self._folder

    def _from_hub(self) -> Path:
        from faster_whisper.utils import available_models, download_model

        known = available_models()
        if self.asr not in known and "/" not in self.asr:
            raise weights.MissingModelError(
                f"unknown recogniser {self.asr!r}: {nearest(self.asr, [*weights.KNOWN, *known])} "
                "Or give a folder as asr_path, or a hub repository as 'owner/name'"
            )
        try:
            return Path(download_model(self.asr))
        except Exception as error:  # the hub's client raises many kinds
            raise weights.MissingModelError(
                f"the recogniser {self.asr!r} could not be fetched from the hub ({type(error).__name__}). "
                "Without internet, give the folder of a CTranslate2 model as asr_path, or use asr: whisper-base "
                f"(`{weights.REQUIREMENTS}`)"
            ) from error

    @property
    def label(self) -> str:
        """The model in signatures: the known name of its content, or its folder's name, with its sha256."""
        digest = weights.sha256(self.folder / "model.bin") if (self.folder / "model.bin").is_file() else ""
        for name, model in weights.KNOWN.items():
            if model.files[0].sha256 == digest:
                return f"faster-{name}@{digest[:8]}"
        name = self.folder.name if self.path is not None else self.asr.rpartition("/")[2]
        return f"faster-whisper-{'_'.join(name.split())}@{weights.sha8(self.folder)}"

    def parts(self) -> dict[str, Any]:
        """The decoding's parts of the signature."""
        return {
            "asr": self.label,
            "compute": self.compute,
            "beam": self.decoding.beam,
            "temperature": ",".join(f"{value:g}" for value in self.decoding.temperatures),
            "context": self.decoding.previous_text,
            "timestamps": self.decoding.timestamps,
            # Signatures are older than this part; what does not say it joins segments as they come.
            **({"join": "space"} if self.decoding.join else {}),
        }

    def load(self, threads: int | None) -> None:
        """Load the model; ``threads`` of CTranslate2's own pool, by default as many as torch uses.

        On a CPU they are shared out to ``workers`` that transcribe side by side: two of one thread each do half as much again
        as one of two.
        """
        import torch
        from faster_whisper import WhisperModel

        threads = threads or torch.get_num_threads()
        self.workers = min(threads, MOST_WORKERS) if self.kind == "cpu" else 1
        self.model = WhisperModel(
            str(self.folder),
            device=self.kind,
            device_index=self.index,
            compute_type=self.compute,
            cpu_threads=threads // self.workers,
            num_workers=self.workers,
            local_files_only=True,
        )

    def transcribe(self, audio: np.ndarray, language: str) -> str:
        """What is heard in 16 kHz ``audio``."""
        segments, _ = self.model.transcribe(
            audio,
            language=language,
            beam_size=self.decoding.beam,
            temperature=list(self.decoding.temperatures),
            condition_on_previous_text=self.decoding.previous_text,
            without_timestamps=not self.decoding.timestamps,
        )
        return self.decoding.join.join(segment.text for segment in segments).strip()


def _unusable(kind: str) -> str:
    """Why CTranslate2 cannot use a kind of device; empty if it can."""
    import ctranslate2

    try:
        ctranslate2.get_supported_compute_types(kind)
    except (ValueError, RuntimeError) as error:
        return f"CTranslate2 cannot use {kind!r} ({error})"
    # It loads this library by name when it first multiplies, which is too late to choose another device; torch may bring
    # another version of it. Once loaded from the package's folder, it is found by its name.
    name = "libcublas.so.12"
    packages = importlib.util.find_spec("nvidia")
    places = list(packages.submodule_search_locations or []) if packages else []
    for candidate in [name, *(str(Path(place) / "cublas" / "lib" / name) for place in places)]:
        try:
            ctypes.CDLL(candidate, mode=ctypes.RTLD_GLOBAL)
            return ""
        except OSError:
            continue
    return f"CTranslate2 needs {name}, which was not found: `pip install nvidia-cublas-cu12`"


RECOGNISERS: dict[str, Callable[..., Any]] = {
    "faster-whisper": FasterWhisper,
    "transformers-whisper": TransformersWhisper,
    "hubert-ctc": HubertCTC,
    "paraformer": Paraformer,
}
