"""What the jobs of a run share: configuration, plan, folder, device, and the few things that are dear to load."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import ValidationError

from imfbench.artefact import ArtefactError, load_artefact, read_card
from imfbench.cache import CacheError
from imfbench.config import Data, ExperimentConfig, Selection
from imfbench.config_file import ConfigError
from imfbench.data import DatasetError, Utterance, length_of
from imfbench.devices import (
    available_threads,
    describe,
    dtype_name,
    machine_name,
    memory_words,
    out_of_memory,
    resolve_device,
)
from imfbench.features.audio_check import AudioError
from imfbench.features.phones import PromptError
from imfbench.inputs import Inputs, open_vocoder, vocoder_name
from imfbench.method import Method
from imfbench.metrics.base import Metric, ScoreError
from imfbench.pipeline.networks import inputs_of_experiment
from imfbench.pipeline.plan import Artefact, Plan, Row, make_plan, step_content
from imfbench.progress import Reporting
from imfbench.published import look_in
from imfbench.registry import DATASETS, METHODS, METRICS
from imfbench.sampling import LengthError, sampling_guidance
from imfbench.score_cache import ScoreCache
from imfbench.sets import TestSet, open_dataset
from imfbench.store import RunFolder, StoreError, content_hash, read_json, write_text
from imfbench.weights import DamagedModelError, MissingModelError


class RunError(RuntimeError):
    """Something that the user can mend; the message says how."""


STOPPING: tuple[type[Exception], ...] = (
    ArtefactError, CacheError, ConfigError, DamagedModelError, DatasetError, MissingModelError, RunError, StoreError,
)  # fmt: skip
"""What the user can mend at once: it stops a run, as everything that comes later would stumble over it too."""


LESS_MEMORY = (
    "memory ran out: a shorter prompt, a smaller network, --set precision=bf16, fewer --threads or --device cpu need less; "
    "repeat the command to try it again"
)


class NotReadyError(RuntimeError):
    """What a job needs is not there: not trained, not searched, or diverged. The message is the row's status."""


