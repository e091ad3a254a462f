"""The tests of claims: what each reads of the evidence, and how it says what it found."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from imfbench.claims.definition import Part, Pick
from imfbench.claims.evidence import Differences, Evidence, NoEvidenceError
from imfbench.claims.lattice import convexity_violations, peak_violations
from imfbench.claims.node import Node, single
from imfbench.claims.shares import share_at_most, smaller_share
from imfbench.claims.statistics import (
    Losses,
    all_above,
    compare,
    falls_by_less,
    most_lost,
    ratio_at_least,
    smaller_spread,
)
from imfbench.claims.verdicts import ALPHA, NOT_SUPPORTED, SUPPORTED, UNDERPOWERED, decide
from imfbench.flow.search import LIMIT_REACHED
from imfbench.metrics.rare_losses import LOST, utterances_needed
from imfbench.reports.columns import Quality
from imfbench.reports.grouping import group_cells
from imfbench.reports.results import Training

LAST = 0.5
"""Share of a training, from its end, over which spreads are taken: by then the learning rate's warm-up is past."""

# --- scored speech ----------------------------------------------------------------------------------------------------

_SHOWN = {
    "non-inferior": ("the loss is within {m}", "a loss beyond {m} is shown", "the interval holds {m}"),
    "inferior": ("a loss beyond {m} is shown", "the loss is within {m}", "the interval holds {m}"),
    "better": ("a gain is shown", "a gain of {m} is ruled out", "the interval holds 0 and {m}"),
    "equivalent": ("the difference is within {m}", "a difference beyond {m} is shown", "the interval holds {m}"),
    "different": ("a difference is shown", "the difference is within {m}", "the interval holds 0 and {m}"),
}
"""Of each test: what is said where it is supported, not supported, and underpowered; {m} is the margin."""


def on_speech(part: Part, a: Pick, on: str | None, figure: str, margin: float, evidence: Evidence) -> Node:
    """A figure of scored speech, a against b."""
    if part.baseline_set is not None:
        return further_loss(part, a, on, figure, margin, evidence)
    assert part.experiment is not None
    assert part.b is not None
    found = evidence.differences(part.experiment, a, part.b, figure, on)
    q = found.quality
    lost = _lost(found)
    tested = compare(found.values, margin, part.test, q.better != "lower", lost, found.words)  # type: ignore[arg-type]
    standing = decide(tested.p_support, tested.p_refute)
    which = {SUPPORTED: 0, NOT_SUPPORTED: 1}.get(standing.verdict, 2)
    shown = _SHOWN[part.test][which].format(m=f"the margin of {_show(margin, q)}")
    reason = f"{_show(found.a, q)} against {_show(found.b, q)}: {shown}"
    if standing.verdict == UNDERPOWERED and tested.minimum_detectable is not None:
        reason += f"; {_show(tested.minimum_detectable, q)} could have been seen"
    if standing.verdict == UNDERPOWERED and lost is not None and margin < (tested.smallest_margin or 0.0):
        needed = utterances_needed(margin, most_lost(lost, part.test), ALPHA)  # type: ignore[arg-type]
        reason += (
            f"; {tested.n} utterances cannot show that a difference is within {_show(margin, q)} even where none differs: that "
            f"takes {needed}, and the smallest margin here would be {_show(tested.smallest_margin or 0.0, q)}"
        )
    if part.test in ("better", "different") and which == 0 and tested.p_refute < ALPHA:
        reason += f", smaller than the margin of {_show(margin, q)}"
    if part.test == "different" and which == 0:
        reason += f", {a.system[0]} is {'higher' if found.a > found.b else 'lower'}"
    if found.missing:
        reason += f"; {found.missing} utterances without a score are left out"
    searches = evidence.searches(part.experiment, found.cells)
    reason += _ended(searches)
    below = [*(f"{part.experiment}/cells/{cell.row['key']}" for cell in found.cells), *searches]
    return single(
        tested, reason=reason, evidence=below, figure=figure, unit=q.unit, a=found.a, b=found.b, test=part.test
    )


