"""``imfbench list``: what is registered."""

from __future__ import annotations

import click


@click.command("list")
@click.argument(
    "what",
    type=click.Choice(
        [
            "methods",
            "datasets",
            "metrics",
            "grids",
            "solvers",
            "configs",
            "artefacts",
            "vocoders",
            "backbones",
            "reports",
        ]
    ),
)
def list_command(what: str) -> None:
    """List what is registered, or the experiments (configs) and networks (artefacts) that ship.

    \b
    Example:
      imfbench list methods
    """
    from imfbench.listing import listing

    found = listing(what)
    width = max(map(len, [*found, " " * 24]))
    for name, about in found.items():
        click.echo(f"{name:<{width}} {about}".rstrip())
