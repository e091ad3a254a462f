"""HiFT, CosyVoice 2's vocoder (HiFTNet: Li et al. 2023, arXiv 2309.09493), by the original network and its ``hift.pt``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from imfbench.backbones.originals import original
from imfbench.features.cosyvoice_files import HIFT, find
from imfbench.features.mel import COSYVOICE2
from imfbench.flow.derivative import same_randomness
from imfbench.weights import DamagedModelError, fill, load_tensors

EXTRA = "cosyvoice"
SEED = 0
"""Of the noise and the phases of the source signal, the same for every utterance: one mel gives one waveform."""
KEPT = 8
"""Frames of a piece that are made again with the next one: ``mel_cache_len`` of ``CosyVoice2Model``."""
SHAPE: dict[str, Any] = {
    "in_channels": 80, "base_channels": 512, "nb_harmonics": 8, "sampling_rate": 24_000, "nsf_alpha": 0.1, "nsf_sigma": 0.003,
    "nsf_voiced_threshold": 10, "upsample_rates": [8, 5, 3], "upsample_kernel_sizes": [16, 11, 7],
    "istft_params": {"n_fft": 16, "hop_len": 4}, "resblock_kernel_sizes": [3, 7, 11],
    "resblock_dilation_sizes": [[1, 3, 5]] * 3, "source_resblock_kernel_sizes": [7, 7, 11],
    "source_resblock_dilation_sizes": [[1, 3, 5]] * 3, "lrelu_slope": 0.1, "audio_limit": 0.99,
}  # fmt: skip
"""``cosyvoice2.yaml``."""
_PREFIXES = ("generator.", "mel2wav.")
"""Of the names in a checkpoint of its training, and in Chatterbox's file."""


def generator() -> nn.Module:
    """The original network, its weights random."""
    predictor = original("cosyvoice.hifigan.f0_predictor", extra=EXTRA).ConvRNNF0Predictor(
        num_class=1, in_channels=COSYVOICE2.bands, cond_channels=512
    )
    found: nn.Module = original("cosyvoice.hifigan.generator", extra=EXTRA).HiFTGenerator(
        **SHAPE, f0_predictor=predictor
    )
    return found


class HiFT:
    """The vocoder, in float32, for log-mels of ``cosyvoice2-24k``.

    Its source signal has random phases and noise: they are drawn from a fixed seed, and torch's random state is left as it was.

    Args:
        path: ``hift.pt``, the folder that holds it (CosyVoice2-0.5B), or Chatterbox's ``s3gen.safetensors``, which holds a
            HiFT as well; None: see ``cosyvoice_files``.
    """

    name = "hift-cosyvoice2"
    mel_format = COSYVOICE2.name
    sample_rate = COSYVOICE2.sample_rate

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._device = torch.device("cpu")
        self._generator: Any = None

    def load(self, device: torch.device | str = "cpu") -> HiFT:
        """Read the weights onto ``device``.

        Raises:
            MissingModelError: The file is not there.
            MissingPackageError: The original's package is not installed.
            DamagedModelError: The file cannot be read, or holds another network.
        """
        path = find(HIFT, self._path)
        network = generator()
        fill(network, weights_of(path), path)
        self._device = torch.device(device)
        self._generator = network.eval().requires_grad_(False).to(self._device)
        return self

    def __call__(self, mel: Tensor) -> np.ndarray:
        """Log-mel (frames, 80) → (frames · 480,) float32 in [-0.99, 0.99] at 24 kHz."""
        return self._spoken(mel, torch.zeros(1, 1, 0))[0]

    def stream(self, mels: Iterable[Tensor]) -> Iterator[np.ndarray]:
        """Audio of one utterance whose mel comes in pieces, each as soon as its own is there but for the last 160 ms.

        These are kept back, faded into the beginning of what follows, which is made of the last 8 frames anew and goes on with
        their source signal; at the end they come alone. Source: ``CosyVoice2Model.token2wav``, of the same audio in all.

        Args:
            mels: Log-mels, (frames, 80) each, one after the other.

        Yields:
            (samples,) float32 at 24 kHz; all together as long as all mels: frames · 480.
        """
        seen, source, held = torch.zeros(0, COSYVOICE2.bands), torch.zeros(1, 1, 0), np.zeros(0, np.float32)
        for piece in mels:
            if not len(piece):
                continue
            mel = torch.cat([seen, piece.float().cpu()])
            audio, source = self._spoken(mel, source)
            both = len(held)
            window = np.hamming(2 * both)
            audio[:both] = audio[:both] * window[:both] + held * window[both:]
            cut = max(len(audio) - KEPT * COSYVOICE2.hop, 0)
            seen, source, held = mel[-KEPT:], source[:, :, cut:], audio[cut:]
            yield audio[:cut]
        if len(held):
            yield held

    def _spoken(self, mel: Tensor, source: Tensor) -> tuple[np.ndarray, Tensor]:
        """Audio, (frames · 480,), and its source signal, (1, 1, frames · 480), which begins with ``source``."""
        if self._generator is None:
            self.load()
        with same_randomness(self._device), torch.autocast(self._device.type, enabled=False), torch.inference_mode():
            torch.manual_seed(SEED)
            audio, made = self._generator.inference(
                speech_feat=mel.T[None].float().to(self._device), cache_source=source.to(self._device)
            )
        found: np.ndarray = audio[0].float().cpu().numpy()
        return found, made


def weights_of(path: Path) -> dict[str, Tensor]:
    """The vocoder's tensors in a file, by the network's names.

    Raises:
        DamagedModelError: It cannot be read.
    """
    try:
        held: dict[str, Tensor] = load_file(path) if path.suffix == ".safetensors" else load_tensors(path)
    except SafetensorError as error:
        raise DamagedModelError(
            f"{path} is not a safetensors file that can be read ({error}): fetch it again"
        ) from None
    if not isinstance(held, dict):
        raise DamagedModelError(
            f"{path} holds a {type(held).__name__}, not named tensors: give the hift.pt of CosyVoice2-0.5B"
        )
    for prefix in _PREFIXES:
        inside = {name.removeprefix(prefix): value for name, value in held.items() if name.startswith(prefix)}
        held = inside or held
    # Older files have the names of torch's weight norm before it was a parametrisation.
    return {
        name.replace("weight_g", "parametrizations.weight.original0").replace(
            "weight_v", "parametrizations.weight.original1"
        ): value
        for name, value in held.items()
    }
