"""Plug-ins: modules of other people that register methods, datasets, metrics, backbones, vocoders and reports when imported.

There are two ways in: an entry point of the group ``imfbench.plugins`` in an installed package, which names a module, and a
file of one's own, ``--plugin FILE.py``. One that cannot be imported is left out whole, with a warning that names it. It ends
no run, except one that asks for a name that it would have given.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

GROUP = "imfbench.plugins"
MODULE = "plugin_"
"""Modules of plug-in files are called so, the file's name and a hash of its path."""
LONGEST = 300
"""Characters of an error's own message; some hold a whole table."""


class PluginWarning(RuntimeWarning):
    """A plug-in was left out."""


class Names(Protocol):
    """What a plug-in adds to: a registry."""

    kind: str

    def remove(self, name: str) -> None:
        """Take an entry back."""


@dataclass
class Plugin:
    """A plug-in that was imported, or could not be.

    Attributes:
        name: The file as it was given, or the entry point's name and module.
        path: Its file; None for an entry point whose module is not there.
        sha256: Of the file as it was imported.
        package: For an entry point, the package that has it and its version.
        gives: What it registered: a registry and a name there each.
        error: Why it was left out, with the line; empty if it was not.
    """

    name: str
    path: Path | None = None
    sha256: str | None = None
    package: str | None = None
    gives: list[tuple[Names, str]] = field(default_factory=list)
    error: str = ""

    def record(self) -> dict[str, Any]:
        """What a run's manifest says of it."""
        gives = [f"{registry.kind} {name}" for registry, name in self.gives]
        about = {"plugin": self.name, "package": self.package, "sha256": self.sha256}
        return {**about, "gives": gives, "error": self.error or None}

    def mentions(self, name: str) -> bool:
        """Whether ``name`` stands in its file as a string: it would probably have registered it."""
        text = ""
        if self.path is not None:
            with contextlib.suppress(OSError):  # a file that cannot be read, which is why the plug-in was left out
                text = self.path.read_text(encoding="utf-8", errors="replace")
        return re.search(rf"""(["']){re.escape(name)}\1""", text) is not None


_plugins: list[Plugin] = []
_importing: list[Plugin] = []


def plugins() -> list[Plugin]:
    """The plug-ins that were asked for so far, those that were left out too, in order."""
    return list(_plugins)


def note(registry: Names, name: str) -> None:
    """A registry has a new entry: it belongs to the plug-in that is being imported, if one is."""
    if _importing:
        _importing[-1].gives.append((registry, name))


def load_file(file: Path) -> Plugin:
    """Import a plug-in file, once a process; one that cannot be imported is left out with a warning.

    Its folder is not on Python's path: the file is all there is of it, so that its sha256 says which one it was. A plug-in of
    several files is a package with an entry point.

    Raises:
        FileNotFoundError: There is no such file.
    """
    path = Path(file).resolve()
    for known in _plugins:
        if known.package is None and known.path == path:
            return known
    content = path.read_bytes()
    plugin = Plugin(str(file), path, hashlib.sha256(content).hexdigest())
    # Two files of one name are two modules.
    module = f"{MODULE}{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"

    def bring_in() -> None:
        found = ModuleType(module)
        found.__file__ = str(path)
        sys.modules[module] = found  # dataclasses and pydantic look their annotations up there
        try:
            exec(compile(content, str(path), "exec"), found.__dict__)  # these very bytes, whose hash is on record
        except BaseException:
            del sys.modules[module]
            raise

    return _load(plugin, bring_in, "Mend the file, or leave out its --plugin")


@functools.cache
def _unread() -> list[metadata.EntryPoint]:
    return list(metadata.entry_points(group=GROUP))


def load_installed() -> None:
    """Import the modules of all installed plug-ins, once a process; a broken one is left out with a warning."""
    unread = _unread()
    while unread:  # a plug-in may itself ask a registry for names: each leaves the list before it is imported
        point = unread.pop(0)
        package = f"{point.dist.name} {point.dist.version}" if point.dist else "unknown package"
        plugin = Plugin(f"{point.name!r} ({point.value})", _file_of(point), None, package)
        _load(plugin, functools.partial(_import_installed, plugin, point), "Repair it or uninstall its package")


