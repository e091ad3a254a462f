"""``docs/settings.md``: every setting of an experiment, as the models in the code have it.

``python -m imfbench.settings_page docs/settings.md`` writes all below the page's mark anew; what stands above is written by hand.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import BaseModel

from imfbench import config, registry
from imfbench.flow.grids import GRIDS
from imfbench.flow.solvers import SOLVERS
from imfbench.listing import first_line
from imfbench.metrics.protocols import PROTOCOLS
from imfbench.metrics.recognisers import RECOGNISERS
from imfbench.metrics.resamplers import RESAMPLERS
from imfbench.metrics.sim import EMBEDDERS
from imfbench.settings_types import default_of, listed, words_of
from imfbench.train_settings import TrainConfig

MARK = "<!-- Made from the code: python -m imfbench.settings_page docs/settings.md -->\n"
PARTS: dict[type[BaseModel], str] = {
    config.Selection: "`dataset`", config.Development: "`dev`", config.Data: "`train_data`", config.TeacherRows: "`teacher`",
    config.System: "`systems`", config.Network: "`network` of a system", config.Search: "`search` of a system",
    config.Recordings: "`recordings`", config.ExperimentConfig: "The experiment",
}  # fmt: skip
"""Models of an experiment's file → what the page calls them."""
_ELSEWHERE = {
    "training": "Training", "train": "Training", "metrics": "Metrics", "reports": "Reports", "options": "Datasets",
    "System.config": "Methods", "Search.config": "Searches", "Network.config": "Networks",
}  # fmt: skip
"""Blocks whose model goes by a name → where they are on the page."""
_TWICE = ("precision", "checkpoint_activations", "device", "protocol", "seed", "steps", "workers")
"""Keys that mean something else in each place."""
_TABLES = {
    name: list(table)  # as it was before there were plug-ins
    for name, table in (
        ("PROTOCOLS", PROTOCOLS), ("RECOGNISERS", RECOGNISERS), ("RESAMPLERS", RESAMPLERS), ("EMBEDDERS", EMBEDDERS)
    )
}  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """A row of a table: all but the key in Markdown; ``meaning`` is empty where the code tells none."""

    key: str
    type: str
    default: str
    meaning: str


@dataclass(frozen=True)
class Section:
    """A heading of the page, a sentence, and settings in a table whose second column may have another title."""

    title: str
    sentence: str
    settings: Sequence[Setting] = ()
    level: int = 2
    second: str = "type"

    def __str__(self) -> str:
        rows = [f"| `{s.key}` | {s.type} | {s.default} | {s.meaning} |" for s in self.settings]
        table = [f"| key | {self.second} | default | meaning |", "| --- | --- | --- | --- |", *rows, ""] if rows else []
        return "\n".join([f"{'#' * self.level} {self.title}", "", self.sentence, "", *table])


def _link(title: str) -> str:
    return f"[{title}](#{re.sub(r'[^a-z0-9_ -]', '', title.lower()).replace(' ', '-')})"


_LINKS = {model: _link(title) for model, title in PARTS.items()}


