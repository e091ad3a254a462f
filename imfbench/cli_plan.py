"""``imfbench plan CONFIG``: weights, memory by part, seconds a step, time and disk of the whole experiment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from imfbench.pipeline.planning import ExperimentPlan, PlannedTraining

FORMATS = ("table", "json")


@click.command("plan")
@click.argument("config")
@click.option("--set", "settings", multiple=True, metavar="A.B=C", help="Change a setting; may be repeated.")
@click.option(
    "--memory", metavar="SIZE", help="As training.memory: what a step may take, such as 24GB; larger ones are told."
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Run folder, whose finished work costs nothing [runs/NAME]."
)
@click.option("--no-measuring", is_flag=True, help="Run nothing: estimates by fake tensors alone.")
@click.option(
    "--tflops", type=click.FloatRange(min=0, min_open=True),
    help="Plan for a machine of this matrix speed (an H100 does about 700 in bf16); runs no step here.",
)  # fmt: skip
@click.option("--network", metavar="NAME", help="Backbone that stands for a teacher whose artefact is not here.")
@click.option("--device", help="auto, cpu, or an accelerator by torch's name for it.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.")
@click.option("--format", "form", type=click.Choice(FORMATS), default="table", show_default=True)
def plan_command(
    config: str, settings: tuple[str, ...], memory: str | None, out: Path | None, no_measuring: bool, tflops: float | None,
    network: str | None, device: str | None, threads: int | None, form: str,
) -> None:  # fmt: skip
    """What an experiment takes: weights, memory by part and seconds of each training's step, time and disk of the whole.

    A step is measured where it fits and is quick, else estimated on tensors without values, and says which. Nothing is written.

    \b
    Example:
      imfbench plan quickstart
      imfbench plan paper_text2mel --no-measuring --tflops 400
      imfbench plan my.yaml --network f5tts --memory 24GB --format json
    """
    from imfbench.cli_base import user_errors

    given = (("device", device), ("threads", threads))
    settings += tuple(f"{key}={value}" for key, value in given if value is not None)
    with user_errors():
        from imfbench.cli_run import run_folder
        from imfbench.config import load
        from imfbench.pipeline.planning import plan_experiment
        from imfbench.progress import Reporting
        from imfbench.train_settings import bytes_of

        try:
            budget = bytes_of(memory)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--memory") from None
        Reporting().set_up_logging()
        experiment = load(config, settings)
        plan = plan_experiment(
            experiment, run_folder(out, config, experiment), measure=not no_measuring,
            flops_per_second=None if tflops is None else tflops * 1e12, network=network,
            told=lambda what: click.echo(what, err=True),
        )  # fmt: skip
        plan.notes += _beyond(plan, budget)
    click.echo(_json(plan) if form == "json" else _table(plan))


def _beyond(plan: ExperimentPlan, budget: int | None) -> list[str]:
    """Trainings whose steps take more than a budget: those that `--memory` of a run would cut."""
    from imfbench.pipeline.cost import size

    notes = []
    for training in plan.trainings:
        limit = budget or training.sizes.settings.memory
        price = training.price
        if limit is None or price.peak is None or price.peak <= limit:
            continue
        steady = sum(value for part, value in price.memory.items() if part != "activations")
        told = (
            "smaller batches, which training.memory finds, fit"
            if steady < limit
            else "no batch fits: see docs/training.md"
        )
        notes.append(
            f"{training.name}: {size(price.peak)} are more than {size(limit)}; {size(steady)} of them are there whatever the "
            f"batch, so {told}"
        )
    return notes


def _json(plan: ExperimentPlan) -> str:
    from imfbench.store import plain

    found = {
        "trainings": [training.row() for training in plan.trainings],
        "stages": [_cost(cost) for cost in plan.stages],
        "everything": None if plan.everything is None else _cost(plan.everything),
        "notes": plan.notes,
    }
    return json.dumps(plain(found), indent=2, ensure_ascii=False, allow_nan=False)


def _cost(cost: Any) -> dict[str, Any]:
    return {
        "stage": cost.stage, "left": cost.left, "seconds": cost.seconds, "memory": cost.memory, "disk": cost.disk,
        "sources": sorted(cost.sources),
    }  # fmt: skip


def _table(plan: ExperimentPlan) -> str:
    from imfbench.pipeline.cost import in_words, size
    from imfbench.profiling.parts import PARTS
    from imfbench.progress import clock

    several = len({t.experiment for t in plan.trainings}) > 1

    def called(training: PlannedTraining) -> str:
        return f"{training.experiment}/{training.name}" if several else training.name  # names are an experiment's own

    blocks = []
    if plan.trainings:
        head = [
            "training",
            "network",
            "weights (M)",
            "trained (M)",
            "teacher (M)",
            "average (M)",
            "frames",
            "batches",
            "steps",
        ]
        rows = [
            [
                called(t), f"{t.sizes.method} on {t.sizes.backbone}", *(_millions(n) for n in (
                    t.price.parameters, t.price.trained, t.price.teacher, t.price.average
                )),
                str(t.sizes.settings.frames_per_batch), str(t.sizes.settings.accumulate),
                "–" if t.steps is None else str(t.steps),
            ]
            for t in plan.trainings
        ]  # fmt: skip
        blocks.append(_lines(head, rows, 2))
        head = ["memory of a step", *PARTS, "together", "kind"]
        rows = [
            [
                called(t), *(size(t.price.memory[part]) if part in t.price.memory else "–" for part in PARTS),
                "–" if t.price.peak is None else size(t.price.peak), t.price.peak_kind or "–",
            ]
            for t in plan.trainings
        ]  # fmt: skip
        blocks.append(_lines(head, rows, 1))
        rows = [
            [
                called(t), "–" if t.price.seconds is None else f"{t.price.seconds:.3g}",
                "–" if t.seconds is None else clock(t.seconds), t.price.dtype, t.price.seconds_kind or "–",
            ]
            for t in plan.trainings
        ]  # fmt: skip
        blocks.append(_lines(["time", "seconds a step", "whole training", "type", "kind"], rows, 1))
    if plan.stages:
        rows = [
            [
                c.stage, c.left or "nothing", "not known" if c.seconds is None else clock(c.seconds),
                "–" if c.memory is None else size(c.memory), "not known" if c.disk is None else size(c.disk),
                ", ".join(sorted(c.sources)),
            ]
            for c in plan.stages
        ]  # fmt: skip
        blocks.append(_lines(["stage", "left", "time", "memory", "disk", "from"], rows, 2))
    if plan.everything is not None:
        blocks.append(f"everything: {in_words(plan.everything)}")
    blocks += ["\n".join(plan.notes)] if plan.notes else []
    return "\n\n".join(blocks)


def _millions(parameters: int) -> str:
    return f"{parameters / 1e6:.1f}" if parameters else "–"


def _lines(head: list[str], rows: list[list[str]], words: int) -> str:
    """A table whose first ``words`` columns and last one are left-aligned."""
    shown = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    last = len(head) - 1
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < words or i == last else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in shown
    )
