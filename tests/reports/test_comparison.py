"""Paired tests, ties and groups on runs whose answers are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from imfbench.metrics import rare_losses, stats
from imfbench.reports import tables
from imfbench.reports.columns import quality
from imfbench.reports.comparison import against_teacher, at_equal_nfe, between_recordings, between_rows, rank
from imfbench.reports.grouping import Group, apart, entries, group_cells, labels
from imfbench.reports.latex import latex
from imfbench.reports.leaderboard import Leaderboard
from imfbench.reports.main_table import main_table
from imfbench.reports.results import read_run

N = 40
EVEN = np.tile([0.0, 0.02], N // 2)


def groups_of(run: Any) -> list[Group]:
    return group_cells(read_run(run.path).cells)


def scores(wer: float = 0.1, sim: float = 0.8, mos: float = 3.5) -> dict[str, np.ndarray]:
    """Scores with these means: half of the utterances a little below, half a little above."""
    return {"wer": wer + 5 * EVEN - 0.05, "sim": sim + EVEN - 0.01, "mos_distillmos": mos + 5 * EVEN - 0.05}


def test_a_difference_is_found_with_its_size_and_direction(run: Any) -> None:
    run.cell("teacher", 32, scores())
    run.cell("intmeanflow", 2, scores(wer=0.3, sim=0.8, mos=3.9))
    found = {c.column: c for c in against_teacher(groups_of(run)[0])}
    assert (found["wer"].verdict, found["sim"].verdict, found["mos_distillmos"].verdict) == (
        "worse",
        "no difference shown",
        "better",
    )
    assert found["wer"].difference == pytest.approx(0.2)
    assert found["wer"].low <= 0.2 <= found["wer"].high
    assert found["mos_distillmos"].difference == pytest.approx(0.4)
    assert found["sim"].p_holm == 1.0
    assert {c.n for c in found.values()} == {N}
    assert (found["wer"].a, found["wer"].b) == ("intmeanflow at NFE 2", "teacher at NFE 32")
    assert found["sim"].not_worse
    assert not found["wer"].not_worse


@pytest.mark.parametrize(("n", "verdict"), [(4, "too few to tell"), (10, "worse")])
def test_few_utterances_are_too_few_to_tell_however_large_the_difference(run: Any, n: int, verdict: str) -> None:
    run.cell("teacher", 32, {"sim": 0.8 + EVEN[:n], "mos_distillmos": 4.0 + EVEN[:n]})
    run.cell("intmeanflow", 1, {"sim": 0.5 + 2 * EVEN[:n], "mos_distillmos": 1.5 + 2 * EVEN[:n]})
    found = against_teacher(groups_of(run)[0])
    assert {c.verdict for c in found} == {verdict}
    assert {c.minimum_detectable is None for c in found} == {n == 4}
    Leaderboard().write(run.path)
    text = (run.path / "leaderboard" / "leaderboard.md").read_text(encoding="utf-8")
    assert ("too few utterances to show a difference in SIM-o, MOS (DistillMOS)." in text) == (n == 4)
    assert "could have seen" not in text


def test_equal_scores_of_few_utterances_show_no_equality(run: Any) -> None:
    for system, nfe in (("teacher", 32), ("intmeanflow", 1)):
        run.cell(system, nfe, {"wer": [0.0, 0.1, 0.0, 0.0], "sim": [0.8, 0.81, 0.8, 0.82]})
    found = against_teacher(groups_of(run)[0])
    assert {(c.verdict, c.not_worse, c.equivalent) for c in found} == {("too few to tell", False, False)}
    Leaderboard(pictures=False).write(run.path)
    text = (run.path / "leaderboard" / "leaderboard.md").read_text(encoding="utf-8")
    assert "ruled out for" not in text


@pytest.mark.parametrize("status", ["failed", "ok"])  # not made, or made and not scored
@pytest.mark.parametrize("side", [None, "intmeanflow", "teacher"])
def test_what_failed_counts_as_lost_where_a_loss_is_ruled_out(run: Any, side: str | None, status: str) -> None:
    """Twenty of 220 utterances have no score on one side; on the others both are without an error."""
    for system, nfe in (("teacher", 32), ("intmeanflow", 1)):
        key = run.cell(system, nfe, {"wer": np.zeros(220)})
        if system == side:
            path = run.path / "cells" / key / "utterances.parquet"
            table = pd.read_parquet(path)
            table.loc[:19, "status"] = status
            table.loc[:19, ["wer", "substitutions", "deletions", "insertions", "reference_words"]] = None
            table.to_parquet(path)
    (test,) = against_teacher(groups_of(run)[0])
    assert (test.column, test.n, test.difference) == ("wer", 220 if side is None else 200, 0)
    assert test.not_worse == (side != "intmeanflow")
    assert test.equivalent == (side is None)


@pytest.mark.parametrize("agg", ["corpus", "mean"])
def test_wer_is_compared_as_it_is_printed(run: Any, agg: str) -> None:
    rng = np.random.default_rng(1)
    words = rng.integers(5, 15, N)
    edits = {}
    for system, nfe, rate in (("teacher", 8, 0.1), ("intmeanflow", 1, 0.3)):
        edits[system] = rng.binomial(words, rate)
        key = run.cell(system, nfe, {"wer": edits[system] / words}, signatures={"wer": f"wer-v1|asr:base|agg:{agg}"})
        path = run.path / "cells" / key / "utterances.parquet"
        pd.read_parquet(path).assign(substitutions=edits[system], reference_words=words).to_parquet(path)
    (test,) = [c for c in against_teacher(groups_of(run)[0]) if c.column == "wer"]
    more = edits["intmeanflow"] - edits["teacher"]
    assert test.difference == pytest.approx(more.sum() / words.sum() if agg == "corpus" else (more / words).mean())


def test_p_values_are_corrected_over_all_tests_of_the_table(run: Any) -> None:
    rng = np.random.default_rng(0)
    run.cell("teacher", 32, {"sim": rng.normal(0.8, 0.05, N)})
    for nfe in (1, 2, 3):
        run.cell("meanflow", nfe, {"sim": rng.normal(0.78, 0.05, N)})
    tests = against_teacher(groups_of(run)[0])
    smallest = min(tests, key=lambda t: t.p or 0)
    assert smallest.p_holm == pytest.approx(min(1.0, 3 * (smallest.p or 0)))
    assert all((t.p_holm or 0) >= (t.p or 0) for t in tests)


def test_the_teacher_of_comparison_is_the_one_of_most_nfe_and_never_a_failed_one(run: Any) -> None:
    for nfe in (1, 32, 8):
        run.cell("teacher", nfe, scores())
    run.cell("teacher", 64, status="failed: out of memory", n_expected=N)
    run.cell("meanflow", 1, scores())
    run.cell("meanflow", 2, status="diverged", n_expected=N)
    run.cell("ground-truth", scores=scores(wer=0.05))
    assert {(c.a, c.b) for c in against_teacher(groups_of(run)[0])} == {("meanflow at NFE 1", "teacher at NFE 32")}


def test_systems_of_equal_nfe_are_compared_once_each(run: Any) -> None:
    for system, nfe in (("teacher", 2), ("meanflow", 2), ("intmeanflow", 2), ("intmeanflow", 1)):
        run.cell(system, nfe, {"sim": scores()["sim"]})
    pairs = [(c.a, c.b) for c in at_equal_nfe(groups_of(run)[0])]
    assert sorted(pairs) == [
        ("intmeanflow at NFE 2", "teacher at NFE 2"),
        ("meanflow at NFE 2", "intmeanflow at NFE 2"),
        ("meanflow at NFE 2", "teacher at NFE 2"),
    ]


def test_ties_with_the_best_are_marked_and_clear_losers_are_not(run: Any) -> None:
    noise = np.random.default_rng(2).normal(0, 0.02, (3, N))
    best = run.cell("teacher", 32, {"sim": 0.802 + noise[0]})
    tied = run.cell("intmeanflow", 2, {"sim": 0.800 + noise[1]})
    lost = run.cell("meanflow", 2, {"sim": 0.700 + noise[2]})
    recording = run.cell("ground-truth", scores={"sim": 0.9 + noise[0]})
    found = rank(groups_of(run)[0], quality("sim"))
    assert found is not None
    assert {k: found.mark(k) for k in (best, tied, lost, recording)} == {
        best: "best",
        tied: "tie",
        lost: "",
        recording: "",
    }


def test_the_best_wer_is_the_lowest_and_f0_variation_has_no_best(run: Any) -> None:
    run.cell("teacher", 32, {"wer": scores(wer=0.3)["wer"], "f0cv": EVEN + 0.2})
    low = run.cell("meanflow", 2, {"wer": scores(wer=0.1)["wer"], "f0cv": EVEN + 0.3})
    group = groups_of(run)[0]
    found = rank(group, quality("wer"))
    assert found is not None
    assert found.best == [low]
    assert rank(group, quality("f0cv")) is None
    (test,) = [c for c in against_teacher(group) if c.column == "f0cv"]
    assert (test.verdict, test.margin) == ("higher", None)


def test_noise_seeds_are_averaged_and_do_not_count_as_utterances(run: Any) -> None:
    for seed in (0, 1):
        run.cell("teacher", 32, {"sim": 0.8 + EVEN + 0.1 * seed}, noise_seed=seed)
        run.cell("meanflow", 2, {"sim": 0.7 + EVEN[::-1] + 0.1 * seed}, noise_seed=seed)
    run.cell("meanflow", 1, {"sim": 0.7 + EVEN[::-1]}, noise_seed=1)
    group = groups_of(run)[0]
    assert [(e.name, len(e.cells)) for e in entries(group)] == [
        ("teacher at NFE 32", 2),
        ("meanflow at NFE 1", 1),
        ("meanflow at NFE 2", 2),
    ]
    two, one = (next(c for c in against_teacher(group) if c.a == f"meanflow at NFE {n}") for n in (2, 1))
    assert (two.n, two.same_noise) == (N, True)
    assert two.difference == pytest.approx(-0.1)
    # Only seed 1 is common to both sides here.
    assert one.difference == pytest.approx(-0.2)


def test_of_recordings_nobody_knows_the_noise(run: Any) -> None:
    """Neither that two programs started from the same, nor that they did not."""
    run.cell("teacher", 32, {"sim": 0.8 + EVEN}, task="speech")
    run.cell("mine", 1, {"sim": 0.7 + EVEN}, task="speech", noise_seed=1)
    for name in ("theirs", "others"):
        run.cell(name, None, {"sim": 0.7 + EVEN[::-1]}, kind="recordings", task="speech", vocoder=None)
    (group,) = groups_of(run)
    (sampled,) = [c for c in against_teacher(group) if c.a == "mine at NFE 1"]
    recorded = between_recordings(group)
    assert (sampled.same_noise, [c.same_noise for c in recorded]) == (False, [None])
    found = {e.system: e for e in entries(group)}
    (mixed,) = between_rows(group, [(found["theirs"], found["teacher"])], ["sim"])
    assert (mixed.same_noise, mixed.n) == (None, N)
    told = "Some pairs did not start from the same noise."
    assert [told in tables.test_table([test])[1] for test in (sampled, recorded[0], mixed)] == [True, False, False]


def test_failed_utterances_leave_the_pairing_and_its_n(run: Any) -> None:
    values = 0.8 + EVEN
    values[:5] = np.nan
    run.cell("teacher", 32, {"sim": values})
    run.cell("meanflow", 2, {"sim": 0.7 + EVEN})
    (test,) = against_teacher(groups_of(run)[0])
    assert test.n == N - 5


def test_what_cannot_be_tested_says_why(run: Any) -> None:
    run.cell("teacher", 32, {"sim": 0.8 + EVEN})
    key = run.cell("meanflow", 2, {"sim": 0.7 + EVEN}, parquet=False)
    group = groups_of(run)[0]
    (test,) = against_teacher(group)
    assert test.verdict == f"not tested: cell {key} has no utterances.parquet"
    assert test.p_holm is None
    found = rank(group, quality("sim"))
    assert found is not None
    assert found.mark(key) == "untested"


def test_rows_of_different_signatures_are_grouped_apart_with_the_reason(run: Any) -> None:
    other = {"sim": "sim-v1|model:wespeaker"}
    run.cell("teacher", 32, {"sim": 0.8 + EVEN})
    run.cell("meanflow", 2, {"sim": 0.7 + EVEN}, signatures=other)
    failed = run.cell("meanflow", 1, status="failed: disk full", n_expected=N)
    first, second = groups_of(run)
    assert [c.system for c in first.cells] == ["teacher", "meanflow"]
    assert first.cells[1].row["key"] == failed
    assert [c.system for c in second.cells] == ["meanflow"]
    assert "sim: model is wespeaker here and resemblyzer there" in apart(first, second)
    assert against_teacher(first) == against_teacher(second) == []


def test_datasets_and_tasks_are_groups_of_their_own(run: Any) -> None:
    run.cell("teacher", 2, {"sim": EVEN}, dataset="demo/hard")
    run.cell("teacher", 2, {"sim": EVEN})
    run.cell("teacher", 2, {"sim": EVEN}, task="text2mel", key="t")
    assert [g.title for g in groups_of(run)] == [
        "text2mel on demo/test",
        "token2mel on demo/hard",
        "token2mel on demo/test",
    ]


def test_students_of_other_baked_in_guidance_are_other_contestants(run: Any) -> None:
    for w in (1.0, 2.0):
        run.cell("meanflow", 2, {"sim": np.full(N, 0.5)}, trained_guidance=w, key=f"w{w:g}")
    (group,) = groups_of(run)
    assert [entry.label for entry in entries(group)] == [
        "meanflow, baked-in guidance 1",
        "meanflow, baked-in guidance 2",
    ]


def test_rows_that_would_share_a_name_are_told_apart_by_what_differs(run: Any) -> None:
    for grid in ("uniform", "sway"):
        run.cell("teacher", 2, {"sim": EVEN}, grid=grid)
    run.cell("meanflow", 2, {"sim": EVEN}, vocoder="griffin-lim")
    names = labels(groups_of(run)[0].cells)
    assert sorted(names.values()) == ["meanflow", "teacher, grid sway", "teacher, grid uniform"]


def test_searched_grids_are_told_apart_by_the_seed_they_belong_to(run: Any) -> None:
    """Not by their names, which are other ones at each NFE."""
    for seed in (0, 1):
        for nfe in (2, 3):
            grid = f"intmeanflow-seed{seed}+o3s-sim-{nfe}"
            run.cell("intmeanflow+o3s", nfe, {"sim": EVEN}, grid=grid, train_seed=seed, key=grid)
    (group,) = groups_of(run)
    assert [(e.label, e.nfe) for e in entries(group)] == [
        (f"intmeanflow+o3s, training seed {seed}", nfe) for nfe in (2, 3) for seed in (0, 1)
    ]


def test_long_names_of_grids_stay_whole(run: Any) -> None:
    grids = [f"intmeanflow-of-half-an-hour+o3s-{i}" for i in (0, 1)]
    for grid in grids:
        run.cell("intmeanflow+o3s", 2, {"sim": EVEN}, grid=grid, key=grid)
    assert set(labels(groups_of(run)[0].cells).values()) == {f"intmeanflow+o3s, grid {grid}" for grid in grids}


def test_a_large_family_of_tests_can_still_show_a_difference(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 99 sign flips, and six tests, the least p-value would be .12 after Holm's correction; as with 9,999 and 600."""
    monkeypatch.setattr(stats, "PERMUTATIONS", 99)
    monkeypatch.setattr(rare_losses, "DRAWS", 99)
    for i in range(4):
        run.cell(f"system{i}", None, {"wer": 0.9 - i / 5 + 5 * EVEN}, kind="recordings", task="speech", vocoder=None)
    found = between_recordings(groups_of(run)[0], margins={"wer": 0.9})
    assert {t.verdict for t in found} == {"better"}
    assert {t.p_holm is not None and t.p_holm < 0.02 for t in found} == {True}
    assert {t.not_worse for t in found} == {True}


