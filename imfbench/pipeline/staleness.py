"""What a run folder holds of an experiment that was edited since: its networks and grids are not those of the new settings."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from imfbench.artefact import ArtefactError, identity
from imfbench.config import System
from imfbench.config_file import ConfigError
from imfbench.data import DatasetError
from imfbench.pipeline.context import Context, NotReadyError, RunError
from imfbench.pipeline.plan import Artefact, GridSearch, teacher_artefact
from imfbench.pipeline.reuse import RECIPE
from imfbench.pipeline.search import recipe_of_search
from imfbench.pipeline.train import FITTED, flat, read_back, settings_of
from imfbench.registry import BACKBONES, METHODS
from imfbench.store import read_json
from imfbench.train_settings import TrainConfig
from imfbench.weights import MissingModelError


def check_training(context: Context, name: str) -> None:
    """Refuse a network that was trained by other settings than the experiment has now.

    What is on record and asked for is compared: settings of later versions are in no older record. Data that were moved are the
    same if their revision is, and are taken as they are where they cannot be opened. What a plug-in's file says, and what fitting
    batches into memory came to, is compared by `imfbench train` alone.

    Raises:
        NotReadyError: It was; the message says in what they differ.
    """
    record = read_json(Path(context.folder.artefact(name)) / RECIPE)
    artefact = context.plan.artefacts[name]
    if record is None or artefact.system is None:
        return
    here, there = flat(read_back(_asked(context, artefact, record))), flat(_recorded(record))
    differ = [key for key in here if key in there and here[key] != there[key]]
    data = context.config.train_data
    if _moved(context, data.options, (record.get("train_data") or {})):
        differ.append("train_data.options")
        here["train_data.options"], there["train_data.options"] = data.options, record["train_data"]["options"]
    if differ:
        told = ", ".join(f"{key} {there[key]!r}, now {here[key]!r}" for key in differ[:4])
        raise NotReadyError(
            f"failed: {name} was trained with other settings ({told}): give the system another name, the run another folder with "
            "--out, or remove that training"
        )


_LATER = {key: TrainConfig.model_fields[key].default for key in ("compile", "teacher_dtype")}
"""Settings that are on record only where they are not at their default."""
_BEGINNING = {key: System.model_fields[key].default for key in ("start", "second_time")}


def _asked(context: Context, artefact: Artefact, record: dict[str, Any]) -> dict[str, Any]:
    assert artefact.system is not None
    config, system = context.config, context.config.systems[artefact.system]
    asked: dict[str, Any] = {
        **_BEGINNING,
        **system.beginning,
        "method": system.method,
        "task": config.task,
        "train_data": {"name": config.train_data.name},
    }
    if system.method in METHODS:
        method = METHODS.get(system.method)
        asked["method_config"] = method.Config(**system.config).model_dump(mode="json")
        if method.needs.teacher:
            with contextlib.suppress(NotReadyError, ArtefactError):  # its own rows say what it lacks
                asked["teacher_sha256"] = context.card(teacher_artefact(config, context.plan.artefacts).name)["sha256"]
        elif system.network.name in BACKBONES:
            backbone = BACKBONES.get(system.network.name).Config(**system.network.config)
            asked["network"] = {"name": system.network.name, "config": backbone.model_dump(mode="json")}
    with contextlib.suppress(RunError):  # a training without an end is none
        settings = settings_of(config, artefact)
        training = {**_LATER, **settings.decisive("minutes", "memory")}
        if settings.steps is None:  # minutes, which became steps when it was trained
            training.pop("steps", None)
            asked["timed_minutes"] = settings.minutes
        if record.get(FITTED):
            training = {key: value for key, value in training.items() if key not in ("frames_per_batch", "accumulate")}
        asked["training"] = training
    return asked


def _recorded(record: dict[str, Any]) -> dict[str, Any]:
    network = record.get("network")
    known = {} if network is None else {"network": {"name": network[0], "config": network[1]}}
    return {**_BEGINNING, **record, "training": {**_LATER, **record.get("training", {})}, "network": None, **known}


def _moved(context: Context, options: dict[str, Any], record: dict[str, Any]) -> bool:
    """Whether the training data's options make them others: those that are texts may be places, of which the revision tells."""
    before, now = record.get("options") or {}, read_back(options)
    differ = [key for key in {*before, *now} if before.get(key) != now.get(key)]
    if not differ:
        return False
    if not all(isinstance(side.get(key), str) for key in differ for side in (before, now)):
        return True
    try:
        found: bool = context.dataset(context.config.train_data).revision != record.get("revision")
    except (DatasetError, ConfigError, OSError):
        return False
    return found


def check_grid(context: Context, search: GridSearch, found: dict[str, Any]) -> None:
    """Refuse a grid that another search found, or that was found for another network.

    The search's settings, what it sampled, its score, teacher and development set are compared, as far as they are on record;
    versions of scorers, and what they computed in, are compared by `imfbench search` alone.

    Raises:
        NotReadyError: It is another search's.
    """
    before = found.get("recipe") or {}
    try:
        artefact = identity(context.card(search.artefact))
        now = read_back(recipe_of_search(context, search, context.utterances(context.config.dev), artefact))
    except (MissingModelError, DatasetError):  # what scored it is not here
        return
    for recipe in (before, now):  # without the utterances: a limit of a later command is none of the search's
        recipe["dev"] = list(recipe.get("dev") or [])[:3]
    keys = ("search", "config", "nfe", "solver", "score", "artefact_sha256", "teacher", "dev", "noise_seed")
    here, there = (flat({key: recipe.get(key) for key in keys if key in before}) for recipe in (now, before))
    if differ := [key for key in here if key in there and here[key] != there[key]]:
        reason = context.failure_of(f"search:{search.name}") or "`imfbench search` or `run` finds its own"
        told = f"another search or for another network ({', '.join(differ[:4])})"
        raise NotReadyError(f"failed: the grid that is there was found by {told}; {reason}")
