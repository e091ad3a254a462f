"""``imfbench profile METHOD…``: seconds and peak memory of training and sampling steps."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click

FORMATS = ("table", "csv", "json")
COLUMNS = {
    "system": "System", "stage": "Stage", "nfe": "NFE", "network_calls": "Calls", "frames": "Frames", "batch": "Batch",
    "width": "Width", "depth": "Depth", "parameters": "Weights (M)", "seconds": "Seconds", "peak_memory": "Memory (MB)",
    "measured": "Kind",
}  # fmt: skip


class Numbers(click.ParamType):
    """One whole number or several, divided by commas."""

    name = "N[,N…]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """The numbers, in order, none of them twice."""
        if isinstance(value, tuple):
            return value
        parts = [part.strip() for part in str(value).split(",") if part.strip()]
        if not parts or not all(part.isdecimal() and int(part) > 0 for part in parts):
            self.fail(f"{value!r} is no list of whole numbers above 0, such as 500 or 500,1000,2000", param, ctx)
        return tuple(dict.fromkeys(map(int, parts)))


@click.command("profile")
@click.argument("methods", nargs=-1, required=True, metavar="METHOD...")
@click.option("--frames", type=Numbers(), default="500", show_default=True, help="Mel frames of each row.")
@click.option("--batch", type=Numbers(), default="4", show_default=True, help="Rows.")
@click.option("--width", type=Numbers(), help="The network's dim [the shape's].")
@click.option("--depth", type=click.IntRange(min=1), help="Its transformer blocks [the shape's].")
@click.option(
    "--shape",
    default="embedded",
    show_default=True,
    help="embedded; our DiT as large as f5-base or cosyvoice2; the originals f5tts and cosyvoice2-flow. Random weights.",
)
@click.option("--set", "settings", multiple=True, metavar="[METHOD.]KEY=VALUE", help="A setting; may be repeated.")
@click.option("--stage", type=click.Choice(["training", "sampling", "both"]), default="both", show_default=True)
@click.option("--nfe", type=Numbers(), default="1", show_default=True, help="Evaluations of a sampling.")
@click.option("--estimate", is_flag=True, help="Run nothing: memory by fake tensors.")
@click.option("--repeats", type=click.IntRange(min=1), default=5, show_default=True, help="Steps that are timed.")
@click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, or an accelerator by torch's name for it."
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "bf16", "fp32"]),
    default="auto",
    show_default=True,
    help="auto: bf16 where it is fast.",
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads [torch's].")
@click.option("--format", "form", type=click.Choice(FORMATS), default="table", show_default=True)
def profile_command(
    methods: tuple[str, ...], frames: tuple[int, ...], batch: tuple[int, ...], width: tuple[int, ...] | None,
    depth: int | None, shape: str, settings: tuple[str, ...], stage: str, nfe: tuple[int, ...], estimate: bool, repeats: int,
    device: str, precision: Any, threads: int | None, form: str,
) -> None:  # fmt: skip
    """Seconds and peak memory of a training and of a sampling step, by method and size.

    Weights are random: cost depends on shapes alone, and no figure of quality comes of it. Every step is estimated on
    tensors without values first; one that needs more memory than is free is not run, and its row says `estimate`.

    \b
    Example:
      imfbench profile teacher meanflow intmeanflow --frames 500,1000 --batch 4
      imfbench profile intmeanflow --set teacher_nfe=2 --width 128,256 --stage training --format csv
      imfbench profile meanflow --shape f5-base --frames 2000 --batch 8 --estimate
    """
    from imfbench.cli_base import user_errors

    with user_errors():
        import torch

        from imfbench.config_file import options_of
        from imfbench.profiling import STAGES, profile, systems_of
        from imfbench.profiling.rows import grid_of_sizes

        if threads is not None:
            torch.set_num_threads(threads)
        sizes = list(grid_of_sizes(frames, batch, width or (None,), depth, shape))
        chosen = options_of(settings)
        stages = [name for name in STAGES if stage in (name, "both")]
        systems = {name: systems_of(methods, chosen, name) for name in stages}
        rows = []
        for name in stages:
            for count in nfe if name == "sampling" else (1,):
                rows += profile(
                    systems[name], sizes, name, nfe=count, device=device, precision=precision,
                    estimates="only" if estimate else "first", repeats=repeats, progress=_told,
                )  # fmt: skip
    click.echo(PRINTED[form](rows))


def _told(what: str) -> None:
    click.echo(what, err=True)


def _table(rows: list[dict[str, Any]]) -> str:
    shown = [list(COLUMNS.values()), *([_cell(name, row[name]) for name in COLUMNS] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if name in ("system", "stage", "measured") else cell.rjust(width)
            for name, cell, width in zip(COLUMNS, line, widths, strict=True)
        ).rstrip()
        for line in shown
    ]
    first = rows[0]
    lines += [
        "",
        f"{first['shape']}, {first['dtype']}, {first['device']}: {first.get('gpu', first['cpu'])}, {first['threads']} threads",
    ]
    kinds = {row["peak_memory_kind"] for row in rows} - {None}
    lines.append(f"Memory: {', '.join(sorted(kinds))}. Random weights: a figure of cost, not of quality.")
    notes = [f"{row['system']}, {row['frames']} × {row['batch']}: {row['note']}" for row in rows if row["note"]]
    notes += [
        f"{row['system']}, {row['frames']} × {row['batch']}: seconds {row['seconds_kind']}"
        for row in rows if not row["measured"] and row["seconds"] is not None
    ]  # fmt: skip
    return "\n".join(lines + notes)


def _cell(name: str, value: Any) -> str:
    if name == "measured":
        return "measured" if value else "estimate"
    if value is None:
        return "–"
    if name in ("parameters", "peak_memory"):
        return f"{value / 1e6:.1f}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _csv(rows: list[dict[str, Any]]) -> str:
    import pandas as pd

    flat = [
        {**row, "config": json.dumps(row["config"]), "seconds_each": " ".join(map(repr, row["seconds_each"]))}
        for row in rows
    ]
    return pd.DataFrame(flat).to_csv(index=False).rstrip("\n")


def _json(rows: list[dict[str, Any]]) -> str:
    from imfbench.store import plain

    return json.dumps(plain(rows), indent=2, ensure_ascii=False, allow_nan=False)


PRINTED: dict[str, Callable[[list[dict[str, Any]]], str]] = {"table": _table, "csv": _csv, "json": _json}
