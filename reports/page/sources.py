"""What a page is made of: tables with their tests, trainings, grids, and what is lacking."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from imfbench.data import Utterance
from imfbench.reports.across import Across, statements
from imfbench.reports.comparison import Comparison, Ranking
from imfbench.reports.grouping import Group, apart
from imfbench.reports.leaderboard import analyse
from imfbench.reports.results import Cell, Training
from imfbench.store import RunFolder, read_json

_NOT_YET = ("not scored yet", "not synthesised", "is not trained")


@dataclass(frozen=True)
class Table:
    """Rows that stand together, and what the tests say of them.

    Attributes:
        group: The rows.
        rankings: The best of each figure and its ties.
        tests: Paired tests between them, besides those of the rankings.
        told: What must be said of the table besides.
    """

    group: Group
    rankings: Sequence[Ranking]
    tests: Sequence[Comparison]
    told: Sequence[str] = ()


@dataclass(frozen=True)
class Grid:
    """A searched time grid.

    Attributes:
        name: Of its file.
        values: Its points, 0 to 1.
        evaluations: How many grids the search looked at.
    """

    name: str
    values: list[float]
    evaluations: int | None = None


@dataclass(frozen=True)
class Source:
    """All that a page shows.

    Attributes:
        title: Of the page.
        tables: Of the leaderboard.
        trainings: Training records.
        grids: Searched time grids.
        partial: Why the page is not the last word; empty if the run is complete.
        manifest: ``manifest.json``, as far as there is one.
    """

    title: str
    tables: list[Table]
    trainings: list[Training] = field(default_factory=list)
    grids: list[Grid] = field(default_factory=list)
    partial: list[str] = field(default_factory=list)
    manifest: Mapping[str, Any] = field(default_factory=dict)

    @property
    def cells(self) -> list[Cell]:
        """The rows of all tables."""
        return [cell for table in self.tables for cell in table.group.cells]


def of_run(run: Path, going: bool = False) -> Source:
    """What a run folder has for a page.

    Args:
        run: The run folder.
        going: Whether somebody is at work in it.
    """
    results, groups, rankings, tests = analyse(run)
    # The run's own experiment stands before those that it brings along (`then`).
    groups = sorted(groups, key=lambda g: not any(c.folder and c.folder.parent.parent == run for c in g.cells))
    first: dict[tuple[str, str], Group] = {}
    tables = []
    for group in groups:
        begin = first.setdefault((group.task, group.dataset), group)
        told = [] if begin is group else [apart(begin, group)]
        own = [test for test in tests if test.group == group.title]
        tables.append(Table(group, rankings.get(group.title, []), own, told))
    manifest = read_json(run / "manifest.json")
    return Source(
        title=results.name,
        tables=tables,
        trainings=results.trainings,
        grids=_grids(run),
        partial=_partial(results.cells, results.trainings, _unfinished(run, results.unfinished), going),
        manifest=manifest if isinstance(manifest, dict) else {},
    )


def of_tables(title: str, tables: Sequence[Across]) -> Source:
    """A page of rows from several runs."""
    return Source(title, [Table(t.group, t.rankings, t.comparisons, statements(t)) for t in tables])


class Prompts:
    """The prompt of each utterance, found by the experiment that made a cell; what cannot be found has a reason."""

    def __init__(self) -> None:
        self._known: dict[Path, dict[str, dict[str, Utterance]] | str] = {}

    def of(self, cell: Cell, utterance: str) -> Utterance | str:
        """The utterance with its prompt, or why it is not known."""
        if cell.folder is None:
            return "the run folder is not here"
        run = cell.folder.parent.parent
        if run not in self._known:
            self._known[run] = _utterances(run)
        sets = self._known[run]
        if isinstance(sets, str):
            return sets
        dataset = str(cell.row["dataset"]).partition("@")[0]
        return sets.get(dataset, {}).get(utterance, "the experiment's test set has no such utterance")


def _utterances(run: Path) -> dict[str, dict[str, Utterance]] | str:
    """``dataset/split`` → id → utterance."""
    from imfbench.sets import open_dataset

    try:
        experiment = yaml.safe_load((run / "experiment.yaml").read_text(encoding="utf-8"))
        found: dict[str, dict[str, Utterance]] = {}
        chosen = experiment["dataset"]
        for one in chosen if isinstance(chosen, list) else [chosen]:
            dataset = open_dataset(one["name"], one.get("options") or {})
            split = one.get("split") or "test"
            known = found.setdefault(f"{one['name']}/{split}", {})
            known |= {utterance.id: utterance for utterance in dataset.utterances(split)}
        return found
    except Exception as error:  # whatever a dataset of a plug-in may raise: the page can do without the prompts
        return f"the test set cannot be opened here ({type(error).__name__})"


def _grids(run: Path) -> list[Grid]:
    found = []
    for file in sorted([*run.glob("grids/*.json"), *run.glob("*/grids/*.json")]):
        record = read_json(file)
        if isinstance(record, dict) and isinstance(record.get("values"), list):
            values = [float(value) for value in record["values"]]
            found.append(Grid(str(record.get("name") or file.stem), values, record.get("evaluations")))
    return found


def _unfinished(run: Path, keys: Sequence[str]) -> dict[str, int]:
    """What each cell without a summary is called → how many utterances it has so far."""
    found: dict[str, int] = {}
    for key in keys:
        folder = next((p for p in [run / "cells" / key, *run.glob(f"*/cells/{key}")] if p.is_dir()), None)
        if folder is None:
            continue
        try:
            about = json.loads((folder / "cell.json").read_text(encoding="utf-8"))
            name = str(about.get("row") or about.get("system") or key)
        except (OSError, ValueError, AttributeError):
            name = key
        found[name] = len(RunFolder(folder.parent.parent).cell(key).journal.rows())
    return found


def _partial(
    cells: Sequence[Cell], trainings: Sequence[Training], unfinished: Mapping[str, int], going: bool
) -> list[str]:  # fmt: skip
    told = ["The run is still going."] if going else []
    told += [f"{name} is not scored yet: {made} utterances are made." for name, made in unfinished.items()]
    for cell in cells:
        reasons = [str(cell.row["status"]), *map(str, (cell.row.get("not_measured") or {}).values())]
        if reason := next((r for r in reasons if any(word in r for word in _NOT_YET)), ""):
            told.append(f"{called(cell)}: {reason}.")
    for training in trainings:
        if training.status.get("status") not in ("ok", "diverged"):
            step = int(training.log["step"].max()) if len(training.log) else 0
            told.append(f"The training of {training.name} is not finished: it stands at step {step}.")
    return told


def called(cell: Cell) -> str:
    """A row in a sentence."""
    nfe = cell.value("nfe")
    return cell.system if nfe is None else f"{cell.system} at {nfe:g} NFE"
