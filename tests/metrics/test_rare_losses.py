"""Margins and detectable differences of word errors, most of which are 0: exact cases, and the level on simulated errors."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as reference

from imfbench.claims.statistics import compare
from imfbench.claims.verdicts import ALPHA
from imfbench.metrics import clustered, rare_losses, stats


@pytest.mark.parametrize("n", [10, 48, 172])
def test_without_a_difference_the_p_value_is_that_of_never_having_seen_a_loss(n: int) -> None:
    for margin in (0.01, 0.05):
        found = stats.equivalent(np.zeros(n), np.zeros(n), margin, lost=1.0)
        assert found.p == pytest.approx((1 - margin) ** n, abs=0.015)
        assert found.high == pytest.approx(1 - 0.05 ** (1 / n), abs=0.1 / n)  # the exact bound of 0 in n
        assert found.low == pytest.approx(-found.high, abs=0.1 / n)
        assert found.holds == (found.p < 0.05)


def test_kept_or_lost_utterances_have_clopper_and_pearsons_bound() -> None:
    d = np.repeat([1.0, 0.0], [3, 97])
    assert rare_losses.bounds(d, 1.0, 0.05)[1] == pytest.approx(reference.beta.ppf(0.95, 4, 97), abs=0.002)
    assert rare_losses.p_value(-d, 0.1, 1.0) == pytest.approx(reference.binom.cdf(3, 100, 0.1), abs=0.003)


def test_many_utterances_have_students_bound() -> None:
    d = np.random.default_rng(0).normal(0, 0.1, 3000)
    half = 1.645 * d.std() / np.sqrt(len(d))
    assert rare_losses.bounds(d, 1.0, 0.05) == pytest.approx((d.mean() - half, d.mean() + half), abs=0.2 * half)


def errors(kind: str, generator: np.random.Generator, n: int, base: float, loss: float) -> tuple[np.ndarray, ...]:
    """Edits of a and of b, and the words; a loses ``loss`` of its words more than b, in the mean."""
    words = generator.integers(8, 13, n)
    b = generator.binomial(words, base)
    if kind == "words":
        return generator.poisson((base + loss) * words), b, words
    if kind == "halves":
        return b + np.where(generator.random(n) < 2 * loss, (words + 1) // 2, 0), b, words
    lost = generator.random(n) < loss / (1 - base)
    return np.where(lost, words, generator.binomial(words, base)), b, words


@pytest.mark.parametrize("kind", ["words", "halves", "utterances"])
@pytest.mark.parametrize(("n", "base", "margin"), [(10, 0, 0.05), (30, 0, 0.02), (172, 0.02, 0.02)])
def test_a_loss_of_the_margin_is_not_ruled_out_too_often(kind: str, n: int, base: float, margin: float) -> None:
    """At a loss of the margin itself "equal within it" is wrong; Student's test says it of lost utterances in up to 54 %."""
    generator, times = np.random.default_rng(1), 40
    said = students = 0
    for _ in range(times):
        a, b, words = errors(kind, generator, n, base, margin + 0.001)
        first, second = a / words.mean(), b / words.mean()
        said += stats.equivalent(first, second, margin, lost=1.0).holds
        students += stats.equivalent(first, second, margin).holds
    assert said <= reference.binom.ppf(0.999, times, 0.05)
    if kind == "utterances" and n < 40:
        assert students > 0.35 * times


def test_equality_is_still_shown_of_enough_utterances() -> None:
    a, b, words = errors("words", np.random.default_rng(0), 1000, 0.02, 0)
    assert stats.equivalent(a / words.mean(), b / words.mean(), 0.02, lost=1.0).p < 0.001


def test_a_claim_is_underpowered_where_a_lost_utterance_may_have_been_missed() -> None:
    zeros = np.zeros(48)
    for test in ("non-inferior", "equivalent"):
        found = compare(zeros, 0.02, test, False, lost=(1.0, 1.0))  # type: ignore[arg-type]
        assert found.p_support == pytest.approx(0.98**48, abs=0.015)
        assert found.high is not None
        assert found.high > 0.02, "the interval holds the margin, as is said"
        # Nothing differs, so that no spread says what could be seen: the smallest margin that 48 utterances can show does.
        assert found.minimum_detectable == pytest.approx(1 - ALPHA ** (1 / 48))
    better = compare(zeros, 0.02, "better", False, lost=(1.0, 1.0))
    assert better.p_refute > ALPHA
    assert better.low is not None
    assert better.low < -0.02, "a gain of WER is below 0"
    # Three training seeds are three recordings of each utterance.
    assert compare(np.zeros((3, 48)), 0.05, "non-inferior", False, lost=(1 / 3, 1.0)).p_support < ALPHA


