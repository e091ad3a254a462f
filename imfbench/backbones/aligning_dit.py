"""A diffusion transformer for text2mel that generates the alignment together with the mel.

What it generates has one band more than the mel: where in the text each frame is (:mod:`imfbench.features.alignment`). Early
blocks give that band's velocity, which says where the alignment is heading, ``a₁ ≈ z_a + (1 − t)·u_a``; the phones around that
place are looked up, and the late blocks give the mel's velocity. Nothing but phones, prompt and length goes in.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imfbench.backbones.dit import Block, ConvolutionBlock, DiTConfig, TimeEmbedding, rotary
from imfbench.features.alignment import BOUNDARY, SCALE
from imfbench.method import Condition


class AligningDiTConfig(DiTConfig):
    """Shape of the network; the defaults are the embedded teacher's."""

    depth: int = 6
    """Blocks that give the mel's velocity."""
    alignment_depth: int = 3
    """Blocks before them, which give the alignment's."""
    content_layers: int = 4
    """Convolution blocks over the phones."""
    width: float = 0.5
    """Standard deviation of the window in which phones are looked up, in phones."""


class Layout:
    """Where the phones of a batch are: counts, and the even stretch that the alignment band is relative to.

    Args:
        condition: Its ``tokens`` hold the prompt's phones, ``BOUNDARY``, the target's phones, then zeros.
    """

    def __init__(self, condition: Condition) -> None:
        tokens = condition.tokens * (~condition.dropped)[:, None]
        count = (tokens > 0).sum(1)
        tokens = tokens[:, : max(1, int(count.max()))]
        index = torch.arange(tokens.shape[1], device=tokens.device)
        self.tokens = tokens
        self.border = ((tokens == BOUNDARY) * index).sum(1, keepdim=True)
        self.valid = tokens > 0
        self.of_prompt = self.valid & (index < self.border)
        self.of_target = self.valid & (index > self.border)
        self.prompt_frames = condition.prompt.sum(1, keepdim=True)
        self.target_frames = (condition.valid & ~condition.prompt).sum(1, keepdim=True)
        frames = condition.valid.shape[1]
        self.centres = (torch.arange(frames, device=tokens.device) + 0.5).repeat(len(tokens), 1)
        phones = self.of_target.sum(1, keepdim=True)
        rate = phones / self.target_frames.clamp(min=1)
        self.first = self.border + 1.0
        self.last = self.first + phones
        self.even = self.first + (self.centres - self.prompt_frames).clamp(min=0) * rate

    def positions(self, durations: Tensor) -> Tensor:
        """The frames' positions in the text, (batch, frames), for positive relative durations (batch, phones)."""
        durations = durations * self.valid
        prompt, target = durations * self.of_prompt, durations * self.of_target
        prompt = prompt * self.prompt_frames / prompt.sum(1, keepdim=True).clamp(min=1e-6)
        target = target * self.target_frames / target.sum(1, keepdim=True).clamp(min=1e-6)
        ends = (prompt + target).cumsum(1)
        phone = torch.searchsorted(ends.detach(), self.centres, right=True)
        phone = torch.minimum(phone, (self.valid.sum(1, keepdim=True) - 1).clamp(min=0))
        end = ends.gather(1, phone)
        begin = F.pad(ends, (1, 0)).gather(1, phone)
        return phone + ((self.centres - begin) / (end - begin).clamp(min=1e-3)).clamp(0, 1)


