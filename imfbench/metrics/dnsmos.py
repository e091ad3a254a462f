"""``dnsmos`` → ``mos_dnsmos``: DNSMOS P.835, overall quality, with speech and background beside it.

It was trained to rate noise suppressors: it hears noise well and hardly tells one clean voice from another, human or not. Use it
as a check for noise, not to rank systems.

Source: Reddy et al. 2022, arXiv 2110.01763; the networks of Microsoft's package ``speechmos`` (MIT), whose code is not run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from imfbench import weights
from imfbench.metrics.base import ScoreError, ScoreItem, clip
from imfbench.metrics.mos import SAMPLE_RATE, SHORTEST, PredictedMOS
from imfbench.metrics.signature import Signature

WINDOW = int(9.01 * SAMPLE_RATE)
"""Samples that the network hears at a time; a shorter recording is repeated until they are filled."""

FROM_NETWORK: dict[str, tuple[float, ...]] = {
    "mos_dnsmos_speech": (-0.08397278, 1.22083953, 0.0052439),
    "mos_dnsmos_background": (-0.13166888, 1.60915514, -0.39604546),
    "mos_dnsmos": (-0.06766283, 1.11546468, 0.04602535),
}
"""In the order of the network's outputs: the polynomial, highest power first, that makes an opinion score of each."""


class DNSMOS(PredictedMOS):
    """DNSMOS P.835: windows of 9.01 s every second, averaged."""

    name: ClassVar[str] = "dnsmos"
    columns: ClassVar[tuple[str, ...]] = tuple(FROM_NETWORK)
    reads: ClassVar[tuple[str, ...] | None] = ("audio",)
    summary_columns: ClassVar[tuple[str, ...]] = ("mos_dnsmos",)

    def _file(self) -> Path:
        return weights.find("dnsmos", self.config.path)

    @property
    def model_signature(self) -> Signature:
        """Predictor, sha256 of its weights, windows."""
        digest = weights.sha8(self._file())
        window = {"window": "9.01s", "fill": "repeat", "resample": self.config.resampler}
        return Signature("dnsmos", 1, predictor=f"dnsmos-p835@{digest}", **window)

    def open_model(self) -> Any:
        """An ONNX Runtime session on the CPU; the network is small."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads or torch.get_num_threads()
        options.inter_op_num_threads = 1
        return onnxruntime.InferenceSession(str(self._file()), options, ["CPUExecutionProvider"])

    def observe(self, item: ScoreItem) -> dict[str, Any]:
        """The three predicted scores."""
        audio = clip(item.audio, item.sample_rate, SAMPLE_RATE, resampler=self.config.resampler)
        if len(audio) < SHORTEST * SAMPLE_RATE:
            raise ScoreError(
                f"the audio lasts {len(audio) / SAMPLE_RATE:.2f} s; a MOS is predicted from {SHORTEST} s on"
            )
        while len(audio) < WINDOW:  # doubling, as its authors do: where the seams lie is part of the figure
            audio = np.concatenate([audio, audio])
        name = self.model.get_inputs()[0].name
        heard = [self.model.run(None, {name: part[None]})[0][0] for part in windows(audio)]
        scores = {
            column: float(np.mean([np.polyval(FROM_NETWORK[column], values[i]) for values in heard]))
            for i, column in enumerate(self.columns)
        }
        if not np.isfinite(list(scores.values())).all():
            raise ScoreError("the predicted MOS is not finite")
        return scores

    def row(self, item: ScoreItem, observation: Mapping[str, Any]) -> dict[str, Any]:
        """The predicted scores."""
        return {column: float(observation[column]) for column in self.columns}


def windows(audio: np.ndarray) -> list[np.ndarray]:
    """The windows of 9.01 s, one a second, as its authors count them.

    Their ends are rounded down from 9.01 s after a whole second, which leaves some a sample short (those that begin at 7 to 23
    s); such windows are left out there, and so they are here: it is part of the figure.
    """
    count = int(np.floor(len(audio) / SAMPLE_RATE) - 9.01) + 1
    found = [audio[second * SAMPLE_RATE : int((second + 9.01) * SAMPLE_RATE)] for second in range(count)]
    return [part.astype(np.float32) for part in found if len(part) == WINDOW]
