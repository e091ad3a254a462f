"""Rows of several runs in one table: which of them may be ranked, and what the paired tests between them say.

A figure is ranked only if all rows that have it carry one signature of its metric. Otherwise it is shown as it is, and the parts
that differ are told: 1.6 and 1.9 say nothing about two systems if two scorers made them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from imfbench.metrics.signature import SignatureError, parse
from imfbench.progress import log
from imfbench.reports.columns import REFERENCES, REQUIRED, qualities
from imfbench.reports.comparison import Comparison, Ranking, between_rows, rank
from imfbench.reports.grouping import Entry, Group, entries, some
from imfbench.reports.leaderboard import SCHEMA, complete
from imfbench.reports.main_table import main_table
from imfbench.reports.results import Cell, RunFolderError, read_run, standing
from imfbench.reports.tables import findings, test_table
from imfbench.schema import SCHEMA_VERSION, VERSION_KEY, check_version

MOST_PAIRS = 6
"""Rows up to which each is tested against each: with more, Holm's correction over all pairs would leave nothing to be found."""


@dataclass(frozen=True)
class Across:
    """Rows on one test set, from whatever runs.

    Attributes:
        group: The rows; ``signatures`` holds those of the metrics in which all of them agree.
        rankings: Of the figures of these metrics.
        comparisons: Tests between rows, of family "compare".
        unranked: Metric → why its figures are not ranked, with the parts of the signature that differ.
        untested: Why there are no tests between rows; empty if there are.
    """

    group: Group
    rankings: list[Ranking]
    comparisons: list[Comparison]
    unranked: dict[str, str]
    untested: str


def compare(
    places: Sequence[Path], baseline: str | None = None, margins: Mapping[str, float] | None = None,
    cluster: str | None = None,
) -> list[Across]:  # fmt: skip
    """Read results and bring their rows together, a table for each test set.

    Args:
        places: Run folders, whatever made them, or folders with a ``leaderboard.json``.
        baseline: One of the folders, if it has a single system, or a row as the table calls it: what all others are tested
            against. Without it each is tested against each, if they are few.
        margins: Accepted losses where they differ from the convention.
        cluster: Resample and flip these whole in paired tests ("speaker"); as the runs did, if they agree, without it. The
            intervals of the figures are the runs' own.

    Raises:
        RunFolderError: A folder holds no results, or there is no such baseline.
        imfbench.schema.SchemaError: Results of a newer schema.
    """
    cells = gather(places, pooled=True)
    table_of, found, seen = _tables(cells), [], []
    for dataset in dict.fromkeys(map(table_of, cells)):
        here = [cell for cell in cells if table_of(cell) == dataset]
        tasks = dict.fromkeys(str(cell.row["task"]) for cell in here)
        signatures, unranked = _signatures(here)
        whole = cluster or agreed_cluster(here)
        group = Group("speech" if len(tasks) > 1 else next(iter(tasks)), dataset, here, 1, 1, signatures, whole)
        ranked = [q for q in qualities([c.row for c in here]) if q.signature not in unranked]
        contestants = [entry for entry in entries(group) if not entry.cells[0].reference]
        seen += contestants
        pairs, untested = _pairs(contestants, baseline)
        tests = between_rows(group, pairs, [q.name for q in ranked], margins)
        found.append(Across(group, [r for q in ranked if (r := rank(group, q))], tests, unranked, untested))
    if baseline is not None and not _called_so(seen, baseline):
        names = ", ".join(repr(entry.name) for entry in seen) or "none"
        raise RunFolderError(f"--baseline {baseline}: no row is called so, and no folder of one row; there are {names}")
    return found


