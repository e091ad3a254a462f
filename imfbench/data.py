"""Utterances and batches: what a dataset gives to training and to sampling."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from imfbench.method import Batch, Condition


@dataclass(frozen=True)
class Utterance:
    """A row of a test set: a text to say in a prompt's voice. ``seconds`` is the target's true length."""

    id: str
    text: str
    language: str
    speaker: str
    prompt_id: str
    prompt_text: str
    prompt_audio: Path
    target_audio: Path | None
    seconds: float


@dataclass(frozen=True)
class Example:
    """A training utterance: normalised ``mel`` (frames, bands), ``tokens`` (frames,), and who speaks."""

    id: str
    speaker: str
    mel: Tensor
    tokens: Tensor


def join(prompt: Example, target: Example, start: int, length: int) -> tuple[Tensor, Tensor, int]:
    """Frames ``start`` … ``start + length`` of the prompt before the target: mel, tokens, prompt frames."""
    cut = slice(start, start + length)
    return torch.cat([prompt.mel[cut], target.mel]), torch.cat([prompt.tokens[cut], target.tokens]), length


def collate(rows: list[tuple[Tensor, Tensor, int]], ids: tuple[str, ...]) -> Batch:
    """Pad rows of (mel, tokens, prompt frames) to one batch."""
    frames = max(len(mel) for mel, _, _ in rows)
    x1 = torch.zeros(len(rows), frames, rows[0][0].shape[1])
    tokens = torch.zeros(len(rows), frames, dtype=torch.int64)
    prompt = torch.zeros(len(rows), frames, dtype=torch.bool)
    valid = torch.zeros(len(rows), frames, dtype=torch.bool)
    for i, (mel, row, length) in enumerate(rows):
        x1[i, : len(mel)] = mel
        tokens[i, : len(row)] = row
        prompt[i, :length] = True
        valid[i, : len(mel)] = True
    condition = Condition(tokens, x1 * prompt[..., None], prompt, valid, torch.zeros(len(rows), dtype=torch.bool))
    return Batch(x1, condition, ids)


def make_condition(prompt_mel: Tensor, prompt_tokens: Tensor, target_tokens: Tensor) -> Condition:
    """The condition of one utterance to synthesise, a batch of 1: the prompt's frames, then the target's."""
    tokens = torch.cat([prompt_tokens, target_tokens])[None]
    length, frames = len(prompt_tokens), tokens.shape[1]
    mel = torch.zeros(1, frames, prompt_mel.shape[1])
    mel[0, :length] = prompt_mel
    prompt = (torch.arange(frames) < length)[None]
    return Condition(tokens, mel, prompt, torch.ones_like(prompt), torch.zeros(1, dtype=torch.bool))


def training_batches(
    examples: list[Example],
    frames_per_batch: int,
    seed: int,
    start_step: int = 0,
    seconds_per_frame: float = 256 / 22_050,
    pool: int = 96,
) -> Iterator[Batch]:
    """Endless batches of (prompt by the same speaker, target); batch k depends on (seed, k) alone, so training can resume.

    Args:
        examples: Training utterances; every speaker needs two.
        frames_per_batch: Frames of a batch, prompts and padding included (at least one row is given).
        seed: Source of all draws.
        start_step: Batches to skip.
        seconds_per_frame: For the prompts' lengths: a cut of 1 to 3 s, or in one row of five the whole utterance.
        pool: Rows drawn together and sorted by length, so that a batch has little padding.
    """
    speakers: dict[str, list[int]] = {}
    for i, example in enumerate(examples):
        speakers.setdefault(example.speaker, []).append(i)
    usable = [i for i, example in enumerate(examples) if len(speakers[example.speaker]) > 1]
    if not usable:
        raise ValueError("no training speaker has two utterances, so none can serve as another's prompt")
    done, round_number = 0, 0
    while True:
        draw = random.Random(f"{seed}/{round_number}")
        round_number += 1
        plan: list[tuple[int, int, int, int]] = []  # prompt, target, first prompt frame, prompt frames
        for target in draw.choices(usable, k=pool):
            prompt = target
            while prompt == target:
                prompt = draw.choice(speakers[examples[target].speaker])
            available = len(examples[prompt].mel)
            wanted = available if draw.random() < 0.2 else int(draw.uniform(1.0, 3.0) / seconds_per_frame)
            length = min(wanted, available)
            plan.append((prompt, target, draw.randint(0, available - length), length))
        plan.sort(key=lambda row: row[3] + len(examples[row[1]].mel))
        batches: list[list[tuple[int, int, int, int]]] = [[]]
        for row in plan:
            longest = row[3] + len(examples[row[1]].mel)  # rows are sorted: the last is the longest
            if batches[-1] and (len(batches[-1]) + 1) * longest > frames_per_batch:
                batches.append([])
            batches[-1].append(row)
        draw.shuffle(batches)
        for rows in batches:
            done += 1
            if done > start_step:
                yield collate(
                    [join(examples[p], examples[t], start, length) for p, t, start, length in rows],
                    tuple(examples[t].id for _, t, _, _ in rows),
                )
