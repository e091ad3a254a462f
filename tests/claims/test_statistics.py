"""Each statistic where the verdict is known beforehand, and against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from imfbench.claims.means import contrast_of, detectable_errors, mean_of
from imfbench.claims.shares import share_at_most, share_interval, smaller_share
from imfbench.claims.statistics import all_above, compare, falls_by_less, ratio_at_least, smaller_spread
from imfbench.claims.verdicts import ALPHA, decide
from imfbench.metrics.rare_losses import utterances_needed

RNG = np.random.default_rng(0)
NOISE = RNG.standard_normal(60)
NOISE = (NOISE - NOISE.mean()) / NOISE.std(ddof=1)
"""Mean 0, standard deviation 1: an interval of 60 differences is ± .258 standard deviations."""


def verdict(mean: float, sd: float, test: str, margin: float = 0.1, higher: bool = True) -> str:
    found = compare(mean + sd * NOISE, margin, test, higher)  # type: ignore[arg-type]
    return decide(found.p_support, found.p_refute).verdict


@pytest.mark.parametrize(
    ("test", "mean", "sd", "expected"),
    [
        ("non-inferior", -0.05, 0.1, "supported"),
        ("non-inferior", -0.20, 0.1, "not supported"),  # a loss beyond the margin is shown
        ("non-inferior", -0.11, 0.1, "underpowered"),  # worse by the estimate, but the interval holds the margin
        ("non-inferior", 0.00, 1.0, "underpowered"),
        ("inferior", -0.20, 0.1, "supported"),
        ("inferior", -0.05, 0.1, "not supported"),
        ("inferior", -0.20, 1.0, "underpowered"),
        ("better", 0.05, 0.1, "supported"),
        ("better", 0.00, 0.1, "not supported"),  # a gain of .1 is ruled out
        ("better", -0.50, 0.1, "not supported"),
        ("better", 0.05, 0.5, "underpowered"),
        ("equivalent", 0.05, 0.1, "supported"),
        ("equivalent", -0.20, 0.1, "not supported"),
        ("equivalent", 0.20, 0.1, "not supported"),
        ("equivalent", 0.00, 1.0, "underpowered"),
        ("different", -0.05, 0.1, "supported"),
        ("different", 0.01, 0.1, "not supported"),
        ("different", 0.01, 1.0, "underpowered"),
    ],
)
def test_the_verdict_follows_from_the_interval_and_the_margin(test: str, mean: float, sd: float, expected: str) -> None:
    assert verdict(mean, sd, test) == expected
    assert verdict(-mean, sd, test, higher=False) == expected  # WER: the same the other way round


def test_a_margin_has_to_be_positive() -> None:
    with pytest.raises(ValueError, match="margin must be positive"):
        compare(NOISE, 0.0, "non-inferior")


def test_with_one_seed_the_mean_is_students() -> None:
    d = 0.3 + NOISE
    found = mean_of(d)
    theirs = stats.ttest_1samp(d, 0.1)
    assert found.interval == pytest.approx(tuple(theirs.confidence_interval(0.95)))
    assert found.above(0.1) == pytest.approx(stats.ttest_1samp(d, 0.1, alternative="greater").pvalue)
    assert found.minimum_detectable == pytest.approx(2.85 / np.sqrt(60), rel=2e-3)
    assert mean_of(np.stack([d, d + 1])).interval == pytest.approx(
        tuple(stats.ttest_1samp(d + 0.5, 0).confidence_interval())
    )


@pytest.mark.parametrize(("n", "errors"), [(3, 5.65), (5, 3.76), (60, 2.85)])
def test_what_could_be_seen_is_seen_four_times_in_five(n: int, errors: float) -> None:
    """Of 4,000 samples that differ by just so much; 2.8 standard errors show half of them where there are 5 values."""
    assert detectable_errors(n - 1) == pytest.approx(errors, abs=0.01)
    rng = np.random.default_rng(n)
    samples = rng.standard_normal((4000, n)) + errors / np.sqrt(n)
    shown = stats.ttest_1samp(samples, 0, axis=1, alternative="greater").pvalue < ALPHA
    assert shown.mean() == pytest.approx(0.8, abs=0.02)
    assert detectable_errors(1e6) == 2.8


def test_equal_differences_are_no_certainty_when_few() -> None:
    """Two utterances without an error each show nothing; the sign test's p-value is the least there is."""
    for n, expected in ((2, "underpowered"), (5, "underpowered"), (6, "supported")):
        found = compare(np.full(n, -0.01), 0.02, "non-inferior")
        assert (found.p_support, found.p_refute, found.low, found.high) == (0.5**n, 1.0, -0.01, -0.01)
        assert decide(*_p(found)).verdict == expected


