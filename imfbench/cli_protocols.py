"""``imfbench protocols``: what scorers fix, and what they make of the same transcripts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import pandas as pd

FORMATS = ("table", "md", "csv", "json")


@click.group("protocols")
def protocols() -> None:
    """What scorers fix (list, show), and what each makes of the same transcripts (compare).

    \b
    Example:
      imfbench protocols list
      imfbench protocols compare runs/quickstart
    """


@protocols.command("list")
def list_command() -> None:
    """List the protocols.

    \b
    Example:
      imfbench protocols list
    """
    from imfbench.metrics.protocols import PROTOCOLS

    for name, protocol in PROTOCOLS.items():
        click.echo(f"{name:<24} {protocol.about}")


@protocols.command("show")
@click.argument("name")
def show_command(name: str) -> None:
    """Show all that a protocol fixes.

    \b
    Example:
      imfbench protocols show seed-tts-eval
    """
    from imfbench.cli_base import user_errors
    from imfbench.metrics.protocols import facts, protocol_of

    with user_errors():
        for what, value in facts(protocol_of(name)).items():
            click.echo(f"{what:<28} {value}")


@protocols.command("compare")
@click.argument("place", metavar="DIR", type=click.Path(exists=True, path_type=Path))
@click.option("--protocol", "names", multiple=True, help="Only this one; may be repeated [all].")
@click.option("--language", type=click.Choice(["en", "zh"]), help="Of all rows [the table's column, else en].")
@click.option("--format", "form", type=click.Choice(FORMATS), default="table", show_default=True)
def compare_command(place: Path, names: tuple[str, ...], language: str | None, form: str) -> None:
    """Score one set of transcripts under all protocols: how much of a gap is only the scorer.

    DIR is a run, a cell, or any folder with a table of transcripts (utterances.parquet, or transcripts.parquet, .csv, .tsv or
    .jsonl, with columns reference or text, and hypothesis). csv and json hold all figures, as fractions, with their
    signatures; table and md what each protocol prints, in percent.

    \b
    Example:
      imfbench protocols compare runs/quickstart
      imfbench protocols compare theirs --language zh --format csv
    """
    from imfbench.cli_base import user_errors

    with user_errors():
        from imfbench.protocol_comparison import compare_protocols, read_transcripts, side_by_side

        compared = compare_protocols(read_transcripts(place, language), names)
        if form == "csv":
            click.echo(compared.to_csv(index=False), nl=False)
        elif form == "json":
            click.echo(compared.to_json(orient="records", indent=2, force_ascii=False, double_precision=15))
        else:
            _show(_lines(side_by_side(compared)), form)
            _note(compared)


def _lines(wide: pd.DataFrame) -> pd.DataFrame:
    from imfbench.metrics.protocols import PROTOCOLS

    def written(column: str) -> list[str]:
        places = PROTOCOLS[column].decimals if column in PROTOCOLS else 2
        return ["–" if value != value else f"{value:.{places}f}" for value in wide[column]]

    shown = wide.copy()
    for column in wide.columns:
        if column not in ("system", "language", "n"):
            shown[column] = written(str(column))
    return shown.rename(columns={"gap": "widest gap"})


def _show(frame: pd.DataFrame, form: str) -> None:
    numbers = {column for column in frame.columns if column not in ("system", "language")}
    if form == "md":
        click.echo(_markdown([list(frame.columns), ["---:" if name in numbers else "---" for name in frame.columns]]))
        click.echo(_markdown(frame.to_numpy().tolist()))
        return
    rows = [list(map(str, frame.columns)), *(list(map(str, row)) for row in frame.itertuples(index=False))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (
            cell.rjust(width) if name in numbers else cell.ljust(width)
            for name, cell, width in zip(frame.columns, row, widths, strict=True)
        )
        click.echo("  ".join(cells).rstrip())


def _markdown(rows: list[list[Any]]) -> str:
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows)


def _note(compared: pd.DataFrame) -> None:
    kinds = dict(zip(compared["protocol"], compared["aggregate"], strict=True))
    means = " and ".join(name for name, kind in kinds.items() if kind == "mean")
    told = f"; {means}: the mean over utterances, the others: the corpus figure" if means else ""
    click.echo(f"\nWER in percent as each protocol prints it{told}. The text side alone: the transcripts are the same.")
    failed = compared[compared["n_scored"] < compared["n_expected"]]
    for row in failed.to_dict("records"):
        missing = row["n_expected"] - row["n_scored"]
        click.echo(f"{row['system']}, {row['protocol']}: {missing} of {row['n_expected']} rows have no figure.")
