"""Checking an experiment: every name against its registry, every setting against its model, and what needs what."""

from __future__ import annotations

import contextlib
import re
from typing import Any

from pydantic import BaseModel, ValidationError

from imfbench.config import TEACHER_DISTANCE, Data, ExperimentConfig, Search, System, TeacherRows
from imfbench.config_file import ConfigError, Key, Problem
from imfbench.inputs import common_inputs
from imfbench.plugins import left_out, source_of
from imfbench.registry import (
    BACKBONES,
    DATASETS,
    METHODS,
    METRICS,
    REPORTS,
    VOCODERS,
    BrokenEntryError,
    Registry,
    UnknownNameError,
    nearest,
)
from imfbench.sets import options_problem

ROWS = ("teacher", "ground-truth", "vocoded-ground-truth")


def problems(error: ValidationError, base: Key, values: Any, model: type[BaseModel]) -> list[Problem]:
    """pydantic's complaints in words, with the nearest key for an unknown one."""
    found = []
    for entry in error.errors():
        path: Key = ()
        at, owner = values, model
        for part in entry["loc"]:
            # Unions put their own names into the path, where the author's values have nothing of that name.
            inside = (isinstance(at, dict) and part in at) or (
                isinstance(at, list) and isinstance(part, int) and part < len(at)
            )
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


def margin_problem(name: str) -> str | None:
    """What is wrong with a margin's name, that of a metric or of a column; a figure whose direction says nothing has none."""
    metrics: dict[str, Any] = {}
    for metric in METRICS.names():
        with contextlib.suppress(BrokenEntryError):
            metrics[metric] = METRICS.get(metric)
    # Of a metric that ships the first column is the figure that is compared; WER's others stand beside it.
    figures = {
        metric: cls.summary_columns[: None if source_of("metric", metric) else 1] for metric, cls in metrics.items()
    }
    owner = metrics.get(name) or next((cls for metric, cls in metrics.items() if name in figures[metric]), None)
    if owner is None:
        columns = [column for names in figures.values() for column in names if column.startswith("mos_")]
        return f"no figure {name!r} to have a margin: {left_out(name, nearest(name, [*metrics, *columns]))}"
    if owner.higher_is_better is None:
        return f"{name} is neither better high nor low: it can have no margin"
    return None


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


def _has_settings(registry: Registry[Any], name: str) -> bool:
    try:
        return isinstance(getattr(registry.get(name), "Config", None), type)
    except BrokenEntryError:
        return True  # which is told in its own words


