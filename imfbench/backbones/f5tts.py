"""F5-TTS's own diffusion transformer (Chen et al. 2024, arXiv 2410.06885), wrapped: ``f5_tts.model.DiT`` of the package f5-tts.

Two things are added, neither of which changes an utterance's velocity: the second time, and that padding is not heard. The
original's text encoder and attention run over a batch's padding, so that a short utterance sounds otherwise beside a longer one.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer
from torch import Tensor, nn

from imfbench.backbones.originals import not_here, original
from imfbench.backbones.second_time import TwoTimes, both_times
from imfbench.config_values import Count, Portion, Positive
from imfbench.method import Condition

EXTRA = "f5"
PACKAGES = ("f5_tts.model", "f5_tts.model.backbones")
"""Those whose start imports the trainer."""


class F5Config(BaseModel):
    """Shape of the network, by the names of the original's ``arch``; the defaults are F5TTS_v1_Base's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dim: Positive = 1024
    """Width of the transformer."""
    depth: Positive = 22
    """Transformer blocks."""
    heads: Positive = 16
    """Attention heads."""
    dim_head: Positive = 64
    """Width of a head."""
    dropout: Portion = 0.1
    """In training, within the feed-forward layers and of what attention gives."""
    ff_mult: Positive = 2
    """Width of the feed-forward layers, in multiples of ``dim``."""
    text_dim: Positive = 512
    """Width of the text's encoder."""
    text_num_embeds: Positive = 2545
    """Size of the vocabulary; the filler token is not counted."""
    text_mask_padding: bool = True
    """False for F5TTS_Base."""
    qk_norm: Literal["rms_norm"] | None = None
    """How each head's queries and keys are normalised."""
    conv_layers: Count = 4
    """ConvNeXt blocks of the text's encoder."""
    pe_attn_head: Positive | None = None
    """Heads with rotary positions; 1 for F5TTS_Base, None is all."""
    attn_backend: Literal["torch", "flash_attn"] = "torch"
    """Whose attention it is; ``flash_attn`` needs the package of that name."""
    attn_mask_enabled: bool = True
    """Whether padding is kept out of attention and of the text's encoder, so that an utterance has the same velocity alone and
    in any batch. False, as the original's settings have it, is its arithmetic in batches too: shorter rows hear padding."""
    long_skip_connection: bool = False
    """Joins what enters the first transformer block to what leaves the last."""
    checkpoint_activations: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    mel_dim: Positive = 100
    """Mel bands."""
    mel_format: Literal["vocos-24k", "bigvgan-24k"] = "vocos-24k"
    """The original's ``mel_spec_type``, which leaves no trace in the weights: which vocoder's mel it makes."""

    @model_serializer(mode="wrap")
    def _as_before(self, told: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without the usual mel: networks from before there was another stay known by what they were."""
        found: dict[str, Any] = told(self)
        return {name: value for name, value in found.items() if (name, value) != ("mel_format", "vocos-24k")}

    @property
    def arch(self) -> dict[str, Any]:
        """What the original's class is built with."""
        return self.model_dump(exclude={"mel_format"})

    @property
    def bands(self) -> int:
        """Mel bands."""
        return self.mel_dim

    @property
    def vocabulary(self) -> int:
        """Characters that it knows."""
        return self.text_num_embeds


def original_module(name: str) -> ModuleType:
    """A module of ``f5_tts.model``, such as ``backbones.dit`` or ``cfm``, without the trainer that its package starts.

    Raises:
        MissingPackageError: The package is not installed.
    """
    return original(f"f5_tts.model.{name}", extra=EXTRA, without=PACKAGES, unused=_unused())


def _unused() -> dict[str, dict[str, Any]]:
    """What the original's modules import and the network never calls: placeholders for what is not installed."""
    return {
        "librosa": {},
        "librosa.filters": {"mel": not_here("librosa, which BigVGAN's mel needs,", EXTRA)},
        "rjieba": {"cut": not_here("rjieba", EXTRA)},
        "pypinyin": {"Style": None, "lazy_pinyin": not_here("pypinyin", EXTRA)},
    }


@cache
def _attention() -> type[Any]:
    modules = original_module("modules")
    rotate = modules.apply_rotary_pos_emb

    class AttentionWithoutPadding(modules.AttnProcessor):  # type: ignore[misc, name-defined]
        """The original's attention, over the valid frames alone where a batch has padding.

        The original can leave padding out of attention as well, but repeats the mask for every head and query: gigabytes.
        """

        def __call__(self, attn: Any, x: Tensor, mask: Tensor | None = None, rope: Any = None) -> Tensor:
            if mask is None:
                return super().__call__(attn, x, rope=rope)  # type: ignore[no-any-return]
            q, k, v = (
                layer(x).unflatten(-1, (attn.heads, -1)).transpose(1, 2) for layer in (attn.to_q, attn.to_k, attn.to_v)
            )
            if attn.q_norm is not None:
                q, k = attn.q_norm(q), attn.k_norm(k)
            freqs, scale = rope
            scale = 1.0 if scale is None else scale
            turned = attn.heads if self.pe_attn_head is None else self.pe_attn_head
            q, k = (
                torch.cat([rotate(h[:, :turned], freqs, s), h[:, turned:]], 1)
                for h, s in ((q, scale), (k, scale**-1.0))
            )
            heard = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])
            out, dropout = attn.to_out
            found: Tensor = dropout(out(heard.transpose(1, 2).flatten(2).to(q.dtype)))
            return found.masked_fill(~mask[..., None], 0.0)

    return AttentionWithoutPadding


