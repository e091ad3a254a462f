"""The train stage: one artefact, from its recipe to weights, card and log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from imfbench.artefact import VOCABULARY, VOCABULARY_SHA256, WEIGHTS, locate, vocabulary_sha256
from imfbench.config import ExperimentConfig
from imfbench.config_file import ConfigError
from imfbench.pipeline.context import Context, NotReadyError, RunError
from imfbench.pipeline.plan import Artefact, teacher_artefact
from imfbench.pipeline.reuse import RECIPE, take_training, trainings
from imfbench.pipeline.train_task import TrainTask, check_processes, fitted
from imfbench.plugins import source_of
from imfbench.progress import clock, log
from imfbench.registry import BACKBONES, METHODS
from imfbench.store import content_hash, file_sha256, read_json, write_bytes, write_json
from imfbench.train_settings import TrainConfig
from imfbench.training import CHECKPOINT, MEMORY, STATUS

FITTED = "fitted"
"""In a recipe's file: what ``training.memory`` led to. No part of the recipe."""


def train_artefact(context: Context, name: str) -> None:
    """Train one artefact, go on with a training that was killed, or do nothing if it is done.

    Raises:
        RunError: Memory ran out, or a process of the training was killed; the message says what to do.
        NotReadyError: Its teacher is not there.
        ConfigError: The folder holds a training with other settings.
    """
    settings, recipe = settled(context, name)
    artefact, folder = context.plan.artefacts[name], context.folder.artefact(name)
    assert artefact.system is not None
    assert settings.steps is not None
    status = read_json(folder / "status.json") or {}
    if status.get("status") == "diverged" or (
        status.get("status") == "ok" and status.get("steps", 0) >= settings.steps
    ):
        return
    system = context.config.systems[artefact.system]
    card = {
        "name": name,
        "method": system.method,
        "method_config": recipe["method_config"],
        "task": context.config.task,
        "train_data": recipe["train_data"],
        "teacher_sha256": recipe["teacher_sha256"],
        **{key: recipe[key] for key in (VOCABULARY_SHA256,) if key in recipe},
        "experiment": context.config.name,
        **_inherited(context, recipe),
    }
    _take_vocabulary(context, folder, recipe)
    _announce_features(context)
    if settings.warmup > settings.steps / 4 and not begun(folder):
        log.warning(
            "%s: the learning rate warms up over %d of %d steps, which favours the longer of two trainings: see training.warmup",
            name, settings.warmup, settings.steps,
        )  # fmt: skip
    if not (folder / MEMORY).is_file():
        log.info("%s: measuring the memory of a step", name)
    with context.reporting.bar(f"train {name}", settings.steps) as bar:
        result = TrainTask("train", name, settings, card).carry_out(context, bar)
    if result.status == "diverged":
        log.warning("%s diverged after %d steps: %s; its rows say so", name, result.steps, result.reason)


def settled(context: Context, name: str) -> tuple[TrainConfig, dict[str, Any]]:
    """What stands before the first step: the teacher, batches that fit into memory, minutes as steps; the recipe is on record.

    Returns:
        The settings with their steps, and the recipe.

    Raises:
        RunError: Memory ran out, or a process of the training was killed; the message says what to do.
        NotReadyError: Its teacher is not there.
        ConfigError: The folder holds a training with other settings.
    """
    artefact = context.plan.artefacts[name]
    assert artefact.system is not None
    if METHODS.get(context.config.systems[artefact.system].method).needs.teacher:
        teacher = teacher_artefact(context.config, context.plan.artefacts)
        try:
            if teacher.ready is None:
                context.check_trained(teacher.name)
        except NotReadyError as error:
            raise NotReadyError(f"no teacher to learn from: {teacher.name}: {error}") from None
    folder = context.folder.artefact(name)
    settings = settings_of(context.config, artefact)
    check_processes(context.config, settings, context.device)
    settings, fit = fitted(context, name, settings, (read_json(folder / RECIPE) or {}).get(FITTED) or {})
    if not (folder / CHECKPOINT).is_file() and not (folder / STATUS).is_file():
        settings = _taken_over(context, artefact, settings)
    if settings.steps is None:
        settings = _turn_minutes_into_steps(context, artefact, settings)
    recipe = recipe_of_training(context, artefact, settings)
    _check_recipe(folder, recipe)
    timed = context.config.systems[artefact.system].timed_minutes
    write_json(folder / RECIPE, {**recipe, "timed_minutes": timed, **({FITTED: fit} if fit else {})})
    return settings, recipe


