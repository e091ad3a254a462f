"""Sweeps: a list or a range where an experiment has one value, written out before anything is checked.

A sweep below a system becomes several systems, one below a search several searches of its system, one in ``training`` several
of every system that is trained, and one anywhere else several experiments of one run. What they are called says what differs.
Where the key takes a list already, a list stays what it is.
"""

from __future__ import annotations

import contextlib
import copy
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from imfbench.config_file import Key, Source, dotted
from imfbench.store import content_hash
from imfbench.sweep_axes import Axis, RefusedSweepError, axes_below, axes_in, known, types_of

MOST_VARIANTS = 10_000
"""More are not even written out: a slip in a range, not a plan."""
Chosen = dict[Key, Any]


@dataclass(frozen=True)
class Variant:
    """One of the things that a sweep becomes.

    Attributes:
        values: Its block of the configuration, without sweeps.
        suffix: What differs, as a part of its name; "" if nothing does.
    """

    values: dict[str, Any]
    suffix: str


def expanded(source: Source, notes: list[str]) -> list[tuple[Source, str]]:
    """The experiments that one is, each without sweeps, with what differs: a part of its name, "" if it is the only one.

    Args:
        source: An experiment as written. Those of its ``then`` are not looked at.
        notes: Gets what is to be told of it.

    Raises:
        ConfigError: An empty range, a range of other things than numbers, or more variants than anybody can want.
    """
    from imfbench.config import ExperimentConfig

    def everywhere(values: dict[str, Any]) -> Iterator[Axis]:
        return axes_in(values, ExperimentConfig, ())

    try:
        found = []
        whole = copy.deepcopy({key: value for key, value in source.values.items() if key != "then"})
        for variant in _variants(whole, everywhere, (), lambda values: content_hash(_plain(values)), source, notes):
            own = Source(source.name, variant.values, dict(source.lines), dict(source.overrides))
            _expand_systems(own, notes)
            found.append((own, variant.suffix))
    except RefusedSweepError as refused:
        raise source.error([refused.problem]) from None
    return found


# --- writing out ------------------------------------------------------------------------------------------------------


def _variants(
    block: dict[str, Any], axes: Callable[[dict[str, Any]], Iterator[Axis]], path: Key,
    content: Callable[[dict[str, Any]], str], source: Source, notes: list[str], unnamed: tuple[Key, ...] = (),
) -> list[Variant]:  # fmt: skip
    """All combinations of what a block sweeps over, those of equal content once, in the order in which they are written.

    Args:
        block: Values, changed in place where ranges are written out.
        axes: Finds the sweeps of such a block; their paths begin with ``path``.
        path: Where the block stands.
        content: The hash of what a variant comes to.
        source: Where it comes from.
        notes: Gets what is to be told of equal ones.
        unnamed: Sweeps that the names show anyway.
    """
    found = _combinations(block, axes, path)
    values_of: dict[Key, list[Any]] = {}
    for _, chosen in found:
        for at, value in chosen.items():
            if value not in values_of.setdefault(at, []):
                values_of[at].append(value)
    varying = [at for at, values in values_of.items() if len(values) > 1 and at not in unnamed]
    titles = {
        at: str(at[-1]) if [a[-1] for a in varying].count(at[-1]) == 1 else dotted(at[len(path) :]) for at in varying
    }
    kept: dict[str, Variant] = {}
    names: set[tuple[str, ...]] = set()
    for values, chosen in found:
        suffix = "-".join(f"{titles[at]}={_written(at, chosen, values_of)}" for at in varying if at in chosen)
        key = content(values)
        name = (*(str(chosen.get(at)) for at in unnamed), suffix)
        if key not in kept and suffix and name in names:  # two values may look alike in a file name
            suffix += f"-{len(kept) + 1}"
        names.add(name)
        kept.setdefault(key, Variant(values, suffix))
    if len(kept) < len(found):
        swept = ", ".join(dict.fromkeys(dotted(at) for _, chosen in found for at in chosen))
        told = "is the same as another and" if len(found) - len(kept) == 1 else "are the same as others and"
        notes.append(
            f"{source.where(next(iter(found[0][1])))}: {swept}: {len(found) - len(kept)} of {len(found)} variants {told} left "
            "out, by content"
        )
    return list(kept.values())


