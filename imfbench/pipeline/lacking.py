"""What an experiment names and is not here: told all at once, before anything is timed or run."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from imfbench.artefact import EMBEDDED, ArtefactError, locate
from imfbench.backbones.originals import MissingPackageError
from imfbench.config import Data, ExperimentConfig, Selection
from imfbench.config_file import ConfigError
from imfbench.data import DatasetError
from imfbench.features.cosyvoice_files import CAMPPLUS, TOKENIZER, find
from imfbench.features.mel import MelFormat
from imfbench.inputs import open_vocoder, vocoder_mel
from imfbench.pipeline.networks import inputs_of_experiment
from imfbench.pipeline.plan import make_plan
from imfbench.published import Published, look_in, nothing_fetched
from imfbench.registry import DATASETS, METRICS, VOCODERS, BrokenEntryError, UnknownNameError
from imfbench.sets import TestSet, open_dataset
from imfbench.weights import DamagedModelError, MissingModelError

IMPORT = (
    "`imfbench import` makes such a folder of a checkpoint of F5-TTS or CosyVoice 2 (docs/paper_experiments.md), and a training "
    "leaves one"
)
_NOT_HERE = (ArtefactError, DatasetError, DamagedModelError, MissingModelError, MissingPackageError, BrokenEntryError)


def files_lacking(config: ExperimentConfig) -> list[str]:
    """Artefacts and data of an experiment that are not there, each with what to do about it; nothing large is read."""
    found: list[str] = []

    def told(what: str, look: Callable[[], Any], remedy: str = "") -> None:
        try:
            look()
        except _NOT_HERE as error:
            message = f"{what}: {error}"
            found.append(f"{message}; {remedy}" if remedy else message)

    for what, reference in _artefacts(config):
        told(what, partial(locate, reference), "" if reference.startswith(EMBEDDED) else IMPORT)
    searched = any(system.search for system in config.systems)
    trained = any(system.artefact is None for system in config.systems)
    for i, selection in enumerate(config.dataset):
        where = "dataset" if len(config.dataset) == 1 else f"dataset[{i}]"
        told(f"{where} ({selection.name}/{selection.split})", partial(_open, config, selection))
    if searched:
        told(f"dev ({config.dev.name}/{config.dev.split})", partial(_open, config, config.dev))
    if trained:
        told(f"train_data ({config.train_data.name})", partial(_open, config, config.train_data))
    return found


def models_lacking(config: ExperimentConfig) -> list[str]:
    """The vocoder and the scorers whose models are not here, each with what to do about it; nothing is fetched for that."""
    look_in(config.model_dir)
    found = []
    vocoder, mel = _vocoder(config)
    if config.task != "speech" and mel is not None:
        found += _model(f"vocoder ({vocoder})", partial(open_vocoder, vocoder, mel))
    found += [line for model in heard_by(config) for line in _model(model.name, partial(find, model))]
    for name, options in config.metrics.items():
        cls = METRICS.get(name)
        found += _model(f"metrics.{name}", partial(_signature, cls, options))
    return found


def _vocoder(config: ExperimentConfig) -> tuple[str, MelFormat | None]:
    """The vocoder's name, and its mel; of one that goes by the networks the one that it stands for, as far as they are here."""
    stands_for = getattr(VOCODERS.get(config.vocoder), "stands_for", None)
    if stands_for is None:
        return config.vocoder, vocoder_mel(config.vocoder)
    try:
        mel = inputs_of_experiment(config, make_plan(config), lambda artefact: str(artefact.ready)).mel
    except (ArtefactError, ConfigError):  # told where the networks are
        return config.vocoder, None
    return stands_for(mel), mel


def heard_by(config: ExperimentConfig) -> tuple[Published, ...]:
    """The models that hear S3 tokens and voices, if any data of the experiment need them."""
    needed: list[Data] = (
        [*config.dataset] if config.teacher is not None or config.systems else []
    )  # references alone need none
    needed += [config.dev] if any(system.search for system in config.systems) else []
    needed += [config.train_data] if any(system.artefact is None for system in config.systems) else []
    return (TOKENIZER, CAMPPLUS) if any(_listens(config, data) for data in needed) else ()


def _listens(config: ExperimentConfig, data: Data) -> bool:
    """Whether S3 tokens and speaker vectors are to be made of a dataset's recordings."""
    cls = DATASETS.get(data.name) if data.name in DATASETS else None
    asks = config.task == "token2mel" and cls is not None and "features" in inspect.signature(cls).parameters
    return asks and data.options.get("features") is None


def _model(what: str, look: Callable[[], Any]) -> list[str]:
    try:
        with nothing_fetched():
            look()
    except _NOT_HERE as error:
        return [f"{what}: {error}"]
    return []


def _signature(cls: Any, options: dict[str, Any]) -> str:
    """Of a metric: it holds its models' sums, and so finds them."""
    return str(cls(cls.Config(**options)).signature)


def _artefacts(config: ExperimentConfig) -> list[tuple[str, str]]:
    """Where each ready artefact is named, and its name."""
    own = {system.label for system in config.systems}
    found = []
    if config.teacher is not None and config.teacher.artefact not in own:
        found.append(("teacher.artefact", config.teacher.artefact))
    for i, system in enumerate(config.systems):
        if system.artefact is not None:
            found.append((f"systems[{i}].artefact", system.artefact))
        elif system.network.start is not None:
            found.append((f"systems[{i}].network.start", system.network.start))
    return found


def _open(config: ExperimentConfig, data: Data) -> None:
    try:
        cls = DATASETS.get(data.name)
    except UnknownNameError:
        return  # which the check of names tells
    samples = config.task != "speech" and "task" in inspect.signature(cls).parameters
    dataset = open_dataset(data.name, {**({"task": config.task} if samples else {}), **data.options})
    if isinstance(data, Selection):
        TestSet(data.name, data.split, dataset, data.options).utterances()