@cache
def _transformer() -> type[nn.Module]:
    """The original class, with guidance's dropping told for every row instead of for the whole batch."""
    DiT = original_module("backbones.dit").DiT

    class RowwiseDiT(DiT):  # type: ignore[misc, valid-type]
        """``drop_text``: (batch,), bool, in place of one value for all; ``text``: embedded already, or tokens."""

        def __init__(self, *, attn_mask_enabled: bool, **arch: Any) -> None:
            own = attn_mask_enabled and arch["attn_backend"] == "torch"
            super().__init__(**arch, attn_mask_enabled=attn_mask_enabled and not own)
            self._sounding: Tensor | None = None
            for block in self.transformer_blocks if own else ():
                block.attn.processor = _attention()(
                    pe_attn_head=arch["pe_attn_head"], attn_backend="torch", attn_mask_enabled=False
                )
            # Its convolutions reach into the padding, and its normalisation is over all frames.
            for block in self.text_embed.text_blocks if attn_mask_enabled and arch["conv_layers"] else ():
                for part in (block, block.grn):
                    part.register_forward_pre_hook(self._without_padding)

        def _without_padding(self, _: nn.Module, given: tuple[Tensor]) -> tuple[Tensor] | None:
            if self._sounding is None:
                return None
            (x,) = given
            return (x.masked_fill(~self._sounding[:, : x.shape[1], None], 0.0),)

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
            """Of tokens (batch, frames), padded with −1: (batch, frames, text_dim). ``valid`` None: nothing is padding."""
            frames = text.shape[1]
            if valid is None:
                whole: Tensor = self.text_embed(text, seq_len=frames, drop_text=drop)
                return whole
            self._sounding = valid
            try:
                found = self.text_embed(text, seq_len=valid.sum(1), drop_text=drop)
            finally:
                self._sounding = None
            return F.pad(found, (0, 0, 0, frames - found.shape[1]))  # where every row has padding

    return RowwiseDiT


class F5DiT(nn.Module):
    """``u(z, t, r, condition)`` by F5-TTS's network; its weights stand under ``transformer.``, as in F5-TTS's checkpoints.

    ``condition.tokens`` are the characters' numbers + 1 from the first frame on, 0 after the last, as long as the mel: the
    original cuts a text that is longer. The prompt's frames of z are seen by the network and get a velocity, as in the original.
    """

    Config = F5Config
    task: ClassVar[str] = "text2mel"
    mel_format: ClassVar[str] = "vocos-24k"
    """Unless its settings name the other."""
    text: ClassVar[str] = "plain"
    prompt_frames: ClassVar[str] = "evolve"
    """The prompt's frames of z are seen and get a velocity; the sampler cuts them off."""
    longest: ClassVar[int] = 4096
    """Frames of prompt and target together: 43.7 s, what the original's position table was first made for."""

    def __init__(self, config: F5Config | None = None) -> None:
        super().__init__()
        self.config = config = config or F5Config()
        self.transformer: Any = _transformer()(**config.arch)
        embedding: Any = self.transformer.time_embed
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
        text, valid = condition.tokens - 1, self._mask(condition)
        return torch.cat([self.transformer.embed_text(text, valid, drop) for drop in (False, True)], -1)

    def _mask(self, condition: Condition) -> Tensor | None:
        """None where there is no padding, as the original has it for a single utterance: attention is fastest without."""
        return None if bool(condition.valid.all()) else condition.valid

    def forward(self, z: Tensor, t: Tensor, r: Tensor | None, condition: Condition) -> Tensor:
        """The velocity, (batch, frames, bands), float32; arguments as for every backbone."""
        found: Tensor = self.transformer(
            x=z,
            cond=condition.prompt_mel,
            text=condition.tokens - 1 if condition.encoded is None else condition.encoded,
            time=both_times(t, r, self.has_second_time),
            mask=self._mask(condition),
            drop_audio_cond=condition.dropped,
            drop_text=condition.dropped,
        )
        found = found.float()  # where padding is heard, it moves along the path too, as in the original
        return found.masked_fill(~condition.valid[..., None], 0.0) if self.config.attn_mask_enabled else found
