"""What a run is going to do and what came of it, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from imfbench.config import ExperimentConfig
from imfbench.pipeline.cells import all_cells
from imfbench.pipeline.context import Context
from imfbench.pipeline.plan import Job
from imfbench.pipeline.synthesise import done
from imfbench.pipeline.train import settings_of
from imfbench.plugins import source_of
from imfbench.progress import clock
from imfbench.registry import METRICS
from imfbench.store import RunFolder, read_json


def describe(config: ExperimentConfig, out: Path, stages: tuple[str, ...]) -> None:
    """Print the jobs of an experiment and how far each has come; writes nothing."""
    context = Context(config, RunFolder(out))
    console = Console()
    console.print(f"[bold]{config.name}[/bold] ({config.task}) → {out}", highlight=False)
    for test_set in config.dataset:
        utterances = context.utterances(test_set)
        known = [u.seconds for u in utterances if u.seconds is not None]  # nothing is opened for a mere overview
        told = f"{len(utterances)} utterances" + (f" ({clock(sum(known))})" if len(known) == len(utterances) else "")
        console.print(f"{told} of {test_set.name}/{test_set.split}", highlight=False)
    console.print(
        f"{len(context.plan.rows)} rows, device {context.device.type}, {context.threads} threads", highlight=False
    )
    table = Table("stage", "what", "state", box=None, padding=(0, 2, 0, 0))
    for job in context.plan.of_stage(*stages):  # type: ignore[arg-type]
        table.add_row(job.stage, job.subject, _state(context, job))
    console.print(table)
    for part in config.then:
        describe(part, out / part.name, stages)


def _state(context: Context, job: Job) -> str:
    if job.stage == "train":
        status = read_json(context.folder.artefact(job.subject) / "status.json") or {}
        if status.get("status") in ("ok", "diverged"):
            return f"{status['status']}, {status['steps']} steps"
        settings = settings_of(context.config, context.plan.artefacts[job.subject])
        return f"{settings.steps} steps" if settings.steps else clock((settings.minutes or 0) * 60)
    if job.stage == "search":
        found = read_json(context.folder.grid(job.subject))
        return "to do" if found is None else f"done, {found['evaluations']} evaluations"
    if job.stage == "synthesise":
        cell = next(c for c in all_cells(context) if c.row.label == job.subject)
        expected = len(context.utterances(context.test_set(cell.row)))
        made = len(done(cell)) if cell.status == "ok" else 0
        return f"{made} of {expected} utterances" if cell.status in ("ok",) or not made else cell.status
    return ""


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
        console.print(f"[red]failed[/red] {name}: {reason}", highlight=False)


def _figure(value: Any, decimals: int, scale: float = 1.0) -> str:
    return "–" if value is None else f"{value * scale:.{decimals}f}"
