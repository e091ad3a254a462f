"""Small training batches with all that is awkward in real ones: prompts, none, padding, odd lengths."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from imfbench.data import collate, plain_tokens, text_tokens
from imfbench.inputs import Inputs
from imfbench.method import Batch, Condition, State

BANDS = 6
TOKENS = 20
"""Contents of a token2mel batch are below this."""
PHONES = 100
"""Phones of a text2mel batch are below this."""


def make_batch(rows: int = 4, frames: int = 9, bands: int = BANDS, seed: int = 0) -> Batch:
    """token2mel: rows with a prompt of 2 frames and up to 3 frames of padding; the last row has no prompt."""
    g = torch.Generator().manual_seed(seed)
    x1 = torch.randn(rows, frames, bands, generator=g)
    at = torch.arange(frames)
    valid = at < frames - torch.arange(rows)[:, None] % 4
    prompt = (at < 2).expand(rows, frames).clone()
    prompt[-1] = False
    tokens = torch.randint(1, TOKENS, (rows, frames), generator=g) * valid
    condition = Condition(tokens, x1 * prompt[..., None], prompt, valid, torch.zeros(rows, dtype=torch.bool))
    return Batch(x1, condition, tuple(f"utterance-{i}" for i in range(rows)))


def make_text_batch(bands: int = BANDS + 1, text: str = "aligned") -> Batch:
    """text2mel: three utterances of different lengths with prompts, and one that has none.

    Args:
        bands: The last one is the alignment, where texts are ``aligned``.
        text: How the network is given texts (``Inputs.text``).
    """
    write = text_tokens if text == "aligned" else plain_tokens
    rows = []
    for i, (phones, frames, length) in enumerate(((5, 22, 12), (3, 15, 8), (4, 13, 9), (4, 20, 0))):
        g = torch.Generator().manual_seed(i)
        mel = torch.randn(length + frames, bands, generator=g)
        prompt = torch.randint(1, PHONES, (3 if length else 0,), generator=g)
        target = torch.randint(1, PHONES, (phones,), generator=g)
        rows.append((mel, write(prompt, target, len(mel)), length))
    return collate(rows, ("a", "b", "c", "d"))


def batch_for(inputs: Inputs, task: str) -> Batch:
    """A batch of what a network is given: its bands, its way with texts or tokens, and vectors of the speakers."""
    if task == "text2mel":
        found = make_text_batch(inputs.bands(task), inputs.text)
    else:
        found = _spread(make_batch(bands=inputs.mel.bands), inputs.frames_per_token)
    if inputs.speaker_dims is None:
        return found
    voices = torch.randn(len(found.x1), inputs.speaker_dims, generator=torch.Generator().manual_seed(1))
    return replace(found, condition=replace(found.condition, speaker=voices))


def _spread(batch: Batch, times: int) -> Batch:
    """Every token on so many frames, each with a mel of its own."""
    if times == 1:
        return batch
    c = batch.condition
    tokens, prompt, valid = (x.repeat_interleave(times, 1) for x in (c.tokens, c.prompt, c.valid))
    x1 = torch.randn(*valid.shape, batch.x1.shape[2], generator=torch.Generator().manual_seed(2))
    return Batch(x1, Condition(tokens, x1 * prompt[..., None], prompt, valid, c.dropped), batch.ids)


def make_state(batch: Batch, seed: int = 0, progress: float = 0.5) -> State:
    """The state of a step whose global batch is ``batch``."""
    generator = torch.Generator().manual_seed(seed)
    return State(10, progress, generator, float(batch.target.sum()), float(len(batch.x1)))


def query(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """What a sampling step asks for: noise in the batch's shape, t = 0.25, r = 0.75."""
    z = torch.randn(batch.x1.shape, generator=torch.Generator().manual_seed(3))
    return z, torch.full((len(z),), 0.25), torch.full((len(z),), 0.75)


def row_alone(batch: Batch, row: int) -> tuple[Condition, int]:
    """The condition of one row without the others and without padding, and its number of frames."""
    frames = int(batch.condition.valid[row].sum())
    alone = batch.condition.rows(torch.tensor([row]))
    of_frames = {name: getattr(alone, name)[:, :frames] for name in ("tokens", "prompt_mel", "prompt", "valid")}
    return replace(alone, **of_frames), frames


def fill(network: nn.Module) -> None:
    """Random numbers for the weights that start at zero or one: an untrained network answers zero, which hides mistakes."""
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim < 2 or not parameter.any():
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=g))
