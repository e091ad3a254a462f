"""Statistics over whole speakers: known answers, what is refused, and how often they are wrong."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from imfbench.metrics import clustered, stats
from imfbench.metrics.sim import SpeakerSimilarity
from imfbench.metrics.wer import WordErrorRate

SPEAKERS = 25


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def speakers_of(sizes: list[int]) -> np.ndarray:
    return np.repeat([f"voice{i}" for i in range(len(sizes))], sizes)


def test_with_one_utterance_a_speaker_it_is_the_usual_statistic() -> None:
    a, b, words = rng().poisson(2, 40), rng(1).poisson(1, 40), rng(2).integers(5, 15, 40)
    names = [str(i) for i in range(40)]
    assert clustered.bootstrap_ratio(a, words, names) == stats.bootstrap_ratio(a, words)
    ours, usual = clustered.paired_ratio(a, b, words, names), stats.paired_ratio(a, b, words)
    assert (ours.difference, ours.low, ours.high, ours.p, ours.n) == (
        usual.difference,
        usual.low,
        usual.high,
        usual.p,
        40,
    )


def test_the_figure_is_that_of_all_utterances() -> None:
    sizes = list(rng().integers(1, 12, SPEAKERS))
    names = speakers_of(sizes)
    edits, words = rng(1).poisson(2, len(names)), rng(2).integers(5, 15, len(names))
    found = clustered.bootstrap_ratio(edits, words, names)
    assert found.value == pytest.approx(edits.sum() / words.sum())
    assert found.n == SPEAKERS
    paired = clustered.paired_ratio(edits, np.zeros(len(names)), words, names)
    assert paired.difference == pytest.approx(edits.sum() / words.sum())
    assert clustered.linearised(edits, np.zeros(len(names)), words, names).mean() == pytest.approx(paired.difference)


def test_the_detectable_difference_of_equal_speakers_is_that_of_their_means() -> None:
    names = speakers_of([4] * SPEAKERS)
    a, b = rng().normal(size=100), rng(1).normal(size=100)
    means = pd.Series(a - b).groupby(names, sort=False).mean()
    found = clustered.paired_ratio(a, b, np.ones(100), names)
    assert found.minimum_detectable == pytest.approx(stats.minimum_detectable(means))


def test_copies_of_utterances_tell_nothing_new() -> None:
    """Ten copies of each utterance: over utterances the interval shrinks by √10, over speakers it stays."""
    once = rng().normal(size=30)
    copies, names = np.repeat(once, 10), speakers_of([10] * 30)
    single, many = stats.bootstrap_mean(once), stats.bootstrap_mean(copies)
    whole = clustered.bootstrap_ratio(copies, np.ones(300), names)
    assert (whole.low, whole.high) == pytest.approx((single.low, single.high))
    assert many.high - many.low < 0.5 * (whole.high - whole.low)
    zeros = np.zeros(300)
    assert clustered.paired_ratio(copies, zeros, np.ones(300), names).p == pytest.approx(
        stats.paired_difference(once, np.zeros(30)).p
    )


def test_speakers_that_differ_widen_the_interval() -> None:
    names = np.repeat(np.arange(30), 10)
    scores = rng().normal(size=30)[names] + 0.1 * rng(1).normal(size=300)
    whole, plain = clustered.bootstrap_mean(scores, list(names)), stats.bootstrap_mean(scores)
    assert whole.value == pytest.approx(plain.value)
    # Utterances of a speaker are nearly copies: the right interval is about √10 times wider.
    assert 2.2 < (whole.high - whole.low) / (plain.high - plain.low) < 4.2


def false_alarms(clusters: bool, repetitions: int = 150) -> float:
    """How often two equal systems, whose difference varies from speaker to speaker, are called different."""
    names, found = speakers_of([8] * SPEAKERS), 0
    for i in range(repetitions):
        d = np.repeat(rng(i).normal(size=SPEAKERS), 8) + 0.5 * rng(i + 10_000).normal(size=8 * SPEAKERS)
        zeros = np.zeros(len(d))
        test = (
            clustered.paired_ratio(d, zeros, np.ones(len(d)), names, n=100)
            if clusters
            else stats.paired_difference(d, zeros, n=100)
        )
        found += test.p < 0.05
    return found / repetitions


def test_where_systems_differ_by_speaker_only_whole_speakers_keep_the_level(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "PERMUTATIONS", 499)
    assert false_alarms(clusters=True) <= 0.08
    assert false_alarms(clusters=False) > 0.3


def test_few_or_unknown_speakers_are_refused() -> None:
    values, ones = rng().normal(size=38), np.ones(38)
    with pytest.raises(stats.TooFewClustersError, match=r"there are 19 speakers.*at least 20"):
        clustered.bootstrap_ratio(values, ones, speakers_of([2] * 19))
    with pytest.raises(stats.TooFewClustersError, match="the speaker of 2 of 38 utterances is not known"):
        clustered.require_clusters([None, "", *range(36)])
    with pytest.raises(ValueError, match="not finite"):
        clustered.bootstrap_ratio([np.nan, *values[1:]], ones, list(range(38)))
    with pytest.raises(ValueError, match="38 cluster names for columns of"):
        clustered.bootstrap_ratio(values[1:], ones, list(range(38)))


def frame(speakers: int, each: int = 4) -> pd.DataFrame:
    n = speakers * each
    names, words = speakers_of([each] * speakers), rng().integers(6, 18, n)
    bad = np.repeat(rng(4).random(speakers) < 0.2, each)  # some voices are not understood at all
    edits = np.where(bad, rng(1).binomial(words, 0.6), 0)
    counts = {"substitutions": edits, "deletions": 0, "insertions": 0, "reference_words": words}
    return pd.DataFrame({"id": [f"u{i}" for i in range(n)], "speaker": names, "wer": edits / words, **counts}).assign(
        sim=np.repeat(rng(2).normal(0.7, 0.1, speakers), each) + 0.01 * rng(3).normal(size=n)
    )


@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize("metric", [WordErrorRate, SpeakerSimilarity])
def test_a_metrics_summary_resamples_speakers(metric: type, seeds: int) -> None:
    rows = frame(24)
    if seeds == 2:
        rows = pd.concat([rows.assign(noise_seed=seed) for seed in (0, 1)], ignore_index=True)
    rows = rows.sample(frac=1, random_state=0)  # the speakers must be found by row and not by place
    whole, single = metric().summarise(rows, cluster="speaker"), metric().summarise(rows)
    name = metric.name
    assert whole[name] == pytest.approx(single[name])
    assert whole[f"{name}_n"] == single[f"{name}_n"] == 96
    width = {kind: found[f"{name}_high"] - found[f"{name}_low"] for kind, found in (("w", whole), ("s", single))}
    assert width["w"] > 1.4 * width["s"]
    with pytest.raises(stats.TooFewClustersError):
        metric().summarise(frame(6), cluster="speaker")
