"""From evidence to verdicts: each part of a claim tested, the parts combined, every step on record."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from imfbench.claims.definition import ON_MEASUREMENTS, ON_SPEECH, BudgetName, Claim, Part, Pick, of_budget
from imfbench.claims.evidence import Evidence, NoEvidenceError
from imfbench.claims.statistics import (
    Tested,
    all_above,
    compare,
    convexity_violations,
    ratio_at_least,
    share_at_most,
    smaller_share,
    smaller_spread,
)
from imfbench.claims.verdicts import (
    NO_EVIDENCE,
    NOT_SUPPORTED,
    NOT_TESTABLE,
    SUPPORTED,
    UNDERPOWERED,
    Rule,
    Standing,
    combine,
    decide,
)
from imfbench.metrics.stats import statement_scope
from imfbench.reports.results import Training

LAST = 0.5
"""Share of a training, from its end, over which spreads are taken: by then the learning rate's warm-up is past."""


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
        """The test on which the verdict hangs: the weakest link of "all", the strongest of "any"."""
        heard = [child for child in self.children if child.counts and child.standing.verdict != NOT_TESTABLE]
        if not heard:
            return self
        lost = [child for child in heard if child.standing.verdict == NO_EVIDENCE]
        if self.standing.verdict == NO_EVIDENCE and lost:
            return lost[0].deciding()
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
        reason = stopped or f"the budget {budget} has no experiment for it; {where} does"
        return Node(claim.title, Standing(NOT_TESTABLE), reason)
    return _whole(claim.title, claim.rule, [_part(claim, part, budget, evidence) for part in claim.parts])


def _whole(name: str, rule: Rule, children: list[Node]) -> Node:
    """Children as one."""
    heard = [child for child in children if child.counts]
    standing = combine(rule, [child.standing for child in heard])
    seeds = [child.training_seeds for child in heard if child.training_seeds is not None]
    return Node(
        name, standing, _combined_reason(rule, standing, heard), children=children, rule=rule,
        training_seeds=min(seeds, default=None),
    )  # fmt: skip


def _joined(name: str, rule: Rule, children: list[Node]) -> Node:
    """Children as one; a single one stands for itself."""
    if len(children) > 1:
        return _whole(name, rule, children)
    children[0].name = ": ".join(filter(None, (name, children[0].name)))
    return children[0]


def _combined_reason(rule: str, standing: Standing, children: Sequence[Node]) -> str:
    if len(children) == 1:
        return children[0].reason
    named: dict[str, list[str]] = {}
    for child in children:
        named.setdefault(child.standing.verdict, []).append(child.name)
    if len(named) == 1:
        return f"all {len(children)} parts are {next(iter(named))}"
    told = "; ".join(f"{verdict}: {_listed(names)}" for verdict, names in named.items())
    if rule == "any":
        told += "; one that is supported is enough, after Bonferroni's correction"
    if standing.verdict == UNDERPOWERED and NOT_SUPPORTED in named and rule == "all":
        told += f"; after Bonferroni's correction for {len(children)} parts none is refuted"
    return told


