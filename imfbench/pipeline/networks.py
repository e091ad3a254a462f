"""The networks of an experiment before anything is loaded: what they are given, and whether they and the vocoder agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from imfbench.artefact import VOCABULARY, ArtefactError, locate, read_card, read_network
from imfbench.config import ExperimentConfig
from imfbench.config_file import ConfigError
from imfbench.inputs import Inputs, common_inputs, inputs_of
from imfbench.pipeline.plan import Artefact, Plan
from imfbench.registry import BACKBONES, METHODS, BrokenEntryError, UnknownNameError


def inputs_of_experiment(config: ExperimentConfig, plan: Plan, reference: Callable[[Artefact], str | Path]) -> Inputs:
    """What the datasets of an experiment are to give.

    Args:
        config: The experiment.
        plan: What it asks for.
        reference: An artefact → where it lies.

    Raises:
        ConfigError: A network is another task's, its bands are not its mel's, two networks are given different things, or the
            vocoder takes another mel.
    """
    found: dict[str, Inputs] = {}
    for artefact in plan.artefacts.values():
        try:
            known = _network(config, artefact, reference)
            if known is not None:
                inputs = checked_inputs(*known, config.task)
                if artefact.ready is not None:
                    inputs = with_characters(inputs, locate(reference(artefact)))
                found[f"{known[0]!r} of {artefact.name}"] = inputs
        except (ArtefactError, UnknownNameError, BrokenEntryError, ValidationError):
            continue  # which is told where it is loaded; tables need no network
    return common_inputs(found, config.vocoder)


def checked_inputs(name: str, settings: dict[str, Any], task: str) -> Inputs:
    """What a backbone with settings is given in a task.

    Raises:
        ConfigError: It is another task's, or has other bands than its mel.
    """
    cls = BACKBONES.get(name)
    own = getattr(cls, "task", None)
    if own is not None and own != task:
        raise ConfigError(
            f"the network {name!r} is {own}'s, and the task is {task}: set task: {own}, or name another network"
        )
    config = cls.Config(**settings)
    try:
        inputs = inputs_of(cls, config)
    except ValueError as error:
        raise ConfigError(f"the network {name!r}: {error}") from None
    bands = getattr(config, "bands", None)
    if own is not None and bands is not None and bands != inputs.mel.bands:
        raise ConfigError(
            f"the network {name!r} has {bands} bands, and its mels, of {inputs.mel}, have others: leave out the setting, "
            "or take the network whose mels they are"
        )
    return inputs


def with_characters(inputs: Inputs, folder: Path) -> Inputs:
    """The inputs of a network with the characters of the ``vocab.txt`` in its folder, if there is one.

    Raises:
        ConfigError: It cannot be used, or has not as many lines as the network knows characters.
    """
    path = folder / VOCABULARY
    if not path.is_file():
        if (read_card(folder).get("imported") or {}).get("format") == "f5":
            raise ConfigError(
                f"{path} is missing, without which nobody knows which characters the network's numbers are: put the vocab.txt "
                "of its checkpoint there, or `imfbench import` the checkpoint again"
            )
        return inputs
    from imfbench.features.f5_text import VocabularyError, read_vocabulary

    try:
        characters = tuple(read_vocabulary(path))
    except VocabularyError as error:
        raise ConfigError(str(error)) from None
    if inputs.vocabulary is not None and len(characters) != inputs.vocabulary:
        raise ConfigError(
            f"{path} has {len(characters)} lines, and the network beside it knows {inputs.vocabulary} characters: put the "
            "vocab.txt there that it was trained with"
        )
    return replace(inputs, characters=characters)


def _network(
    config: ExperimentConfig, artefact: Artefact, reference: Callable[[Artefact], str | Path]
) -> tuple[str, dict[str, Any]] | None:
    """Backbone and settings; None for a student of this experiment, which has its teacher's."""
    if artefact.ready is not None:
        return read_network(reference(artefact))
    assert artefact.system is not None
    system = config.systems[artefact.system]
    return None if METHODS.get(system.method).needs.teacher else (system.network.name, system.network.config)
