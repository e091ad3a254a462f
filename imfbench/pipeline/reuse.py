"""What the same run has made already, by content: a training, a grid, the audio of a cell that two experiments of it share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imfbench.artefact import WEIGHTS
from imfbench.data import Utterance
from imfbench.metrics.memory import kind_on
from imfbench.metrics.speed import TIMING
from imfbench.pipeline.context import Context
from imfbench.pipeline.sources import of_other_recordings
from imfbench.progress import log
from imfbench.store import RunFolder, atomic, content_hash, file_sha256, parts_of, read_json, write_json

if TYPE_CHECKING:
    from imfbench.pipeline.cells import Cell

RECIPE = "recipe.json"
_TRAINED = (WEIGHTS, "vocab.txt", "log.csv", "step_memory.json")
MEMORY_KEYS = ("peak_memory", "peak_memory_kind", "peak_memory_of")


def folders(folder: RunFolder) -> list[RunFolder]:
    """The folders of all experiments of a run, by one of them: that one first, then the whole's and those below it."""
    above, own = folder.path.resolve().parent, folder.path.resolve().name
    begun = all((above / name).is_file() for name in ("experiment.yaml", "manifest.json"))
    whole = above if begun and own in {path.name for path in parts_of(above)} else folder.path
    found = [folder.path, whole, *parts_of(whole)]
    return [RunFolder(path) for path in {path.resolve(): path for path in found}.values()]


def trainings(folder: RunFolder) -> Iterator[tuple[Path, dict[str, Any], dict[str, Any]]]:
    """The trainings of a run that have ended and left what they have learnt, if anything: folder, recipe, status."""
    for one in folders(folder):
        for path in sorted(one.path.glob(f"artefacts/*/{RECIPE}")):
            status = read_json(path.parent / "status.json") or {}
            if status.get("status") == "diverged" or (
                status.get("status") == "ok" and (path.parent / WEIGHTS).is_file()
            ):
                yield path.parent, read_json(path), status


def take_training(context: Context, name: str, there: Path) -> None:
    """Take over a training that has ended; its status comes last, so that a kill leaves one that is not ended."""
    folder = context.folder.artefact(name)
    for file in _TRAINED:
        if (there / file).is_file():
            _link(there / file, folder / file)
    card = read_json(there / "card.json")
    if card is not None:
        told = {"name": name, "experiment": context.config.name, "same_training_as": there.name}
        write_json(folder / "card.json", {**card, **told})
    write_json(folder / RECIPE, read_json(there / RECIPE))
    write_json(folder / "status.json", read_json(there / "status.json"))
    log.info("%s: the same training as %s, by content: nothing is trained", name, there)


def take_grid(context: Context, name: str, recipe: dict[str, Any]) -> bool:
    """Take over the grid of an equal search; whether there is one."""
    path = same_grid(context, recipe)
    if path is None:
        return False
    write_json(context.folder.grid(name), {**read_json(path), "name": name})
    log.info("%s: the same search as %s, by content: nothing is searched", name, path)
    return True


def same_grid(context: Context, recipe: dict[str, Any]) -> Path | None:
    """The file of an equal search's grid, in the folder of whichever experiment of the run; None if there is none."""
    wanted = content_hash(recipe)
    paths = (path for one in folders(context.folder) for path in sorted(one.path.glob("grids/*.json")))
    return next((path for path in paths if read_json(path).get("recipe_hash") == wanted), None)


def take_audio(context: Context, cell: Cell, missing: list[Utterance]) -> None:
    """Take over the utterances of an equal cell of another experiment, if they were timed under the same conditions."""
    here = (context.device.type, context.threads, context.config.workers, TIMING)
    for one in folders(context.folder)[1:]:
        there = one.cell(cell.folder.key)
        made = there.journal.rows()
        for utterance in [u for u in missing if made.get(u.id, {}).get("status") == "ok"]:
            row = made[utterance.id]
            timed = tuple(row.get(key) for key in ("device", "threads", "workers", "timing"))
            path = there.path / row["audio"]
            if (
                timed not in (here, (None,) * 4)
                or not context.is_ours(row.get("hardware"))
                or of_other_recordings(context, row, utterance)
                or not path.is_file()
                or file_sha256(path) != row["audio_sha256"]
            ):
                continue
            _link(path, cell.folder.path / row["audio"])
            cell.folder.journal.append(row)
            missing.remove(utterance)
        about = read_json(there.identity) or {}
        present = read_json(cell.folder.identity) or {}
        comparable = about.get("peak_memory_kind") == kind_on(context.device)  # bytes of another kind of device are not
        if made and comparable and about.get("peak_memory") is not None and present.get("peak_memory") is None:
            write_json(cell.folder.identity, {**present, **{key: about.get(key) for key in MEMORY_KEYS}})


def _link(source: Path, target: Path) -> None:
    """The same file under another name, where the file system can; else a copy."""
    with atomic(target) as temporary:
        temporary.unlink()
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