def check_names(config: ExperimentConfig) -> list[Problem]:
    """Names that no registry knows, and names that are given twice."""
    from imfbench.flow.solvers import SOLVERS

    found: list[Problem] = []

    def known(registry: Registry[Any], name: str, path: Key) -> None:
        if name not in registry:
            found.append(Problem(path, registry.unknown(name)))
        elif registry in (METHODS, METRICS, BACKBONES) and not _has_settings(registry, name):
            told = f"the {registry.kind} {name!r} has no class `Config` of its settings: see `imfbench check --plugin FILE`"
            found.append(Problem(path, told))

    for data, path in _data(config):
        known(DATASETS, data.name, (*path, "name"))
    sets: dict[str, int] = {}
    for i, data in enumerate(config.dataset):
        same = sets.setdefault(repr((data.name, data.split, sorted(data.options.items()))), i)
        if same != i:
            message = f"the set {data.name}/{data.split} stands twice, with the same options: leave one out"
            found.append(Problem(("dataset", i), message))
    known(VOCODERS, config.vocoder, ("vocoder",))
    for name in config.reports:
        known(REPORTS, name, ("reports", name))
    for name in config.metrics:
        known(METRICS, name, ("metrics", name))
    found += [Problem(("margins", name), text) for name in config.margins if (text := margin_problem(name))]
    solvers: list[tuple[str, Key]] = [(s.solver, ("systems", i, "solver")) for i, s in enumerate(config.systems)]
    if config.teacher is not None:
        solvers.append((config.teacher.solver, ("teacher", "solver")))
    for name, path in solvers:
        if name not in SOLVERS:
            found.append(Problem(path, f"unknown solver {name!r}: {nearest(name, list(SOLVERS))}"))
    labels: dict[str, int] = {}
    for i, recordings in enumerate(config.recordings):
        at: Key = ("recordings", i, "name")
        if not re.fullmatch(r"[^\W_][\w.+-]*", recordings.name):
            found.append(Problem(at, f"{recordings.name!r} is a system's name: use letters, digits and . _ + -"))
        if recordings.name in (*[r.name for r in config.recordings[:i]], *(s.label for s in config.systems), *ROWS):
            found.append(Problem(at, f"{recordings.name!r} is the name of another row: give another `name`"))
    if config.baseline is not None and config.baseline not in [r.name for r in config.recordings]:
        names = [r.name for r in config.recordings]
        message = f"unknown baseline {config.baseline!r}: {nearest(config.baseline, names)}"
        found.append(Problem(("baseline",), message if names else "a baseline needs `recordings`"))
    if config.task == "speech" and (config.systems or config.teacher is not None):
        found.append(Problem(("task",), "the task speech samples nothing: leave out `systems` and `teacher`"))
    for i, system in enumerate(config.systems):
        known(METHODS, system.method, ("systems", i, "method"))
        known(BACKBONES, system.network.name, ("systems", i, "network", "name"))
        if not re.fullmatch(r"[A-Za-z0-9][\w.+=-]*", system.label):
            found.append(
                Problem(("systems", i, "name"), f"{system.label!r} names a folder: use letters, digits and . _ + - =")
            )
        if system.label in labels:
            message = f"systems {labels[system.label]} and {i} are both called {system.label!r}: give one a `name`"
            found.append(Problem(("systems", i), message))
        if system.label in ROWS and config.teacher is not None:
            found.append(Problem(("systems", i), f"{system.label!r} is the name of a reference row: give a `name`"))
        labels.setdefault(system.label, i)
        searches = [search.label for search, _ in _searches(system, i)]
        for search, path in _searches(system, i):
            known(METHODS, search.method, (*path, "method"))
            if searches.count(search.label) > 1:
                message = f"two searches of {system.label!r} are called {search.label!r}: give one a `name`"
                found.append(Problem(path, message))
            scores = [TEACHER_DISTANCE, *METRICS.names()]
            for name in search.score:
                if name not in scores:
                    told = f"unknown score {name!r}: {left_out(name, nearest(name, scores))}"
                    found.append(Problem((*path, "score"), told))
    return found


def check_options(config: ExperimentConfig) -> list[Problem]:
    """Settings whose models live elsewhere: training, methods, searches, networks, metrics, grids; and what needs what."""
    from imfbench.training import TrainConfig

    found: list[Problem] = []

    def valid(model: type[BaseModel], values: dict[str, Any], path: Key) -> None:
        try:
            model.model_validate(values)
        except ValidationError as error:
            found.extend(problems(error, path, values, model))

    for data, path in _data(config):
        wrong, told = options_problem(data.name, data.options)
        if told:
            found.append(Problem((*path, "options", *([wrong] if wrong in data.options else [])), told))
    valid(TrainConfig, config.training, ("training",))
    for name, options in config.metrics.items():
        valid(METRICS.get(name).Config, options, ("metrics", name))
    for name, options in config.reports.items():
        model = getattr(REPORTS.get(name), "Config", None) if options else None
        if model is not None:
            valid(model, options, ("reports", name))
        elif options:
            found.append(Problem(("reports", name), f"the report {name!r} has no options"))
    if config.teacher is not None:
        found += _check_sampling(config.teacher, ("teacher",))
    for i, system in enumerate(config.systems):
        path = ("systems", i)
        method = METHODS.get(system.method)
        if not found:  # what is wrong in ``training`` is told once
            valid(TrainConfig, config.training_of(system), (*path, "train"))
        valid(method.Config, system.config, (*path, "config"))
        fits = len(found)
        valid(BACKBONES.get(system.network.name).Config, system.network.config, (*path, "network", "config"))
        if len(found) == fits and system.artefact is None and not method.needs.teacher:
            found += _check_network(config, system, (*path, "network"))
        found += _check_sampling(system, path)
        if system.artefact is None and not method.needs.training:
            found.append(
                Problem((*path, "method"), f"{system.method!r} is a search: it stands under a system's `search`")
            )
        if system.artefact is None and method.needs.teacher and len(found) == fits:
            found += _check_guidance(config, system, (*path, "config"))
        found += _check_idle(config, system, path)
        if system.artefact is None and method.needs.teacher and config.teacher is None:
            found.append(
                Problem((*path, "method"), f"{system.method!r} needs a `teacher`, for instance embedded:token2mel")
            )
        for search, path in _searches(system, i):
            searching = METHODS.get(search.method)
            valid(searching.Config, search.config, (*path, "config"))
            if searching.needs.training:
                found.append(Problem((*path, "method"), f"{search.method!r} is trained, it searches no grid"))
            found += _check_score(search.score, (*path, "score"))
            if TEACHER_DISTANCE in search.score and (config.teacher is None or not config.teacher.nfe):
                lacks = "a `teacher`" if config.teacher is None else "the teacher's own output: set teacher.nfe"
                found.append(Problem((*path, "score"), f"{TEACHER_DISTANCE} needs {lacks}"))
    return found


