"""A small diffusion transformer for mel infilling: the embedded backbone.

Patches of ``patch`` mel frames are the transformer's positions (Peebles and Xie 2023, arXiv 2212.09748), with rotary
positions, query-key normalisation and one adaptive layer norm shared by all blocks plus a learned table for each
(PixArt-α, arXiv 2310.00426, section 2.3). The prompt enters twice: as frames that attention can look at, and as a pooled
vector beside the time embedding.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from imfbench.config_values import Count, Positive
from imfbench.method import Condition


class DiTConfig(BaseModel):
    """Shape of the network; the defaults are the embedded teacher's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bands: Positive = 80
    """Mel bands."""
    tokens: Positive = 128
    """Size of the content vocabulary; 0 is padding."""
    dim: Positive = 256
    """Width; each head takes an even share of it."""
    depth: Positive = 8
    """Transformer blocks."""
    heads: Positive = 4
    """Attention heads."""
    patch: Positive = 2
    """Mel frames in one position."""
    feed_forward: Positive = 4
    """Width of the feed-forward layer, in multiples of ``dim``."""
    time_scale: Annotated[float, Field(gt=0)] = 30.0
    """Largest angular frequency of the time embedding. Large scales (F5, Matcha: 1000) make ∂_t u enormous."""
    content_layers: Count = 3
    """Convolution blocks over the content before it meets the mel."""
    convolution: Positive = 7
    """Kernel of the depthwise convolutions, in positions; odd, so that it has a middle."""

    @model_validator(mode="after")
    def _can_be_built(self) -> DiTConfig:
        if self.dim % (2 * self.heads):
            raise ValueError(
                f"dim = {self.dim} cannot be shared by heads = {self.heads}: it must be a multiple of {2 * self.heads}"
            )
        if self.convolution % 2 == 0:
            raise ValueError(
                f"convolution = {self.convolution} has no middle: an odd number, such as {self.convolution + 1}"
            )
        return self


