"""The embedded corpus holds what its card says, and gives away nothing of the target."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import islice
from typing import Literal

import pytest
import soundfile
import torch

from imfbench.data import Example, training_batches
from imfbench.datasets.demo.build import DEV_VOICES, TEST_VOICES, read_sentences, training_sentences
from imfbench.datasets.demo.corpus import DemoCorpus
from imfbench.features import mel
from imfbench.method import Condition


def same(one: Condition, other: Condition) -> bool:
    return one.tensors.keys() == other.tensors.keys() and all(
        value.shape == other.tensors[name].shape and torch.equal(value, other.tensors[name])
        for name, value in one.tensors.items()
    )


@pytest.fixture(scope="module")
def corpus() -> DemoCorpus:
    return DemoCorpus()


def test_every_file_has_its_sha256(corpus: DemoCorpus) -> None:
    assert corpus.verify() == []


def test_sizes_and_lengths(corpus: DemoCorpus) -> None:
    for split, least in (("test", 160), ("dev", 40), ("hard", 30)):
        rows = corpus.utterances(split)
        assert len(rows) == corpus.card.sets[split].size >= least
        assert len({row.id for row in rows}) == len(rows)
    test = corpus.utterances("test")
    assert min(Counter(row.speaker for row in test).values()) >= 40
    assert all(2.5 <= row.seconds <= 7 for row in test)
    for row in {row.prompt_id: row for row in test}.values():
        assert 2 <= soundfile.info(row.prompt_audio).duration <= 4.5


def test_voices_and_sentences_of_the_splits_are_disjoint(corpus: DemoCorpus) -> None:
    trained = {row["speaker"] for row in corpus._alignments("train").values()}
    assert len(trained) == 22
    assert {row.speaker for row in corpus.utterances("test")} == set(TEST_VOICES)
    assert {row.speaker for row in corpus.utterances("dev")} == set(DEV_VOICES)
    assert not trained & set(TEST_VOICES + DEV_VOICES)
    seen = set(training_sentences())
    for split in ("test", "dev", "hard", "prompts"):
        assert not seen & set(read_sentences(split))


def test_audio_and_alignment_agree(corpus: DemoCorpus) -> None:
    for row in corpus.utterances("test")[::20]:
        truth = corpus._alignments("test")[row.id]
        assert sum(truth["frames"]) * 0.025 == pytest.approx(soundfile.info(row.target_audio).duration, abs=1e-3)
        frames = int((~corpus.condition(row).prompt).sum())
        assert abs(frames - len(corpus.target_mel(row))) <= 1


def test_the_condition_does_not_read_the_target(corpus: DemoCorpus) -> None:
    row = corpus.utterances("test")[0]
    found = corpus.condition(row)
    without = corpus.condition(replace(row, target_audio=None, text=""))
    assert same(found, without)
    assert found.prompt_mel[~found.prompt].abs().max() == 0


@pytest.mark.parametrize("length", ["truth", "prompt-rate"])
def test_a_text_does_not_tell_when_its_phones_are_said(length: Literal["truth", "prompt-rate"]) -> None:
    """The same condition from any durations of the target with the same sum, and by the prompt's rate from any at all."""
    corpus = DemoCorpus(task="text2mel", length=length)
    row = corpus.utterances("test")[0]
    truth, prompt = (corpus._alignments("test")[name] for name in (row.id, row.prompt_id))
    found, frames = corpus.condition(row), list(truth["frames"])
    truth["frames"] = frames[::-1]
    assert truth["frames"] != frames
    assert same(corpus.condition(row), found)
    truth["frames"] = [2 * duration for duration in frames]
    longer = corpus.condition(row)
    assert same(longer, found) == (length == "prompt-rate")
    spoken, made = int(found.prompt.sum()), int((~found.prompt).sum())
    if length == "prompt-rate":
        assert made == round(spoken / len(prompt["phones"]) * len(truth["phones"]))
    else:
        assert int((~longer.prompt).sum()) == pytest.approx(2 * made, abs=2)
        assert torch.equal(longer.tokens[0, : made + spoken], found.tokens[0]), "the length alone"


def test_batches_depend_on_seed_and_number_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    examples = [
        Example(
            f"e{i}", f"s{i % 3}", torch.randn(60 + 7 * i, 80, generator=generator), torch.full((60 + 7 * i,), i + 1)
        )
        for i in range(12)
    ]
    whole = list(islice(training_batches(examples, 800, seed=3), 8))
    resumed = list(islice(training_batches(examples, 800, seed=3, start_step=5), 3))
    for a, b in zip(whole[5:], resumed, strict=True):
        assert a.ids == b.ids
        assert torch.equal(a.x1, b.x1)
    other = next(training_batches(examples, 800, seed=4))
    assert whole[0].ids != other.ids
    for batch in whole:
        assert batch.x1.shape[0] * batch.x1.shape[1] <= 800 or len(batch.ids) == 1
        c = batch.condition
        assert bool((batch.target.sum(1) > 0).all())
        assert bool((c.prompt.sum(1) > 0).all())
        assert batch.x1[~c.valid].abs().sum() == 0
        for i, name in enumerate(batch.ids):  # prompt and target are two utterances of one speaker
            target = int(name[1:])
            prompt = int(c.tokens[i, 0]) - 1
            assert prompt != target
            assert prompt % 3 == target % 3
    assert mel.BANDS == 80
