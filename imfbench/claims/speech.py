"""Claims about scored speech: a figure of one row against another's, and how it is said what was found."""

from __future__ import annotations

from collections.abc import Sequence

from imfbench.claims.definition import Part, Pick
from imfbench.claims.evidence import Differences, Evidence, NoEvidenceError
from imfbench.claims.node import Node, single
from imfbench.claims.statistics import Array, Losses, compare, falls_by_less, most_lost
from imfbench.claims.verdicts import ALPHA, NOT_SUPPORTED, SUPPORTED, UNDERPOWERED, decide
from imfbench.flow.search import LIMIT_REACHED
from imfbench.metrics.rare_losses import LOST, utterances_needed
from imfbench.reports.columns import Quality
from imfbench.reports.grouping import group_cells

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
    tested = compare(found.values, margin, part.test, q.better != "lower", lost, found.words, found.against)  # type: ignore[arg-type]
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
        reason += f"; {_left_out(found.missing, lost)}"
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
    # The same sentences under harder conditions, called by the set before their names, are paired, as far as both have a score.
    named, counted = ([id.removeprefix(f"{on}-") for id in ids] for ids in (hard.ids, hard.against_ids))
    common, all_of = set(named) & set(plain.ids), len(named) + hard.missing
    same = all_of == len(plain.ids) + plain.missing and 1 < len(common) >= all_of - hard.missing - plain.missing

    def sets(here: Array, there: Array, ids: Sequence[str], others: Sequence[str]) -> tuple[Array, Array]:
        if not same:
            return here, there[order]
        both = [id for id in ids if id in others]
        return here[:, [ids.index(id) for id in both]], there[order][:, [others.index(id) for id in both]]

    values = sets(hard.values, plain.values, named, plain.ids)
    # A further loss is larger for what a lacks here and b lacks there, and smaller for the rest.
    against = [sets(hard.against[i], plain.against[1 - i], counted, plain.against_ids) for i in (0, 1)]
    tested = falls_by_less(*values, margin, q.better != "lower", lost, same, (against[0], against[1]))
    standing = decide(tested.p_support, tested.p_refute)
    which = {SUPPORTED: 0, NOT_SUPPORTED: 1}.get(standing.verdict, 2)
    shown = ("the further loss is within {m}", "a further loss beyond {m} is shown", "the interval holds {m}")[which]
    shown = shown.format(m=f"the margin of {_show(margin, q)}")
    sides = [f"{_show(found.a, q)} against {_show(found.b, q)}" for found in (hard, plain)]
    reason = f"{sides[0]} on {on} and {sides[1]} on {part.baseline_set}{', the same utterances' * same}: {shown}"
    if standing.verdict == UNDERPOWERED and tested.minimum_detectable is not None:
        reason += f"; {_show(tested.minimum_detectable, q)} could have been seen"
    if hard.missing + plain.missing:
        reason += f"; {_left_out(hard.missing + plain.missing, lost)}"
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


def _left_out(missing: int, lost: Losses | None) -> str:
    told = f"{missing} utterances without a score are left out"
    return told if lost is None else f"{told} of the figures, and count as lost against a side that alone lacks them"


def _ended(searches: dict[str, str]) -> str:
    """How the searches behind searched grids ended: one that was cut off speaks of the best grid so far, not of the optimum."""
    cut = [stopped for stopped in searches.values() if stopped.startswith(LIMIT_REACHED)]
    if cut:
        of = f"the searches of {len(cut)} of {len(searches)} grids" if len(searches) > 1 else "the search"
        return f"; {of} did not finish ({', '.join(dict.fromkeys(cut))})"
    return f"; the search ended: {', '.join(dict.fromkeys(searches.values()))}" if searches else ""


def _show(value: float, q: Quality) -> str:
    return f"{value * q.scale:.{q.decimals}f}{' ' + q.unit if q.unit else ''}"
