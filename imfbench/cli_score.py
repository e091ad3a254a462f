"""``imfbench score DIR… --dataset NAME``: the speech of other programs, scored, compared, and printed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from imfbench.config import ExperimentConfig
    from imfbench.reports.comparison import Comparison, Ranking
    from imfbench.reports.grouping import Group

FORMATS = ("table", "md", "csv", "json", "latex")
OWN = (
    "dataset", "data", "split", "metrics", "baseline", "margin", "cluster", "allow_missing", "ground_truth", "form",
)  # fmt: skip
"""Options that only the scoring of folders has."""


cluster_option = click.option(
    "--cluster", type=click.Choice(["speaker"]),
    help="Intervals and tests for new speakers: whole speakers are resampled. Refused below 20 of them.",
)  # fmt: skip


def recordings_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of scoring folders."""
    for option in (
        click.option("--dataset", help="Test set of the recordings (imfbench list datasets)."),
        click.option("--data", type=click.Path(path_type=Path), help="Folder of a test set that does not ship."),
        click.option("--split", default="test", show_default=True, help="Which of its sets."),
        click.option("--metrics", default="wer,sim,mos,f0cv", show_default=True, help="What is scored."),
        click.option(
            "--baseline", type=click.Path(path_type=Path), help="Folder that the others are tested against."
        ),
        click.option(
            "--margin", "margin", multiple=True, metavar="METRIC=LOSS",
            help="Accepted loss of the tests of non-inferiority and equivalence, such as wer=0.01; may be repeated.",
        ),
        cluster_option,
        click.option(
            "--workers", type=click.IntRange(min=1), help="Processes that score, each with a model of its own [1]."
        ),
        click.option("--allow-missing", is_flag=True, help="Count a missing file as a text of which nothing was said."),
        click.option("--ground-truth", is_flag=True, help="Score the test set's own recordings too."),
        click.option(
            "--format", "form", type=click.Choice(FORMATS), default="table", show_default=True, help="What is printed."
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def experiment_of(
    folders: tuple[Path, ...], options: dict[str, Any], settings: tuple[str, ...] = ()
) -> ExperimentConfig:
    """The experiment that scores these folders.

    Args:
        folders: Systems, a folder each.
        options: Values of ``OWN``.
        settings: Those of ``--set``.

    Raises:
        ConfigError: An unknown name, with the nearest right one.
    """
    from imfbench.config import check
    from imfbench.config_file import Source, override

    baseline = options["baseline"]
    every = list(dict.fromkeys((*folders, *([baseline] if baseline is not None else []))))
    names = _names(every)
    selection: dict[str, Any] = {"name": options["dataset"], "split": options["split"]}
    if options["data"] is not None:
        selection["options"] = {"root": str(options["data"])}
    values = {
        "name": f"score-{options['dataset']}-{options['split']}",
        "task": "speech",
        "dataset": selection,
        "references": ["ground-truth"] if options["ground_truth"] else [],
        "recordings": [
            {"name": name, "folder": str(folder), "missing": "deleted" if options["allow_missing"] else "refuse"}
            for folder, name in names.items()
        ],
        "baseline": None if baseline is None else names[baseline],
        "margins": margins_of(options["margin"]),
        "cluster": options["cluster"],
        "metrics": [name.strip() for name in options["metrics"].split(",") if name.strip()],
    }
    source = Source("imfbench score", {key: value for key, value in values.items() if value is not None})
    override(source, settings)
    return check(source)


def margins_of(texts: tuple[str, ...]) -> dict[str, float]:
    """The values of ``--margin``."""
    return dict(map(_margin, texts))


def _margin(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name.strip(), float(value)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no METRIC=LOSS, such as wer=0.01", param_hint="--margin") from None


def _names(folders: list[Path]) -> dict[Path, str]:
    """A name for each folder: the system's and its NFE for a row of a run, else as much of the path as tells it apart."""
    from imfbench.config_check import ROWS

    found: dict[Path, str] = {}
    for folder in folders:
        parts = [_plain(part) for part in folder.resolve().parts if _plain(part)]
        name = _cell_name(folder) or parts[-1]
        name = f"{name}-recordings" if name in ROWS else name
        depth = 1
        while name in found.values() and depth < len(parts):
            depth += 1
            name = "-".join(parts[-depth:])
        found[folder] = name
    return found


def _plain(text: str) -> str:
    return re.sub(r"[^\w.+-]+", "-", text).strip("-.+_")


def _cell_name(folder: Path) -> str | None:
    for file in (folder / "cell.json", folder.parent / "cell.json"):
        try:
            about = json.loads(file.read_text(encoding="utf-8"))
            nfe = f"-{about['nfe']}" if about.get("nfe") else ""
            return _plain(f"{about['system']}{nfe}")
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def show(run: Path, form: str) -> None:
    """Print the outcome of a run in one of ``FORMATS``."""
    from imfbench.reports.latex import latex
    from imfbench.reports.leaderboard import analyse

    if form in ("md", "csv", "json"):
        click.echo((run / "leaderboard" / f"leaderboard.{form}").read_text(encoding="utf-8"), nl=False)
        return
    _, groups, rankings, comparisons = analyse(run)
    if form == "latex":
        click.echo(latex(groups, rankings), nl=False)
        return
    for group in groups:
        print_group(group, rankings.get(group.title, []), comparisons)
    click.echo(f"with signatures, tests and a row for each utterance: {run / 'leaderboard'}, {run / 'cells'}")


def print_group(group: Group, rankings: list[Ranking], comparisons: list[Comparison], told: Iterable[str] = ()) -> None:
    """Print a table, what is ``told`` of it, what its tests say, and its signatures."""
    from rich.console import Console
    from rich.markdown import Markdown
    from rich.table import Table
    from rich.text import Text

    from imfbench.reports.main_table import Footnotes, main_rows, resampled
    from imfbench.reports.tables import findings

    console, notes = Console(), Footnotes()
    header, rows = main_rows(group, rankings, notes)
    table = Table(*header, title=group.title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for row in rows:
        # The interval goes under its figure: four metrics with intervals fit into eighty columns.
        cells = (figure.replace(" [", "\n[") for figure in row)
        table.add_row(*(Text(cell.replace("**", ""), style="bold" if "**" in cell else "") for cell in cells))
    console.print(table)
    for line in notes.lines():
        console.print(line.strip(), highlight=False, markup=False)
    for line in told:
        console.print(line, highlight=False, markup=False)
    said = findings(group, comparisons)
    if said:
        console.print(Markdown(said))
    console.print(
        f"Brackets: 95 % bootstrap intervals over {resampled(group)}. Bold: the best of a column; ≈: not told apart from it.",
        style="dim", highlight=False,
    )  # fmt: skip
    for metric, signature in sorted(group.signatures.items()):
        console.print(f"{metric}: {signature}", style="dim", highlight=False, markup=False, soft_wrap=True)