def _combinations(
    block: dict[str, Any], axes: Callable[[dict[str, Any]], Iterator[Axis]], path: Key
) -> list[tuple[dict[str, Any], Chosen]]:
    seen = list(axes(block))
    if not seen:
        return [(block, {})]
    if (count := math.prod(len(axis.values) for axis in seen)) > MOST_VARIANTS:
        swept = " × ".join(f"{dotted(axis.path)} ({len(axis.values)})" for axis in seen)
        raise RefusedSweepError(
            seen[0].path, f"a sweep of {count} variants ({swept}); no experiment takes over {MOST_VARIANTS}"
        )
    found = []
    for value in seen[0].values:
        one = copy.deepcopy(block)
        at: Any = one
        *parents, last = seen[0].path[len(path) :]
        for key in parents:
            at = at[key]
        at[last] = copy.deepcopy(value)
        found += [(v, {seen[0].path: value, **chosen}) for v, chosen in _combinations(one, axes, path)]
    return found


def _written(at: Key, chosen: Chosen, values_of: Mapping[Key, list[Any]]) -> str:
    """A value as a part of a name that is a folder's too."""
    value = chosen[at]
    if isinstance(value, dict):  # a whole block: its number
        return str(values_of[at].index(value) + 1)
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "none"}[value]
    text = f"{value:.12g}" if isinstance(value, float) else str(value)
    # A dash at an end stands for what no name can have, unless it is the sign of a number.
    sign = "-" if re.match(r"-(inf|\.?\d)", text) else ""
    return sign + re.sub(r"[^\w.-]+", "-", text).strip("-")


def _expand_systems(source: Source, notes: list[str]) -> None:
    """Write out the sweeps of all systems, and those of ``training`` into the systems that are trained."""
    systems = source.values.get("systems")
    training = source.values.get("training")
    swept = _swept_training(training) if isinstance(training, dict) else {}
    common = {key: value for key, value in training.items() if key not in swept} if isinstance(training, dict) else {}
    if not isinstance(systems, list):
        return
    found: list[Any] = []
    came_from: list[int] = []
    renamed: dict[str, list[str]] = {}
    for i, system in enumerate(systems):
        variants = [system]
        if isinstance(system, dict):
            trained = {} if system.get("artefact") else swept
            variants = _systems(system, i, trained, common, source, notes)
            label = str(system.get("name", system.get("method")))
            renamed[label] = [str(one.get("name", one.get("method"))) for one in variants]
        found += variants
        came_from += [i] * len(variants)
    if swept:
        source.values["training"] = common
    if found != systems:
        source.values["systems"] = found
        source.lines, source.overrides = (
            _moved(given, came_from, systems, found, list(swept)) for given in (source.lines, source.overrides)
        )
    teacher = source.values.get("teacher")
    name = teacher.get("artefact") if isinstance(teacher, dict) else teacher
    if isinstance(name, str) and name in renamed and name not in [one for names in renamed.values() for one in names]:
        told = f"{name!r} is swept, no system has that name: write one of {', '.join(renamed[name])}, or a list of them"
        raise RefusedSweepError(("teacher",), told)


def _swept_training(training: dict[str, Any]) -> dict[str, list[Any]]:
    """The settings of all trainings that are swept; ranges are written out in place."""
    from imfbench.train_settings import TrainConfig

    found = {}
    for key, annotation in types_of(TrainConfig).items():
        if key in training:
            for axis in axes_below(training, key, annotation, ("training", key)):
                found[key] = axis.values
    return found


