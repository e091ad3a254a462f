"""The command line: each command a few lines over the library.

Heavy modules are imported inside the commands, so that ``--help`` and wrong names answer at once.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import click

from imfbench.config_file import ConfigError

STAGE_HELP = {
    "train": "Train the artefacts of an experiment: a killed training goes on where its last checkpoint stands.",
    "search": "Search the time grids of an experiment; its artefacts must be trained.",
    "synthesise": "Make the audio of an experiment's rows; its artefacts must be trained and its grids searched.",
    "score": "Score the audio of an experiment; known scores come from the cache.",
    "report": "Write the leaderboard of an experiment from its scores.",
}
COMMANDS = {"train": "train", "search": "search", "synthesise": "synthesize", "score": "score", "report": "report"}
INTERRUPTED = 130


class UserError(click.ClickException):
    """A mistake that the user can mend: one paragraph, exit code 2."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        """Print the message; no usage, no trace."""
        click.echo(f"imfbench: {self.format_message()}", file=file or sys.stderr)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="imfbench")
def main() -> None:
    """The laboratory and measuring stick of few-step text-to-speech.

    \b
    Example:
      imfbench run quickstart
      imfbench list configs
    """


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--dry-run", is_flag=True, help="Show what would be done, do nothing."),
        click.option("--threads", type=click.IntRange(min=1), help="CPU threads; fewer is faster on a busy machine."),
        click.option("--device", help="auto, cpu, or an accelerator by torch's name for it."),
        click.option("--limit", type=click.IntRange(min=1), help="At most so many utterances of each set."),
        click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Run folder [runs/NAME]."),
        click.option("--set", "settings", multiple=True, metavar="A.B=C", help="Change a setting; may be repeated."),
        click.argument("config"),
    ):
        command = option(command)
    return command


@main.command("run")
@_options
def run_command(**options: Any) -> None:
    """Run an experiment from its beginning, or from where it stopped, to its leaderboard.

    CONFIG is a YAML file or the name of an experiment that ships (imfbench list configs).

    \b
    Example:
      imfbench run quickstart
      imfbench run quickstart --limit 4 --set training.minutes=1 --out runs/try
      imfbench run my.yaml --dry-run
    """
    _run(None, **options)


def _stage_command(stage: str) -> None:
    def command(**options: Any) -> None:
        _run(stage, **options)

    name = COMMANDS[stage]
    command.__doc__ = f"{STAGE_HELP[stage]}\n\n\b\nExample:\n  imfbench {name} quickstart"
    main.command(name)(_options(command))


for _stage in COMMANDS:
    _stage_command(_stage)


def _run(
    stage: str | None, config: str, settings: tuple[str, ...], out: Path | None, limit: int | None,
    device: str | None, threads: int | None, dry_run: bool,
) -> None:  # fmt: skip
    from imfbench.progress import Reporting

    settings += tuple(
        f"{key}={value}" for key, value in (("device", device), ("threads", threads)) if value is not None
    )
    reporting = Reporting()
    reporting.set_up_logging()
    signal.signal(signal.SIGTERM, _interrupt)
    folder = out
    try:
        with user_errors():
            from imfbench.config import limited, load

            experiment = load(config, settings)
            if limit is not None:
                experiment = limited(experiment, limit)
            from imfbench import experiment as engine
            from imfbench.pipeline.overview import describe, outcome

            stages = tuple(name for name in engine.STAGES if stage in (None, name))
            folder = out or engine.default_folder(experiment)
            if dry_run:
                describe(experiment, folder, stages)
                return
            contexts = engine.run_all(experiment, folder, stages, reporting)
    except KeyboardInterrupt:
        kept = "nothing was begun" if folder is None else f"what is done is kept in {folder}"
        click.echo(f"\nstopped; {kept}. Go on with the same command:\n  {_command()}", err=True)
        sys.exit(INTERRUPTED)
    outcome(contexts, stages)
    if any(context.failures for context in contexts):
        sys.exit(1)


@main.command("list")
@click.argument(
    "what",
    type=click.Choice(
        ["methods", "datasets", "metrics", "grids", "solvers", "configs", "vocoders", "backbones", "reports"]
    ),
)
def list_command(what: str) -> None:
    """List what is registered, or the experiments that ship.

    \b
    Example:
      imfbench list methods
    """
    from imfbench.listing import listing

    for name, about in listing(what).items():
        click.echo(f"{name:<24} {about}".rstrip())


@main.command("doctor")
def doctor_command() -> None:
    """Check this machine: Python, torch, models, corpus, disk, threads, devices. Exit code 1 if something is wrong.

    \b
    Example:
      imfbench doctor
    """
    from imfbench.doctor import examine

    wrong = 0
    for finding in examine():
        mark = {"ok": click.style("ok  ", fg="green"), "note": click.style("note", fg="yellow")}
        click.echo(f"{mark.get(finding.level, click.style('bad ', fg='red'))} {finding.subject}: {finding.message}")
        wrong += finding.level == "bad"
    sys.exit(1 if wrong else 0)


class user_errors:
    """Context that turns the library's errors for users into exit code 2 and one paragraph."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, ConfigError):
            raise UserError(str(error)) from None
        if error is None or isinstance(error, click.ClickException):
            return
        # The names of the other errors are looked up only now: importing them takes seconds.
        from imfbench.flow.grids import GridError
        from imfbench.flow.solvers import SolverError
        from imfbench.pipeline.context import STOPPING, NotReadyError
        from imfbench.registry import UnknownNameError

        if isinstance(error, (*STOPPING, GridError, NotReadyError, SolverError, UnknownNameError)):
            raise UserError(str(error)) from None


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _command() -> str:
    import shlex

    return shlex.join(["imfbench", *sys.argv[1:]])
