"""Sets made of the embedded test set: noisy prompts, long texts, voices held out."""

from __future__ import annotations

import numpy as np
import pytest

from imfbench.datasets.demo.corpus import DemoCorpus
from imfbench.datasets.demo.harder import LONG, SNR, with_noise
from imfbench.features.audio import load_audio


@pytest.fixture(scope="module")
def corpus() -> DemoCorpus:
    return DemoCorpus()


def test_noise_has_its_level_and_is_the_same_again(corpus: DemoCorpus) -> None:
    speech, _ = load_audio(corpus.utterances("test")[0].prompt_audio)
    noise = with_noise(speech, "a") - speech
    assert 10 * np.log10((speech**2).mean() / (noise**2).mean()) == pytest.approx(SNR, abs=0.1)
    assert np.array_equal(with_noise(speech, "a"), with_noise(speech, "a"))
    assert not np.array_equal(with_noise(speech, "a"), with_noise(speech, "b"))


def test_a_noisy_prompt_changes_the_prompts_mel_alone(corpus: DemoCorpus) -> None:
    clean, noisy = corpus.utterances("test")[3], corpus.utterances("noisy")[3]
    assert noisy.id == f"noisy-{clean.id}"
    assert noisy.prompt_audio == clean.prompt_audio  # similarity is to the clean recording
    one, other = corpus.condition(clean), corpus.condition(noisy)
    assert (one.tokens == other.tokens).all()
    quiet = other.prompt_mel[other.prompt].min() - one.prompt_mel[one.prompt].min()
    assert quiet > 0.5  # silence is filled


@pytest.mark.parametrize("task", ["token2mel", "text2mel"])
@pytest.mark.parametrize("name", LONG)
def test_long_texts_are_sentences_of_one_voice_in_a_row(task: str, name: str) -> None:
    corpus = DemoCorpus(task=task)  # type: ignore[arg-type]
    single = {u.id: u for u in corpus.utterances("test")}
    found = corpus.utterances(name)
    assert len(found) == corpus.card.sets[name].size
    assert len({u.id for u in found}) == len(found)
    first = found[1]
    parts = [u for u in single.values() if u.speaker == first.speaker][LONG[name] : 2 * LONG[name]]
    assert first.text == " ".join(u.text for u in parts)
    assert first.seconds == pytest.approx(sum(u.seconds or 0 for u in parts))
    condition = corpus.condition(first)
    alone = [corpus.condition(u) for u in parts]
    frames = [int((~c.prompt).sum()) for c in (condition, *alone)]
    assert abs(frames[0] - sum(frames[1:])) <= LONG[name]
    mean = np.mean([row["seconds"] for row in corpus._alignments("train").values()])
    assert np.mean([u.seconds for u in found]) / mean == pytest.approx(LONG[name], rel=0.12)


def test_two_silences_that_meet_are_one(corpus: DemoCorpus) -> None:
    row = corpus._long_rows("long2")["long2-test-af_sarah-000"]
    parts = [corpus._alignments("test")[f"test-af_sarah-00{i}"] for i in (0, 1)]
    assert sum(row["frames"]) == sum(sum(part["frames"]) for part in parts)
    assert len(row["phones"]) == len(row["frames"]) == sum(len(part["phones"]) for part in parts) - 1
    assert all(a != "_" or b != "_" for a, b in zip(row["phones"], row["phones"][1:], strict=False))


def test_voices_held_out_are_in_no_training_and_alone_in_the_sets(corpus: DemoCorpus) -> None:
    british = DemoCorpus(held_out=("b",))
    assert {row["speaker"][0] for row, _ in british._training_rows()} == {"a"}
    assert {u.speaker for u in british.utterances("test")} == {"bf_emma", "bm_george"}
    assert {row["speaker"][0] for row, _ in corpus._training_rows()} == {"a", "b"}
    assert (corpus.variant, british.variant) == ("", "voices b")
