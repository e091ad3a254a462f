"""``leaderboard.md``: tables with footnotes, marks and plain sentences that say no more than the tests behind them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from imfbench.metrics.stats import MINIMUM_TRAINING_SEEDS, statement_scope
from imfbench.reports.columns import BY_NAME, COLUMNS, TEACHER, Quality, missing_reason, qualities, quality
from imfbench.reports.comparison import MARGIN_ALPHA, Comparison, Ranking
from imfbench.reports.grouping import Group, apart, labels
from imfbench.reports.results import Cell, Results, Training

DASH = "–"
_IN_MAIN = ("system", "status", "nfe", "network_calls", "rtf_total")
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


class Footnotes:
    """Numbered reasons beneath a table; equal reasons share a number."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def mark(self, reason: str) -> str:
        """The superscript number of a reason."""
        number = self._numbers.setdefault(reason, len(self._numbers) + 1)
        return str(number).translate(_SUPERSCRIPTS)

    def lines(self) -> list[str]:
        """The footnotes, each a line of its own in Markdown."""
        return [f"{str(n).translate(_SUPERSCRIPTS)} {reason}  " for reason, n in self._numbers.items()]


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
        parts.append("No cell has been scored yet; the training curves are all there is to show.")
    first: dict[tuple[str, str], Group] = {}
    for group in groups:
        begin = first.setdefault((group.task, group.dataset), group)
        parts += [f"## {group.title}", *([] if begin is group else [apart(begin, group)])]
        parts += _main_table(group, rankings.get(group.title, ()))
    if results.unfinished:
        keys = _listed(f"`{key}`" for key in results.unfinished)
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
    students = [c for c in group.cells if not c.reference and c.system != TEACHER]
    teacher = [t for t in tests if t.family == "teacher"]
    if teacher:
        parts += [f"## Each student against {teacher[0].b}: {group.title}", _scope(group)]
        parts += [_sentences(teacher, group), *_test_table(teacher)]
    elif students:
        full = any(c.ok and c.system == TEACHER for c in group.cells)
        why = "no student has a figure to compare" if full else "no row of the teacher is ok"
        parts.append(f"No comparison with the teacher: {why}.")
    equal = [t for t in tests if t.family == "equal-nfe"]
    if equal:
        parts += [f"## Systems of equal NFE: {group.title}", *_test_table(equal)]
    return parts


def _main_table(group: Group, rankings: Sequence[Ranking]) -> list[str]:
    named = qualities([c.row for c in group.cells])
    shown = [q for q in named if any(c.value(q.name) is not None for c in group.cells)]
    marks = {r.column: r for r in rankings}
    notes = Footnotes()
    names = labels(group.cells)
    rows = []
    for cell in group.cells:
        row = [names[str(cell.row["key"])], *(_plain_figure(cell, n, notes) for n in ("nfe", "network_calls"))]
        row += [_quality_figure(cell, q, marks.get(q.name), notes) for q in shown]
        row += [_plain_figure(cell, "rtf_total", notes), _scored(cell, notes), _status(cell, notes)]
        rows.append(row)
    header = ["System", "NFE", "Network calls", *(q.label for q in shown), "RTF", "n", "Status"]
    best = [r for r in rankings if r.tied or r.untested]
    how = ["Brackets hold 95 % bootstrap intervals over utterances. RTF is network and vocoder together."]
    if rankings:
        how.append("**Bold** is the best generated row of a column; recordings are not ranked.")
    if any(r.tied for r in best):
        how.append(
            "≈ marks rows that could not be told apart from the best (paired test over the same utterances, 5 % after "
            "Holm's correction over the column), which is no proof of equality."
        )
    if any(r.untested for r in best):
        how.append("? marks rows that could not be tested against the best.")
    absent = {q.title: _reasons(group.cells, q.name) for q in named if q not in shown}
    if absent and any(c.ok for c in group.cells):
        how.append(f"Not measured in any row: {'; '.join(f'{title} ({why})' for title, why in absent.items())}.")
    made = [f"- {metric}: `{text}`" for metric, text in sorted(group.signatures.items())]
    signatures = ["Signatures, which pin how each figure was made:", "\n".join(made)] if made else []
    return [_table(header, rows), "\n".join(notes.lines()), " ".join(how), *_other_utterances(group), *signatures]


def _quality_figure(cell: Cell, shown: Quality, ranking: Ranking | None, notes: Footnotes) -> str:
    value = cell.value(shown.name)
    if value is None:
        return DASH + notes.mark(missing_reason(cell.row, shown.name))
    text = _number(value, shown)
    mark = ranking.mark(str(cell.row["key"])) if ranking else ""
    text = f"**{text}**" if mark == "best" else text + {"tie": " ≈", "untested": " ?"}.get(mark, "")
    low, high = cell.value(shown.low), cell.value(shown.high)
    return text if low is None or high is None else f"{text} [{_number(low, shown)}, {_number(high, shown)}]"


