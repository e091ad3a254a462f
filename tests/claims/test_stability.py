"""Claims about the stability of trainings, from logs whose spreads and divergences are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import yaml

from imfbench.claims.definition import Claim, load_claims
from imfbench.claims.evidence import Evidence
from imfbench.claims.judgement import judge
from imfbench.claims.node import Node

Make = Callable[..., Claim]


def small(claim: Claim, folder: Any, **failures: str) -> Node:
    return judge(claim, "small", folder.evidence(**failures))


def test_stability_reads_the_logs(folder: Any, claim: Make) -> None:
    steps = np.arange(100)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        folder.training(f"calm-seed{seed}", 1 + 0.001 * seed + 0 * steps, np.exp(0.1 * rng.standard_normal(100)))
        folder.training(f"wild-seed{seed}", 1 + 0.5 * seed + 0 * steps, np.exp(1.0 * rng.standard_normal(100)))
    sides = {"experiment": "stability", "a": {"system": "calm"}, "b": {"system": "wild"}}
    spread = {"test": "steadier", **sides, "figures": {"loss": 1, "grad_norm_within": 0.05}}
    share = {"test": "diverges-less", **sides, "figures": {}}
    found = small(claim(spread, share), folder)
    assert [leaf.standing.verdict for leaf in found.leaves()] == ["supported", "supported", "underpowered"]
    assert found.standing.verdict == "underpowered"
    assert found.training_seeds == 5
    assert "none against 83% could have been seen" in found.leaves()[-1].reason


def test_trainings_that_are_not_there_or_not_at_their_end_are_no_evidence(folder: Any, claim: Make) -> None:
    sides = {"experiment": "stability", "a": {"system": "calm"}, "b": {"system": "wild"}}
    spread = {"test": "steadier", **sides, "figures": {"loss": 1}}
    steps = np.arange(100)
    folder.training("calm-seed0", 1 + 0 * steps, 1.0 + 0 * steps)
    found = small(claim(spread), folder)
    assert found.standing.verdict == "no evidence"
    assert "no training of wild in stability" in found.reason
    folder.training("wild-seed0", 1 + 0 * steps, 1.0 + 0 * steps, status="unfinished")
    found = small(claim(spread), folder)
    assert found.standing.verdict == "no evidence"
    assert "the training wild-seed0 of stability has not ended" in found.reason


def _stability(folder: Any, diverged: dict[str, int], sizes: tuple[float, float] = (0.1, 1.0)) -> Node:
    """Claim 5 as it stands in claims.yaml, over five seeds a side of which so many diverged, norms of these fluctuations."""
    claims = load_claims()
    for system, size in zip(("intmeanflow", "meanflow", "meanflow-unweighted"), (*sizes, 1.0), strict=True):
        for seed in range(5):
            rng = np.random.default_rng(seed)
            norms, level = np.exp(size * rng.standard_normal(100)), np.full(100, np.exp(size * rng.standard_normal()))
            if seed < diverged.get(system, 0):  # at once: nothing of it can be compared with whole trainings
                norms, level = np.full(1, np.nan), np.full(1, np.inf)
            status = "diverged" if seed < diverged.get(system, 0) else "ok"
            folder.training(f"{system}-seed{seed}", level, norms * level.mean(), status=status)
    return judge(claims.chosen((5,))[0], "cpu", folder.evidence())


def test_what_diverged_decides_stability(folder: Any) -> None:
    """Exploded trainings are the strongest evidence that there is: claim 5's own parts must be able to say so."""
    found = _stability(folder, {"meanflow": 4})
    assert [leaf.standing.verdict for leaf in found.leaves()][:4] == ["supported"] * 4
    assert found.standing.verdict == "supported"
    assert found.training_seeds == 5
    assert "0 of 5 runs diverged against 4 of 5" in found.leaves()[0].reason
    assert "has no spread" in found.leaves()[0].reason


@pytest.mark.parametrize(
    ("diverged", "expected"),
    [
        ({"meanflow": 5, "intmeanflow": 1}, "supported"),  # Fisher: .0238
        ({"meanflow": 5, "intmeanflow": 2}, "underpowered"),
        ({"meanflow": 1}, "underpowered"),
        ({"meanflow": 1, "intmeanflow": 1}, "underpowered"),
        ({"intmeanflow": 5}, "not supported"),
    ],
)
def test_too_few_diverged_runs_show_nothing_and_the_other_side_s_refute(
    diverged: dict[str, int], expected: str, folder: Any
) -> None:
    assert _stability(folder, diverged).standing.verdict == expected


def test_without_divergence_the_spreads_are_judged_and_the_share_is_open(folder: Any) -> None:
    found = _stability(folder, {})
    assert [leaf.standing.verdict for leaf in found.leaves()] == [*["supported"] * 3, "underpowered"] * 2
    assert found.standing.verdict == "underpowered"
    wild = _stability(folder, {}, (1.0, 0.1))
    assert wild.standing.verdict == "not supported"


def test_gradient_norms_are_those_that_are_clipped_and_losses_the_plain_ones(folder: Any, claim: Make) -> None:
    """A norm divided by the mean weight would be the batch's error: unsteady, however steady the gradients are."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        errors, plain, norms = (np.exp(sd * rng.standard_normal(100)) for sd in (1.0, 0.3, 0.1))
        columns = {"squared_error": errors, "weight": 1 / errors}
        folder.training(f"weighted-seed{seed}", np.ones(100), norms, columns=columns)
        folder.training(f"plain-seed{seed}", plain, plain)
    sides = {"experiment": "stability", "a": {"system": "plain"}, "b": {"system": "weighted"}}
    found = small(claim({"test": "steadier", **sides, "figures": {"grad_norm_within": 0.05}}), folder)
    assert found.standing.verdict == "not supported", found.reason
    assert np.mean(found.deciding().about["b"]) == pytest.approx(0.1, abs=0.02)
    loss = small(claim({"test": "steadier", **sides, "figures": {"loss": 1}}), folder).deciding()
    means = [np.log(np.exp(np.random.default_rng(seed).standard_normal(100))[50:].mean()) for seed in range(5)]
    assert loss.about["b"] == pytest.approx(means)


def test_a_training_that_is_missing_is_no_evidence(folder: Any, claim: Make) -> None:
    systems = [{"method": "meanflow", "name": None, "seeds": [0, 1, 2]}, {"method": "intmeanflow", "seeds": [0, 1, 2]}]
    for seed in range(3):
        for system in ("meanflow", "intmeanflow"):
            if (system, seed) != ("meanflow", 2):
                folder.training(f"{system}-seed{seed}", np.exp(0.1 * np.arange(9)), np.exp(0.1 * np.arange(9) + seed))
    sides = {"experiment": "stability", "a": {"system": "intmeanflow"}, "b": {"system": "meanflow"}}
    part = claim({"test": "diverges-less", **sides, "figures": {}})
    assert small(part, folder).standing.verdict == "underpowered"
    (folder.path / "stability" / "experiment.yaml").write_text(yaml.safe_dump({"systems": systems}))
    found = small(part, folder)
    assert found.standing.verdict == "no evidence"
    assert found.reason == "trainings of meanflow in stability: nothing of training seed 2"
    jobs = {"stability": {"train:meanflow-seed2": "memory ran out"}}
    told = judge(part, "small", Evidence(folder.path, jobs=jobs)).reason
    assert told == "trainings of meanflow in stability: nothing of training seed 2 (memory ran out)"
