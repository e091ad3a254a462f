"""A diffusion transformer for text2mel that generates the alignment together with the mel.

What it generates has one band more than the mel: where in the text each frame is (:mod:`imfbench.features.alignment`). The
aligner gives that band's velocity, which says where the alignment is heading, ``a₁ ≈ z_a + (1 − t)·u_a``; the phones are laid
out so, and from there on it is token2mel's network, whose weights it may start from. Nothing but phones, prompt and length
goes in.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from imfbench.backbones.dit import Block, ConvolutionBlock, DiT, DiTConfig, TimeEmbedding, rotary
from imfbench.config_values import Count, Positive
from imfbench.features.alignment import BOUNDARY, SCALE
from imfbench.method import Condition


class AligningDiTConfig(DiTConfig):
    """Shape of the network; the defaults are the embedded teacher's."""

    alignment_depth: Positive = 3
    """Transformer blocks of the aligner."""
    text_layers: Count = 4
    """Convolution blocks over the phones, for the aligner."""
    width: Annotated[float, Field(gt=0)] = 0.25
    """Standard deviation of the window in which phones are looked up, in phones."""


class Layout:
    """Where the phones of a batch are: counts, and the even stretch that the alignment band is relative to.

    Args:
        condition: Its ``tokens`` hold the prompt's phones, ``BOUNDARY``, the target's phones, then zeros.
        width: See :class:`AligningDiTConfig`.
    """

    def __init__(self, condition: Condition, width: float) -> None:
        tokens = condition.tokens * (~condition.dropped)[:, None]
        count = (tokens > 0).sum(1)
        tokens = tokens[:, : max(1, int(count.max()))]
        index = torch.arange(tokens.shape[1], device=tokens.device)
        self.tokens = tokens
        self.width = width
        self.valid = tokens > 0
        border = ((tokens == BOUNDARY) * index).sum(1, keepdim=True)
        self.of_prompt = self.valid & (index < border)
        self.of_target = self.valid & (index > border)
        self.target = condition.valid & ~condition.prompt
        self.prompt_frames = condition.prompt.sum(1, keepdim=True)
        self.target_frames = self.target.sum(1, keepdim=True)
        frames = condition.valid.shape[1]
        self.centres = (torch.arange(frames, device=tokens.device) + 0.5).repeat(len(tokens), 1)
        phones = self.of_target.sum(1, keepdim=True)
        rate = phones / self.target_frames.clamp(min=1)
        self.first = border + 1.0
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

    def heading(self, expected: Tensor, z: Tensor, t: Tensor, u: Tensor) -> Tensor:
        """The positions for which the alignment band is heading; those of the prompt's frames are the expected ones.

        Args:
            expected: (batch, frames).
            z: The band, (batch, frames).
            t: (batch,).
            u: Its velocity, (batch, frames).
        """
        found = (z.float() + (1 - t.float())[:, None] * u) / SCALE + self.even
        return torch.where(self.target, found.clamp(self.first, self.last), expected)

    def look_up(self, text: Tensor, positions: Tensor) -> Tensor:
        """Features of the phones (batch, phones, dim) around ``positions`` (batch, n): (batch, n, dim)."""
        index = torch.arange(text.shape[1], device=text.device) + 0.5
        distance = (positions.float()[..., None] - index) / self.width
        scores = (-0.5 * distance**2).masked_fill(~self.valid[:, None], -1e4)
        weights = scores.softmax(-1) * self.valid.any(1)[:, None, None]
        found: Tensor = weights.to(text.dtype) @ text
        return found


