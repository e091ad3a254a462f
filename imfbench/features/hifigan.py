"""HiFi-GAN V1 "universal" (Kong et al. 2020, arXiv 2010.05646), 22.05 kHz, from its data package."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from imfbench.devices import has_amx
from imfbench.features.mel import BANDS, HOP, SAMPLE_RATE
from imfbench.weights import fill, find, load_tensors

UPSAMPLING = [(8, 16), (8, 16), (2, 4), (2, 4)]  # (rate, kernel)
KERNELS = (3, 7, 11)
DILATIONS = (1, 3, 5)
CHANNELS = 512
SLOPE = 0.1
FRAMES = 32
"""Lengths of the bf16 network, and of windows, are multiples of this: for each new one kernels are made, which takes seconds."""
WINDOW = 512
"""What is longer, in frames, goes through the network in windows of at most this on a CPU, where the kernels of each length stay
in memory, .8 MB for a frame: utterances of 20 s, each of a length of its own, took a process to 12 GB."""
REACH = 14
"""Frames on either side that a frame's audio depends on (13.3 by the kernels' sizes; of a real mel 12.6 could be seen)."""
RECENT = 8
"""Mels after which the kernels of a length are made anew, to be sure: the library keeps 1024 of all networks, this one has 56 for
each length."""


def convolution(inputs: int, outputs: int, kernel: int, dilation: int = 1) -> nn.Module:
    """A convolution over time of (batch, inputs, 1, time) that keeps the time's length.

    In two dimensions, since torch has a memory format with the channels last for those alone: a fifth to a quarter less time on
    a CPU.
    """
    padding = dilation * (kernel - 1) // 2
    return weight_norm(nn.Conv2d(inputs, outputs, (1, kernel), dilation=(1, dilation), padding=(0, padding)))


def number_type(part: nn.Module) -> torch.dtype:
    """That of a part's weights, in which it computes."""
    return next(part.parameters()).dtype