def gather(places: Sequence[Path], pooled: bool = False) -> list[Cell]:
    """The rows of all places, each with its place as ``run`` and in its name where that is needed to tell rows apart.

    Recordings that stand in several runs with the same figures are taken once for each table: for each task and variant of a test
    set, or with ``pooled`` for those that ``compare`` brings together. A teacher is kept of each: its speed was measured
    beside that of its run's students. Recordings come first, then teachers, then the others, each in the order of the places.

    Raises:
        RunFolderError: A place holds no results.
    """
    every: list[Cell] = []
    names = _names(places)
    for place in dict.fromkeys(places):
        for cell in _read(place):
            kind = cell.row.get("kind") or (cell.own_name if cell.own_name in REFERENCES else None)
            row = {**cell.row, "kind": kind, "run": names[place], "key": f"{names[place]}/{cell.row['key']}"}
            every.append(Cell(row, cell.utterances, cell.folder))
    table_of = _tables(every) if pooled else lambda cell: f"{cell.row['task']} on {cell.row['dataset']}"
    found: list[Cell] = []
    for new in every:
        beside = [other for other in found if table_of(other) == table_of(new)]
        if not (new.reference and any(_same_figures(new, other) for other in beside)):
            found.append(new)
    runs: dict[tuple[str, str], set[str]] = {}
    for cell in found:
        runs.setdefault((table_of(cell), cell.system), set()).add(str(cell.row["run"]))
    told = [_named(cell) if len(runs[table_of(cell), cell.system]) > 1 else cell for cell in found]
    return sorted(told, key=standing)


def agreed_cluster(cells: Sequence[Cell]) -> str | None:
    """What all rows that have figures resampled whole, if they agree on it."""
    found = {cell.row.get("cluster") for cell in cells if cell.ok}
    return found.pop() if len(found) == 1 else None


def as_markdown(tables: Sequence[Across]) -> str:
    """All tables in Markdown: figures, what is not ranked and why, tests."""
    parts = ["# Comparison"]
    for table in tables:
        parts += [f"## {table.group.title}", *main_table(table.group, table.rankings)]
        parts += ["\n".join(f"- {line}" for line in statements(table)), findings(table.group, table.comparisons)]
        parts += test_table(table.comparisons) if table.comparisons else []
    return "\n\n".join(part for part in parts if part) + "\n"


def statements(table: Across) -> list[str]:
    """What must be said of a table besides its figures: what is not ranked, not tested, or of several tasks."""
    tasks = sorted({str(cell.row["task"]) for cell in table.group.cells} - {"speech"})
    told = list(table.unranked.values()) + ([table.untested] if table.untested else [])
    if len(tasks) > 1:
        told.append(f"Rows of the tasks {' and '.join(tasks)}: what their networks were given is not the same.")
    return told


def record(tables: Sequence[Across]) -> dict[str, Any]:
    """All tables as JSON, with the keys of ``leaderboard.json``."""
    return {
        "schema": SCHEMA,
        VERSION_KEY: SCHEMA_VERSION,
        "rows": [complete(cell) for table in tables for cell in table.group.cells],
        "groups": [
            {
                "title": t.group.title,
                "task": t.group.task,
                "dataset": t.group.dataset,
                "signatures": t.group.signatures,
                "unranked": t.unranked,
                "unlike": t.group.unlike,
                "keys": [cell.row["key"] for cell in t.group.cells],
                "rankings": [asdict(r) for r in t.rankings],
            }
            for t in tables
        ],
        "comparisons": [test.record() for table in tables for test in table.comparisons],
    }


