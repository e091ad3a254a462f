"""What was found, in plain sentences: each clause is a test that was made, and says no more than it.

"Within the margin" is the test of non-inferiority (worse by less than the margin, one-sided .025, Holm-corrected), never the
mere lack of a shown difference; which is said as that, and with what could have been seen. So few utterances that no test could
show a difference are said to be too few.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from imfbench.metrics.stats import statement_scope
from imfbench.reports.columns import TEACHER, quality
from imfbench.reports.comparison import TOO_FEW, Comparison
from imfbench.reports.grouping import Group
from imfbench.reports.page.sources import Table
from imfbench.reports.results import Cell
from imfbench.reports.speeds import speed_setting

PAIRS = ("teacher", "recordings", "compare")
"""Families of tests of which somebody wants to hear: against a teacher, a baseline, or another row."""
_SEEN = "could have been seen four times in five, before correction"
"""What a detectable difference is worth: it is one test's, and verdicts are corrected over all of their table."""


@dataclass(frozen=True)
class Finding:
    """A sentence on one row against another.

    Attributes:
        text: The sentence.
        nfe: Of the row it is about; 0 where nothing was sampled.
    """

    text: str
    nfe: int = 0


def findings(table: Table) -> list[Finding]:
    """A sentence for each row that was tested against the teacher, a baseline or another row, few evaluations first."""
    tests = [t for t in table.tests if t.family in PAIRS]
    by_key = {str(cell.row["key"]): cell for cell in table.group.cells}
    found = []
    for pair in dict.fromkeys((t.a, t.b) for t in tests):
        own = [t for t in tests if (t.a, t.b) == pair]
        a, b = ([by_key[k] for k in keys if k in by_key] for keys in (own[0].a_keys, own[0].b_keys))
        nfe = int(a[0].value("nfe") or 0) if a else 0
        found.append(Finding(sentence(own, a, b), nfe))
    found.sort(key=lambda one: one.nfe)
    return found


def sentence(tests: Sequence[Comparison], a: Sequence[Cell], b: Sequence[Cell]) -> str:
    """All tests of one row against another in a sentence.

    Args:
        tests: Of ``a`` against ``b``, a figure each.
        a: The cells of the first.
        b: Of the second.
    """
    made = [t for t in tests if t.tested]
    first, second = _named(tests[0].a, a), _named(tests[0].b, b)
    if not made:
        return f"{first} could not be tested against {second}: {tests[0].verdict.removeprefix('not tested: ')}."
    few = [t for t in made if t.verdict == TOO_FEW]
    alike = [t for t in made if t.equivalent and not t.different and t not in few]
    within = [t for t in made if t.not_worse and not t.different and t not in (*alike, *few)]
    better = [t for t in made if t.verdict == "better"]
    worse = [t for t in made if t.verdict == "worse"]
    other = [t for t in made if t.different and t.verdict in ("higher", "lower")]
    unknown = [t for t in made if not t.different and t not in (*alike, *within, *few)]
    clauses = []
    if better:
        won = _listed([f"{_title(t)} by {_size(t, t.difference)}" for t in better])
        clauses.append(f"is better than {second} on {won}")
    if alike:
        clauses.append(f"equals {_or_it(second, clauses)} within the margin on {_listed([_margin(t) for t in alike])}")
    if within:
        clauses.append(f"is within the margin of {_or_it(second, clauses)} on {_listed([_margin(t) for t in within])}")
    if worse:
        clauses.append(f"is worse than {_or_it(second, clauses)} on {_listed([_loss(t) for t in worse])}")
    if unknown:
        open_ = _listed([_title(t) for t in unknown])
        seen = [_size(t, t.minimum_detectable) for t in unknown if t.minimum_detectable is not None]
        beside = f" ({_listed(seen)} {_SEEN})" if len(seen) == len(unknown) else ""
        clauses.append(f"shows no difference from {_or_it(second, clauses)} on {open_}{beside}")
    if few:
        from_ = "" if clauses else f" from {second}"
        clauses.append(f"has too few utterances to show a difference{from_} on {_listed([_title(t) for t in few])}")
    if other:
        moved = _listed([f"{_title(t)} {t.verdict} by {_size(t, t.difference)}" for t in other])
        clauses.append(f"has {moved}")
    text = f"{first} " + "; it ".join(clauses)
    if faster := _faster(a, b):
        text += f"; {faster}"
    return text + "."


def scope(group: Group) -> str:
    """What the sentences of a table are about: checkpoints, or methods."""
    students = [c for c in group.cells if c.ok and not c.reference and not c.recordings and not c.teacher]
    if not students:
        return ""
    seeds: dict[str, list[int]] = {}
    for cell in students:
        if cell.row.get("train_seed") is not None:
            seeds.setdefault(cell.system, []).append(int(cell.row["train_seed"]))
    if any(statement_scope(seeds.get(c.system, [])) == "checkpoints" for c in students):
        return (
            "These are statements about the checkpoints compared, not about their methods: for those, three training seeds are "
            "needed."
        )
    return "Each statement is about two checkpoints; only what holds for all training seeds may be said of a method."


def _faster(a: Sequence[Cell], b: Sequence[Cell]) -> str:
    """The ratio of network times, where both were timed on one machine alike; measured once, hence no test."""
    if not a or not b or len({speed_setting(cell) for cell in (*a, *b)}) != 1:
        return ""
    mine = [v for cell in a if (v := cell.value("rtf_network"))]
    theirs = [v for cell in b if (v := cell.value("rtf_network"))]
    if len(mine) != len(a) or len(theirs) != len(b):
        return ""
    ratio = (sum(theirs) / len(theirs)) / (sum(mine) / len(mine))
    if ratio >= 1.05:
        return f"{ratio:.0f} times less network time" if ratio >= 9.5 else f"{ratio:.1f} times less network time"
    return f"{1 / ratio:.1f} times more network time" if ratio <= 0.95 else "the same network time within 5 %"


def _named(name: str, cells: Sequence[Cell]) -> str:
    """ "intmeanflow at NFE 1" as a sentence begins it."""
    system, _, nfe = name.partition(" at NFE ")
    told = f"the {system}" if (cells[0].teacher if cells else system == TEACHER) else system
    return f"{told} at {nfe} NFE" if nfe else told


def _or_it(name: str, before: Sequence[str]) -> str:
    return "it" if before else name


def _title(test: Comparison) -> str:
    return quality(test.column).title


def _margin(test: Comparison) -> str:
    return f"{_title(test)} ({_size(test, test.margin)})"


def _loss(test: Comparison) -> str:
    """What was lost, and that it is less than the margin where that is shown too: the one does not exclude the other."""
    held = f" (within the margin of {_size(test, test.margin)})" if test.not_worse else ""
    return f"{_title(test)} by {_size(test, test.difference)}{held}"


def _size(test: Comparison, value: float | None) -> str:
    shown = quality(test.column)
    return f"{abs(value or 0.0) * shown.scale:.{shown.decimals}f}" + (" points" if shown.unit == "%" else "")


def _listed(texts: Sequence[str]) -> str:
    return texts[0] if len(texts) == 1 else ", ".join(texts[:-1]) + " and " + texts[-1]