def windows(frames: int) -> list[tuple[int, int, int, int]]:
    """Windows of one length that cover so many frames, each frame away from the cuts of one of them by ``REACH`` at least.

    Args:
        frames: More than ``WINDOW``.

    Returns:
        Of each window its first frame and the one behind its last, and, counted from its first, those of its audio that is kept.
    """
    count = -(-(frames - 2 * REACH) // (WINDOW - 2 * REACH))
    length = -(-(frames + 2 * REACH * (count - 1)) // count)
    length += -length % FRAMES
    starts = [i * (frames - length) // (count - 1) for i in range(count)]
    cuts = [0, *((start + before + length) // 2 for before, start in pairwise(starts)), frames]
    return [
        (start, start + length, first - start, last - start)
        for start, (first, last) in zip(starts, pairwise(cuts), strict=True)
    ]


class ResidualBlock(nn.Module):
    """Three pairs of a dilated and a plain convolution, each pair residual."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(convolution(channels, channels, kernel, d) for d in DILATIONS)
        self.convs2 = nn.ModuleList(convolution(channels, channels, kernel) for _ in DILATIONS)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, 1, time) → the same shape."""
        for dilated, plain in zip(self.convs1, self.convs2, strict=True):
            x = plain(F.leaky_relu_(dilated(F.leaky_relu(x, SLOPE)), SLOPE)).add_(x)
        return x


class Generator(nn.Module):
    """Mel (batch, 80, frames) → waveform (batch, 1, frames · 256). Attribute names are the checkpoint's.

    Half of its time is memory, not arithmetic: what is new is changed in place, which saves a fifth on a CPU. Each part computes
    in the number type of its weights.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv_pre = convolution(BANDS, CHANNELS, 7)
        self.ups = nn.ModuleList()
        self.resblocks = nn.ModuleList()
        channels = CHANNELS
        for rate, kernel in UPSAMPLING:
            around = (0, (kernel - rate) // 2)
            self.ups.append(weight_norm(nn.ConvTranspose2d(channels, channels // 2, (1, kernel), (1, rate), around)))
            channels //= 2
            self.resblocks.extend(ResidualBlock(channels, size) for size in KERNELS)
        self.conv_post = convolution(channels, 1, 7)

    def forward(self, mel: Tensor) -> Tensor:
        """The waveform in [-1, 1]."""
        x = self.conv_pre(mel[:, :, None].contiguous(memory_format=torch.channels_last))
        for i, up in enumerate(self.ups):
            x = up(F.leaky_relu_(x.to(number_type(up)), SLOPE))
            first, *others = self.resblocks[i * len(KERNELS) : (i + 1) * len(KERNELS)]
            x = x.to(number_type(first))
            total = first(x)
            for block in others:
                total.add_(block(x))
            x = total.div_(len(KERNELS))
        found: Tensor = torch.tanh(self.conv_post(F.leaky_relu(x.float())))
        return found[:, :, 0]


class HiFiGAN:
    """The vocoder, in float32.

    Args:
        path: A checkpoint of the universal V1 generator; None takes the data package's.
    """

    name = "hifigan-universal-v1"
    _multiple = 1  # to which a mel in one piece is filled up by holding its last frame
    mel_format = "hifigan-22k"
    sample_rate = SAMPLE_RATE

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._device = torch.device("cpu")
        self._generator: Generator | None = None
        self._vocoded = 0
        self._prepared: dict[int, int] = {}  # length → mels that had been vocoded then

    def load(self, device: torch.device | str = "cpu") -> HiFiGAN:
        """Read the weights (verified) onto ``device`` and fold their weight norm."""
        generator = Generator()
        path = find("hifigan", self._path)
        state = load_tensors(path, "generator")
        # The checkpoint has the names of torch's old weight norm, and one dimension: (outputs, inputs, kernel).
        renamed = {
            key.replace("weight_g", "parametrizations.weight.original0").replace(
                "weight_v", "parametrizations.weight.original1"
            ): value[:, :, None] if "weight" in key else value
            for key, value in state.items()
        }
        fill(generator, renamed, path)
        for module in generator.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.utils.parametrize.remove_parametrizations(module, "weight")
        self._device = torch.device(device)
        generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._generator = generator.eval().requires_grad_(False).to(self._device)
        return self

    def prepare(self, frames: int) -> None:
        """Have the kernels for a mel of so many frames made, which the first one of a length else pays for, by up to seconds.

        Only on a CPU, and where lengths are few: else it would be a pass more for each mel. Float32's kernels take a tenth to a
        fifth of a pass.
        """
        if self._device.type != "cpu" or not (self._multiple > 1 or self._windowed(frames)):
            return
        length = windows(frames)[0][1] if self._windowed(frames) else self._length(frames)
        if self._vocoded - self._prepared.get(length, -RECENT) >= RECENT:
            self._passed(torch.zeros(length, BANDS))
        self._prepared[length] = self._vocoded

    def __call__(self, mel: Tensor) -> np.ndarray:
        """Log-mel (frames, bands) → (frames · 256,) float32 in [-1, 1] at 22.05 kHz."""
        self._vocoded += 1
        if self._windowed(len(mel)):
            pieces = [
                self._passed(mel[start:end])[first * HOP : last * HOP] for start, end, first, last in windows(len(mel))
            ]
            return np.concatenate(pieces)
        lacking = self._length(len(mel)) - len(mel)
        held = torch.cat([mel, mel[-1:].expand(lacking, -1)]) if lacking else mel
        return self._passed(held)[: len(mel) * HOP]

    def _length(self, frames: int) -> int:
        return frames + -frames % self._multiple

    def _windowed(self, frames: int) -> bool:
        return frames > WINDOW and self._device.type == "cpu"

    def _passed(self, mel: Tensor) -> np.ndarray:
        if self._generator is None:
            self.load()
        assert self._generator is not None
        with torch.inference_mode(), torch.autocast(self._device.type, enabled=False):
            audio = self._generator(mel.T[None].float().to(self._device))[0, 0]
        found: np.ndarray = audio.cpu().numpy()
        return found


class MixedHiFiGAN(HiFiGAN):
    """The vocoder with most of its arithmetic in bf16: half the time of float32 on a CPU with AMX, slower on one without.

    What comes first decides the phases of all that follows and stays in float32: the waveform keeps 41 dB or more above its
    difference from the float32 one (29 dB with every stage in bf16, 20 dB with the mel as well).
    """

    name = "hifigan-universal-v1-bf16"
    _multiple = FRAMES

    def load(self, device: torch.device | str = "cpu") -> MixedHiFiGAN:
        """As in float32; then the residual blocks behind the first upsampling but one, and its last two, become bf16."""
        super().load(device)
        assert self._generator is not None
        for part in (*self._generator.ups[2:], *self._generator.resblocks[len(KERNELS) :]):
            part.to(torch.bfloat16)
        return self


def fastest() -> type[HiFiGAN]:
    """The faster of the two on this machine: bf16 on a CPU with AMX, float32 on others and where there is an accelerator.

    Rows are named by what ran, so that those of two machines are told apart.
    """
    return MixedHiFiGAN if has_amx() and not torch.accelerator.is_available() else HiFiGAN


FastestHiFiGAN = fastest()