def further_loss(part: Part, a: Pick, on: str | None, figure: str, margin: float, evidence: Evidence) -> Node:
    """What a loses to b on a set beyond what it loses on the part's ``baseline_set``, by the same networks."""
    assert part.experiment is not None
    assert part.b is not None
    hard, plain = (evidence.differences(part.experiment, a, part.b, figure, name) for name in (on, part.baseline_set))
    if sorted(map(str, hard.seeds)) != sorted(map(str, plain.seeds)):
        raise NoEvidenceError(f"{on} and {part.baseline_set} have the rows of other training seeds")
    if group_cells(hard.cells)[0].signatures != group_cells(plain.cells)[0].signatures:
        raise NoEvidenceError(f"{on} and {part.baseline_set} were scored in other ways")
    lost, elsewhere = _lost(hard), _lost(plain)
    if lost != elsewhere:
        raise NoEvidenceError(f"{on} and {part.baseline_set} have other numbers of noise seeds")
    q = hard.quality
    order = [plain.seeds.index(seed) for seed in hard.seeds]
    first, second = hard.values, plain.values[order]
    # The same sentences under harder conditions, called by the set before their names, are paired, as far as both have a score.
    named = [id.removeprefix(f"{on}-") for id in hard.ids]
    common, all_of = set(named) & set(plain.ids), len(named) + hard.missing
    same = all_of == len(plain.ids) + plain.missing and 1 < len(common) >= all_of - hard.missing - plain.missing
    if same:
        first = first[:, [id in common for id in named]]
        second = second[:, [plain.ids.index(id) for id in named if id in common]]
    tested = falls_by_less(first, second, margin, q.better != "lower", lost, paired=same)
    standing = decide(tested.p_support, tested.p_refute)
    which = {SUPPORTED: 0, NOT_SUPPORTED: 1}.get(standing.verdict, 2)
    shown = ("the further loss is within {m}", "a further loss beyond {m} is shown", "the interval holds {m}")[which]
    shown = shown.format(m=f"the margin of {_show(margin, q)}")
    sides = [f"{_show(found.a, q)} against {_show(found.b, q)}" for found in (hard, plain)]
    reason = f"{sides[0]} on {on} and {sides[1]} on {part.baseline_set}{', the same utterances' * same}: {shown}"
    if standing.verdict == UNDERPOWERED and tested.minimum_detectable is not None:
        reason += f"; {_show(tested.minimum_detectable, q)} could have been seen"
    if hard.missing + plain.missing:
        reason += f"; {hard.missing + plain.missing} utterances without a score are left out"
    below = [f"{part.experiment}/cells/{cell.row['key']}" for cell in (*hard.cells, *plain.cells)]
    means = {"a": hard.a, "b": hard.b, "baseline_a": plain.a, "baseline_b": plain.b, "baseline_set": part.baseline_set}
    return single(tested, reason=reason, evidence=below, figure=figure, unit=q.unit, test=part.test, **means)


def _lost(found: Differences) -> Losses | None:
    """What a lost recording of a and one of b change of an utterance's mean difference, of WER alone.

    Most words are right in both rows, so that differences of WER are mostly 0. A recording counts with its share of its side's
    networks, and of the recordings of several noise seeds; a teacher that stands against three students counts whole.
    """
    if found.quality.name != "wer":
        return None
    one = LOST / len({cell.row.get("noise_seed") for cell in found.cells})
    return one / found.networks[0], one / found.networks[1]


def _ended(searches: dict[str, str]) -> str:
    """How the searches behind searched grids ended: one that was cut off speaks of the best grid so far, not of the optimum."""
    cut = [stopped for stopped in searches.values() if stopped.startswith(LIMIT_REACHED)]
    if cut:
        of = f"the searches of {len(cut)} of {len(searches)} grids" if len(searches) > 1 else "the search"
        return f"; {of} did not finish ({', '.join(dict.fromkeys(cut))})"
    return f"; the search ended: {', '.join(dict.fromkeys(searches.values()))}" if searches else ""


def _show(value: float, q: Quality) -> str:
    return f"{value * q.scale:.{q.decimals}f}{' ' + q.unit if q.unit else ''}"


# --- measurements -----------------------------------------------------------------------------------------------------


def faster(part: Part, evidence: Evidence) -> Node:
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
    rtf: dict[str, list[float]] = {}
    if all("generated_seconds" in rows[name, id] for name in (a, b) for id in ids):  # older records lack them
        spoken = [sum(rows[name, id]["generated_seconds"] for id in ids) for name in (a, b)]
        for scope, vocoder in (("network", False), ("total", True)):
            rtf[scope] = [sum(seconds(name, vocoder)) / of for name, of in zip((a, b), spoken, strict=True)]
        told = (f"{scope} {own:.3g} against {theirs:.3g}" for scope, (own, theirs) in rtf.items())
        reason += f"; real-time factor: {', '.join(told)}"
    return single(
        tested, reason=reason, evidence=[f"measurements/{part.measurement}.json"], figure="network seconds ratio", unit="",
        total_ratio=total.estimate, total_low=total.low, total_high=total.high, network_calls=calls, rtf=rtf or None,
        test=part.test,
    )  # fmt: skip


