"""Claims about the stability of trainings, from logs whose spreads and divergences are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from imfbench.claims.definition import Claim, load_claims
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
    assert "none against 80% could have been seen" in found.leaves()[-1].reason


def _stability(folder: Any, diverged: dict[str, int], sizes: tuple[float, float] = (0.1, 1.0)) -> Node:
    """Claim 5 as it stands in claims.yaml, over five seeds a side of which so many diverged, norms of these fluctuations."""
    claims = load_claims()
    for system, size in zip(("intmeanflow", "meanflow"), sizes, strict=True):
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
    assert [leaf.standing.verdict for leaf in found.leaves()] == ["supported"] * 4
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
    assert [leaf.standing.verdict for leaf in found.leaves()] == [*["supported"] * 3, "underpowered"]
    assert found.standing.verdict == "underpowered"
    wild = _stability(folder, {}, (1.0, 0.1))
    assert wild.standing.verdict == "not supported"


def test_an_adaptive_weight_does_not_hide_a_gradient_norm(folder: Any, claim: Make) -> None:
    """The norm of a loss weighted by 1/error is level however the gradients fluctuate."""
    unweighted = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        errors, calm, norms = (np.exp(sd * rng.standard_normal(100)) for sd in (1.0, 0.3, 0.1))
        unweighted.append(norms * errors)
        folder.training(
            f"weighted-seed{seed}", np.ones(100), norms, columns={"squared_error": errors, "weight": 1 / errors}
        )
        folder.training(f"plain-seed{seed}", calm, calm)
    sides = {"experiment": "stability", "a": {"system": "plain"}, "b": {"system": "weighted"}}
    found = small(claim({"test": "steadier", **sides, "figures": {"grad_norm_within": 0.05}}), folder)
    assert found.standing.verdict == "supported", found.reason
    assert found.deciding().about["b"] == pytest.approx([np.log(g[50:]).std(ddof=1) for g in unweighted])
    over_seeds = small(claim({"test": "steadier", **sides, "figures": {"grad_norm": 1}}), folder)
    assert over_seeds.deciding().about["b"] == pytest.approx([np.log(g[50:].mean()) for g in unweighted])
