"""One leaderboard of many runs, whoever made them and wherever: merged where the scoring is the same, refused where it differs.

Figures from papers may stand beside them. They are marked as reported, not measured, with their source; nothing is ranked or
tested with them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from imfbench.reports.across import MOST_PAIRS, agreed_cluster, gather
from imfbench.reports.columns import BY_NAME, REPORTED, qualities, quality
from imfbench.reports.comparison import against_teacher, at_equal_nfe, between_recordings, rank
from imfbench.reports.grouping import Group, apart, group_cells
from imfbench.reports.page.sources import Source, Table
from imfbench.reports.results import Cell, RunFolderError
from imfbench.schema import SCHEMA_VERSION, VERSION_KEY

_NEEDED = ("system", "task", "dataset", "source")
_FORM = "a list of mappings with the keys system, task, dataset and source, and figures such as nfe, wer (a fraction) and sim"


def merged(places: Sequence[Path], reported: Sequence[Path] = ()) -> Source:
    """The rows of all runs, a table for each task and test set.

    Args:
        places: Run folders, or folders with a ``leaderboard.json``.
        reported: YAML files with figures of papers.

    Raises:
        RunFolderError: A folder holds no results, a file no figures, or rows of one test set were scored in different ways.
        imfbench.schema.SchemaError: Results of a newer schema.
    """
    measured = gather(places)
    groups = [replace(group, cluster=agreed_cluster(group.cells)) for group in group_cells(measured)]
    for group in groups:
        if group.part > 1:
            first = next(g for g in groups if (g.task, g.dataset, g.part) == (group.task, group.dataset, 1))
            names = ", ".join(dict.fromkeys(str(cell.row["run"]) for cell in group.cells))
            told = apart(first, group).replace("These rows", f"The rows of {names}")
            raise RunFolderError(
                f"{group.task} on {group.dataset}: these runs make no one leaderboard. {told} Score one side anew, or look at "
                "both with `imfbench compare`"
            )
    tables = []
    published = [cell for file in reported for cell in read_reported(file)]
    for group in groups:
        beside = [c for c in published if _belongs(c, group)]
        tests = [*against_teacher(group), *at_equal_nfe(group)]
        if sum(cell.recordings for cell in group.cells) <= MOST_PAIRS:
            tests += between_recordings(group)
        rankings = [r for q in qualities([c.row for c in group.cells]) if (r := rank(group, q))]
        note = [
            "Rows from papers are as reported, not measured: other data, models and scorers; nothing is ranked with them."
        ]
        shown = Group(group.task, group.dataset, [*group.cells, *beside], 1, 1, group.signatures, group.cluster)
        tables.append(Table(shown, rankings, tests, note if beside else []))
    left = [c for c in published if not any(_belongs(c, group) for group in groups)]
    for task, dataset in dict.fromkeys((str(c.row["task"]), str(c.row["dataset"])) for c in left):
        cells = [c for c in left if (c.row["task"], c.row["dataset"]) == (task, dataset)]
        tables.append(
            Table(Group(task, dataset, cells), [], [], ["All rows here are as reported in papers, not measured."])
        )
    title = (
        " and ".join(dict.fromkeys(str(cell.row["run"]) for cell in measured))
        if len(places) < 4
        else f"{len(places)} runs"
    )
    return Source(title, tables)


def read_reported(file: Path) -> list[Cell]:
    """Figures of papers, from a YAML file.

    Raises:
        RunFolderError: The file cannot be read, or an entry lacks its source; the message names the entry.
    """
    try:
        entries = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RunFolderError(f"{file} cannot be read ({error}): it should be {_FORM}") from None
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise RunFolderError(f"{file} holds no figures: it should be {_FORM}")
    return [_cell(file, number, entry) for number, entry in enumerate(entries, 1)]


def _cell(file: Path, number: int, entry: dict[str, Any]) -> Cell:
    where = f"{file}, entry {number}"
    if absent := [key for key in _NEEDED if not str(entry.get(key) or "").strip()]:
        raise RunFolderError(f"{where} has no {', '.join(absent)}: a figure without its source is nobody's")
    figures = {key: value for key, value in entry.items() if key not in _NEEDED}
    for key, value in figures.items():
        if key not in BY_NAME and not key.startswith("mos_"):
            raise RunFolderError(f"{where}: {key!r} is no column of a leaderboard (docs/results.md lists them)")
        if told := _no_figure(key, value):
            raise RunFolderError(f"{where}: {key} is {value!r}, {told}")
        share = key in BY_NAME and BY_NAME[key].unit == "fraction"
        if share and isinstance(value, (int, float)) and value > 1:
            raise RunFolderError(f"{where}: {key} is {value}; write it as a fraction, {value / 100:g} for {value:g} %")
    if not any(quality(key).better for key in figures):
        raise RunFolderError(f"{where} has no figure of quality, such as wer or sim")
    row = {
        **figures,
        **{key: str(entry[key]) for key in _NEEDED},
        "kind": REPORTED,
        "status": REPORTED,
        "n_expected": int(figures.get("n_expected", 0)),
        "n_scored": int(figures.get("n_expected", 0)),
        "key": f"reported:{file.stem}:{number}",
        "run": "papers",
        VERSION_KEY: SCHEMA_VERSION,
    }
    return Cell(row)


def _no_figure(key: str, value: Any) -> str:
    """What is wrong with a value of a column; empty if nothing is."""
    kind = BY_NAME[key].type if key in BY_NAME else "number"
    if kind.startswith("integer"):
        return "" if type(value) is int and value >= 0 else "and it takes a whole number"
    if kind.startswith("number"):
        right = type(value) in (int, float) and math.isfinite(value)
        return "" if right else "which is no figure: write a number, without a unit"
    return "" if isinstance(value, (str, int, float)) else "which is no text"


def _belongs(cell: Cell, group: Group) -> bool:
    """A paper knows a test set by its name; its revision is the run's."""
    name = str(cell.row["dataset"])
    return str(cell.row["task"]) == group.task and name in (group.dataset, group.dataset.partition("@")[0])
