"""Where an experiment is swept: a list or a range where its models have a single value."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel

from imfbench.config_file import Key, Problem
from imfbench.ranges import RangeError, written_out


class RefusedSweepError(Exception):
    """A sweep that cannot be written out, with where."""

    def __init__(self, path: Key, message: str) -> None:
        super().__init__(message)
        self.problem = Problem(path, message)


@dataclass(frozen=True)
class Axis:
    """A value that is swept: where it stands, and what it takes."""

    path: Key
    values: list[Any]


def _left_alone(model: type[BaseModel]) -> set[str]:
    """Keys of a model that are names, are expanded by themselves, or change no figure."""
    from imfbench.config import ExperimentConfig, Search, System

    if model is ExperimentConfig:
        return {
            "name", "then", "systems", "training", "recordings", "baseline", "overwrite", "score_cache", "model_dir",
            "workers",
        }  # fmt: skip
    return {System: {"name", "search", "timed_minutes", "timed_for"}, Search: {"name"}}.get(model, set())  # type: ignore[call-overload, no-any-return]


def axes_in(values: dict[str, Any], model: type[BaseModel], path: Key) -> Iterator[Axis]:
    """The sweeps in a block, those first that decide what the rest of it may hold; ranges are written out in place.

    Raises:
        RefusedSweepError: A range that holds nothing, or a list without values.
    """
    from imfbench.config import ExperimentConfig

    for key in sorted(values, key=lambda key: key not in ("method", "name")):
        field = model.model_fields.get(key)
        if field is None or key in _left_alone(model):
            continue
        below = (*path, key)
        if key == "metrics" and model is ExperimentConfig:
            yield from _of_metrics(values[key], below)
        elif (settings := _settings(model, key, values)) is not None:
            if isinstance(values[key], dict):
                for name in values[key]:
                    if name in settings:
                        yield from axes_below(values[key], name, settings[name], (*below, name))
        else:
            yield from axes_below(values, key, field.annotation, below)
        if key in ("method", "name") and isinstance(values[key], list):
            return  # what the other keys may hold is known when it is chosen


def axes_below(holder: dict[Any, Any], key: Any, annotation: Any, path: Key) -> Iterator[Axis]:
    """The sweeps in one value; raises as ``axes_in`` does.

    Args:
        holder: What it is in: a range is replaced there by its numbers.
        key: Its key there.
        annotation: The type that its model gives it.
        path: Where it stands.
    """
    members = _members(annotation)
    items = [args[0] for m in members if get_origin(m) in (list, tuple) and (args := get_args(m))]
    mappings = [get_args(m)[1] for m in members if get_origin(m) is dict and get_args(m)]
    single, block = all(map(_is_single, members)), _block(members)
    if not mappings:
        numbers = members if single else [m for item in items for m in _members(item)]
        try:
            whole = int in numbers and float not in numbers
            holder[key] = written_out(holder[key], whole, splice=int in numbers or float in numbers)
        except RangeError as error:
            raise RefusedSweepError(path, str(error)) from None
    value = holder[key]
    if single or (block is not None and not items and isinstance(value, list)):
        if isinstance(value, list):
            if not value:
                raise RefusedSweepError(path, "an empty list: a sweep needs a value at least, such as [1, 2]")
            yield Axis(path, value)
        return
    block = block or _block([m for item in items for m in _members(item)])
    if block is not None:
        for i, entry in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(entry, dict):
                yield from axes_in(entry, block, (*path, i) if isinstance(value, list) else path)
    elif mappings and isinstance(value, dict):
        for name in value:
            yield from axes_below(value, name, mappings[0], (*path, name))


def _of_metrics(value: Any, path: Key) -> Iterator[Axis]:
    from imfbench.registry import METRICS

    entries = [(value, path)] if isinstance(value, dict) else []
    if isinstance(value, list):
        entries = [(entry, (*path, i)) for i, entry in enumerate(value) if isinstance(entry, dict)]
    for named, at in entries:
        for metric, options in named.items():
            model = known(lambda name=metric: METRICS.get(name).Config)  # type: ignore[misc]
            if model is not None and isinstance(options, dict):
                yield from axes_in(options, model, (*at, metric))


def _settings(model: type[BaseModel], key: str, values: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Annotations of a block whose model stands elsewhere, by key; None for other blocks; empty where a name is unknown."""
    from imfbench.config import Data, Network, Search, System
    from imfbench.registry import BACKBONES, DATASETS, METHODS
    from imfbench.train_settings import TrainConfig

    if key == "options" and issubclass(model, Data):
        cls = known(lambda: DATASETS.get(_name_in(values, "name", model)))
        return {} if cls is None else _arguments(cls)
    if key == "train" and model is System:
        return types_of(TrainConfig)
    if key != "config" or model not in (System, Search, Network):
        return None
    registry, by = (BACKBONES, "name") if model is Network else (METHODS, "method")
    found = known(lambda: registry.get(_name_in(values, by, model)).Config)
    return {} if found is None else types_of(found)


def _name_in(values: Mapping[str, Any], key: str, model: type[BaseModel]) -> str:
    return str(values.get(key, model.model_fields[key].default))


def known(find: Callable[[], Any]) -> Any:
    """What ``find`` finds; None for a name that no registry knows, or what has no settings, which the validation tells."""
    try:
        return find()
    except (KeyError, ImportError, AttributeError):
        return None


def types_of(model: type[BaseModel]) -> dict[str, Any]:
    """The types of a model's fields, by name."""
    return {name: field.annotation for name, field in model.model_fields.items()}


def _arguments(cls: Any) -> dict[str, Any]:
    try:
        hints = get_type_hints(cls.__init__)
    except (NameError, TypeError):
        return {}
    return {name: hints[name] for name in inspect.signature(cls).parameters if name in hints}


def _members(annotation: Any) -> list[Any]:
    """The members of a union, looked for in annotated types too."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _members(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [member for part in get_args(annotation) for member in _members(part)]
    return [annotation]


def _is_single(member: Any) -> bool:
    return get_origin(member) is Literal or member in (str, int, float, bool, Path, type(None))


def _block(members: list[Any]) -> type[BaseModel] | None:
    return next((m for m in members if isinstance(m, type) and issubclass(m, BaseModel)), None)
