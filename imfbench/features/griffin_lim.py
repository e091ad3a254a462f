"""Griffin-Lim, for a machine without the vocoder's weights: no model, lower quality, named in every row."""

from __future__ import annotations

import numpy as np
import torch
import torchaudio
from torch import Tensor

from imfbench.features.mel import HIFIGAN, MelFormat


class GriffinLim:
    """Magnitudes by a non-negative inverse of the mel filters, phases by 32 fast Griffin-Lim iterations.

    Args:
        iterations: Of the phases.
        mel: The format of the mels that it is given.
    """

    name = "griffin-lim-32"
    mel_format = None
    """It takes every format."""

    def __init__(self, iterations: int = 32, *, mel: MelFormat = HIFIGAN) -> None:
        self._iterations, self._mel = iterations, mel
        self.sample_rate = mel.sample_rate

    def load(self, device: torch.device | str = "cpu") -> GriffinLim:
        """There is nothing to load; for the vocoders' common shape."""
        return self

    def __call__(self, mel: Tensor) -> np.ndarray:
        """Log-mel (frames, bands) → (frames · hop,) float32 at the format's rate."""
        window, hop = self._mel.window, self._mel.hop
        bank, target = self._mel.filters, mel.T.float().cpu().exp()
        magnitude = torch.linalg.pinv(bank) @ target
        magnitude = magnitude.clamp(min=1e-6)
        for _ in range(30):  # multiplicative updates (Lee and Seung 2001) keep the magnitudes positive
            magnitude = magnitude * (bank.T @ target) / (bank.T @ (bank @ magnitude)).clamp(min=1e-9)
        with torch.random.fork_rng():
            torch.manual_seed(0)  # the starting phases are random
            invert = torchaudio.transforms.GriffinLim(window, self._iterations, window, hop, power=1.0)
            audio = invert(magnitude)
        wanted = mel.shape[0] * hop
        found = torch.nn.functional.pad(audio, (0, max(0, wanted - len(audio))))[:wanted]
        return found.numpy().astype(np.float32)