def _scored(cell: Cell, notes: Footnotes) -> str:
    scored, expected = int(cell.row["n_scored"]), int(cell.row["n_expected"])
    reasons = []
    if cell.ok and scored != expected:
        reasons.append(f"{expected - scored} not scored: {_listed(_failures(cell)) or 'see utterances.parquet'}")
    if cell.ok and (noted := _noted(cell)):
        reasons.append(f"{len(noted)} with a note: {_listed(noted)}")
    number = str(scored) if scored == expected else f"{scored}/{expected}"
    return f"{number}{notes.mark('. '.join(reasons))}" if reasons else number


def _noted(cell: Cell) -> list[str]:
    """Utterances whose recordings or output are silent, clipped and the like, with what the run noted of them."""
    if cell.utterances is None or "notes" not in cell.utterances:
        return []
    rows = cell.utterances[["id", "notes"]].dropna().to_dict("records")
    return [f"{row['id']}: {row['notes']}" for row in rows]


def _failures(cell: Cell) -> list[str]:
    """Utterances that were not made or that a metric could not score, with the reason on record."""
    found: list[str] = []
    for row in [] if cell.utterances is None else cell.utterances.to_dict("records"):
        if row.get("status", "ok") != "ok":
            found.append(f"{row['id']}: {row.get('reason') or row['status']}")
            continue
        errors = (
            f"{row['id']}: {text}"
            for name, text in row.items()
            if str(name).endswith("_error") and isinstance(text, str)
        )
        found += list(errors)[:1]
    return found


def _status(cell: Cell, notes: Footnotes) -> str:
    """The status in a word, with the reason of a failure as a footnote."""
    status = str(cell.row["status"])
    word, _, reason = status.partition(":")
    return f"{word}{notes.mark(status)}" if reason else word


def _other_utterances(group: Group) -> list[str]:
    sets = {frozenset(c.utterances["id"]) for c in group.cells if c.ok and c.utterances is not None}
    if len(sets) < 2:
        return []
    return [
        "These rows were not all scored on the same utterances, so their figures compare with care only; "
        "the paired tests use the utterances that both sides have."
    ]


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
    absent = [n for n in columns if not any(_has(c, n) for c in cells)]
    same = [n for n in columns if n not in absent and _shared(cells, n)]
    kept = [n for n in columns if n not in absent and n not in same]
    names, notes, parts = labels(group.cells), Footnotes(), []
    if kept and cells:
        sampled = [] if title == "Training" else ["NFE"]
        rows = [
            [
                names[str(cell.row["key"])],
                *(_plain_figure(cell, "nfe", notes) for _ in sampled),
                *(_plain_figure(cell, name, notes) for name in kept),
            ]
            for cell in cells
        ]
        header = ["System", *sampled, *(BY_NAME[n].header for n in kept)]
        parts += [f"### {title}", _table(header, rows), "\n".join(notes.lines())]
    if same:
        shown = (f"{BY_NAME[n].header} {_shown(next(c.row[n] for c in cells if _has(c, n)), n)}" for n in same)
        parts.append(f"{title}, the same in every row that has it: {'; '.join(shown)}.")
    if absent and any(c.ok for c in cells):
        told = (f"`{n}` ({_reasons(cells, n)})" for n in absent)
        parts.append(f"{title}, not measured in any row: {'; '.join(told)}.")
    return parts


def _reasons(cells: Iterable[Cell], name: str) -> str:
    return _listed(dict.fromkeys(missing_reason(c.row, name) for c in cells if c.ok))


def _has(cell: Cell, name: str) -> bool:
    value = cell.row.get(name)
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))


def _shared(cells: Sequence[Cell], name: str) -> bool:
    """Whether every generated row that is ok has this value, and it is one value, in more than one row."""
    values = [repr(c.row[name]) for c in cells if _has(c, name)]
    lacking = [c for c in cells if c.ok and not c.reference and not _has(c, name)]
    return len(values) > 1 and len(set(values)) == 1 and not lacking


