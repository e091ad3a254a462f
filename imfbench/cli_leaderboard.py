"""``imfbench leaderboard DIR…``: one leaderboard of many runs."""

from __future__ import annotations

import json
from pathlib import Path

import click

from imfbench.cli_base import user_errors
from imfbench.cli_score import FORMATS, print_group


@click.command("leaderboard")
@click.argument("places", nargs=-1, required=True, metavar="DIR...", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--reported", multiple=True, metavar="FILE.yaml", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Figures from papers, each with its source; they are shown, never ranked. May be repeated.",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="Write the page here too: OUT/index.html."
)
@click.option("--format", "form", type=click.Choice(FORMATS), default="table", show_default=True)
def leaderboard_command(places: tuple[Path, ...], reported: tuple[Path, ...], out: Path | None, form: str) -> None:
    """Merge the results of many runs, made on whatever machines, into one leaderboard.

    Rows of one test set that were scored in different ways (other signatures) are refused, and what differs is told.

    \b
    Example:
      imfbench leaderboard runs/mine results/theirs --out leaderboard
      imfbench leaderboard runs/* --reported papers.yaml --format md
    """
    with user_errors():
        from imfbench.reports.latex import latex
        from imfbench.reports.leaderboard import as_csv, complete
        from imfbench.reports.main_table import main_table
        from imfbench.reports.merged import merged
        from imfbench.reports.page import Page, write_page
        from imfbench.schema import SCHEMA_VERSION, VERSION_KEY
        from imfbench.store import plain

        source = merged(places, reported)
        rows = [complete(cell) for cell in source.cells]
        if form == "json":
            found = {"schema": "imfbench-leaderboard-v1", VERSION_KEY: SCHEMA_VERSION, "rows": rows}
            found["comparisons"] = [test.record() for table in source.tables for test in table.tests]
            click.echo(json.dumps(plain(found), indent=2, ensure_ascii=False, allow_nan=False))
        elif form == "csv":
            click.echo(as_csv(rows), nl=False)
        elif form == "latex":
            rankings = {t.group.title: t.rankings for t in source.tables}
            told = {t.group.title: t.told for t in source.tables}
            click.echo(latex([t.group for t in source.tables], rankings, told), nl=False)
        elif form == "md":
            for table in source.tables:
                click.echo(
                    "\n\n".join([f"## {table.group.title}", *table.told, *main_table(table.group, table.rankings)])
                    + "\n"
                )
        else:
            for table in source.tables:
                print_group(table.group, list(table.rankings), list(table.tests), table.told)
        if out is not None:
            click.echo(f"wrote {write_page(out, source, Page.Config())[0]}", err=True)