class TimeEmbedding(nn.Module):
    """Sinusoids and an MLP, in float32 outside autocast; optionally the mixer of a second time.

    With the mixer ``e = W·[e_t ; e_r]``, W of shape d × 2d without bias, initialised to [I, 0] (IntMeanFlow, section 3.3), so
    that a student equals its teacher for every r at initialisation.
    """

    def __init__(self, dim: int, scale: float) -> None:
        super().__init__()
        half = 64
        self.frequencies: Tensor
        self.register_buffer("frequencies", scale * torch.exp(-math.log(1000.0) * torch.arange(half) / (half - 1)))
        self.layers = nn.Sequential(nn.Linear(2 * half, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.mixer: nn.Linear | None = None
        self.dim = dim

    def attach_mixer(self) -> None:
        """Add W = [I, 0]; nothing changes if it is there already."""
        if self.mixer is None:
            self.mixer = nn.Linear(2 * self.dim, self.dim, bias=False)
            with torch.no_grad():
                self.mixer.weight.copy_(torch.eye(self.dim, 2 * self.dim))
            self.mixer.to(self.frequencies.device)

    def _embed(self, t: Tensor) -> Tensor:
        angle = t.float()[:, None] * self.frequencies
        found: Tensor = self.layers(torch.cat([angle.sin(), angle.cos()], -1))
        return found

    def forward(self, t: Tensor, r: Tensor | None) -> Tensor:
        """Embedding of ``t``, or of ``t`` and ``r``, (batch, dim) in float32."""
        with torch.autocast(t.device.type, enabled=False):
            if self.mixer is None or r is None:
                # r = None on a network of two times asks for the instantaneous velocity: the interval [t, t].
                if self.mixer is None:
                    return self._embed(t)
                r = t
            found: Tensor = self.mixer(torch.cat([self._embed(t), self._embed(r)], -1))
            return found


class ConvolutionBlock(nn.Module):
    """Depthwise convolution, norm, and a gated two-layer perceptron (ConvNeXt, arXiv 2201.03545), residual."""

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=dim)
        self.norm = nn.LayerNorm(dim)
        self.up = nn.Linear(dim, 2 * dim)
        self.down = nn.Linear(2 * dim, dim)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """``x`` (batch, positions, dim); positions that are not ``valid`` stay zero, so that padding changes nothing."""
        y = self.depthwise((x * valid).transpose(1, 2)).transpose(1, 2)
        found: Tensor = (x + self.down(F.gelu(self.up(self.norm(y)), approximate="tanh"))) * valid
        return found


def rotary(positions: int, dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines of rotary positions (RoFormer, arXiv 2104.09864), each (positions, dim / 2)."""
    angle = torch.outer(
        torch.arange(positions, device=device, dtype=torch.float32),
        10_000 ** (-torch.arange(0, dim, 2, device=device, dtype=torch.float32) / dim),
    )
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (first half, second half) of ``x`` (batch, heads, positions, dim) by their positions' angles."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


class Block(nn.Module):
    """Attention and feed-forward layer, both modulated; a depthwise convolution gives the feed-forward its neighbours."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        dim = config.dim
        self.heads = config.heads
        self.table = nn.Parameter(torch.randn(6, dim) / dim**0.5)
        self.norm1 = nn.LayerNorm(dim, elementwise_affine=False)
        self.norm2 = nn.LayerNorm(dim, elementwise_affine=False)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.query_norm = nn.RMSNorm(dim // config.heads, eps=1e-6)
        self.key_norm = nn.RMSNorm(dim // config.heads, eps=1e-6)
        self.out = nn.Linear(dim, dim)
        self.up = nn.Linear(dim, config.feed_forward * dim)
        self.down = nn.Linear(config.feed_forward * dim, dim)

    def forward(self, x: Tensor, modulation: Tensor, positions: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        """``x`` (batch, positions, dim), ``modulation`` (batch, 6, dim), ``mask`` (batch, 1, 1, positions) or None."""
        shift1, scale1, gate1, shift2, scale2, gate2 = (modulation + self.table)[:, :, None].unbind(1)
        h = self.norm1(x) * (1 + scale1) + shift1
        b, n, d = h.shape
        q, k, v = self.qkv(h).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        q = rotate(self.query_norm(q.float()), *positions).to(v.dtype)
        k = rotate(self.key_norm(k.float()), *positions).to(v.dtype)
        h = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + gate1 * self.out(h.transpose(1, 2).reshape(b, n, d))
        h = self.norm2(x) * (1 + scale2) + shift2
        found: Tensor = x + gate2 * self.down(F.gelu(self.up(h), approximate="tanh"))
        return found


class DiT(nn.Module):
    """``u(z, t, r, condition)``: the velocity of a mel, (batch, frames, bands).

    The prompt's part of ``z`` is hidden from the network (the prompt's mel itself is in the condition), and the velocity of
    prompt and padding frames is zero: what happens there cannot matter.
    """

    Config = DiTConfig
    task: ClassVar[str] = "token2mel"
    mel_format: ClassVar[str] = "hifigan-22k"
    prompt_frames: ClassVar[str] = "given"
    """The network sees the prompt's mel and not the prompt's frames of z, which get no velocity."""
    longest: ClassVar[int] = 4096
    """Mel frames of prompt and target together (47 s) beyond which nothing is sampled: attention takes memory and time by the
    square of the length, and no training comes near it."""

    def __init__(self, config: DiTConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DiTConfig()
        dim, patch = config.dim, config.patch
        self.time = TimeEmbedding(dim, config.time_scale)
        self.content = nn.Embedding(config.tokens, dim // patch, padding_idx=0)
        self.content_blocks = nn.ModuleList(
            ConvolutionBlock(dim, config.convolution) for _ in range(config.content_layers)
        )
        self.speaker_frames = nn.Sequential(nn.Linear(config.bands, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.speaker = nn.Sequential(nn.SiLU(), nn.Linear(dim, dim))
        self.inlet = nn.Linear(patch * (2 * config.bands + 1) + dim, dim)
        self.neighbours = ConvolutionBlock(dim, config.convolution)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.modulation = nn.Linear(dim, 6 * dim)
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.last_modulation = nn.Linear(dim, 2 * dim)
        self.outlet = nn.Linear(dim, patch * config.bands)
        for layer in (self.outlet, self.last_modulation):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    @property
    def bands(self) -> int:
        """Mel bands of input and output."""
        return self.config.bands

    @property
    def repeated(self) -> tuple[nn.Module, ...]:
        """The transformer blocks."""
        return tuple(self.blocks)

    @property
    def has_second_time(self) -> bool:
        """Whether the time mixer is attached."""
        return self.time.mixer is not None

    def attach_second_time(self) -> None:
        """Attach the mixer W = [I, 0]: from now on the network takes (t, r), and at first ignores r."""
        self.time.attach_mixer()

    def start_from(self, other: nn.Module) -> None:
        """Take over another network's weights.

        Raises:
            ValueError: It has another shape.
        """
        if not isinstance(other, DiT) or other.config != self.config:
            raise ValueError(f"a DiT of {self.config} cannot start from the weights of {other.__class__.__name__}")
        self.load_state_dict(other.state_dict())

    def forward(self, z: Tensor, t: Tensor, r: Tensor | None, condition: Condition) -> Tensor:
        """The velocity.

        Args:
            z: (batch, frames, bands).
            t: Start of the interval, (batch,).
            r: Its end, (batch,); None, or any value on a network of one time, asks for the instantaneous velocity.
            condition: See :class:`~imfbench.method.Condition`.

        Returns:
            (batch, frames, bands), float32, zero on prompt and padding frames.
        """
        return self.velocity(z, t, r, condition, self.content(condition.tokens * (~condition.dropped)[:, None]))

    def velocity(self, z: Tensor, t: Tensor, r: Tensor | None, condition: Condition, content: Tensor) -> Tensor:
        """The velocity for content that is embedded already, (batch, frames, dim / patch); otherwise as ``forward``."""
        batch, frames, bands = z.shape
        patch = self.config.patch
        padding = -frames % patch
        prompt = condition.prompt & (~condition.dropped)[:, None]
        target = condition.valid & ~condition.prompt
        mel = condition.prompt_mel * prompt[..., None]
        z = z * target[..., None]
        if padding:
            z, mel, content = (F.pad(x, (0, 0, 0, padding)) for x in (z, mel, content))
            prompt, valid = (F.pad(x, (0, padding)) for x in (prompt, condition.valid))
        else:
            valid = condition.valid
        positions = (frames + padding) // patch
        valid = valid.view(batch, positions, patch).any(-1)
        everywhere = valid[..., None]

        content = content.reshape(batch, positions, -1)
        for block in self.content_blocks:
            content = block(content, everywhere)
        x = self.inlet(
            torch.cat(
                [
                    z.reshape(batch, positions, patch * bands),
                    mel.reshape(batch, positions, patch * bands),
                    prompt.view(batch, positions, patch).to(z.dtype),
                    content,
                ],
                -1,
            )
        )
        x = self.neighbours(x, everywhere)
        weight = prompt.to(z.dtype)[..., None]
        pooled = (self.speaker_frames(mel) * weight).sum(1) / weight.sum(1).clamp(min=1)
        e = F.silu(self.time(t, r) + self.speaker(pooled))
        modulation = self.modulation(e).view(batch, 6, -1)
        # A graph is for all lengths, so its mask is always there.
        whole = not torch.compiler.is_exporting() and bool(valid.all())
        mask = None if whole else valid[:, None, None, :]
        angles = rotary(positions, self.config.dim // self.config.heads, z.device)
        for layer in self.blocks:
            x = layer(x, modulation, angles, mask)
        shift, scale = self.last_modulation(e)[:, None].chunk(2, -1)
        u = self.outlet(self.norm(x) * (1 + scale) + shift)
        u = u.view(batch, positions * patch, bands)[:, :frames].float()
        return u * target[..., None]
