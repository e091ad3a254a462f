"""``imfbench compare A B…``: rows of several runs in one table."""

from __future__ import annotations

import json
from pathlib import Path

import click

from imfbench.cli_score import FORMATS, cluster_option, margins_of, print_group


@click.command("compare")
@click.argument("places", nargs=-1, required=True, metavar="DIR...", type=click.Path(exists=True, path_type=Path))
@click.option("--baseline", metavar="NAME", help="A row, or a folder of one row, that all others are tested against.")
@click.option(
    "--margin", "margin", multiple=True, metavar="METRIC=LOSS",
    help="Accepted loss of the tests of non-inferiority and equivalence, such as wer=0.01; may be repeated.",
)  # fmt: skip
@cluster_option
@click.option(
    "--report", "report", is_flag=False, flag_value="comparison", default=None, metavar="[FOLDER]",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write a page too, with the sound of both: FOLDER/index.html [comparison].",
)  # fmt: skip
@click.option("--format", "form", type=click.Choice(FORMATS), default="table", show_default=True)
def compare_command(
    places: tuple[Path, ...], baseline: str | None, margin: tuple[str, ...], cluster: str | None, report: Path | None,
    form: str,
) -> None:  # fmt: skip
    """Put the rows of several runs into one table, and test them against each other over the utterances they share.

    Each DIR is the run folder of an experiment or of `imfbench score`, or a folder with a leaderboard.json. A figure whose rows
    were scored in different ways (other signatures) is shown, but neither ranked nor tested; what differs is told.

    \b
    Example:
      imfbench compare runs/monday runs/tuesday
      imfbench compare runs/mine runs/theirs --baseline runs/theirs --margin wer=0.01 --format md
      imfbench compare runs/mine runs/theirs --report
    """
    from imfbench.cli_base import user_errors

    with user_errors():
        from imfbench.reports.across import as_markdown, compare, record, statements
        from imfbench.reports.latex import latex
        from imfbench.reports.leaderboard import as_csv, complete
        from imfbench.store import plain

        tables = compare(places, baseline, margins_of(margin), cluster)
        if report is not None:
            from imfbench.reports.page import Page, of_tables, write_page

            title = " and ".join(dict.fromkeys(place.resolve().name for place in places))
            page = write_page(report, of_tables(title, tables), Page.Config())[0]
            click.echo(f"wrote {page}", err=True)
        if form == "json":
            click.echo(json.dumps(plain(record(tables)), indent=2, ensure_ascii=False, allow_nan=False))
        elif form == "csv":
            click.echo(as_csv([complete(cell) for table in tables for cell in table.group.cells]), nl=False)
        elif form == "md":
            click.echo(as_markdown(tables), nl=False)
        elif form == "latex":
            told = {t.group.title: statements(t) for t in tables}
            click.echo(latex([t.group for t in tables], {t.group.title: t.rankings for t in tables}, told), nl=False)
        else:
            for table in tables:
                print_group(table.group, table.rankings, table.comparisons, statements(table))
