"""What a run folder holds of an experiment that was edited since: its networks and grids are not those of the new settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from imfbench.artefact import identity
from imfbench.data import DatasetError
from imfbench.pipeline.context import Context, NotReadyError, RunError
from imfbench.pipeline.plan import GridSearch
from imfbench.pipeline.reuse import RECIPE
from imfbench.pipeline.search import recipe_of_search
from imfbench.pipeline.train import FITTED, flat, read_back, settings_of
from imfbench.registry import BACKBONES, METHODS
from imfbench.store import content_hash, read_json
from imfbench.weights import MissingModelError


def check_training(context: Context, name: str) -> None:
    """Refuse a network that was trained by other settings than the experiment has now.

    What is on record and asked for is compared. Settings of later versions are in no older record, and neither teacher nor data
    are read for it: `imfbench train` compares all.

    Raises:
        NotReadyError: It was; the message says in what they differ.
    """
    record = read_json(Path(context.folder.artefact(name)) / RECIPE)
    artefact = context.plan.artefacts[name]
    if record is None or artefact.system is None:
        return
    config, system = context.config, context.config.systems[artefact.system]
    asked: dict[str, Any] = {
        **system.beginning,
        "method": system.method,
        "task": config.task,
        "train_data": {"name": config.train_data.name, "options": config.train_data.options},
    }
    if system.method in METHODS:
        method = METHODS.get(system.method)
        asked["method_config"] = method.Config(**system.config).model_dump(mode="json")
        if not method.needs.teacher and system.network.name in BACKBONES:
            backbone = BACKBONES.get(system.network.name).Config(**system.network.config)
            asked["network"] = [system.network.name, backbone.model_dump(mode="json")]
            record["network"] = (record.get("network") or [])[:2]
    try:
        settings = settings_of(config, artefact)
    except RunError:  # it has no end: nothing is trained by it
        settings = None
    if settings is not None:
        asked["training"] = settings.decisive("minutes", "memory")
        if settings.steps is None:  # minutes, which became steps when it was trained
            asked["training"]["steps"] = record["training"]["steps"]
            asked["timed_minutes"] = settings.minutes
        if record.get(FITTED):  # its batches were made to fit into memory
            asked["training"] = {
                k: v for k, v in asked["training"].items() if k not in ("frames_per_batch", "accumulate")
            }
    here, there = flat(read_back(asked)), flat(record)
    differ = [key for key in here if key in there and here[key] != there[key]]
    if differ:
        told = ", ".join(f"{key} {there[key]!r}, now {here[key]!r}" for key in differ[:4])
        raise NotReadyError(
            f"failed: {name} was trained with other settings ({told}): give the system another name, the run another folder with "
            "--out, or remove that training"
        )


def check_grid(context: Context, search: GridSearch, found: dict[str, Any]) -> None:
    """Refuse a grid that another search found, or that was found for another network.

    Where what scored it is not here, and so cannot be told, it is taken as it is.

    Raises:
        NotReadyError: It is another search's.
    """
    try:
        artefact = identity(context.card(search.artefact))
        recipe = recipe_of_search(context, search, context.utterances(context.config.dev), artefact)
    except (MissingModelError, DatasetError):
        return
    if found.get("recipe_hash") not in (None, content_hash(recipe)):
        reason = context.failure_of(f"search:{search.name}") or "`imfbench search` or `run` finds its own"
        raise NotReadyError(
            f"failed: the grid that is there was found by another search or for another network; {reason}"
        )