def less_memory(part: Part, evidence: Evidence) -> Node:
    """Bytes of b over bytes of a at every size; how the factor moves with frames, batch and width.

    Where memory ran out for one of the two and not for the other, the one needs more than the other, and at least what it had
    in use when it did: a bound of the ratio. Where it ran out for both there is nothing to compare.
    """
    assert part.measurement is not None
    assert part.a is not None
    assert part.b is not None
    assert part.margin is not None
    record = evidence.measurement(part.measurement)
    a, b = part.a.system[0], part.b.system[0]
    size = ("frames", "batch", "width")
    table = {(row["method"], *(row[k] for k in size)): row for row in record["rows"]}
    found: list[dict[str, Any]] = []
    floors, ceilings, lost = [], [], 0
    for (method, *key), row in table.items():
        other = table.get((b, *key))
        if method != a or other is None:
            continue
        own, theirs = row["peak_memory"], other["peak_memory"]
        if own is None and theirs is None:
            lost += 1
        elif theirs is None:
            floors.append(max(1.0, (other.get("at_least") or 0) / own))
        elif own is None:
            ceilings.append(min(1.0, theirs / (row.get("at_least") or theirs)))
        else:
            ratio = {"memory_ratio": theirs / own}
            # Bytes do not depend on the machine and its threads; seconds of two are not compared.
            if row["seconds"] and other["seconds"] and row.get("hardware") == other.get("hardware"):
                ratio["seconds_ratio"] = other["seconds"] / row["seconds"]
            found.append({**dict(zip(size, key, strict=True)), **ratio})
    if not (found or floors or ceilings):
        why = (
            f"memory ran out for both at all {lost} sizes"
            if lost
            else f"{a} and {b} were not measured at the same sizes"
        )
        raise NoEvidenceError(f"{part.measurement}: {why}")
    tested = all_above([row["memory_ratio"] for row in found], part.margin, floors, ceilings)
    return single(
        tested, reason=_memory_in_words(a, b, found, floors, ceilings, lost, record),
        evidence=[f"measurements/{part.measurement}.json"], figure="memory ratio", unit="", sizes=found, floors=floors,
        ceilings=ceilings, test=part.test,
    )  # fmt: skip


def _memory_in_words(
    a: str, b: str, found: list[dict[str, Any]], floors: list[float], ceilings: list[float], lost: int, record: dict[str, Any]
) -> str:  # fmt: skip
    told = []
    if found:
        ratios = [row["memory_ratio"] for row in found]
        kinds = [row["peak_memory_kind"] for row in record["rows"] if row.get("peak_memory_kind")]
        first = f"{b} needs {min(ratios):.2f} to {max(ratios):.2f} times the bytes of {a}"
        if times := [row["seconds_ratio"] for row in found if "seconds_ratio" in row]:
            first += f" and {min(times):.2f} to {max(times):.2f} times the seconds of a step"
        told += [first + (f" ({kinds[0]})" if kinds else "")]
        told += [
            grown
            for name in ("frames", "batch", "width")
            if (grown := _growth(found, name, ("frames", "batch", "width")))
        ]
    for name, other, bounds, word in ((b, a, floors, "no less"), (a, b, ceilings, "no more")):
        if bounds:
            edge = min(bounds) if word == "no less" else max(bounds)
            told.append(
                f"memory ran out for {name} alone at {len(bounds)} size{'s' * (len(bounds) > 1)}, where {other} fitted: the "
                f"ratio there is {word} than {edge:.2f}"
            )
    if lost:
        told.append(f"for both at {lost}, which say nothing")
    return "; ".join(told)


def _growth(rows: list[dict[str, Any]], name: str, size: tuple[str, ...]) -> str:
    """How the factor moves along one size, the others as in most rows."""
    others = [key for key in size if key != name]
    lines: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        lines.setdefault(tuple(row[k] for k in others), []).append(row)
    longest = max(map(len, lines.values()))
    line = sorted(next(one for one in lines.values() if len(one) == longest), key=lambda row: row[name])
    if len(line) < 2:
        return ""
    return f"{name} " + ", ".join(f"{row[name]}: {row['memory_ratio']:.2f}" for row in line)


def on_lattice(part: Part, evidence: Evidence) -> Node:
    """Share of the inequalities along each point, of a convex cost or of one with a single valley, that are violated.

    Against the claim speak those that are violated beyond noise. For it all must hold that are violated by the mean as well: on a
    score of nothing but noise hardly any is violated beyond it.
    """
    assert part.measurement is not None
    assert part.margin is not None
    record = evidence.measurement(part.measurement)
    scores = {tuple(row["grid"]): np.array(list(row["costs"].values())) for row in record["rows"]}
    count, kind, close = {
        "convex": (convexity_violations, "midpoint inequalities along single points", "near-convex"),
        "unimodal": (peak_violations, "inequalities of a single valley along each point", "unimodal"),
    }[part.test]
    checked, violated, shown = count(scores)
    if not checked:
        raise NoEvidenceError(f"{part.measurement}: its lattice has too few points")
    tested = share_at_most(shown, checked, part.margin, violated)
    reason = (
        f"of {checked} {kind} {shown} are violated beyond noise, {violated} by the mean; at most {part.margin:.0%} would be "
        f"{close}, even by the mean. The inequalities share points, so the interval is nominal"
    )
    files = [f"measurements/{part.measurement}{end}" for end in (".json", ".png")]
    return single(
        tested,
        reason=reason,
        evidence=files,
        figure="share of violated inequalities",
        unit="",
        test=part.test,
        score=record["settings"]["score"],
        utterances=len(next(iter(scores.values()))),
    )


