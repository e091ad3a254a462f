"""Vocos (Siuzdak 2023, arXiv 2306.00814), the vocoder of F5-TTS's checkpoints, by the original network of the package ``vocos``.

It takes the log-mel of ``vocos-24k``: 24 kHz, 100 bands, a frame every 256 samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from imfbench import published
from imfbench.backbones.originals import original
from imfbench.features.mel import VOCOS
from imfbench.published import Published
from imfbench.weights import DamagedModelError, MissingModelError, fill, load_tensors

EXTRA = "f5"
CONFIG, WEIGHTS = "config.yaml", "pytorch_model.bin"
MODEL = Published(
    "vocos-mel-24khz", "the vocoder vocos", "charactr/vocos-mel-24khz", (WEIGHTS,),
    ("vocos-mel-24khz", "charactr/vocos-mel-24khz", "vocos"), "MIT", 54_400_000, needed=(CONFIG,), module="vocos", extra=EXTRA,
)  # fmt: skip
CLASSES = {
    "feature_extractor": "vocos.feature_extractors.MelSpectrogramFeatures",
    "backbone": "vocos.models.VocosBackbone",
    "head": "vocos.heads.ISTFTHead",
}
"""The parts of a Vocos of mels. A configuration names classes, which are imported: no others are."""
MEL = {
    ("feature_extractor", "sample_rate"): VOCOS.sample_rate,
    ("feature_extractor", "n_fft"): VOCOS.window,
    ("feature_extractor", "hop_length"): VOCOS.hop,
    ("feature_extractor", "n_mels"): VOCOS.bands,
    ("feature_extractor", "padding"): "center",
    ("backbone", "input_channels"): VOCOS.bands,
    ("head", "n_fft"): VOCOS.window,
    ("head", "hop_length"): VOCOS.hop,
    ("head", "padding"): "center",
}
"""What a configuration must say for its mels to be those of ``vocos-24k``; for its features these are the original's defaults."""


class Vocos:
    """The vocoder, in float32.

    Args:
        path: The folder of ``config.yaml`` and ``pytorch_model.bin`` (charactr/vocos-mel-24khz); None looks where every published
            model is looked for (:mod:`imfbench.published`): ``IMFBENCH_VOCOS_MEL_24KHZ``, the folder of models, the hub.
    """

    name = MODEL.name
    mel_format = VOCOS.name
    sample_rate = VOCOS.sample_rate

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._device = torch.device("cpu")
        self._network: Any = None

    def load(self, device: torch.device | str = "cpu") -> Vocos:
        """Read the weights onto ``device``.

        Raises:
            imfbench.weights.MissingModelError: The folder, a file in it or the package is not there.
            imfbench.weights.DamagedModelError: The configuration is of another vocoder, or the weights are of another network.
        """
        folder = find(self._path)
        network = build(folder / CONFIG)
        fill(network, load_tensors(folder / WEIGHTS), folder / WEIGHTS)
        self._device = torch.device(device)
        self._network = network.eval().requires_grad_(False).to(self._device)
        return self

    def __call__(self, mel: Tensor) -> np.ndarray:
        """Log-mel (frames, 100) → ((frames − 1) · 256,) float32 at 24 kHz: from the first frame's centre to the last one's."""
        if self._network is None:
            self.load()
        with torch.autocast(self._device.type, enabled=False):
            audio = self._network.decode(mel.T[None].float().to(self._device))
        found: np.ndarray = audio[0].cpu().numpy()
        return found


def find(path: Path | None = None) -> Path:
    """The folder of configuration and weights.

    Raises:
        imfbench.weights.MissingModelError: It is not there, or lacks one of the two, or the package ``vocos`` is not installed.
    """
    if path is None:
        return published.obtain(MODEL)
    published.require(MODEL)
    folder = Path(path).expanduser()
    if lacking := [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]:
        raise MissingModelError(
            f"{folder} lacks {' and '.join(lacking)} of the vocoder vocos: give the folder of both files of {MODEL.repository}"
        )
    return folder


def build(config: Path) -> nn.Module:
    """The original network of a configuration, its weights random.

    Raises:
        imfbench.weights.DamagedModelError: The configuration cannot be read, names other classes than a Vocos of mels has, or
            another mel than ``vocos-24k``.
    """
    try:
        held = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DamagedModelError(
            f"{config} cannot be read as YAML ({type(error).__name__}): fetch it again from {MODEL.repository}"
        ) from None
    parts = held if isinstance(held, Mapping) else {}
    for part, wanted in CLASSES.items():
        about = parts.get(part)
        if not isinstance(about, Mapping) or about.get("class_path") != wanted:
            named = about.get("class_path") if isinstance(about, Mapping) else None
            raise DamagedModelError(
                f"{config} is not of a Vocos of mels: its {part} is {named}, not {wanted}; give the files of {MODEL.repository}"
            )
    for (part, key), value in MEL.items():
        said = parts[part].get("init_args") or {}
        found = said.get(key, value if part == "feature_extractor" else None)
        if found != value:
            raise DamagedModelError(
                f"{config} is of a vocoder for other mels than {VOCOS}: its {part} has {key} {found}, not {value}; give the "
                f"files of {MODEL.repository}"
            )
    vocos = original("vocos.pretrained", extra=EXTRA, unused={"encodec": {"EncodecModel": None}}).Vocos
    network: nn.Module = vocos.from_hparams(str(config))
    return network
