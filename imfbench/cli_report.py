"""``imfbench report``: its options for the page, and the reports of a run folder as it stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from imfbench.config import ExperimentConfig

OWN = ("embed", "megabytes", "utterances")
"""Options of the page."""


def page_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What may be chosen of a page."""
    for option in (
        click.option(
            "--utterances", type=click.IntRange(min=0), help="Utterances to listen to, of each test set [12]."
        ),
        click.option("--megabytes", type=click.FloatRange(min=0), help="The most that the page's sound may take [16]."),
        click.option("--embed/--no-embed", default=None, help="The page's sound in it, or in files beside it [in it]."),
    ):
        command = option(command)
    return command


def with_page(config: str, settings: tuple[str, ...], own: Mapping[str, Any]) -> ExperimentConfig:
    """The experiment with these options of its page."""
    from imfbench.config import load

    experiment = load(config, settings)
    page = {**experiment.reports.get("page", {}), **own}
    return experiment.model_copy(update={"reports": {**experiment.reports, "page": page}})


def is_run(folder: Path) -> bool:
    """Whether a path is a run folder."""
    return folder.is_dir() and any((folder / name).exists() for name in ("cells", "experiment.yaml", "artefacts"))


def report_of_folder(folder: Path, own: Mapping[str, Any]) -> None:
    """Write leaderboard and page of a run folder.

    It may be a run that is going: what is there is shown, and marked as partial. Its other reports are left to the run.
    """
    from imfbench.reports.leaderboard import Leaderboard
    from imfbench.reports.page import Page

    page = Page(Page.Config(**own), going=_in_use(folder))
    for file in [*Leaderboard().write(folder)[:1], page.write(folder)[0]]:
        click.echo(f"wrote {file}")


def _in_use(folder: Path) -> bool:
    """Whether another process holds the run folder."""
    from filelock import FileLock, Timeout

    lock = folder / ".lock"
    if not lock.exists():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # a folder that may only be read: nobody is at work there
        return False