def _read(place: Path) -> list[Cell]:
    board = next((f for f in (place / "leaderboard.json", place / "leaderboard/leaderboard.json") if f.is_file()), None)
    if board is None or any(place.glob("cells/*/*.json")):
        results = read_run(place)
        if not results.cells and results.unfinished:
            raise RunFolderError(
                f"{place}: {len(results.unfinished)} cells are begun, none is scored: there are no rows yet"
            )
        if results.unfinished:
            log.warning("%s: %d cells are begun and not scored: they are in no table", place, len(results.unfinished))
        return results.cells
    try:
        found = json.loads(board.read_text(encoding="utf-8"))
        check_version(found.get(VERSION_KEY), board)
        rows = found["rows"]
        if not all(row.get(key) is not None for row in rows for key in (*REQUIRED, "key")):
            raise ValueError(f"a row lacks one of {', '.join(REQUIRED)}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunFolderError(f"{board} holds no rows ({error}): make it again with `imfbench report`") from None
    return [Cell(row) for row in rows]


def _named(cell: Cell) -> Cell:
    """The row with its run in the system's name; what its own run calls it stays on record."""
    names = {"system": f"{cell.system} ({cell.row['run']})", "own_name": cell.own_name}
    return Cell({**cell.row, **names}, cell.utterances, cell.folder)


def _names(places: Iterable[Path]) -> dict[Path, str]:
    """The last part of each path, or as many as tell it from the others."""
    every = list(dict.fromkeys(places))
    found: dict[Path, str] = {}
    for place in every:
        parts = place.resolve().parts
        depth = 1
        others = [other.resolve().parts for other in every if other.resolve() != place.resolve()]
        while depth < len(parts) and any(other[-depth:] == parts[-depth:] for other in others):
            depth += 1
        found[place] = "/".join(parts[-depth:])
    return found


def _set_of(cell: Cell) -> str:
    """Test set, split and revision; not what else a task notes beside it."""
    return str(cell.row["dataset"]).partition(", ")[0]


def _tables(cells: Sequence[Cell]) -> Callable[[Cell], str]:
    """In which table of a comparison a row stands: that of its test set.

    Variants of a task on one set (the length is told, or reckoned by the prompt's rate) are not equally hard, so that each has a
    table of its own.
    """
    variants: dict[tuple[str, str], set[str]] = {}
    for cell in cells:
        variants.setdefault((_set_of(cell), str(cell.row["task"])), set()).add(str(cell.row["dataset"]))

    def table(cell: Cell) -> str:
        several = len(variants[_set_of(cell), str(cell.row["task"])]) > 1
        return str(cell.row["dataset"]) if several else _set_of(cell)

    return table


def _same_figures(one: Cell, other: Cell) -> bool:
    if (one.system, one.signatures) != (other.system, other.signatures):
        return False
    return all(one.value(q.name) == other.value(q.name) for q in qualities([one.row, other.row]))


def _signatures(cells: Sequence[Cell]) -> tuple[dict[str, str], dict[str, str]]:
    """The signatures on which all rows agree, and for other metrics what differs where."""
    agreed: dict[str, str] = {}
    unranked: dict[str, str] = {}
    for metric in dict.fromkeys(metric for cell in cells for metric in cell.signatures):
        carriers: dict[str, list[str]] = {}
        for cell in cells:
            if metric in cell.signatures:
                carriers.setdefault(cell.signatures[metric], []).append(_called(cell))
        if len(carriers) == 1:
            agreed[metric] = next(iter(carriers))
        else:
            unranked[metric] = (
                f"{metric} is not ranked and not tested, its rows carry different signatures. {_told(carriers)}"
            )
    return agreed, unranked


def _told(carriers: Mapping[str, list[str]]) -> str:
    """Each part that differs, with its values and the rows that have them."""
    try:
        read = {text: {"version": str(parse(text)[1]), **parse(text)[2]} for text in carriers}
    except SignatureError:
        read = {text: {"signature": text} for text in carriers}
    told = []
    for part in dict.fromkeys(part for parts in read.values() for part in parts):
        rows: dict[str, list[str]] = {}
        for text, parts in read.items():
            rows.setdefault(parts.get(part, "absent"), []).extend(carriers[text])
        if len(rows) > 1:
            told.append(f"{part}: " + ", ".join(f"{value} ({some(names)})" for value, names in rows.items()))
    return "; ".join(told)


def _called(cell: Cell) -> str:
    return cell.system + (f" at NFE {int(nfe)}" if (nfe := cell.value("nfe")) is not None else "")


def _pairs(found: Sequence[Entry], baseline: str | None) -> tuple[list[tuple[Entry, Entry]], str]:
    if baseline is not None:
        bases = _called_so(found, baseline)
        if len(bases) > 1:
            names = ", ".join(repr(entry.name) for entry in bases)
            raise RunFolderError(f"--baseline {baseline}: several rows are called so; name one of {names}")
        return [(entry, base) for base in bases for entry in found if entry is not base], ""
    if len(found) > MOST_PAIRS:
        return [], (
            f"The {len(found)} rows are tested against the best of each figure alone (≈): name one of them with --baseline to "
            "test all others against it."
        )
    return [(b, a) for a, b in combinations(found, 2)], ""


def _called_so(found: Sequence[Entry], name: str) -> list[Entry]:
    """The rows that the table calls so, the more exactly the better; else those of the folder of this name."""
    for called in ("name", "label", "system"):
        if same := [entry for entry in found if getattr(entry, called) == name]:
            return same
    return [e for e in found if Path(name).resolve().parts[-1] == str(e.cells[0].row["run"]).rpartition("/")[2]]