@pytest.mark.parametrize(("seeds", "needed"), [(1, 183), (3, 60)])
def test_of_wer_no_less_is_seen_than_utterances_can_show(seeds: int, needed: int) -> None:
    """Nothing differs: Student's 2.8 standard errors are 0, and yet no small margin can be shown."""
    assert utterances_needed(0.02, 1 / seeds, ALPHA) == needed
    for n in (24, 48, needed):
        least = (1 - ALPHA ** (1 / n)) / seeds
        found = compare(np.zeros((seeds, n)), 0.02, "non-inferior", False, (1 / seeds, 1.0), np.full(n, 10.0))
        assert found.smallest_margin == pytest.approx(least)
        assert found.minimum_detectable == pytest.approx(least)
        for factor, shown in ((1.1, True), (0.9, False)):
            again = compare(np.zeros((seeds, n)), factor * least, "non-inferior", False, (1 / seeds, 1.0))
            assert (again.p_support < ALPHA) == shown
    assert utterances_needed(1.5, 1.0, ALPHA) == 1


def test_of_wer_so_few_words_are_no_detectable_difference() -> None:
    words, one = np.full(48, 10.0), np.zeros(48)
    one[0] = 1 / words.mean()  # a single word, which makes for a standard error of 1/480
    assert compare(one, 0.01, "better", False).minimum_detectable == pytest.approx(2.86 / 480, rel=0.01)
    for differences in (one, np.zeros(48)):
        for test in ("better", "inferior", "different"):
            found = compare(differences, 0.01, test, False, None, words)  # type: ignore[arg-type]
            assert found.minimum_detectable == pytest.approx(7.9 / 480, rel=0.001)
            found = compare(differences, 0.01, test, False, (1.0, 1.0), words)  # type: ignore[arg-type]
            needed = 7.9 if test == "inferior" else stats.gamma.ppf(0.8, 39)  # 1.1^−39 = .024
            assert found.minimum_detectable == pytest.approx(needed / 480)
    spread = compare(NOISE[:48], 0.01, "better", False, (1.0, 1.0), words)
    assert spread.minimum_detectable == pytest.approx(2.86 * NOISE[:48].std(ddof=1) / np.sqrt(48), rel=0.001)
    assert compare(NOISE[:48], 0.01, "better").smallest_margin is None


def test_what_is_missing_counts_against_whom_it_speaks() -> None:
    """Of WER: 200 utterances alike, and two that one side lacks."""
    zeros = np.zeros((1, 200))
    two = np.hstack([zeros, np.ones((1, 2))])
    more = np.hstack([zeros, np.zeros((1, 2))])
    of_a, of_b = (two, more), (more, -two)  # counted against a, and against b

    def p(test: str, against: tuple[np.ndarray, np.ndarray] | None) -> tuple[float, float]:
        return _p(compare(zeros, 0.02, test, False, (1.0, 1.0), against=against))  # type: ignore[arg-type]

    three_lost = stats.binom.cdf(2, 202, 0.02)  # two, and fewer than the one more
    assert p("non-inferior", None)[0] == pytest.approx(0.98**200, abs=0.005)
    assert p("non-inferior", of_a)[0] == pytest.approx(three_lost, abs=0.01)
    assert p("non-inferior", of_b)[0] == pytest.approx(0.98**202, abs=0.005)
    for against in (of_a, of_b):
        assert p("equivalent", against)[0] == pytest.approx(three_lost, abs=0.01)
    assert p("better", of_b)[1] == pytest.approx(three_lost, abs=0.01)  # a gain of the margin is not ruled out
    assert p("better", of_a)[1] == pytest.approx(0.98**202, abs=0.005)
    found = compare(zeros, 0.02, "non-inferior", False, (1.0, 1.0), against=of_a)
    assert (found.estimate, found.n) == (0.0, 200)
    assert found.high is not None
    assert found.high > 0.02, "a loss of WER is above 0"


