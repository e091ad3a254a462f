"""The train stage: one artefact, from its recipe to weights, card and log."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from imfbench.artefact import VOCABULARY, load_artefact, locate
from imfbench.building import build_method
from imfbench.config import ExperimentConfig
from imfbench.config_file import ConfigError
from imfbench.devices import out_of_memory
from imfbench.method import Method
from imfbench.pipeline.context import Context, NotReadyError, RunError, one_line
from imfbench.pipeline.plan import Artefact, teacher_artefact
from imfbench.pipeline.reuse import RECIPE, take_training, trainings
from imfbench.plugins import source_of
from imfbench.progress import clock, log
from imfbench.registry import BACKBONES, METHODS
from imfbench.store import content_hash, file_sha256, read_json, write_bytes, write_json
from imfbench.training import CHECKPOINT, MEMORY, STATUS, TrainConfig, budget_to_steps, train

# They change when something is saved or shown, never what is learnt.
_WITHOUT_EFFECT = {"minutes", "save_every", "log_every"}


def train_artefact(context: Context, name: str) -> None:
    """Train one artefact, go on with a training that was killed, or do nothing if it is done.

    Raises:
        RunError: Memory ran out; the message says what to lower.
        NotReadyError: Its teacher is not there.
        ConfigError: The folder holds a training with other settings.
    """
    try:
        _train_artefact(context, name)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        settings = settings_of(context.config, context.plan.artefacts[name])
        raise RunError(
            f"{name}: memory ran out while training ({one_line(error)}). Lower training.frames_per_batch (now "
            f"{settings.frames_per_batch}) and raise training.accumulate (now {settings.accumulate}) by as much, which keeps the "
            "step's size; training.precision=bf16 or a smaller network need less too. With other settings it is another "
            "training: give the system another name or the run another --out. Where other programs took the memory, the same "
            "command goes on from the last checkpoint"
        ) from None


def _train_artefact(context: Context, name: str) -> None:
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
    if not (folder / CHECKPOINT).is_file() and not (folder / STATUS).is_file():
        settings = _taken_over(context, artefact, settings)
    if settings.steps is None:
        settings = _turn_minutes_into_steps(context, artefact, settings)
    recipe = recipe_of_training(context, artefact, settings)
    _check_recipe(folder, recipe)
    timed = context.config.systems[artefact.system].timed_minutes
    write_json(folder / RECIPE, {**recipe, "timed_minutes": timed})
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
        "experiment": context.config.name,
        **_inherited(context, recipe),
    }
    _announce_features(context)
    if not (folder / MEMORY).is_file():
        log.info("%s: measuring the memory of a step", name)
    with context.reporting.bar(f"train {name}", settings.steps or 1) as bar, interrupted_between_steps() as check:

        def progress(done: int, total: int, loss: float) -> None:
            bar.reach(done, total, f"loss {loss:.3g}")
            check()

        def preparing(done: int, total: int) -> None:
            bar.reach(0, note=f"{done} of {total} batches prepared")
            check()

        result = train(
            method_to_train(context, artefact, settings),
            system.method,
            context.dataset(context.config.train_data),
            settings,
            folder,
            context.device,
            card,
            progress,
            preparing=preparing,
        )
    if result.status == "ok" and recipe["teacher_sha256"] is not None:
        _take_vocabulary(context, folder)
    if result.status == "diverged":
        log.warning("%s diverged after %d steps: %s; its rows say so", name, result.steps, result.reason)


def _inherited(context: Context, recipe: dict[str, Any]) -> dict[str, Any]:
    """A student's weights are derived from its teacher's, so its card has the same licence, where one is known."""
    if recipe["teacher_sha256"] is None:
        return {}
    licence = context.card(teacher_artefact(context.config, context.plan.artefacts).name).get("licence")
    return {} if licence is None else {"licence": licence}


def _take_vocabulary(context: Context, folder: Path) -> None:
    """Lay the teacher's characters beside a student's weights, which mean nothing without them."""
    teacher = context.reference(teacher_artefact(context.config, context.plan.artefacts))
    path = locate(teacher) / VOCABULARY
    if path.is_file():
        write_bytes(folder / VOCABULARY, path.read_bytes())


@contextlib.contextmanager
def interrupted_between_steps() -> Iterator[Callable[[], None]]:
    """Let Ctrl-C and SIGTERM wait until the step is done: yields a check that raises ``KeyboardInterrupt`` if one came.

    In the middle of a step the network and its optimiser do not belong together, and must not be saved. A second Ctrl-C
    does not wait.
    """
    asked: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        log.warning("stopping after this step")

    def check() -> None:
        if asked:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield check
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def settings_of(config: ExperimentConfig, artefact: Artefact) -> TrainConfig:
    """The training settings of an artefact: the experiment's, the system's own, the artefact's seed."""
    assert artefact.system is not None
    system = config.systems[artefact.system]
    seed = {} if artefact.seed is None else {"seed": artefact.seed}
    settings = TrainConfig.model_validate({**config.training, **system.train, **seed})
    if settings.steps is None and settings.minutes is None:
        raise RunError(f"{artefact.name}: its training has no end: set training.steps or training.minutes")
    return settings