@dataclass
class Context:
    """State of one run.

    Attributes:
        config: The experiment, time budgets turned into steps as far as they have been timed.
        plan: What it asks for.
        folder: Where it goes.
        reporting: Bars or log lines.
        failures: Name of a job → why it failed in this command; ``failure_of`` knows of earlier ones too.
    """

    config: ExperimentConfig
    folder: RunFolder
    reporting: Reporting = field(default_factory=Reporting)
    failures: dict[str, str] = field(default_factory=dict)
    _kept: dict[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.config = with_recorded_steps(without_outdated_steps(self.config), self.folder)
        self.plan: Plan = make_plan(self.config)
        try:
            self.device = resolve_device(self.config.device)
        except (ValueError, RuntimeError) as error:
            raise RunError(str(error)) from None
        self.use_threads(self.threads_of(1))
        self.dtype = dtype_name(self.device, self.config.precision)
        look_in(self.config.model_dir)
        self.cache = ScoreCache(Path(self.config.score_cache) if self.config.score_cache else None)

    def threads_of(self, workers: int) -> int:
        """CPU threads of each of so many processes: those that were asked for, else an equal share of what there is."""
        return self.config.threads or max(1, available_threads() // workers)

    def use_threads(self, threads: int) -> None:
        """Let torch and the scorers have so many threads."""
        self.threads = threads
        torch.set_num_threads(threads)

    def share_threads(self) -> None:
        """Have the threads that each of the run's processes has: what is timed on more of them is not what it will take there."""
        self.use_threads(self.threads_of(self.config.workers))

    @property
    def inputs(self) -> Inputs:
        """What the experiment's networks are given, and the mel of its vocoder.

        Raises:
            ConfigError: They do not agree.
        """
        found: Inputs = self.once("inputs", lambda: inputs_of_experiment(self.config, self.plan, self.reference))
        return found

    @property
    def machine(self) -> str | None:
        """The model of the device, as rows name what timed them."""
        found: str | None = self.once("machine", lambda: machine_name(describe(self.device), self.device))
        return found

    def is_ours(self, machine: str | None) -> bool:
        """Whether what a row names is this machine; rows from before machines were named pass for its own."""
        return machine in (self.machine, None)

    def dataset(self, data: Data) -> Any:
        """The dataset, opened once for each set of options, for what the networks are given."""
        cls = DATASETS.get(data.name)
        samples = self.config.task != "speech" and "task" in inspect.signature(cls).parameters
        task = {"task": self.config.task} if samples else {}
        key = f"dataset:{data.name}:{content_hash(data.options)}"
        return self.once(key, lambda: open_dataset(data.name, {**task, **data.options}, self.inputs))

    def test_set(self, row: Row) -> Selection:
        """The test set that a row is made on."""
        return self.config.dataset[row.test_set[0]]

    def utterances(self, selection: Selection) -> list[Utterance]:
        """The selected utterances, in the order of their list, which is read once."""
        found: list[Utterance] = self.once(
            f"utterances:{content_hash(selection.model_dump(mode='json'))}", lambda: self._utterances(selection)
        )
        return found

    def _utterances(self, selection: Selection) -> list[Utterance]:
        opened = self.dataset(selection)
        found = TestSet(selection.name, selection.split, opened, selection.options).utterances()
        if not found:
            raise RunError(f"the set {selection.split!r} of dataset {selection.name!r} is empty")
        return select(found, selection.limit, selection.prefer_short)

    def reference(self, artefact: Artefact) -> str | Path:
        """Where an artefact lies: a ready one by its name, a trained one in the run folder."""
        return artefact.ready if artefact.ready is not None else self.folder.artefact(artefact.name)

    def load(self, name: str) -> tuple[Method, dict[str, Any]]:
        """The method and card of an artefact of the plan, on the device; the one loaded last is kept.

        Raises:
            NotReadyError: It was to be trained in this run and is not there.
        """
        artefact = self.plan.artefacts[name]
        if artefact.ready is None:
            self.check_trained(name)
        if self._kept.get("artefact", (None,))[0] != name:
            self._kept.pop("artefact", None)
            self._kept["artefact"] = (name, load_artefact(self.reference(artefact), self.device))
        found: tuple[Method, dict[str, Any]] = self._kept["artefact"][1]
        return found

    def card(self, name: str) -> dict[str, Any]:
        """The card of an artefact of the plan, without loading the network.

        Raises:
            NotReadyError: It was to be trained in this run and is not there.
        """
        artefact = self.plan.artefacts[name]
        if artefact.ready is None:
            self.check_trained(name)
        return read_card(self.reference(artefact))

    def forget(self, what: str) -> None:
        """Let go of what is kept under this name ("artefact", "vocoder"), so that it takes no memory."""
        self._kept.pop(what, None)

    def check_trained(self, name: str) -> None:
        """Raise ``NotReadyError`` unless the training of this artefact, by the experiment's settings, ended well."""
        from imfbench.pipeline.staleness import check_training

        status = (read_json(self.folder.artefact(name) / "status.json") or {}).get("status")
        if status not in ("ok", "diverged"):
            reason = self.failure_of(f"train:{name}") or f"{name} is not trained; `imfbench train` or `run` does it"
            raise NotReadyError(f"failed: {reason}")
        check_training(self, name)
        if status == "diverged":
            raise NotReadyError("diverged")

    def failure_of(self, job: str) -> str | None:
        """Why a job failed, now or in the last command that did jobs of its kind; None if it did not."""
        if job in self.failures:
            return self.failures[job]
        found: dict[str, str] = (read_json(self.folder.manifest) or {}).get("failures", {})
        return found.get(job)

    def sampler(self, row: Row) -> tuple[Method, dict[str, Any]]:
        """The method that a row samples, with the row's guidance, and its card."""
        assert row.artefact is not None
        method, card = self.load(row.artefact)
        if row.guidance is not None and row.guidance != sampling_guidance(method):
            if "guidance" in type(method.config).model_fields:
                method = type(method)(method.config.model_copy(update={"guidance": row.guidance}), method.network)
            if sampling_guidance(method) != row.guidance:
                raise RunError(
                    f"{row.system}: guidance {row.guidance:g} cannot be set while sampling: it is baked into {row.artefact}"
                )
        return method, card

    def vocoder(self) -> Any:
        """The vocoder, loaded."""
        return self.once("vocoder", lambda: open_vocoder(self.config.vocoder, self.inputs.mel, self.device))

    @property
    def vocoder_name(self) -> str:
        """The vocoder's full name, with the weights that it runs on."""
        return vocoder_name(self.config.vocoder, self.inputs.mel)

    def metric(self, name: str) -> Metric:
        """A metric with the experiment's options for it, its model not yet loaded."""
        cls = METRICS.get(name)
        found: Metric = cls(cls.Config(**self.config.metrics.get(name, {})), str(self.device), self.threads)
        return found

    def record(self, config: ExperimentConfig) -> None:
        """Write the resolved experiment into the run folder; from now on it is this run's."""
        systems = [
            system if system.timed_minutes is None else system.model_copy(update={"timed_for": step_content(config, i)})
            for i, system in enumerate(config.systems)
        ]
        self.config = config = config.model_copy(update={"systems": systems})
        write_text(self.folder.experiment, config.dump())

    def once(self, key: str, make: Callable[[], Any]) -> Any:
        """What ``make`` gives, made once; ``forget`` lets go of it."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]


def told(error: BaseException) -> str:
    """An error as a row or a table says it: in one line, and with what to lower where memory ran out."""
    if not out_of_memory(error):
        return one_line(error)
    return "; ".join(part for part in (one_line(error, 300), memory_words(error), LESS_MEMORY) if part)


def recording_of(error: BaseException, what: str, path: Path | None) -> str:
    """The recording that an utterance's error is about, in brackets; empty where it is about something else or names the file.

    Args:
        error: Whatever an utterance stumbled over.
        what: "prompt" or "recording".
        path: The file; None if there is none.
    """
    at_fault = isinstance(error, AudioError | PromptError) or (isinstance(error, LengthError) and error.of_prompt)
    if path is None or not at_fault or str(path) in str(error):
        return ""
    return f" ({what} {path})"


def one_line(error: BaseException, longest: int = 1000) -> str:
    """Kind and message of an error without line breaks."""
    said = (
        str(error) if isinstance(error, ScoreError) else f"{type(error).__name__}: {error}"
    )  # ours are written for users
    return " ".join(said.split()).removesuffix(":")[:longest]


def method_name(method: Method) -> str:
    """The registered name of a method's class."""
    return METHODS.name_of(type(method)) or type(method).__name__


def select(utterances: list[Utterance], limit: int | None, prefer_short: bool) -> list[Utterance]:
    """At most ``limit`` utterances, the speakers in turn: a larger limit keeps all that a smaller one took.

    Args:
        utterances: A set, in its order, which the result keeps.
        limit: None takes all.
        prefer_short: Take each speaker's shortest first, not its first.
    """
    if limit is None or limit >= len(utterances):
        return list(utterances)
    speakers: dict[str, list[int]] = {}
    for i, utterance in enumerate(utterances):
        speakers.setdefault(utterance.speaker, []).append(i)
    if prefer_short:
        for indices in speakers.values():
            indices.sort(key=lambda i: (_length(utterances[i]), i))
    turn = 0
    taken: list[int] = []
    while len(taken) < limit:
        taken += [indices[turn] for indices in speakers.values() if turn < len(indices)][: limit - len(taken)]
        turn += 1
    return [utterances[i] for i in sorted(taken)]


def _length(utterance: Utterance) -> float:
    seconds = length_of(utterance)
    return float("inf") if seconds is None else seconds  # what nobody knows to be short comes last


def without_outdated_steps(config: ExperimentConfig) -> ExperimentConfig:
    """The experiment without steps that were timed for something else: a recorded experiment.yaml of which something was changed.

    Those are steps of other minutes, or of a training of other content: another K, other batches, another network. One that was
    recorded before ``timed_for`` was says only of which minutes they are.
    """
    systems = []
    for i, system in enumerate(config.systems):
        minutes = config.training_of(system).get("minutes")
        if system.timed_minutes is not None and (
            system.timed_minutes != minutes or system.timed_for not in (None, step_content(config, i))
        ):
            train = {key: value for key, value in system.train.items() if key != "steps"}
            system = system.model_copy(update={"train": train, "timed_minutes": None, "timed_for": None})
        systems.append(system)
    return config.model_copy(update={"systems": systems})


def with_recorded_steps(config: ExperimentConfig, folder: RunFolder) -> ExperimentConfig:
    """The experiment with the steps that an earlier run in this folder made of the same time budgets for the same trainings.

    Raises:
        ConfigError: The folder's experiment.yaml cannot be read.
    """
    if not folder.experiment.is_file():
        return config
    try:
        recorded = ExperimentConfig.model_validate(yaml.safe_load(folder.experiment.read_text(encoding="utf-8")))
    except (ValueError, yaml.YAMLError) as error:
        lines = [line.strip() for line in str(error).splitlines()]
        told = "; ".join(lines[1:3]) if isinstance(error, ValidationError) else lines[0]
        raise ConfigError(
            f"{folder.experiment} was changed, or is of another version ({told}): put back what the run wrote there, or give "
            "this run another folder with --out"
        ) from None
    earlier = {system.label: i for i, system in enumerate(recorded.systems)}
    systems = []
    for i, system in enumerate(config.systems):
        budget = config.training_of(system)
        same = earlier.get(system.label)
        if budget.get("steps") is None and budget.get("minutes") is not None and same is not None:
            known = recorded.systems[same]
            of_these = known.timed_minutes == budget["minutes"] and "steps" in known.train
            if of_these and _timed_for(recorded, same) == step_content(config, i):
                train = {**system.train, "steps": known.train["steps"]}
                system = system.model_copy(update={"train": train, "timed_minutes": known.timed_minutes})
        systems.append(system)
    return config.model_copy(update={"systems": systems})


def _timed_for(recorded: ExperimentConfig, index: int) -> str | None:
    """What the steps of a recorded system were timed for; None where it cannot be told, as its method is not here any more."""
    try:
        return recorded.systems[index].timed_for or step_content(recorded, index)
    except (LookupError, ImportError, ValueError):
        return None
