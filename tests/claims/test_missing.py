"""Utterances without a score: left out of the figures, and counted against whoever alone lacks them, of WER."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from imfbench.claims.definition import Claim, Pick
from imfbench.claims.judgement import judge
from imfbench.claims.node import Node

Make = Callable[..., Claim]
STUDENT, TEACHER = Pick(system="student", nfe=1), Pick(system="teacher", nfe=32)


def small(claim: Claim, folder: Any) -> Node:
    return judge(claim, "small", folder.evidence())


def lacks(cell: Path, *rows: int, told: bool = True) -> None:
    """Take the figures of these utterances away, as where they were not made, or could not be scored (``told=False``)."""
    table = pd.read_parquet(cell / "utterances.parquet")
    table.loc[list(rows), ["substitutions", "deletions", "insertions", "reference_words", "wer"]] = np.nan
    if told:
        table.loc[list(rows), "status"] = "failed"
    table.to_parquet(cell / "utterances.parquet")


@pytest.mark.parametrize("told", [True, False])
def test_an_utterance_without_a_score_is_left_out_and_counts_as_lost(folder: Any, claim: Make, told: bool) -> None:
    edits, asked = np.zeros(40), claim({"figures": {"wer": 0.1}})
    teacher, student = folder.cell("teacher", 32, wer=edits), folder.cell("student", 1, wer=edits)
    assert small(asked, folder).standing.verdict == "supported"
    lacks(student, 3, told=told)
    found = small(asked, folder)
    assert found.standing.verdict == "underpowered"
    assert "1 utterances without a score are left out of the figures, and count as lost against a side" in found.reason
    leaf = found.deciding()
    assert leaf.tested is not None
    assert (leaf.tested.n, leaf.tested.estimate) == (39, 0.0)
    lacks(teacher, 3, told=told)  # where the teacher lacks it as well it says nothing
    assert small(asked, folder).standing.verdict == "supported"


@pytest.mark.parametrize("lacking", [(), (0,), (2,), (0, 1, 2)])
def test_what_other_networks_lost_stays_known_where_one_lacks_the_utterance(
    folder: Any, claim: Make, lacking: tuple[int, ...]
) -> None:
    """Students 1 and 2 lose the utterance whole. A student without a score of it lost it as well, and hides nothing."""
    lost = np.zeros(40)
    lost[3] = 10.0
    folder.cell("teacher", 32, wer=np.zeros(40))
    cells = [folder.cell("student", 1, seed, wer=lost if seed else np.zeros(40)) for seed in range(3)]
    for seed in lacking:
        lacks(cells[seed], 3)
    found = folder.evidence().differences("speech", STUDENT, TEACHER, "wer")
    of_a = found.against[0][:, found.against_ids.index("u003")]
    assert of_a.tolist() == [1.0 if 0 in lacking else 0.0, 1.0, 1.0]
    of_b = found.against[1][:, found.against_ids.index("u003")]  # a gain of a is not ruled out by what a lacks
    assert of_b.tolist() == [0.0, *(0.0 if seed in lacking else 1.0 for seed in (1, 2))]
    assert (len(found.ids) == 40) == (not lacking)
    assert found.against[0].shape == (3, 40)


def test_of_two_noise_seeds_a_missing_recording_is_half(folder: Any, claim: Make) -> None:
    """And its length is known by the other side: 10 words, as all others here."""
    one = np.zeros(40)
    one[5] = 2.0
    for noise in (0, 1):
        folder.cell("teacher", 32, wer=one, noise_seed=noise)
        student = folder.cell("student", 1, wer=np.zeros(40), noise_seed=noise)
    lacks(student, 5)
    found = folder.evidence().differences("speech", STUDENT, TEACHER, "wer")
    at = found.against_ids.index("u005")
    assert found.against[0][0, at] == pytest.approx((-0.2 + 1 - 0.2) / 2)
    assert found.against[1][0, at] == pytest.approx(-0.2)


@pytest.mark.parametrize("noise_seeds", [(0,), (0, 1)])
def test_a_recording_without_noise_stands_against_each_seed_whichever_side_it_is(
    folder: Any, noise_seeds: tuple[int, ...]
) -> None:
    one = np.zeros(40)
    one[5] = 2.0
    for noise in noise_seeds:
        lacks(folder.cell("student", 1, wer=one, noise_seed=noise), 3)
    folder.cell("ground-truth", 1, wer=np.zeros(40), noise_seed=None)
    recording = Pick(system="ground-truth", nfe=1)
    for sides, sign, lost in (((STUDENT, recording), 1, (1.0, 0.0)), ((recording, STUDENT), -1, (0.0, -1.0))):
        found = folder.evidence().differences("speech", *sides, "wer")
        assert found.values[0, found.ids.index("u005")] == pytest.approx(0.2 * sign)
        for against, expected in zip(found.against, lost, strict=True):
            assert against[0, found.against_ids.index("u005")] == pytest.approx(0.2 * sign)
            assert against[0, found.against_ids.index("u003")] == pytest.approx(expected)


def test_seeds_that_are_not_compared_lack_nothing(folder: Any, claim: Make) -> None:
    for seed in (0, 1):
        folder.cell("other", 1, seed, wer=np.zeros(40))
    cells = [folder.cell("student", 1, seed, wer=np.zeros(40)) for seed in range(3)]
    lacks(cells[2], *range(20))
    found = folder.evidence().differences("speech", STUDENT, Pick(system="other", nfe=1), "wer")
    assert (found.seeds, found.missing, len(found.against_ids)) == ([0, 1], 0, 40)


@pytest.mark.parametrize(
    ("system", "on", "counts"), [("student", "noisy", True), ("teacher", "test", True), ("teacher", "noisy", False)]
)
def test_a_further_loss_counts_what_a_lacks_there_and_b_on_the_plain_set(
    folder: Any, claim: Make, system: str, on: str, counts: bool
) -> None:
    """Of 40 sentences under both conditions; the students are two, so that a swapped set or seed would show."""
    part = {
        "figures": {"wer": 0.16}, "sets": ["noisy"], "baseline_set": "test", "a": {"system": "student", "nfe": 1},
    }  # fmt: skip
    cells = {}
    for where in ("test", "noisy"):
        cells["teacher", where] = folder.cell("teacher", 32, on=where, wer=np.zeros(40))
        for seed in (0, 1):
            cells["student", where] = folder.cell("student", 1, seed, on=where, wer=np.zeros(40))
    before = small(claim(part), folder).deciding().tested
    lacks(cells[system, on], 3)
    after = small(claim(part), folder).deciding().tested
    assert before is not None
    assert after is not None
    assert after.p_support >= before.p_support
    assert (after.p_support > 1.3 * before.p_support) == counts
