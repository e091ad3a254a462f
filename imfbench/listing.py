"""What there is, by name, with one line each: for ``imfbench list``."""

from __future__ import annotations

import inspect
from typing import Any

from imfbench import registry
from imfbench.config_file import CONFIGS, shipped

REGISTRIES = {
    "methods": registry.METHODS,
    "datasets": registry.DATASETS,
    "metrics": registry.METRICS,
    "vocoders": registry.VOCODERS,
    "backbones": registry.BACKBONES,
    "reports": registry.REPORTS,
}


def listing(what: str) -> dict[str, str]:
    """Name → one line about it.

    Args:
        what: A registry's plural, or "grids", "solvers", "configs".
    """
    if what == "configs":
        return {name: _first_comment(name) for name in shipped()}
    if what == "grids":
        from imfbench.flow.grids import GRIDS

        return {name: first_line(function) for name, function in GRIDS.items()}
    if what == "solvers":
        from imfbench.flow.solvers import SOLVERS

        return {name: first_line(function) for name, function in SOLVERS.items()}
    found = {}
    for name in REGISTRIES[what].names():
        try:
            found[name] = first_line(REGISTRIES[what].get(name))
        except registry.BrokenEntryError as error:  # a plug-in whose requirements are not installed is still there
            found[name] = f"(cannot be imported: {error.__cause__})"
    return found


def first_line(thing: Any) -> str:
    """The first line of a docstring."""
    return (inspect.getdoc(thing) or "").partition("\n")[0]


def _first_comment(name: str) -> str:
    first = (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8").partition("\n")[0]
    return first.lstrip("# ") if first.startswith("#") else ""
