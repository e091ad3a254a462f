"""What an experiment takes, before any of it is there: each training by part, then time and disk of the whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from imfbench.artefact import ArtefactError, read_network
from imfbench.config import ExperimentConfig
from imfbench.pipeline.content import parts_of
from imfbench.pipeline.context import STOPPING, Context, one_line
from imfbench.pipeline.cost import Cost, Left, costs_of
from imfbench.pipeline.measurements import MEASURED, Measurements, call_key, step_key
from imfbench.pipeline.overview import PRICED, everything_of, measure_first, plan_of, summed_by_stage
from imfbench.pipeline.plan import Artefact, teacher_artefact
from imfbench.pipeline.train import settings_of
from imfbench.profiling.trainings import EFFICIENCY, Price, Sizes, matrix_product_speed, price
from imfbench.registry import BACKBONES, METHODS, nearest
from imfbench.store import RunFolder

ESTIMATED = "estimated"


@dataclass(frozen=True)
class PlannedTraining:
    """A training of the experiment.

    Attributes:
        experiment: Which, of a run of several.
        name: Of the artefact.
        sizes: What is trained.
        price: Of a step.
        steps: Optimiser steps; None where minutes are the budget and no second of a step is known.
        seconds: Of the whole training; None if nothing is known.
    """

    experiment: str
    name: str
    sizes: Sizes
    price: Price
    steps: int | None
    seconds: float | None

    def row(self) -> dict[str, Any]:
        """The training as a flat row."""
        settings = self.sizes.settings
        return {
            "experiment": self.experiment, "name": self.name, "method": self.sizes.method, "config": self.sizes.config,
            "network": self.sizes.backbone, "frames_per_batch": settings.frames_per_batch, "accumulate": settings.accumulate,
            "processes": settings.processes, "assumed_batch": list(self.sizes.batch), **asdict(self.price),
            "steps": self.steps, "training_seconds": self.seconds,
        }  # fmt: skip


@dataclass
class ExperimentPlan:
    """The plan.

    Attributes:
        trainings: All of them, finished ones as well.
        stages: What is left of each stage; empty where the data are not here.
        everything: All stages together.
        notes: What could not be known, and why.
    """

    trainings: list[PlannedTraining] = field(default_factory=list)
    stages: list[Cost] = field(default_factory=list)
    everything: Cost | None = None
    notes: list[str] = field(default_factory=list)


def plan_experiment(
    config: ExperimentConfig, out: Path, *, measure: bool = True, flops_per_second: float | None = None,
    network: str | None = None, told: Callable[[str], None] = lambda _: None,
) -> ExperimentPlan:  # fmt: skip
    """Find out what an experiment takes.

    Args:
        config: The experiment, with those that follow it.
        out: Its run folder; what is done there already costs nothing more.
        measure: Run what is quick here: a step of trainings that fit, and what the dry run measures.
        flops_per_second: Speed of matrix products of another machine, for which the trainings are planned; no step is run then.
        network: Backbone that stands for a teacher whose artefact is not here.
        told: Called with what is done next.

    Raises:
        ConfigError, ArtefactError: The experiment cannot be planned: no such network, or a teacher that is not here.
    """
    if network is not None and network not in BACKBONES.names():
        raise ArtefactError(f"--network {network}: {nearest(network, BACKBONES.names())}")
    elsewhere = flops_per_second is not None
    found, plan = Measurements(elsewhere=elsewhere), ExperimentPlan()
    priced: dict[str, Price] = {}
    for part in parts_of(config):
        context = Context(part, RunFolder(out if part is config else out / part.name))
        context.share_threads()
        for artefact in context.plan.artefacts.values():
            if artefact.ready is not None:
                continue
            sizes, key = _sizes(context, artefact, network), step_key(context, artefact)
            if key not in priced:
                told(f"{artefact.name}: a step of {sizes.method} on {sizes.backbone}")
                priced[key] = price(sizes, context.device, measure, flops_per_second)
                if priced[key].note:
                    plan.notes.append(f"{artefact.name}: {priced[key].note}")
            plan.trainings.append(_planned(part.name, artefact.name, sizes, priced[key]))
            _keep(found, context, key, plan.trainings[-1], flops_per_second)
    try:
        told("the whole experiment" + (": measuring a first cell" if measure and not elsewhere else ""))
        lefts, found = plan_of(config, out, found)
        if elsewhere:
            plan.notes.append(
                "only trainings and sampling are reckoned for another machine: what vocoders and scorers take there is not known"
            )
        elif measure:
            for left in lefts:
                measure_first(left, found, PRICED)
    except STOPPING + (OSError,) as error:  # noqa: RUF005
        plan.notes.append(f"the whole experiment is not known: {one_line(error)}")
        return plan
    plan.notes += [f"not measured: {what}: {why}" for what, why in found.unmeasured.items()]
    _total(plan, lefts, found)
    return plan


def _total(plan: ExperimentPlan, lefts: Sequence[Left], found: Measurements) -> None:
    costs = [costs_of(left, found, PRICED) for left in lefts]
    plan.stages, plan.everything = summed_by_stage(costs, PRICED), everything_of(lefts, costs)


def _sizes(context: Context, artefact: Artefact, network: str | None) -> Sizes:
    assert artefact.system is not None
    system = context.config.systems[artefact.system]
    backbone, shape = _network(context, artefact, network)
    return Sizes(
        system.method, system.config, backbone, shape, settings_of(context.config, artefact), context.config.task
    )


def _network(context: Context, artefact: Artefact, network: str | None) -> tuple[str, dict[str, Any]]:
    """Backbone and shape: its own, or those of the teacher that it starts from."""
    if artefact.ready is not None:
        try:
            return read_network(artefact.ready)
        except ArtefactError as error:
            if network is not None:
                return network, {}
            raise ArtefactError(f"{error}; --network NAME plans with a network of that name in its place") from None
    assert artefact.system is not None
    system = context.config.systems[artefact.system]
    if METHODS.get(system.method).needs.teacher:
        return _network(context, teacher_artefact(context.config, context.plan.artefacts), network)
    return system.network.name, system.network.config


def _planned(experiment: str, name: str, sizes: Sizes, price: Price) -> PlannedTraining:
    steps, minutes = sizes.settings.steps, sizes.settings.minutes
    shared = None if price.seconds is None else price.seconds / sizes.settings.processes
    if steps is not None:
        return PlannedTraining(experiment, name, sizes, price, steps, None if shared is None else steps * shared)
    budget = (minutes or 0.0) * 60
    return PlannedTraining(experiment, name, sizes, price, max(1, round(budget / shared)) if shared else None, budget)


def _keep(
    found: Measurements, context: Context, key: str, training: PlannedTraining, flops_per_second: float | None
) -> None:
    """Have the whole experiment's cost rest on these figures."""
    price, settings = training.price, training.sizes.settings
    source = MEASURED if price.seconds_kind == "measured" else ESTIMATED
    if price.seconds is not None:
        found.keep(("step", key), price.seconds / settings.processes, source)
    if price.peak is not None:
        found.keep(("step memory", key), price.peak, source)
    if price.parameters:
        # The artefact, and a checkpoint of the network, its average and the two moments of Adam.
        found.keep(("training bytes", key), 4 * (3 * price.parameters + 2 * price.trained), ESTIMATED)
    if price.call_flops is not None:
        speed = flops_per_second or matrix_product_speed(context.device, "fp32")
        found.keep(call_key(context, key), price.call_flops / (speed * EFFICIENCY), ESTIMATED)
