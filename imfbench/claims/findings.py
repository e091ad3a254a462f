"""The tests of claims about measurements and trainings: what each reads of the evidence, and how it says what it found."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from imfbench.claims.definition import Part
from imfbench.claims.evidence import Evidence, NoEvidenceError
from imfbench.claims.lattice import convexity_violations, peak_violations
from imfbench.claims.node import Node, single
from imfbench.claims.shares import share_at_most, smaller_share
from imfbench.claims.statistics import all_above, compare, ratio_at_least, smaller_spread
from imfbench.reports.results import Training

LAST = 0.5
"""Share of a training, from its end, over which spreads are taken: by then the learning rate's warm-up is past."""

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
    checked, violated, shown, seen = count(scores)
    if not checked:
        raise NoEvidenceError(f"{part.measurement}: its lattice has too few points")
    tested = share_at_most(shown, checked, part.margin, violated, seen)
    reason = (
        f"of {checked} {kind} {shown} are violated beyond noise, {violated} by the mean; at most {part.margin:.0%} would be "
        f"{close}, even by the mean"
    )
    if seen is not None:
        reason += f". Of a single one {seen:.3g} of the score too much could have been seen (the median of all)"
    reason += ". The inequalities share points, so the interval is nominal"
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
