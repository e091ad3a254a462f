"""F5-TTS's own diffusion transformer (Chen et al. 2024, arXiv 2410.06885), wrapped: ``f5_tts.model.DiT`` of the package ``f5-tts``."""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from imfbench.backbones.originals import not_here, original
from imfbench.backbones.second_time import TwoTimes, both_times
from imfbench.method import Condition

EXTRA = "f5"


class F5Config(BaseModel):
    """Shape of the network, by the names of the original's ``arch``; the defaults are F5TTS_v1_Base's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dim: int = 1024
    depth: int = 22
    heads: int = 16
    dim_head: int = 64
    dropout: float = 0.1
    ff_mult: int = 2
    text_dim: int = 512
    text_num_embeds: int = 2545
    """Size of the vocabulary; the filler token is not counted."""
    text_mask_padding: bool = True
    """False for F5TTS_Base."""
    qk_norm: Literal["rms_norm"] | None = None
    conv_layers: int = 4
    pe_attn_head: int | None = None
    """Heads with rotary positions; 1 for F5TTS_Base, None is all."""
    attn_backend: Literal["torch", "flash_attn"] = "torch"
    attn_mask_enabled: bool = False
    long_skip_connection: bool = False
    checkpoint_activations: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    mel_dim: int = 100

    @property
    def bands(self) -> int:
        """Mel bands."""
        return self.mel_dim


@cache
def _transformer() -> type[nn.Module]:
    """The original class, with guidance's dropping told for every row instead of for the whole batch."""
    DiT = original(
        "f5_tts.model.backbones.dit",
        extra=EXTRA,
        without=["f5_tts.model", "f5_tts.model.backbones"],
        unused={
            "librosa": {},
            "librosa.filters": {"mel": not_here("librosa, which BigVGAN's mel needs,", EXTRA)},
            "rjieba": {"cut": not_here("rjieba", EXTRA)},
            "pypinyin": {"Style": None, "lazy_pinyin": not_here("pypinyin", EXTRA)},
        },
    ).DiT

    class RowwiseDiT(DiT):  # type: ignore[misc, valid-type]
        """``drop_text``: (batch,), bool, in place of one value for all; ``text``: embedded already, or tokens."""

        def get_input_embed(
            self, x: Tensor, cond: Tensor, text: Tensor, drop_audio_cond: Any = False, drop_text: Any = False,
            cache: bool = False, audio_mask: Tensor | None = None,
        ) -> Tensor:  # fmt: skip
            rows = drop_text[:, None, None]
            if text.ndim == 3:
                heard, silent = text.chunk(2, -1)
                embedded = torch.where(rows, silent, heard)
            elif not drop_text.any():
                embedded = self.embed_text(text, audio_mask, drop=False)
            elif drop_text.all():
                embedded = self.embed_text(text, audio_mask, drop=True)
            else:
                embedded = torch.where(
                    rows, self.embed_text(text, audio_mask, drop=True), self.embed_text(text, audio_mask, drop=False)
                )
            found: Tensor = self.input_embed(x, cond.masked_fill(rows, 0.0), embedded, audio_mask=audio_mask)
            return found

        def embed_text(self, text: Tensor, valid: Tensor | None, drop: bool) -> Tensor:
            """Of tokens (batch, texts), padded with −1: (batch, frames, text_dim)."""
            assert valid is not None
            found: Tensor = self.text_embed(text, seq_len=valid.sum(1), drop_text=drop)
            return found

    return RowwiseDiT


class F5DiT(nn.Module):
    """``u(z, t, r, condition)`` by F5-TTS's network; its weights stand under ``transformer.``, as in F5-TTS's checkpoints.

    ``condition.tokens`` are the characters' numbers + 1 from the first frame on, 0 after the last, as long as the mel: the original
    cuts a text that is longer. The prompt's frames of z are seen by the network and get a velocity, as in the original.
    """

    Config = F5Config
    longest: ClassVar[int] = 4096
    """Frames of prompt and target together: 43.7 s, what the original's position table was first made for."""

    def __init__(self, config: F5Config | None = None) -> None:
        super().__init__()
        self.config = config = config or F5Config()
        self.transformer = _transformer()(**config.model_dump())
        embedding = self.transformer.time_embed
        self.transformer.time_embed = TwoTimes({"time_mlp": embedding.time_mlp}, embedding.time_embed, config.dim)

    @property
    def bands(self) -> int:
        """Mel bands of input and output."""
        return self.config.mel_dim

    @property
    def frozen(self) -> tuple[nn.Module, ...]:
        """Parts that no student trains."""
        return (self.transformer.text_embed,)

    @property
    def repeated(self) -> tuple[nn.Module, ...]:
        """The transformer blocks; none where the original recomputes them by itself (``checkpoint_activations``)."""
        return () if self.config.checkpoint_activations else tuple(self.transformer.transformer_blocks)

    @property
    def has_second_time(self) -> bool:
        """Whether the time mixer is attached."""
        return self.transformer.time_embed.mixer is not None

    def attach_second_time(self) -> None:
        """Attach the mixer W = [I, 0]: from now on the network takes (t, r), and at first ignores r."""
        self.transformer.time_embed.attach()

    def start_from(self, other: nn.Module) -> None:
        """Take over another network's weights.

        Raises:
            ValueError: It has another shape.
        """
        if not isinstance(other, F5DiT) or other.config != self.config:
            raise ValueError(f"an F5 network of {self.config} cannot start from the weights of {type(other).__name__}")
        self.load_state_dict(other.state_dict())

    def encode(self, condition: Condition) -> Tensor:
        """The text's embedding with and without the text, (batch, frames, 2·text_dim): the same at every step of a sampling."""
        text = condition.tokens - 1
        return torch.cat([self.transformer.embed_text(text, condition.valid, drop) for drop in (False, True)], -1)

    def forward(self, z: Tensor, t: Tensor, r: Tensor | None, condition: Condition) -> Tensor:
        """The velocity, (batch, frames, bands), float32; arguments as for every backbone."""
        found: Tensor = self.transformer(
            x=z,
            cond=condition.prompt_mel,
            text=condition.tokens - 1 if condition.encoded is None else condition.encoded,
            time=both_times(t, r, self.has_second_time),
            mask=condition.valid,
            drop_audio_cond=condition.dropped,
            drop_text=condition.dropped,
        )
        return found.float().masked_fill(~condition.valid[..., None], 0.0)
