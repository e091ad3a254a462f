"""Run what the chosen claims need and is not there, judge them, and write what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from imfbench.artefact import ArtefactError, identity
from imfbench.claims import measurements as measuring
from imfbench.claims.definition import FILE, BudgetName, Claim, Claims, load_experiment, of_budget, of_task
from imfbench.claims.evidence import Evidence, measurement_file
from imfbench.claims.judgement import judge
from imfbench.claims.node import Node
from imfbench.config import TEACHER_DISTANCE, ExperimentConfig, limited
from imfbench.config_file import ConfigError
from imfbench.data import DatasetError
from imfbench.devices import available_threads, describe, resolve_device
from imfbench.pipeline.context import Context, NotReadyError, RunError, one_line
from imfbench.pipeline.other_runs import take_over
from imfbench.progress import Reporting, clock, log
from imfbench.store import RunFolder, StoreError
from imfbench.weights import MissingModelError

STAGES = ("train", "search", "synthesise", "score")
"""What an experiment of a claim goes through, its reports left out."""

_LEFT_OUT = (ArtefactError, ConfigError, DatasetError, MissingModelError, NotReadyError, RunError)
"""What stops one experiment and not the others: its claims say why."""


@dataclass(frozen=True)
class Request:
    """What ``imfbench claims`` was asked for.

    Attributes:
        claims: claims.yaml.
        chosen: Of its claims.
        budget: Which runs.
        out: Folder of the runs and of claims.md.
        settings: ``--set`` of every experiment.
        limit: At most so many utterances of each set.
        reuse: Folders of other runs.
        folder: Where the budgets' experiments lie.
    """

    claims: Claims
    chosen: Sequence[Claim]
    budget: BudgetName
    out: Path
    settings: tuple[str, ...] = ()
    limit: int | None = None
    reuse: tuple[Path, ...] = ()
    folder: Path = FILE.parent

    def experiments(self) -> dict[str, ExperimentConfig]:
        """The experiments that the chosen claims need, each once, in the order of the claims.

        Raises:
            ConfigError: One of them is wrong, or the budget lacks it.
        """
        found: dict[str, ExperimentConfig] = {}
        names = self._names()
        if self.settings and not names:
            self._check_settings()
        for name in names:
            config = load_experiment(name, self.budget, self.settings, self.folder)
            if config is None:
                raise ConfigError(
                    f"claims.yaml names the experiment {name!r}, which the budget {self.budget} does not have"
                )
            found[name] = config if self.limit is None else limited(config, self.limit)
        return found

    def measurements(self) -> dict[str, measuring.Measurement]:
        """The measurements that they need."""
        known = self.claims.budgets[self.budget].measurements
        return {part.measurement: known[part.measurement] for part in self._parts() if part.measurement is not None}

    @property
    def device(self) -> torch.device:
        """Where measurements are made that belong to no experiment: the device that is set for all experiments.

        Raises:
            ConfigError: There is no such device.
        """
        try:
            return resolve_device(self._setting("device") or "auto")
        except ValueError as error:
            raise ConfigError(str(error)) from None

    @property
    def threads(self) -> int | None:
        """CPU threads that are set for all experiments, if so."""
        threads = self._setting("threads")
        if threads is None:
            return None
        if not str(threads).isdecimal() or not int(threads):
            raise ConfigError(f"threads is {threads!r}: set a whole number of CPU threads, 1 at least")
        return int(threads)

    def stopped(self) -> str | None:
        """Why nothing of the budget can be run on this machine, if so."""
        budget = self.claims.budgets[self.budget]
        if budget.needs == "accelerator" and self.device.type == "cpu":
            why = "the chosen device is none" if self._setting("device") == "cpu" else "this machine has none"
            return f"the budget {self.budget} needs an accelerator, and {why}: {budget.about}"
        return None

    def begun(self, claim: Claim) -> bool:
        """Whether there is anything in the folder by which a claim can be judged, whatever this machine can run."""
        parts = [part for part in claim.parts if of_budget(claim, part, self.budget)]
        known = self.claims.budgets[self.budget].measurements
        measured = [part.measurement for part in parts if part.measurement is not None]
        names = [part.experiment for part in parts] + [known[name].experiment for name in measured]
        files = [measurement_file(self.out, name) for name in measured]
        return any((self.out / name).is_dir() for name in names if name) or any(file.is_file() for file in files)

    def _setting(self, key: str) -> str | None:
        """The last ``--set`` of a setting that all experiments have."""
        found = [value.strip() for name, _, value in (s.partition("=") for s in self.settings) if name.strip() == key]
        return found[-1] if found else None

    def _check_settings(self) -> None:
        """Refuse a setting that no experiment of the budget takes, where the chosen claims have none that would refuse it."""
        names = [path.stem for path in sorted((self.folder / self.budget).glob("*.yaml"))]
        plain = {name: load_experiment(name, self.budget, folder=self.folder) for name in names}
        for setting in self.settings:
            asked = [name for name, config in plain.items() if config and of_task((setting,), config.task)]
            refusals = [error for name in asked if (error := self._refusal(name, setting))]
            if asked and len(refusals) == len(asked):
                raise refusals[0]

    def _refusal(self, experiment: str, setting: str) -> ConfigError | None:
        """Why an experiment does not take a setting, if so."""
        try:
            load_experiment(experiment, self.budget, (setting,), self.folder)
        except ConfigError as error:
            return error
        return None

    def _parts(self) -> list[Any]:
        return [p for claim in self.chosen for p in claim.parts if of_budget(claim, p, self.budget)]

    def _names(self) -> list[str]:
        measured = [m.experiment for m in self.measurements().values()]
        parts = [part.experiment for part in self._parts()]
        return list(dict.fromkeys(name for name in (*parts, *measured) if name is not None))


@dataclass
class Outcome:
    """The chosen claims with their verdicts.

    Attributes:
        nodes: Claim → verdict and how it came about.
        experiments: What was run.
        evidence: Where it lies.
        hardware: Of the machine that judged; each verdict's scale has those on which its evidence was made.
    """

    nodes: list[tuple[Claim, Node]]
    experiments: dict[str, ExperimentConfig]
    evidence: Evidence
    hardware: dict[str, Any] = field(default_factory=dict)


def run_claims(request: Request, reporting: Reporting | None = None, work: bool = True) -> Outcome:
    """Run, measure, judge.

    Args:
        request: What was asked for.
        reporting: Where progress goes.
        work: False judges what is there.

    Raises:
        ConfigError, StoreError: Things for the user to mend.
    """
    from imfbench import experiment as engine

    stopped = request.stopped()
    if stopped and work:
        log.warning("nothing is run: %s", stopped)
        work = False
    experiments = request.experiments()
    failures: dict[str, str] = {}
    jobs: dict[str, dict[str, str]] = {}
    for name, config in experiments.items() if work else ():
        folder = request.out / name
        try:
            # A training that two experiments share is made once: the second finds it among the first's.
            take_over(config, folder, (request.out, *request.reuse))
            log.info("experiment %s, for %s", name, _whose(request, name))
            for context in engine.run_all(config, folder, reporting=reporting):
                jobs.setdefault(name, {}).update(context.failures)
                for job, reason in context.failures.items():
                    log.warning("%s: %s failed: %s", name, job, reason)
        except _LEFT_OUT as error:
            failures[name] = f"{name}: {error}"
            log.error("experiment %s cannot be run: %s", name, error)
    evidence = Evidence(request.out, failures, jobs)
    for name, settings in request.measurements().items() if work else ():
        try:
            measure(request, name, settings, experiments, evidence, reporting)
        except StoreError:
            raise
        except Exception as error:  # a mel that is not finite, speech without a figure: the other claims can be judged
            evidence.failures[name] = f"{name}: {one_line(error)}"
            log.error("measurement %s cannot be made: %s", name, one_line(error))
            log.debug("measurement %s", name, exc_info=True)
    # What another machine has run is evidence here too: only where there is none, nothing can be said.
    nodes = [
        (claim, judge(claim, request.budget, evidence, None if request.begun(claim) else stopped))
        for claim in request.chosen
    ]
    return Outcome(nodes, experiments, evidence, describe(request.device))


def measure(
    request: Request, name: str, settings: measuring.Measurement, experiments: dict[str, ExperimentConfig],
    evidence: Evidence, reporting: Reporting | None = None,
) -> None:  # fmt: skip
    """Make a measurement, or the rest of it, in this process alone: nothing runs beside it.

    Speed is timed with the threads of its experiment; all else has every core, if no number of threads was asked for.
    """
    config = None if settings.experiment is None else experiments[settings.experiment]
    context = _alone(request, settings, config, reporting)
    if context is None:
        torch.set_num_threads(request.threads or available_threads())  # an experiment before it may have left one
    device = request.device if context is None else context.device
    record = measuring.Record(evidence.measurement_file(name), settings, _of(settings, context), describe(device))
    if record.complete:
        return
    log.info("measuring %s", name)

    def note(what: str) -> None:
        log.info("%s: %s", name, what)

    if isinstance(settings, measuring.StepMeasurement):
        measuring.measure_steps(settings, record, device, note)
    elif isinstance(settings, measuring.SpeedMeasurement):
        measuring.measure_speed(settings, record, context, note)
    else:
        measuring.measure_scores(settings, record, context, note)
        from imfbench.claims.render import plot_lattice

        plot_lattice(record.rows(), settings, evidence.measurement_file(name).with_suffix(".png"))
    record.finish()


def _alone(
    request: Request, settings: measuring.Measurement, config: ExperimentConfig | None,
    reporting: Reporting | None = None,
) -> Context | None:  # fmt: skip
    """The experiment of a measurement as it is measured, by one process; None if it has none."""
    if config is None or settings.experiment is None:
        return None
    speed = isinstance(settings, measuring.SpeedMeasurement)
    alone: dict[str, Any] = {"workers": 1} | ({} if speed else {"threads": request.threads})
    return Context(
        config.model_copy(update=alone), RunFolder(request.out / settings.experiment), reporting or Reporting()
    )


def _of(settings: measuring.Measurement, context: Context | None) -> dict[str, Any]:
    """What is measured, and how: rows of something else are no part of a measurement."""
    if context is None:
        return {}
    of: dict[str, Any] = {"artefacts": _shas(context), "threads": context.threads, "dtype": context.dtype}
    if isinstance(settings, measuring.SpeedMeasurement):
        of["timing"] = "warm"  # rows from before the kernels of a length were made ahead are of another measurement
        used = measuring.spread(context.utterances(context.config.dataset[0]), settings.utterances)
    else:
        used = context.utterances(context.config.dev)
    if getattr(settings, "score", None) != TEACHER_DISTANCE:
        of["vocoder"] = context.vocoder_name
    return {**of, "utterances": [u.id for u in used]}


def _shas(context: Context) -> dict[str, str]:
    """Artefact → what it is known by, as far as it is there."""
    found = {}
    for name in context.plan.artefacts:
        try:
            found[name] = identity(context.card(name))
        except (NotReadyError, ArtefactError):
            continue
    return found


def _whose(request: Request, experiment: str) -> str:
    claims = [
        str(claim.number) for claim in request.chosen
        if any(
            of_budget(claim, part, request.budget)
            and experiment in (part.experiment, getattr(request.measurements().get(part.measurement or ""), "experiment", None))
            for part in claim.parts
        )
    ]  # fmt: skip
    return f"claim{'s' * (len(claims) > 1)} {', '.join(claims)}"


def describe_plan(request: Request) -> None:
    """Print what would be run, how far it has come, and what all of it costs."""
    from rich.console import Console
    from rich.markup import escape

    from imfbench.claims.cost import cost_of
    from imfbench.pipeline.cost import Cost, in_words, total
    from imfbench.pipeline.measurements import Measurements
    from imfbench.pipeline.overview import describe as overview

    console = Console()
    budget = request.claims.budgets[request.budget]
    console.print(
        f"[bold]budget {request.budget}[/bold]: {budget.about} {budget.estimate} → {escape(str(request.out))}",
        highlight=False,
    )
    for claim in request.chosen:
        where = "" if request.budget in claim.budgets else f" (not in this budget; {', '.join(claim.budgets)})"
        console.print(f"{claim.number:>3}  {claim.title}{where}", highlight=False)
    if reason := request.stopped():
        console.print(reason, highlight=False, markup=False)
        return
    found, seen = Measurements(), dict[str, str]()  # what two experiments share is made once, and counted once
    contexts: dict[str, Context] = {}
    costs: list[Cost] = []
    for name, config in request.experiments().items():
        console.print(f"\nfor {_whose(request, name)}:", highlight=False)
        try:
            lefts, cost = overview(config, request.out / name, STAGES, found=found, seen=seen)
        except _LEFT_OUT as error:
            console.print(f"cannot be run: {error}", highlight=False, markup=False)
            continue
        contexts[name] = lefts[0].context
        costs.append(cost)
    console.print()
    for name, settings in request.measurements().items():
        told = f"measurement {name} ({settings.kind})"
        if settings.experiment is not None and settings.experiment not in contexts:
            console.print(f"{told}: cannot be made, {settings.experiment} cannot be run", highlight=False)
            continue
        try:
            context = None if settings.experiment is None else contexts[settings.experiment]
            what = _of(settings, _alone(request, settings, None if context is None else context.config))
            device = request.device if context is None else context.device
            record = measuring.Record(measurement_file(request.out, name), settings, what, describe(device))
            cost = cost_of(settings, record.rows(), context, found, request.device)
        except (*_LEFT_OUT, KeyError) as error:
            console.print(f"{told}: cannot be made: {error}", highlight=False, markup=False)
            continue
        costs.append(cost)
        time = (
            ""
            if not cost.left
            else f", {'an unknown time' if cost.seconds is None else f'about {clock(cost.seconds)}'}"
        )
        of = f" ({', '.join(sorted(cost.sources))})" if cost.sources else ""
        console.print(f"{told}: {cost.left or 'done'}{time}{of}", highlight=False)
    console.print(f"all experiments and measurements, one after another: {in_words(total(costs, 1))}", highlight=False)
