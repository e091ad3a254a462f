"""What other runs have done already: trainings, searched grids and cells of the same content are taken over."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from imfbench.artefact import WEIGHTS, ArtefactError, identity
from imfbench.config import ExperimentConfig
from imfbench.devices import machine_name
from imfbench.pipeline.cells import all_cells
from imfbench.pipeline.context import Context, NotReadyError
from imfbench.pipeline.plan import Artefact
from imfbench.pipeline.search import recipe_of_search
from imfbench.pipeline.train import FITTED, RECIPE, begun, on_record, read_back, recipe_of_training, settings_of
from imfbench.progress import log
from imfbench.store import Journal, RunFolder, StoreError, content_hash, read_json, write_json


def take_over(config: ExperimentConfig, out: Path, sources: Sequence[Path]) -> int:
    """Copy into a run folder what it would make and other run folders hold.

    A training is the same if all that decides it is (its recipe); one of so many minutes is the same as another of as many, and
    brings its number of steps. A grid is the same if its search was, a cell if network, grid, noise, set and vocoder are.

    Args:
        config: The experiment; those that ``then`` adds have folders of their own, and are not looked at.
        out: Its run folder.
        sources: Run folders, or folders of run folders.

    Returns:
        How many trainings, grids and cells were taken over.
    """
    folder, taken = RunFolder(out), 0
    with folder.lock():
        context = Context(config, folder)
        for artefact in context.plan.artefacts.values():
            if artefact.ready is None and not (folder.artefact(artefact.name) / "status.json").is_file():
                taken += _training(context, artefact, sources)
        for name, search in context.plan.searches.items():
            with contextlib.suppress(NotReadyError, ArtefactError):
                card = context.card(search.artefact)
                wanted = content_hash(recipe_of_search(context, search, context.utterances(config.dev), identity(card)))
                if folder.grid(name).is_file():
                    continue
                for path, found in _documents(sources, "grids/*.json"):
                    if found.get("recipe_hash") == wanted:
                        write_json(folder.grid(name), {**found, "name": name, "taken_from": path.name})
                        taken += 1
                        break
        taken += _cells(context, sources)
    if taken:
        log.info("%s: %d trainings, grids and cells of other runs are taken over", config.name, taken)
    return taken


def _training(context: Context, artefact: Artefact, sources: Sequence[Path]) -> int:
    settings = settings_of(context.config, artefact)
    assert artefact.system is not None
    if context.config.systems[artefact.system].timed_minutes is not None:
        seeds = [a.name for a in context.plan.artefacts.values() if a.system == artefact.system]
        used = any(begun(context.folder.artefact(name)) for name in seeds)
        settings = settings if used else settings.model_copy(update={"steps": None})  # theirs do as well
    for path, found in _documents(sources, f"artefacts/*/{RECIPE}"):
        timed, fit = found.pop("timed_minutes", None), found.pop(FITTED, None) or {}
        status = read_json(path.parent / "status.json") or {}
        steps = found.get("training", {}).get("steps")
        if status.get("status") != "ok" or status.get("steps") != steps or not (path.parent / WEIGHTS).is_file():
            continue
        if settings.steps is None and timed != settings.minutes:
            continue
        exact: dict[str, Any] = {"steps": settings.steps or steps}
        if settings.memory is not None:  # the batches that were found to fit into as much
            asked = [settings.memory, settings.frames_per_batch * settings.accumulate, settings.processes]
            if fit.get("asked") != asked:
                continue
            exact |= {"frames_per_batch": fit["frames_per_batch"], "accumulate": fit["accumulate"], "memory": None}
        try:
            mine = recipe_of_training(context, artefact, settings.model_copy(update=exact))
        except ArtefactError:  # its teacher is trained in this run, and is not there yet
            return 0
        if content_hash(read_back(mine)) != content_hash(found):
            continue
        _copy(path.parent, context.folder.artefact(artefact.name))
        if settings.steps is None:
            on_record(context, artefact, settings, steps)
        return 1
    return 0


def _cells(context: Context, sources: Sequence[Path]) -> int:
    known: dict[str, Path] = {}
    for path, found in _documents(sources, "cells/*/cell.json"):
        if "status" not in found.get("identity", {"status": ""}):
            known.setdefault(_content(found["identity"]), path.parent)
    taken = 0
    for cell in all_cells(context):
        other = known.get(_content(read_back(cell.identity)))
        if cell.status != "ok" or other is None or cell.folder.identity.is_file():
            continue
        _copy(other, cell.folder.path, leave=("summary.json",))
        present = read_json(cell.folder.identity) or {}
        manifest = read_json(other.parent.parent / "manifest.json") or {}
        made_on = present.get("hardware") or manifest.get("hardware")  # this run's manifest is of this machine
        _name_machine(cell.folder.journal, made_on or {})
        about = {**present, **cell.about, "hardware": made_on, "identity": cell.identity, "row": cell.row.label}
        write_json(cell.folder.identity, about)
        taken += 1
    return taken


def _name_machine(journal: Journal, hardware: dict[str, Any]) -> None:
    """Give rows of before they named their machine that of the run that made them: what is added here is timed on this one."""
    rows = journal.rows()
    for row in rows.values():
        if row.get("device") and row.get("hardware") is None:
            row["hardware"] = machine_name(hardware, row["device"])
    journal.replace(rows.values())


def _content(identity: dict[str, Any]) -> str:
    """A cell's identity without the system's name: the same network speaks the same whatever it is called."""
    return content_hash({key: value for key, value in identity.items() if key != "system"})


def _documents(sources: Sequence[Path], pattern: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The JSON objects of these files in the sources and the run folders below them; damaged ones are left out."""
    for source in sources:
        for path in (*sorted(source.glob(pattern)), *sorted(source.glob(f"*/{pattern}"))):
            with contextlib.suppress(StoreError):
                found = read_json(path)
                if isinstance(found, dict):
                    yield path, found


def _copy(source: Path, target: Path, leave: tuple[str, ...] = ()) -> None:
    """A folder's files, audio as hard links where the disk allows; renamed into place when it is whole.

    What is there already was begun and not ended, and makes way.
    """
    partial = target.with_name(f".{target.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    for path in sorted(source.rglob("*")):
        if path.is_dir() or path.name in leave or path.name.startswith("."):
            continue
        there = partial / path.relative_to(source)
        there.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".flac":  # audio is replaced, never changed in place
            with contextlib.suppress(OSError):
                os.link(path, there)
                continue
        shutil.copy2(path, there)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
