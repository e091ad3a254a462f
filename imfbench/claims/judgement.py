"""From evidence to verdicts: each part of a claim tested, the parts combined, every step on record."""

from __future__ import annotations

from collections.abc import Callable

from imfbench.claims import findings, speech
from imfbench.claims.definition import ON_SPEECH, BudgetName, Claim, Part, of_budget
from imfbench.claims.evidence import Evidence, NoEvidenceError
from imfbench.claims.node import Node, joined, whole
from imfbench.claims.verdicts import NO_EVIDENCE, NOT_TESTABLE, Standing


def judge(claim: Claim, budget: BudgetName, evidence: Evidence, stopped: str | None = None) -> Node:
    """The verdict of a claim.

    Args:
        claim: What is claimed.
        budget: Which runs there are.
        evidence: They.
        stopped: Why nothing of this budget can be run here, if so.
    """
    if stopped or budget not in claim.budgets:
        where = " and ".join(claim.budgets)
        reason = stopped or f"the budget {budget} has no experiment for it, only {where}"
        return Node(claim.title, Standing(NOT_TESTABLE), reason)
    return whole(claim.title, claim.rule, [_part(claim, part, budget, evidence) for part in claim.parts])


def _part(claim: Claim, part: Part, budget: BudgetName, evidence: Evidence) -> Node:
    if not of_budget(claim, part, budget):
        where = " and ".join(part.budgets or claim.budgets)
        return Node(part.name, Standing(NOT_TESTABLE), f"only in the budget {where}", counts=part.counts)
    if part.test in findings.ON_MEASUREMENT:
        node = _single(part.name, lambda: findings.ON_MEASUREMENT[part.test](part, evidence))
    elif part.test in ON_SPEECH:
        rows = [
            joined(told, part.of_figures, [
                _single(figure, lambda f=figure, p=pick, o=on, m=margin: speech.on_speech(part, p, o, f, m, evidence))  # type: ignore[misc]
                for figure, margin in part.margins(budget).items()
            ])
            for told, pick, on in part.rows()
        ]  # fmt: skip
        node = joined(part.name, part.each, rows)
    elif part.test == "steadier":
        figures = [_single(f, lambda f=f: findings.steadier(part, f, evidence)) for f in part.figures]  # type: ignore[misc]
        node = joined(part.name, part.of_figures, figures)
    else:
        node = _single(part.name, lambda: findings.diverges_less(part, evidence))
    node.counts = part.counts
    return node


def _single(name: str, test: Callable[[], Node]) -> Node:
    try:
        node = test()
    except (NoEvidenceError, ValueError) as error:  # the statistics refuse what they cannot be made of
        return Node(name, Standing(NO_EVIDENCE), str(error))
    node.name = name
    return node
