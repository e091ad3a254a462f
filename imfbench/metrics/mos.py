"""Predicted mean opinion scores, 1 to 5. The predictor's name is part of the column's name: figures of two never mix.

- ``mos`` → ``mos_distillmos``: DistillMOS (Stahl & Gamper 2025, arXiv 2502.05356), whose weights come in its package.
  It fills up to 7.68 s with zeros, so compare systems on the same texts only; human speech is not its ceiling.
- ``utmos`` → ``mos_utmos``: UTMOS22 strong (Saeki et al. 2022, arXiv 2204.02152) by ``utmos-pytorch``, with weights
  from a path or the hub.
- ``dnsmos`` → ``mos_dnsmos``: DNSMOS P.835 (``dnsmos.py``).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from imfbench import published, weights
from imfbench.features.audio import RESAMPLER
from imfbench.metrics.base import Metric, MetricConfig, ScoreError, ScoreItem, at_rate, clip
from imfbench.metrics.resamplers import ResamplerName
from imfbench.metrics.signature import Signature

SAMPLE_RATE = 16000
SHORTEST = 0.4
"""Seconds below which no opinion is predicted; such audio is a failed row."""


class PredictedMOS(Metric):
    """Shared by the predictors: 16 kHz audio → one number in the predictor's own column."""

    class Config(MetricConfig):
        """Settings of a MOS predictor."""

        path: Path | None = None
        """The user's own file of weights; wins over the package and the hub."""
        resampler: ResamplerName = RESAMPLER
        """A key of ``RESAMPLERS``: how audio gets to 16 kHz."""

    def prepare(self, item: ScoreItem) -> ScoreItem:
        """At the model's rate."""
        return at_rate(item, SAMPLE_RATE, self.config.resampler)

    def observe(self, item: ScoreItem) -> dict[str, Any]:
        """The predicted score."""
        audio = clip(item.audio, item.sample_rate, SAMPLE_RATE, resampler=self.config.resampler)
        if len(audio) < SHORTEST * SAMPLE_RATE:
            raise ScoreError(
                f"the audio lasts {len(audio) / SAMPLE_RATE:.2f} s; a MOS is predicted from {SHORTEST} s on"
            )
        with torch.inference_mode():
            score = float(self.model(torch.from_numpy(audio)[None].to(self.device)).reshape(-1)[0])
        if not np.isfinite(score):
            raise ScoreError("the predicted MOS is not finite")
        return {self.columns[0]: score}

    def row(self, item: ScoreItem, observation: Mapping[str, Any]) -> dict[str, Any]:
        """The predicted score."""
        return {self.columns[0]: float(observation[self.columns[0]])}


class DistillMOS(PredictedMOS):
    """DistillMOS: a small convolutional transformer that learnt from a large wav2vec 2.0 predictor."""

    name: ClassVar[str] = "mos"
    columns: ClassVar[tuple[str, ...]] = ("mos_distillmos",)
    reads: ClassVar[tuple[str, ...] | None] = ("audio",)
    summary_columns: ClassVar[tuple[str, ...]] = ("mos_distillmos",)

    @property
    def model_signature(self) -> Signature:
        """Predictor, sha256 of its weights, padding."""
        file = weights.find("distillmos", self.config.path)
        return Signature(
            "mos", 1, predictor=f"distillmos@{weights.sha8(file)}", pad="7.68s", resample=self.config.resampler
        )

    def open_model(self) -> Any:
        """Build the package's network and load the verified weights into it."""
        file = weights.find("distillmos", self.config.path)
        for package in ("distillmos", "xls_r_sqa"):  # code, which is needed whatever the weights' path
            if importlib.util.find_spec(package) is None:
                raise weights.MissingModelError(f"metric mos needs the package {package}: `{weights.REQUIREMENTS}`")
        from distillmos import ConvTransformerSQAModel

        network = ConvTransformerSQAModel(load_weights=False)
        weights.fill(network, weights.load_tensors(file, "model"), file)
        return network.eval().to(self.device)


class UTMOS(PredictedMOS):
    """UTMOS22's strong learner, the predictor of most published tables."""

    name: ClassVar[str] = "utmos"
    columns: ClassVar[tuple[str, ...]] = ("mos_utmos",)
    reads: ClassVar[tuple[str, ...] | None] = ("audio",)
    summary_columns: ClassVar[tuple[str, ...]] = ("mos_utmos",)

    def _file(self) -> Path:
        if self.config.path is not None:
            return weights.find("utmos", self.config.path)
        return published.obtain(published.PUBLISHED["utmos22-strong"])

    @staticmethod
    def _require() -> None:
        if importlib.util.find_spec("utmos_pytorch") is None:
            raise weights.MissingModelError("metric utmos needs a package: `pip install imfbench[utmos]`")

    @property
    def model_signature(self) -> Signature:
        """Predictor, sha256 of its weights, the code that runs it."""
        digest = weights.sha8(self._file())
        parts = {"predictor": f"utmos22-strong@{digest}", "code": "utmos-pytorch", "resample": self.config.resampler}
        return Signature("utmos", 1, **parts)

    def open_model(self) -> Any:
        """Load the weights into the package's network, after checking that the file holds them."""
        self._require()
        from utmos_pytorch import UTMOSScoreTorch
        from utmos_pytorch.utmos_torch import UTMOSModel

        # The package loads whatever it is given and leaves the rest random, which would score like a real predictor.
        file = self._file()
        with torch.device("meta"):
            expected = set(UTMOSModel().state_dict())
        held = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        # Its network has nothing that only training uses, so that every one of its tensors takes part in the score.
        if missing := expected - set(held):
            raise weights.DamagedModelError(
                f"{file} is no file of UTMOS weights: it lacks {len(missing)} of {len(expected)} tensors, "
                f"such as {min(missing)!r}; expected utmos_state_dict.pt of utmos-pytorch"
            )
        return UTMOSScoreTorch(str(file), device=self.device).eval()