ON_MEASUREMENT: dict[str, Callable[[Part, Evidence], Node]] = {
    "faster": faster,
    "less-memory": less_memory,
    "convex": on_lattice,
    "unimodal": on_lattice,
}


# --- trainings --------------------------------------------------------------------------------------------------------


def _of_training(training: Training, figure: str) -> float:
    """One figure of a training: the logarithm of a mean or of a spread over its last half.

    The gradient norm is that of the loss that is trained, before it is clipped. Where a method weights its rows adaptively its
    loss is on another scale in every step, so the plain squared error is read.
    """
    log = training.log
    last = log[log["step"] > (1 - LAST) * log["step"].max()]
    if figure.startswith("grad_norm"):
        values = last["grad_norm"]
    else:
        values = last["squared_error"] if "squared_error" in last.columns else last["loss"]
    values = values[np.isfinite(values) & (values > 0)]
    if len(values) < 2:
        raise NoEvidenceError(f"{training.name}: {len(values)} logged steps in the last half of its training")
    if figure == "grad_norm_within":
        return float(np.log(values).std(ddof=1))
    return math.log(float(values.mean()))


def steadier(part: Part, figure: str, evidence: Evidence) -> Node:
    """Spread over seeds of the log-mean of loss or gradient norm; or, ``grad_norm_within``, the fluctuation in each training.

    The gradient norm is that of the loss that is trained. A training that diverged has no spread: its log holds other steps
    than the others', and its end is no figure. It is less steady than any that did not diverge, so that with one such training
    on either side the shares of diverged runs decide, as in ``diverges_less``.
    """
    assert part.experiment is not None
    assert part.a is not None
    assert part.b is not None
    sides = [evidence.trainings(part.experiment, pick.system[0]) for pick in (part.a, part.b)]
    if any(training.diverged for side in sides for training in side):
        node = _shares(part, sides)
        node.reason = f"a run that diverged has no spread, so their share decides: {node.reason}"
        node.about["spread_of"] = figure
        return node
    try:
        a, b = ([_of_training(training, figure) for training in side] for side in sides)
        if figure == "grad_norm_within":
            if len(a) != len(b):
                raise NoEvidenceError("the two sides have other numbers of seeds")
            margin = part.figures[figure]
            tested = compare(np.array(a) - np.array(b), margin, "better", higher_is_better=False)
            tested = replace(tested, training_seeds=len(a))
            reason = f"sd of the log gradient norm within a training {np.mean(a):.3f} against {np.mean(b):.3f}, paired by seed"
        else:
            tested = smaller_spread(a, b)
            reason = (
                f"sd over {len(a)} seeds of the log-mean {np.std(a, ddof=1):.3f} against {np.std(b, ddof=1):.3f} (ratio "
                f"{tested.estimate:.2f}); a ratio of {tested.minimum_detectable:.2f} could have been seen"
            )
    except ValueError as error:
        raise NoEvidenceError(f"{figure}: {error}") from None
    files = [f"{part.experiment}/artefacts/{training.name}/log.csv" for side in sides for training in side]
    return single(tested, reason=reason, evidence=files, figure=figure, unit="", test=part.test, a=list(a), b=list(b))


def diverges_less(part: Part, evidence: Evidence) -> Node:
    """Share of trainings that diverged."""
    assert part.experiment is not None
    assert part.a is not None
    assert part.b is not None
    return _shares(part, [evidence.trainings(part.experiment, pick.system[0]) for pick in (part.a, part.b)])


def _shares(part: Part, sides: list[list[Training]]) -> Node:
    """Diverged runs of a against those of b."""
    counts = [(sum(training.diverged for training in side), len(side)) for side in sides]
    tested = smaller_share(*counts[0], *counts[1])
    (x, m), (y, n) = counts
    reason = f"{x} of {m} runs diverged against {y} of {n}"
    if tested.minimum_detectable is None:
        reason += "; with so few runs nothing could have been seen"
    else:
        reason += f"; none against {tested.minimum_detectable:.0%} could have been seen"
    files = [f"{part.experiment}/artefacts/{training.name}/status.json" for side in sides for training in side]
    return single(
        tested, reason=reason, evidence=files, figure="share diverged", unit="", test=part.test, a=x / m, b=y / n
    )
