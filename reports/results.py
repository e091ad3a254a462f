"""What a report reads from a run folder: scored cells, their utterances, and the logs of the trained artefacts."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from imfbench.devices import machine_name
from imfbench.reports.columns import RECORDINGS, REFERENCES, REPORTED, REQUIRED, TEACHER, own_name
from imfbench.schema import VERSION_KEY, check_version, read_utterances
from imfbench.store import natural, parts_of

_AGAIN = "remove the folder and repeat the run"


class RunFolderError(ValueError):
    """A run folder from which no report can be made; the message names the file and the remedy."""


@dataclass(frozen=True)
class Cell:
    """One row of the leaderboard and the utterances behind it.

    Attributes:
        row: The cell's ``summary.json``.
        utterances: Its ``utterances.parquet``, or None where there is none.
        folder: ``cells/<key>``, or None where only its figures are known.
    """

    row: Mapping[str, Any]
    utterances: pd.DataFrame | None = None
    folder: Path | None = None

    @property
    def system(self) -> str:
        """Name of the system."""
        return str(self.row["system"])

    @property
    def own_name(self) -> str:
        """What its run calls the system."""
        return own_name(self.row)

    @property
    def ok(self) -> bool:
        """Whether the cell's figures may be compared."""
        return bool(self.row["status"] == "ok")

    @property
    def reference(self) -> bool:
        """Whether the row is a recording (as it is, or vocoded) instead of a model's output."""
        return self.recording in REFERENCES

    @property
    def recording(self) -> str:
        """Which of ``REFERENCES`` the row is, if it is one: by its kind, and by its name in results without kinds."""
        return str(self.row.get("kind") or self.own_name)

    @property
    def teacher(self) -> bool:
        """Whether the row is the teacher's, which others are tested against: not what a paper or a folder calls so."""
        return self.own_name == TEACHER and self.row.get("kind") in (None, "sampled")

    @property
    def recordings(self) -> bool:
        """Whether only the speech of another program is known."""
        return self.row.get("kind") == RECORDINGS

    @property
    def reported(self) -> str:
        """Where the row's figures were published, if they are a paper's and were not measured; else ""."""
        return str(self.row.get("source") or "no source is named") if self.row.get("kind") == REPORTED else ""

    @property
    def signatures(self) -> dict[str, str]:
        """Metric → how its figure was made."""
        return dict(self.row.get("signatures") or {})

    def value(self, name: str) -> float | None:
        """A figure of the row; None where it is absent or not finite."""
        found = self.row.get(name)
        if isinstance(found, bool) or not isinstance(found, (int, float)) or not math.isfinite(found):
            return None
        return float(found)


@dataclass(frozen=True)
class Training:
    """The training record of one artefact.

    Attributes:
        name: The artefact's folder.
        log: ``log.csv``: step, seconds, loss, grad_norm, learning_rate, and what the method logs.
        status: ``status.json``.
    """

    name: str
    log: pd.DataFrame
    status: Mapping[str, Any] = field(default_factory=dict)

    @property
    def diverged(self) -> bool:
        """Whether the training was stopped because it diverged."""
        return self.status.get("status") == "diverged"


@dataclass(frozen=True)
class Results:
    """All that a run has to show.

    Attributes:
        name: The run folder's name.
        cells: Finished cells, in the order of the tables.
        trainings: Training records, by name.
        unfinished: Folders under ``cells/`` without a summary.
        baseline: The recordings that others are tested against, if the experiment names one.
        margins: Accepted losses that the experiment sets.
        cluster: What intervals and tests resample whole, if not utterances.
    """

    name: str
    cells: list[Cell]
    trainings: list[Training]
    unfinished: list[str]
    baseline: str | None = None
    margins: Mapping[str, float] = field(default_factory=dict)
    cluster: str | None = None


def read_run(run: Path) -> Results:
    """Read a run folder, also one that is going: cells that are begun are ``unfinished``.

    Raises:
        RunFolderError: It is not there, holds neither a cell nor a training log, or a file in it is damaged.
    """
    if not run.is_dir():
        raise RunFolderError(f"{run}: no such run folder; `imfbench run CONFIG --out DIR` makes one")
    # A run of several experiments has one folder for each, which is a run folder itself.
    runs = [run, *parts_of(run)]
    found = (p for one in runs for p in sorted(one.glob("cells/*")))
    folders = [p for p in found if p.is_dir() and not p.name.startswith(".")]
    machines = {one / "cells": _machine(one) for one in runs}
    cells = _once([_read_cell(p, machines[p.parent]) for p in folders if (p / "summary.json").is_file()])
    unfinished = [p.name for p in folders if not (p / "summary.json").is_file()]
    trainings = [
        _read_training(p.parent, "" if one is run else f"{one.name}/")
        for one in runs
        for p in sorted(one.glob("artefacts/*/log.csv"), key=lambda log: natural(log.parent.name))
    ]
    begun = any((p / name).is_file() for p in folders for name in ("cell.json", "utterances.jsonl"))
    if not cells and not trainings and not begun:
        left = f" ({len(unfinished)} cells are begun, none is scored)" if unfinished else ""
        raise RunFolderError(
            f"{run}: nothing to report: no cells/*/summary.json and no artefacts/*/log.csv{left}; "
            "repeat the `imfbench run` command that made this folder, it goes on where it stopped"
        )
    return Results(run.resolve().name, sorted(cells, key=_place), trainings, unfinished, *_wishes(run))