def _listed(names: list[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _part(claim: Claim, part: Part, budget: BudgetName, evidence: Evidence) -> Node:
    if not of_budget(claim, part, budget):
        where = " and ".join(part.budgets or claim.budgets)
        return Node(part.name, Standing(NOT_TESTABLE), f"only in the budget {where}", counts=part.counts)
    if part.test in ON_MEASUREMENTS:
        node = _single(part.name, lambda: _MEASURED[part.test](part, evidence))
    elif part.test in ON_SPEECH:
        rows = [
            _joined(told, part.of_figures, [
                _single(figure, lambda f=figure, p=pick, o=on, m=margin: _speech(part, p, o, f, m, evidence))  # type: ignore[misc]
                for figure, margin in part.figures.items()
            ])
            for told, pick, on in part.rows()
        ]  # fmt: skip
        node = _joined(part.name, part.each, rows)
    elif part.test == "steadier":
        figures = [_single(f, lambda f=f: _steadier(part, f, evidence)) for f in part.figures]  # type: ignore[misc]
        node = _joined(part.name, part.of_figures, figures)
    else:
        node = _single(part.name, lambda: _diverges_less(part, evidence))
    node.counts = part.counts
    return node


def _single(name: str, test: Callable[[], Node]) -> Node:
    try:
        node = test()
    except NoEvidenceError as error:
        return Node(name, Standing(NO_EVIDENCE), str(error))
    node.name = name
    return node


def _of(tested: Tested, **details: Any) -> Node:
    reason = details.pop("reason")
    evidence = list(dict.fromkeys(details.pop("evidence")))
    standing = decide(tested.p_support, tested.p_refute)
    return Node("", standing, reason, tested, details, evidence, training_seeds=tested.training_seeds)


# --- scored speech ----------------------------------------------------------------------------------------------------

_SHOWN = {
    "non-inferior": ("the loss is within the margin", "a loss beyond the margin is shown", "the interval holds the margin"),
    "inferior": ("a loss beyond the margin is shown", "the loss is within the margin", "the interval holds the margin"),
    "better": ("a gain is shown", "a gain of the margin is ruled out", "the interval holds 0 and the margin"),
    "equivalent": (
        "the difference is within the margin", "a difference beyond the margin is shown", "the interval holds a margin",
    ),
    "different": ("a difference is shown", "the difference is within the margin", "the interval holds 0 and a margin"),
}  # fmt: skip


def _speech(part: Part, a: Pick, on: str | None, figure: str, margin: float, evidence: Evidence) -> Node:
    assert part.experiment is not None
    assert part.b is not None
    found = evidence.differences(part.experiment, a, part.b, figure, on)
    q = found.quality
    tested = compare(found.values, margin, part.test, q.better != "lower")  # type: ignore[arg-type]
    standing = decide(tested.p_support, tested.p_refute)
    which = {SUPPORTED: 0, NOT_SUPPORTED: 1}.get(standing.verdict, 2)
    reason = f"{_show(found.a, q)} against {_show(found.b, q)}: {_SHOWN[part.test][which]} of {_show(margin, q)}"
    if standing.verdict == UNDERPOWERED and tested.minimum_detectable is not None:
        reason += f"; {_show(tested.minimum_detectable, q)} could have been seen"
    if part.test == "better" and which == 0 and abs(tested.estimate) < margin:
        reason += ", which it does not reach"
    if found.missing:
        reason += f"; {found.missing} utterances without a score are left out"
    below = [f"{part.experiment}/cells/{cell.row['key']}" for cell in found.cells]
    return _of(tested, reason=reason, evidence=below, figure=figure, unit=q.unit, a=found.a, b=found.b, test=part.test)


def _show(value: float, q: Any) -> str:
    return f"{value * q.scale:.{q.decimals}f}{' ' + q.unit if q.unit else ''}"


# --- measurements -----------------------------------------------------------------------------------------------------


def _faster(part: Part, evidence: Evidence) -> Node:
    """Seconds of b over seconds of a, utterance by utterance; the network alone, and beside it with the vocoder."""
    assert part.measurement is not None
    assert part.a is not None
    assert part.b is not None
    assert part.margin is not None
    record = evidence.measurement(part.measurement)
    rows = {(row["row"], row["id"]): row for row in record["rows"]}
    a, b = part.a.system[0], part.b.system[0]
    ids = sorted(id for name, id in rows if name == a and (b, id) in rows)
    if len(ids) < 2:
        raise NoEvidenceError(f"{part.measurement}: {len(ids)} utterances were timed on both sides")

    def seconds(name: str, vocoder: bool) -> list[float]:
        return [rows[name, id]["network_seconds"] + vocoder * rows[name, id]["vocoder_seconds"] for id in ids]

    tested = ratio_at_least(seconds(b, False), seconds(a, False), part.margin)
    total = ratio_at_least(seconds(b, True), seconds(a, True), part.margin)
    calls = [rows[name, ids[0]]["network_calls"] for name in (a, b)]
    reason = (
        f"the network alone is {tested.estimate:.1f} times as fast ({part.margin:g} are claimed), with the vocoder "
        f"{total.estimate:.1f} times; {calls[0]} network calls against {calls[1]}, guidance counted"
    )
    return _of(
        tested, reason=reason, evidence=[f"measurements/{part.measurement}.json"], figure="network seconds ratio", unit="",
        total_ratio=total.estimate, total_low=total.low, total_high=total.high, network_calls=calls, test=part.test,
    )  # fmt: skip


def _less_memory(part: Part, evidence: Evidence) -> Node:
    """Bytes of b over bytes of a at every size; how the factor moves with frames, batch and width."""
    assert part.measurement is not None
    assert part.a is not None
    assert part.b is not None
    assert part.margin is not None
    record = evidence.measurement(part.measurement)
    a, b = part.a.system[0], part.b.system[0]
    size = ("frames", "batch", "width")
    table = {(row["method"], *(row[k] for k in size)): row for row in record["rows"]}
    found = []
    for (method, *key), row in table.items():
        other = table.get((b, *key))
        if method != a or other is None:
            continue
        if row["peak_memory"] is None or other["peak_memory"] is None:
            raise NoEvidenceError(f"{part.measurement}: memory ran out at {dict(zip(size, key, strict=True))}")
        ratio = {"memory_ratio": other["peak_memory"] / row["peak_memory"]}
        if row["seconds"] and other["seconds"]:
            ratio["seconds_ratio"] = other["seconds"] / row["seconds"]
        found.append({**dict(zip(size, key, strict=True)), **ratio})
    if not found:
        raise NoEvidenceError(f"{part.measurement}: {a} and {b} were not measured at the same sizes")
    tested = all_above([row["memory_ratio"] for row in found], part.margin)
    grows = "; ".join(filter(None, (_growth(found, name, size) for name in size)))
    times = [row["seconds_ratio"] for row in found if "seconds_ratio" in row]
    reason = f"{b} needs {tested.low:.2f} to {tested.high:.2f} times the bytes of {a}"
    if times:
        reason += f" and {min(times):.2f} to {max(times):.2f} times the seconds of a step"
    reason += f" ({record['rows'][0].get('peak_memory_kind')}); {grows}" if grows else ""
    return _of(
        tested, reason=reason, evidence=[f"measurements/{part.measurement}.json"], figure="memory ratio", unit="", sizes=found,
        test=part.test,
    )  # fmt: skip


def _growth(rows: list[dict[str, Any]], name: str, size: tuple[str, ...]) -> str:
    """How the factor moves along one size, the others as in most rows."""
    others = [key for key in size if key != name]
    lines: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        lines.setdefault(tuple(row[k] for k in others), []).append(row)
    line = sorted(max(lines.values(), key=len), key=lambda row: row[name])
    if len(line) < 2:
        return ""
    return f"{name} " + ", ".join(f"{row[name]}: {row['memory_ratio']:.2f}" for row in line)


def _convex(part: Part, evidence: Evidence) -> Node:
    """Share of midpoint inequalities that are violated beyond noise."""
    assert part.measurement is not None
    assert part.margin is not None
    record = evidence.measurement(part.measurement)
    scores = {tuple(row["grid"]): np.array(list(row["costs"].values())) for row in record["rows"]}
    checked, violated, shown = convexity_violations(scores)
    if not checked:
        raise NoEvidenceError(f"{part.measurement}: its lattice has no midpoint")
    tested = share_at_most(shown, checked, part.margin)
    reason = (
        f"of {checked} midpoint inequalities {shown} are violated beyond noise ({violated} by the mean); at most "
        f"{part.margin:.0%} would be near-convex. The inequalities share points, so the interval is nominal"
    )
    files = [f"measurements/{part.measurement}{end}" for end in (".json", ".png")]
    return _of(
        tested, reason=reason, evidence=files, figure="share of violated inequalities", unit="", test=part.test,
        score=record["settings"]["score"], utterances=len(next(iter(scores.values()))),
    )  # fmt: skip


_MEASURED: dict[str, Callable[[Part, Evidence], Node]] = {
    "faster": _faster,
    "less-memory": _less_memory,
    "convex": _convex,
}


# --- trainings --------------------------------------------------------------------------------------------------------


def _of_training(training: Training, figure: str) -> float:
    """One figure of a training: the logarithm of a mean or of a spread over its last half."""
    log = training.log
    last = log[log["step"] > (1 - LAST) * log["step"].max()]
    column = "squared_error" if figure == "loss" and "squared_error" in last.columns else "loss"
    values = last["grad_norm"] if figure.startswith("grad_norm") else last[column]
    values = values[np.isfinite(values) & (values > 0)]
    if len(values) < 2:
        raise NoEvidenceError(f"{training.name}: {len(values)} logged steps in the last half of its training")
    if figure == "grad_norm_within":
        return float(np.log(values).std(ddof=1))
    return math.log(float(values.mean()))


def _steadier(part: Part, figure: str, evidence: Evidence) -> Node:
    """Spread over seeds of the log-mean of loss or gradient norm; or, ``grad_norm_within``, the fluctuation in each training."""
    assert part.experiment is not None
    assert part.a is not None
    assert part.b is not None
    sides = [evidence.trainings(part.experiment, pick.system[0]) for pick in (part.a, part.b)]
    for side in sides:
        if any(training.diverged for training in side):
            raise NoEvidenceError("a training diverged, whose spread is that of its end; see the share of diverged runs")
    try:
        a, b = ([_of_training(training, figure) for training in side] for side in sides)
        if figure == "grad_norm_within":
            if len(a) != len(b):
                raise NoEvidenceError("the two sides have other numbers of seeds")
            margin = part.figures[figure]
            tested = compare(np.array(a) - np.array(b), margin, "better", higher_is_better=False)
            tested = replace(tested, training_seeds=len(a))
            reason = (
                f"sd of the log gradient norm within a training {np.mean(a):.3f} against {np.mean(b):.3f}, paired by seed"
            )
        else:
            tested = smaller_spread(a, b)
            reason = (
                f"sd over {len(a)} seeds of the log-mean {np.std(a, ddof=1):.3f} against {np.std(b, ddof=1):.3f} (ratio "
                f"{tested.estimate:.2f}); a ratio of {tested.minimum_detectable:.2f} could have been seen"
            )
    except ValueError as error:
        raise NoEvidenceError(f"{figure}: {error}") from None
    files = [f"{part.experiment}/artefacts/{training.name}/log.csv" for side in sides for training in side]
    return _of(tested, reason=reason, evidence=files, figure=figure, unit="", test=part.test, a=list(a), b=list(b))


def _diverges_less(part: Part, evidence: Evidence) -> Node:
    assert part.experiment is not None
    assert part.a is not None
    assert part.b is not None
    sides = [evidence.trainings(part.experiment, pick.system[0]) for pick in (part.a, part.b)]
    counts = [(sum(training.diverged for training in side), len(side)) for side in sides]
    tested = smaller_share(*counts[0], *counts[1])
    (x, m), (y, n) = counts
    reason = f"{x} of {m} runs diverged against {y} of {n}"
    if tested.minimum_detectable is None:
        reason += "; with so few runs nothing could have been seen"
    else:
        reason += f"; none against {tested.minimum_detectable:.0%} could have been seen"
    files = [f"{part.experiment}/artefacts/{training.name}/status.json" for side in sides for training in side]
    return _of(tested, reason=reason, evidence=files, figure="share diverged", unit="", test=part.test, a=x / m, b=y / n)


def scope(node: Node) -> str:
    """Whether the verdict speaks of methods or of these checkpoints, where networks were compared."""
    if node.training_seeds is None:
        return ""
    found = statement_scope(range(node.training_seeds))
    return "methods" if found == "methods" else "these checkpoints"

