from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats as reference

from imfbench.metrics import stats


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def wer_like(generator: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Edits and reference words: most utterances without an error, a few bad ones. True corpus WER is .036."""
    words = generator.integers(6, 18, n)
    return generator.binomial(words, generator.choice([0, 0.02, 0.3], n, p=[0.6, 0.3, 0.1])), words


# --- intervals ------------------------------------------------------------------------------------


def test_bootstrap_mean_is_scipys() -> None:
    values = rng().exponential(size=40)
    ours = stats.bootstrap_mean(values)
    theirs = reference.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", random_state=rng(7))
    assert ours.value == pytest.approx(values.mean())
    assert ours.n == 40
    tolerance = 0.1 * theirs.standard_error
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=tolerance)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=tolerance)


def test_bootstrap_mean_of_zeros_and_ones_ends_at_binomial_quantiles() -> None:
    # The mean of a resample of k ones in n is Binomial(n, k/n)/n exactly.
    n, k = 200, 60
    found = stats.bootstrap_mean([1.0] * k + [0.0] * (n - k), n=20_000, level=0.9)
    assert found.value == pytest.approx(k / n)
    assert found.low == pytest.approx(reference.binom.ppf(0.05, n, k / n) / n, abs=1 / n)
    assert found.high == pytest.approx(reference.binom.ppf(0.95, n, k / n) / n, abs=1 / n)


def test_same_scores_get_the_same_interval_and_a_higher_level_a_wider_one() -> None:
    values = rng().normal(size=30)
    assert stats.bootstrap_mean(values) == stats.bootstrap_mean(pd.Series(values, index=list(range(30, 60))))
    assert stats.bootstrap_mean(values) != stats.bootstrap_mean(values, seed=1)
    narrow, wide = stats.bootstrap_mean(values, level=0.8), stats.bootstrap_mean(values, level=0.99)
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


def test_few_or_equal_scores() -> None:
    assert stats.bootstrap_mean([0.25] * 9) == stats.Interval(0.25, 0.25, 0.25, 9)
    one, none = stats.bootstrap_mean([0.5]), stats.bootstrap_mean([])
    assert (one.value, one.n, none.n) == (0.5, 1, 0)
    assert np.isnan([one.low, one.high, none.value, none.low, none.high]).all()


def test_corpus_wer_weighs_long_utterances() -> None:
    found = stats.bootstrap_ratio([1, 0, 9], [10, 10, 30])
    assert found.value == pytest.approx(10 / 50)
    assert found.value != pytest.approx(np.mean([0.1, 0, 0.3]))
    assert 0 <= found.low < found.value < found.high <= 0.3


def test_ratio_over_equal_denominators_is_the_mean() -> None:
    edits = rng().integers(0, 4, 50)
    ratio, mean = stats.bootstrap_ratio(edits, np.full(50, 10)), stats.bootstrap_mean(edits / 10)
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((mean.value, mean.low, mean.high))


@pytest.mark.parametrize("kind", ["mean", "ratio"])
def test_intervals_cover_the_truth_about_19_times_in_20(kind: str) -> None:
    generator, repetitions, hits = rng(3), 400, 0
    for _ in range(repetitions):
        if kind == "mean":
            truth, found = 0.5, stats.bootstrap_mean(generator.exponential(0.5, 80), n=500)
        else:
            truth, found = 0.036, stats.bootstrap_ratio(*wer_like(generator, 160), n=500)
        hits += found.low <= truth <= found.high
    assert 0.90 <= hits / repetitions <= 0.975


# --- seeds --------------------------------------------------------------------------------------


def test_seeds_are_averaged_per_utterance_and_are_not_n() -> None:
    frame = pd.DataFrame(
        {
            "id": ["b", "a", "b", "a"],
            "noise_seed": [0, 0, 1, 1],
            "edits": [1, 2, 3, 2],
            "reference_words": [10, 5, 10, 5],
            "ok": [True, True, False, True],
            "hypothesis": list("wxyz"),
        }
    )
    means = stats.average_seeds(frame)
    assert means.index.tolist() == ["b", "a"]
    assert means.loc["b"].to_dict() == {"edits": 2.0, "reference_words": 10.0, "ok": 0.5}
    found = stats.bootstrap_ratio(means["edits"], means["reference_words"])
    assert (found.value, found.n) == (pytest.approx(frame["edits"].sum() / frame["reference_words"].sum()), 2)


def test_an_utterance_that_failed_at_one_seed_has_no_mean() -> None:
    frame = pd.DataFrame(
        {"id": ["a", "a", "b", "c", "c"], "noise_seed": [0, 1, 0, 0, 1], "sim": [0.1, 0.3, 0.5, 0.7, None]}
    )
    means = stats.average_seeds(frame)["sim"]
    assert means["a"] == pytest.approx(0.2)
    assert means[["b", "c"]].isna().all()
    with pytest.raises(ValueError, match=r"2 of 3 scores are not finite, the first at 'b'; take failed"):
        stats.bootstrap_mean(means)


def test_of_a_single_seed_every_score_is_its_own_mean() -> None:
    rows = {"id": ["b", "a"], "noise_seed": [3, 3], "edits": [1, 2], "ok": [True, False], "text": ["x", "y"]}
    means = stats.average_seeds(pd.DataFrame(rows))
    assert means.index.tolist() == ["b", "a"]
    assert means.index.name == "id"
    assert means.loc["a"].to_dict() == {"edits": 2.0, "ok": 0.0}
    assert set(means.dtypes) == {np.dtype(float)}


def test_seed_tables_that_cannot_be_averaged() -> None:
    with pytest.raises(ValueError, match="no column noise_seed"):
        stats.average_seeds(pd.DataFrame({"id": ["a"], "sim": [1.0]}))
    with pytest.raises(ValueError, match="'a' stands twice under noise_seed 0"):
        stats.average_seeds(pd.DataFrame({"id": ["a", "a"], "noise_seed": [0, 0], "sim": [1.0, 1.0]}))


# --- paired comparisons ---------------------------------------------------------------------------


def test_sign_flip_p_value_by_hand() -> None:
    # Six differences of one sign: of 64 sign patterns two are as extreme.
    found = stats.paired_difference([1.0, 2, 3, 4, 5, 6], [0.0] * 6)
    assert found.p == pytest.approx(2 / 64)
    assert (found.difference, found.n) == (3.5, 6)


def test_p_value_agrees_with_the_paired_t_test_and_the_permutation_of_pairs() -> None:
    generator = rng(2)
    base = generator.normal(3, 1, 120)
    other = base + generator.normal(0.04, 0.25, 120)
    found = stats.paired_difference(other, base)
    assert found.p == pytest.approx(reference.ttest_rel(other, base).pvalue, abs=0.02)
    pairs = reference.permutation_test(
        (other, base),
        lambda x, y, axis=-1: x.mean(axis) - y.mean(axis),
        permutation_type="samples",
        vectorized=True,
        random_state=rng(9),
    )
    assert found.p == pytest.approx(pairs.pvalue, abs=0.02)
    interval = reference.ttest_rel(other, base).confidence_interval()
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=0.01)


def test_pairing_sees_what_an_unpaired_test_cannot() -> None:
    generator = rng(4)
    difficulty = generator.normal(0, 1, 100)
    a, b = difficulty + 0.1, difficulty + generator.normal(0, 0.1, 100)
    assert reference.ttest_ind(a, b).pvalue > 0.3
    assert stats.paired_difference(a, b).p < 0.001


def test_the_test_rejects_a_true_null_about_once_in_20() -> None:
    generator, repetitions = rng(5), 300
    rejected = sum(
        stats.paired_difference(generator.exponential(size=10), generator.exponential(size=10), n=10).p < 0.05
        for _ in range(repetitions)
    )
    assert 0.02 <= rejected / repetitions <= 0.09


def test_minimum_detectable_difference_is_found_four_times_in_five() -> None:
    d = rng().normal(size=64)
    assert stats.minimum_detectable(d) == pytest.approx(2.8 * d.std(ddof=1) / 8)
    assert stats.paired_difference(d, np.zeros(64)).minimum_detectable == stats.minimum_detectable(d)
    power = reference.norm.sf(reference.norm.ppf(0.975) - stats.DETECTABLE)
    assert power == pytest.approx(0.8, abs=0.005)


def test_identical_systems_are_a_tie() -> None:
    scores = rng().normal(size=40)
    assert stats.paired_difference(scores, scores) == stats.Paired(0.0, 0.0, 0.0, 1.0, 40, None)
    assert stats.minimum_detectable(np.full(40, 0.1)) is None, "what does not vary tells nothing"
    assert np.isnan(stats.minimum_detectable([0.1]))  # type: ignore[arg-type]


def test_series_are_matched_by_utterance() -> None:
    a = pd.Series({"u1": 1.0, "u2": 2.0, "u3": 4.0})
    assert stats.paired_difference(a, a[::-1]).difference == 0
    assert stats.paired_difference(a, a.to_numpy()[::-1]).minimum_detectable > 0, "arrays are taken as they come"
    with pytest.raises(ValueError, match="1 utterances stand on one side only, such as 'u3'"):
        stats.paired_difference(a, a[:2])
    with pytest.raises(ValueError, match="unequal length"):
        stats.paired_difference([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="average noise seeds first"):
        stats.paired_difference(pd.Series([1.0, 2.0], index=["u", "u"]), pd.Series([1.0, 2.0], index=["u", "u"]))
    with pytest.raises(ValueError, match="at least two utterances, got 1"):
        stats.paired_difference([1.0], [2.0])


def test_paired_corpus_wer() -> None:
    edits, words = wer_like(rng(6), 120)
    more = edits + (np.arange(120) % 4 == 0)
    found = stats.paired_ratio(more, edits, words)
    assert found.difference == pytest.approx(more.sum() / words.sum() - edits.sum() / words.sum())
    assert 0 < found.low < found.difference < found.high
    assert found.p == pytest.approx(2e-4)
    ids = [f"u{i}" for i in range(120)]
    series = [pd.Series(x, index=ids) for x in (more, edits, words)]
    assert stats.paired_ratio(series[0], series[1][::-1], series[2][::-1]) == found
    with pytest.raises(ValueError, match="not positive"):
        stats.paired_ratio(more, edits, words * 0)


# --- margins and corrections ----------------------------------------------------------------------


def test_margin_tests_are_scipys_one_sided_paired_t_tests() -> None:
    generator = rng(8)
    b = generator.normal(4, 0.3, 60)
    a = b + generator.normal(-0.01, 0.1, 60)
    for margin in (0.01, 0.03, 0.1):
        lower = reference.ttest_rel(a + margin, b, alternative="greater").pvalue
        upper = reference.ttest_rel(a - margin, b, alternative="less").pvalue
        assert stats.non_inferior(a, b, margin).p == pytest.approx(lower)
        assert stats.non_inferior(a, b, margin, higher_is_better=False).p == pytest.approx(upper)
        assert stats.equivalent(a, b, margin).p == pytest.approx(max(lower, upper))
    interval = reference.ttest_rel(a, b).confidence_interval(0.95)
    found = stats.non_inferior(a, b, 0.1)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_a_claim_holds_exactly_where_its_interval_keeps_within_the_margin() -> None:
    a, b = rng(1).normal(0.02, 0.2, 50), np.zeros(50)
    for margin in np.linspace(0.005, 0.2, 40):
        noninferior, equal = stats.non_inferior(a, b, margin), stats.equivalent(a, b, margin)
        assert noninferior.holds == (noninferior.low > -margin)
        assert equal.holds == (-margin < equal.low and equal.high < margin)


def test_direction_of_non_inferiority() -> None:
    noise = rng().normal(0, 0.01, 40)
    worse_wer, wer = 0.05 + noise, np.zeros(40)
    assert not stats.non_inferior(worse_wer, wer, 0.02, higher_is_better=False).holds
    assert stats.non_inferior(worse_wer, wer, 0.02, higher_is_better=True).holds, "higher would be better"
    assert not stats.equivalent(worse_wer, wer, 0.02).holds
    assert stats.equivalent(worse_wer, wer, 0.08).holds


def test_margins_of_identical_systems_and_wrong_margins() -> None:
    same = np.full(10, 0.5)
    assert stats.equivalent(same, same, 0.01).holds
    assert not stats.non_inferior(same, same + 0.25, 0.1).holds
    for n in (2, 4, 10):  # the sign test's p-value; 0.3 − 0.1 has a rounding error
        few = np.linspace(0, 1, n)
        for found in (stats.non_inferior(few, few, 0.01), stats.equivalent(few + 0.3, few + 0.1, 0.3)):
            assert found.p == 0.5**n
        assert not stats.equivalent(few, few, 0.01, alpha=0.5**n).holds
    for margin in (0, -0.1, float("nan")):
        with pytest.raises(ValueError, match="margin must be positive"):
            stats.equivalent(same, same, margin)


def test_holm_by_hand() -> None:
    assert stats.holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.9, 0.6]).tolist() == [1, 1]
    assert stats.holm([]).tolist() == []
    with pytest.raises(ValueError, match=r"lie in \[0, 1\]"):
        stats.holm([1.5])


def test_a_statement_about_methods_needs_three_training_seeds() -> None:
    assert stats.statement_scope([1, 2, 3]) == "methods"
    assert stats.statement_scope([1, 2, 2]) == "checkpoints"


def test_memory_does_not_grow_with_the_utterances(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resamples are made in batches, and the batches change no figure."""
    a, b = rng().normal(size=60), rng(1).normal(size=60)
    whole = stats.paired_difference(a, b), stats.bootstrap_ratio(a + 9, b + 9)
    monkeypatch.setattr(stats, "_batch", lambda size: 7)
    assert (stats.paired_difference(a, b), stats.bootstrap_ratio(a + 9, b + 9)) == whole
    monkeypatch.undo()
    assert stats._batch(100_000) * 100_000 <= 4_000_000


def test_more_sign_flips_give_the_p_value_that_fewer_give_and_a_lower_floor() -> None:
    generator = np.random.default_rng(3)
    d = generator.normal(0.2, 1, 60)
    exact = stats.paired_difference(d, np.zeros(60)).p
    assert stats._finer_p(d, 20_000, 1) == pytest.approx(exact, abs=0.01)
    sure = generator.normal(3, 1, 60)
    assert stats.paired_difference(sure, np.zeros(60)).p == 2e-4
    assert stats.paired_difference(sure, np.zeros(60), flips=99_999).p == 1e-5
    assert stats.paired_ratio(sure, np.zeros(60), np.ones(60), flips=99_999).p == 1e-5
