"""Mel-spectrogram formats: how audio becomes the natural-logarithm mel that a network makes and a vocoder takes.

A network and its vocoder agree on one format, or nothing that comes out is speech. The module's own constants and functions are
those of ``hifigan-22k``, the embedded networks' format.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
import torchaudio
from torch import Tensor

from imfbench.features.audio_check import AudioError
from imfbench.registry import nearest

FLOOR = 1e-5


@dataclass(frozen=True)
class MelFormat:
    """One way to make a log-mel; two formats of equal settings make equal mels.

    Attributes:
        name: In ``MEL_FORMATS``; what a network's and a vocoder's ``mel_format`` say.
        sample_rate: Of the audio, Hz.
        hop: Samples from one frame to the next.
        window: Samples of the Hann window and of the Fourier transform.
        bands: Mel bands.
        highest: Upper edge of the highest band, Hz; the lowest begins at 0.
        scale: Filters: ``slaney`` with area 1 (librosa's default), or ``htk`` with peak 1.
        centred: Whether frame k is centred at sample hop·k, or at hop·k + hop/2; the audio is mirrored at its ends as far as that
            needs.
        offset: Added to the power before its square root; 0 takes the modulus itself.
        mean: Subtracted in ``normalise``, one number for all bands: a distance between mels is then the same in both units.
        deviation: Divided by in ``normalise``.
    """

    name: str
    sample_rate: int
    hop: int
    window: int
    bands: int
    highest: float
    scale: Literal["slaney", "htk"]
    centred: bool
    offset: float
    mean: float
    deviation: float

    def __str__(self) -> str:
        return f"{self.name} ({self.sample_rate / 1000:g} kHz, {self.bands} bands, a frame every {self.hop} samples)"

    @property
    def seconds_per_frame(self) -> float:
        """From one frame to the next."""
        return self.hop / self.sample_rate

    @property
    def frames_per_second(self) -> float:
        """The inverse."""
        return self.sample_rate / self.hop

    @property
    def filters(self) -> Tensor:
        """The mel filters, (bands, window / 2 + 1)."""
        return _filters(self)

    @property
    def _margin(self) -> int:
        """Samples that are mirrored at either end."""
        return self.window // 2 if self.centred else (self.window - self.hop) // 2

    def log_mel(self, audio: Tensor) -> Tensor:
        """Logarithmic mel of ``audio``, (samples,), at the format's rate: (frames, bands), ``ln(max(mel, 1e-5))``.

        Raises:
            AudioError: The audio is shorter than a window's margin.
        """
        margin = self._margin
        if len(audio) <= margin:
            raise AudioError(
                f"audio of {1000 * len(audio) / self.sample_rate:.1f} ms is too short for a mel: give a longer recording"
            )
        padded = torch.nn.functional.pad(audio[None, None], (margin, margin), mode="reflect")[0]
        size = self.window
        spectrum = torch.stft(padded, size, self.hop, size, _window(size), center=False, return_complex=True)
        power = spectrum.real**2 + spectrum.imag**2 + self.offset
        magnitude = torch.sqrt(power) if self.offset else spectrum.abs()
        return torch.log(torch.clamp(self.filters @ magnitude[0], min=FLOOR)).T.contiguous()

    def normalise(self, mel: Tensor) -> Tensor:
        """Log-mel to the network's units."""
        return (mel - self.mean) / self.deviation

    def denormalise(self, mel: Tensor) -> Tensor:
        """The network's units to log-mel."""
        return mel * self.deviation + self.mean

    def frame_count(self, samples: int) -> int:
        """Frames of a mel of ``samples`` samples."""
        return (samples + 2 * self._margin - self.window) // self.hop + 1

    def centres(self, frames: int) -> Tensor:
        """When each of the first ``frames`` frames is centred, in seconds: (frames,), float64."""
        first = 0 if self.centred else self.hop // 2
        return (torch.arange(frames, dtype=torch.float64) * self.hop + first) / self.sample_rate


@lru_cache
def _filters(mel: MelFormat) -> Tensor:
    norm = "slaney" if mel.scale == "slaney" else None
    bank: Tensor = torchaudio.functional.melscale_fbanks(
        mel.window // 2 + 1, 0.0, mel.highest, mel.bands, mel.sample_rate, norm=norm, mel_scale=mel.scale
    )
    return bank.T.contiguous()


@lru_cache
def _window(size: int) -> Tensor:
    return torch.hann_window(size)


HIFIGAN = MelFormat("hifigan-22k", 22_050, 256, 1024, 80, 8000.0, "slaney", False, 1e-9, -6.3, 3.1)
"""Of the HiFi-GAN universal generator; mean and deviation over the embedded corpus."""
VOCOS = MelFormat("vocos-24k", 24_000, 256, 1024, 100, 12_000.0, "htk", True, 0.0, 0.0, 1.0)
"""Of F5-TTS and the Vocos vocoder (torchaudio's MelSpectrogram, power 1)."""
BIGVGAN = MelFormat("bigvgan-24k", 24_000, 256, 1024, 100, 12_000.0, "slaney", False, 1e-9, 0.0, 1.0)
"""Of F5-TTS's ``mel_spec_type: bigvgan`` and BigVGAN v2: as wide as Vocos's, with other filters and other frames, so that neither
vocoder can take the other's."""
COSYVOICE2 = MelFormat("cosyvoice2-24k", 24_000, 480, 1920, 80, 8000.0, "slaney", False, 1e-9, 0.0, 1.0)
"""Of CosyVoice 2's flow and HiFT."""
MEL_FORMATS = {mel.name: mel for mel in (HIFIGAN, VOCOS, BIGVGAN, COSYVOICE2)}


def mel_format(name: str) -> MelFormat:
    """A format by its name.

    Raises:
        ValueError: There is none of that name.
    """
    if name not in MEL_FORMATS:
        raise ValueError(f"unknown mel format {name!r}: {nearest(name, list(MEL_FORMATS))}")
    return MEL_FORMATS[name]


SAMPLE_RATE, HOP, WINDOW, BANDS = HIFIGAN.sample_rate, HIFIGAN.hop, HIFIGAN.window, HIFIGAN.bands
MEAN, DEVIATION = HIFIGAN.mean, HIFIGAN.deviation
log_mel, normalise, denormalise, frame_count = (
    HIFIGAN.log_mel, HIFIGAN.normalise, HIFIGAN.denormalise, HIFIGAN.frame_count,
)  # fmt: skip


def filters() -> Tensor:
    """The mel filters of ``hifigan-22k``, (bands, WINDOW / 2 + 1)."""
    return HIFIGAN.filters
