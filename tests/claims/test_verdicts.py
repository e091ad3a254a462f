"""How parts make a whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from imfbench.claims.node import Node, whole
from imfbench.claims.verdicts import Standing, combine, decide

YES, NO, OPEN = decide(0.001, 0.99), decide(0.99, 0.001), decide(0.4, 0.4)
LOST, ELSEWHERE = Standing("no evidence"), Standing("not testable here")


@pytest.mark.parametrize(
    ("rule", "parts", "expected"),
    [
        ("all", [YES, YES], "supported"),
        ("all", [YES, OPEN], "underpowered"),
        ("all", [YES, NO, OPEN], "not supported"),
        ("all", [YES, ELSEWHERE], "supported"),
        ("all", [ELSEWHERE, ELSEWHERE], "not testable here"),
        ("all", [YES, LOST], "no evidence"),
        ("all", [NO, LOST], "not supported"),
        ("all", [LOST, ELSEWHERE], "no evidence"),
        ("any", [NO, YES], "supported"),
        ("any", [NO, NO], "not supported"),
        ("any", [NO, OPEN], "underpowered"),
        ("any", [YES, LOST], "no evidence"),  # never passes
        ("any", [NO, LOST], "no evidence"),
    ],
)
def test_wholes(rule: str, parts: list[Standing], expected: str) -> None:
    assert combine(rule, parts).verdict == expected  # type: ignore[arg-type]


def test_one_of_many_has_to_pass_a_correction() -> None:
    barely = decide(0.02, 0.9)
    assert barely.verdict == "supported"
    assert combine("all", [barely] * 3).verdict == "supported"
    assert combine("any", [barely, OPEN]).verdict == "underpowered"
    refuted = decide(0.9, 0.02)
    assert combine("any", [refuted] * 3).verdict == "not supported"
    assert combine("all", [refuted, OPEN]).verdict == "underpowered"


def test_what_is_supported_refutes_nothing() -> None:
    """A small gain can be shown and be less than its margin: both p-values are small, and it is supported."""
    both = decide(7e-4, 3e-25)
    assert both.verdict == "supported"
    assert combine("all", [both, OPEN]).verdict == "underpowered"
    assert combine("all", [both, YES]).verdict == "supported"
    assert combine("all", [both, NO]).verdict == "not supported"
    barely = decide(0.02, 1e-9)  # too little for "any" of three, and no evidence against it
    assert combine("any", [barely, NO, NO]).verdict == "underpowered"


@pytest.mark.parametrize(("rule", "p", "told"), [
    ("any", (0.02, 0.9), "supported: a, b, c; one that is supported is enough, after Bonferroni's correction"),
    ("all", (0.9, 0.02), "not supported: a, b, c; after Bonferroni's correction for 3 parts none is refuted"),
    ("all", (0.001, 0.9), "all 3 parts are supported"),
])  # fmt: skip
def test_the_reason_does_not_contradict_the_verdict(rule: Any, p: tuple[float, float], told: str) -> None:
    found = whole("", rule, [Node(name, decide(*p), "") for name in "abc"])
    assert found.standing.verdict == ("supported" if told.startswith("all") else "underpowered")
    assert found.reason == told


def test_wholes_of_wholes_keep_their_level() -> None:
    """Where nothing is so, "any of all of any" is supported in at most 2.5 % of the cases."""
    rng = np.random.default_rng(0)
    p = rng.random((2000, 2, 3))
    wrong = sum(
        combine("all", [combine("any", [decide(x, 1 - x) for x in part]) for part in one]).verdict == "supported"
        for one in p
    )
    assert wrong <= 0.025 * 2000
    alone = sum(combine("any", [decide(x, 1 - x) for x in one[0]]).verdict == "supported" for one in p)
    assert 0.01 * 2000 < alone < 0.04 * 2000
