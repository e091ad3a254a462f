"""The main table of a group of rows: figures with intervals and marks, and a footnote for each that is missing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from imfbench.reports.columns import BY_NAME, Quality, missing_reason, qualities
from imfbench.reports.comparison import Ranking
from imfbench.reports.grouping import Group, labels
from imfbench.reports.results import Cell
from imfbench.reports.speeds import speed_setting, timed, unlike_most, usual_setting

DASH = "–"
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


def main_table(group: Group, rankings: Sequence[Ranking]) -> list[str]:
    """The main table in Markdown, its footnotes, how to read it, and its signatures."""
    named = qualities([c.row for c in group.cells])
    shown = [q for q in named if any(c.value(q.name) is not None for c in group.cells)]
    notes = Footnotes()
    header, rows = main_rows(group, rankings, notes)
    best = [r for r in rankings if r.tied or r.untested]
    how = [f"Brackets hold 95 % bootstrap intervals over {resampled(group)}."]
    how += ["RTF is network and vocoder together."] if "RTF" in header else []
    if rankings:
        how.append("**Bold** is the best generated row of a column; recordings are not ranked.")
    if any(r.tied for r in best):
        how.append(
            "≈ marks rows that could not be told apart from the best (paired test over the same utterances, 5 % after "
            "Holm's correction over the column), which is no proof of equality."
        )
    if any(r.untested for r in best):
        how.append("? marks rows that could not be tested against the best.")
    absent = {q.title: reasons(group.cells, q.name) for q in named if q not in shown}
    if absent and any(c.ok for c in group.cells):
        how.append(f"Not measured in any row: {'; '.join(f'{title} ({why})' for title, why in absent.items())}.")
    made = [f"- {metric}: `{text}`" for metric, text in sorted(group.signatures.items())]
    signatures = ["Signatures, which pin how each figure was made:", "\n".join(made)] if made else []
    return [
        table(header, rows),
        "\n".join(notes.lines()),
        " ".join(how),
        *_other_utterances(group),
        *contested(rankings),
        *signatures,
    ]


def contested(rankings: Sequence[Ranking]) -> list[str]:
    """A sentence for each figure that has no best row because paired tests contradict the rows' own means."""
    return [told for ranking in rankings if (told := ranking.contested)]


def resampled(group: Group) -> str:
    """What the intervals of the rows resample, in words."""
    found = {cell.row.get("cluster") for cell in group.cells if cell.ok}
    if found <= {None}:
        return "utterances"
    whole = " or ".join(f"whole {name}s" for name in sorted(filter(None, found)))
    return whole if None not in found else f"utterances or {whole} (`cluster` in each row)"


def main_rows(group: Group, rankings: Sequence[Ranking], notes: Footnotes) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a group's main table; columns of sampling and speed only if a model took part or may have."""
    shown = [
        q for q in qualities([c.row for c in group.cells]) if any(c.value(q.name) is not None for c in group.cells)
    ]
    marks = {r.column: r for r in rankings}
    names = labels(group.cells)
    sampled = [] if all(c.recordings or c.reference for c in group.cells) else ["nfe", "network_calls"]
    usual = usual_setting(group.cells)
    rows = []
    for cell in group.cells:
        row = [names[str(cell.row["key"])] + _source(cell, notes), *(plain_figure(cell, n, notes) for n in sampled)]
        row += [_quality_figure(cell, q, marks.get(q.name), notes) for q in shown]
        row += [*([_speed(cell, usual, notes)] if sampled else []), _scored(cell, notes), _status(cell, notes)]
        rows.append(row)
    titles = {"nfe": "NFE", "network_calls": "Network calls"}
    header = [
        "System",
        *(titles[n] for n in sampled),
        *(q.label for q in shown),
        *(["RTF"] if sampled else []),
        "n",
        "Status",
    ]
    return header, rows


def _quality_figure(cell: Cell, shown: Quality, ranking: Ranking | None, notes: Footnotes) -> str:
    value = cell.value(shown.name)
    if value is None:
        return DASH + notes.mark(missing_reason(cell.row, shown.name))
    text = number(value, shown)
    mark = ranking.mark(str(cell.row["key"])) if ranking else ""
    text = f"**{text}**" if mark == "best" else text + {"tie": " ≈", "untested": " ?"}.get(mark, "")
    low, high = cell.value(shown.low), cell.value(shown.high)
    return text if low is None or high is None else f"{text} [{number(low, shown)}, {number(high, shown)}]"


def _speed(cell: Cell, usual: str, notes: Footnotes) -> str:
    """The RTF, with a footnote where it was timed on other hardware or beside other work than most."""
    shown, setting = plain_figure(cell, "rtf_total", notes), speed_setting(cell)
    return shown if setting == usual or not timed(cell) else shown + notes.mark(unlike_most(setting, usual))


def _source(cell: Cell, notes: Footnotes) -> str:
    """The footnote of a row that was not measured, with where its figures were published."""
    return notes.mark(f"reported, not measured: {cell.reported}") if cell.reported else ""


def _scored(cell: Cell, notes: Footnotes) -> str:
    scored, expected = int(cell.row["n_scored"]), int(cell.row["n_expected"])
    if cell.reported and not expected:
        return DASH + notes.mark("not told")
    reasons = []
    if cell.ok and scored != expected:
        reasons.append(
            f"{expected - scored} without every score: {listed(_failures(cell)) or 'see utterances.parquet'}"
        )
    if cell.ok and (noted := _noted(cell)):
        reasons.append(f"{len(noted)} with a note: {listed(noted)}")
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
    if group.unlike:
        return [group.unlike]
    sets = {frozenset(c.utterances["id"]) for c in group.cells if c.ok and c.utterances is not None}
    if len(sets) < 2:
        return []
    return [
        "The recordings were not scored on the same utterances as the other rows, so their figures compare with care only."
    ]


def reasons(cells: Iterable[Cell], name: str) -> str:
    """Why rows that are ok have no value of a column."""
    return listed(dict.fromkeys(missing_reason(c.row, name) for c in cells if c.ok))


def has(cell: Cell, name: str) -> bool:
    """Whether the row has a finite value of a column."""
    value = cell.row.get(name)
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))


def plain_figure(cell: Cell, name: str, notes: Footnotes) -> str:
    """A column's value, or a dash with its reason as a footnote."""
    return shown_value(cell.row[name], name) if has(cell, name) else DASH + notes.mark(missing_reason(cell.row, name))


def shown_value(value: Any, name: str) -> str:
    """A column's value as tables show it, in its displayed unit."""
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


def number(value: float, shown: Quality) -> str:
    """A figure in its displayed unit and decimals."""
    return f"{value * shown.scale:.{shown.decimals}f}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""

    def line(texts: Iterable[str]) -> str:
        return "| " + " | ".join(text.replace("|", "\\|").replace("\n", " ") for text in texts) + " |"

    return "\n".join([line(header), line("---" for _ in header), *map(line, rows)])


def listed(texts: Iterable[str], most: int = 5) -> str:
    """The first few, and how many more there are."""
    found = list(texts)
    return ", ".join(found[:most]) + (f" and {len(found) - most} more" if len(found) > most else "")
