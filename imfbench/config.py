"""What an experiment is: documented defaults, checked names, a resolved form and its hash.

An experiment is short YAML; what it leaves out stands here. Training settings are documented at
``imfbench.training.TrainConfig``, those of a method or a metric at its own ``Config``.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    model_serializer,
)

from imfbench.config_file import Key, Problem, Source, override, parts, read
from imfbench.config_values import (
    Grids,
    SomeSteps,
    Steps,
    artefact_or_block,
    named_options,
    names_a_folder,
    none_or_more,
    one_or_more,
    score_weights,
)
from imfbench.store import content_hash
from imfbench.train_settings import Seed

TEACHER_DISTANCE = "teacher-distance"
log = logging.getLogger("imfbench")
_MOST_WORKERS = 4
_FOLDERS = (
    "artefacts", "cells", "grids", "leaderboard", "report", "tensorboard", "costs.json", "experiment.yaml", "manifest.json",
)  # fmt: skip


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _side_by_side(value: Any, info: ValidationInfo) -> Any:
    if value != "auto":
        return value
    from imfbench.devices import available_cores, resolve_device

    try:
        device = resolve_device(info.data.get("device", "auto"))
    except ValueError:
        return 1  # a device that is not there is told where it is used
    return min(_MOST_WORKERS, available_cores()) if device.type == "cpu" else 1


class Data(_Strict):
    """A dataset to train on."""

    name: str = "demo"
    """A registered dataset."""
    options: dict[str, Any] = {}
    """Arguments of its class, such as the folder of a dataset that does not ship."""


class Selection(Data):
    """Which utterances of which dataset."""

    split: str = "test"
    """A set of it."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """At most so many utterances, spread evenly over the speakers; all of them without it."""
    prefer_short: bool = False
    """Under a limit take each speaker's shortest utterances instead of its first ones."""


class Development(Selection):
    """What searches may look at; never the test set unless it is named."""

    split: str = "dev"


class TeacherRows(_Strict):
    """The teacher: what students start from, and rows of the leaderboard at several step counts."""

    artefact: str
    """``embedded:NAME``, a folder that holds an artefact, or the name of a system trained in this experiment."""
    nfe: Steps = [32]
    """Velocity evaluations of its rows; the largest is the reference that searches compare with."""
    grid: Grids = ["sway"]
    """Time grids of its rows, written as those of a system."""
    solver: str = "euler"
    """A solver, as of a system."""
    guidance: float | None = None
    """w while sampling its rows; the artefact's own without it."""


class Search(_Strict):
    """A search for a time grid, on the development set."""

    method: str = "o3s"
    """A registered search."""
    name: str | None = None
    """What tables add to the system's name; the search's name without it. Two searches of a system need two names."""
    nfe: SomeSteps
    """Step counts that get a grid of their own."""
    score: Annotated[dict[str, float], BeforeValidator(score_weights)] = {TEACHER_DISTANCE: 1.0}
    """What to raise: ``teacher-distance`` (minus the mel distance to the teacher's own output from the same noise), a
    metric by its name, or weights of several, such as {sim: 1, wer: -1}: what is better when lower has a negative weight."""
    config: dict[str, Any] = {}
    """The search's own settings."""

    @property
    def label(self) -> str:
        """The name in tables."""
        return self.name or self.method


class Network(_Strict):
    """A network to train from scratch."""

    name: str = "dit"
    """A registered backbone."""
    config: dict[str, Any] = {}
    """The backbone's own settings."""
    start: str | None = None
    """An artefact whose weights it takes over as far as it can (``embedded:NAME`` or a folder); random ones without it."""


