"""What an experiment is: documented defaults, checked names, a resolved form and its hash.

An experiment is short YAML; what it leaves out stands here. Training settings are documented at
``imfbench.training.TrainConfig``, those of a method or a metric at its own ``Config``.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from imfbench.config_file import ConfigError, Key, Problem, Source, override, read
from imfbench.registry import BACKBONES, DATASETS, METHODS, METRICS, VOCODERS, Registry, UnknownNameError, nearest
from imfbench.store import content_hash

TEACHER_DISTANCE = "teacher-distance"
GridSpec = str | list[float]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _one_or_more(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


def _grids(value: Any) -> Any:
    """One grid or a list of grids: a list of numbers is one grid."""
    if isinstance(value, list) and not all(isinstance(entry, int | float) for entry in value):
        return value
    return [value]


def _grid(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(entry, int | float) for entry in value):
        return [float(entry) for entry in value]
    raise ValueError("a time grid is a name such as sway, the .json file of a searched grid, or a list of points")


def _named_options(value: Any) -> Any:
    """``[wer, sim]`` and ``{wer: {model: …}}`` mean the same kind of thing: name → options."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list):
        found: dict[str, Any] = {}
        for entry in value:
            found |= entry if isinstance(entry, dict) else {entry: {}}
        return found
    return {name: options or {} for name, options in value.items()} if isinstance(value, dict) else value


def _artefact_or_block(value: Any) -> Any:
    return {"artefact": value} if isinstance(value, str) else value


def _score_weights(value: Any) -> Any:
    return {value: 1.0} if isinstance(value, str) else value


Steps = Annotated[list[Annotated[int, Field(ge=1)]], BeforeValidator(_one_or_more)]
Grids = Annotated[list[Annotated[Any, BeforeValidator(_grid)]], BeforeValidator(_grids)]


class Data(_Strict):
    """A dataset to train on."""

    name: str = "demo"
    """A registered dataset."""
    options: dict[str, Any] = {}
    """Arguments of its class, such as the folder of a dataset that does not ship."""


class Selection(Data):
    """Which utterances of which dataset."""

    split: str = "test"
    """A set of it."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """At most so many utterances, spread evenly over the speakers; all of them without it."""
    prefer_short: bool = False
    """Under a limit take each speaker's shortest utterances instead of its first ones."""


class TeacherRows(_Strict):
    """The teacher: what students start from, and rows of the leaderboard at several step counts."""

    artefact: str
    """``embedded:NAME``, a folder that holds an artefact, or the name of a system trained in this experiment."""
    nfe: Steps = [32]
    """Velocity evaluations of its rows; the largest is the reference that searches compare with."""
    grid: Grids = ["sway"]
    solver: str = "euler"
    guidance: float | None = None
    """w while sampling its rows; the artefact's own without it."""


class Search(_Strict):
    """A search for a time grid, on the development set."""

    method: str = "o3s"
    """A registered search."""
    nfe: Steps
    """Step counts that get a grid of their own."""
    score: Annotated[dict[str, float], BeforeValidator(_score_weights)] = {TEACHER_DISTANCE: 1.0}
    """What to raise: ``teacher-distance`` (minus the mel distance to the teacher's own output from the same noise), a
    metric by its name, or weights of several, such as {sim: 1, wer: -1}: what is better when lower has a negative weight."""
    config: dict[str, Any] = {}
    """The search's own settings."""


class Network(_Strict):
    """A network to train from scratch."""

    name: str = "dit"
    config: dict[str, Any] = {}


class System(_Strict):
    """One method: trained in this run or loaded, then sampled in one or more ways."""

    method: str
    """A registered method."""
    name: str | None = None
    """What tables call it; the method's name without it. Two systems need two names."""
    config: dict[str, Any] = {}
    """The method's hyper-parameters."""
    train: dict[str, Any] = {}
    """Training settings that differ from the experiment's ``training``."""
    timed_minutes: float | None = None
    """Written by a run that turned this many minutes into ``train.steps``, so that its repeats train as long."""
    seeds: Annotated[list[int], BeforeValidator(_one_or_more)] | None = None
    """Training seeds, one artefact each; ``training.seed`` without it."""
    network: Network = Network()
    """The network of a method that starts from scratch; one with a teacher starts from the teacher's."""
    artefact: str | None = None
    """A ready artefact (``embedded:NAME`` or a folder): nothing is trained."""
    nfe: Steps = []
    """Velocity evaluations per sample, one row of the leaderboard each."""
    grid: Grids = ["uniform"]
    """Time grids: names, ``[0, 0.65, 1]``, or the .json file of a searched grid."""
    solver: str = "euler"
    search: Search | None = None

    @property
    def label(self) -> str:
        """The name in tables."""
        return self.name or self.method


