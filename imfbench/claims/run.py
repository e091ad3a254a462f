"""Run what the chosen claims need and is not there, judge them, and write what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imfbench.artefact import ArtefactError
from imfbench.claims import measurements as measuring
from imfbench.claims.definition import FILE, BudgetName, Claim, Claims, load_experiment, of_budget
from imfbench.claims.evidence import Evidence
from imfbench.claims.judgement import judge
from imfbench.claims.node import Node
from imfbench.claims.reuse import take_over
from imfbench.config import TEACHER_DISTANCE, ExperimentConfig, limited
from imfbench.config_file import ConfigError
from imfbench.data import DatasetError
from imfbench.devices import describe, resolve_device
from imfbench.pipeline.context import Context, NotReadyError, RunError
from imfbench.progress import Reporting, log
from imfbench.store import RunFolder
from imfbench.weights import MissingModelError

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
        for name in self._names():
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

    def stopped(self) -> str | None:
        """Why nothing of the budget can be run on this machine, if so."""
        budget = self.claims.budgets[self.budget]
        if budget.needs == "accelerator" and resolve_device("auto").type == "cpu":
            return f"the budget {self.budget} needs an accelerator, and this machine has none: {budget.about}"
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
        hardware: Of this machine.
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
    experiments = {} if stopped else request.experiments()
    failures: dict[str, str] = {}
    for name, config in experiments.items() if work else ():
        folder = request.out / name
        try:
            # A training that two experiments share is made once: the second finds it among the first's.
            take_over(config, folder, (request.out, *request.reuse))
            log.info("experiment %s, for %s", name, _whose(request, name))
            for context in engine.run_all(config, folder, reporting=reporting):
                for job, reason in context.failures.items():
                    log.warning("%s: %s failed: %s", name, job, reason)
        except _LEFT_OUT as error:
            failures[name] = f"{name}: {error}"
            log.error("experiment %s cannot be run: %s", name, error)
    evidence = Evidence(request.out, failures)
    for name, settings in request.measurements().items() if work and not stopped else ():
        try:
            measure(request, name, settings, experiments, evidence, reporting)
        except (*_LEFT_OUT, KeyError) as error:
            evidence.failures[name] = f"{name}: {error}"
            log.error("measurement %s cannot be made: %s", name, error)
    nodes = [(claim, judge(claim, request.budget, evidence, stopped)) for claim in request.chosen]
    return Outcome(nodes, experiments, evidence, describe(resolve_device("auto")))


def measure(
    request: Request, name: str, settings: measuring.Measurement, experiments: dict[str, ExperimentConfig],
    evidence: Evidence, reporting: Reporting | None = None,
) -> None:  # fmt: skip
    """Make a measurement, or the rest of it, in this process alone: nothing runs beside it."""
    context: Context | None = None
    of: dict[str, Any] = {}
    if settings.experiment is not None:
        config = experiments[settings.experiment].model_copy(update={"workers": 1})
        context = Context(config, RunFolder(request.out / settings.experiment), reporting or Reporting())
        speed = isinstance(settings, measuring.SpeedMeasurement)
        used = context.utterances(context.config.dataset[0] if speed else context.config.dev)
        of |= {"artefacts": _shas(context), "threads": context.threads, "dtype": context.dtype}
        if speed or getattr(settings, "score", None) != TEACHER_DISTANCE:
            of["vocoder"] = context.vocoder_name
        of |= {"utterances": [u.id for u in (used[: settings.utterances] if speed else used)]}  # type: ignore[union-attr]
    record = measuring.Record(evidence.measurement_file(name), settings, of, describe(resolve_device("auto")))
    if record.complete:
        return
    log.info("measuring %s", name)

    def note(what: str) -> None:
        log.info("%s: %s", name, what)

    if isinstance(settings, measuring.StepMeasurement):
        measuring.measure_steps(settings, record, resolve_device("auto"), note)
    elif isinstance(settings, measuring.SpeedMeasurement):
        measuring.measure_speed(settings, record, context, note)
    else:
        measuring.measure_scores(settings, record, context, note)
        from imfbench.claims.render import plot_lattice

        plot_lattice(record.rows(), settings, evidence.measurement_file(name).with_suffix(".png"))
    record.finish()


def _shas(context: Context) -> dict[str, str]:
    """Artefact → sha256 of its weights, as far as they are there."""
    found = {}
    for name in context.plan.artefacts:
        try:
            found[name] = str(context.card(name)["sha256"])
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
    """Print what would be run, and how far it has come."""
    from rich.console import Console

    from imfbench.pipeline.overview import describe as overview

    console = Console()
    budget = request.claims.budgets[request.budget]
    console.print(
        f"[bold]budget {request.budget}[/bold]: {budget.about} {budget.estimate} → {request.out}", highlight=False
    )
    for claim in request.chosen:
        where = "" if request.budget in claim.budgets else f" (not in this budget; {', '.join(claim.budgets)})"
        console.print(f"{claim.number:>3}  {claim.title}{where}", highlight=False)
    if reason := request.stopped():
        console.print(reason, highlight=False)
        return
    for name, config in request.experiments().items():
        console.print(f"\nfor {_whose(request, name)}:", highlight=False)
        try:
            overview(config, request.out / name, ("train", "search", "synthesise"))
        except _LEFT_OUT as error:
            console.print(f"cannot be run: {error}", highlight=False)
    for name, settings in request.measurements().items():
        console.print(f"measurement {name}: {settings.kind}", highlight=False)