def _once(cells: list[Cell]) -> list[Cell]:
    """The cells without those that an earlier experiment of the run has too: of the same content, equally scored and timed."""
    found: dict[tuple[str, ...], Cell] = {}
    for cell in cells:
        timed = (cell.row.get(key) for key in ("n_expected", "device", "hardware", "threads", "workers"))
        scored = sorted(cell.signatures.items())
        found.setdefault((str(cell.row["key"]), repr(scored), *map(repr, timed)), cell)
    return list(found.values())


def _wishes(run: Path) -> tuple[str | None, dict[str, float], str | None]:
    """Baseline, margins and clusters of the run's experiment."""
    try:
        experiment = yaml.safe_load((run / "experiment.yaml").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return None, {}, None
    if not isinstance(experiment, dict):
        return None, {}, None
    return experiment.get("baseline"), dict(experiment.get("margins") or {}), experiment.get("cluster")


def standing(cell: Cell) -> int:
    """The place of a row's kind: recordings, the teacher, all others."""
    return REFERENCES.index(cell.recording) if cell.reference else len(REFERENCES) + (not cell.teacher)


def _place(cell: Cell) -> tuple[Any, ...]:
    """Recordings, then the teacher from many evaluations to few, then the others by name and evaluations."""
    row, system = cell.row, cell.system
    nfe = row.get("nfe") or 0
    fixed = [
        natural(str(row.get(k))) for k in ("dataset", "vocoder", "grid", "guidance", "train_seed", "noise_seed", "key")
    ]
    nfe = -nfe if cell.teacher else nfe
    return (str(row["task"]), str(row["dataset"]), standing(cell), natural(system), nfe, *fixed)


def _machine(run: Path) -> Mapping[str, Any]:
    """Hardware of a run; a manifest that cannot be read tells of none."""
    try:
        found = json.loads((run / "manifest.json").read_text(encoding="utf-8"))["hardware"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _read_cell(folder: Path, machine: Mapping[str, Any]) -> Cell:
    row = _read_object(folder / "summary.json")
    check_version(row.setdefault(VERSION_KEY, 1), folder / "summary.json")
    absent = [key for key in REQUIRED if row.get(key) is None]
    if absent:
        raise RunFolderError(f"{folder / 'summary.json'}: no value for {', '.join(absent)}; {_AGAIN}")
    for key in ("signatures", "not_measured"):
        if not isinstance(row.setdefault(key, {}), dict):
            raise RunFolderError(f"{folder / 'summary.json'}: {key} must be an object; {_AGAIN}")
    row.setdefault("key", folder.name)
    if row.get("hardware") is None:  # its utterances are of before they named it
        row["hardware"] = machine_name(machine, row.get("device"))
    table = folder / "utterances.parquet"
    if not table.is_file():
        return Cell(row, folder=folder)
    try:
        utterances = read_utterances(table)
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{table}: not readable ({error}); {_AGAIN}") from error
    if "id" not in utterances.columns:
        raise RunFolderError(f"{table}: no column 'id'; {_AGAIN}")
    twice = utterances.duplicated([c for c in ("id", "noise_seed") if c in utterances.columns])
    if twice.any():
        raise RunFolderError(f"{table}: {utterances.loc[twice, 'id'].iloc[0]!r} stands twice; {_AGAIN}")
    return Cell(row, utterances, folder)


def _read_training(folder: Path, prefix: str) -> Training:
    table = folder / "log.csv"
    try:
        log = pd.read_csv(table)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise RunFolderError(f"{table}: not a readable CSV file ({error}); train the artefact again") from error
    if "step" not in log.columns:
        raise RunFolderError(f"{table}: no column 'step'; train the artefact again")
    for name in ("step", "seconds", "loss", "grad_norm"):
        if name in log.columns:
            log[name] = pd.to_numeric(log[name], errors="coerce")
    # A resumed training may have logged the steps since its last checkpoint twice: the later line counts.
    log = log.dropna(subset=["step"]).drop_duplicates("step", keep="last").sort_values("step", ignore_index=True)
    status = folder / "status.json"
    return Training(prefix + folder.name, log, _read_object(status) if status.is_file() else {})


def _read_object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RunFolderError(f"{path}: not readable as JSON ({error}); {_AGAIN}") from error
    if not isinstance(found, dict):
        raise RunFolderError(f"{path}: must hold one JSON object; {_AGAIN}")
    return found