class ExperimentConfig(_Strict):
    """An experiment."""

    name: str
    """Names the run folder: ``runs/<name>``."""
    task: Literal["token2mel"] = "token2mel"
    dataset: Selection = Selection()
    """The test set."""
    dev: Selection = Selection(split="dev", limit=8, prefer_short=True)
    """What searches may look at."""
    train_data: Data = Data()
    """What is trained on; the same for every system."""
    references: list[Literal["ground-truth", "vocoded-ground-truth"]] = ["ground-truth", "vocoded-ground-truth"]
    teacher: Annotated[TeacherRows, BeforeValidator(_artefact_or_block)] | None = None
    training: dict[str, Any] = {}
    """Training settings of all systems (``imfbench.training.TrainConfig``): the same data and time for each."""
    systems: list[System] = []
    metrics: Annotated[dict[str, dict[str, Any]], BeforeValidator(_named_options)] = {
        "wer": {},
        "sim": {},
        "mos": {},
        "f0cv": {},
    }
    vocoder: str = "hifigan"
    noise_seeds: Annotated[list[int], BeforeValidator(_one_or_more)] = [0]
    """Seeds of the initial noise; each is a row of its own, averaged per utterance before anything is compared."""
    device: str = "auto"
    threads: Annotated[int, Field(ge=1)] | None = None
    """CPU threads; the cores that this process may use without it. Fewer is faster on a busy machine."""
    precision: Literal["auto", "bf16", "fp32"] = "fp32"
    """Of sampling; training has its own."""
    overwrite: Literal["only-missing", "always", "only-cache"] = "only-missing"
    """``always`` samples and scores again; ``only-cache`` scores from the cache alone and leaves out what it lacks."""
    score_cache: str | None = None
    """Folder of the score cache; the user's cache folder without it."""

    def dump(self) -> str:
        """The resolved experiment as YAML: reading it gives an equal experiment."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)

    @property
    def hash(self) -> str:
        """sha256 of everything that decides the figures (not: name, device, threads, caches)."""
        decides = self.model_dump(mode="json", exclude={"name", "device", "threads", "overwrite", "score_cache"})
        return content_hash(decides)


def load(config: str, settings: tuple[str, ...] = ()) -> ExperimentConfig:
    """The experiment of a file or a shipped name, with ``--set`` settings applied, every name in it checked.

    Raises:
        ConfigError: All that is wrong, each with its file and line and the nearest right word.
    """
    source = read(config)
    override(source, settings)
    return check(source)


def check(source: Source) -> ExperimentConfig:
    """Validate a configuration that was read; raises as ``load`` does."""
    source.values.setdefault("name", Path(source.name).stem)
    try:
        found = ExperimentConfig.model_validate(source.values)
    except ValidationError as error:
        raise source.error(problems(error, (), source.values, ExperimentConfig)) from None
    wrong = _check_names(found)
    if not wrong:
        wrong = _check_options(found)
    if wrong:
        raise source.error(wrong)
    return found


def problems(error: ValidationError, base: Key, values: Any, model: type[BaseModel]) -> list[Problem]:
    """pydantic's complaints in words, with the nearest key for an unknown one."""
    found = []
    for entry in error.errors():
        path: Key = ()
        at, owner = values, model
        for part in entry["loc"]:
            # Unions put their own names into the path, where the author's values have nothing of that name.
            inside = (isinstance(at, dict) and part in at) or (isinstance(at, list) and isinstance(part, int))
            missing = entry["type"] == "missing" and part == entry["loc"][-1]
            if not inside and not missing:
                continue
            path = (*path, part)
            at = at[part] if inside else None
            if part != entry["loc"][-1]:
                owner = _model_below(owner, part)
        if entry["type"] == "extra_forbidden":
            known = [field.alias or name for name, field in owner.model_fields.items()]
            message = f"unknown key {entry['loc'][-1]!r}: {nearest(str(entry['loc'][-1]), known)}"
            path = (*base, *path)
        elif entry["type"] == "missing":
            message = f"the key {entry['loc'][-1]!r} is needed here"
            path = (*base, *path[:-1])
        else:
            message = entry["msg"].removeprefix("Value error, ") + f" (found {entry['input']!r})"
            path = (*base, *path)
        found.append(Problem(path, message))
    return found


def _model_below(model: type[BaseModel], part: Any) -> type[BaseModel]:
    """The model that validates the value under ``part``; lists and optional values are looked through."""
    field = model.model_fields.get(part) if isinstance(part, str) else None
    if field is None:
        return model
    waiting: list[Any] = [field.annotation]
    while waiting:
        annotation = waiting.pop()
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            return annotation
        waiting += getattr(annotation, "__args__", ())
    return model