def begun(folder: Path) -> bool:
    """Whether there is anything of a training but its recipe, which stands as soon as its steps are known."""
    return any((folder / name).is_file() for name in (MEMORY, CHECKPOINT, STATUS))


def _inherited(context: Context, recipe: dict[str, Any]) -> dict[str, Any]:
    """A student's weights are derived from its teacher's, so its card has the same licence, where one is known."""
    if recipe["teacher_sha256"] is None:
        return {}
    licence = context.card(teacher_artefact(context.config, context.plan.artefacts).name).get("licence")
    return {} if licence is None else {"licence": licence}


def _take_vocabulary(context: Context, folder: Path, recipe: dict[str, Any]) -> None:
    """Lay the teacher's characters where a student's weights will be, which mean nothing without them.

    Before the training: a run that is killed right behind it would leave a student without characters.
    """
    if VOCABULARY_SHA256 in recipe:
        teacher = context.reference(teacher_artefact(context.config, context.plan.artefacts))
        write_bytes(folder / VOCABULARY, (locate(teacher) / VOCABULARY).read_bytes())


def settings_of(config: ExperimentConfig, artefact: Artefact) -> TrainConfig:
    """The training settings of an artefact: the experiment's, the system's own, the artefact's seed."""
    assert artefact.system is not None
    system = config.systems[artefact.system]
    seed = {} if artefact.seed is None else {"seed": artefact.seed}
    settings = TrainConfig.model_validate({**config.training_of(system), **seed})
    if settings.steps is None and settings.minutes is None:
        raise RunError(f"{artefact.name}: its training has no end: set training.steps or training.minutes")
    return settings


def _turn_minutes_into_steps(context: Context, artefact: Artefact, settings: TrainConfig) -> TrainConfig:
    """Time ten steps, once, and write the outcome into the run folder's experiment.yaml: repeats use the same steps."""
    assert artefact.system is not None
    folder = context.folder.artefact(artefact.name)
    present = (read_json(folder / RECIPE) if begun(folder) else None) or {}
    if (
        present.get("timed_minutes") == settings.minutes
    ):  # on record from before the experiment was changed and changed back
        steps = int(present["training"]["steps"])
        same = settings.model_copy(update={"steps": steps})
        _check_recipe(folder, recipe_of_training(context, artefact, same))
    else:
        _announce_features(context)
        log.info("%s: timing ten steps, with no other job of this run beside them", artefact.name)
        steps = int(TrainTask("time", artefact.name, settings).carry_out(context))
        log.info("%s: %s are %d steps here", artefact.name, clock((settings.minutes or 0) * 60), steps)
    return on_record(context, artefact, settings, steps)


def on_record(context: Context, artefact: Artefact, settings: TrainConfig, steps: int) -> TrainConfig:
    """The settings with the steps that their minutes have become, written into experiment.yaml."""
    assert artefact.system is not None
    systems = list(context.config.systems)
    system = systems[artefact.system]
    systems[artefact.system] = system.model_copy(
        update={"train": {**system.train, "steps": steps}, "timed_minutes": settings.minutes}
    )
    context.record(context.config.model_copy(update={"systems": systems}))
    return settings.model_copy(update={"steps": steps})