class System(_Strict):
    """One method: trained in this run or loaded, then sampled in one or more ways."""

    method: str
    """A registered method."""
    name: str | None = None
    """What tables call it; the method's name without it. Two systems need two names."""
    config: dict[str, Any] = {}
    """The method's hyper-parameters."""
    preset: str | None = Field(None, exclude=True)
    """Named hyper-parameters of the method, below those of ``config``, which holds them all once the file is read."""
    train: dict[str, Any] = {}
    """Training settings that differ from the experiment's ``training``."""
    timed_minutes: float | None = None
    """Written by a run that turned this many minutes into ``train.steps``, so that its repeats train as long."""
    timed_for: str | None = None
    """Written beside it: a hash of the training whose steps were timed. Of another one they are timed anew."""
    seeds: Annotated[list[Seed], BeforeValidator(one_or_more), Field(min_length=1)] | None = None
    """Training seeds, one artefact each; ``training.seed`` without it."""
    network: Network = Network()
    """The network of a method that starts from scratch; one with a teacher starts from the teacher's."""
    start: Literal["teacher", "scratch"] = "teacher"
    """``scratch``: a student's network has its teacher's shape and random weights; the teacher only teaches. Encoders that no
    student trains are the teacher's in any case."""
    second_time: Literal["identity", "random"] = "identity"
    """How the weights that a second time brings begin: W = [I, 0], so that the student is its teacher at first, or at random."""
    artefact: str | None = None
    """A ready artefact (``embedded:NAME`` or a folder): nothing is trained."""
    nfe: Steps = []
    """Velocity evaluations per sample, one row of the leaderboard each."""
    grid: Grids = ["uniform"]
    """Time grids: names, ``[0, 0.65, 1]``, or the .json file of a searched grid."""
    solver: str = "euler"
    """``euler``, or ``midpoint``, of two evaluations a step and for networks of an instantaneous velocity alone."""
    search: Annotated[list[Search], BeforeValidator(none_or_more)] = []
    """Searches for time grids, each with rows of its own."""

    @property
    def label(self) -> str:
        """The name in tables."""
        return self.name or self.method

    @property
    def beginning(self) -> dict[str, str]:
        """How the student begins, as far as that is not the usual: a part of what decides its training."""
        begins = {"start": self.start, "second_time": self.second_time}
        return {key: value for key, value in begins.items() if value != type(self).model_fields[key].default}

    @model_serializer(mode="wrap")
    def _as_before(self, told: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what no run has written: systems from before there was ``timed_for`` stay what they are."""
        found: dict[str, Any] = told(self)
        return {key: value for key, value in found.items() if key != "timed_for" or value is not None}


class Recordings(_Strict):
    """Speech that another program made: a folder of audio files, one for each utterance of the test set."""

    name: str
    """What tables call it."""
    folder: str
    """Where the files lie, in whatever folders below; a file belongs to the utterance whose id its name holds."""
    missing: Literal["refuse", "deleted"] = "refuse"
    """An utterance without a readable file ends the command, or counts as a text of which nothing was said."""


class ExperimentConfig(_Strict):
    """An experiment."""

    name: Annotated[str, AfterValidator(names_a_folder)]
    """Names the run folder: ``runs/<name>``."""
    task: Literal["token2mel", "text2mel", "speech"] = "token2mel"
    """``speech``: nothing is sampled, ``recordings`` are scored."""
    dataset: Annotated[list[Selection], BeforeValidator(one_or_more), Field(min_length=1)] = [Selection()]
    """The test set, or several: every row is made once for each."""
    dev: Development = Development(limit=8, prefer_short=True)
    """What searches may look at."""
    train_data: Data = Data()
    """What is trained on; the same for every system."""
    references: list[Literal["ground-truth", "vocoded-ground-truth"]] = ["ground-truth", "vocoded-ground-truth"]
    """Rows of the test set's own recordings: as they are, and as the vocoder makes them of their mels."""
    teacher: Annotated[TeacherRows, BeforeValidator(artefact_or_block)] | None = None
    """The network that students start from and learn from, and its own rows; or its artefact alone."""
    training: dict[str, Any] = {}
    """Training settings of all systems (``imfbench.training.TrainConfig``): the same data and time for each."""
    systems: list[System] = []
    """What is trained or loaded, sampled, and compared."""
    recordings: list[Recordings] = []
    """Systems of which there is only their speech; on the same tables as the others."""
    baseline: str | None = None
    """One of the recordings: the others are tested against it. Without it each is tested against each."""
    margins: dict[str, Annotated[float, Field(gt=0)]] = {}
    """Accepted losses of the tests of non-inferiority and equivalence, by figure, where they differ from the convention."""
    cluster: Literal["speaker"] | None = None
    """Intervals and tests for new speakers, not only for new texts of these: whole speakers are resampled. From 20 on."""
    metrics: Annotated[dict[str, dict[str, Any]], BeforeValidator(named_options)] = {
        "wer": {},
        "sim": {},
        "mos": {},
        "f0cv": {},
    }
    """What is scored: names of registered metrics, with their settings where they are not at their defaults."""
    protocol: str | None = None
    """Whose figures these are to be (``imfbench protocols list``): it decides what the settings of ``metrics`` leave open."""
    model_dir: str | None = None
    """Folder of scorers' models that no package carries (``docs/models.md``)."""
    vocoder: str = "hifigan"
    """A registered vocoder, of the mel that the networks make; ``auto`` is the one that belongs to it."""
    reports: Annotated[dict[str, dict[str, Any]], BeforeValidator(named_options)] = {"leaderboard": {}, "page": {}}
    """What is written when all is scored, with options."""
    noise_seeds: Annotated[list[Seed], BeforeValidator(one_or_more), Field(min_length=1)] = [0]
    """Seeds of the initial noise; each is a row of its own, averaged per utterance before anything is compared."""
    device: str = "auto"
    """``cpu``, or an accelerator by torch's name for it; ``auto`` takes one where there is one."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """CPU threads; the cores that this process may use without it. Fewer is faster on a busy machine."""
    workers: Annotated[int, Field(ge=1), BeforeValidator(_side_by_side)] = 1
    """Processes that train, search, sample and score side by side, each with ``threads`` threads (or its share of the cores)
    and models of its own. On a CPU two single threads do more than two threads together; times are then those of a busy
    machine. The figures are the same. ``auto``: on a CPU one for each core, at most four; one on an accelerator."""
    precision: Literal["auto", "bf16", "fp32"] = "fp32"
    """Of sampling; training has its own."""
    overwrite: Literal["only-missing", "always", "only-cache"] = "only-missing"
    """``always`` samples and scores again; ``only-cache`` scores from the cache alone and leaves out what it lacks."""
    score_cache: str | None = None
    """Folder of the score cache; the user's cache folder without it."""
    then: list[ExperimentConfig] = []
    """Further experiments of the same run, for instance of another task, each in a folder of its own under the run's and
    all on one leaderboard. What they leave out is as above; ``name`` is the task without it."""

    def dump(self) -> str:
        """The resolved experiment as YAML: reading it gives an equal experiment."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)

    def training_of(self, system: System) -> dict[str, Any]:
        """A system's training settings over the experiment's; minutes of its own are not outdone by the experiment's steps."""
        own = system.train
        common = {k: v for k, v in self.training.items() if k != "steps" or "minutes" not in own or "steps" in own}
        return {**common, **own}

    @property
    def hash(self) -> str:
        """sha256 of everything that decides the figures (not: name, device, threads, workers, caches, folders, reports)."""
        without: dict[str, Any] = dict.fromkeys(
            ("name", "device", "threads", "workers", "overwrite", "score_cache", "model_dir", "reports", "then"), True
        )
        decides = self.model_dump(mode="json", exclude=without | {"systems": {"__all__": {"timed_for"}}})
        return content_hash([decides, *(part.hash for part in self.then)] if self.then else decides)


def limited(config: ExperimentConfig, limit: int) -> ExperimentConfig:
    """The experiment with ``limit`` utterances in each set: it may lower the development set's own limit, never raise it."""
    changes = {
        "dataset": [data.model_copy(update={"limit": limit}) for data in config.dataset],
        "dev": config.dev.model_copy(update={"limit": min(limit, config.dev.limit or limit)}),
        "then": [limited(part, limit) for part in config.then],
    }
    return config.model_copy(update=changes)


def load(config: str, settings: tuple[str, ...] = ()) -> ExperimentConfig:
    """The experiment of a file or a shipped name, with ``--set`` settings applied, every name in it checked.

    Raises:
        ConfigError: All that is wrong, each with its file and line and the nearest right word.
    """
    source = read(config)
    override(source, settings)
    return check(source)


def check(source: Source) -> ExperimentConfig:
    """Write out the sweeps of a configuration that was read, and validate it; raises as ``load`` does.

    An experiment that sweeps over more than its systems is several: the first is the run's own, and the others follow, as those
    of ``then`` do, each in a folder that is called by what differs.
    """
    notes: list[str] = []
    found = _written_out(source, "", notes)
    for note in dict.fromkeys(notes):
        log.info("%s", note)
    return found


def _written_out(source: Source, below: str, notes: list[str]) -> ExperimentConfig:
    """An experiment with all that follow it.

    Args:
        source: As written.
        below: What the names of those that it becomes begin with; empty for a run's first one.
        notes: Gets what is to be told of its sweeps.
    """
    from imfbench.sweep import expanded

    source.values.setdefault("name", Path(source.name).stem)
    (first, differs), *others = expanded(source, notes)
    whole = _checked(first)
    if below and differs:
        whole = whole.model_copy(update={"name": f"{below}{differs}"})
    further: list[tuple[Key, ExperimentConfig]] = []
    known = {_content(whole)}
    for other, suffix in others:
        one = _checked(other).model_copy(update={"name": f"{below}{suffix}"})
        if (content := _content(one)) in known:
            notes.append(f"{source.name}: {suffix} comes to the same experiment as another and is left out, by content")
            continue
        known.add(content)
        further.append(((), one))
    if further and not below:
        names = ", ".join(one.name for _, one in further)
        notes.append(f"{source.name}: {differs} in the run's own folder, in folders below it {names}")
    for i, part in enumerate(parts(source)):
        found = _written_out(part, f"{part.values['name']}-", notes)
        further += [(("then", i), one) for one in (found.model_copy(update={"then": []}), *found.then)]
    names_seen: set[str] = set()
    wrong = []
    for at, one in further:
        if one.name in names_seen or one.name in _FOLDERS:
            message = f"{one.name!r} is taken: its name is a folder of the run, so give it a `name` of its own"
            wrong.append(Problem(at, message))
        names_seen.add(one.name)
    if wrong:
        raise source.error(wrong)
    return whole.model_copy(update={"then": [one for _, one in further]})


def _content(config: ExperimentConfig) -> str:
    return content_hash(config.model_dump(mode="json", exclude={"name", "then"}))


def _checked(source: Source) -> ExperimentConfig:
    """An experiment without sweeps, and without those that ``then`` adds."""
    from imfbench.config_check import check_names, check_options, problems
    from imfbench.config_presets import apply_presets, apply_protocol

    apply_protocol(source)
    apply_presets(source)
    try:
        found = ExperimentConfig.model_validate({k: v for k, v in source.values.items() if k != "then"})
    except ValidationError as error:
        raise source.error(problems(error, (), source.values, ExperimentConfig)) from None
    if wrong := check_names(found) or check_options(found):
        raise source.error(wrong)
    return found
