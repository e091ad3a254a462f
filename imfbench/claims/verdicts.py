"""Verdicts: what each word means, and how the verdict of a whole follows from those of its parts.

A test gives two one-sided p-values: of "the claim is not so", small where the claim is shown, and of "the claim is so", small
where its opposite is shown. Neither small: the data leave it open, which is a lack of power and no verdict against the claim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["supported", "not supported", "underpowered", "not testable here", "no evidence"]
Rule = Literal["all", "any"]

SUPPORTED: Verdict = "supported"
NOT_SUPPORTED: Verdict = "not supported"
UNDERPOWERED: Verdict = "underpowered"
NOT_TESTABLE: Verdict = "not testable here"
NO_EVIDENCE: Verdict = "no evidence"

ALPHA = 0.025
"""Of each one-sided test: every verdict can be read off one 95 % interval."""


@dataclass(frozen=True)
class Standing:
    """Where a claim, or a part of it, stands.

    Attributes:
        verdict: In one word.
        p_support: P-value of "it is not so"; 1 where nothing was tested.
        p_refute: P-value of "it is so"; 1 where nothing was tested.
    """

    verdict: Verdict
    p_support: float = 1.0
    p_refute: float = 1.0


def decide(p_support: float, p_refute: float) -> Standing:
    """The standing that two p-values give; what is shown goes before what is shown against it."""
    if p_support < ALPHA:
        return Standing(SUPPORTED, p_support, p_refute)
    return Standing(NOT_SUPPORTED if p_refute < ALPHA else UNDERPOWERED, p_support, p_refute)


def combine(rule: Rule, parts: Sequence[Standing]) -> Standing:
    """The standing of a whole.

    "all": supported where every part is (an intersection-union test, Berger 1982, which needs no correction), not supported where
    one part is refuted after Bonferroni's correction for the number of parts. "any" is the mirror image. Parts that cannot be
    tested here are left out. With a part that has no evidence a whole is never supported. A part that is supported refutes
    nothing: a gain can be shown and be less than its margin, both p-values small.
    """
    heard = [part for part in parts if part.verdict != NOT_TESTABLE]
    if not heard:
        return Standing(NOT_TESTABLE)
    support = [part.p_support for part in heard]
    refute = [1.0 if part.verdict == SUPPORTED else part.p_refute for part in heard]
    if rule == "all":
        standing = decide(max(support), min(1.0, len(heard) * min(refute)))
    else:
        standing = decide(min(1.0, len(heard) * min(support)), max(refute))
    if any(part.verdict == NO_EVIDENCE for part in heard) and standing.verdict != NOT_SUPPORTED:
        return Standing(NO_EVIDENCE, 1.0, standing.p_refute)
    return standing