def _scope(group: Group) -> str:
    seeds: dict[str, list[Any]] = {}
    for cell in group.cells:
        if cell.ok and not cell.reference and cell.system != TEACHER and cell.row.get("train_seed") is not None:
            seeds.setdefault(cell.system, []).append(cell.row["train_seed"])
    students = dict.fromkeys(c.system for c in group.cells if c.ok and not c.reference and c.system != TEACHER)
    few = [s for s in students if statement_scope(seeds.get(s, [])) == "checkpoints"]
    if few:
        return (
            f"Fewer than {MINIMUM_TRAINING_SEEDS} training seeds stand behind {_listed(few)}: "
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
        open_ = [
            f"{quality(t.column).title} (could have seen {_size(t, detectable=True)})" for t in mine if not t.different
        ]
        within = [f"{quality(t.column).title} ({_size(t, t.margin)})" for t in mine if t.not_worse]
        clauses = [", ".join(shown)] if shown else []
        clauses += [f"no difference shown in {', '.join(open_)}"] if open_ else []
        clauses += [f"worse by less than the margin is shown for {', '.join(within)}"] if within else []
        lines.append(f"- **{pair[0]}**: {'; '.join(clauses) or 'nothing could be tested'}.")
    names = labels(group.cells)
    stopped = [c for c in group.cells if not c.ok and not c.reference]
    lines += [
        f"- **{names[str(c.row['key'])]}{_at(c)}**: not tested, its status is {c.row['status']}." for c in stopped
    ]
    return "\n".join(lines)


def _at(cell: Cell) -> str:
    nfe = cell.value("nfe")
    return "" if nfe is None else f" at NFE {nfe:g}"


def _size(test: Comparison, value: float | None = None, detectable: bool = False) -> str:
    shown = quality(test.column)
    value = (test.minimum_detectable if detectable else test.difference) if value is None else value
    unit = " points" if shown.unit == "%" else ""
    return f"{abs(value or 0.0) * shown.scale:.{shown.decimals}f}{unit}"


def _test_table(tests: Sequence[Comparison]) -> list[str]:
    margins = any(t.margin is not None for t in tests)
    rows, above = [], ""
    for t in tests:
        shown, pair = quality(t.column), f"{t.a} − {t.b}"
        row = ["" if pair == above else pair, shown.title + (" (points)" if shown.unit == "%" else "")]
        above = pair
        if not t.tested:
            rows.append([*row, *[DASH] * 4, str(t.n), t.verdict, *([DASH] * margins)])
            continue
        row += [_signed(t.difference, shown), f"[{_signed(t.low, shown)}, {_signed(t.high, shown)}]", _p(t.p_holm)]
        row += [_size(t, detectable=True), str(t.n), f"**{t.verdict}**" if t.different else t.verdict]
        if margins:
            held = "shown" if t.not_worse else "not shown"
            row.append(DASH if t.margin is None else f"{held} ({_size(t, t.margin)}; p {_p(t.not_worse_p_holm)})")
        rows.append(row)
    header = ["Comparison", "Figure", "Difference", "95 % interval", "p", "Detectable", "n", "Verdict"]
    header += ["Worse by less than the margin"] * margins
    text = (
        "Paired over the same utterances. p: sign-flip test, Holm-corrected over the "
        f"{sum(t.tested for t in tests)} tests of this table; each interval is for its difference alone. Detectable: "
        "the true difference that such a test, uncorrected, finds four times in five (2.8·sd/√n)."
    )
    if margins:
        text += (
            f" Worse by less than the margin: one-sided paired t test at {MARGIN_ALPHA:g}, Holm-corrected alike; "
            "the margins are a convention, set before any run."
        )
    if any(t.same_noise is False for t in tests):
        text += " Some pairs did not start from the same noise."
    return [_table(header, rows), text]


def _divergences(trainings: Sequence[Training]) -> list[str]:
    stopped = [t for t in trainings if t.diverged]
    reasons = [f" ({t.status['reason']})" if t.status.get("reason") else "" for t in stopped]
    return [
        f"**{t.name} diverged** at step {t.status.get('steps', DASH)} and was stopped{reason}: see the training curves."
        for t, reason in zip(stopped, reasons, strict=True)
    ]


def _plain_figure(cell: Cell, name: str, notes: Footnotes) -> str:
    return _shown(cell.row[name], name) if _has(cell, name) else DASH + notes.mark(missing_reason(cell.row, name))


def _shown(value: Any, name: str) -> str:
    column = BY_NAME[name]
    if name == "grid_values":
        return " ".join(f"{v:.3g}" for v in value) if len(value) <= 5 else f"{len(value)} points"
    if column.unit == "bytes":
        return f"{value / 1e6:,.0f} MB"
    if column.unit == "fraction":
        return f"{100 * value:.1f} %"
    if isinstance(value, float):
        return f"{value:#.3g}".rstrip(".") if column.unit in ("s", "s/s") else f"{value:g}"
    return str(value)


def _number(value: float, shown: Quality) -> str:
    return f"{value * shown.scale:.{shown.decimals}f}"


def _signed(value: float | None, shown: Quality) -> str:
    if value is None:
        return DASH
    rounded = round(value * shown.scale, shown.decimals) + 0.0  # no negative zero
    return f"{rounded:+.{shown.decimals}f}".replace("-", "−")


def _p(value: float | None) -> str:
    return DASH if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(texts: Iterable[str]) -> str:
        return "| " + " | ".join(text.replace("|", "\\|").replace("\n", " ") for text in texts) + " |"

    return "\n".join([line(header), line("---" for _ in header), *map(line, rows)])


def _listed(texts: Iterable[str], most: int = 5) -> str:
    found = list(texts)
    return ", ".join(found[:most]) + (f" and {len(found) - most} more" if len(found) > most else "")
