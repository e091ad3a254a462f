"""The scale of a verdict: which teacher, how long the students were trained, on how much speech, on which machine."""

from __future__ import annotations

import statistics
from typing import Any

from imfbench.artefact import ArtefactError, identity, read_card
from imfbench.claims.definition import BudgetName, Claim, of_budget
from imfbench.claims.evidence import Evidence
from imfbench.claims.machines import in_words, machines_of
from imfbench.claims.measurements import Measurement, StepMeasurement
from imfbench.claims.node import Node
from imfbench.config import ExperimentConfig
from imfbench.metrics.stats import statement_scope
from imfbench.pipeline.plan import Artefact, make_plan, teacher_artefact
from imfbench.store import read_json


def scale_of(
    claim: Claim, node: Node, budget: BudgetName, experiments: dict[str, ExperimentConfig], evidence: Evidence,
    measured: dict[str, Measurement],
) -> dict[str, Any]:  # fmt: skip
    """What a verdict may be quoted with; of experiments and measurements only those that have been begun.

    Args:
        claim: The claim.
        node: Its verdict.
        budget: Of the run.
        experiments: By name.
        evidence: Where they were run.
        measured: Measurements by name.
    """
    names: list[str | None] = []
    measurements: dict[str, Measurement] = {}
    for part in claim.parts:
        if of_budget(claim, part, budget):
            one = measured.get(part.measurement or "")
            names += [part.experiment, None if one is None else one.experiment]
            if (
                part.measurement is not None
                and one is not None
                and evidence.measurement_file(part.measurement).is_file()
            ):
                measurements[part.measurement] = one
    begun = [n for n in dict.fromkeys(names) if n is not None and n in experiments and (evidence.out / n).is_dir()]
    found: dict[str, Any] = {"budget": budget, "experiments": {}}
    if sizes := [one for one in measurements.values() if isinstance(one, StepMeasurement)]:
        found["sizes"] = _sizes(sizes[0])
    for name in begun:
        found["experiments"][name] = _experiment(experiments[name], evidence, name)
    found["hardware"] = machines_of(evidence, begun, measurements)
    if node.training_seeds is not None:
        found["about"] = "methods" if statement_scope(range(node.training_seeds)) == "methods" else "these checkpoints"
    found["text"] = _text(found, node)
    return found


def _sizes(measurement: StepMeasurement) -> str:
    def span(name: str) -> str:
        values = [getattr(size, name) for size in measurement.sizes]
        return f"{min(values)} to {max(values)}"

    return f"untrained networks of width {span('width')}, batches of {span('batch')} × {span('frames')} frames"


def _experiment(config: ExperimentConfig, evidence: Evidence, name: str) -> dict[str, Any]:
    artefacts = make_plan(config).artefacts
    teacher = None if config.teacher is None else teacher_artefact(config, artefacts)
    students = {
        artefact.name: _training(artefact, evidence, name)
        for artefact in artefacts.values()
        if artefact.system is not None and not _same(artefact, teacher)
    }
    sets = [
        f"{data.name}/{data.split}"
        + (f", {data.limit} utterances" if data.limit else "")
        + (" (each voice's shortest)" if data.limit and data.prefer_short else "")
        for data in config.dataset
    ]
    return {
        "task": config.task,
        "teacher": None if config.teacher is None else config.teacher.artefact,
        "teacher_training": None if teacher is None else _training(teacher, evidence, name),
        "students": {key: value for key, value in students.items() if value},
        "sets": sets,
    }


def _same(artefact: Artefact, teacher: Artefact | None) -> bool:
    """Whether an artefact is the teacher, which may stand among the systems as well, on grids of its own."""
    if teacher is None or artefact.name == teacher.name:
        return teacher is not None
    if artefact.ready is None or teacher.ready is None:
        return False
    try:
        return artefact.ready == teacher.ready or identity(read_card(artefact.ready)) == identity(
            read_card(teacher.ready)
        )
    except ArtefactError:
        return False


def _training(artefact: Artefact, evidence: Evidence, experiment: str) -> dict[str, Any]:
    if artefact.ready is not None:
        return _of_card(artefact.ready)
    return _of_status(read_json(evidence.out / experiment / "artefacts" / artefact.name / "status.json"))


def _of_card(reference: str) -> dict[str, Any]:
    try:
        return _of_status(read_card(reference).get("training"))
    except ArtefactError:
        return {}


def _of_status(status: Any) -> dict[str, Any]:
    if not isinstance(status, dict) or not isinstance(status.get("seconds"), int | float):
        return {}
    return {
        "minutes": round(status["seconds"] / 60, 1), "steps": status.get("steps"), "seed": status.get("seed"),
        "parameters": status.get("parameters"), "status": status.get("status", "ok"),
    }  # fmt: skip


def _text(scale: dict[str, Any], node: Node) -> str:
    parts = [f"budget {scale['budget']}", *([scale["sizes"]] if "sizes" in scale else [])]
    for name, experiment in scale["experiments"].items():
        told = [f"{name}:"]
        if experiment["teacher"]:
            size = experiment["teacher_training"].get("parameters")
            told.append(f"teacher {experiment['teacher']}" + (f" ({size / 1e6:.1f} M parameters)," if size else ","))
        minutes = [student["minutes"] for student in experiment["students"].values()]
        if minutes:
            low, high = min(minutes), max(minutes)
            span = f"{statistics.median(minutes):.0f}" if high - low < 1 else f"{low:.0f} to {high:.0f}"
            told.append(f"students of {span} minutes' training,")
        told.append(" and ".join(experiment["sets"]))
        parts.append(" ".join(told))
    if node.training_seeds is not None:
        seeds = f"{node.training_seeds} training seed{'s' * (node.training_seeds != 1)}"
        about = "methods on this teacher" if scale.get("about") == "methods" else "these checkpoints"
        parts.append(f"{seeds}: a statement about {about}")
    if scale["hardware"]:
        parts.append(f"on {' and '.join(dict.fromkeys(map(in_words, scale['hardware'])))}")
    return "; ".join(parts)
