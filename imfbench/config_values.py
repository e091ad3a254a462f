"""Values of an experiment as people write them: one or a list, a name or a block, made into one form before they are checked."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

GridSpec = str | list[float]
Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Portion = Annotated[float, Field(ge=0, lt=1)]
"""A share that is never the whole."""


def one_or_more(value: Any) -> Any:
    """A value alone is a list of one."""
    return value if isinstance(value, list | tuple) else [value]


def names_a_folder(name: str) -> str:
    """A name that a folder can have.

    Raises:
        ValueError: It cannot.
    """
    if not name.strip() or name.startswith(".") or any(c in "/\\" or not c.isprintable() for c in name):
        raise ValueError("it names a folder: not empty, no dot at its beginning, no slash and no control character")
    return name


def none_or_more(value: Any) -> Any:
    """Nothing is an empty list, a value alone a list of one."""
    return [] if value is None else one_or_more(value)


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


def named_options(value: Any) -> Any:
    """``[wer, sim]`` and ``{wer: {model: …}}`` mean the same kind of thing: name → options."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list):
        found: dict[str, Any] = {}
        for entry in value:
            if not isinstance(entry, dict | str):
                raise ValueError("a list of names, or of names with their options")
            found |= entry if isinstance(entry, dict) else {entry: {}}
        return found
    return {name: options or {} for name, options in value.items()} if isinstance(value, dict) else value


def artefact_or_block(value: Any) -> Any:
    """A teacher by its artefact alone."""
    return {"artefact": value} if isinstance(value, str) else value


def score_weights(value: Any) -> Any:
    """A score by its name alone has the weight 1."""
    return {value: 1.0} if isinstance(value, str) else value


Steps = Annotated[list[Annotated[int, Field(ge=1, le=10_000)]], BeforeValidator(one_or_more)]
SomeSteps = Annotated[Steps, Field(min_length=1)]
Grids = Annotated[list[Annotated[Any, BeforeValidator(_grid)]], BeforeValidator(_grids)]