@pytest.mark.parametrize("test", ["non-inferior", "inferior", "better", "equivalent", "different"])
def test_what_a_side_lacks_never_makes_its_claim_easier(test: str) -> None:
    """Not even where it lacks what would have told its training seeds apart, so that only utterances seem to vary."""
    rng = np.random.default_rng(8)
    rest = rng.normal(0, 0.03, (3, 100))
    d = rest - rest.mean(1, keepdims=True) + np.array([[0.011], [0.0], [-0.011]])
    full = compare(-d, 0.02, test, False, (1 / 3, 1.0))  # type: ignore[arg-type]
    column = np.array([[1.0], [0.0], [0.0]])
    for side in (0, 1):
        against = [-d, -d]
        against[side] = np.hstack([-d, column if side == 0 else -column])
        found = compare(-d, 0.02, test, False, (1 / 3, 1.0), against=(against[0], against[1]))  # type: ignore[arg-type]
        assert found.p_support >= full.p_support
        assert found.p_refute >= full.p_refute
        assert None not in (found.low, found.high, full.low, full.high)
        assert found.low <= full.low  # type: ignore[operator]
        assert found.high >= full.high  # type: ignore[operator]


@pytest.mark.parametrize("paired", [True, False])
def test_a_further_loss_reckons_with_what_is_missing_of_either_set(paired: bool) -> None:
    zeros, one = np.zeros((1, 100)), np.eye(100)[:1]
    known = (zeros, zeros)

    def p(*against: tuple[np.ndarray, np.ndarray]) -> float:
        return falls_by_less(zeros, zeros, 0.06, False, (1.0, 1.0), paired, against or None).p_support  # type: ignore[arg-type]

    plain = p()
    assert p(known, known) == plain
    assert p((one, zeros), known) > 1.5 * plain  # a lacks one of the harder set
    assert p((zeros, -one), known) > 1.5 * plain  # b lacks one of the other
    assert p(known, (-one, one)) == plain  # what b lacks here, and a there, speaks for a larger loss only


def test_training_seeds_are_chance_too() -> None:
    """No method is better, but seeds differ: a test over utterances alone is wrong most of the time, this one is not."""
    rng = np.random.default_rng(1)
    alone = crossed = 0
    for _ in range(400):
        d = rng.normal(0, 0.5, (3, 1)) + rng.normal(0, 0.3, (1, 40)) + rng.normal(0, 0.5, (3, 40))
        crossed += mean_of(d).above(0) < ALPHA
        alone += mean_of(d.mean(0)).above(0) < ALPHA
    assert alone > 0.25 * 400
    assert crossed <= stats.binom.ppf(0.999, 400, ALPHA)


def test_seeds_that_do_not_differ_cost_no_power() -> None:
    d = np.stack([0.3 + NOISE] * 3)
    assert mean_of(d).interval == pytest.approx(mean_of(d[0]).interval)
    assert mean_of(d).seeds == 3


def test_a_contrast_of_sets_is_welchs_with_one_seed() -> None:
    found = contrast_of(NOISE[:40], 0.3 + 2 * NOISE[40:])
    theirs = stats.ttest_ind(NOISE[:40], 0.3 + 2 * NOISE[40:], equal_var=False)
    assert found.interval == pytest.approx(tuple(theirs.confidence_interval(0.95)))
    assert found.above(0.1) == pytest.approx(
        stats.ttest_ind(NOISE[:40] - 0.1, 0.3 + 2 * NOISE[40:], equal_var=False, alternative="greater").pvalue
    )
    with pytest.raises(ValueError, match="same training seeds"):
        contrast_of(np.zeros((3, 5)), np.zeros((2, 5)))


def test_what_a_network_loses_everywhere_is_no_contrast_and_what_it_loses_here_is_chance_too() -> None:
    """Seeds that are good or bad on both sets alike cost no power; how much worse one is on the harder set is of each seed."""
    rng = np.random.default_rng(2)
    everywhere = np.array([[-1.0], [0.0], [1.0]])
    hard, plain = rng.normal(0, 0.1, (3, 30)), rng.normal(0, 0.1, (3, 40))
    same, other = contrast_of(hard + everywhere, plain + everywhere), contrast_of(hard, plain)
    assert (same.value, same.error) == pytest.approx((other.value, other.error))
    wrong = alone = 0
    for _ in range(400):
        here = rng.normal(0, 0.4, (3, 1))
        hard, plain = here + rng.normal(0, 0.3, (3, 30)), rng.normal(0, 0.3, (3, 40))
        wrong += contrast_of(hard, plain).above(0) < ALPHA
        alone += contrast_of(hard.mean(0), plain.mean(0)).above(0) < ALPHA
    assert alone > 0.25 * 400
    assert wrong <= stats.binom.ppf(0.999, 400, ALPHA)