def test_a_row_that_failed_where_it_is_hard_is_not_the_best(run: Any) -> None:
    hard = np.where(np.arange(N) < 16, 0.4, 0.8)
    easy = np.where(np.arange(N) < 16, np.nan, 0.77)
    failing = run.cell("meanflow", 2, {"sim": easy + EVEN})
    whole = run.cell("intmeanflow", 2, {"sim": hard + EVEN[::-1]})
    group = groups_of(run)[0]
    found = rank(group, quality("sim"))
    assert found is not None
    assert [found.mark(key) for key in (failing, whole)] == ["", ""]
    assert found.contested == (
        "No row is the best in SIM-o: meanflow at NFE 2 has the best figure over what it could score, and is worse than "
        "intmeanflow at NFE 2 over the utterances that both have."
    )
    assert found.contested in "\n".join(main_table(group, [found]))
    assert found.contested in latex([group], {group.title: [found]})


@pytest.mark.parametrize(
    ("margins", "used"),
    [({}, 0.15), ({"mos": 0.3}, 0.3), ({"utmos": 0.05, "mos": 0.3}, 0.05), ({"mos_utmos": 0.01, "utmos": 0.05}, 0.01)],
)
def test_a_margin_is_of_a_column_a_metric_or_a_kind(run: Any, margins: dict[str, float], used: float) -> None:
    for i, system in enumerate(("mine", "theirs")):
        run.cell(system, None, {"mos_utmos": 3 + i + EVEN}, kind="recordings", task="speech", vocoder=None)
    (test,) = between_recordings(groups_of(run)[0], margins=margins)
    assert test.margin == used


def test_rows_timed_elsewhere_have_a_footnote(run: Any) -> None:
    for system, device, threads in (("a", "cpu", 1), ("b", "cpu", 1), ("c", "cpu", 2)):
        run.cell(system, 2, {"sim": 0.5 + EVEN}, rtf_total=0.1, device=device, threads=threads)
    text = "\n".join(main_table(groups_of(run)[0], []))
    assert text.count("0.100 |") == 2
    assert (
        "¹ timed on cpu, 2 threads, batch 1, unlike most rows (cpu, 1 thread, batch 1): the speeds do not compare"
        in text
    )


def test_tables_of_fewer_tests_stay_what_they_were(run: Any) -> None:
    """Of 66 tests the least p-value of 9,999 flips leaves a difference to be found: no further ones are drawn."""
    for i in range(12):
        run.cell(f"system{i}", None, {"sim": 0.5 + i / 100 + EVEN}, kind="recordings", task="speech", vocoder=None)
    found = between_recordings(groups_of(run)[0])
    assert (len(found), {t.p for t in found}, {t.different for t in found}) == (66, {2e-4}, {True})
