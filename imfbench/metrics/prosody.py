"""Variation of pitch: a loss of prosodic diversity is invisible to WER, SIM and MOS.

F0 by SwiftF0 (Nieradzik 2025, arXiv 2508.18440; MIT; package ``swift-f0``, a network of 14,000 weights run by ONNX
Runtime, which is a dependency anyway). Looked at and left: pyworld (no wheels: needs a C++ compiler), Praat's
parselmouth (GPL), librosa's pYIN (numba and LLVM for one function), penn (weights from a hub), torchaudio's detector
(no voicing decision).
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from imfbench.features.audio import RESAMPLER
from imfbench.metrics.base import Metric, MetricConfig, ScoreError, ScoreItem, at_rate, clip
from imfbench.metrics.signature import Signature

SAMPLE_RATE = 16000
FRAME = 0.016
"""Seconds between two estimates."""


class PitchVariation(Metric):
    """Coefficient of variation of F0 over the voiced frames of an utterance: standard deviation over mean.

    A frame is voiced if the network says so (confidence ≥ .5), if it stands in a run of at least ``shortest_run`` such
    frames, and if it lies within ``octaves`` of the utterance's median: what lies beyond is an octave error far more
    often than a voice. An utterance with less than ``shortest_voiced`` seconds of voice is a failed row.
    """

    class Config(MetricConfig):
        """Settings of ``f0cv``."""

        lowest: float = Field(50.0, ge=47.0, le=200.0)
        """Hz; pitches below are unvoiced."""
        highest: float = Field(600.0, ge=300.0, le=2000.0)
        """Hz; pitches above are unvoiced."""
        shortest_run: int = Field(3, ge=1)
        """Frames of 16 ms."""
        octaves: float = Field(1.0, gt=0)
        """Distance from the median beyond which a frame is not counted."""
        shortest_voiced: float = Field(0.2, gt=0)
        """Seconds of voice below which nothing is said."""

    name: ClassVar[str] = "f0cv"
    columns: ClassVar[tuple[str, ...]] = ("f0cv", "f0_mean", "voiced_share")
    reads: ClassVar[tuple[str, ...] | None] = ("audio",)
    summary_columns: ClassVar[tuple[str, ...]] = ("f0cv",)
    higher_is_better: ClassVar[bool | None] = None

    @property
    def model_signature(self) -> Signature:
        """Tracker and range."""
        version = importlib.metadata.version("swift-f0")
        return Signature(
            "f0cv",
            1,
            f0=f"swift-f0@{version}",
            range=f"{self.config.lowest:g}-{self.config.highest:g}Hz",
            peak=0.5,
            resample=RESAMPLER,
        )

    @property
    def signature(self) -> Signature:
        """Tracker, range, and what counts as voiced."""
        voiced = f"0.5,run{self.config.shortest_run},octaves{self.config.octaves:g},min{self.config.shortest_voiced:g}s"
        return Signature("f0cv", 1, **self.model_signature.parts, voiced=voiced)

    def open_model(self) -> Any:
        """Open the network's session."""
        import torch
        from swift_f0 import SwiftF0

        return SwiftF0(threads=self.threads or torch.get_num_threads(), spin=False)

    def prepare(self, item: ScoreItem) -> ScoreItem:
        """At the model's rate."""
        return at_rate(item, SAMPLE_RATE)

    def observe(self, item: ScoreItem) -> dict[str, Any]:
        """F0 in Hz of each frame of 16 ms, 0 where the network says unvoiced."""
        audio = clip(item.audio, item.sample_rate, SAMPLE_RATE)
        peak = float(np.abs(audio).max())
        if peak < 1e-4:
            raise ScoreError("the audio is silent, so it has no pitch")
        # The network does not normalise its input's level.
        found = self.model.detect(audio * np.float32(0.5 / peak), SAMPLE_RATE, self.config.lowest, self.config.highest)
        return {"f0": [round(float(hertz), 2) for hertz in np.where(found.confidence >= 0.5, found.pitch_hz, 0.0)]}

    def row(self, item: ScoreItem, observation: Mapping[str, Any]) -> dict[str, Any]:
        """Coefficient of variation, mean in Hz, share of the frames that are voiced."""
        f0 = np.asarray(observation["f0"], dtype=np.float64)
        voiced = voiced_frames(f0, self.config.shortest_run, self.config.octaves)
        seconds = voiced.sum() * FRAME
        if seconds < self.config.shortest_voiced:
            raise ScoreError(f"only {seconds:.2f} s of voice were found; F0 needs {self.config.shortest_voiced} s")
        pitch = f0[voiced]
        return {
            "f0cv": float(pitch.std() / pitch.mean()),
            "f0_mean": float(pitch.mean()),
            "voiced_share": float(voiced.mean()),
        }


def voiced_frames(f0: np.ndarray, shortest_run: int, octaves: float) -> np.ndarray:
    """Which frames of ``f0`` (0 is unvoiced) stand in long enough runs and near enough to the median, bool."""
    voiced = f0 > 0
    edges = np.flatnonzero(np.diff(np.concatenate([[False], voiced, [False]])))
    for start, stop in edges.reshape(-1, 2):
        if stop - start < shortest_run:
            voiced[start:stop] = False
    if voiced.any():
        near = np.abs(np.log2(np.where(voiced, f0, 1.0) / np.median(f0[voiced]))) <= octaves
        voiced &= near
    return voiced
