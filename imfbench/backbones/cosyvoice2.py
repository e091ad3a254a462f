"""CosyVoice 2's flow (Du et al. 2024, arXiv 2412.10117): token encoder and causal U-Net, of the package ``cosyvoice2-eu``."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from imfbench.backbones.originals import original
from imfbench.backbones.second_time import TwoTimes, both_times
from imfbench.config_values import Count, Portion, Positive
from imfbench.method import Condition

EXTRA = "cosyvoice"
LOOKAHEAD = 3
"""Tokens after its own that the encoder hears at each one: the original's ``pre_lookahead_len``."""
WIDTH = 512
"""Of the original's layers before and after its encoder's blocks, whatever is asked for."""


class CosyVoice2Config(BaseModel):
    """Shape of encoder and decoder; the defaults are those of CosyVoice2-0.5B's ``cosyvoice2.yaml``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    vocab_size: Positive = 6561
    """S3 tokens."""
    input_size: Positive = 512
    """Width of the token encoder."""
    encoder_heads: Positive = 8
    """Attention heads of the token encoder."""
    encoder_units: Positive = 2048
    """Width of the token encoder's feed-forward layers."""
    encoder_blocks: Count = 6
    """Before the upsampling; four more follow it."""
    speaker_dims: Positive = 192
    """Of CAM++'s vector."""
    mel_dim: Positive = 80
    """Mel bands."""
    channels: Positive = 256
    """Width of the decoder."""
    attention_head_dim: Positive = 64
    """Width of an attention head of the decoder."""
    heads: Positive = 8
    """Attention heads of the decoder."""
    n_blocks: Positive = 4
    """Transformer blocks after each residual block of convolutions."""
    num_mid_blocks: Count = 12
    """Residual blocks of convolutions between the decoder's first and its last."""
    dropout: Portion = 0.0
    """Of the decoder, in training; the token encoder has the original's 0.1."""
    chunk: Positive = 25
    """Tokens of a chunk where attention is ``streaming``, the original's ``static_chunk_size``; twice as many frames."""
    streaming: bool = False
    """Attention over the chunks up to a frame's own, instead of over all frames, in training and sampling."""

    @property
    def dim(self) -> int:
        """Width of the decoder."""
        return self.channels

    @property
    def depth(self) -> int:
        """Transformer blocks of the decoder."""
        return self.n_blocks * (self.num_mid_blocks + 2)

    @property
    def bands(self) -> int:
        """Mel bands."""
        return self.mel_dim

    @property
    def vocabulary(self) -> int:
        """Tokens that it knows."""
        return self.vocab_size

    @property
    def mask(self) -> str:
        """What a frame sees, in words."""
        if not self.streaming:
            return "all frames (streaming: false)"
        return f"chunks of {self.chunk} tokens up to its own (streaming: true, chunk: {self.chunk})"


@cache
def _encoder_parts() -> dict[str, dict[str, Any]]:
    """The four tables of names that the encoder looks its layers up in, without the language model that stands beside them."""

    def part(module: str, name: str) -> Any:
        return getattr(original(f"cosyvoice.transformer.{module}", extra=EXTRA), name)

    return {
        "COSYVOICE_SUBSAMPLE_CLASSES": {"linear": part("subsampling", "LinearNoSubsampling")},
        "COSYVOICE_EMB_CLASSES": {"rel_pos_espnet": part("embedding", "EspnetRelPositionalEncoding")},
        "COSYVOICE_ATTENTION_CLASSES": {"rel_selfattn": part("attention", "RelPositionMultiHeadedAttention")},
        "COSYVOICE_ACTIVATION_CLASSES": {"swish": nn.SiLU},
    }


@cache
def _positions() -> type[nn.Module]:
    """The encoder's table of positions, which the original keeps in whatever number type and mode a pass has asked for last."""
    Positions = original("cosyvoice.transformer.embedding", extra=EXTRA).EspnetRelPositionalEncoding

    class KeptPositions(Positions):  # type: ignore[misc, valid-type]
        """Float32 after a pass in bf16, and fit for a gradient after one in inference mode."""

        def extend_pe(self, x: Tensor) -> None:
            """Make the table as long as ``x``, (batch, tokens, …), on its device."""
            with torch.inference_mode(False):
                super().extend_pe(torch.empty(1, x.size(1), dtype=torch.float32, device=x.device))

        def forward(self, x: Tensor, offset: int = 0) -> tuple[Tensor, Tensor]:
            """``x`` scaled, and its positions."""
            x, positions = super().forward(x, offset)
            return x, positions.to(x.dtype)

    return KeptPositions


