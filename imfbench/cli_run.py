"""What the commands that run an experiment share: their options, the way from them to a run, and how it ends."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imfbench import interruption
from imfbench.cli_base import user_errors

if TYPE_CHECKING:
    from imfbench.config import ExperimentConfig

INTERRUPTED = 130
MOST_CELLS = 200


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a run."""
    for option in (
        click.option("--no-measuring", is_flag=True, help="With --dry-run: tell the cost of what is on record alone."),
        click.option("--dry-run", is_flag=True, help="Show the plan and, by a measured first cell, its cost; do nothing."),
        click.option(
            "--max-cells", type=click.IntRange(min=1), default=MOST_CELLS, show_default=True,
            help="Refuse a run of more cells.",
        ),
        click.option("--threads", type=click.IntRange(min=1), help="CPU threads; fewer is faster on a busy machine."),
        click.option(
            "--workers", type=click.IntRange(min=1), help="Processes that train, search, sample and score [1]."
        ),
        click.option(
            "--memory", metavar="SIZE", help="What a training step may take, such as 24GB; batches are cut to fit."
        ),
        click.option("--device", help="auto, cpu, or an accelerator by torch's name for it."),
        click.option("--limit", type=click.IntRange(min=1), help="At most so many utterances of each set."),
        click.option("--out", type=click.Path(path_type=Path), help="Run folder [runs/NAME]."),
        click.option("--set", "settings", multiple=True, metavar="A.B=C", help="Change a setting; may be repeated."),
    ):  # fmt: skip
        command = option(command)
    return command


def config_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """The experiment, as an argument."""
    return click.argument("config", required=False)(command)


def reuse_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Other runs, of which the same trainings, grids and rows are taken over."""
    return click.option(
        "--reuse", multiple=True, type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="DIR",
        help="Folder of another run: what it holds of the same content is taken over; may be repeated.",
    )(command)  # fmt: skip


def check_reuse(reuse: tuple[Path, ...], dry_run: bool) -> None:
    """Refuse ``--reuse`` with ``--dry-run``."""
    if dry_run and reuse:
        raise click.UsageError("--reuse copies into the run folder, and --dry-run does nothing: give one of them")


def run_folder(out: Path | None, config: Any, experiment: ExperimentConfig) -> Path:
    """Where it is run: as asked for; else in the run folder that was named in its place, wherever that is; else in its own."""
    from imfbench.experiment import default_folder

    path = Path(config) if isinstance(config, str) else None
    # Only runs leave a lock: a published folder is to be made again elsewhere.
    named = path if path is not None and (path / ".lock").is_file() and (path / "manifest.json").is_file() else None
    return out or named or default_folder(experiment)


def needed(config: str | None) -> str:
    """The experiment that was named; a command without one is answered."""
    if config is None:
        raise click.UsageError("name an experiment or its YAML file, for instance quickstart")
    return config


def run_experiment(
    stage: str | None, config: str | Callable[[tuple[str, ...]], ExperimentConfig] | None, settings: tuple[str, ...],
    out: Path | None, limit: int | None, device: str | None, threads: int | None, workers: int | None, max_cells: int,
    dry_run: bool, no_measuring: bool, memory: str | None = None, show: Callable[[Path], None] | None = None,
    reuse: tuple[Path, ...] = (),
) -> None:  # fmt: skip
    """Run an experiment, or one of its stages, or tell what that would be; ends the process where that is not well.

    Args:
        stage: None runs all.
        config: Its name or file, or what makes it of ``settings``.
        settings: Those of ``--set``.
        out: The run folder.
        limit: Utterances of each set.
        device: Where the networks run.
        threads: CPU threads.
        workers: Processes side by side.
        max_cells: More are refused.
        dry_run: Tell the plan and its cost instead.
        no_measuring: Measure nothing for that.
        memory: Of a training step; sets ``training.memory``.
        show: What prints the outcome, instead of the leaderboard in short.
        reuse: Folders of other runs, of which what is the same is taken over first.
    """
    from imfbench.progress import Reporting

    if out is not None and out.is_file():
        raise click.BadParameter(f"{out} is a file; a run needs a folder", param_hint="--out")
    if no_measuring and not dry_run:
        raise click.UsageError("--no-measuring goes with --dry-run: a run measures by itself")
    check_reuse(reuse, dry_run)
    settings += tuple(
        f"{key}={value}"
        for key, value in (("device", device), ("threads", threads), ("workers", workers), ("training.memory", memory))
        if value is not None
    )
    reporting = Reporting()
    reporting.set_up_logging()
    interruption.listen()
    folder = out
    try:
        with user_errors():
            from imfbench.config import limited, load
            from imfbench.distribution import refuse_launchers

            refuse_launchers()
            experiment = config(settings) if callable(config) else load(needed(config), settings)
            if limit is not None:
                experiment = limited(experiment, limit)
            from imfbench import experiment as engine
            from imfbench.pipeline.content import check_size
            from imfbench.pipeline.overview import announce, describe, outcome

            stages = tuple(name for name in engine.STAGES if stage in (None, name))
            folder = run_folder(out, config, experiment)
            check_size(experiment, max_cells)
            if dry_run or {"train", "search", "synthesise"} & {*stages}:
                _tell_what_is_lacking(experiment)
            if dry_run:
                describe(experiment, folder, stages, not no_measuring)
                return
            if reuse:
                _take_over(experiment, folder, reuse)
            announce(experiment, folder, stages)
            contexts = engine.run_all(experiment, folder, stages, reporting)
    except KeyboardInterrupt:
        kept = "nothing was begun" if folder is None else f"what is done is kept in {folder}"
        click.echo(f"\nstopped; {kept}. Go on with the same command:\n  {command_line()}", err=True)
        sys.exit(INTERRUPTED)
    if show is None:
        outcome(contexts, stages)
    else:
        show(folder)
    if any(context.failures for context in contexts):
        sys.exit(1)


def _take_over(experiment: ExperimentConfig, folder: Path, others: tuple[Path, ...]) -> None:
    from imfbench.pipeline.other_runs import take_over
    from imfbench.progress import log

    taken = take_over(experiment, folder, others)
    taken += sum(take_over(part, folder / part.name, others) for part in experiment.then)
    if not taken:
        log.warning(
            "nothing in %s is the same as what this run makes and has not: nothing is taken over",
            ", ".join(map(str, others)),
        )


def _tell_what_is_lacking(experiment: ExperimentConfig) -> None:
    """Refuse a run, or a plan, without its artefacts or data, before anything is made.

    Models alone do not stop it here: a run fetches them, for all its parts, or says which it cannot have; a plan says what could
    not be measured.

    Raises:
        ConfigError: All that is not here, the models too, each with what to do about it.
    """
    from imfbench.config_file import ConfigError
    from imfbench.pipeline.content import parts_of
    from imfbench.pipeline.lacking import files_lacking, models_lacking

    parts = parts_of(experiment)
    files = list(dict.fromkeys(line for part in parts for line in files_lacking(part)))
    if files:
        models = list(dict.fromkeys(line for part in parts for line in models_lacking(part)))
        lines = [*files, *models]
        if len(lines) == 1:
            raise ConfigError(lines[0])
        told = "\n".join(f"- {line}" for line in lines)
        raise ConfigError(f"{experiment.name} needs {len(lines)} things that are not here or cannot be used:\n{told}")


def command_line() -> str:
    """The command as it was given, to be repeated."""
    return shlex.join(["imfbench", *sys.argv[1:]])