def _check_names(config: ExperimentConfig) -> list[Problem]:
    from imfbench.flow.solvers import SOLVERS

    found: list[Problem] = []

    def known(registry: Registry[Any], name: str, path: Key) -> None:
        if name not in registry:
            found.append(Problem(path, f"unknown {registry.kind} {name!r}: {nearest(name, registry.names())}"))

    for key in ("dataset", "dev", "train_data"):
        known(DATASETS, getattr(config, key).name, (key, "name"))
    known(VOCODERS, config.vocoder, ("vocoder",))
    for name in config.metrics:
        known(METRICS, name, ("metrics", name))
    solvers: list[tuple[str, Key]] = [(s.solver, ("systems", i, "solver")) for i, s in enumerate(config.systems)]
    if config.teacher is not None:
        solvers.append((config.teacher.solver, ("teacher", "solver")))
    for name, path in solvers:
        if name not in SOLVERS:
            found.append(Problem(path, f"unknown solver {name!r}: {nearest(name, list(SOLVERS))}"))
    labels: dict[str, int] = {}
    for i, system in enumerate(config.systems):
        known(METHODS, system.method, ("systems", i, "method"))
        known(BACKBONES, system.network.name, ("systems", i, "network", "name"))
        if not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", system.label):
            found.append(
                Problem(("systems", i, "name"), f"{system.label!r} names a folder: use letters, digits and . _ + -")
            )
        if system.label in labels:
            message = f"systems {labels[system.label]} and {i} are both called {system.label!r}: give one a `name`"
            found.append(Problem(("systems", i), message))
        if system.label in ("teacher", "ground-truth", "vocoded-ground-truth") and config.teacher is not None:
            found.append(Problem(("systems", i), f"{system.label!r} is the name of a reference row: give a `name`"))
        labels.setdefault(system.label, i)
        if system.search is not None:
            known(METHODS, system.search.method, ("systems", i, "search", "method"))
            scores = [TEACHER_DISTANCE, *METRICS.names()]
            for name in system.search.score:
                if name not in scores:
                    found.append(
                        Problem(("systems", i, "search", "score"), f"unknown score {name!r}: {nearest(name, scores)}")
                    )
    return found


def _check_options(config: ExperimentConfig) -> list[Problem]:
    """Settings whose models live elsewhere: training, methods, searches, networks, metrics, grids; and what needs what."""
    from imfbench.training import TrainConfig

    found: list[Problem] = []

    def valid(model: type[BaseModel], values: dict[str, Any], path: Key) -> None:
        try:
            model.model_validate(values)
        except ValidationError as error:
            found.extend(problems(error, path, values, model))

    for key in ("dataset", "dev", "train_data"):
        data: Data = getattr(config, key)
        known = list(inspect.signature(DATASETS.get(data.name)).parameters)
        for name in data.options:
            if name not in known:
                found.append(
                    Problem(
                        (key, "options", name), f"dataset {data.name!r} has no option {name!r}: {nearest(name, known)}"
                    )
                )
    valid(TrainConfig, config.training, ("training",))
    for name, options in config.metrics.items():
        valid(METRICS.get(name).Config, options, ("metrics", name))
    if config.teacher is not None:
        found += _check_sampling(config.teacher, ("teacher",))
    for i, system in enumerate(config.systems):
        path: Key = ("systems", i)
        method = METHODS.get(system.method)
        if not found:  # what is wrong in ``training`` is told once
            valid(TrainConfig, {**config.training, **system.train}, (*path, "train"))
        valid(method.Config, system.config, (*path, "config"))
        valid(BACKBONES.get(system.network.name).Config, system.network.config, (*path, "network", "config"))
        found += _check_sampling(system, path)
        if system.artefact is None and not method.needs.training:
            found.append(
                Problem((*path, "method"), f"{system.method!r} is a search: it stands under a system's `search`")
            )
        if system.artefact is None and method.needs.teacher and config.teacher is None:
            found.append(
                Problem((*path, "method"), f"{system.method!r} needs a `teacher`, for instance embedded:token2mel")
            )
        if system.search is not None:
            search = METHODS.get(system.search.method)
            valid(search.Config, system.search.config, (*path, "search", "config"))
            if search.needs.training:
                found.append(
                    Problem((*path, "search", "method"), f"{system.search.method!r} is trained, it searches no grid")
                )
            found += _check_score(system.search.score, (*path, "search", "score"))
            if TEACHER_DISTANCE in system.search.score and config.teacher is None:
                found.append(Problem((*path, "search", "score"), f"{TEACHER_DISTANCE} needs a `teacher`"))
    return found


def _check_score(score: dict[str, float], path: Key) -> list[Problem]:
    found = []
    for name, weight in score.items():
        higher = True if name == TEACHER_DISTANCE else METRICS.get(name).higher_is_better
        if higher is None:
            found.append(Problem(path, f"{name!r} is better in neither direction: a search cannot aim at it"))
        elif weight == 0 or (weight > 0) != higher:
            better, right = ("higher", abs(weight) or 1) if higher else ("lower", -(abs(weight) or 1))
            told = f"a search raises its score, and {name!r} is better when {better}: write {{{name}: {right:g}}}"
            found.append(Problem(path, told))
    return found


def _check_sampling(rows: TeacherRows | System, path: Key) -> list[Problem]:
    from imfbench.flow.grids import GridError
    from imfbench.pipeline.plan import grid_for

    found = []
    for nfe in rows.nfe:
        for grid in rows.grid:
            try:
                grid_for(grid, nfe, rows.solver)
            except (GridError, ConfigError, UnknownNameError) as error:
                found.append(Problem((*path, "grid"), str(error)))
    return found