def _systems(
    system: dict[str, Any], i: int, swept: dict[str, list[Any]], training: dict[str, Any], source: Source,
    notes: list[str],
) -> list[dict[str, Any]]:  # fmt: skip
    from imfbench.config import System

    system = copy.deepcopy(system)
    path: Key = ("systems", i)
    own = system.get("train") or {}
    if not isinstance(own, dict):
        return [system]  # the validation tells
    # A system's own minutes are not outdone by steps, nor its steps by minutes (ExperimentConfig.training_of).
    decided = {"steps": "minutes", "minutes": "steps"}
    if further := {key: values for key, values in swept.items() if key not in own and decided.get(key) not in own}:
        system["train"] = own = {**own, **copy.deepcopy(further)}
    if "seed" in own:  # several seeds of one system are repetitions of it, not systems
        for axis in axes_below(own, "seed", int, (*path, "train", "seed")):
            if "seed" in further and system.get("seeds") is not None:
                del own["seed"]
                continue
            if system.get("seeds") is not None:
                raise RefusedSweepError(axis.path, "swept, where the system has `seeds` as well: keep one of the two")
            system["seeds"] = list(dict.fromkeys(axis.values))
            del own["seed"]
    if isinstance(system.get("search"), dict | list):
        system["search"] = _searches(system["search"], (*path, "search"), source, notes)

    def axes(values: dict[str, Any]) -> Iterator[Axis]:
        return axes_in(values, System, path)

    def content(values: dict[str, Any]) -> str:
        return content_hash(_resolved(values, training))

    unnamed = () if system.get("name") is not None else ((*path, "method"),)
    return [_named(one) for one in _variants(system, axes, path, content, source, notes, unnamed)]


def _named(variant: Variant, method: str = "") -> dict[str, Any]:
    """A system or search, of this method if it names none, with what differs in its name."""
    if not variant.suffix:
        return variant.values
    label = variant.values.get("name") or variant.values.get("method", method)
    return {"name": f"{label}-{variant.suffix}", **{k: v for k, v in variant.values.items() if k != "name"}}


def _searches(
    written: dict[str, Any] | list[Any], path: Key, source: Source, notes: list[str]
) -> dict[str, Any] | list[Any]:
    """The searches of a system, each written out."""
    from imfbench.config import Search

    found: list[Any] = []
    for j, search in enumerate(written if isinstance(written, list) else [written]):
        at = (*path, j) if isinstance(written, list) else path
        if not isinstance(search, dict):
            found.append(search)
            continue

        def axes(values: dict[str, Any], at: Key = at) -> Iterator[Axis]:
            return axes_in(values, Search, at)

        search = copy.deepcopy(search)
        unnamed = () if search.get("name") is not None else ((*at, "method"),)
        variants = _variants(search, axes, at, lambda v: content_hash(_resolved(v, {})), source, notes, unnamed)
        found += [_named(variant, Search.model_fields["method"].default) for variant in variants]
    return found if isinstance(written, list) or len(found) > 1 else found[0]


def _resolved(values: dict[str, Any], training: dict[str, Any]) -> Any:
    """What a system or a search comes to, with the defaults of its method and its training; its name is no part of it."""
    from imfbench.registry import METHODS
    from imfbench.train_settings import TrainConfig

    found = {key: value for key, value in values.items() if key != "name"}
    method = known(lambda: METHODS.get(str(values.get("method"))).Config)
    for key, model, given in (("config", method, {}), ("train", TrainConfig, training)):
        if model is not None and (key != "train" or "train" in values):
            with contextlib.suppress(ValidationError, TypeError):  # told by the validation
                found[key] = model.model_validate({**given, **(values.get(key) or {})}).model_dump(mode="json")
    return _plain(found)


def _plain(value: Any) -> Any:
    """A value of YAML in the types that have a content hash."""
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _moved(
    given: dict[Key, Any], came_from: list[int], before: list[Any], now: list[Any], swept: list[str]
) -> dict[Key, Any]:
    """Where things come from, by the places that systems have when they are written out."""
    found = {path: value for path, value in given.items() if path[:1] != ("systems",) or len(path) == 1}
    for j, i in enumerate(came_from):
        at: Key = ("systems", j)
        for key in swept:
            if ("training", key) in given:
                found[at + (("seeds",) if key == "seed" else ("train", key))] = given["training", key]
        # The places of searches that were written out are no longer those of the file: theirs is the key's.
        same = isinstance(now[j], dict) and now[j].get("search") == before[i].get("search")
        for path, value in given.items():
            if path[:2] == ("systems", i) and (same or path[2:3] != ("search",) or len(path) == 3):
                found[at + path[2:]] = value
    return found
