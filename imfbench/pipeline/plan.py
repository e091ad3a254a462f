"""An experiment unrolled: the artefacts to train, the grids to search, the rows to sample, and the jobs that do it."""

from __future__ import annotations

import graphlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from imfbench.config import ExperimentConfig, Search, System, TeacherRows
from imfbench.config_file import ConfigError
from imfbench.config_values import GridSpec
from imfbench.flow.grids import GridError, grid_name, make_grid
from imfbench.flow.solvers import check_solver, evaluations_per_step
from imfbench.registry import METHODS
from imfbench.store import content_hash
from imfbench.train_settings import TrainConfig

Stage = Literal["prepare", "train", "search", "synthesise", "score", "report"]
STAGES: tuple[Stage, ...] = ("prepare", "train", "search", "synthesise", "score", "report")
TEACHER = "teacher"


def grid_for(spec: GridSpec, nfe: int, solver: str) -> Tensor:
    """The time grid that spends ``nfe`` velocity evaluations, (steps + 1,).

    Args:
        spec: A name, points, or the path of a searched grid's .json file.
        nfe: Velocity evaluations per sample.
        solver: Name of the solver.

    Raises:
        GridError: No such grid, or not of this number of steps.
        ConfigError: The evaluations do not divide into steps, or the file is not there.
    """
    each = evaluations_per_step(solver)
    if nfe % each:
        raise ConfigError(f"{nfe} evaluations are no whole number of {solver} steps, which take {each} each")
    if isinstance(spec, str) and spec.endswith(".json"):
        path = Path(spec)
        if not path.is_file():
            raise ConfigError(f"no grid file {spec}; searched grids lie under runs/NAME/grids/")
        try:
            values = json.loads(path.read_text(encoding="utf-8"))["values"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{spec} is no file of a searched grid ({type(error).__name__}: {error}); they lie under runs/NAME/grids/"
            ) from None
        return make_grid(values, nfe // each)
    return make_grid(spec, nfe // each)


def name_of_grid(spec: GridSpec, nfe: int, solver: str) -> str:
    """The grid's name in tables; equal grids have equal names."""
    grid = grid_for(spec, nfe, solver)
    return grid_name(grid) if not isinstance(spec, str) or spec.endswith(".json") else grid_name(spec, len(grid) - 1)


@dataclass(frozen=True)
class Artefact:
    """A network that rows sample: trained in this run, or ready.

    Attributes:
        name: Its folder under ``artefacts/``, or "teacher".
        system: Index of its system; None for the experiment's teacher.
        ready: ``embedded:NAME`` or a folder, if nothing is trained.
        seed: Training seed; None for the settings' own.
    """

    name: str
    system: int | None
    ready: str | None = None
    seed: int | None = None


@dataclass(frozen=True)
class GridSearch:
    """A time grid to search for: ``grids/<name>.json``."""

    name: str
    artefact: str
    solver: str
    nfe: int
    search: Search


@dataclass(frozen=True)
class Row:
    """A row of the leaderboard: one cell.

    Attributes:
        system: Its name in tables.
        kind: "sampled" for a network's output, "recordings" for another program's; the two references otherwise.
        artefact: Name of the network.
        grid: Name, points or file of the time grid.
        search: Name of the search whose grid is used instead.
        solver: Name of the solver.
        nfe: Velocity evaluations per sample.
        guidance: w, where the row changes the artefact's own.
        noise_seed: Seed of the initial noise.
        test_set: Index of its test set, and what tells it from the others of the experiment, "" if it is the only one.
    """

    system: str
    kind: Literal["sampled", "ground-truth", "vocoded-ground-truth", "recordings"]
    artefact: str | None = None
    grid: str | tuple[float, ...] | None = None
    search: str | None = None
    solver: str | None = None
    nfe: int | None = None
    guidance: float | None = None
    noise_seed: int | None = None
    test_set: tuple[int, str] = (0, "")

    @property
    def label(self) -> str:
        """The row in a few words, unique within an experiment."""
        where = f" on {self.test_set[1]}" if self.test_set[1] else ""
        if self.kind != "sampled":
            return self.system + where
        grid = self.grid if isinstance(self.grid, str) else str(list(self.grid or ()))
        grid = grid if self.search is None else "searched"
        seed = f" noise {self.noise_seed}" if self.noise_seed else ""
        artefact = f" ({self.artefact})" if self.artefact != self.system.partition("+")[0] else ""
        solver = "" if self.solver == "euler" else f" {self.solver}"
        return f"{self.system}{artefact} {self.nfe} NFE {grid}{solver}{seed}{where}"


@dataclass(frozen=True)
class Job:
    """A piece of work: what executors order and run.

    Attributes:
        stage: What kind of work.
        subject: What it is done to: an artefact's, a search's or a metric's name, a row's label.
        needs: Names of the jobs that come first.
    """

    stage: Stage
    subject: str
    needs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Unique within the plan."""
        return f"{self.stage}:{self.subject}"


@dataclass(frozen=True)
class Plan:
    """Everything that an experiment asks for; deterministic in the configuration."""

    artefacts: dict[str, Artefact]
    searches: dict[str, GridSearch]
    rows: dict[str, Row]
    jobs: dict[str, Job]

    def of_stage(self, *stages: Stage) -> list[Job]:
        """The jobs of these stages, each after the jobs that it needs."""
        return [job for job in self.ordered() if job.stage in stages]

    def ordered(self) -> list[Job]:
        """All jobs, stage by stage, each after the jobs that it needs."""
        order = graphlib.TopologicalSorter({name: job.needs for name, job in self.jobs.items()}).static_order()
        rank = {name: i for i, name in enumerate(order)}
        listed = {name: i for i, name in enumerate(self.jobs)}
        depth: dict[str, int] = {}
        for name in rank:  # a topological order: what a job needs has its depth already
            depth[name] = 1 + max((depth[need] for need in self.jobs[name].needs), default=0)
        return sorted(self.jobs.values(), key=lambda j: (STAGES.index(j.stage), depth[j.name], listed[j.name]))


def make_plan(config: ExperimentConfig) -> Plan:
    """Unroll an experiment.

    Raises:
        ConfigError: A solver does not fit a method, or the trainings need each other in a circle.
    """
    artefacts = _artefacts(config)
    rows: dict[str, Row] = {}
    searches: dict[str, GridSearch] = {}

    labels = set_labels(config)

    def add(row: Row) -> None:
        for i, label in enumerate(labels):
            here = replace(row, test_set=(i, label if len(config.dataset) > 1 else ""))
            rows.setdefault(here.label, here)

    for kind in config.references:
        add(Row(kind, kind))
    for recordings in config.recordings:
        add(Row(recordings.name, "recordings"))
    if config.teacher is not None:
        for row in _teacher_rows(config, config.teacher, artefacts):
            add(row)
    for i, system in enumerate(config.systems):
        check_solver(system.solver, METHODS.get(system.method).kind)
        own = [a.name for a in artefacts.values() if a.system == i]
        for noise_seed in config.noise_seeds:
            for artefact in own:
                for row in _sampled(system, system.label, artefact, None, noise_seed):
                    add(row)
                for search, nfe in [(found, nfe) for found in system.search for nfe in found.nfe]:
                    name = f"{artefact}+{search.label}-{nfe}"
                    grid_for("uniform", nfe, system.solver)
                    searches[name] = GridSearch(name, artefact, system.solver, nfe, search)
                    label = f"{system.label}+{search.label}"
                    add(Row(label, "sampled", artefact, None, name, system.solver, nfe, None, noise_seed))
    # One test set after another: a reader wants a whole table early.
    rows = dict(sorted(rows.items(), key=lambda item: item[1].test_set[0]))
    return Plan(artefacts, searches, rows, _jobs(config, artefacts, searches, rows))


def set_labels(config: ExperimentConfig) -> list[str]:
    """What each test set is called in rows: dataset and set, and its options where others are called the same."""
    names = [f"{data.name}/{data.split}" for data in config.dataset]
    options = [", ".join(f"{key}={value}" for key, value in sorted(data.options.items())) for data in config.dataset]
    return [
        f"{name} ({told})" if names.count(name) > 1 and told else name
        for name, told in zip(names, options, strict=True)
    ]


def teacher_artefact(config: ExperimentConfig, artefacts: dict[str, Artefact]) -> Artefact:
    """The artefact that students start from and searches compare with."""
    assert config.teacher is not None
    if TEACHER in artefacts:
        return artefacts[TEACHER]
    return next(
        a
        for a in artefacts.values()
        if a.system is not None and config.systems[a.system].label == config.teacher.artefact
    )


def _artefacts(config: ExperimentConfig) -> dict[str, Artefact]:
    found: dict[str, Artefact] = {}
    labels = [system.label for system in config.systems]

    def add(artefact: Artefact) -> None:
        if artefact.name in found:
            raise ConfigError(
                f"two networks of this experiment are called {artefact.name!r}, one of them after a training seed: give a system "
                "another `name`"
            )
        found[artefact.name] = artefact

    if config.teacher is not None and config.teacher.artefact not in labels:
        found[TEACHER] = Artefact(TEACHER, None, ready=config.teacher.artefact)
    for i, system in enumerate(config.systems):
        if system.artefact is not None:
            add(Artefact(system.label, i, ready=system.artefact))
        elif system.seeds is None or len(system.seeds) == 1:
            add(Artefact(system.label, i, seed=system.seeds[0] if system.seeds else None))
        else:
            for seed in system.seeds:
                add(Artefact(f"{system.label}-seed{seed}", i, seed=seed))
    return found


def _teacher_rows(config: ExperimentConfig, teacher: TeacherRows, artefacts: dict[str, Artefact]) -> list[Row]:
    artefact = teacher_artefact(config, artefacts).name
    return [row for seed in config.noise_seeds for row in _sampled(teacher, TEACHER, artefact, teacher.guidance, seed)]


def _sampled(rows: TeacherRows | System, label: str, artefact: str, guidance: float | None, seed: int) -> list[Row]:
    found: dict[tuple[float, ...], Row] = {}
    for nfe in rows.nfe:
        for spec in rows.grid:
            values = tuple(grid_for(spec, nfe, rows.solver).tolist())
            # At one step all named grids are the same grid: one row, not several.
            written = spec if isinstance(spec, str) and spec.endswith(".json") else name_of_grid(spec, nfe, rows.solver)
            grid = written if isinstance(spec, str) or not written.startswith("[") else tuple(spec)
            found.setdefault(values, Row(label, "sampled", artefact, grid, None, rows.solver, nfe, guidance, seed))
    return list(found.values())


def _jobs(
    config: ExperimentConfig, artefacts: dict[str, Artefact], searches: dict[str, GridSearch], rows: dict[str, Row]
) -> dict[str, Job]:
    found: dict[str, Job] = {}

    def add(stage: Stage, subject: str, *needs: str) -> str:
        job = Job(stage, subject, tuple(dict.fromkeys(needs)))
        found[job.name] = job
        return job.name

    prepare = add("prepare", config.name)
    first: dict[str, str] = {}
    for artefact in artefacts.values():
        if artefact.ready is None:
            assert artefact.system is not None
            # Of equal trainings one is done; the others wait for it, and take it over.
            same = first.setdefault(training_content(config, artefact), artefact.name)
            needs = [prepare, *([f"train:{same}"] if same != artefact.name else [])]
            if METHODS.get(config.systems[artefact.system].method).needs.teacher:
                needs += _training(teacher_artefact(config, artefacts))
            add("train", artefact.name, *needs)
    for search in searches.values():
        teacher = _training(teacher_artefact(config, artefacts)) if config.teacher is not None else []
        add("search", search.name, prepare, *_training(artefacts[search.artefact]), *teacher)
    for row in rows.values():
        needs = [prepare]
        if row.artefact is not None:
            needs += _training(artefacts[row.artefact])
        if row.search is not None:
            needs.append(f"search:{row.search}")
        add("synthesise", row.label, *needs)
    sampled = [job.name for job in found.values() if job.stage == "synthesise"]
    scored = [add("score", metric, *sampled) for metric in config.metrics]
    for report in config.reports if rows else ():
        add("report", report, *sampled, *scored)
    try:
        graphlib.TopologicalSorter({name: job.needs for name, job in found.items()}).prepare()
    except graphlib.CycleError as error:
        raise ConfigError(f"these trainings need each other in a circle: {' → '.join(error.args[1])}") from None
    return found


def _training(artefact: Artefact) -> list[str]:
    return [] if artefact.ready is not None else [f"train:{artefact.name}"]


def training_content(config: ExperimentConfig, artefact: Artefact) -> str:
    """Hash of what decides a training, as far as the experiment says it."""
    assert artefact.system is not None
    system = config.systems[artefact.system]
    seed = {} if artefact.seed is None else {"seed": artefact.seed}
    method = METHODS.get(system.method)
    known = config.training_of(system)
    if system.timed_minutes is not None:  # it is known by its minutes, as before they were timed, and as its equals
        known = {key: value for key, value in known.items() if key != "steps"}
    settings = TrainConfig.model_validate({**known, **seed})
    decides = {
        "task": config.task,
        "method": system.method,
        "config": method.Config(**system.config).model_dump(mode="json"),
        "training": settings.decisive(),
        "network": None if method.needs.teacher else system.network.model_dump(mode="json"),
        "teacher": config.teacher.artefact if method.needs.teacher and config.teacher is not None else None,
        "beginning": system.beginning,
        "train_data": config.train_data.model_dump(mode="json"),
    }
    return content_hash(decides)


def step_content(config: ExperimentConfig, index: int) -> str:
    """Hash of what decides what a step of a system costs, and so how many its minutes are: its training but for length and seed.

    The content of a training knows a teacher by its name: the network of one that is trained here as well is a part of its own.
    """

    def plain(settings: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in settings.items() if key not in ("steps", "minutes", "seed")}

    system = config.systems[index]
    systems = [one.model_copy(update={"train": plain(one.train)}) for one in config.systems]
    endless = config.model_copy(update={"training": plain(config.training), "systems": systems})
    taught = METHODS.get(system.method).needs.teacher and config.teacher is not None
    teachers = [one for one in systems if taught and config.teacher and one.label == config.teacher.artefact]
    networks = [[one.artefact, one.network.model_dump(mode="json")] for one in teachers]
    return content_hash([training_content(endless, Artefact(system.label, index)), networks])[:16]


def teacher_nfe(config: dict[str, Any]) -> int | None:
    """K, the teacher's steps behind each training target, from a method's settings; None where it has none."""
    found = config.get("teacher_nfe")
    return int(found) if found is not None else None


__all__ = [
    "STAGES",
    "TEACHER",
    "Artefact",
    "GridError",
    "GridSearch",
    "Job",
    "Plan",
    "Row",
    "Stage",
    "grid_for",
    "make_plan",
    "name_of_grid",
    "step_content",
    "teacher_artefact",
    "teacher_nfe",
    "training_content",
]
