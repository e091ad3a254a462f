"""Claims over run folders whose scores are known: the verdict, its record, and what becomes of failed cells."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import yaml

from imfbench.claims.definition import Claim
from imfbench.claims.judgement import judge
from imfbench.claims.node import Node

RNG = np.random.default_rng(0)
BASE = 0.8 + 0.02 * RNG.standard_normal(40)
NOISE = RNG.standard_normal(40)
NOISE = (NOISE - NOISE.mean()) / NOISE.std()
Make = Callable[..., Claim]


def small(claim: Claim, folder: Any, **failures: str) -> Node:
    return judge(claim, "small", folder.evidence(**failures))


@pytest.mark.parametrize(
    ("loss", "sd", "expected"),
    [(0.0, 0.02, "supported"), (0.1, 0.02, "not supported"), (0.0, 0.5, "underpowered")],
)
def test_as_good_as_the_teacher(folder: Any, claim: Make, loss: float, sd: float, expected: str) -> None:
    folder.cell("teacher", 32, sim=BASE)
    folder.cell("student", 1, sim=BASE - loss + sd * NOISE)
    found = small(claim({}), folder)
    assert found.standing.verdict == expected
    leaf = found.deciding()
    assert leaf.tested is not None
    assert leaf.tested.estimate == pytest.approx(-loss, abs=1e-9)
    assert leaf.tested.n == 40
    assert leaf.evidence == ["speech/cells/student-1-0-test-uniform", "speech/cells/teacher-32-0-test-uniform"]
    assert all((folder.path / path).is_dir() for path in leaf.evidence)
    assert ("could have been seen" in found.reason) == (expected == "underpowered")


def test_wer_is_all_edits_over_all_words(folder: Any, claim: Make) -> None:
    folder.cell("teacher", 32, wer=np.zeros(40))
    folder.cell("student", 1, wer=np.array([4.0] * 10 + [0.0] * 30))  # 40 edits of 400 words
    found = small(claim({"figures": {"wer": 0.02}}), folder)
    assert found.standing.verdict == "not supported"
    assert found.deciding().tested.estimate == pytest.approx(0.1)  # type: ignore[union-attr]
    assert "10.0 % against 0.0 %: a loss beyond the margin of 2.0 % is shown" in found.reason


def test_too_few_utterances_for_a_margin_of_wer_are_told(folder: Any, claim: Make) -> None:
    """A word of 400 differs: 2.8 standard errors are .7 points, but no margin below 8.8 can be shown."""
    one = np.zeros(40)
    one[0] = 1.0
    folder.cell("teacher", 32, wer=np.zeros(40))
    folder.cell("student", 1, wer=one)
    found = small(claim({"figures": {"wer": 0.02}}), folder)
    assert found.standing.verdict == "underpowered"
    assert "8.8 % could have been seen" in found.reason
    assert (
        "40 utterances cannot show that a difference is within 2.0 % even where none differs: that takes 183"
        in found.reason
    )
    assert found.deciding().record()["smallest_margin"] == pytest.approx(1 - 0.025 ** (1 / 40))
    gain = small(claim({"figures": {"wer": 0.01}, "test": "better"}), folder)
    assert "11.0 % could have been seen" in gain.reason  # 44 words of 400: 1.1^−39 = .024
    assert "that takes 368" in gain.reason


def test_three_seeds_speak_of_methods_and_two_of_checkpoints(folder: Any, claim: Make) -> None:
    folder.cell("teacher", 32, sim=BASE)
    for seed, shift in enumerate((-0.002, 0.0, 0.002)):
        folder.cell("student", 1, seed, sim=BASE + shift + 0.01 * np.roll(NOISE, seed))
        if seed:
            assert small(claim({}), folder).training_seeds == seed + 1
    found = small(claim({}), folder)
    assert found.standing.verdict == "supported"
    assert found.deciding().tested.n == 40  # type: ignore[union-attr]


def test_a_row_without_all_of_its_seeds_is_no_evidence(folder: Any, claim: Make) -> None:
    folder.cell("teacher", 32, sim=BASE)
    folder.cell("student", 1, 0, sim=BASE)
    planned = {"systems": [{"method": "intmeanflow", "name": "student", "seeds": [0, 1]}], "noise_seeds": [0]}
    (folder.path / "speech" / "experiment.yaml").write_text(yaml.safe_dump(planned))
    assert small(claim({}), folder).reason == "student 1 NFE: nothing of training seed 1"
    folder.cell("student", 1, 1, sim=BASE + 0.001 * NOISE)
    assert small(claim({}), folder).standing.verdict == "supported"
    (folder.path / "speech" / "experiment.yaml").write_text(yaml.safe_dump({**planned, "noise_seeds": [0, 1]}))
    assert small(claim({}), folder).reason == "student 1 NFE: 1 of its noise seeds have no row yet"


def test_noise_seeds_are_averaged_and_must_be_the_same_on_both_sides(folder: Any, claim: Make) -> None:
    worse = np.zeros(40)
    worse[:20] = 1.0
    for noise in (0, 1):
        folder.cell("teacher", 32, sim=BASE, wer=np.zeros(40), noise_seed=noise)
    folder.cell("student", 1, sim=BASE - 0.1, wer=worse, noise_seed=0)
    both = claim({"figures": {"sim": 0.03, "wer": 0.02}})
    found = small(both, folder)
    assert found.standing.verdict == "no evidence"
    assert found.reason == "the two sides have other noise seeds: 0 against 0, 1"
    folder.cell("student", 1, sim=BASE + 0.1, wer=np.zeros(40), noise_seed=1)
    sim, wer = small(both, folder).leaves()
    assert sim.tested is not None
    assert wer.tested is not None
    assert sim.tested.estimate == pytest.approx(0, abs=1e-9)
    assert wer.tested.estimate == pytest.approx(0.025)  # a word of ten, of half the utterances at one of two seeds
    assert wer.tested.smallest_margin == pytest.approx((1 - 0.025 ** (1 / 40)) / 2)  # a recording loses half


def test_a_failed_cell_is_no_evidence_and_never_passes(folder: Any, claim: Make) -> None:
    folder.cell("teacher", 32, sim=BASE, mos_distillmos=BASE)
    folder.cell("student", 1, sim=BASE + 0.001 * NOISE, mos_distillmos=BASE + 0.001 * NOISE)
    folder.cell("student", 1, 1, sim=BASE, mos_distillmos=BASE, status="failed: disk")
    for rule in ("all", "any"):
        found = small(claim({"figures": {"sim": 0.03, "mos_distillmos": 0.1}, "of_figures": rule}), folder)
        assert found.standing.verdict == "no evidence"
        assert "student-1-1-test-uniform: failed: disk" in found.reason + str(found.record())


def test_no_evidence_says_why(folder: Any, claim: Make) -> None:
    assert small(claim({}), folder, speech="no artefact 'x'").reason == "no artefact 'x'"
    folder.cell("teacher", 32, sim=BASE)
    assert small(claim({}), folder).reason == "speech has no row student 1 NFE yet"
    folder.cell("student", 1, sim=BASE, signatures={"sim": "sim-v2"})
    found = small(claim({}), folder)
    assert found.standing.verdict == "no evidence"
    assert "other signatures" in found.reason


def test_what_several_parts_lack_is_told_once(folder: Any, claim: Make) -> None:
    two = {"figures": {"sim": 0.03, "mos_distillmos": 0.1}}
    assert small(claim(two), folder).reason == "the experiment speech has not been run"
    folder.cell("teacher", 32, sim=BASE)
    assert small(claim(two), folder).reason == "speech has no row student 1 NFE yet"


def test_missing_scores_are_counted_and_many_are_no_evidence(folder: Any, claim: Make) -> None:
    one, many = BASE.copy(), BASE.copy()
    one[0], many[:5] = np.nan, np.nan
    folder.cell("teacher", 32, sim=BASE)
    folder.cell("student", 1, sim=one)
    found = small(claim({}), folder)
    assert found.standing.verdict == "supported"
    assert "1 utterances without a score are left out" in found.reason
    folder.cell("student", 2, sim=many)
    found = small(claim({"a": {"system": "student", "nfe": 2}}), folder)
    assert found.standing.verdict == "no evidence"
    assert "35 of 40" in found.reason


def test_two_grids_need_a_name(folder: Any, claim: Make) -> None:
    folder.cell("teacher", 32, sim=BASE, grid="sway")
    folder.cell("teacher", 32, sim=BASE - 0.5, grid="uniform")
    folder.cell("student", 1, sim=BASE)
    assert "name its grid" in small(claim({}), folder).reason
    named = small(claim({"b": {"system": "teacher", "nfe": 32, "grid": "sway"}}), folder)
    assert named.standing.verdict == "supported"


def test_lists_are_a_test_each(folder: Any, claim: Make) -> None:
    for on, loss in (("hard", 0.0), ("long2", 0.2)):
        folder.cell("teacher", 32, on=on, sim=BASE)
        folder.cell("student", 1, on=on, sim=BASE - loss + 0.001 * NOISE)
    found = small(claim({"sets": ["hard", "long2"]}), folder)
    assert [leaf.standing.verdict for leaf in found.leaves()] == ["supported", "not supported"]
    assert found.standing.verdict == "not supported"
    beside = {"sets": ["long2"], "counts": False}
    assert small(claim({"sets": ["hard"]}, beside), folder).standing.verdict == "supported"


def test_other_budgets_are_not_testable_here(folder: Any, claim: Make) -> None:
    assert judge(claim({}), "cpu", folder.evidence()).standing.verdict == "not testable here"
    stopped = judge(claim({}), "small", folder.evidence(), "no accelerator")
    assert (stopped.standing.verdict, stopped.reason) == ("not testable here", "no accelerator")
    assert small(claim({"budgets": ["full"]}), folder).standing.verdict == "not testable here"


def test_speed_is_paired_and_counts_guidance(folder: Any, claim: Make) -> None:
    rows = [
        {
            "id": f"u{i}",
            "row": row,
            "network_seconds": seconds * (1 + i),
            "vocoder_seconds": 1.0 + i,
            "network_calls": calls,
        }
        for i in range(6)
        for row, seconds, calls in (("student", 0.1, 1), ("teacher", 4.0, 64))
    ]
    part = {
        "test": "faster",
        "measurement": "speed",
        "margin": 10,
        "a": {"system": "student"},
        "b": {"system": "teacher"},
    }
    part |= {"figures": {}}
    folder.measurement("speed", {}, rows, complete=False)
    assert small(claim(part), folder).standing.verdict == "no evidence"
    folder.measurement("speed", {}, rows)
    found = small(claim(part), folder)
    assert found.standing.verdict == "supported"
    assert found.deciding().tested.estimate == pytest.approx(40)  # type: ignore[union-attr]
    assert "1 network calls against 64" in found.reason
    assert found.deciding().about["total_ratio"] == pytest.approx(5 / 1.1)
    assert "real-time factor" not in found.reason, "an older record does not say how long the speech is"
    folder.measurement("speed", {}, [{**row, "generated_seconds": 5.0 * row["vocoder_seconds"]} for row in rows])
    assert small(claim(part), folder).reason.endswith(
        "real-time factor: network 0.02 against 0.8, total 0.22 against 1"
    )


def test_memory_is_judged_at_every_size_and_says_how_it_grows(folder: Any, claim: Make) -> None:
    def row(method: str, frames: int, size: int | None) -> dict[str, Any]:
        return {"method": method, "frames": frames, "batch": 2, "width": 256, "peak_memory": size, "seconds": 1.0}

    rows = [row("k4", 250, 100), row("jvp", 250, 150), row("k4", 500, 100), row("jvp", 500, 300)]
    part = {
        "test": "less-memory",
        "measurement": "memory",
        "margin": 1.05,
        "a": {"system": "k4"},
        "b": {"system": "jvp"},
    }
    folder.measurement("memory", {}, rows)
    found = small(claim(part), folder)
    assert found.standing.verdict == "supported"
    assert "1.50 to 3.00 times the bytes" in found.reason
    assert "frames 250: 1.50, 500: 3.00" in found.reason
    folder.measurement("memory", {}, [*rows, row("k4", 1000, 100), row("jvp", 1000, 101)])
    assert small(claim(part), folder).standing.verdict == "not supported"


@pytest.mark.parametrize(
    ("a", "b", "expected", "told"),
    [
        ({"peak_memory": 100}, {"at_least": 220}, "supported", "for jvp alone at 1 size, where k4 fitted: the ratio there is "
         "no less than 2.20"),
        ({"peak_memory": 100}, {"at_least": 104}, "underpowered", "no less than 1.04"),  # more than the margin, or not
        ({"peak_memory": 100}, {}, "underpowered", "no less than 1.00"),
        ({"at_least": 200}, {"peak_memory": 150}, "not supported", "for k4 alone at 1 size, where jvp fitted: the ratio there is "
         "no more than 0.75"),
        ({}, {"peak_memory": 150}, "not supported", "no more than 1.00"),
        ({"at_least": 100}, {"at_least": 900}, "supported", "for both at 1, which say nothing"),
    ],
)  # fmt: skip
def test_memory_that_runs_out_on_one_side_bounds_the_ratio(
    a: dict[str, Any], b: dict[str, Any], expected: str, told: str, folder: Any, claim: Make
) -> None:
    """That MeanFlow does not fit where IntMeanFlow does is what the claim predicts."""

    def row(method: str, frames: int, **found: Any) -> dict[str, Any]:
        return {
            "method": method,
            "frames": frames,
            "batch": 2,
            "width": 256,
            "peak_memory": None,
            "seconds": None,
            **found,
        }

    known = [row("k4", 250, peak_memory=100, seconds=1.0), row("jvp", 250, peak_memory=150, seconds=1.0)]
    sides = {"a": {"system": "k4"}, "b": {"system": "jvp"}}
    part = {"test": "less-memory", "measurement": "memory", "margin": 1.05, **sides}
    folder.measurement("memory", {}, [*known, row("k4", 500, **a), row("jvp", 500, **b)])
    found = small(claim(part), folder)
    assert found.standing.verdict == expected
    assert told in found.reason
    assert "1.50 to 1.50 times the bytes" in found.reason
    folder.measurement("memory", {}, [row("k4", 500), row("jvp", 500)])
    assert small(claim(part), folder).reason == "memory: memory ran out for both at all 1 sizes"


def test_a_difference_says_in_which_direction(folder: Any, claim: Make) -> None:
    folder.cell("teacher", 32, sim=BASE)
    folder.cell("student", 1, sim=BASE - 0.1 + 0.01 * NOISE)
    found = small(claim({"test": "different"}), folder)
    assert found.standing.verdict == "supported"
    assert found.reason.endswith("a difference is shown, student is lower")
    gain = small(claim({"test": "better", "a": {"system": "teacher", "nfe": 32}, "b": {"system": "student", "nfe": 1},
                        "figures": {"sim": 0.2}}), folder)  # fmt: skip
    assert gain.standing.verdict == "supported"
    assert "a gain is shown, smaller than the margin of 0.200" in gain.reason


def test_a_score_is_judged_along_each_point(folder: Any, claim: Make) -> None:
    points = [(i, j) for i in range(1, 10) for j in range(i + 1, 10)]
    rng = np.random.default_rng(3)
    small_noise = 0.001 * rng.standard_normal(8)
    part = {"test": "convex", "measurement": "score", "margin": 0.1, "a": None, "b": None, "figures": {}}

    def judged(cost: Callable[[int, int], Any]) -> Node:
        rows = [{"grid": list(p), "costs": {str(i): float(c) for i, c in enumerate(cost(*p))}} for p in points]
        folder.measurement("score", {"score": "sim"}, rows)
        return small(claim(part), folder)

    assert judged(lambda x, y: x**2 + y**2 + 3 * x * y + small_noise).standing.verdict == "supported"  # a saddle
    assert judged(lambda x, y: -(x**2) + y**2 + small_noise).standing.verdict == "not supported"
    noise = judged(lambda x, y: rng.standard_normal(8))
    assert noise.standing.verdict == "underpowered"
    assert "of 68 midpoint inequalities along single points" in noise.reason
    (shape,) = noise.children
    assert shape.tested is not None
    assert 1.1 < shape.tested.minimum_detectable < 1.8  # of the score: √(1.5/8) · 3.3 standard errors


def test_a_search_that_was_cut_off_is_told(folder: Any, claim: Make) -> None:
    grids = folder.path / "speech" / "grids"
    grids.mkdir(parents=True)
    folder.cell("student", 2, sim=BASE)
    for seed in (0, 1):
        name = f"student-seed{seed}+o3s-2"
        folder.cell("student+o3s", 2, seed, grid=name, sim=BASE + 0.1 + 0.01 * NOISE)
        (grids / f"{name}.json").write_text(json.dumps({"stopped": "a whole sweep met only known grids"}))
    part = {"test": "better", "a": {"system": "student+o3s", "nfe": 2}, "b": {"system": "student", "nfe": 2}}
    found = small(claim(part), folder)
    assert found.reason.endswith("the search ended: a whole sweep met only known grids")
    assert "speech/grids/student-seed1+o3s-2.json" in found.deciding().evidence
    (grids / f"{name}.json").write_text(json.dumps({"stopped": "the limit of 15 evaluations"}))
    found = small(claim(part), folder)
    assert "the searches of 1 of 2 grids did not finish (the limit of 15 evaluations)" in found.reason
    assert small(claim({**part, "a": part["b"], "test": "non-inferior"}), folder).reason.count("search") == 0


def test_harder_sets_are_held_against_the_plain_one(folder: Any, claim: Make) -> None:
    def cells(on: str, loss: float, seeds: tuple[int, ...]) -> None:
        folder.cell("teacher", 32, on=on, sim=BASE, wer=np.zeros(40))
        for seed in seeds:
            folder.cell(
                "student", 1, seed, on=on, sim=BASE - loss - 0.05 * seed + 0.01 * np.roll(NOISE, seed), wer=np.zeros(40)
            )

    cells("test", 0.1, (0, 1, 2))
    cells("noisy", 0.11, (0, 1, 2))
    cells("hard", 0.3, (0, 1, 2))
    cells("long2", 0.1, (0, 1))
    alone = {"sets": ["noisy", "hard"]}
    found = small(claim({**alone, "figures": {"sim": 0.1}}), folder)
    assert [leaf.standing.verdict for leaf in found.leaves()] == ["underpowered", "not supported"]
    found = small(claim({**alone, "baseline_set": "test"}), folder)
    noisy, hard = found.leaves()
    assert (noisy.standing.verdict, hard.standing.verdict) == ("supported", "not supported")
    assert noisy.tested is not None
    assert noisy.tested.estimate == pytest.approx(-0.01)
    assert noisy.training_seeds == 3
    assert "on noisy and" in noisy.reason
    assert "on test, the same utterances: the further loss is within the margin of 0.030" in noisy.reason
    assert "on test: a further" in hard.reason
    assert "a further loss beyond the margin of 0.030 is shown" in hard.reason
    assert any("student-1-2-test" in path for path in noisy.evidence)
    words = small(claim({"sets": ["noisy"], "baseline_set": "test", "figures": {"wer": 0.03}}), folder)
    assert (
        words.standing.verdict == "underpowered"
    )  # 40 utterances of three networks: .91 ** 40 = .023, and the plain set's
    other = small(claim({"sets": ["long2"], "baseline_set": "test"}), folder)
    assert (other.standing.verdict, other.reason) == (
        "no evidence",
        "long2 and test have the rows of other training seeds",
    )


def test_harder_sets_stay_paired_where_a_score_is_missing(folder: Any, claim: Make) -> None:
    """The sentences' own differences are large and the same in both sets: unpaired they would drown what is lost."""
    sentences = 0.3 * np.roll(NOISE, 7)
    for on, loss in (("test", 0.0), ("noisy", 0.1)):
        folder.cell("teacher", 32, on=on, sim=BASE)
        scores = BASE - loss + sentences + 0.001 * NOISE
        scores[3 if on == "noisy" else 5] = np.nan
        folder.cell("student", 1, on=on, sim=scores)
    (found,) = small(claim({"sets": ["noisy"], "baseline_set": "test"}), folder).leaves()
    assert found.standing.verdict == "not supported"
    assert found.tested is not None
    assert (found.tested.estimate, found.tested.n) == (pytest.approx(-0.1), len(BASE) - 2)
    assert "the same utterances" in found.reason
    assert "2 utterances without a score are left out" in found.reason


def test_an_open_claim_hangs_on_a_test_that_is_open(folder: Any, claim: Make) -> None:
    folder.cell("teacher", 32, sim=BASE, mos_distillmos=BASE)
    folder.cell("student", 1, sim=BASE - 0.05 + 0.001 * NOISE, mos_distillmos=BASE + 0.05 * NOISE)
    part = {"test": "better", "figures": {"sim": 0.03, "mos_distillmos": 0.01}, "of_figures": "any"}
    found = small(claim(part), folder)
    assert found.standing.verdict == "underpowered"
    assert found.deciding().standing.verdict == "underpowered"
    assert found.deciding().about["figure"] == "mos_distillmos"


def test_a_budget_may_have_a_wider_margin(folder: Any, claim: Make) -> None:
    folder.cell("teacher", 32, sim=BASE)
    folder.cell("student", 1, sim=BASE - 0.05 + 0.01 * NOISE)
    found = {budget: claim({"margins_in": {budget: {"sim": 0.1}}}) for budget in ("small", "cpu")}
    assert small(found["small"], folder).standing.verdict == "supported"
    assert small(found["cpu"], folder).standing.verdict == "not supported"
