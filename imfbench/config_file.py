"""Reading an experiment's YAML so that every later complaint can name the file and the line.

The text becomes plain values plus a map from the path of each value to its line; ``--set a.b=c`` changes a value and leaves
a note that the command line, not the file, is where it comes from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from imfbench.registry import nearest

CONFIGS = Path(__file__).parent / "configs"
Key = tuple[Any, ...]


class ConfigError(ValueError):
    """Something wrong in a configuration, in words for its author: where, what, and the remedy."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong: the path of the value (keys and list indices) and what is wrong with it."""

    path: Key
    message: str


@dataclass
class Source:
    """A configuration as written.

    Attributes:
        name: The file, as the user knows it.
        values: Plain dictionaries, lists and scalars.
        lines: Path of a value → its line in the file, from 1.
        overrides: Path of a value → the text of the ``--set`` that gave it.
    """

    name: str
    values: dict[str, Any]
    lines: dict[Key, int] = field(default_factory=dict)
    overrides: dict[Key, str] = field(default_factory=dict)

    def where(self, path: Key) -> str:
        """Where a value comes from: "quickstart.yaml, line 12" or "--set training.steps=2"; the nearest parent's else."""
        for length in range(len(path), 0, -1):
            for given, text in self.overrides.items():
                if given == path[:length] or (length == len(path) and given[:length] == path):
                    return f"--set {text}"
            if path[:length] in self.lines:
                return f"{self.name}, line {self.lines[path[:length]]}"
        return self.name

    def error(self, problems: list[Problem]) -> ConfigError:
        """All problems in one message, each with its place."""
        told = [f"{self.where(p.path)}: {dotted(p.path)}{': ' if p.path else ''}{p.message}" for p in problems]
        return ConfigError("\n".join(dict.fromkeys(told)))


def shipped() -> list[str]:
    """Names of the experiments that ship."""
    return sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def find(config: str) -> Path:
    """The file of a configuration: a path, or the name of one that ships.

    Raises:
        ConfigError: Neither.
    """
    path = Path(config)
    if path.is_file():
        return path
    if config in shipped():
        return CONFIGS / f"{config}.yaml"
    if path.is_dir() and (path / "experiment.yaml").is_file():
        return path / "experiment.yaml"
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        raise ConfigError(f"{config}: no such file; experiments that ship: {', '.join(shipped())}")
    raise ConfigError(
        f"unknown experiment {config!r}: {nearest(config, shipped())}. A file is named by its path.".replace("?.", "?")
    )


def read(config: str) -> Source:
    """Read a configuration by path or name.

    Raises:
        ConfigError: No such file, not YAML, not a mapping, or a key given twice.
    """
    path = find(config)
    name = str(path) if Path(config) == path else path.name
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.reader.ReaderError) as error:
        told = (
            error.strerror
            if isinstance(error, OSError)
            else f"it is not text in UTF-8: {error.reason}; save it in that encoding"
        )
        raise ConfigError(f"{name} cannot be read ({told})") from None
    try:
        node = loader.get_single_node()
        source = Source(name, {})
        values = {} if node is None else _construct(loader, node, (), source)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{name}{line}: not valid YAML: {error.problem or error.context}") from None
    except ValueError as error:
        raise ConfigError(f"{name}: not valid YAML: {error}") from None
    except RecursionError:
        raise ConfigError(f"{name}: not valid YAML: an alias stands within what it stands for") from None
    finally:
        loader.dispose()
    if not isinstance(values, dict):
        raise ConfigError(f"{name}: an experiment is a mapping of keys to values, not a {type(values).__name__}")
    source.values = values
    return source


def _construct(loader: yaml.SafeLoader, node: yaml.Node, path: Key, source: Source) -> Any:
    source.lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        loader.flatten_mapping(node)
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = loader.construct_object(key_node)
            line = key_node.start_mark.line + 1
            if not isinstance(key, str):
                raise ConfigError(f"{source.name}, line {line}: the key {key!r} must be a word")
            if key in found:
                raise ConfigError(f"{source.name}, line {line}: the key {key!r} is given twice; keep one")
            below = (*path, key)
            source.lines[below] = line
            found[key] = _construct(loader, value_node, below, source)
        return found
    if isinstance(node, yaml.SequenceNode):
        return [_construct(loader, child, (*path, index), source) for index, child in enumerate(node.value)]
    return loader.construct_object(node)


def options_of(settings: tuple[str, ...]) -> dict[str, Any]:
    """``KEY=VALUE`` settings as options of one part, the values read as YAML.

    Raises:
        ConfigError: No ``=``, or a value that is not YAML.
    """
    source = Source("--set", {}, {}, {})
    override(source, settings)
    return source.values


def value_of(setting: str, written: str) -> Any:
    """The value of a ``--set``, read as YAML.

    Raises:
        ConfigError: It is not YAML.
    """
    try:
        return yaml.safe_load(written)
    except (yaml.YAMLError, ValueError):  # a ValueError for a date that there is not
        raise ConfigError(f"--set {setting}: {written!r} is not a YAML value; quote it") from None


def override(source: Source, settings: tuple[str, ...]) -> None:
    """Apply ``a.b=c`` settings in place. Entries of a list are named by their index, systems also by their name.

    Raises:
        ConfigError: No ``=``, a value that is not YAML, or a path through something that has no keys.
    """
    for text in settings:
        dotted, equals, written = text.partition("=")
        if not equals or not dotted:
            raise ConfigError(f"--set {text}: write it as key=value, for instance --set training.steps=200")
        value = value_of(text, written)
        *parents, last = dotted.split(".")
        at: Any = source.values
        path: Key = ()
        for name in parents:
            key = _key(at, name, text)
            path = (*path, key)
            if isinstance(at, dict) and at.get(key) is None:
                at[key] = {}
            at = at[key]
        key = _key(at, last, text)
        at[key] = value
        full = (*path, key)
        source.overrides[full] = text


def parts(source: Source) -> list[Source]:
    """The further experiments of a configuration: what they do not say is as in the first.

    Raises:
        ConfigError: ``then`` is not a list of mappings.
    """
    then = source.values.get("then") or []
    if not isinstance(then, list) or not all(isinstance(entry, dict) for entry in then):
        raise source.error([Problem(("then",), "further experiments are a list of mappings of keys to values")])
    found = []
    for i, entry in enumerate(then):
        base = {key: value for key, value in source.values.items() if key not in ("then", "name")}
        values = {**base, "name": entry.get("task", f"part{i + 2}"), **entry}
        at: Key = ("then", i)
        lines, overrides = (
            {path: value for path, value in given.items() if path[:1] not in {("then",), *((k,) for k in entry)}}
            | {path[2:]: value for path, value in given.items() if path[:2] == at and len(path) > 2}
            for given in (source.lines, source.overrides)
        )
        found.append(Source(source.name, values, lines, overrides))  # type: ignore[arg-type]
    return found


def _key(at: Any, name: str, text: str) -> Any:
    if isinstance(at, dict):
        return name
    if isinstance(at, list):
        names = [str(e.get("name", e.get("method"))) if isinstance(e, dict) else str(e) for e in at]
        if name in names:
            return names.index(name)
        if name.isdecimal() and int(name) < len(at):
            return int(name)
        raise ConfigError(
            f"--set {text}: no entry {name!r}: {nearest(name, names)} An index below {len(at)} serves too"
        )
    raise ConfigError(f"--set {text}: {name!r} is below a plain value, which has no keys")


def dotted(path: Key) -> str:
    """A path as people write it: ``systems[0].config.teacher_nfe``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
