"""BigVGAN v2 (Lee et al. 2023, arXiv 2206.04658), the vocoder of ``F5TTS_Base_bigvgan``, by the original network of the package
``bigvgan``.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import remove_weight_norm

from imfbench import published
from imfbench.backbones.originals import original
from imfbench.features.mel import BIGVGAN
from imfbench.published import Published
from imfbench.weights import DamagedModelError, MissingModelError, fill, load_tensors

EXTRA = "bigvgan"
CONFIG, WEIGHTS = "config.json", "bigvgan_generator.pt"
MODEL = Published(
    "bigvgan-v2-24khz-100band-256x", "the vocoder bigvgan", "nvidia/bigvgan_v2_24khz_100band_256x", (WEIGHTS,),
    ("bigvgan_v2_24khz_100band_256x", "nvidia/bigvgan_v2_24khz_100band_256x"), "MIT", 450_000_000, needed=(CONFIG,),
    module="bigvgan", extra=EXTRA,
)  # fmt: skip
MEL = {
    "sampling_rate": BIGVGAN.sample_rate,
    "num_mels": BIGVGAN.bands,
    "n_fft": BIGVGAN.window,
    "win_size": BIGVGAN.window,
    "hop_size": BIGVGAN.hop,
    "fmin": 0,
}
"""What a configuration must say for its mels to be those of ``bigvgan-24k``; its ``fmax`` is half the rate, or null for that."""


class BigVGAN:
    """The vocoder, in float32, its weight norm folded.

    Args:
        path: The folder of ``config.json`` and ``bigvgan_generator.pt`` (nvidia/bigvgan_v2_24khz_100band_256x); None looks where
            every published model is looked for (:mod:`imfbench.published`).
    """

    name = MODEL.name
    mel_format = BIGVGAN.name
    sample_rate = BIGVGAN.sample_rate

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._device = torch.device("cpu")
        self._network: nn.Module | None = None

    def load(self, device: torch.device | str = "cpu") -> BigVGAN:
        """Read the weights onto ``device``.

        Raises:
            imfbench.weights.MissingModelError: The folder, a file in it or the package is not there.
            imfbench.weights.DamagedModelError: The configuration is of other mels, or the weights are of another network.
        """
        folder = find(self._path)
        network = build(folder / CONFIG)
        fill(network, load_tensors(folder / WEIGHTS, "generator"), folder / WEIGHTS)
        for part in network.modules():
            if hasattr(part, "weight_g"):
                remove_weight_norm(part)
        self._device = torch.device(device)
        self._network = network.eval().requires_grad_(False).to(self._device)
        return self

    def __call__(self, mel: Tensor) -> np.ndarray:
        """Log-mel (frames, 100) → (frames · 256,) float32 in [-1, 1] at 24 kHz."""
        if self._network is None:
            self.load()
        assert self._network is not None
        with torch.inference_mode(), torch.autocast(self._device.type, enabled=False):
            audio = self._network(mel.T[None].float().to(self._device))
        found: np.ndarray = audio[0, 0].cpu().numpy()
        return found


def find(path: Path | None = None) -> Path:
    """The folder of configuration and weights.

    Raises:
        imfbench.weights.MissingModelError: It is not there, or lacks one of the two, or the package is not installed.
    """
    if path is None:
        return published.obtain(MODEL)
    published.require(MODEL)
    folder = Path(path).expanduser()
    if lacking := [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]:
        raise MissingModelError(
            f"{folder} lacks {' and '.join(lacking)} of the vocoder bigvgan: give the folder of both files of "
            f"{MODEL.repository}"
        )
    return folder


@cache
def _package() -> ModuleType:
    """The module of the network. What it takes from its ``utils`` is the width of a padding and an initialisation that no one
    sees; the rest of that module draws and reads training data.
    """

    def get_padding(kernel: int, dilation: int = 1) -> int:
        return dilation * (kernel - 1) // 2

    unused = {"bigvgan.utils": {"init_weights": lambda part: None, "get_padding": get_padding}}
    return original("bigvgan.bigvgan", extra=EXTRA, without=("bigvgan",), unused=unused)


def build(config: Path) -> nn.Module:
    """The original network of a configuration, its weights random.

    Raises:
        imfbench.weights.DamagedModelError: The configuration cannot be read, lacks a part, or is of other mels.
    """
    try:
        said: dict[str, Any] = json.loads(config.read_text(encoding="utf-8"))
        wrong = [f"{key} {said.get(key)}, not {wanted}" for key, wanted in MEL.items() if said.get(key) != wanted]
        if said.get("fmax") not in (None, BIGVGAN.highest):
            wrong.append(f"fmax {said['fmax']}, not {BIGVGAN.highest:g}")
    except (OSError, ValueError, AttributeError) as error:
        raise DamagedModelError(
            f"{config} is no configuration in JSON ({error}): fetch it again from {MODEL.repository}"
        ) from None
    if wrong:
        raise DamagedModelError(
            f"{config} is of a vocoder for other mels than {BIGVGAN}: {', '.join(wrong)}; give the files of {MODEL.repository}"
        )
    package = _package()
    try:
        network: nn.Module = package.BigVGAN(package.AttrDict(said))
    except (AttributeError, KeyError, NotImplementedError) as error:
        raise DamagedModelError(
            f"{config} describes no BigVGAN ({error}): fetch it again from {MODEL.repository}"
        ) from None
    return network