@pytest.mark.parametrize(
    ("further", "sd", "expected"),
    [(0.0, 0.1, "supported"), (0.2, 0.1, "not supported"), (0.1, 0.1, "underpowered"), (0.0, 1.0, "underpowered")],
)
def test_a_further_loss_against_a_margin(further: float, sd: float, expected: str) -> None:
    for higher in (True, False):
        sign = 1 if higher else -1
        plain = sign * (-0.5 + sd * NOISE[:40])  # what is lost everywhere does not matter
        found = falls_by_less(sign * (-0.5 - further + sd * NOISE), plain, 0.1, higher)
        assert decide(*_p(found)).verdict == expected
        assert found.estimate == pytest.approx(-sign * (further + sd * NOISE[:40].mean()))
        assert found.low is not None
        assert found.high is not None
        assert found.low < found.estimate < found.high
    with pytest.raises(ValueError, match="margin must be positive"):
        falls_by_less(NOISE, NOISE, 0.0)


def test_a_further_loss_of_words_reckons_with_a_lost_utterance_of_each_set() -> None:
    """Where nothing differs: the sum of two shares, each of one more utterance among n; its tail has a closed form."""
    n, margin = 40, 0.1
    found = falls_by_less(np.zeros(n), np.zeros(n), margin, False, (1.0, 1.0))
    # ∫ n (1−x)^(n−1) (1 − (m−x))^n dx over x < m, and the first alone beyond it.
    x = np.linspace(0, margin, 10001)
    exact = np.trapezoid(n * (1 - x) ** (n - 1) * (1 - margin + x) ** n, x) + (1 - margin) ** n
    assert found.p_support == pytest.approx(exact, abs=0.006)
    assert found.p_support > compare(np.zeros(n), margin, "non-inferior", False, (1.0, 1.0)).p_support
    # "Could have been seen" is no less than what so many utterances can show where nothing differs.
    assert found.minimum_detectable == found.smallest_margin
    assert found.smallest_margin is not None
    at_it = [
        falls_by_less(np.zeros(n), np.zeros(n), by * found.smallest_margin, False, (1.0, 1.0)) for by in (0.9, 1.1)
    ]
    assert [tested.p_support < ALPHA for tested in at_it] == [False, True]
    rng = np.random.default_rng(4)  # one utterance in twenty is lost on the harder set: the margin itself
    wrong = sum(
        falls_by_less(rng.random(100) < 0.05, np.zeros(100), 0.05, False, (1.0, 1.0)).p_support < ALPHA
        for _ in range(200)
    )
    assert wrong <= stats.binom.ppf(0.999, 200, ALPHA)


@pytest.mark.parametrize(("of_teacher", "right"), [(1.0, True), (1 / 3, False)])
def test_a_recording_that_one_teacher_loses_counts_whole_against_three_students(of_teacher: float, right: bool) -> None:
    """Two noise seeds. The teacher loses so many recordings of the plain set as the margin says; its students lose none."""
    rng, hard, margin = np.random.default_rng(5), np.zeros((3, 60)), 0.03
    wrong = 0
    for _ in range(400):
        plain = np.repeat(-rng.binomial(2, margin, (1, 48)) / 2, 3, axis=0)
        wrong += falls_by_less(hard, plain, margin, False, (1 / 6, of_teacher / 2)).p_support < ALPHA
    assert (wrong <= stats.binom.ppf(0.999, 400, ALPHA)) == right


def test_a_ratio_that_could_have_been_seen_is_one_above_the_claimed_one() -> None:
    found = ratio_at_least(12 * np.ones(60), np.exp(0.05 * NOISE), 10)
    errors = np.sqrt((0.05 * NOISE).var(ddof=1) / 60)
    assert found.minimum_detectable == pytest.approx(10 * np.exp(2.85 * errors), rel=1e-3)


def test_a_ratio_of_times() -> None:
    student = np.exp(0.05 * NOISE)
    for claimed, expected in ((10, "supported"), (14, "not supported"), (12, "underpowered")):
        found = ratio_at_least(12 * np.ones(60), student, claimed)
        assert decide(found.p_support, found.p_refute).verdict == expected
        assert found.estimate == pytest.approx(12)
        assert found.low < 12 < found.high