class AligningDiT(nn.Module):
    """``u(z, t, r, condition)`` of mel and alignment band, (batch, frames, bands + 1)."""

    Config = AligningDiTConfig
    longest: ClassVar[int] = 4096
    """As in :class:`~imfbench.backbones.dit.DiT`."""

    def __init__(self, config: AligningDiTConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or AligningDiTConfig()
        dim, patch, bands = config.dim, config.patch, config.bands
        self.time = TimeEmbedding(dim, config.time_scale)
        self.content = nn.Embedding(config.tokens, dim, padding_idx=0)
        self.content_blocks = nn.ModuleList(
            ConvolutionBlock(dim, config.convolution) for _ in range(config.content_layers)
        )
        self.duration = nn.Sequential(nn.Linear(2 * dim, dim), nn.SiLU(), nn.Linear(dim, 1))
        self.speaker_frames = nn.Sequential(nn.Linear(bands, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.speaker = nn.Sequential(nn.SiLU(), nn.Linear(dim, dim))
        self.inlet = nn.Linear(patch * (2 * bands + 3) + dim + 4, dim)
        self.neighbours = ConvolutionBlock(dim, config.convolution)
        self.alignment_blocks = nn.ModuleList(Block(config) for _ in range(config.alignment_depth))
        self.found = nn.Linear(dim + 4, dim)
        self.found_neighbours = ConvolutionBlock(dim, config.convolution)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.modulation = nn.Linear(dim, 6 * dim)
        self.norms = nn.ModuleList(nn.LayerNorm(dim, elementwise_affine=False) for _ in range(2))
        self.last_modulations = nn.ModuleList(nn.Linear(dim, 2 * dim) for _ in range(2))
        self.outlets = nn.ModuleList(nn.Linear(dim, patch * size) for size in (1, bands))
        for layer in (*self.outlets, *self.last_modulations):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.guided_bands: Tensor
        self.register_buffer("guided_bands", torch.tensor([1.0] * bands + [0.0]), persistent=False)

    @property
    def bands(self) -> int:
        """Bands of input and output: the mel's and the alignment."""
        return self.config.bands + 1

    @property
    def has_second_time(self) -> bool:
        """Whether the time mixer is attached."""
        return self.time.mixer is not None

    def attach_second_time(self) -> None:
        """Attach the mixer W = [I, 0]: from now on the network takes (t, r), and at first ignores r."""
        self.time.attach_mixer()

    def forward(self, z: Tensor, t: Tensor, r: Tensor | None, condition: Condition) -> Tensor:
        """The velocity.

        Args:
            z: (batch, frames, bands + 1); the last band is the alignment.
            t: Start of the interval, (batch,).
            r: Its end, (batch,); None, or any value on a network of one time, asks for the instantaneous velocity.
            condition: Its ``tokens`` hold the prompt's phones, ``BOUNDARY`` and the target's phones, then zeros.

        Returns:
            (batch, frames, bands + 1), float32, zero on prompt and padding frames.
        """
        batch, frames, _ = z.shape
        patch, bands = self.config.patch, self.config.bands
        if frames % patch:
            pad = patch - frames % patch
            longer = Condition(
                F.pad(condition.tokens, (0, pad)), F.pad(condition.prompt_mel, (0, 0, 0, pad)),
                F.pad(condition.prompt, (0, pad)), F.pad(condition.valid, (0, pad)), condition.dropped,
            )  # fmt: skip
            return self(F.pad(z, (0, 0, 0, pad)), t, r, longer)[:, :frames]
        target = condition.valid & ~condition.prompt
        prompt = condition.prompt & (~condition.dropped)[:, None]
        mel = condition.prompt_mel[..., :bands] * prompt[..., None]
        z = z * target[..., None]
        places = frames // patch
        valid = condition.valid.view(batch, places, patch).any(-1)
        everywhere = valid[..., None]
        weight = prompt.to(z.dtype)[..., None]
        pooled = (self.speaker_frames(mel) * weight).sum(1) / weight.sum(1).clamp(min=1)
        e = F.silu(self.time(t, r) + self.speaker(pooled))
        modulation = self.modulation(e).view(batch, 6, -1)
        mask = None if bool(valid.all()) else valid[:, None, None, :]
        angles = rotary(places, self.config.dim // self.config.heads, z.device)

        layout = Layout(condition)
        text = self.content(layout.tokens)
        for block in self.content_blocks:
            text = block(text, layout.valid[..., None])
        rates = self.duration(torch.cat([text, pooled[:, None].expand_as(text)], -1))[..., 0].float()
        expected = layout.positions(F.softplus(rates) + 0.05)  # by text and voice alone
        prior = SCALE * (expected - layout.even) * target * (~condition.dropped)[:, None]

        def lay(*features: Tensor) -> Tensor:
            return torch.cat([f.reshape(batch, places, -1) for f in features], -1)

        x = self.inlet(
            torch.cat(
                [
                    lay(z[..., :bands], z[..., bands:] / SCALE, mel, prompt.to(z.dtype), prior / SCALE),
                    self.look_up(text, layout, expected.view(batch, places, patch).mean(-1)),
                ],
                -1,
            )
        )
        x = self.neighbours(x, everywhere)
        for layer in self.alignment_blocks:
            x = layer(x, modulation, angles, mask)
        u_alignment = self._out(0, x, e).view(batch, frames, 1).float() + prior[..., None]
        heading = (z[..., bands:].float() + (1 - t.float())[:, None, None] * u_alignment)[..., 0] / SCALE + layout.even
        heading = torch.where(target, heading.clamp(layout.first, layout.last), expected)
        x = x + self.found(self.look_up(text, layout, heading.view(batch, places, patch).mean(-1)))
        x = self.found_neighbours(x, everywhere)
        for layer in self.blocks:
            x = layer(x, modulation, angles, mask)
        u_mel = self._out(1, x, e).view(batch, frames, bands).float()
        return torch.cat([u_mel, u_alignment], -1) * target[..., None]

    def look_up(self, text: Tensor, layout: Layout, position: Tensor) -> Tensor:
        """The phones around ``position`` (batch, places), and how far into its phone each place is: (…, dim + 4)."""
        index = torch.arange(text.shape[1], device=text.device) + 0.5
        distance = (position.float()[..., None] - index) / self.config.width
        scores = (-0.5 * distance**2).masked_fill(~layout.valid[:, None], -1e4)
        weights = scores.softmax(-1) * layout.valid.any(1)[:, None, None]
        angle = 2 * torch.pi * position.float()[..., None]
        phase = torch.cat([angle.sin(), angle.cos(), (2 * angle).sin(), (2 * angle).cos()], -1)
        return torch.cat([weights.to(text.dtype) @ text, phase.to(text.dtype)], -1)

    def _out(self, which: int, x: Tensor, e: Tensor) -> Tensor:
        shift, scale = self.last_modulations[which](e)[:, None].chunk(2, -1)
        found: Tensor = self.outlets[which](self.norms[which](x) * (1 + scale) + shift)
        return found
