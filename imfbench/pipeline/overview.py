"""What a run is going to do and what came of it, for the terminal."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from imfbench.config import ExperimentConfig
from imfbench.pipeline.cells import all_cells
from imfbench.pipeline.content import parts_of
from imfbench.pipeline.context import Context
from imfbench.pipeline.cost import Cost, Left, costs_of, in_words, is_there, left_of, size, total
from imfbench.pipeline.measurements import Measurements, first_cell, on_record
from imfbench.pipeline.plan import Job, teacher_artefact
from imfbench.pipeline.train import settings_of
from imfbench.plugins import source_of
from imfbench.progress import clock, log
from imfbench.registry import METRICS
from imfbench.store import RunFolder, read_json

PRICED = ("train", "search", "synthesise", "score")


def describe(
    config: ExperimentConfig, out: Path, stages: tuple[str, ...], measure: bool = True,
    found: Measurements | None = None, seen: dict[str, str] | None = None,
) -> tuple[list[Left], Cost]:  # fmt: skip
    """Print the jobs of a run, how far each has come, and what the rest costs; writes nothing into the run folder.

    Args:
        config: The experiment, with those that follow it.
        out: The run folder.
        stages: Which stages.
        measure: Time what is not on record in the folder on a first utterance and a few steps, which takes up to a minute or
            two; without it only what is on record is told.
        found: Figures that are known already; what is found here is added.
        seen: Content → where it is made, of experiments that are run before; this one's is added.

    Returns:
        What is left of each experiment, and what all of it costs.
    """
    console = Console()
    lefts, found = plan_of(config, out, found, seen)
    before = set(found.unmeasured)
    for left in lefts:
        _describe_one(console, left, stages)
    if measure:
        with console.status("measuring a first cell"):
            for left in lefts:
                measure_first(left, found, stages)
    costs = [costs_of(left, found, stages) for left in lefts]
    by_stage = summed_by_stage(costs, stages)
    table = Table("stage", "left", "time", "memory", "disk", "from", box=None, padding=(0, 2, 0, 0))
    for cost in by_stage:
        table.add_row(cost.stage, cost.left or "nothing", *_figures(cost), ", ".join(sorted(cost.sources)))
    everything = everything_of(lefts, costs)
    workers = f", {config.workers} side by side" if config.workers > 1 else ""
    table.add_row("all", workers.removeprefix(", "), *_figures(everything), "")
    console.print(table)
    for what, why in found.unmeasured.items():
        if what not in before:
            # Without markup: the extra in 'imfbench[utmos]' is none.
            console.print(f"not measured: {what}: {why}", highlight=False, markup=False)
    console.print(f"{summary(lefts, costs, everything)}", highlight=False, soft_wrap=True)
    if everything.disk is not None and (free := _free(out)) < everything.disk:
        console.print(f"[red]only {size(free)} are free at {out}[/red]", highlight=False)
    return lefts, everything


def summed_by_stage(costs: Sequence[Sequence[Cost]], stages: Sequence[str]) -> list[Cost]:
    """What each priced stage of a run costs, all of its experiments together."""
    found = []
    for stage in (stage for stage in stages if stage in PRICED):
        those = [cost for part in costs for cost in part if cost.stage == stage]
        whats = [cost.left for cost in those if cost.left]
        told = "; ".join(whats) if len(whats) < 3 else f"{'; '.join(whats[:2])}; {len(whats) - 2} experiments more"
        found.append(replace(total(those, 1), stage=stage, left=told))
    return found


def announce(config: ExperimentConfig, out: Path, stages: tuple[str, ...]) -> None:
    """Log in one line what a run is going to do and, as far as that is on record in its folder, what it costs."""
    try:
        lefts, found = plan_of(config, out)
        costs = [costs_of(left, found, stages) for left in lefts]
    except Exception as error:  # whatever it is, the run itself tells it, in its own words
        log.debug("no plan: %s", error)
        return
    log.info("%s", summary(lefts, costs, everything_of(lefts, costs)))


def plan_of(
    config: ExperimentConfig, out: Path, found: Measurements | None = None, seen: dict[str, str] | None = None
) -> tuple[list[Left], Measurements]:
    """What is left of each experiment of a run, and the figures that are on record in its folders.

    Args:
        config: The experiment, with those that follow it.
        out: The run folder.
        found: Figures that are known already, to which those on record are added.
        seen: As for ``left_of``.
    """
    found = Measurements() if found is None else found
    seen = {} if seen is None else seen
    lefts = []
    for part in parts_of(config):
        context = Context(part, RunFolder(out if part is config else out / part.name))
        context.share_threads()
        on_record(context, found)
        lefts.append(left_of(context, seen))
    return lefts, found


def measure_first(left: Left, found: Measurements, stages: tuple[str, ...]) -> None:
    """Measure what an experiment's costs need and no record holds."""
    context = left.context
    if context.config.overwrite == "only-cache":  # nothing will be made
        return
    context.share_threads()  # the last part's are torch's by now
    rows = [cell.row for cell, missing in left.cells if missing and f"synthesise:{cell.row.label}" not in left.taken]
    rows = rows if "synthesise" in stages else []
    searches = left.searches if "search" in stages else []
    names = [row.artefact for row in rows if row.artefact is not None] + [search.artefact for search in searches]
    if searches and context.config.teacher is not None:
        names.append(teacher_artefact(context.config, context.plan.artefacts).name)
    ready = [name for name in dict.fromkeys(names) if is_there(context, context.plan.artefacts[name])]
    searched = [name for search in searches for name in search.search.score if name in METRICS]
    scored = [name for name, many in left.scores.items() if many] if "score" in stages else []
    vocoded = bool(searched) or any(row.kind in ("sampled", "vocoded-ground-truth") for row in rows)
    trained = left.trainings if "train" in stages or rows else []
    first_cell(context, found, ready, trained, dict.fromkeys([*scored, *searched]), vocoded)


