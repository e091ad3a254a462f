from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from imfbench import weights
from imfbench.metrics import ScoreError, ScoreItem
from imfbench.metrics.recognisers import Decoding, FasterWhisper
from imfbench.metrics.wer import WordErrorRate

Items = Callable[[int], list[ScoreItem]]


@pytest.fixture(scope="module")
def wer() -> Iterator[WordErrorRate]:
    metric = WordErrorRate(threads=1)
    with metric.loaded():
        yield metric


@pytest.fixture(scope="module")
def heard(wer: WordErrorRate, demo_test_items: Items) -> list[tuple[ScoreItem, dict[str, str]]]:
    return [(item, wer.observe(item)) for item in demo_test_items(8)]


def text_item(text: str, language: str = "en") -> ScoreItem:
    return ScoreItem("x", np.zeros(16000, np.float32), 16000, text, language)


def edits_of(metric: WordErrorRate, reference: str, hypothesis: str) -> tuple[float, int, int, int, int]:
    row = metric.row(text_item(reference, metric.config.language), {"hypothesis": hypothesis})
    assert tuple(row) == metric.columns
    return row["wer"], row["substitutions"], row["deletions"], row["insertions"], row["reference_words"]


# ---- with Whisper base, on the embedded test set ----


def test_ground_truth_scores_almost_nothing(wer: WordErrorRate, heard: list) -> None:
    summary = wer.summarise(pd.DataFrame([wer.score(item, observed) | {"id": item.id} for item, observed in heard]))
    assert summary["wer_n"] == 8
    assert summary["wer"] <= 0.05  # 20 utterances gave .012
    assert summary["wer_above_half"] == 0
    assert summary["wer_low"] <= summary["wer"] <= summary["wer_high"]


def test_scrambled_words_and_the_text_of_another_utterance_score_badly(wer: WordErrorRate, heard: list) -> None:
    scrambled, strange = [], []
    for k, (item, observed) in enumerate(heard):
        words = item.text.strip(".?!").split()
        scrambled.append(wer.score(replace(item, text=" ".join(words[::-1])), observed))
        strange.append(wer.score(replace(item, text=heard[k - 1][0].text), observed))
    assert wer.summarise(pd.DataFrame(scrambled))["wer"] > 0.6
    assert wer.summarise(pd.DataFrame(strange))["wer"] > 0.8


