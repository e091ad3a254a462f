"""A method's sampling as graphs of tensors alone: what is heard of the condition, once, and the velocity, at every step.

Both are programs of ``torch.export`` with dynamic rows and lengths. Three things of the networks stand against that, and are
replaced while a graph is made, none of them with another outcome: questions about values that a graph cannot ask, such as
whether anything is padding; numbers of rows and frames that become constants on their way through ``int()``; and a table of
positions that grows with the longest utterance so far.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from imfbench.backbones.originals import original
from imfbench.exporting.card import ExportError
from imfbench.method import Condition, Method, encoded

_WITHOUT_FRAMES = ("t", "r", "speaker")
"""Inputs whose first dimension alone is dynamic."""
LONGEST = {"dit": 65_536, "f5tts": 8192, "cosyvoice2": 32_768}
"""Networks of which graphs are made → most frames, or tokens; F5-TTS's text encoder has no more positions."""


class GraphError(ExportError):
    """A network of which no graph can be made; the message says which can."""


@dataclass(frozen=True)
class Graph:
    """A program and the names of what goes in and comes out, in this order.

    Attributes:
        name: "encode" or "velocity".
        program: Of ``torch.export``.
        inputs: Names; see :class:`~imfbench.method.Condition` for all but z, t and r.
        output: Name.
    """

    name: str
    program: torch.export.ExportedProgram
    inputs: tuple[str, ...]
    output: str


