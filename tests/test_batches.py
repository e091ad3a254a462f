"""Training batches are as large as was asked, whatever the networks are given, and for those that ship always the same ones."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator

import pytest
import torch

from imfbench.data import LEAST_POOL, Example, training_batches
from imfbench.features.mel import VOCOS
from imfbench.inputs import EMBEDDED, Inputs
from imfbench.method import Batch

CHARACTERS = Inputs(VOCOS, "plain", vocabulary=40, characters=tuple("abcdefghijklmnopqrstuvwxyz .,"))
FRAMES = 1400


def examples(inputs: Inputs, ends: bool = False) -> list[Example]:
    """Utterances of 1 to 6 s by two speakers, of short texts; the embedded text2mel network is told where phones end."""
    g, found = torch.Generator().manual_seed(0), []
    for i in range(12):
        frames = 100 + 45 * i
        contents = frames if not ends and inputs.characters is None else 20
        tokens = torch.randint(1, 20, (contents,), generator=g)
        each = torch.linspace(frames / 20, frames, 20).round() if ends else None
        found.append(Example(f"e{i}", f"s{i % 2}", torch.randn(frames, inputs.mel.bands, generator=g), tokens, each))
    return found


def batches(inputs: Inputs, ends: bool = False) -> Iterator[Batch]:
    return itertools.islice(training_batches(examples(inputs, ends), FRAMES, 3, inputs=inputs), 40)


def test_batches_of_characters_are_planned_with_whole_prompts() -> None:
    """No one knows where a character ends, so that prompts are not cut: with their padding they are no larger than asked."""
    several = 0
    for batch in batches(CHARACTERS):
        rows, frames, _ = batch.x1.shape
        assert rows == 1 or rows * frames <= FRAMES
        several += rows > 1
    assert several >= 5


def test_a_large_batch_is_filled_whatever_the_rows_that_are_drawn_together() -> None:
    found = list(itertools.islice(training_batches(examples(EMBEDDED, False), 60_000, 3, inputs=EMBEDDED), 4))
    assert max(len(batch.x1) for batch in found) > LEAST_POOL
    filled = sorted(batch.x1.shape[0] * batch.x1.shape[1] / 60_000 for batch in found)
    assert filled[1] > 0.8, "all but the last of those that were drawn together"


@pytest.mark.parametrize(("ends", "digest"), [(False, "683a812dabe7c009"), (True, "9722b468dff747cf")])
def test_the_embedded_networks_batches_are_what_they_were(ends: bool, digest: str) -> None:
    """Trainings of theirs that go on, or are done again, learn from the same rows with the same cuts."""
    found = hashlib.sha256()
    for batch in batches(EMBEDDED, ends):
        found.update(f"{batch.ids} {tuple(batch.x1.shape)} {batch.condition.prompt.sum(1).tolist()}".encode())
        found.update(batch.condition.tokens.numpy().tobytes())
    assert found.hexdigest()[:16] == digest