def summary(lefts: Sequence[Left], costs: Sequence[Sequence[Cost]], everything: Cost) -> str:
    """The plan and its cost in a line."""
    cells = [(left, cell, missing) for left in lefts for cell, missing in left.cells]
    own = [(cell, missing) for left, cell, missing in cells if f"synthesise:{cell.row.label}" not in left.taken]
    same = len(cells) - len(own)
    finished = sum(not missing for _, missing in own)
    parts = [
        f"{finished} of {len(own)} cells have their audio" + (f", {same} more are the same as others" if same else "")
    ]
    parts += [cost.left for part in costs for cost in part if cost.left and cost.stage in ("train", "search")]
    if not any(cost.left for part in costs for cost in part):
        return f"plan: {'; '.join(parts)}; nothing is left to do but the report"
    unknown = everything.seconds is None and " (what is not on record is measured by --dry-run)"
    return f"plan: {'; '.join(parts)}; {in_words(everything)}{unknown or ''}"


def everything_of(lefts: Sequence[Left], costs: Sequence[Sequence[Cost]]) -> Cost:
    """What all of a run costs, by the number of its workers."""
    workers = lefts[0].context.config.workers
    side_by_side = total([cost for part in costs for cost in part if cost.stage != "score"], workers)
    # Its seconds are those of all its processes already; each of them has the model.
    scoring = [cost for part in costs for cost in part if cost.stage == "score"]
    each = [replace(cost, memory=None if cost.memory is None else cost.memory * workers) for cost in scoring]
    return total([side_by_side, *each], 1)


def _figures(cost: Cost) -> tuple[str, str, str]:
    time = "not measured" if cost.seconds is None else clock(cost.seconds)
    memory = "–" if cost.memory is None else size(cost.memory)
    return time, memory, "not measured" if cost.disk is None else size(cost.disk) if cost.disk else "–"


def _free(path: Path) -> int:
    there = next(p for p in (path.resolve(), *path.resolve().parents) if p.is_dir())
    return shutil.disk_usage(there).free