class _Encode(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(network.frozen)  # type: ignore[arg-type]  # the others' weights are not the program's
        self._network: Any = [network]

    def forward(self, *inputs: Tensor) -> Tensor:
        tokens, *more = inputs
        found: Tensor = self._network[0].encode(_condition(tokens=tokens, valid=more[0] if more else tokens > 0))  # type: ignore[operator]
        return found


class _Velocity(nn.Module):
    def __init__(self, method: Method, names: tuple[str, ...]) -> None:
        super().__init__()
        self.network = method.network  # so that its weights are the program's
        self._method = [method]
        self._names = names

    def forward(self, *inputs: Tensor) -> Tensor:
        given = dict(zip(self._names, inputs, strict=True))
        at = torch.arange(given["z"].shape[1], device=given["z"].device)
        given = {name: value if name in _WITHOUT_FRAMES else self._whole(value) for name, value in given.items()}
        z, t = given.pop("z"), given.pop("t")
        return self._method[0].velocity(z, t, given.pop("r", t), _condition(**given)).index_select(1, at)

    def _whole(self, x: Tensor) -> Tensor:
        """With padding up to whole patches, as the network pads itself; by an index, since a slice would ask if it cuts."""
        patch = getattr(self.network.config, "patch", 1)  # type: ignore[union-attr]
        if patch == 1:
            return x
        frames = x.shape[1]
        at = torch.arange((frames + patch - 1) // patch * patch, device=x.device)
        there = (at < frames).view(1, -1, *(1 for _ in x.shape[2:]))
        return x.index_select(1, at.clamp(max=frames - 1)) * there


def _condition(**given: Tensor) -> Condition:
    """A condition of what a graph is given; the rest is not read."""
    valid = given["valid"]
    given.setdefault("tokens", torch.zeros_like(valid, dtype=torch.int64))
    given.setdefault("prompt", torch.zeros_like(valid))
    given.setdefault("prompt_mel", torch.zeros(*valid.shape, 1, device=valid.device))
    return Condition(**given, dropped=torch.zeros_like(valid[:, 0]))


def inputs_of_velocity(network: nn.Module, backbone: str) -> tuple[str, ...]:
    """What a network's velocity reads, in the order of its graph's inputs."""
    times = ("z", "t", "r") if network.has_second_time else ("z", "t")
    heard = {
        "dit": ("tokens", "prompt_mel", "prompt", "valid"),
        "f5tts": ("encoded", "prompt_mel", "valid"),
        "cosyvoice2": ("encoded", "prompt_mel", "valid", "speaker"),
    }
    return times + heard[backbone]


@torch.no_grad()
def graphs(method: Method, backbone: str) -> list[Graph]:
    """The graphs of a method's sampling, in float32 on the CPU.

    Args:
        method: Its network is left in eval mode on the CPU. A guided one (a teacher) has its guidance in the graph.
        backbone: The registered name of the network.

    Returns:
        ``encode``, where the network has an encoder, then ``velocity``.

    Raises:
        GraphError: No graph can be made of this network.
    """
    if backbone not in LONGEST:
        raise GraphError(
            f"no graph can be made of the network {backbone!r}: its operations depend on what a text holds. Networks that can be "
            f"exported so: {', '.join(LONGEST)}"
        )
    network = method.network.cpu().float().eval()
    example = _example(network)
    unit = int(getattr(network, "frames_per_token", 1))
    # Numbers of frames that are no multiple of a token's have no meaning, and the program refuses them.
    frames = torch.export.Dim("tokens", min=2, max=LONGEST[backbone]) * unit if unit > 1 else None
    frames = frames or torch.export.Dim("frames", min=4, max=LONGEST[backbone])
    found = []
    with _exportable(backbone):
        if hasattr(network, "encode"):
            names: tuple[str, ...] = ("tokens", "valid") if backbone == "f5tts" else ("tokens",)
            found.append(_graph("encode", _Encode(network), names, example, "encoded", frames))
        names = inputs_of_velocity(network, backbone)
        found.append(_graph("velocity", _Velocity(method, names), names, example, "velocity", frames))
    return found


def _graph(
    name: str, module: nn.Module, names: tuple[str, ...], example: dict[str, Tensor], output: str, frames: Any
) -> Graph:  # fmt: skip
    rows = torch.export.Dim("rows", min=1)
    shapes = tuple({0: rows} if n in _WITHOUT_FRAMES else {0: rows, 1: frames} for n in names)
    arguments = tuple(example[n] for n in names)
    program = torch.export.export(module, arguments, dynamic_shapes={"inputs": shapes}, strict=False)
    return Graph(name, program, names, output)


def _example(network: nn.Module, rows: int = 2, frames: int = 38) -> dict[str, Tensor]:
    """Inputs of a size that is no network's own, so that no dimension is taken for another."""
    bands = int(network.bands)  # type: ignore[arg-type]
    at = torch.arange(frames).repeat(rows, 1)
    valid = at < frames - 8 * (torch.arange(rows)[:, None] % 2)
    condition = Condition(
        tokens=torch.where(valid, 1 + at % 3, 0),
        prompt_mel=torch.randn(rows, frames, bands) * (at < 10)[..., None],
        prompt=at < 10,
        valid=valid,
        dropped=torch.zeros(rows, dtype=torch.bool),
    )
    speaker = torch.randn(rows, getattr(network.config, "speaker_dims", 1))  # type: ignore[union-attr]
    found = {"z": torch.randn(rows, frames, bands), "t": torch.full((rows,), 0.25), "r": torch.full((rows,), 0.75)}
    return {**found, **encoded(network, condition).tensors, "speaker": speaker}


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    there = name in vars(owner)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if there:
            setattr(owner, name, before)
        else:
            delattr(owner, name)


def _nothing(*_: Any) -> None:
    """In place of what only keeps a table long enough."""


@contextmanager
def _exportable(backbone: str) -> Iterator[None]:
    """What stands against a graph is replaced."""
    with ExitStack() as replaced:
        if backbone == "cosyvoice2":
            from diffusers.models.attention_processor import Attention

            from imfbench.backbones import cosyvoice2

            replaced.enter_context(_replaced(Attention, "prepare_attention_mask", _mask_of_heads))
            positions = cosyvoice2._positions()
            replaced.enter_context(_replaced(positions, "extend_pe", _nothing))
            replaced.enter_context(_replaced(positions, "position_encoding", _positions))
            for name in ("cosyvoice.flow.decoder", "cosyvoice.transformer.upsample_encoder"):
                module = original(name, extra=cosyvoice2.EXTRA)
                replaced.enter_context(_replaced(module, "add_optional_chunk_mask", _chunk_mask))
        if backbone == "f5tts":
            from imfbench.backbones import f5tts

            replaced.enter_context(_replaced(f5tts._transformer(), "embed_text", _embed_text))
            replaced.enter_context(_replaced(f5tts.F5DiT, "_mask", _always_masked))
        yield


def _mask_of_heads(self: Any, attention_mask: Tensor, *_: Any, **__: Any) -> Tensor:
    """The mask of each row for each of its heads, (rows · heads, places, frames); diffusers asks for the product as a number."""
    return attention_mask[:, None].expand(-1, self.heads, -1, -1).flatten(0, 1)


def _always_masked(_: Any, condition: Condition) -> Tensor:
    return condition.valid


def _embed_text(self: Any, text: Tensor, valid: Tensor, drop: bool) -> Tensor:
    """F5-TTS's text embedding with a length that stays a length: the original asks the longest row for a number.

    Args:
        self: The transformer.
        text: Characters' numbers, padded with −1, (batch, frames).
        valid: (batch, frames), bool.
        drop: Whether no text is heard.
    """
    embedding, heard = self.text_embed, valid[..., None]
    tokens = (text + 1).masked_fill(~valid, 0)
    spoken = (tokens != 0)[..., None] if embedding.mask_padding else torch.ones_like(heard)
    x = embedding.text_embed(torch.zeros_like(tokens) if drop else tokens).masked_fill(~heard, 0.0)
    if not embedding.extra_modeling:
        return x  # type: ignore[no-any-return]
    x = (x + embedding.freqs_cis[: text.shape[1]] * heard).masked_fill(~spoken, 0.0)
    self._sounding = valid
    try:
        for block in embedding.text_blocks:
            x = block(x).masked_fill(~spoken, 0.0)
    finally:
        self._sounding = None
    return x  # type: ignore[no-any-return]


def _positions(self: Any, offset: int, size: int) -> Tensor:
    """The encoder's relative positions from size − 1 down to 1 − size, (1, 2·size − 1, width), without a table that grows."""
    at = torch.arange(2 * size - 1, dtype=torch.float32)
    distance = (size - 1 - at)[:, None]
    rates = torch.exp(torch.arange(0, self.d_model, 2, dtype=torch.float32) * -(math.log(10000.0) / self.d_model))
    return torch.stack([torch.sin(distance * rates), torch.cos(distance * rates)], -1).flatten(1)[None]


def _chunk_mask(x: Tensor, masks: Tensor, _dynamic: bool, _left: bool, _decoding: int, chunk: int, *_: Any) -> Tensor:
    """The original's attention mask without its look at the values, (batch, 1 or frames, frames), bool.

    A place that would hear nothing hears everything, as in the original: it is padding, and is masked later.
    """
    heard = masks
    if chunk > 0:
        at = torch.arange(x.shape[1], device=x.device)
        heard = masks & (at[None] < ((at // chunk + 1) * chunk)[:, None])[None]
    return heard | ~heard.any(-1, keepdim=True)