def test_ratios_of_bytes_are_certain() -> None:
    assert decide(*_p(all_above([1.4, 2.0], 1.05))).verdict == "supported"
    assert decide(*_p(all_above([1.0, 2.0], 1.05))).verdict == "not supported"


def test_bounds_of_ratios_can_show_one_thing_only() -> None:
    assert decide(*_p(all_above([1.4], 1.05, floors=[1.1]))).verdict == "supported"
    assert decide(*_p(all_above([1.4], 1.05, floors=[1.0]))).verdict == "underpowered"
    assert decide(*_p(all_above([1.4], 1.05, ceilings=[1.0]))).verdict == "not supported"
    assert decide(*_p(all_above([1.4], 1.05, ceilings=[3.0]))).verdict == "underpowered"
    assert decide(*_p(all_above([1.0], 1.05, floors=[9.0]))).verdict == "not supported"
    found = all_above([], 1.05, floors=[1.2, 1.5])
    assert (found.estimate, found.low, found.high, found.n, found.p_support) == (1.2, 1.2, None, 2, 0.0)
    with pytest.raises(ValueError, match="no ratio"):
        all_above([], 1.05)


def test_shares_are_exact() -> None:
    for hits, n in ((0, 5), (3, 40), (40, 40)):
        theirs = stats.binomtest(hits, n).proportion_ci(0.95, "exact")
        assert share_interval(hits, n) == pytest.approx((theirs.low, theirs.high))
    assert decide(*_p(share_at_most(0, 60, 0.1))).verdict == "supported"
    assert decide(*_p(share_at_most(20, 60, 0.1))).verdict == "not supported"
    few = share_at_most(0, 10, 0.1)  # .9 ** 10 = .35: ten are too few for a tenth
    assert decide(*_p(few)).verdict == "underpowered"
    assert few.p_support == pytest.approx(0.9**10)
    assert few.minimum_detectable is None
    # What may be a hit speaks against "so few", and only what certainly is one against "so many".
    doubtful = share_at_most(0, 60, 0.1, 20)
    assert decide(*_p(doubtful)).verdict == "underpowered"
    assert (doubtful.low, doubtful.high) == (share_interval(0, 60)[0], share_interval(20, 60)[1])
    assert doubtful.minimum_detectable is None


def test_diverged_shares_of_five_runs() -> None:
    assert decide(*_p(smaller_share(0, 5, 5, 5))).verdict == "supported"
    assert decide(*_p(smaller_share(5, 5, 0, 5))).verdict == "not supported"
    none = smaller_share(0, 5, 0, 5)
    assert decide(*_p(none)).verdict == "underpowered"
    # Fisher, 0 of 5 against 4 of 5: 6/252 = .0238.
    assert stats.fisher_exact([[0, 5], [4, 1]], alternative="less").pvalue == pytest.approx(6 / 252)
    assert none.minimum_detectable is not None
    assert stats.binom.sf(3, 5, none.minimum_detectable) == pytest.approx(0.8)  # four of five, four times in five
    assert none.low == pytest.approx(-share_interval(0, 5)[1])


def test_spreads_of_five_seeds() -> None:
    five = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
    assert decide(*_p(smaller_spread(0.1 * five, five))).verdict == "supported"
    assert decide(*_p(smaller_spread(five, 0.1 * five))).verdict == "not supported"
    half = smaller_spread(0.5 * five, five)
    assert decide(*_p(half)).verdict == "underpowered"
    assert half.estimate == pytest.approx(0.5)
    # The interval of a variance ratio: s1²/s2² over the F quantiles.
    assert half.low == pytest.approx(np.sqrt(0.25 / stats.f.ppf(0.975, 4, 4)))
    # And what it says could have been seen is seen four times in five.
    assert half.minimum_detectable is not None
    critical = stats.f.ppf(ALPHA, 4, 4)  # a ratio of variances below it is shown
    assert stats.f.cdf(critical / half.minimum_detectable**2, 4, 4) == pytest.approx(0.8)
    unequal = smaller_spread(five, np.linspace(-1, 1, 9))
    assert unequal.minimum_detectable is not None
    assert stats.f.cdf(stats.f.ppf(ALPHA, 4, 8) / unequal.minimum_detectable**2, 4, 8) == pytest.approx(0.8)
    with pytest.raises(ValueError, match="at least two seeds"):
        smaller_spread([1.0], five)


def _p(found: object) -> tuple[float, float]:
    return found.p_support, found.p_refute  # type: ignore[attr-defined]
