"""``imfbench claims``: the paper's sentences as measurements, with verdicts."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

from imfbench.cli_run import check_reuse, reuse_option

BUDGETS = ("small", "cpu", "full")
INTERRUPTED = 130


@click.command("claims")
@click.option("--only", multiple=True, type=int, metavar="N", help="This claim alone; may be repeated.")
@click.option("--budget", type=click.Choice(BUDGETS), default="small", show_default=True, help="How much is run.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the runs and the table [runs/claims-BUDGET].")
@click.option("--dry-run", is_flag=True, help="Show what would be run, and how far it has come; do nothing.")
@click.option("--no-run", is_flag=True, help="Judge what is there already.")
@reuse_option
@click.option("--limit", type=click.IntRange(min=2), help="At most so many utterances of each set.")
@click.option("--device", help="auto, cpu, or an accelerator by torch's name for it.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads of each process.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes that train, search, sample and score.")
@click.option(
    "--set", "settings", multiple=True, metavar="A.B=C",
    help="Change a setting of every experiment, or of one task's: text2mel/A.B=C.",
)  # fmt: skip
def claims_command(
    only: tuple[int, ...], budget: str, out: Path | None, dry_run: bool, no_run: bool, reuse: tuple[Path, ...],
    limit: int | None, device: str | None, threads: int | None, workers: int | None, settings: tuple[str, ...],
) -> None:  # fmt: skip
    """Test the claims of the IntMeanFlow paper: run what is missing, and say what is supported, at which scale.

    Each claim has experiments, a statistic with a margin, evidence and a verdict: supported, not supported, underpowered, not
    testable here, or no evidence. What is finished is never run twice.

    \b
    Example:
      imfbench claims --dry-run
      imfbench claims --only 4
      imfbench claims --budget cpu --reuse runs/full --out runs/claims-cpu
    """
    from imfbench import interruption
    from imfbench.cli_base import user_errors

    if out is not None and out.is_file():
        raise click.BadParameter(f"{out} is a file; the runs need a folder", param_hint="--out")
    check_reuse(reuse, dry_run)
    given = (("device", device), ("threads", threads), ("workers", workers))
    settings += tuple(f"{key}={value}" for key, value in given if value is not None)
    folder = out or Path("runs") / f"claims-{budget}"
    interruption.listen()
    try:
        with user_errors():
            from imfbench.claims.definition import load_claims

            claims = load_claims()
            chosen = claims.chosen(only)

            from imfbench.claims import render
            from imfbench.claims.run import Request, describe_plan, run_claims
            from imfbench.progress import Reporting

            reporting = Reporting()
            reporting.set_up_logging()
            request = Request(claims, chosen, budget, folder, settings, limit, reuse)  # type: ignore[arg-type]
            if dry_run:
                describe_plan(request)
                return
            outcome = run_claims(request, reporting, work=not no_run)
            command = shlex.join(["imfbench", *sys.argv[1:]])
            files = render.write(request, outcome, command)
            render.show(request, outcome)
    except KeyboardInterrupt:
        click.echo(f"\nstopped; what is done is kept in {folder}. Go on with the same command", err=True)
        sys.exit(INTERRUPTED)
    click.echo(f"wrote {' and '.join(map(str, files))}")
    if any(node.standing.verdict == "no evidence" for _, node in outcome.nodes):
        sys.exit(1)
