"""Types and defaults of settings in plain words, for ``docs/settings.md``."""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, TypeAdapter
from pydantic.fields import FieldInfo

_NOUNS = {
    int: ("whole number", "whole numbers"), float: ("number", "numbers"), str: ("text", "texts"), Path: ("path", "paths"),
    bool: ("true or false", "values"), Any: ("any value", "values"),
}  # fmt: skip
_ALSO = {
    "side_by_side": "`auto` or {}", "bytes_of": "size such as `24GB` or {}", "names_a_folder": "{} that can name a folder",
    "artefact_or_block": "text or {}", "score_weights": "name or {}", "named_options": "list of names or {}",
    "grid": "name or list of numbers",
}  # fmt: skip
"""Functions that take another form of a value → the forms that may be written."""
_SEVERAL = ("one_or_more", "none_or_more", "grids")
"""Those that make a list of a value alone."""
_BOUNDS = {"ge": "at least {}", "gt": "above {}", "le": "at most {}", "lt": "below {}", "min_length": "not empty"}


@dataclass(frozen=True)
class Words:
    """A type in plain words.

    Attributes:
        one: One such value.
        many: Several.
        bounds: What holds for each of them, or "".
    """

    one: str
    many: str
    bounds: str = ""

    def __str__(self) -> str:
        return ", ".join(filter(None, [self.one, self.bounds]))


def listed(names: Iterable[Any]) -> str:
    """Names in Markdown, with commas between them."""
    return ", ".join(f"`{name}`" for name in names)


def words_of(annotation: Any, metadata: Sequence[Any], links: Mapping[type[BaseModel], str]) -> Words:
    """A type in plain words.

    Args:
        annotation: The type.
        metadata: What pydantic or ``Annotated`` knows of it besides.
        links: Models → a link to where they are told.
    """
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return words_of(args[0], [*args[1:], *metadata], links)
    if origin in (Union, types.UnionType):
        members = [words_of(member, metadata, links) for member in args if member is not types.NoneType]
        one = " or ".join(member.one for member in members).replace("text or path", "path")
        many = " or ".join(member.many for member in members).replace("texts or paths", "paths")
        return Words(f"none or {one}" if types.NoneType in args else one, many, members[0].bounds)
    flat = [one for given in metadata for one in (given.metadata if isinstance(given, FieldInfo) else [given])]
    found = [(words, getattr(one, name, None)) for one in flat for name, words in _BOUNDS.items()]
    bounds = " and ".join(words.format(f"{v:g}" if isinstance(v, float) else v) for words, v in found if v is not None)
    functions = [one.func.__name__.lstrip("_") for one in flat if isinstance(one, BeforeValidator | AfterValidator)]
    if origin is Literal:
        names = listed(args)
        return Words(f"one of {names}" if len(args) > 1 else names, f"words, each one of {names}")
    if origin is dict:
        value = words_of(args[1], [], links)
        found_words = Words("block of settings" if args[1] is Any else f"block: name → {value}", "blocks")
    elif origin is not None:
        entry = words_of(args[0], [], links)
        count = str(len(args)) if origin is tuple and args[-1] is not Ellipsis else "list of"
        one = f"{entry.one}, or a list of them" if set(functions) & set(_SEVERAL) else f"{count} {entry.many}"
        each = f"each {entry.bounds}" if entry.bounds else ""
        found_words = Words(one, f"lists of {entry.many}", ", ".join(filter(None, [bounds, each])))
    elif annotation in links:
        found_words = Words(f"block {links[annotation]}", f"blocks {links[annotation]}")
    else:
        found_words = Words(*_NOUNS[annotation], bounds)
    for name in functions:
        found_words = Words(_ALSO.get(name, "{}").format(found_words.one), found_words.many, found_words.bounds)
    return found_words


def default_of(value: Any) -> str:
    """A default as a file would have it; of a block what differs from the block's own."""
    plain = TypeAdapter(Any).dump_python(value, mode="json", exclude_unset=True)
    if plain is None:
        return "none"
    if plain in ({}, [{}]) and plain != value:
        return "its defaults"
    text = yaml.safe_dump(plain, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True)
    return f"`{text.strip().removesuffix('...').strip()}`"