def _describe_one(console: Console, left: Left, stages: tuple[str, ...]) -> None:
    context = left.context
    config = context.config
    console.print(f"[bold]{config.name}[/bold] ({config.task}) → {context.folder.path}", highlight=False)
    for test_set in config.dataset:
        utterances = context.utterances(test_set)
        known = [u.seconds for u in utterances if u.seconds is not None]  # nothing is opened for a mere overview
        told = f"{len(utterances)} utterances" + (f" ({clock(sum(known))})" if len(known) == len(utterances) else "")
        console.print(f"{told} of {test_set.name}/{test_set.split}", highlight=False)
    each = f" in each of {config.workers} processes" if config.workers > 1 else ""
    console.print(
        f"{len(context.plan.rows)} rows, device {context.device.type}, {context.threads} threads{each}", highlight=False
    )
    table = Table("stage", "what", "state", box=None, padding=(0, 2, 0, 0))
    for job in context.plan.of_stage(*stages):  # type: ignore[arg-type]
        state = _state(left, job)
        table.add_row(job.stage, job.subject, f"as {left.taken[job.name]}" if job.name in left.taken else state)
    console.print(table)


def _state(left: Left, job: Job) -> str:
    context = left.context
    if job.stage == "train":
        status = read_json(context.folder.artefact(job.subject) / "status.json") or {}
        if status.get("status") in ("ok", "diverged"):
            return f"{status['status']}, {status['steps']} steps"
        settings = settings_of(context.config, context.plan.artefacts[job.subject])
        return f"{settings.steps} steps" if settings.steps else clock((settings.minutes or 0) * 60)
    if job.stage == "search":
        if any(search.name == job.subject for search in left.searches):
            return "to do"
        found = read_json(context.folder.grid(job.subject))
        return "nothing to do" if found is None else f"done, {found['evaluations']} evaluations"
    if job.stage == "synthesise":
        cell, missing = next((cell, missing) for cell, missing in left.cells if cell.row.label == job.subject)
        expected = len(context.utterances(context.test_set(cell.row)))
        return cell.status if cell.status == "diverged" else f"{expected - missing} of {expected} utterances"
    return f"{left.scores[job.subject]} to do" if job.stage == "score" else ""


def outcome(contexts: Sequence[Context], stages: tuple[str, ...]) -> None:
    """Print the leaderboard in short, what failed, and where the results are."""
    console = Console()
    for context in contexts:
        if len(contexts) > 1:
            console.print(f"[bold]{context.config.task}[/bold] in {context.folder.path}", highlight=False)
        _one_outcome(console, context, stages)
    if "report" in stages and "leaderboard" in contexts[0].config.reports:
        where = contexts[0].folder.leaderboard
        console.print(f"leaderboard with intervals, signatures and plots: {where}", highlight=False)
    else:
        console.print(f"{', '.join(stages)}: done in {contexts[0].folder.path}", highlight=False)


def _one_outcome(console: Console, context: Context, stages: tuple[str, ...]) -> None:
    if "report" in stages:
        table = Table(box=None, padding=(0, 2, 0, 0))
        others = [metric for metric in context.config.metrics if source_of("metric", metric) is not None]
        columns = [column for metric in others for column in METRICS.get(metric).summary_columns]
        for title in ("system", "NFE", "grid", "WER %", "SIM", "MOS", *columns, "RTF", "scored", "status"):
            table.add_column(title, overflow="fold")
        for cell in all_cells(context):
            row = read_json(cell.folder.summary) or {}
            mos = next((v for k, v in row.items() if k.startswith("mos_") and k.count("_") == 1), None)
            table.add_row(
                f"{cell.row.system} {cell.row.test_set[1]}".strip(),
                str(row.get("nfe") or "–"),
                str(row.get("grid") or "–"),
                _figure(row.get("wer"), 1, 100),
                _figure(row.get("sim"), 3),
                _figure(mos, 2),
                *(_figure(row.get(column), 3) for column in columns),
                _figure(row.get("rtf_total"), 3),
                f"{row.get('n_scored')}/{row.get('n_expected')}",
                str(row.get("status")).partition(":")[0],
            )
        console.print(table)
    for name, reason in context.failures.items():
        console.print(f"[red]failed[/red] {escape(f'{name}: {reason}')}", highlight=False)


def _figure(value: Any, decimals: int, scale: float = 1.0) -> str:
    return "–" if value is None else f"{value * scale:.{decimals}f}"
