"""Test sets by name and folder: what ``imfbench doctor --dataset`` and scorers of finished recordings open."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imfbench.backbones.originals import MissingPackageError
from imfbench.data import DatasetError, Utterance, revision_of, sets_of
from imfbench.disk import StoreError
from imfbench.features.phones import MissingPhonemizerError
from imfbench.inputs import EMBEDDED, Inputs
from imfbench.registry import DATASETS, BrokenEntryError, UnknownNameError, nearest
from imfbench.weights import DamagedModelError, MissingModelError

FOLDER = "root"
"""The option of a dataset that says where it lies."""
_OURS = (
    BrokenEntryError, DamagedModelError, DatasetError, MissingModelError, MissingPackageError, MissingPhonemizerError,
    StoreError, UnknownNameError,
)  # fmt: skip
"""Errors that say themselves what is wrong and what to do; any other one is told with the dataset that raised it."""


@dataclass(frozen=True)
class TestSet:
    """One set of an opened dataset.

    Attributes:
        name: The dataset's registered name.
        split: The set's name.
        dataset: The dataset.
        options: What it was opened with, for messages.
    """

    __test__ = False  # its name looks like one of pytest's

    name: str
    split: str
    dataset: Any
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Name, set and revision, as in tables: ``seed-tts-eval/en@1b2c3d4e``."""
        variant = getattr(self.dataset, "variant", "")
        return f"{self.name}/{self.split}@{revision_of(self.dataset, self.split)}" + (f", {variant}" if variant else "")

    def utterances(self) -> list[Utterance]:
        """Its utterances, in the order of the list.

        Raises:
            DatasetError: There is no such set, or its list cannot be used, or names two utterances alike; the message says why.
        """
        opened = f" (options {dict(self.options)})" if self.options else ""
        what = f"the set {self.split!r} of dataset {self.name!r}{opened} cannot be used"
        try:
            found: list[Utterance] = list(self.dataset.utterances(self.split))
            twice = [id for id, count in Counter(u.id for u in found).items() if count > 1]
        except _OURS:
            raise
        except Exception as error:
            raise DatasetError(f"{what}: {_said(error)}; correct `split` or `options`, or mend the data") from error
        if twice:  # ids name files and rows: one of the two would stand for both
            further = f", and {len(twice) - 1} more ids stand there so" if len(twice) > 1 else ""
            raise DatasetError(f"{what}: the id {twice[0]!r} is that of several utterances{further}; give each its own")
        return found


def open_set(name: str, folder: Path | None = None, options: Mapping[str, Any] | None = None) -> TestSet:
    """Open a test set; no recording is opened.

    Args:
        name: ``NAME`` or ``NAME/SET``, such as ``seed-tts-eval/zh``; without a set the dataset's first.
        folder: Where it lies; None for one that ships.
        options: Further arguments of its class.

    Raises:
        UnknownNameError: No such dataset.
        DatasetError: No such option, or the folder is not the dataset's. That there is no such set is told by ``utterances``.
    """
    name, _, split = name.partition("/")
    cls = DATASETS.get(name)
    if not hasattr(cls, "utterances"):
        raise DatasetError(f"dataset {name!r} is for training alone, it has no test sets")
    given = dict(options or {})
    if folder is not None:
        if FOLDER not in inspect.signature(cls).parameters:
            raise DatasetError(f"dataset {name!r} takes no folder: leave out {folder}")
        given[FOLDER] = folder
    return TestSet(name, split or sets_of(cls)[0], open_dataset(name, given), given)


def open_dataset(name: str, options: Mapping[str, Any], inputs: Inputs = EMBEDDED) -> Any:
    """A dataset with these arguments of its class, which gives networks what they take.

    It is told by its attribute ``inputs``; one without that attribute serves the embedded networks' like alone.

    Raises:
        UnknownNameError: No such dataset.
        DatasetError: An argument is missing, unknown, or of no use, or its mels are not the networks'.
    """
    cls = DATASETS.get(name)
    _, told = options_problem(name, options)
    if told:
        raise DatasetError(told)
    try:
        dataset = cls(**options)
        takes_inputs = hasattr(dataset, "inputs")
        if takes_inputs:
            dataset.inputs = inputs
    except _OURS:
        raise
    except Exception as error:
        raise DatasetError(
            f"dataset {name!r} cannot be opened with {dict(options)}: {_said(error)}; correct these `options`, or mend what they "
            "name"
        ) from error
    if not takes_inputs and inputs != EMBEDDED:
        raise DatasetError(
            f"dataset {name!r} has mels of {EMBEDDED.mel} alone (its class has no attribute `inputs`), and the networks or the "
            f"vocoder take {inputs.mel}: name another dataset, or other networks"
        )
    return dataset


def _said(error: Exception) -> str:
    """What an error of other people's code says: with its kind, if it is none that a dataset is asked to write for users."""
    said = str(error)
    if said and isinstance(error, OSError | ValueError):
        return said
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def options_problem(name: str, options: Mapping[str, Any]) -> tuple[str, str]:
    """Which argument of a dataset's class is missing or unknown, and that in words; both empty if none is."""
    parameters = inspect.signature(DATASETS.get(name)).parameters
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for option in options:
        if option not in parameters and not open_ended:
            return option, f"dataset {name!r} has no option {option!r}: {nearest(option, list(parameters))}"
    for parameter in parameters.values():
        if parameter.name in (*options, "task") or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue  # the task is the experiment's to tell
        if parameter.default is parameter.empty:
            card = getattr(DATASETS.get(name), "card", None)
            which = "" if card is None or parameter.name != FOLDER else f", the folder of {card.layout}. {card.source}"
            return parameter.name, f"dataset {name!r} needs the option {parameter.name!r}{which}"
    return "", ""
