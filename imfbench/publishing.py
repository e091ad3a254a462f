"""Results that another person can submit: a folder of figures, settings and sample audio without weights.

The folder is a run folder itself, so every report can be made of it; ``SHA256SUMS`` lists what is in it;
``imfbench.verification`` checks it.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import yaml

from imfbench.disk import StoreError, whole_folder
from imfbench.reports.leaderboard import Leaderboard
from imfbench.reports.page.choose import choose
from imfbench.reports.results import Cell, Results, RunFolderError, read_run
from imfbench.schema import read_utterances
from imfbench.sets import FOLDER
from imfbench.store import file_sha256, parts_of, read_json, write_json, write_parquet, write_text

SUMS = "SHA256SUMS"
KEPT = (
    "grids/*.json", "artefacts/*/log.csv", "artefacts/*/status.json", "cells/*/cell.json", "cells/*/summary.json",
    "cells/*/utterances.parquet",
)  # fmt: skip
"""What is copied as it is, but for the places of recordings."""
PLACED = (FOLDER, "folder", "path")
"""Settings that say where something lies on the machine of the run."""


class PublishError(StoreError):
    """A run that cannot be published as asked; the message says what to do."""


def publish(run: Path, out: Path, samples: int = 2) -> list[Path]:
    """Make a results folder of a run.

    Args:
        run: The run folder.
        out: The folder to make; it must be empty or absent.
        samples: Utterances of each test set whose audio goes along, as it was scored.

    Returns:
        The files, ``SHA256SUMS`` last.

    Raises:
        PublishError: ``out`` holds something.
        StoreError: It cannot be written; nothing of it is left then.
        RunFolderError: The run is no run folder, or has unfinished rows.
    """
    results = read_run(run)
    if results.unfinished:
        raise RunFolderError(
            f"{run}: {len(results.unfinished)} rows are not scored yet; repeat the command that made the folder, then publish it"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise PublishError(f"{out} holds something already: name a folder that is empty or not there")
    with whole_folder(out) as folder:
        _fill(folder, run, results, samples)
        files = [file.relative_to(folder) for file in _listed(folder)]
    return [out / file for file in files]


def _listed(folder: Path) -> list[Path]:
    """The files of a folder, ``SHA256SUMS`` last."""
    return sorted((file for file in folder.rglob("*") if file.is_file()), key=lambda file: (file.name == SUMS, file))


def _fill(out: Path, run: Path, results: Results, samples: int) -> None:
    runs = [run, *parts_of(run)]
    for one in runs:
        there = out / one.relative_to(run)
        for pattern in KEPT:
            for file in sorted(one.glob(pattern)):
                target = there / file.relative_to(one)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
        _settings(one, there)
    for file in sorted(out.rglob("utterances.parquet")):
        _without_places(file)
    for file in sorted(out.rglob("summary.json")):
        write_json(file, _unplaced(read_json(file)))
    for cell in results.cells:
        if cell.folder is not None:
            _samples(cell, out / cell.folder.relative_to(run), _chosen(results.cells, cell, samples))
    Leaderboard().write(out)
    sums = (f"{file_sha256(file)}  {file.relative_to(out).as_posix()}\n" for file in _listed(out))
    write_text(out / SUMS, "".join(sums))


def _chosen(cells: list[Cell], cell: Cell, samples: int) -> set[str]:
    """The same utterances for all rows of a task and test set."""
    same = [c for c in cells if (c.row["task"], c.row["dataset"]) == (cell.row["task"], cell.row["dataset"])]
    return set(choose(same, samples, seed=0))


def _settings(run: Path, there: Path) -> None:
    """Experiment, manifest and cards without folders of this machine."""
    experiment = run / "experiment.yaml"
    if experiment.is_file():
        values = yaml.safe_load(experiment.read_text(encoding="utf-8"))
        for part in (values, *(values.get("then") or [])):
            part.update({key: None for key in ("score_cache", "model_dir") if part.get(key) is not None})
        values = _named(values)
        write_text(there / "experiment.yaml", yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120))
    for file in (run / "manifest.json", *sorted(run.glob("artefacts/*/card.json"))):
        if (found := read_json(file)) is not None:
            write_json(there / file.relative_to(run), _unplaced(_named(found)))


def _named(value: Any, key: str = "") -> Any:
    """Settings in which a place on this machine is its last part alone: it tells what was meant, and not whose machine it was."""
    if isinstance(value, dict):
        return {name: _named(one, str(name)) for name, one in value.items()}
    if isinstance(value, list):
        return [_named(one, key) for one in value]
    return _last(value) if isinstance(value, str) and (key in PLACED or _leads_away(value)) else value


def _leads_away(text: str) -> bool:
    """Whether a text is a path that starts at a root, at home, or above the folder where it was given."""
    absolute = PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute()
    return absolute or text.startswith(("~", "../", "..\\"))


def _last(text: str) -> str:
    return PureWindowsPath(text).name or text  # Windows knows both kinds of slash


def _unplaced(value: Any) -> Any:
    """Values in whose sentences, such as the reason of a failure, a file is called by its name alone."""
    if isinstance(value, dict):
        return {name: _unplaced(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_unplaced(one) for one in value]
    return _FOLDERS.sub("", value) if isinstance(value, str) else value


_FOLDERS = re.compile(r"""(?<![\w./\\:])(?:~|[A-Za-z]:)?[/\\](?:[^\s/\\:*?"'<>|]+[/\\])+""")
"""The folders before a file's name, from a root or from home on; no address, and no fraction."""


def _without_places(file: Path) -> None:
    """Leave out where the recordings of another program lie, also where a row's reason names one."""
    frame = read_utterances(file)
    changed = frame.copy()
    for column in frame.columns:
        if column == "audio":
            changed[column] = frame[column].map(_named, na_action="ignore")
        elif column in ("reason", "notes") or column.endswith(("_error", "_note")):
            changed[column] = frame[column].map(_unplaced, na_action="ignore")
    if not changed.equals(frame):
        changed.attrs = frame.attrs
        write_parquet(file, changed)


def _samples(cell: Cell, there: Path, chosen: set[str]) -> None:
    rows = [] if cell.utterances is None else cell.utterances.to_dict("records")
    for row in rows:
        audio = row.get("audio")
        if str(row["id"]) not in chosen or not isinstance(audio, str) or cell.folder is None:
            continue
        source = cell.folder / audio
        if Path(audio).parts[0] == ".." or not source.is_file():
            continue  # recordings of other programs stay where they are
        (there / audio).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, there / audio)
