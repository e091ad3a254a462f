"""The leaderboard's tables as the template wants them: every text ready, with the number by which it is sorted."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from imfbench.reports.columns import BY_NAME, COLUMNS, Quality, missing_reason, qualities
from imfbench.reports.grouping import labels
from imfbench.reports.main_table import Footnotes, contested, has, number, resampled, shown_value
from imfbench.reports.page.sentences import Finding, findings, scope
from imfbench.reports.page.sources import Table
from imfbench.reports.results import Cell
from imfbench.reports.speeds import pinned, speed_setting, timed, unlike_most, usual_setting

MANY = 10
"""Utterances whose faults are told one by one."""


@dataclass(frozen=True)
class Figure:
    """One field of a table.

    Attributes:
        text: What it shows.
        sort: By what it is sorted; None comes last.
        interval: Its 95 % interval in words, or "".
        mark: "best", "tie", "untested", or "".
        note: Number of its footnote, or "".
    """

    text: str
    sort: float | str | None = None
    interval: str = ""
    mark: str = ""
    note: str = ""


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        key: The cell's key.
        name: What it is called.
        system: Its system, for the filter.
        nfe: Its NFE, for the filter; "" without.
        figures: A field a column.
        details: What is behind the row: title and value.
        reported: Where its figures were published, if they were not measured.
    """

    key: str
    name: str
    system: str
    nfe: str
    figures: list[Figure]
    details: list[tuple[str, str]]
    reported: str = ""


@dataclass(frozen=True)
class Block:
    """Rows that are sorted among themselves.

    Attributes:
        title: Why they stand apart; "" where they do not.
        rows: The rows.
        pinned: Whether they keep their places: what all others are compared with.
    """

    title: str
    rows: list[Row]
    pinned: bool = False


@dataclass(frozen=True)
class Board:
    """A table of the leaderboard.

    Attributes:
        title: Task and dataset.
        columns: Title, direction ("lower", "higher" or ""), and the metric behind it, of each column.
        blocks: Its rows.
        footnotes: Number and text.
        signatures: Metric → how its figure was made.
        findings: What was found.
        scope: What that is about.
        told: What must be said besides.
        resampled: What the intervals resample.
        systems: For the filter.
        nfes: For the filter.
    """

    title: str
    columns: list[tuple[str, str, str]]
    blocks: list[Block]
    footnotes: list[tuple[str, str]]
    signatures: dict[str, str]
    findings: list[Finding]
    scope: str
    told: list[str]
    resampled: str
    systems: list[str] = field(default_factory=list)
    nfes: list[str] = field(default_factory=list)


def board(table: Table) -> Board:
    """A table made ready."""
    cells, notes = table.group.cells, Footnotes()
    shown = [q for q in qualities([c.row for c in cells]) if any(c.value(q.name) is not None for c in cells)]
    sampled = any(c.value("nfe") is not None for c in cells)
    names = labels(cells)
    usual = usual_setting(cells)
    rows = {str(c.row["key"]): _row(c, names[str(c.row["key"])], shown, table, notes, sampled, usual) for c in cells}
    nfes = {nfe for c in cells if (nfe := c.value("nfe")) is not None}
    columns = [("System", "", ""), *([("NFE", "", ""), ("Network calls", "", "")] if sampled else [])]
    columns += [(q.label, q.better, q.signature) for q in shown]
    columns += [("RTF", "lower", "")] if usual else []
    columns += [("n", "", ""), ("Status", "", "")]
    return Board(
        title=table.group.title,
        columns=columns,
        blocks=_blocks(cells, rows, usual),
        footnotes=[(str(i), reason) for i, reason in enumerate(notes._numbers, 1)],
        signatures=dict(sorted(table.group.signatures.items())),
        findings=findings(table),
        scope=scope(table.group),
        told=[*table.told, *([table.group.unlike] if table.group.unlike else []), *contested(table.rankings)],
        resampled=resampled(table.group),
        systems=list(dict.fromkeys(c.system for c in cells)),
        nfes=[f"{nfe:g}" for nfe in sorted(nfes)],
    )


def _blocks(cells: list[Cell], rows: dict[str, Row], usual: str) -> list[Block]:
    """Recordings and teacher; the others timed alike; those of other hardware or conditions, each apart."""
    first = [c for c in cells if pinned(c)]
    others = [c for c in cells if not pinned(c)]
    settings = {str(c.row["key"]): speed_setting(c) if timed(c) else usual for c in cells}
    found = [Block("", [rows[str(c.row["key"])] for c in first], pinned=True)] if first else []
    for setting in sorted({settings[str(c.row["key"])] for c in others}, key=lambda s: (s != usual, s)):
        title = "" if setting == usual else f"Timed on {setting}: its speed does not compare with the rows above"
        found.append(Block(title, [rows[str(c.row["key"])] for c in others if settings[str(c.row["key"])] == setting]))
    return found


