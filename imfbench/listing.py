"""What there is, by name, with one line each: for ``imfbench list``."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from imfbench import registry
from imfbench.config_file import CONFIGS, shipped

if TYPE_CHECKING:
    from imfbench.data import SetCard

REGISTRIES = {
    "methods": registry.METHODS,
    "datasets": registry.DATASETS,
    "metrics": registry.METRICS,
    "vocoders": registry.VOCODERS,
    "backbones": registry.BACKBONES,
    "reports": registry.REPORTS,
}


def listing(what: str) -> dict[str, str]:
    """Name → one line about it; of a dataset with a card and a method with presets, further lines.

    Args:
        what: A registry's plural, or "grids", "solvers", "configs", "artefacts".
    """
    if what == "configs":
        return {name: _first_comment(name) for name in shipped()}
    if what == "artefacts":
        return _artefacts()
    if what == "grids":
        from imfbench.flow.grids import GRIDS

        return {name: first_line(function) for name, function in GRIDS.items()}
    if what == "solvers":
        from imfbench.flow.solvers import SOLVERS

        return {name: first_line(function) for name, function in SOLVERS.items()}
    found = {}
    for name in REGISTRIES[what].names():
        try:
            entry = REGISTRIES[what].get(name)
            found[name] = "\n".join([first_line(entry), *_card(entry), *_presets(entry)])
        except registry.BrokenEntryError as error:  # a plug-in whose requirements are not installed is still there
            found[name] = f"(cannot be imported: {error.__cause__})"
    return found


def _artefacts() -> dict[str, str]:
    """Networks that ship, with their task, method and training."""
    from imfbench.artefact import embedded, read_card

    found = {}
    for name in embedded():
        card = read_card(name)
        training = card["training"]
        size = f"{training['parameters'] / 1e6:.1f} M parameters, {training['steps']} steps in {card['hours']:.1f} h"
        found[name] = f"{card['task']}, {card.get('method') or 'teacher'}, {size}"
    return found


def _card(entry: Any) -> list[str]:
    """What there is to know of a dataset before having it, line by line."""
    from imfbench.data import DatasetCard

    card = getattr(entry, "card", None)
    if not isinstance(card, DatasetCard):
        return []
    sets = [f"{name} {describe(found)}" for name, found in card.sets.items()]
    lines = {"sets": ", ".join(sets), "licence": card.licence, "from": card.source, "files": card.layout}
    return [f"    {what + ':':<9} {told}" for what, told in lines.items()]


def _presets(entry: Any) -> list[str]:
    """A method's presets, line by line, as an experiment would write them out."""
    known: dict[str, dict[str, Any]] = getattr(entry, "presets", {})
    return [
        f"    preset {name}: {', '.join(f'{key} {value}' for key, value in settings.items())}"
        for name, settings in known.items()
    ]


def describe(found: SetCard) -> str:
    """Size and language of a set: ``(1088, en)``."""
    return f"({found.language if found.size is None else f'{found.size}, {found.language}'})"


def first_line(thing: Any) -> str:
    """The first line of a docstring."""
    return (inspect.getdoc(thing) or "").partition("\n")[0]


def _first_comment(name: str) -> str:
    first = (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8").partition("\n")[0]
    return first.lstrip("# ") if first.startswith("#") else ""
