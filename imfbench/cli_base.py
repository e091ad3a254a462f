"""What all commands share: ``--plugin``, and errors of users as one paragraph with exit code 2."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imfbench.config_file import ConfigError
from imfbench.plugins import PluginWarning, load_file

if TYPE_CHECKING:
    from imfbench.doctor import Finding


class UserError(click.ClickException):
    """A mistake that the user can mend: one paragraph, exit code 2."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        """Print the message; no usage, no trace."""
        click.echo(f"imfbench: {self.format_message()}", file=file or sys.stderr)


class Commands(click.Group):
    """Commands that all take ``--plugin``, before their names or after, and whose warnings of plug-ins are one paragraph."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.params.append(plugin_option())

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add a command, with the option; those of a group get it too."""
        for command in (cmd, *(cmd.commands.values() if isinstance(cmd, click.Group) else ())):
            command.params.append(plugin_option())
        super().add_command(cmd, name)

    def main(self, *arguments: Any, **settings: Any) -> Any:
        """Run the command line."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(
                stream, io.TextIOWrapper
            ):  # a terminal without our arrows and dashes shows marks in their place
                stream.reconfigure(errors="replace")
        with warnings.catch_warnings():
            usual = warnings.showwarning

            def show(message: Any, category: type[Warning], *where: Any, **how: Any) -> None:
                if issubclass(category, PluginWarning):
                    click.echo(f"imfbench: warning: {message}", err=True)
                else:
                    usual(message, category, *where, **how)

            warnings.showwarning = show
            return super().main(*arguments, **settings)


def plugin_option() -> click.Option:
    """``--plugin FILE.py``: the file is imported before the command begins."""

    def load(_context: click.Context, _option: click.Parameter, files: tuple[Path, ...]) -> None:
        for file in files:
            load_file(file)

    return click.Option(
        ["--plugin"], multiple=True, expose_value=False, callback=load, metavar="FILE.py",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="A file with methods, datasets, metrics … of your own; may be repeated.",
    )  # fmt: skip


def print_findings(findings: Iterable[Finding]) -> int:
    """Print findings as they come; how many are bad."""
    wrong = 0
    marks = {"ok": click.style("ok  ", fg="green"), "note": click.style("note", fg="yellow")}
    for finding in findings:
        mark = marks.get(finding.level, click.style("bad ", fg="red"))
        click.echo(f"{mark} {finding.subject}: {finding.message}")
        wrong += finding.level == "bad"
    return wrong


class user_errors:
    """Context that turns the library's errors for users into exit code 2 and one paragraph."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, ConfigError):
            raise UserError(str(error)) from None
        if error is None or isinstance(error, (click.ClickException, KeyboardInterrupt)):
            return  # an interruption may have left a module half imported, which the imports below would trip over
        # The names of the other errors are looked up only now: importing them takes seconds.
        from imfbench.backbones.originals import MissingPackageError
        from imfbench.exporting.card import ExportError
        from imfbench.features.phones import MissingPhonemizerError, TextError
        from imfbench.flow.grids import GridError
        from imfbench.flow.solvers import SolverError
        from imfbench.importing import ImportingError
        from imfbench.metrics.protocols import LanguageError
        from imfbench.new_method import NewMethodError
        from imfbench.pipeline.context import STOPPING, NotReadyError
        from imfbench.pipeline.search import SearchError
        from imfbench.protocol_comparison import TranscriptsError
        from imfbench.registry import BrokenEntryError, UnknownNameError
        from imfbench.reports.results import RunFolderError
        from imfbench.speak import SpeakError

        of_commands = (
            ExportError, ImportingError, LanguageError, MissingPackageError, MissingPhonemizerError, NewMethodError, SpeakError,
            TextError, TranscriptsError,
        )  # fmt: skip
        of_experiments = (BrokenEntryError, GridError, NotReadyError, RunFolderError, SolverError, UnknownNameError)
        if isinstance(error, (*STOPPING, *of_commands, *of_experiments, SearchError)):
            raise UserError(str(error)) from None