def test_half_of_the_audio_misses_about_half_of_the_words(wer: WordErrorRate, heard: list) -> None:
    item = heard[0][0]
    row = wer.score(replace(item, audio=item.audio[: len(item.audio) // 2]))
    assert 0.25 <= row["deletions"] / row["reference_words"] <= 0.75
    assert row["insertions"] == 0


def test_silence_counts_as_deletions_and_noise_is_not_understood(wer: WordErrorRate, heard: list) -> None:
    item = heard[0][0]
    silent = wer.score(replace(item, audio=np.zeros_like(item.audio)))
    # In int8, processors with AMX hear Whisper's usual "you" where others hear nothing: no word of the text either way.
    assert silent["hypothesis"].lower().strip(" .") in ("", "you")
    assert (silent["wer"], silent["insertions"]) == (1.0, 0)
    assert silent["deletions"] + silent["substitutions"] == silent["reference_words"]
    noise = np.random.default_rng(0).normal(0, 0.1, len(item.audio)).astype(np.float32)
    assert wer.score(replace(item, audio=noise))["wer"] >= 0.9


def test_the_same_audio_is_heard_the_same_twice(wer: WordErrorRate, heard: list) -> None:
    item, observed = heard[1]
    assert wer.observe(item) == observed


# ---- edits and normalisation, without a model ----


def test_edits_have_known_counts() -> None:
    metric = WordErrorRate()
    assert edits_of(metric, "The cat sat down.", "the cat sat down") == (0, 0, 0, 0, 4)
    assert edits_of(metric, "the cat sat down", "the dog sat") == (0.5, 1, 1, 0, 4)
    assert edits_of(metric, "the cat", "oh the big big cat") == (1.5, 0, 0, 3, 2)
    assert edits_of(metric, "the cat sat", "") == (1, 0, 3, 0, 3)
    assert edits_of(metric, "the cat sat", "...") == (1, 0, 3, 0, 3)


@pytest.mark.parametrize(
    ("reference", "hypothesis"),
    [
        ("one hundred and twenty three dollars", "$123"),
        ("We won't; it's Mr. Brown's colour.", "we will not it is mister brown is color"),
        ("Twenty-one, um, cafés", "21 cafes"),
        ("the first of May", "the 1st of May"),
    ],
)
def test_spelling_numbers_and_contractions_are_no_errors(reference: str, hypothesis: str) -> None:
    assert edits_of(WordErrorRate(), reference, hypothesis)[0] == 0


@pytest.mark.parametrize("text", ["", "  ", "...", "[laughs]"])
def test_a_reference_that_normalises_to_nothing_is_a_failed_row(text: str) -> None:
    with pytest.raises(ScoreError, match="normalises to nothing"):
        edits_of(WordErrorRate(), text, "hello")


def test_chinese_is_scored_by_characters() -> None:
    metric = WordErrorRate(WordErrorRate.Config(language="zh"))
    assert edits_of(metric, "今天天气很好。", "今天 天气很坏") == (1 / 6, 1, 0, 0, 6)
    assert "norm:whisper-characters@" in metric.signature
    assert "language:zh" in metric.signature


def test_summary_holds_corpus_and_mean_of_unequal_utterances() -> None:
    metric = WordErrorRate()
    short = metric.row(text_item("stop"), {"hypothesis": "go"})
    long = metric.row(text_item("a b c d e f g h i"), {"hypothesis": "a b c d e f g h i"})
    failed = {"wer": None, "substitutions": None}
    summary = metric.summarise(pd.DataFrame([short, long, failed]))
    assert summary["wer"] == summary["wer_corpus"] == pytest.approx(1 / 10)
    assert summary["wer_mean"] == pytest.approx(1 / 2)
    assert summary["wer_above_half"] == pytest.approx(1 / 2)
    assert summary["wer_n"] == summary["wer_mean_n"] == 2


def test_noise_seeds_are_averaged_and_are_no_further_utterances() -> None:
    metric = WordErrorRate()
    rows = [
        metric.row(text_item("a b c d"), {"hypothesis": heard}) | {"id": utt, "noise_seed": seed}
        for utt, seed, heard in [("p", 0, "a b c d"), ("p", 1, "a b"), ("q", 0, "a b c d"), ("q", 1, "a b c d")]
    ]
    summary = metric.summarise(pd.DataFrame(rows))
    assert summary["wer"] == pytest.approx(2 / 16)
    assert summary["wer_n"] == 2


def test_a_run_of_failures_has_no_figure() -> None:
    summary = WordErrorRate().summarise(pd.DataFrame({"id": ["a"], "status": ["failed: no audio"]}))
    assert np.isnan(summary["wer"])
    assert summary["wer_n"] == 0


# ---- signature, cache key, messages ----


def test_signature_says_how_the_figure_was_made() -> None:
    signature = WordErrorRate().signature
    for part in ("wer-v1", "asr:faster-whisper-base@d01c3014", "compute:int8", "beam:5", "temperature:0", "agg:corpus"):
        assert part in signature.split("|")
    assert signature.parts["norm"].startswith("whisper-en@")
    assert signature.startswith(str(WordErrorRate().model_signature))


def test_a_path_to_the_same_model_has_the_same_signature() -> None:
    folder = weights.find("whisper-base")
    config = WordErrorRate.Config(asr="anything", asr_path=folder)
    assert WordErrorRate(config).signature == WordErrorRate().signature


def test_other_decoding_has_another_signature() -> None:
    settings = ("whisper-base", None, "auto", "cpu")
    plain = FasterWhisper(Decoding(), *settings).parts()
    preset = FasterWhisper(Decoding(beam=1, temperatures=(0.0, 0.2), previous_text=True), *settings).parts()
    assert {key for key in plain if plain[key] != preset[key]} == {"beam", "temperature", "context"}
    assert preset["temperature"] == "0,0.2"


def test_a_device_that_the_recogniser_does_not_know_falls_back_to_the_cpu_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert "compute:int8" in WordErrorRate(device="mps").signature
    assert "runs on the CPU" in caplog.text


def test_cache_key_depends_on_all_that_is_heard_and_on_nothing_else() -> None:
    metric, item = WordErrorRate(), text_item("one two")
    key = metric.cache_key(item)
    assert metric.cache_key(replace(item, text="three", id="y")) == key
    assert metric.cache_key(replace(item, audio=item.audio + np.float32(1e-4))) != key
    assert metric.cache_key(replace(item, sample_rate=24000)) != key
    assert WordErrorRate(WordErrorRate.Config(language="zh")).cache_key(item) != key


def test_messages_name_the_remedy() -> None:
    with pytest.raises(weights.MissingModelError, match=r"'larg-v3'.*did you mean 'large-v3'"):
        _ = WordErrorRate(WordErrorRate.Config(asr="larg-v3")).signature
    with pytest.raises(ValueError, match=r"unknown WER protocol 'imfbnch'.*'imfbench'"):
        WordErrorRate.Config(protocol="imfbnch")
    with pytest.raises(RuntimeError, match=r"with metric\.loaded"):
        WordErrorRate().observe(text_item("hello"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"language": "zh"}, r"metrics\.wer\.language"),
        ({"audio": np.zeros(0, np.float32)}, "empty"),
        ({"audio": np.full(16000, np.nan, np.float32)}, "not finite"),
        ({"audio": np.zeros((2, 16000), np.float32)}, "mono"),
    ],
)
def test_what_cannot_be_heard_is_a_failed_row_with_its_reason(
    wer: WordErrorRate, change: dict[str, object], reason: str
) -> None:
    with pytest.raises(ScoreError, match=reason):
        wer.score(replace(text_item("hello"), **change))


def test_unloading_frees_the_model() -> None:
    metric = WordErrorRate(threads=1)
    with metric.loaded():
        assert metric.model is not None
    with pytest.raises(RuntimeError, match="not loaded"):
        _ = metric.model