def _row(
    cell: Cell, name: str, shown: list[Quality], table: Table, notes: Footnotes, sampled: bool, usual: str
) -> Row:  # fmt: skip
    key = str(cell.row["key"])
    figures = [_plain(cell, n, notes) for n in (("nfe", "network_calls") if sampled else ())]
    for q in shown:
        ranking = next((r for r in table.rankings if r.column == q.name), None)
        figures.append(_quality(cell, q, ranking.mark(key) if ranking else "", notes))
    figures += [_speed(cell, notes, usual)] if usual else []
    figures += [_scored(cell, notes), _status(cell, notes)]
    nfe = cell.value("nfe")
    return Row(key, name, cell.system, "" if nfe is None else f"{nfe:g}", figures, _details(cell), cell.reported)


def _quality(cell: Cell, shown: Quality, mark: str, notes: Footnotes) -> Figure:
    value = cell.value(shown.name)
    if value is None:
        return _missing(cell, shown.name, notes)
    low, high = cell.value(shown.low), cell.value(shown.high)
    interval = "" if low is None or high is None else f"{number(low, shown)} – {number(high, shown)}"
    return Figure(number(value, shown), value, interval, mark)


def _plain(cell: Cell, name: str, notes: Footnotes) -> Figure:
    if not has(cell, name):
        return _missing(cell, name, notes)
    return Figure(shown_value(cell.row[name], name), cell.value(name))


def _speed(cell: Cell, notes: Footnotes, usual: str) -> Figure:
    """The RTF; a row that keeps its place stands beside speeds of another setting, and is marked."""
    shown, setting = _plain(cell, "rtf_total", notes), speed_setting(cell)
    if not timed(cell) or not pinned(cell) or setting == usual:
        return shown
    return replace(shown, note=_number(notes, unlike_most(setting, usual)))


def _missing(cell: Cell, name: str, notes: Footnotes) -> Figure:
    return Figure("–", note=_number(notes, missing_reason(cell.row, name)))


def _scored(cell: Cell, notes: Footnotes) -> Figure:
    scored, expected = int(cell.row["n_scored"]), int(cell.row["n_expected"])
    if cell.reported and not expected:
        return Figure("–", note=_number(notes, "not told"))
    text = str(scored) if scored == expected else f"{scored}/{expected}"
    faults = _faults(cell) if cell.ok else []
    if not faults:
        return Figure(text, scored)
    more = f" and {len(faults) - MANY} more" if len(faults) > MANY else ""
    return Figure(text, scored, note=_number(notes, "; ".join(faults[:MANY]) + more))


def _faults(cell: Cell) -> list[str]:
    """Utterances that were not made, not scored, or that have a note."""
    found = []
    for row in [] if cell.utterances is None else cell.utterances.to_dict("records"):
        errors = [f"{v}" for k, v in row.items() if str(k).endswith("_error") and isinstance(v, str)]
        if row.get("status", "ok") != "ok":
            found.append(f"{row['id']}: {row.get('reason') or row['status']}")
        elif errors:
            found.append(f"{row['id']}: {errors[0]}")
        elif isinstance(row.get("notes"), str) and row["notes"]:
            found.append(f"{row['id']}: {row['notes']}")
    return found


def _status(cell: Cell, notes: Footnotes) -> Figure:
    status = str(cell.row["status"])
    word, _, reason = status.partition(":")
    return Figure(word, word, note=_number(notes, status) if reason else "")


def _number(notes: Footnotes, reason: str) -> str:
    notes.mark(reason)
    return str(notes._numbers[reason])


def _details(cell: Cell) -> list[tuple[str, str]]:
    """All columns of the row that have a value and stand in no column of the table."""
    found: list[tuple[str, str]] = []
    for column in COLUMNS:
        if column.name in ("signatures", "not_measured", "status", "system") or not has(cell, column.name):
            continue
        if column.name.endswith(("_low", "_high", "_n")):
            continue
        found.append((column.header or column.name, _value(cell.row[column.name], column.name)))
    return found


def _value(value: Any, name: str) -> str:
    if name == "grid_values":
        return " ".join(f"{point:.4g}" for point in value)
    return shown_value(value, name) if name in BY_NAME else str(value)
