"""``imfbench publish`` and ``imfbench verify``: a results folder that another person can submit, and its checks."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from imfbench.cli_base import print_findings, user_errors


@click.command("publish")
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="The folder to make [published/RUN].")
@click.option(
    "--samples", type=click.IntRange(min=0), default=2, show_default=True, help="Utterances whose audio goes along."
)
def publish_command(run: Path, out: Path | None, samples: int) -> None:
    """Make a results folder of a run: figures, settings, manifest, sample audio, no weights; ready for a pull request.

    \b
    Example:
      imfbench publish runs/quickstart --out results/mine
      imfbench verify results/mine
    """
    with user_errors():
        from imfbench.publishing import publish

        folder = out or Path("published") / run.resolve().name
        files = publish(run, folder, samples)
    size = sum(file.stat().st_size for file in files)
    click.echo(
        f"wrote {len(files)} files ({size / 1e6:.1f} MB) to {folder}; check them with\n  imfbench verify {folder}"
    )


@click.command("verify")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def verify_command(folder: Path) -> None:
    """Check a results folder: hashes, schema, and every figure made again from its utterances. Exit code 1 if one is wrong.

    \b
    Example:
      imfbench verify results/theirs
    """
    with user_errors():
        from imfbench.verification import verify

        wrong = print_findings(verify(folder))
    sys.exit(1 if wrong else 0)
