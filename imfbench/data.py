"""Utterances and batches: what a dataset gives to training and to sampling."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import soundfile
import torch
from torch import Tensor

from imfbench.features.alignment import BOUNDARY, alignment_band
from imfbench.inputs import EMBEDDED, Inputs
from imfbench.method import Batch, Condition


class DatasetError(ValueError):
    """A dataset that cannot be used as it is; the message names the file, the row or line, and the remedy."""


NO_RECORDING = "the dataset holds no recording of this utterance: add one to its list, or leave out the reference"
"""Why an utterance has no row among the ground truth."""

LEAST_POOL = 96
"""Training rows that are drawn together, so that those of like length can share a batch."""


@dataclass(frozen=True, slots=True)
class Utterance:
    """A row of a test set: a text to say in a prompt's voice.

    Attributes:
        id: Names its files; unique in the set.
        text: What is to be said, as the list has it.
        language: "en" or "zh".
        speaker: Whose voice; where a list names none, what stands for it (see ``imfbench.datasets.lists.speaker_of``).
        prompt_id: The prompt's name.
        prompt_text: What the prompt says; may be empty.
        prompt_audio: The prompt's recording.
        target_audio: A recording of the text by the same speaker, where there is one.
        seconds: The target's true length; None where the list does not tell it (see ``length_of``).
    """

    id: str
    text: str
    language: str
    speaker: str
    prompt_id: str
    prompt_text: str
    prompt_audio: Path
    target_audio: Path | None
    seconds: float | None


def length_of(utterance: Utterance) -> float | None:
    """The target's true length in seconds: the list's, or that of the recording by its header; None if neither is there."""
    if utterance.seconds is not None or utterance.target_audio is None:
        return utterance.seconds
    return seconds_of(utterance.target_audio)


def seconds_of(path: Path) -> float | None:
    """A recording's length by its header; None if it cannot be read, which is told where the recording is needed."""
    try:
        return float(soundfile.info(path).duration) or None
    except (OSError, soundfile.SoundFileError):
        return None


@dataclass(frozen=True)
class SetCard:
    """What is known of one set of a dataset as it was published.

    Attributes:
        size: Utterances; None where everybody has their own.
        language: "en", "zh", or "en, zh" where rows have either.
        speakers: How many there are, where that is known.
        prompts: How many recordings serve as prompts, where that is known.
    """

    size: int | None
    language: str
    speakers: int | None = None
    prompts: int | None = None


@dataclass(frozen=True)
class DatasetCard:
    """What a user has to know of a dataset before having it.

    Attributes:
        sets: Name of a set → what is known of it; the first is meant where none is named.
        licence: Of texts and recordings.
        source: Where to get it.
        layout: Which files are read, below the folder that is given.
    """

    sets: Mapping[str, SetCard]
    licence: str
    source: str
    layout: str


def sets_of(dataset: Any) -> list[str]:
    """The names of a dataset's test sets, of a class or an instance; the first is meant where none is named."""
    card = getattr(dataset, "card", None)
    return list(card.sets) if isinstance(card, DatasetCard) else ["test"]


def revision_of(dataset: Any, split: str) -> str:
    """What stands for the content of a set in keys and tables: of this set alone where the dataset tells it apart."""
    found = getattr(dataset, "revision_of", None)
    return str(dataset.revision if found is None else found(split))


@dataclass(frozen=True)
class Example:
    """A training utterance.

    Attributes:
        id: Its name.
        speaker: Who speaks.
        mel: Normalised, (frames, bands).
        tokens: token2mel: the content of each frame, (frames,). text2mel: the phones, (phones,).
        ends: text2mel: where each phone ends, in frames, (phones,); training alone may know it.
        voice: A vector of the speaker, (dims,), for networks that take one.
    """

    id: str
    speaker: str
    mel: Tensor
    tokens: Tensor
    ends: Tensor | None = None
    voice: Tensor | None = None


def join(
    prompt: Example, target: Example, start: int, length: int, inputs: Inputs = EMBEDDED
) -> tuple[Tensor, Tensor, int]:
    """Frames ``start`` … ``start + length`` of the prompt before the target: mel, tokens, prompt frames.

    In text2mel the cut moves to the nearest phone boundaries, and the mel gets its alignment band where the network has one;
    nobody knows where a character ends, so that a prompt of characters is whole. In token2mel the cut moves to whole tokens.
    """
    if inputs.characters is not None:
        mel = torch.cat([prompt.mel, target.mel])
        space = prompt.tokens.new_tensor([1, 1])
        return mel, plain_tokens(torch.cat([prompt.tokens, space]), target.tokens, len(mel)), len(prompt.mel)
    if prompt.ends is not None and target.ends is not None:
        borders = torch.cat([prompt.ends.new_zeros(1), prompt.ends])
        first = int((borders[:-1] - start).abs().argmin())
        last = max(first + 1, int((borders - start - length).abs().argmin()))
        begin, end = round(float(borders[first])), round(float(borders[last]))
        if inputs.text == "plain":
            mel = torch.cat([prompt.mel[begin:end], target.mel])
            return mel, plain_tokens(prompt.tokens[first:last], target.tokens, len(mel)), end - begin
        band = alignment_band(target.ends, len(target.mel))
        mel = torch.cat([extended(prompt.mel[begin:end]), torch.cat([target.mel, band], 1)])
        return mel, text_tokens(prompt.tokens[first:last], target.tokens, len(mel)), end - begin
    start, length = (x - x % inputs.frames_per_token for x in (start, length))
    cut = slice(start, start + length)
    return torch.cat([prompt.mel[cut], target.mel]), torch.cat([prompt.tokens[cut], target.tokens]), length