def _taken_over(context: Context, artefact: Artefact, settings: TrainConfig) -> TrainConfig:
    """The settings, after an equal training of this run, if there is one, was taken over: with its steps."""
    own: dict[str, Any] = {}
    for there, recipe, status in trainings(context.folder):
        steps, timed, _ = settings.steps, recipe.pop("timed_minutes", None), recipe.pop(FITTED, None)
        if steps is None and timed == settings.minutes:
            steps = int(recipe["training"]["steps"])
        if steps is None or (status["status"] == "ok" and status["steps"] < steps):
            continue
        own = own or read_back(recipe_of_training(context, artefact, settings))
        if content_hash(recipe) == content_hash({**own, "training": {**own["training"], "steps": steps}}):
            take_training(context, artefact.name, there)
            same = settings.model_copy(update={"steps": steps})
            return same if settings.steps is not None else on_record(context, artefact, settings, steps)
    return settings


def _announce_features(context: Context) -> None:
    """A line before the first use of the training data, which may take minutes without a bar."""
    data = context.config.train_data.name
    context.once(
        "features", lambda: log.info("reading %s: features of its training set are extracted on first use", data)
    )


def recipe_of_training(context: Context, artefact: Artefact, settings: TrainConfig) -> dict[str, Any]:
    """Everything that decides what is learnt."""
    assert artefact.system is not None
    config, system = context.config, context.config.systems[artefact.system]
    method = METHODS.get(system.method)
    backbone = BACKBONES.get(system.network.name)
    data = context.dataset(config.train_data)
    network, teacher, characters = system.network, None, None
    start: list[str] = []
    if network.start is not None:
        known = vocabulary_sha256(network.start)
        start = [file_sha256(locate(network.start) / WEIGHTS), *([] if known is None else [known])]
    if method.needs.teacher:
        reference = context.reference(teacher_artefact(config, context.plan.artefacts))
        teacher, characters = file_sha256(locate(reference) / WEIGHTS), vocabulary_sha256(reference)
    # What ships is pinned by the release; a plug-in's file is changed all the time, and then its training is another one.
    plugins = [source_of("method", system.method), source_of("backbone", system.network.name)]
    sources = sorted({str(plugin.sha256) for plugin in plugins if plugin is not None})
    return {
        **({"plugin_sha256": sources} if sources else {}),
        **system.beginning,  # the usual one is in no recipe: trainings from before there was another stay what they are
        "method": system.method,
        "method_config": method.Config(**system.config).model_dump(mode="json"),
        # A student has its teacher's network.
        "network": None
        if teacher
        else [network.name, backbone.Config(**network.config).model_dump(mode="json"), *start],
        "teacher_sha256": teacher,
        # What the teacher's contents mean decides what a student learns; a network of other contents has no such entry.
        **({} if characters is None else {VOCABULARY_SHA256: characters}),
        "training": settings.decisive("minutes", "memory"),
        "train_data": {"name": config.train_data.name, "revision": data.revision, "options": config.train_data.options},
        "task": config.task,
    }


def _check_recipe(folder: Path, recipe: dict[str, Any]) -> None:
    """Refuse to take a training for another one that has the same name.

    Raises:
        ConfigError: The folder holds, or began, an artefact of another recipe; the message says in what they differ.
    """
    present = read_json(folder / RECIPE)
    if present is None or not begun(folder):
        return
    for made_of in ("timed_minutes", FITTED):  # what steps and frames were made of decides nothing
        present.pop(made_of, None)
    if content_hash(present) == content_hash(read_back(recipe)):
        return
    here, there = flat(read_back(recipe)), flat(present)
    keys = sorted(key for key in {*here, *there} if here.get(key) != there.get(key))
    told = ", ".join(f"{key} {there.get(key)!r} → {here.get(key)!r}" for key in keys[:4])
    raise ConfigError(
        f"{folder} holds a training with other settings ({told}); give the system another name, this run another folder "
        "with --out, or remove that folder"
    )


def read_back(value: Any) -> Any:
    """A value as JSON gives it back: tuples are lists there."""
    if isinstance(value, dict):
        return {key: read_back(entry) for key, entry in value.items()}
    return [read_back(entry) for entry in value] if isinstance(value, list | tuple) else value


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """The values of nested settings by their dotted names."""
    if isinstance(value, dict):
        return {k: v for key, entry in value.items() for k, v in flat(entry, f"{path}.{key}" if path else key).items()}
    return {path: value}
