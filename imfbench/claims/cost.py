"""What the measurements of claims cost, by what is on record or was measured on a first step."""

from __future__ import annotations

import time

import torch

from imfbench.claims import measurements as measuring
from imfbench.pipeline.context import Context
from imfbench.pipeline.cost import Cost, call_figure, network_calls, warm_up_calls
from imfbench.pipeline.measurements import LIKE, MEASURED, MOST_SECONDS, RECORDED, Figure, Measurements, scorer_key
from imfbench.pipeline.plan import teacher_artefact


def cost_of(
    settings: measuring.Measurement, rows: list[measuring.Row], context: Context | None, found: Measurements,
    device: torch.device,
) -> Cost:  # fmt: skip
    """What is left of a measurement, and its time in one process; it takes no room to speak of.

    Args:
        settings: The measurement.
        rows: What is on record of it.
        context: Its experiment, if it has one.
        found: What network calls, vocoder and metrics of the experiments take.
        device: Where training steps are measured.
    """
    cost = Cost("measure")
    if isinstance(settings, measuring.StepMeasurement):
        _steps(cost, settings, rows, device)
        return cost
    assert context is not None
    if isinstance(settings, measuring.SpeedMeasurement):
        _speed(cost, settings, rows, context, found)
    else:
        _scores(cost, settings, rows, context, found)
    return cost


def _steps(cost: Cost, settings: measuring.StepMeasurement, rows: list[measuring.Row], device: torch.device) -> None:
    """A step of a method is timed at the middle one of the sizes, or known from a row; others are scaled by their products.

    Of the smallest most is not work that grows: scaled from there the whole came out seven times too dear.
    """
    done = {(row["method"], row["frames"], row["batch"], row["width"]) for row in rows}
    left = [
        (name, size) for size in settings.sizes for name in settings.methods
        if (name, size.frames, size.batch, size.width) not in done
    ]  # fmt: skip
    if not left:
        return
    known: dict[str, Figure] = {}
    for row in rows:
        if row.get("seconds"):
            work = row["frames"] * row["batch"] * row["width"] ** 2
            known[row["method"]] = Figure((2 * settings.repeats + 1) * row["seconds"] / work, RECORDED)
    middle, begun = sorted(settings.sizes, key=_work)[len(settings.sizes) // 2], time.perf_counter()
    for name in dict.fromkeys(name for name, _ in left):
        if name not in known and (not known or time.perf_counter() - begun < MOST_SECONDS):
            start = time.perf_counter()
            if measuring.one_turn(settings.methods[name], middle, device, memory=True)[1] is not None:
                known[name] = Figure(settings.repeats * (time.perf_counter() - start) / _work(middle), MEASURED)
    dearest = max((figure.value for figure in known.values()), default=None)
    for name, size in left:
        figure = known.get(name) or (None if dearest is None else Figure(dearest, LIKE))
        cost.add_seconds(_work(size), figure)
    cost.left = f"{len(left)} kind{'s' * (len(left) > 1)} of training step"


def _work(size: measuring.StepSize) -> float:
    return float(size.frames * size.batch * size.width**2)


def _speed(
    cost: Cost, settings: measuring.SpeedMeasurement, rows: list[measuring.Row], context: Context, found: Measurements
) -> None:
    utterances = measuring.spread(context.utterances(context.config.dataset[0]), settings.utterances)
    done = {(row["id"], row["row"]) for row in rows}
    many = 0
    for name, label in settings.rows.items():
        row = context.plan.rows[label]
        left = sum((u.id, name) not in done for u in utterances)
        if not left:
            continue
        assert row.artefact is not None
        artefact = context.plan.artefacts[row.artefact]
        calls = network_calls(context, artefact, row.guidance, row.nfe or 1, row.solver or "euler")
        # Each utterance has an evaluation, and the vocoder's kernels made, before the clock; the first a whole pass more.
        calls = (left + 1) * calls + left * warm_up_calls(context, artefact, row.guidance)
        cost.add_seconds(calls, call_figure(context, artefact, found))
        cost.add_seconds(2 * left + 1, found.get("vocoder", context.vocoder_name))
        many += left
    if many:
        cost.left = f"{many} utterances to be timed"


def _scores(
    cost: Cost, settings: measuring.ScoreMeasurement, rows: list[measuring.Row], context: Context, found: Measurements
) -> None:
    done = {tuple(row["grid"]) for row in rows}
    grids = [grid for grid in measuring.lattice(settings.points, settings.nfe) if grid not in done]
    if not grids:
        return
    config, utterances = context.config, len(context.utterances(context.config.dev))
    artefact = context.plan.artefacts[settings.artefact]
    calls = network_calls(context, artefact, None, settings.nfe, "euler")
    cost.add_seconds(len(grids) * utterances * calls, call_figure(context, artefact, found))
    if settings.score == "teacher-distance":
        assert config.teacher is not None
        teacher, asked = teacher_artefact(config, context.plan.artefacts), config.teacher
        calls = network_calls(context, teacher, asked.guidance, max(asked.nfe), asked.solver)
        cost.add_seconds(utterances * calls, call_figure(context, teacher, found))
    else:
        scorer = scorer_key(context, settings.score)
        cost.add_seconds(len(grids) * utterances, found.get("vocoder", context.vocoder_name))
        cost.add_seconds(len(grids) * utterances, found.get("score", scorer))
        cost.reach(found.get("score memory", scorer))
    cost.left = f"{len(grids)} grids"