def extended(mel: Tensor) -> Tensor:
    """A mel with an alignment band of zeros: "not known"."""
    return torch.cat([mel, mel.new_zeros(len(mel), 1)], 1)


def text_tokens(prompt: Tensor, target: Tensor, frames: int) -> Tensor:
    """The prompt's phones, ``BOUNDARY``, the target's phones, then zeros: (frames,), the form of F5-TTS's text input.

    Raises:
        ValueError: There are more phones than frames.
    """
    return plain_tokens(torch.cat([prompt, prompt.new_tensor([BOUNDARY])]), target, frames)


def plain_tokens(prompt: Tensor, target: Tensor, frames: int) -> Tensor:
    """The same without ``BOUNDARY``: one text, as F5-TTS reads prompt and target."""
    tokens = torch.cat([prompt, target])
    if len(tokens) > frames:
        raise ValueError(
            f"{len(tokens)} phones do not fit into {frames} mel frames: the length is too short for the text"
        )
    return torch.cat([tokens, tokens.new_zeros(frames - len(tokens))])


def collate(
    rows: list[tuple[Tensor, Tensor, int]], ids: tuple[str, ...], voices: list[Tensor | None] | None = None
) -> Batch:
    """Pad rows of (mel, tokens, prompt frames) to one batch; ``voices``, one vector for each row, where a network takes them."""
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
    known = [voice for voice in voices or () if voice is not None]
    speaker = torch.stack(known) if known else None
    dropped = torch.zeros(len(rows), dtype=torch.bool)
    return Batch(x1, Condition(tokens, x1 * prompt[..., None], prompt, valid, dropped, speaker), ids)


def make_condition(
    prompt_mel: Tensor, prompt_tokens: Tensor, target_tokens: Tensor, voice: Tensor | None = None
) -> Condition:
    """The condition of one utterance of token2mel, a batch of 1: the prompt's frames, then the target's; the speaker's vector."""
    found = _condition(prompt_mel, torch.cat([prompt_tokens, target_tokens]))
    return found if voice is None else replace(found, speaker=voice[None])


def make_text_condition(
    prompt_mel: Tensor, prompt: Tensor, target: Tensor, frames: int, text: str = "aligned"
) -> Condition:
    """The condition of one utterance of text2mel, a batch of 1.

    Args:
        prompt_mel: (prompt frames, bands).
        prompt: Its phones.
        target: The phones to say.
        frames: Mel frames to generate: the only thing that is told about the target's timing.
        text: How the network is given texts (``Inputs.text``).
    """
    total = len(prompt_mel) + frames
    if text == "plain":
        return _condition(prompt_mel, plain_tokens(prompt, target, total))
    return _condition(extended(prompt_mel), text_tokens(prompt, target, total))


def _condition(prompt_mel: Tensor, tokens: Tensor) -> Condition:
    length, frames = len(prompt_mel), len(tokens)
    tokens = tokens[None]
    mel = torch.zeros(1, frames, prompt_mel.shape[1])
    mel[0, :length] = prompt_mel
    prompt = (torch.arange(frames) < length)[None]
    return Condition(tokens, mel, prompt, torch.ones_like(prompt), torch.zeros(1, dtype=torch.bool))


def training_batches(
    examples: list[Example],
    frames_per_batch: int,
    seed: int,
    start_step: int = 0,
    seconds_per_frame: float | None = None,
    pool: int | None = None,
    inputs: Inputs = EMBEDDED,
    stride: int = 1,
) -> Iterator[Batch]:
    """Endless batches of (prompt by the same speaker, target); batch k depends on (seed, k) alone, so training can resume.

    Args:
        examples: Training utterances; every speaker needs two.
        frames_per_batch: Frames of a batch, prompts and padding included (at least one row is given).
        seed: Source of all draws.
        start_step: Batches to skip.
        seconds_per_frame: For the prompts' lengths: a cut of 1 to 4 s, or in one row of five all of it. The mel's if None.
        pool: Rows drawn together and sorted by length, so that a batch has little padding; None: ``LEAST_POOL``, or
            four batches' worth where that is more, since no batch holds more than a pool.
        inputs: What the networks are given.
        stride: Give every so many-th batch from there on: what one of several processes takes.
    """
    each = seconds_per_frame or inputs.mel.seconds_per_frame
    speakers: dict[str, list[int]] = {}
    for i, example in enumerate(examples):
        speakers.setdefault(example.speaker, []).append(i)
    usable = [i for i, example in enumerate(examples) if len(speakers[example.speaker]) > 1]
    if not usable:
        raise ValueError("no training speaker has two utterances, so none can serve as another's prompt")
    if pool is None:
        mean = (
            2 * sum(len(examples[i].mel) for i in usable) / len(usable)
        )  # a prompt is an utterance as well, if not cut
        pool = max(LEAST_POOL, math.ceil(4 * frames_per_batch / mean))
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
            wanted = available if draw.random() < 0.2 else int(draw.uniform(1.0, 4.0) / each)
            length = (
                available if inputs.characters is not None else min(wanted, available)
            )  # ``join`` cuts no characters
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
            if done > start_step and (done - start_step - 1) % stride == 0:
                yield collate(
                    [join(examples[p], examples[t], start, length, inputs) for p, t, start, length in rows],
                    tuple(examples[t].id for _, t, _, _ in rows),
                    [examples[p].voice for p, *_ in rows],
                )