class Aligner(nn.Module):
    """The velocity of the alignment band, and the alignment that is expected from text and voice alone."""

    def __init__(self, config: AligningDiTConfig) -> None:
        super().__init__()
        dim, patch, bands = config.dim, config.patch, config.bands
        self.config = config
        self.time = TimeEmbedding(dim, config.time_scale)
        self.text = nn.Embedding(config.tokens, dim, padding_idx=0)
        self.text_blocks = nn.ModuleList(ConvolutionBlock(dim, config.convolution) for _ in range(config.text_layers))
        self.duration = nn.Sequential(nn.Linear(2 * dim, dim), nn.SiLU(), nn.Linear(dim, 1))
        self.speaker_frames = nn.Sequential(nn.Linear(bands, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.speaker = nn.Sequential(nn.SiLU(), nn.Linear(dim, dim))
        self.inlet = nn.Linear(patch * (2 * bands + 3) + dim + 4, dim)
        self.neighbours = ConvolutionBlock(dim, config.convolution)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.alignment_depth))
        self.modulation = nn.Linear(dim, 6 * dim)
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.last_modulation = nn.Linear(dim, 2 * dim)
        self.outlet = nn.Linear(dim, patch)
        for layer in (self.outlet, self.last_modulation):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self, z: Tensor, t: Tensor, r: Tensor | None, condition: Condition, layout: Layout
    ) -> tuple[Tensor, Tensor]:
        """Velocity and expected positions, (batch, frames) each, float32; ``z`` holds mel and band, whole patches."""
        batch, frames, _ = z.shape
        patch, bands = self.config.patch, self.config.bands
        kept = (~condition.dropped)[:, None]
        prompt = condition.prompt & kept
        mel = condition.prompt_mel[..., :bands] * prompt[..., None]
        z = z * layout.target[..., None]
        places = frames // patch
        valid = condition.valid.view(batch, places, patch).any(-1)
        weight = prompt.to(z.dtype)[..., None]
        pooled = (self.speaker_frames(mel) * weight).sum(1) / weight.sum(1).clamp(min=1)
        text = self.text(layout.tokens)
        for block in self.text_blocks:
            text = block(text, layout.valid[..., None])
        rates = self.duration(torch.cat([text, pooled[:, None].expand_as(text)], -1))[..., 0].float()
        expected = layout.positions(F.softplus(rates) + 0.05)
        prior = SCALE * (expected - layout.even) * layout.target * kept
        place = expected.view(batch, places, patch).mean(-1)
        phase = 2 * torch.pi * place[..., None]

        frame_features = (z[..., :bands], z[..., bands:] / SCALE, mel, prompt.to(z.dtype), prior / SCALE)
        x = self.inlet(
            torch.cat(
                [
                    *(feature.reshape(batch, places, -1) for feature in frame_features),
                    layout.look_up(text, place),
                    phase.sin(), phase.cos(), (2 * phase).sin(), (2 * phase).cos(),
                ],
                -1,
            )
        )  # fmt: skip
        x = self.neighbours(x, valid[..., None])
        e = F.silu(self.time(t, r) + self.speaker(pooled))
        modulation = self.modulation(e).view(batch, 6, -1)
        mask = None if bool(valid.all()) else valid[:, None, None, :]
        angles = rotary(places, self.config.dim // self.config.heads, z.device)
        for layer in self.blocks:
            x = layer(x, modulation, angles, mask)
        shift, scale = self.last_modulation(e)[:, None].chunk(2, -1)
        u = self.outlet(self.norm(x) * (1 + scale) + shift).view(batch, frames).float()
        return u + prior, expected


class AligningDiT(nn.Module):
    """``u(z, t, r, condition)`` of mel and alignment band, (batch, frames, bands + 1)."""

    Config = AligningDiTConfig
    task: ClassVar[str] = "text2mel"
    mel_format: ClassVar[str] = "hifigan-22k"
    prompt_frames: ClassVar[str] = "given"
    longest: ClassVar[int] = 4096
    """As in :class:`~imfbench.backbones.dit.DiT`."""

    def __init__(self, config: AligningDiTConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or AligningDiTConfig()
        self.aligner = Aligner(config)
        self.mel = DiT(config)
        self.guided_bands: Tensor
        self.register_buffer("guided_bands", torch.tensor([1.0] * config.bands + [0.0]), persistent=False)

    @property
    def bands(self) -> int:
        """Bands of input and output: the mel's and the alignment."""
        return self.config.bands + 1

    @property
    def repeated(self) -> tuple[nn.Module, ...]:
        """The transformer blocks, of the aligner and of the mel."""
        return (*self.aligner.blocks, *self.mel.repeated)

    @property
    def has_second_time(self) -> bool:
        """Whether the time mixers are attached."""
        return self.mel.has_second_time

    def attach_second_time(self) -> None:
        """Attach the mixers W = [I, 0]: from now on the network takes (t, r), and at first ignores r."""
        self.mel.attach_second_time()
        self.aligner.time.attach_mixer()

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
        frames, bands = z.shape[1], self.config.bands
        pad = -frames % self.config.patch
        if pad:
            condition = Condition(
                F.pad(condition.tokens, (0, pad)), F.pad(condition.prompt_mel, (0, 0, 0, pad)),
                F.pad(condition.prompt, (0, pad)), F.pad(condition.valid, (0, pad)), condition.dropped,
            )  # fmt: skip
            z = F.pad(z, (0, 0, 0, pad))
        layout = Layout(condition, self.config.width)
        u_alignment, expected = self.aligner(z, t, r, condition, layout)
        heading = layout.heading(expected, z[..., bands], t, u_alignment)
        content = layout.look_up(self.mel.content(layout.tokens), heading)
        of_mel = replace(condition, prompt_mel=condition.prompt_mel[..., :bands])
        u_mel = self.mel.velocity(z[..., :bands], t, r, of_mel, content)
        u_alignment = (u_alignment * layout.target)[..., None]
        return torch.cat([u_mel, u_alignment], -1)[:, :frames]

    def start_from(self, other: nn.Module) -> None:
        """Take over the weights of a network of this kind, or of token2mel's: what is left to learn is where the phones are.

        Raises:
            ValueError: It has another shape.
        """
        network = self if isinstance(other, AligningDiT) else self.mel
        try:
            network.load_state_dict(other.state_dict())
        except RuntimeError:
            raise ValueError(f"no weights of {other.__class__.__name__} fit an AligningDiT of {self.config}") from None