def _import_installed(plugin: Plugin, point: metadata.EntryPoint) -> None:
    """Import it, and keep its file's sha256.

    Raises:
        ImportError: The file cannot be read: what was imported would not be on record.
    """
    if plugin.path is not None:
        try:
            plugin.sha256 = hashlib.sha256(plugin.path.read_bytes()).hexdigest()
        except OSError as error:
            raise ImportError(f"{plugin.path} cannot be read ({error.strerror or error})") from None
    point.load()


def left_out(name: str, otherwise: str) -> str:
    """Why nobody knows ``name``: it stands in a plug-in that was left out, or else, in other words, ``otherwise``."""
    broken = [plugin for plugin in _plugins if plugin.error]
    likely = [plugin for plugin in broken if plugin.mentions(name)]
    told = "; ".join(f"{plugin.name} ({plugin.error})" for plugin in likely or broken)
    if likely:
        return f"it stands in a plug-in that was left out because it cannot be imported, {told}: mend that first"
    joint = " Or" if otherwise.endswith("?") else "; or"
    return f"{otherwise}{joint} it is of a plug-in that was left out, {told}" if told else otherwise


def source_of(kind: str, name: str) -> Plugin | None:
    """The plug-in that registered a name, if one did."""
    for plugin in _plugins:
        if any((registry.kind, given) == (kind, name) for registry, given in plugin.gives):
            return plugin
    return None


def files() -> tuple[Path, ...]:
    """The files that were given by ``--plugin`` and not left out: what another process must load to know the same names."""
    return tuple(p.path for p in _plugins if p.package is None and p.path is not None and not p.error)


def told_elsewhere() -> None:
    """Leave warnings of plug-ins to the process that started this one: it has told the user of the same plug-ins."""
    warnings.filterwarnings("ignore", category=PluginWarning)


def went_through(error: BaseException, path: Path | None) -> bool:
    """Whether a line of this file was at work when the error was raised."""
    return any(frame.filename == str(path) for frame in traceback.extract_tb(error.__traceback__))


def place_of(error: BaseException, path: Path | None) -> str:
    """An error with its line, in one paragraph: "line 3: NameError: name 'x' is not defined".

    Args:
        error: What was raised.
        path: The plug-in's own file, whose line is told; a line of another file that is to blame comes with its name.
    """
    places = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        places.append((error.filename, error.lineno))
    ours = str(Path(__file__).parent) + os.sep
    places = [(file, line) for file, line in places if not file.startswith(("<frozen", ours))]
    if not isinstance(error, SyntaxError):
        places = [place for place in places if place[0] == str(path)] or places
    places = [place for place in places if "importlib" not in Path(place[0]).parts]
    message = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
    what = f"{type(error).__name__}: {message if len(message) < LONGEST else message[:LONGEST] + '…'}"
    if not places:
        return what
    file, line = places[-1]
    return f"line {line}: {what}" if file == str(path) else f"{file}, line {line}: {what}"


def _load(plugin: Plugin, bring_in: Callable[[], Any], remedy: str) -> Plugin:
    _plugins.append(plugin)
    _importing.append(plugin)
    try:
        bring_in()
    except (Exception, SystemExit) as error:
        plugin.error = place_of(error, plugin.path)
        for registry, name in plugin.gives:
            registry.remove(name)
        plugin.gives.clear()
        warnings.warn(
            f"plug-in {plugin.name} was left out, its import failed: {plugin.error}. {remedy}",
            PluginWarning,
            stacklevel=3,
        )
    finally:
        _importing.pop()
    return plugin


def _file_of(point: metadata.EntryPoint) -> Path | None:
    try:
        spec = importlib.util.find_spec(point.module)
    except (Exception, SystemExit):  # finding a module imports its parents, and one of them may be what is broken
        return None
    return Path(spec.origin) if spec and spec.origin and Path(spec.origin).is_file() else None
