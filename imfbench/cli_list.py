"""``imfbench list``: what is registered."""

from __future__ import annotations

import click


@click.command("list")
@click.argument(
    "what",
    type=click.Choice(
        ["methods", "datasets", "metrics", "grids", "solvers", "configs", "vocoders", "backbones", "reports"]
    ),
)
def list_command(what: str) -> None:
    """List what is registered, or the experiments that ship.

    \b
    Example:
      imfbench list methods
    """
    from imfbench.listing import listing

    for name, about in listing(what).items():
        click.echo(f"{name:<24} {about}".rstrip())
