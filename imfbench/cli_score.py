"""``imfbench score DIR… --dataset NAME``: the speech of other programs, scored, compared, and printed."""

from __future__ import annotations

import json
import math
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
    "dataset", "data", "split", "metrics", "protocol", "model_dir", "baseline", "margin", "cluster", "allow_missing",
    "ground_truth", "form",
)  # fmt: skip
"""Options that only the scoring of folders has."""
METRICS = "wer,sim,mos,f0cv"


cluster_option = click.option(
    "--cluster", type=click.Choice(["speaker"]),
    help="Intervals and tests for new speakers: whole speakers are resampled. Refused below 20 of them.",
)  # fmt: skip


MOST_PAIRS = 15
"""What is said of more pairs than these stands in the file alone: six systems are 15 pairs."""


def recordings_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of scoring folders."""
    for option in (
        click.option(
            "--dataset", metavar="NAME[/SET]", help="Test set of the recordings (imfbench list datasets) [its first set]."
        ),
        click.option("--data", type=click.Path(path_type=Path), help="Folder of a test set that does not ship."),
        click.option("--split", help="Which of its sets; the same as NAME/SET."),
        click.option("--metrics", default=METRICS, show_default=True, help="What is scored."),
        click.option("--protocol", help="Whose figures these are to be (imfbench protocols list) [our own]."),
        click.option(
            "--model-dir", type=click.Path(path_type=Path),
            help="Folder of models that no package carries (imfbench doctor lists them).",
        ),
        click.option(
            "--baseline", type=click.Path(path_type=Path), help="Folder that the others are tested against."
        ),
        click.option(
            "--margin", "margin", multiple=True, metavar="METRIC=LOSS",
            help="Accepted loss of the tests of non-inferiority and equivalence, such as wer=0.01; may be repeated.",
        ),
        cluster_option,
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
    from imfbench.sets import FOLDER

    name, split = _set_of(options)
    own, experiment = _of_dataset(settings)
    if options["data"] is not None:
        own = {FOLDER: str(options["data"]), **own}
    baseline = options["baseline"]
    every = list(dict.fromkeys((*folders, *([baseline] if baseline is not None else []))))
    names = _names(every)
    model_dir = options["model_dir"]
    metrics: dict[str, dict[str, Any]] = {name.strip(): {} for name in options["metrics"].split(",") if name.strip()}
    if not metrics:
        raise click.BadParameter(f"name at least one metric, such as {METRICS}", param_hint="--metrics")
    values = {
        "name": f"score-{name}-{split}",
        "task": "speech",
        "dataset": {"name": name, "split": split, "options": own},
        "references": ["ground-truth"] if options["ground_truth"] else [],
        "recordings": [
            {"name": known_as, "folder": str(folder), "missing": "deleted" if options["allow_missing"] else "refuse"}
            for folder, known_as in names.items()
        ],
        "baseline": None if baseline is None else names[baseline],
        "margins": margins_of(options["margin"]),
        "cluster": options["cluster"],
        "protocol": options["protocol"],
        "model_dir": None if model_dir is None else str(model_dir),
        "metrics": metrics,
    }
    if "wer" in metrics and (language := _language(name, split, own)):
        metrics["wer"]["language"] = language
    source = Source("imfbench score", {key: value for key, value in values.items() if value is not None})
    override(source, experiment)
    return check(source)


def margins_of(texts: tuple[str, ...]) -> dict[str, float]:
    """The values of ``--margin``."""
    from imfbench.config_check import margin_problem

    found = dict(map(_margin, texts))
    for name, loss in found.items():
        problem = margin_problem(name)
        if problem is None and not (loss > 0 and math.isfinite(loss)):
            problem = f"{name}={loss:g} is no loss that could be accepted: a positive number, such as {name}=0.01"
        if problem:
            raise click.BadParameter(problem, param_hint="--margin")
    return found


def _set_of(options: dict[str, Any]) -> tuple[str, str]:
    """Dataset and set, from ``--dataset NAME/SET`` or ``--split``; the dataset's first set where neither says."""
    from imfbench.data import sets_of
    from imfbench.registry import DATASETS

    name, _, split = options["dataset"].partition("/")
    if split and options["split"] not in (None, split):
        raise click.UsageError(
            f"--dataset {options['dataset']} and --split {options['split']} name a set each; keep one"
        )
    if not split:
        split = options["split"] or (sets_of(DATASETS.get(name))[0] if name in DATASETS else "test")
    return name, split


def _of_dataset(settings: tuple[str, ...]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """``--set`` settings of the dataset (a plain KEY that is none of an experiment's), and those of the experiment."""
    from imfbench.config import ExperimentConfig
    from imfbench.config_file import options_of

    own = tuple(
        text for text in settings
        if "." not in (key := text.partition("=")[0]) and key and key not in ExperimentConfig.model_fields
    )  # fmt: skip
    return options_of(own), tuple(text for text in settings if text not in own)


def _language(name: str, split: str, options: dict[str, Any]) -> str | None:
    """The language of most texts of a set, to be listened for; None if the set cannot be opened, which is told later."""
    from collections import Counter

    from imfbench.data import DatasetError
    from imfbench.registry import UnknownNameError
    from imfbench.sets import TestSet, open_dataset

    try:
        utterances = TestSet(name, split, open_dataset(name, options)).utterances()
    except (DatasetError, UnknownNameError):
        return None
    return Counter(u.language for u in utterances).most_common(1)[0][0] if utterances else None


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
    from imfbench.reports.leaderboard import Leaderboard, analyse

    if form in ("md", "csv", "json"):
        file = run / "leaderboard" / f"leaderboard.{form}"
        if not file.is_file():  # its experiment asks for no reports
            Leaderboard(pictures=False).write(run)
        click.echo(file.read_text(encoding="utf-8"), nl=False)
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

    from imfbench.reports.main_table import Footnotes, contested, main_rows, resampled
    from imfbench.reports.tables import findings

    console, notes = Console(), Footnotes()
    header, rows = main_rows(group, rankings, notes)
    table = Table(title=group.title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for title in header:
        table.add_column(title, overflow="fold")  # names cut short would be alike
    for row in rows:
        # The interval goes under its figure: four metrics with intervals fit into eighty columns.
        cells = (figure.replace(" [", "\n[") for figure in row)
        table.add_row(*(Text(cell.replace("**", ""), style="bold" if "**" in cell else "") for cell in cells))
    console.print(table)
    for line in notes.lines():
        console.print(line.strip(), highlight=False, markup=False)
    for line in [*told, *([group.unlike] if group.unlike else []), *contested(rankings)]:
        console.print(line, highlight=False, markup=False)
    said = findings(group, comparisons)
    pairs = said.count("\n- **") + said.startswith("- **")
    if pairs > MOST_PAIRS:
        console.print(
            f"{pairs} pairs of systems were tested: leaderboard.md tells what each shows; --baseline tests all against one.",
            highlight=False, markup=False,
        )  # fmt: skip
    elif said:
        console.print(Markdown(said))
    console.print(
        f"Brackets: 95 % bootstrap intervals over {resampled(group)}. Bold: the best of a column; ≈: not told apart from it.",
        style="dim", highlight=False,
    )  # fmt: skip
    for metric, signature in sorted(group.signatures.items()):
        console.print(f"{metric}: {signature}", style="dim", highlight=False, markup=False, soft_wrap=True)
