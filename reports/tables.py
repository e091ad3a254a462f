"""``leaderboard.md``: tables with footnotes, marks and plain sentences that say no more than the tests behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from imfbench.metrics.stats import MINIMUM_TRAINING_SEEDS, statement_scope
from imfbench.reports.columns import BY_NAME, COLUMNS, Quality, quality
from imfbench.reports.comparison import ALPHA, MARGIN_ALPHA, TOO_FEW, Comparison, Ranking
from imfbench.reports.grouping import Group, apart, labels
from imfbench.reports.main_table import (
    DASH,
    Footnotes,
    has,
    listed,
    main_table,
    plain_figure,
    reasons,
    shown_value,
    table,
)  # fmt: skip
from imfbench.reports.results import Cell, Results, Training

_SAID = ("recordings", "compare")
"""Families of which equality is said in words: between systems that somebody chooses from."""
_IN_MAIN = ("system", "status", "nfe", "network_calls", "rtf_total")


def markdown(
    results: Results,
    groups: Sequence[Group],
    rankings: Mapping[str, Sequence[Ranking]],
    comparisons: Sequence[Comparison],
    pictures: Mapping[str, str],
) -> str:
    """The whole of ``leaderboard.md``.

    Args:
        results: What was read.
        groups: Its rows by task, dataset and signatures.
        rankings: Group title → the ranking of each of its figures.
        comparisons: Paired tests of all groups.
        pictures: File name of each picture → what it shows.
    """
    parts = [f"# Leaderboard of {results.name}"]
    if not groups:
        shown = "; the training curves are all there is to show" if results.trainings else ""
        parts.append(f"No cell has been scored yet{shown}.")
    first: dict[tuple[str, str], Group] = {}
    for group in groups:
        begin = first.setdefault((group.task, group.dataset), group)
        parts += [f"## {group.title}", *([] if begin is group else [apart(begin, group)])]
        parts += main_table(group, rankings.get(group.title, ()))
    if results.unfinished:
        keys = listed(f"`{key}`" for key in results.unfinished)
        parts.append(f"Not finished, hence in no table: {len(results.unfinished)} cells ({keys}).")
    parts += _divergences(results.trainings)
    parts += [f"![{text}]({name})" for name, text in pictures.items()]
    for group in groups:
        parts += _tests(group, [c for c in comparisons if c.group == group.title])
        parts += [f"## Details: {group.title}", *_details(group)]
    parts.append(
        "All columns of every row, unrounded and in fractions, seconds and bytes: `leaderboard.csv`; "
        "with the tests and signatures: `leaderboard.json`."
    )
    return "\n\n".join(part for part in parts if part) + "\n"


def _tests(group: Group, tests: Sequence[Comparison]) -> list[str]:
    parts: list[str] = []
    recorded = [t for t in tests if t.family == "recordings"]
    if recorded:
        bases = dict.fromkeys(t.b for t in recorded)
        against = f"Systems against {recorded[0].b}" if len(bases) == 1 else "Systems against each other"
        parts += [f"## {against}: {group.title}", _sentences(recorded, group), *test_table(recorded)]
    students = [c for c in group.cells if not c.reference and not c.recordings and not c.teacher]
    teacher = [t for t in tests if t.family == "teacher"]
    if teacher:
        parts += [f"## Each student against {teacher[0].b}: {group.title}", _scope(group)]
        parts += [_sentences(teacher, group), *test_table(teacher)]
    elif students:
        full = any(c.ok and c.teacher for c in group.cells)
        why = "no student has a figure to compare" if full else "no row of the teacher is ok"
        parts.append(f"No comparison with the teacher: {why}.")
    equal = [t for t in tests if t.family == "equal-nfe"]
    if equal:
        parts += [f"## Systems of equal NFE: {group.title}", *test_table(equal)]
    return parts


def findings(group: Group, comparisons: Sequence[Comparison]) -> str:
    """What the tests between systems say, a line each."""
    tests = [t for t in comparisons if t.group == group.title and t.family in _SAID]
    return _sentences(tests, group) if tests else ""


def _details(group: Group) -> list[str]:
    """The columns outside the main table by subject: tables, and in a sentence what all rows share."""
    models = [c for c in group.cells if not c.reference]
    generated = [c for c in group.cells if c.system != "ground-truth"]
    artefacts = {(c.system, repr(c.row.get("artefact_sha256"))): c for c in reversed(models)}
    return [
        *_subject("Sampling and further scores", ("sampling", "quality"), group.cells, group),
        *_subject("Speed and memory", ("cost",), generated, group),
        *_subject("Training", ("training",), list(artefacts.values())[::-1], group),
    ]


def _subject(title: str, subjects: tuple[str, ...], cells: Sequence[Cell], group: Group) -> list[str]:
    columns = [c.name for c in COLUMNS if c.header and c.group in subjects and c.name not in _IN_MAIN]
    absent = [n for n in columns if not any(has(c, n) for c in cells)]
    same = [n for n in columns if n not in absent and _shared(cells, n)]
    kept = [n for n in columns if n not in absent and n not in same]
    names, notes, parts = labels(group.cells), Footnotes(), []
    if kept and cells:
        sampled = [] if title == "Training" else ["NFE"]
        rows = [
            [
                names[str(cell.row["key"])],
                *(plain_figure(cell, "nfe", notes) for _ in sampled),
                *(plain_figure(cell, name, notes) for name in kept),
            ]
            for cell in cells
        ]
        header = ["System", *sampled, *(BY_NAME[n].header for n in kept)]
        parts += [f"### {title}", table(header, rows), "\n".join(notes.lines())]
    if same:
        shown = (f"{BY_NAME[n].header} {shown_value(next(c.row[n] for c in cells if has(c, n)), n)}" for n in same)
        parts.append(f"{title}, the same in every row that has it: {'; '.join(shown)}.")
    if absent and any(c.ok for c in cells):
        told = (f"`{n}` ({reasons(cells, n)})" for n in absent)
        parts.append(f"{title}, not measured in any row: {'; '.join(told)}.")
    return parts


def _shared(cells: Sequence[Cell], name: str) -> bool:
    """Whether every generated row that is ok has this value, and it is one value, in more than one row."""
    values = [repr(c.row[name]) for c in cells if has(c, name)]
    lacking = [c for c in cells if c.ok and not c.reference and not has(c, name)]
    return len(values) > 1 and len(set(values)) == 1 and not lacking


def _scope(group: Group) -> str:
    seeds: dict[str, list[Any]] = {}
    for cell in group.cells:
        if cell.ok and not cell.reference and not cell.teacher and cell.row.get("train_seed") is not None:
            seeds.setdefault(cell.system, []).append(cell.row["train_seed"])
    students = dict.fromkeys(c.system for c in group.cells if c.ok and not c.reference and not c.teacher)
    few = [s for s in students if statement_scope(seeds.get(s, [])) == "checkpoints"]
    if few:
        return (
            f"Fewer than {MINIMUM_TRAINING_SEEDS} training seeds stand behind {listed(few)}: "
            "every statement here is about the two checkpoints compared, not about the methods."
        )
    return (
        "Each test is between two checkpoints. Every student has checkpoints of "
        f"{MINIMUM_TRAINING_SEEDS} or more training seeds: only what holds for all of them may be said of its method."
    )


def _sentences(tests: Sequence[Comparison], group: Group) -> str:
    lines = []
    for pair in dict.fromkeys((t.a, t.b) for t in tests):
        mine = [t for t in tests if (t.a, t.b) == pair and t.tested]
        shown = [f"{quality(t.column).title} {t.verdict} by {_size(t)}" for t in mine if t.different]
        few = [quality(t.column).title for t in mine if t.verdict == TOO_FEW]
        open_ = [f"{quality(t.column).title} ({_seeable(t)})" for t in mine if not t.different and t.verdict != TOO_FEW]
        equal = [t for t in mine if t.equivalent and t.family in _SAID]
        alike = [f"{quality(t.column).title} ({_size(t, t.margin)})" for t in equal]
        better = [t for t in mine if t.different and t.verdict == "better"]  # says more than "not worse" does
        within = [
            f"{quality(t.column).title} ({_size(t, t.margin)})" for t in mine if t.not_worse and t not in equal + better
        ]
        clauses = [", ".join(shown)] if shown else []
        clauses += [f"no difference shown in {', '.join(open_)}"] if open_ else []
        clauses += [f"too few utterances to show a difference in {', '.join(few)}"] if few else []
        clauses += [f"equality within the margin is shown for {', '.join(alike)}"] if alike else []
        clauses += [f"a loss of the margin is ruled out for {', '.join(within)}"] if within else []
        beside = "" if len({t.b for t in tests}) == 1 else f" against {pair[1]}"
        lines.append(f"- **{pair[0]}**{beside}: {'; '.join(clauses) or 'nothing could be tested'}.")
    names = labels(group.cells)
    stopped = [c for c in group.cells if not c.ok and not c.reference]
    lines += [
        f"- **{names[str(c.row['key'])]}{_at(c)}**: not tested, its status is {c.row['status']}." for c in stopped
    ]
    return "\n".join(lines)


def _at(cell: Cell) -> str:
    nfe = cell.value("nfe")
    return "" if nfe is None else f" at NFE {nfe:g}"


def _seeable(test: Comparison) -> str:
    """What a test without a difference could have found."""
    if test.minimum_detectable is None:
        return "all differences are equal"
    return f"could have seen {_size(test, detectable=True)}"


def _size(test: Comparison, value: float | None = None, detectable: bool = False) -> str:
    shown = quality(test.column)
    value = (test.minimum_detectable if detectable else test.difference) if value is None else value
    unit = " points" if shown.unit == "%" else ""
    return f"{abs(value or 0.0) * shown.scale:.{shown.decimals}f}{unit}"


def test_table(tests: Sequence[Comparison]) -> list[str]:
    """The tests in Markdown, and how to read them."""
    margins = any(t.margin is not None for t in tests)
    rows, above = [], ""
    for t in tests:
        shown, pair = quality(t.column), f"{t.a} − {t.b}"
        row = ["" if pair == above else pair, shown.title + (" (points)" if shown.unit == "%" else "")]
        above = pair
        if not t.tested:
            rows.append([*row, *[DASH] * 4, str(t.n), t.verdict, *([DASH] * 2 * margins)])
            continue
        row += [_signed(t.difference, shown), f"[{_signed(t.low, shown)}, {_signed(t.high, shown)}]", _p(t.p_holm)]
        row += [
            DASH if t.minimum_detectable is None else _size(t, detectable=True),
            str(t.n),
            f"**{t.verdict}**" if t.different else t.verdict,
        ]
        if margins:
            held = "shown" if t.not_worse else "not shown"
            row.append(DASH if t.margin is None else f"{held} ({_size(t, t.margin)}; p {_p(t.not_worse_p_holm)})")
            held = "shown" if t.equivalent else "not shown"
            row.append(DASH if t.equivalent is None else f"{held} (p {_p(t.equivalent_p_holm)})")
        rows.append(row)
    header = ["Comparison", "Figure", "Difference", "95 % interval", "p", "Detectable", "n", "Verdict"]
    header += ["Loss of the margin ruled out", "Equal within the margin"] * margins
    whole = next((t.cluster for t in tests if t.cluster), None)
    flipped = f", whole {whole}s resampled and flipped" if whole else ""
    text = (
        f"Paired over the same utterances{flipped}. p: sign-flip test, Holm-corrected over the "
        f"{sum(t.tested for t in tests)} tests of this table; each interval is for its difference alone. Detectable: "
        "the true difference that such a test, uncorrected, finds four times in five (2.8·sd/√n)."
    )
    if margins:
        text += (
            " Loss of the margin ruled out (not worse by as much): one-sided paired t test, for WER with one more "
            f"utterance that is lost, at {MARGIN_ALPHA:g}; equal within it: two such "
            f"tests at {ALPHA:g}; both Holm-corrected alike; the margins are a convention, set before any run."
        )
    if any(t.same_noise is False for t in tests):
        text += " Some pairs did not start from the same noise."
    return [table(header, rows), text]


def _divergences(trainings: Sequence[Training]) -> list[str]:
    stopped = [t for t in trainings if t.diverged]
    reasons = [f" ({t.status['reason']})" if t.status.get("reason") else "" for t in stopped]
    return [
        f"**{t.name} diverged** at step {t.status.get('steps', DASH)} and was stopped{reason}: see the training curves."
        for t, reason in zip(stopped, reasons, strict=True)
    ]


def _signed(value: float | None, shown: Quality) -> str:
    if value is None:
        return DASH
    rounded = round(value * shown.scale, shown.decimals) + 0.0  # no negative zero
    return f"{rounded:+.{shown.decimals}f}".replace("-", "−")


def _p(value: float | None) -> str:
    return DASH if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"