def _prose(text: str) -> str:
    """A docstring's words in Markdown, fit for a table's cell."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", " ".join(text.split())).replace("``", "`").replace("|", "\\|")
    return re.sub(r"A key of `(\w+)`", lambda found: f"One of {listed(_TABLES[found[1]])}", text)


def of_model(model: type[BaseModel]) -> list[Setting]:
    """The settings of a model, with the strings below its fields and those of its base classes."""
    told: dict[str, str] = {}
    for cls in (cls for cls in reversed(model.__mro__) if cls.__module__.startswith("imfbench.")):
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        for field, below in pairwise(definition.body if isinstance(definition, ast.ClassDef) else []):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
                told[field.target.id] = str(ast.literal_eval(below.value))
    settings = []
    for key, info in model.model_fields.items():
        there = _ELSEWHERE.get(key) or _ELSEWHERE.get(f"{model.__name__}.{key}")
        kind = f"{words_of(info.annotation, info.metadata, _LINKS)}" + (f" ({_link(there)})" if there else "")
        default = "needed" if info.is_required() else default_of(info.get_default(call_default_factory=True))
        settings.append(Setting(key, kind, default, _prose(told.get(key, ""))))
    return settings


def of_arguments(cls: Any) -> list[Setting]:
    """The options of a dataset: its class's arguments, with what docstrings say; one that refers to its base's has that."""
    told: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        block = re.search(r"^Args:\n(.*?)(?:\n\n|\Z)", inspect.cleandoc(base.__doc__ or ""), re.M | re.S)
        own = re.findall(r"^ {4}(\w+): (.+(?:\n {5,}.+)*)", block[1], re.M) if block else []
        told |= {key: text for key, text in own if "see ``" not in text or key not in told}
    hints, settings = get_type_hints(cls.__init__, include_extras=True), []
    for key, argument in inspect.signature(cls).parameters.items():
        default = "needed" if argument.default is argument.empty else default_of(argument.default)
        default = "the experiment's" if key == "task" else default
        settings.append(Setting(key, str(words_of(hints[key], [], _LINKS)), default, _prose(told.get(key, ""))))
    return settings


def _shipped(entries: registry.Registry[Any]) -> Iterator[tuple[str, Any]]:
    """Names and entries of a registry that are this package's own: no plug-in's."""
    for name in entries.names():
        with contextlib.suppress(registry.BrokenEntryError):
            if re.match(r"imfbench\.(?!templates\.)", (entry := entries.get(name)).__module__):
                yield name, entry


def _entries(kind: str, entries: Iterable[tuple[str, Any]]) -> Iterator[Section]:
    for name, entry in entries:
        model = getattr(entry, "Config", None)
        settings = of_arguments(entry) if kind == "Dataset" else of_model(model) if model is not None else []
        told = [first_line(entry)] if kind != "Network" else []
        told += [first_line(model)] if kind in ("Method", "Search", "Network") else []
        told += [] if settings else ["It has no settings."]
        yield Section(f"{kind} `{name}`", _prose(" ".join(told)), settings, level=3)


def sections() -> list[Section]:
    """The page's sections, in order."""
    methods = list(_shipped(registry.METHODS))
    trained, searching = ([entry for entry in methods if entry[1].needs.training is wanted] for wanted in (True, False))
    *parts, whole = (Section(title, first_line(model), of_model(model), level=3) for model, title in PARTS.items())
    of_training = "Under `training`, and under `train` of a system; more: [training.md](training.md)."
    found = [
        Section(whole.title, "The keys of the file itself.", whole.settings),
        Section("Its parts", "Blocks of the experiment."),
        *parts,
        Section("Training", of_training, of_model(TrainConfig)),
        Section("Methods", "Under `config` of a system."),
        *_entries("Method", trained),
        Section("Searches", "Under `config` of a system's `search`."),
        *_entries("Search", searching),
        Section("Metrics", "Under the metric's name in `metrics`."),
        *_entries("Metric", _shipped(registry.METRICS)),
        Section("Networks", "Under `config` of a system's `network`; more: [networks.md](networks.md)."),
        *_entries("Network", _shipped(registry.BACKBONES)),
        Section("Reports", "Under the report's name in `reports`; more: [leaderboard.md](leaderboard.md)."),
        *_entries("Report", _shipped(registry.REPORTS)),
        Section("Datasets", "Under `options` of `dataset`, `dev` and `train_data`; more: [datasets.md](datasets.md)."),
        *_entries("Dataset", _shipped(registry.DATASETS)),
    ]
    named = {"Vocoders": [name for name, _ in _shipped(registry.VOCODERS)], "Solvers": SOLVERS, "Time grids": GRIDS}
    names = " ".join(f"{kind}: {listed(known)}." for kind, known in named.items())
    return [_same_words(found), *found, Section("Names without settings", names)]


def _same_words(found: list[Section]) -> Section:
    """The keys that stand in several places, ``precision`` first."""
    several = [(key, section, s) for key in _TWICE for section in found for s in section.settings if s.key == key]
    rows = [Setting(key, _link(section.title), s.default, s.meaning) for key, section, s in several]
    sampling, training = rows[0].default, rows[1].default
    told = (
        f"The experiment's own `precision` is that of **sampling** ({sampling} unless it is set), the one under `training` that "
        f"of **training** ({training} unless it is set). Neither follows the other. Below them stand further keys that are "
        "another thing in each place."
    )
    return Section("Two settings called `precision`", told, rows, second="of")


def page(text: str) -> str:
    """A page made anew below its mark; what stands above stays as it is."""
    return "\n".join([text.partition(MARK)[0] + MARK, *map(str, sections())])


if __name__ == "__main__":
    _path = Path(sys.argv[1])
    _path.write_text(page(_path.read_text(encoding="utf-8")), encoding="utf-8")
