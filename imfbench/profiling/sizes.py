"""Sizes that are profiled: shapes of networks by name, and batches without padding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from pydantic import ValidationError

from imfbench.backbones.dit import DiTConfig
from imfbench.config_file import ConfigError
from imfbench.method import Batch, Condition
from imfbench.registry import BACKBONES, nearest

BACKBONE = "dit"
MOST = 10**8
"""Frames of a batch up to which masks, which are real in an estimate too, do no harm."""


@dataclass(frozen=True)
class Shape:
    """A network's shape: what it stands for, and the settings of a backbone, ``dit`` or another."""

    about: str
    config: dict[str, Any]
    backbone: str = BACKBONE


SHAPES: dict[str, Shape] = {
    "embedded": Shape("the embedded teacher's network for token2mel", {}),
    "f5-base": Shape(
        "our DiT at the size of F5-TTS Base (dim 1024, depth 22, heads 16, 100 bands); its blocks share one modulation, so "
        "it has fewer weights",
        {
            "dim": 1024, "depth": 22, "heads": 16, "feed_forward": 2, "bands": 100, "patch": 1, "tokens": 2546,
            "content_layers": 4,
        },
    ),
    "cosyvoice2": Shape(
        "our DiT at about the size of CosyVoice 2's flow decoder (dim 256 and 56 transformer blocks: 14 groups of 4); a "
        "transformer all through where theirs has convolutions between, and heads of 32 channels where theirs have 64",
        {"dim": 256, "depth": 56, "heads": 8, "feed_forward": 4, "bands": 80, "patch": 1, "tokens": 6562},
    ),
    "f5tts": Shape("F5TTS_v1_Base itself, by the network of the package f5-tts", {}, "f5tts"),
    "cosyvoice2-flow": Shape("CosyVoice 2's flow itself, by the network of the package cosyvoice2-eu", {}, "cosyvoice2"),
}  # fmt: skip
"""Sizes from F5TTS_Base.yaml (SWivid/F5-TTS) and cosyvoice2.yaml (FunAudioLLM/CosyVoice)."""


@dataclass(frozen=True)
class Size:
    """What is profiled.

    Attributes:
        frames: Mel frames of each row; the first third is the prompt.
        batch: Rows.
        shape: A name of ``SHAPES``.
        width: The network's ``dim`` in place of the shape's; its heads keep their channels, their number changes.
        depth: Transformer blocks in place of the shape's.
    """

    frames: int
    batch: int
    shape: str = "embedded"
    width: int | None = None
    depth: int | None = None

    @property
    def backbone(self) -> str:
        """Name of the backbone that has this shape."""
        return SHAPES[self.shape].backbone

    def network(self) -> Any:
        """The backbone's settings.

        Raises:
            ConfigError: No such shape, or a size that no network has.
        """
        if self.shape not in SHAPES:
            raise ConfigError(f"unknown shape {self.shape!r}: {nearest(self.shape, list(SHAPES))}")
        for name, value, least in (("frames", self.frames, 2), ("batch", self.batch, 1), ("depth", self.depth, 1)):
            if value is not None and value < least:
                raise ConfigError(f"{name} {value}: it must be at least {least}")
        if self.frames * self.batch > MOST:
            raise ConfigError(
                f"{self.frames} frames × {self.batch}: the masks alone of more than {MOST:.0e} frames take gigabytes, even for "
                "an estimate; estimate a smaller batch, memory beyond the weights grows in proportion to it"
            )
        if self.backbone != BACKBONE:
            if self.width is not None or self.depth is not None:
                raise ConfigError(
                    f"shape {self.shape!r} is that of a published network: it has no other width or depth"
                )
            return BACKBONES.get(self.backbone).Config(**SHAPES[self.shape].config)
        found = DiTConfig(**SHAPES[self.shape].config)
        changed: dict[str, int] = {} if self.depth is None else {"depth": self.depth}
        if self.width is not None:
            channels = found.dim // found.heads
            if self.width < 1 or self.width % channels:
                raise ConfigError(
                    f"width {self.width}: the heads of {self.shape!r} have {channels} channels each, so take a multiple of "
                    f"{channels}, such as {max(1, round(self.width / channels)) * channels}"
                )
            changed |= {"dim": self.width, "heads": self.width // channels}
        try:
            return DiTConfig(**{**found.model_dump(), **changed})
        except ValidationError as error:
            raise ConfigError(f"shape {self.shape!r}: {error.errors()[0]['msg']}") from None

    def masks(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Tokens, prompt, valid and dropped of the condition, on the CPU."""
        tokens = torch.ones(self.batch, self.frames, dtype=torch.int64)
        prompt = (torch.arange(self.frames) < self.frames // 3).repeat(self.batch, 1)
        valid = torch.ones(self.batch, self.frames, dtype=torch.bool)
        return tokens, prompt, valid, torch.zeros(self.batch, dtype=torch.bool)

    def batch_of(self, masks: tuple[torch.Tensor, ...]) -> Batch:
        """A batch of one mel for all rows: its values cost nothing. Under fake tensors only the masks are real."""
        tokens, prompt, valid, dropped = masks
        bands = self.network().bands
        x1 = torch.arange(self.frames * bands).sin().view(self.frames, bands).repeat(self.batch, 1, 1)
        prompt_mel = torch.zeros_like(x1)
        prompt_mel[:, : self.frames // 3] = x1[:, : self.frames // 3]
        dims = getattr(self.network(), "speaker_dims", None)
        speaker = None if dims is None else torch.ones(self.batch, dims)
        return Batch(x1, Condition(tokens, prompt_mel, prompt, valid, dropped, speaker))
