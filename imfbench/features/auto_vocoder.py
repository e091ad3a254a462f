"""The vocoder of whatever mel an experiment's networks make, so that one file serves networks of several formats."""

from __future__ import annotations

from typing import Any

import torch

from imfbench.features.mel import BIGVGAN, COSYVOICE2, HIFIGAN, VOCOS, MelFormat

VOCODER_OF = {HIFIGAN.name: "hifigan-auto", VOCOS.name: "vocos", BIGVGAN.name: "bigvgan", COSYVOICE2.name: "hift"}
"""Mel format → registered vocoder: the one that is published with the networks of this format."""


class AutoVocoder:
    """Stands for the vocoder of a format, which ``load`` returns.

    Args:
        mel: The format of the mels that it is given.
    """

    name = "auto"
    mel_format = None
    """It takes every format."""

    def __init__(self, *, mel: MelFormat = HIFIGAN) -> None:
        self._mel = mel
        self.sample_rate = mel.sample_rate

    @staticmethod
    def stands_for(mel: MelFormat) -> str:
        """The registered name of the vocoder of a format, by which tables call it."""
        return VOCODER_OF[mel.name]

    def load(self, device: torch.device | str = "cpu") -> Any:
        """The vocoder of the format, loaded on ``device``."""
        from imfbench.inputs import open_vocoder

        return open_vocoder(self.stands_for(self._mel), self._mel, device)