@pytest.mark.parametrize("n", [56, 96])
def test_a_gain_of_words_is_not_claimed_where_whole_utterances_are_lost_rarely(n: int) -> None:
    """Both have the same WER: a gains a word of ten in one utterance of twenty, and loses one in two hundred whole."""
    rng, times = np.random.default_rng(2), 200
    said, students = {"better": 0, "different": 0}, 0
    for _ in range(times):
        d = np.where(rng.random(n) < 0.005, 1.0, np.where(rng.random(n) < 0.05, -0.1, 0.0))
        said["better"] += compare(d, 0.05, "better", False, (1.0, 1.0)).p_support < ALPHA
        said["different"] += compare(d, 0.05, "different", False, (1.0, 1.0)).p_support < ALPHA
        students += compare(d, 0.05, "better", False).p_support < ALPHA
    assert max(said.values()) <= reference.binom.ppf(0.999, times, ALPHA)
    assert students > 0.2 * times


def test_a_difference_larger_than_one_utterance_could_make_is_shown() -> None:
    d = np.random.default_rng(0).normal(-0.3, 0.1, 40)
    plain, rare = (compare(d, 0.02, "different", True, lost) for lost in (None, (1.0, 1.0)))
    assert rare.p_support < 0.001
    assert None not in (plain.low, plain.high, rare.low, rare.high)
    assert rare.low <= plain.low < plain.high <= rare.high < 0  # type: ignore[operator]
    for test in ("inferior", "non-inferior"):  # what shows a loss beyond the margin needs nothing that was not seen
        plain, rare = (compare(d, 0.02, test, True, lost) for lost in (None, (1.0, 1.0)))  # type: ignore[arg-type]
        assert (plain.p_support, plain.p_refute > 0.5, plain.low, plain.high) == (
            rare.p_support, rare.p_refute > 0.5, rare.low, rare.high,
        )  # fmt: skip


def test_what_could_have_been_seen_is_seen_four_times_in_five_with_one_more_utterance() -> None:
    words, rng = np.full(200, 10.0), np.random.default_rng(3)
    seen = rare_losses.fewest(np.eye(200)[0], words, 1.0)
    needed = np.ceil(np.log(40) / np.log(1.1))  # (1 + .1)^−k ≤ .025
    assert seen == pytest.approx(reference.gamma.ppf(0.8, needed) / 2000)
    shown = [
        compare(-0.1 * (rng.random(200) < 10 * seen), 0.05, "better", False, (1.0, 1.0)).p_support for _ in range(200)
    ]
    assert np.mean(np.array(shown) < ALPHA) == pytest.approx(0.8, abs=0.1)


def test_fewer_words_than_a_test_could_show_are_not_detectable() -> None:
    words = np.full(48, 10.0)
    none = stats.paired_ratio(np.zeros(48), np.zeros(48), words)
    one = stats.paired_ratio(np.eye(48)[0], np.zeros(48), words)
    assert none.minimum_detectable == one.minimum_detectable == pytest.approx(7.9 / 480)
    assert reference.poisson.sf(rare_losses.FEWEST_DIFFERING - 1, rare_losses.FEWEST_WORDS) == pytest.approx(
        0.8, abs=0.001
    )
    many = np.random.default_rng(0).integers(-4, 5, 48)
    assert stats.paired_ratio(many, np.zeros(48), words).minimum_detectable == stats.minimum_detectable(many / 10)
    speakers = np.repeat(np.arange(24), 2)
    assert clustered.paired_ratio(np.zeros(48), np.zeros(48), words, speakers).minimum_detectable == pytest.approx(
        7.9 / 480
    )
    assert clustered.paired_ratio(np.zeros(48), np.zeros(48), np.ones(48), speakers).minimum_detectable is None
