"""``imfbench cache``: what is kept of scores, and how to be rid of it."""

from __future__ import annotations

from pathlib import Path

import click


@click.group("cache")
def cache() -> None:
    """What scorers heard is kept by content and found again: how much of it there is (info), and how to be rid of it (clear).

    \b
    Example:
      imfbench cache info
      imfbench cache clear wer
    """


_folder = click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="A score cache elsewhere (score_cache of an experiment) [IMFBENCH_CACHE, else ~/.cache/imfbench].",
)


@cache.command("info")
@_folder
@click.option("--format", "form", type=click.Choice(("table", "json")), default="table", show_default=True)
def info_command(folder: Path | None, form: str) -> None:
    """Show where the scores are kept, and how many of which metric and model.

    \b
    Example:
      imfbench cache info
      imfbench cache info --format json
    """
    from imfbench.cli_base import user_errors

    with user_errors():
        import json
        from dataclasses import asdict

        from imfbench.score_cache import ScoreCache

        scores = ScoreCache(folder)
        found = scores.sections()
        if form == "json":
            told = {"folder": str(scores.folder), "sections": [asdict(section) for section in found]}
            click.echo(json.dumps(told, indent=2, ensure_ascii=False))
            return
        click.echo(f"{scores.folder}: {_size(sum(s.entries for s in found), sum(s.bytes for s in found))}")
        for section in found:
            model = section.model or "of an earlier version, which this one does not read"
            click.echo(f"  {section.metric:<8} {_size(section.entries, section.bytes):>24}  {model}")


@cache.command("clear")
@click.argument("metrics", nargs=-1, metavar="[METRIC]...")
@click.option("--all", "everything", is_flag=True, help="The scores of all metrics.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_folder
def clear_command(metrics: tuple[str, ...], everything: bool, yes: bool, folder: Path | None) -> None:
    """Remove the kept scores of some metrics, or of all. They are made again when they are next asked for.

    Models and features, which lie beside the scores, stay.

    \b
    Example:
      imfbench cache clear wer
      imfbench cache clear --all --yes
    """
    if bool(metrics) == everything:
        raise click.UsageError("name the metrics whose scores are to be removed, or all of them with --all")
    from imfbench.cli_base import UserError, user_errors

    with user_errors():
        from imfbench.registry import nearest
        from imfbench.score_cache import ScoreCache

        scores = ScoreCache(folder)
        found = scores.sections()
        there = list(dict.fromkeys(section.metric for section in found))
        for name in metrics:
            if name not in there:
                told = nearest(name, there) if there else "the cache is empty."
                raise UserError(f"the score cache {scores.folder} holds nothing of {name!r}: {told}")
        concerned = [section for section in found if everything or section.metric in metrics]
        size = _size(sum(s.entries for s in concerned), sum(s.bytes for s in concerned))
        if not concerned:
            click.echo(f"{scores.folder}: nothing to remove")
            return
        if not yes:
            click.confirm(f"Remove {size} of {', '.join(metrics) or 'all metrics'} from {scores.folder}?", abort=True)
        removed = scores.clear(None if everything else metrics)
        click.echo(f"{scores.folder}: removed {_size(removed.entries, removed.bytes)}")


def _size(entries: int, size: int) -> str:
    number = f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
    return f"{entries} {'entry' if entries == 1 else 'entries'}, {number}"