def _turn_minutes_into_steps(context: Context, artefact: Artefact, settings: TrainConfig) -> TrainConfig:
    """Time ten steps, once, and write the outcome into the run folder's experiment.yaml: repeats use the same steps."""
    assert artefact.system is not None
    begun = read_json(context.folder.artefact(artefact.name) / RECIPE) or {}
    if (
        begun.get("timed_minutes") == settings.minutes
    ):  # on record from before the experiment was changed and changed back
        steps = int(begun["training"]["steps"])
    else:
        method = method_to_train(context, artefact, settings)
        _announce_features(context)
        log.info("%s: timing ten steps", artefact.name)
        steps = budget_to_steps(method, context.dataset(context.config.train_data), settings, context.device)
        log.info("%s: %s are %d steps here", artefact.name, clock((settings.minutes or 0) * 60), steps)
    return _on_record(context, artefact, settings, steps)


def _on_record(context: Context, artefact: Artefact, settings: TrainConfig, steps: int) -> TrainConfig:
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
        steps, timed = settings.steps, recipe.pop("timed_minutes", None)
        if steps is None and timed == settings.minutes:
            steps = int(recipe["training"]["steps"])
        if steps is None or (status["status"] == "ok" and status["steps"] < steps):
            continue
        own = own or read_back(recipe_of_training(context, artefact, settings))
        if content_hash(recipe) == content_hash({**own, "training": {**own["training"], "steps": steps}}):
            take_training(context, artefact.name, there)
            same = settings.model_copy(update={"steps": steps})
            return same if settings.steps is not None else _on_record(context, artefact, settings, steps)
    return settings


def _announce_features(context: Context) -> None:
    """A line before the first use of the training data, which may take minutes without a bar."""
    data = context.config.train_data.name
    context.once(
        "features", lambda: log.info("reading %s: features of its training set are extracted on first use", data)
    )


def method_to_train(context: Context, artefact: Artefact, settings: TrainConfig) -> Method:
    """The method of an artefact before its first step, with its teacher's weights or those that it starts from."""
    assert artefact.system is not None
    system = context.config.systems[artefact.system]
    teacher = None
    if METHODS.get(system.method).needs.teacher:
        teacher = context.load(teacher_artefact(context.config, context.plan.artefacts).name)[0]
        context.forget("artefact")  # training freezes it and keeps it to itself
    network = system.network
    start = None if teacher or network.start is None else load_artefact(network.start)[0].network
    return build_method(
        system.method, system.config, teacher, network.name, network.config, settings.seed, start,
        scratch=system.start == "scratch", second_time=system.second_time,
    )  # fmt: skip


def recipe_of_training(context: Context, artefact: Artefact, settings: TrainConfig) -> dict[str, Any]:
    """Everything that decides what is learnt."""
    assert artefact.system is not None
    config, system = context.config, context.config.systems[artefact.system]
    method = METHODS.get(system.method)
    backbone = BACKBONES.get(system.network.name)
    data = context.dataset(config.train_data)
    network, teacher = system.network, None
    start = [] if network.start is None else [file_sha256(locate(network.start) / "model.safetensors")]
    if method.needs.teacher:
        reference = context.reference(teacher_artefact(config, context.plan.artefacts))
        teacher = file_sha256(locate(reference) / "model.safetensors")
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
        "training": settings.model_dump(mode="json", exclude=_WITHOUT_EFFECT),
        "train_data": {"name": config.train_data.name, "revision": data.revision, "options": config.train_data.options},
        "task": config.task,
    }


def _check_recipe(folder: Path, recipe: dict[str, Any]) -> None:
    """Refuse to take a training for another one that has the same name.

    Raises:
        ConfigError: The folder holds, or began, an artefact of another recipe; the message says in what they differ.
    """
    present = read_json(folder / RECIPE)
    if present is None:
        return
    present.pop("timed_minutes", None)  # what the steps were made of decides nothing
    if content_hash(present) == content_hash(read_back(recipe)):
        return
    here, there = _flat(read_back(recipe)), _flat(present)
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


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {k: v for key, entry in value.items() for k, v in _flat(entry, f"{path}.{key}" if path else key).items()}
    return {path: value}