def _silence_padding(
    _module: nn.Module, _inputs: Any, output: tuple[Tensor, Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Behind a row's end, the layer that looks three tokens ahead sees zeros, as it does at the end of a row that is alone.

    The original sees an embedding of nothing there, but in training only: it samples one row at a time.
    """
    x, positions, mask = output
    return x.masked_fill(~mask.transpose(1, 2), 0.0), positions, mask


def _encoder(config: CosyVoice2Config) -> nn.Module:
    module = original(
        "cosyvoice.transformer.upsample_encoder", extra=EXTRA, unused={"cosyvoice.utils.class_utils": _encoder_parts()}
    )
    found: nn.Module = module.UpsampleConformerEncoder(
        input_size=config.input_size, output_size=config.input_size, attention_heads=config.encoder_heads,
        linear_units=config.encoder_units, num_blocks=config.encoder_blocks, dropout_rate=0.1, positional_dropout_rate=0.1,
        attention_dropout_rate=0.1, normalize_before=True, input_layer="linear", pos_enc_layer_type="rel_pos_espnet",
        selfattention_layer_type="rel_selfattn", use_cnn_module=False, macaron_style=False, static_chunk_size=config.chunk,
    )  # fmt: skip
    if config.input_size != WIDTH:
        found.pre_lookahead_layer = module.PreLookaheadLayer(config.input_size, pre_lookahead_len=LOOKAHEAD)
        found.up_layer = module.Upsample1D(config.input_size, config.input_size, stride=2)
    for embedding in (found.embed, found.up_embed):
        embedding.pos_enc = _positions()(config.input_size, 0.1)  # type: ignore[union-attr]
        embedding.register_forward_hook(_silence_padding)  # type: ignore[union-attr, arg-type]
    return found


def _decoder(config: CosyVoice2Config) -> nn.Module:
    module = original("cosyvoice.flow.decoder", extra=EXTRA)
    with warnings.catch_warnings():  # of a class of diffusers, to whoever wrote the decoder
        warnings.filterwarnings("ignore", ".*LoRACompatible", FutureWarning)
        found: nn.Module = module.CausalConditionalDecoder(
            in_channels=4 * config.mel_dim, out_channels=config.mel_dim, channels=[config.channels], dropout=config.dropout,
            attention_head_dim=config.attention_head_dim, n_blocks=config.n_blocks, num_mid_blocks=config.num_mid_blocks,
            num_heads=config.heads, act_fn="gelu", static_chunk_size=2 * config.chunk, num_decoding_left_chunks=-1,
        )  # fmt: skip
    return found


class CosyVoice2Flow(nn.Module):
    """``u(z, t, r, condition)``; weights stand under the names of the official ``flow.pt``.

    ``condition.tokens`` are S3 tokens + 1, each on its two frames, 0 on padding; ``condition.speaker`` is CAM++'s vector,
    (batch, 192). ``encode`` is the token encoder and its projection, frozen in students, as the speaker's projection is. The
    prompt's frames of z are seen and get a velocity, as in the original.
    """

    Config = CosyVoice2Config
    task: ClassVar[str] = "token2mel"
    mel_format: ClassVar[str] = "cosyvoice2-24k"
    frames_per_token: ClassVar[int] = 2
    prompt_frames: ClassVar[str] = "evolve"
    """The prompt's frames of z are seen and get a velocity; the sampler cuts them off."""
    longest: ClassVar[int] = 15_000
    """Frames of prompt and target together: 300 s, the length of the original's buffer of noise."""

    def __init__(self, config: CosyVoice2Config | None = None) -> None:
        super().__init__()
        self.config = config = config or CosyVoice2Config()
        self.input_embedding = nn.Embedding(config.vocab_size, config.input_size)
        self.spk_embed_affine_layer = nn.Linear(config.speaker_dims, config.mel_dim)
        self.encoder = _encoder(config)
        self.encoder_proj = nn.Linear(config.input_size, config.mel_dim)
        self.decoder = nn.Module()
        self.decoder.estimator = estimator = _decoder(config)
        layers = {name: getattr(estimator.time_mlp, name) for name in ("linear_1", "act", "linear_2")}
        sinusoids: Any = estimator.time_embeddings
        estimator.time_mlp = TwoTimes(layers, sinusoids, 4 * config.channels)
        estimator.time_embeddings = nn.Identity()  # TwoTimes calls it, once for each time

    @property
    def frozen(self) -> tuple[nn.Module, ...]:
        """Parts that no student trains."""
        return self.input_embedding, self.spk_embed_affine_layer, self.encoder, self.encoder_proj

    @property
    def bands(self) -> int:
        """Mel bands of input and output."""
        return self.config.mel_dim

    @property
    def repeated(self) -> tuple[nn.Module, ...]:
        """The decoder's transformer blocks; the residual blocks of convolutions between them are not among them."""
        return tuple(m for m in self.decoder.modules() if type(m).__name__ == "BasicTransformerBlock")

    @property
    def has_second_time(self) -> bool:
        """Whether the time mixer is attached."""
        return self.decoder.estimator.time_mlp.mixer is not None  # type: ignore[union-attr]

    def attach_second_time(self) -> None:
        """Attach the mixer W = [I, 0]: from now on the network takes (t, r), and at first ignores r."""
        self.decoder.estimator.time_mlp.attach()  # type: ignore[union-attr, operator]

    def start_from(self, other: nn.Module) -> None:
        """Take over another network's weights.

        Raises:
            ValueError: It has another shape, or another mask.
        """
        if not isinstance(other, CosyVoice2Flow):
            raise ValueError(f"CosyVoice 2's flow cannot start from the weights of {type(other).__name__}")
        self.check_teacher(other)
        mine, theirs = self.config.model_dump(), other.config.model_dump()
        apart = [f"{name} {mine[name]}, not {theirs[name]}" for name in mine if mine[name] != theirs[name]]
        if apart:
            raise ValueError(
                f"the flow cannot start from weights of another shape: its settings say {', '.join(apart)}; "
                "give both the same"
            )
        self.load_state_dict(other.state_dict())

    def check_teacher(self, teacher: nn.Module) -> None:
        """Refuse a teacher that sees other frames than this network: its velocities would be those of another condition.

        Raises:
            ValueError: Its mask is another one.
        """
        if isinstance(teacher, CosyVoice2Flow) and teacher.config.mask != self.config.mask:
            raise ValueError(
                f"the student's frames see {self.config.mask}, but its teacher's see {teacher.config.mask}: teacher and student "
                "must have the same mask; set streaming and chunk alike in both, or read the teacher's flow.pt again by "
                "`imfbench import … --set streaming=true` (or false)"
            )

    def encode(self, condition: Condition, ahead: Tensor | None = None) -> Tensor:
        """What the encoder makes of the tokens, (batch, frames, mel_dim): the original's μ of each row alone.

        Args:
            condition: Its tokens, each on its two frames.
            ahead: S3 tokens + 1 that follow the rows' and are heard, but not spoken yet, (batch, ``LOOKAHEAD``); None: nothing
                follows, as at the end of an utterance. Source: ``inference(finalize=False)`` of the original.

        Raises:
            ValueError: ``ahead`` is of another length, or a row has padding, behind which nothing can follow.
        """
        tokens = condition.tokens[:, ::2]
        lengths = (tokens > 0).sum(1)
        follows = {}
        if ahead is not None:
            if ahead.shape != (len(tokens), LOOKAHEAD) or bool((tokens == 0).any()) or bool((ahead == 0).any()):
                raise ValueError(
                    f"{tuple(ahead.shape)} tokens ahead of {lengths.tolist()} among {tokens.shape[1]}: the encoder looks "
                    f"{LOOKAHEAD} tokens ahead, of rows without padding"
                )
            follows = {"context": self.input_embedding(ahead - 1)}
        embedded = self.input_embedding((tokens - 1).clamp(min=0)) * (tokens > 0)[..., None]
        h, _ = self.encoder(embedded, lengths, streaming=self.config.streaming, **follows)
        found: Tensor = self.encoder_proj(h)[:, : condition.tokens.shape[1]]
        return found

    def forward(self, z: Tensor, t: Tensor, r: Tensor | None, condition: Condition) -> Tensor:
        """The velocity, (batch, frames, bands), float32; arguments as for every backbone."""
        if condition.speaker is None:
            raise ValueError("CosyVoice 2's flow needs a speaker vector in its condition")
        mu = self.encode(condition) if condition.encoded is None else condition.encoded
        gone = condition.dropped[:, None, None]
        speaker = self.spk_embed_affine_layer(F.normalize(condition.speaker, dim=1))
        valid = condition.valid[:, None].to(z.dtype)
        found: Tensor = self.decoder.estimator(  # type: ignore[operator]
            z.transpose(1, 2),
            valid,
            mu.masked_fill(gone, 0.0).transpose(1, 2).to(z.dtype),
            both_times(t, r, self.has_second_time),
            speaker.masked_fill(condition.dropped[:, None], 0.0),
            condition.prompt_mel.masked_fill(gone, 0.0).transpose(1, 2),
            streaming=self.config.streaming,
        )
        return found.transpose(1, 2).float()
