"""Batches of utterances of similar length, and which of their frames a network is to fill in.

All of it depends on a seed and on numbers alone, so that a batch is the same in every process and after every interruption.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence

RATIO = 1.06
"""Lengths of one bucket lie within this ratio: what a batch has of padding at most, where it is of one bucket."""


def batches_of_rows(
    frames: Sequence[int], frames_per_batch: int, max_samples: int, seed: int, start: int = 0
) -> Iterator[tuple[int, list[int]]]:
    """Endless batches of row numbers: every row once, in another order each time.

    Rows are put into buckets of similar length and shuffled within; neighbours become a batch as long as rows × longest, the
    padding included, is within ``frames_per_batch``; the batches are shuffled. F5-TTS's sampler sorts once instead, so that the
    same rows meet in every epoch.

    Args:
        frames: Of each row, 1 at least.
        frames_per_batch: Of a batch, padding included; a row that is longer is a batch of its own.
        max_samples: Rows of a batch at most.
        seed: Of the order.
        start: Batches to skip.

    Yields:
        A batch's number, from 0, and its rows.
    """
    number, epoch = 0, 0
    while True:
        for rows in _epoch(frames, frames_per_batch, max_samples, random.Random(f"{seed}/{epoch}")):
            if number >= start:
                yield number, rows
            number += 1
        epoch += 1


def _epoch(frames: Sequence[int], frames_per_batch: int, max_samples: int, draw: random.Random) -> list[list[int]]:
    shift = draw.random()  # buckets begin elsewhere each time: neighbours at an edge meet too
    order = sorted(
        ((int(math.log(length) / math.log(RATIO) + shift), draw.random(), i) for i, length in enumerate(frames)),
        key=lambda row: row[:2],
    )
    batches: list[list[int]] = []
    longest = 0
    for _, _, i in order:
        length = max(longest, frames[i])
        if not batches or len(batches[-1]) == max_samples or (len(batches[-1]) + 1) * length > frames_per_batch:
            batches.append([])
            length = frames[i]
        batches[-1].append(i)
        longest = length
    draw.shuffle(batches)
    return batches


def infilling_span(frames: int, shares: tuple[float, float], draw: random.Random) -> tuple[int, int]:
    """First frame and length of what is to be filled in, F5-TTS's way: a share of the frames, anywhere; at least one.

    Args:
        frames: Of the utterance.
        shares: The least and the largest share, drawn from uniformly; F5-TTS: .7 to 1.
        draw: The random source.
    """
    length = max(1, int(draw.uniform(*shares) * frames))
    return int(draw.random() * (frames - length)), length


def prompt_frames(frames: int, share_of_rows: float, longest: float, draw: random.Random) -> int:
    """Frames at the beginning that are given, CosyVoice 2's way: none in some rows, up to a share of the frames in others.

    Args:
        frames: Of the utterance.
        share_of_rows: Of rows that have a prompt; CosyVoice 2: half.
        longest: The largest share of the frames; CosyVoice 2: .3.
        draw: The random source.
    """
    if draw.random() >= share_of_rows:
        return 0
    return draw.randint(0, int(longest * frames))