def _check_network(config: ExperimentConfig, system: System, path: Key) -> list[Problem]:
    """A network to be trained: of the task, of its mel's bands, and with a vocoder that takes what it makes."""
    from imfbench.pipeline.networks import checked_inputs

    network = system.network
    try:
        inputs = checked_inputs(network.name, network.config, config.task)
    except ConfigError as error:
        return [Problem(path, str(error))]
    try:
        common_inputs({f"{network.name!r} of {system.label}": inputs}, config.vocoder)
    except ConfigError as error:
        return [Problem(("vocoder",), str(error))]
    return []


def _check_guidance(config: ExperimentConfig, system: System, path: Key) -> list[Problem]:
    """A teacher with guidance in its weights, and a student that would guide it again. One that cannot be read is told later."""
    from imfbench.artefact import read_settings
    from imfbench.building import described, guided_twice

    if config.teacher is None:
        return []
    own = next((s for s in config.systems if s.label == config.teacher.artefact), None)
    with contextlib.suppress(Exception):
        ready = config.teacher.artefact if own is None else own.artefact
        name, settings = (own.method, own.config) if own is not None and ready is None else read_settings(str(ready))
        if told := guided_twice(described(name, settings), described(system.method, system.config)):
            return [Problem(path, told)]
    return []


def _check_idle(config: ExperimentConfig, system: System, path: Key) -> list[Problem]:
    """Settings that stand in the file and would do nothing."""
    plain = System.model_validate({"method": system.method})
    if system.artefact is not None:
        told = "does nothing beside `artefact`, which is trained already: leave it out"
        idle = [key for key in ("config", "train", "seeds", "network") if getattr(system, key) != getattr(plain, key)]
        return [*(Problem((*path, key), told) for key in idle), *_other_method(system, path)]
    needs_teacher = METHODS.get(system.method).needs.teacher
    if needs_teacher and system.network != plain.network:
        return [Problem((*path, "network"), f"does nothing: {system.method!r} takes its teacher's network")]
    return []


def _other_method(system: System, path: Key) -> list[Problem]:
    """An artefact of another method than the one whose name its rows would have; one that cannot be read is told later."""
    from imfbench.artefact import ArtefactError, read_settings

    with contextlib.suppress(ArtefactError):
        name = read_settings(str(system.artefact))[0]
        if name != system.method:
            return [
                Problem(
                    (*path, "method"), f"{system.artefact} is a network of the method {name!r}, not {system.method!r}"
                )
            ]
    return []


def _searches(system: System, i: int) -> list[tuple[Search, Key]]:
    """The searches of system ``i``, with where."""
    at: Key = ("systems", i, "search")
    return [(search, at if len(system.search) == 1 else (*at, j)) for j, search in enumerate(system.search)]


def _data(config: ExperimentConfig) -> list[tuple[Data, Key]]:
    """Every dataset that is named, with where."""
    one = len(config.dataset) == 1
    found: list[tuple[Data, Key]] = [(d, ("dataset",) if one else ("dataset", i)) for i, d in enumerate(config.dataset)]
    return [*found, (config.dev, ("dev",)), (config.train_data, ("train_data",))]


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
