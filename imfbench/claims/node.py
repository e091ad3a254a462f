"""A claim, a part of it or a single test: where it stands, and how that came about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from imfbench.claims.statistics import Tested
from imfbench.claims.verdicts import (
    NO_EVIDENCE,
    NOT_SUPPORTED,
    NOT_TESTABLE,
    UNDERPOWERED,
    Rule,
    Standing,
    combine,
    decide,
)


@dataclass
class Node:
    """A claim, a part of it, or one test: its standing and how it came about.

    Attributes:
        name: In tables.
        standing: Verdict and p-values.
        reason: In words.
        tested: The figures of a single test.
        about: What else is known of a test: figure, means, counts.
        evidence: Paths below the budget's folder.
        children: What it was combined from.
        rule: How they were combined.
        counts: Whether it has a say in what stands above it.
        training_seeds: Of the side that has fewer, where networks are compared.
    """

    name: str
    standing: Standing
    reason: str
    tested: Tested | None = None
    about: dict[str, Any] = field(default_factory=dict)
    evidence: list[str] = field(default_factory=list)
    children: list[Node] = field(default_factory=list)
    rule: Rule = "all"
    counts: bool = True
    training_seeds: int | None = None

    def deciding(self) -> Node:
        """The test on which the verdict hangs: the weakest link of "all", the strongest of "any"; an open one if it is open."""
        heard = [child for child in self.children if child.counts and child.standing.verdict != NOT_TESTABLE]
        if not heard:
            return self
        lost = [child for child in heard if child.standing.verdict == NO_EVIDENCE]
        if self.standing.verdict == NO_EVIDENCE and lost:
            return lost[0].deciding()
        if self.standing.verdict == UNDERPOWERED:
            # Where none is open, each speaks against, and too little so for all of them together.
            heard = [child for child in heard if child.standing.verdict == UNDERPOWERED] or heard
        against = self.standing.verdict == NOT_SUPPORTED
        rank = [child.standing.p_refute if against else child.standing.p_support for child in heard]
        pick = max if (self.rule == "all") != against else min
        return heard[rank.index(pick(rank))].deciding()

    def leaves(self) -> list[Node]:
        """The single tests below it."""
        return [leaf for child in self.children for leaf in child.leaves()] if self.children else [self]

    def record(self) -> dict[str, Any]:
        """As it stands in claims.json."""
        found: dict[str, Any] = {"name": self.name, "verdict": self.standing.verdict, "counts": self.counts}
        found |= {"p_support": self.standing.p_support, "p_refute": self.standing.p_refute, "reason": self.reason}
        if self.tested is not None:
            found |= {k: v for k, v in asdict(self.tested).items() if not k.startswith("p_")} | self.about
        found |= {"evidence": self.evidence} if self.evidence else {}
        return found | ({"parts": [child.record() for child in self.children]} if self.children else {})


def whole(name: str, rule: Rule, children: list[Node]) -> Node:
    """Children as one."""
    heard = [child for child in children if child.counts]
    standing = combine(rule, [child.standing for child in heard])
    seeds = [child.training_seeds for child in heard if child.training_seeds is not None]
    return Node(
        name, standing, _combined_reason(rule, standing, heard), children=children, rule=rule,
        training_seeds=min(seeds, default=None),
    )  # fmt: skip


def joined(name: str, rule: Rule, children: list[Node]) -> Node:
    """Children as one; a single one stands for itself."""
    if len(children) > 1:
        return whole(name, rule, children)
    children[0].name = ": ".join(filter(None, (name, children[0].name)))
    return children[0]


def _combined_reason(rule: str, standing: Standing, children: Sequence[Node]) -> str:
    if len(children) == 1:
        return children[0].reason
    named: dict[str, list[str]] = {}
    for child in children:
        named.setdefault(child.standing.verdict, []).append(child.name)
    if list(named) == [NO_EVIDENCE]:
        lacking = [leaf for child in children for leaf in child.leaves() if leaf.standing.verdict == NO_EVIDENCE]
        return _listed(list(dict.fromkeys(leaf.reason for leaf in lacking)), "; ")
    if list(named) == [standing.verdict]:
        return f"all {len(children)} parts are {standing.verdict}"
    told = "; ".join(f"{verdict}: {_listed(names)}" for verdict, names in named.items())
    if rule == "any":
        told += "; one that is supported is enough, after Bonferroni's correction"
    if standing.verdict == UNDERPOWERED and NOT_SUPPORTED in named and rule == "all":
        told += f"; after Bonferroni's correction for {len(children)} parts none is refuted"
    return told


def _listed(names: list[str], between: str = ", ", most: int = 4) -> str:
    return between.join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def single(tested: Tested, **details: Any) -> Node:
    """A single test, with its ``reason``, ``evidence`` and whatever else is known of it."""
    reason = details.pop("reason")
    evidence = list(dict.fromkeys(details.pop("evidence")))
    standing = decide(tested.p_support, tested.p_refute)
    return Node("", standing, reason, tested, details, evidence, training_seeds=tested.training_seeds)
