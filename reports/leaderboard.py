"""The leaderboard of a run: tables, tests and pictures from what the run left behind.

``docs/leaderboard.md`` documents every key that is written.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from imfbench.reports import plots, training_plot
from imfbench.reports.columns import COLUMNS, missing_reason, qualities
from imfbench.reports.comparison import Comparison, Ranking, against_teacher, at_equal_nfe, between_recordings, rank
from imfbench.reports.grouping import Group, group_cells
from imfbench.reports.results import Cell, Results, read_run
from imfbench.reports.tables import markdown
from imfbench.schema import SCHEMA_VERSION, VERSION_KEY
from imfbench.store import plain, write_json, write_text

SCHEMA = "imfbench-leaderboard-v1"
PICTURES = {
    "quality_nfe": "Quality against NFE, with 95 % intervals",
    "pareto": "Quality against the real-time factor, with the Pareto front",
    "training": "Training curves",
}
"""Stem of each picture → what it shows."""


class Leaderboard:
    """Writes ``leaderboard/`` of a run folder; reads results only, computes no score.

    Args:
        pictures: Whether to draw the pictures, which takes most of the time.
    """

    def __init__(self, pictures: bool = True) -> None:
        self.pictures = pictures

    def write(self, run: Path) -> list[Path]:
        """Write the tables (``leaderboard.md``, ``.csv``, ``.json``) and the pictures (PNG and SVG).

        The same results give the same files. Pictures with nothing to show are not written, and old ones are removed.

        Args:
            run: The run folder.

        Returns:
            The files written, tables first.

        Raises:
            RunFolderError: There is nothing to report, or a result file is damaged; the message names it.
        """
        run = Path(run)
        results, groups, rankings, comparisons = analyse(run)
        folder = run / "leaderboard"
        folder.mkdir(exist_ok=True)

        pictures, shown = self._draw(results, groups, folder) if self.pictures else ([], {})
        tables = [folder / f"leaderboard.{kind}" for kind in ("md", "csv", "json")]
        rows = [complete(cell) for cell in results.cells]
        write_text(tables[0], markdown(results, groups, rankings, comparisons, shown))
        write_text(tables[1], as_csv(rows))
        write_json(tables[2], record(results, groups, rankings, comparisons, rows))
        return [*tables, *pictures]

    def _draw(self, results: Results, groups: Sequence[Group], folder: Path) -> tuple[list[Path], dict[str, str]]:
        files: list[Path] = []
        shown: dict[str, str] = {}
        drawn = (
            plots.quality_against_nfe(groups),
            plots.quality_against_rtf(groups),
            training_plot.training_curves(results.trainings),
        )
        for (stem, text), figure in zip(PICTURES.items(), drawn, strict=True):
            if figure is None:
                for kind in ("png", "svg"):
                    (folder / f"{stem}.{kind}").unlink(missing_ok=True)
                continue
            files += plots.save(figure, folder / stem)
            shown[f"{stem}.png"] = text
        return files, shown


def pictures_in(folder: Path) -> dict[str, str]:
    """File name of each picture that lies in a folder → what it shows."""
    return {f"{stem}.png": text for stem, text in PICTURES.items() if (folder / f"{stem}.png").is_file()}


def written(results: Results, groups: Sequence[Group], told: Mapping[str, Any], pictures: Mapping[str, str]) -> str:
    """``leaderboard.md`` again, from what ``leaderboard.json`` tells.

    Args:
        results: The run, with the name that it had.
        groups: Its rows.
        told: ``leaderboard.json``.
        pictures: File name of each picture → what it shows.
    """
    rankings = {
        group["title"]: [
            Ranking(**{**one, "comparisons": [Comparison(**test) for test in one["comparisons"]]})
            for one in group["rankings"]
        ]
        for group in told["groups"]
    }
    return markdown(results, groups, rankings, [Comparison(**test) for test in told["comparisons"]], pictures)


def analyse(run: Path) -> tuple[Results, list[Group], dict[str, list[Ranking]], list[Comparison]]:
    """Read a run folder and make its tests: results, groups of rows, rankings by group title, comparisons.

    Raises:
        RunFolderError: There is nothing to report, or a result file is damaged; the message names it.
    """
    results = read_run(run)
    groups = group_cells(results.cells, results.cluster)
    rankings = {g.title: [r for q in qualities([c.row for c in g.cells]) if (r := rank(g, q))] for g in groups}
    families = (
        (*against_teacher(g), *at_equal_nfe(g), *between_recordings(g, results.baseline, results.margins))
        for g in groups
    )
    return results, groups, rankings, [test for tests in families for test in tests]


def complete(cell: Cell) -> dict[str, Any]:
    """The cell's row with every documented column; those without a value get their reason in ``not_measured``."""
    row = {column.name: cell.row.get(column.name) for column in COLUMNS}
    row |= {name: cell.row[name] for name in sorted(cell.row) if name not in row}
    row = plain(row)
    row["signatures"] = cell.signatures
    lacking = [name for name, value in row.items() if value is None]
    row["not_measured"] = {name: missing_reason(cell.row, name) for name in lacking}
    return row


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV: documented columns first, others by name; objects and arrays as JSON, no value as an empty field."""
    known = [column.name for column in COLUMNS]
    names = [*known, *sorted({name for row in rows for name in row} - set(known))]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow([_field(row.get(name)) for name in names])
    return text.getvalue()


def _field(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else "" if value is None else value


def record(
    results: Results,
    groups: Sequence[Group],
    rankings: Mapping[str, Sequence[Ranking]],
    comparisons: Sequence[Comparison],
    rows: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """``leaderboard.json``: the rows, with groups, rankings, tests and trainings."""
    return {
        "schema": SCHEMA,
        VERSION_KEY: SCHEMA_VERSION,
        "run": results.name,
        "rows": rows,
        "groups": [
            {
                "title": g.title,
                "task": g.task,
                "dataset": g.dataset,
                "signatures": g.signatures,
                "keys": [c.row["key"] for c in g.cells],
                "rankings": [asdict(r) for r in rankings.get(g.title, ())],
            }
            for g in groups
        ],
        "comparisons": [asdict(c) for c in comparisons],
        "trainings": [{"name": t.name, **t.status} for t in results.trainings],
        "unfinished": results.unfinished,
    }
