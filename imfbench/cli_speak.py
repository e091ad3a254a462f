"""``imfbench synthesize --text``: one's own text in a prompt's voice."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

OWN = ("prompt", "prompt_text", "methods", "nfe", "grid", "speed", "accent", "seed", "vocoder", "score")
FEWEST, MOST = 1, 256
HEADERS = {
    "network_calls": "calls", "seconds": "s", "rtf_network": "RTF", "wer": "WER", "sim": "SIM", "mos_distillmos": "MOS",
}  # fmt: skip
"""Short ones: the table is to fit into 80 columns."""


class Counts(click.ParamType):
    """``1,2,32``: velocity evaluations."""

    name = "N,N,…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """The numbers."""
        if isinstance(value, tuple):
            return value
        parts = [part.strip() for part in str(value).split(",")]
        if not all(part.isdecimal() and FEWEST <= int(part) <= MOST for part in parts):
            self.fail(f"{value!r} is no list of numbers from {FEWEST} to {MOST}, such as 1,2,32", param, ctx)
        return tuple(dict.fromkeys(map(int, parts)))


class FiniteRange(click.FloatRange):
    """A range that nan is not in, as every comparison with it is false."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number; a usage error if it is none of the range."""
        found = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value!r} is no number from {self.min} to {self.max}", param, ctx)
        return found


def own_text_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a text of one's own."""
    for option in (
        click.option("--no-score", "score", flag_value=False, default=True, help="Do not listen with the scorers."),
        click.option("--seed", type=int, default=0, show_default=True, help="Of the noise."),
        click.option("--vocoder", help="Of networks that share its mel; HiFi-GAN or Griffin-Lim without it."),
        click.option("--accent", type=click.Choice(["us", "gb"]), default="us", show_default=True),
        click.option("--speed", type=FiniteRange(0.5, 2.0), default=1.0, help="1.2 is a fifth faster than the prompt."),
        click.option("--grid", default="sway", show_default=True, help="Time grid of the teacher."),
        click.option("--nfe", type=Counts(), default="8", show_default=True, help="Velocity evaluations: 1,2,32"),
        click.option("--method", "methods", default="teacher", show_default=True, help="Methods or artefacts: a,b"),
        click.option("--prompt-text", help="What the prompt says; the recogniser listens without it."),
        click.option("--prompt", type=click.Path(path_type=Path), help="Recording whose voice is to speak, 1 to 10 s."),
        click.option("--text", help="A text of your own instead of CONFIG; English."),
    ):
        command = option(command)
    return command


def say(
    text: str, prompt: Path | None, prompt_text: str | None, methods: str, nfe: tuple[int, ...], grid: str, speed: float,
    accent: str, seed: int, vocoder: str | None, score: bool, out: Path | None, device: str | None, threads: int | None,
) -> None:  # fmt: skip
    """Say the text and print a table of what was made."""
    if prompt is None:
        raise click.UsageError("--text needs --prompt, a recording whose voice is to speak")
    import torch
    from rich.console import Console
    from rich.table import Table

    from imfbench.speak import Request, speak

    if threads is not None:
        torch.set_num_threads(threads)
    names = [name.strip() for name in methods.split(",") if name.strip()]
    request = Request(text, prompt, prompt_text, names, nfe, grid, seed, speed, accent == "gb", vocoder)
    target = out or Path("own.wav" if len(names) * len(nfe) == 1 else "own")
    frame = speak(request, target, device or "auto", scored=score)
    figures = frame.drop(columns=["heard"], errors="ignore")
    table = Table(*(HEADERS.get(name, name) for name in figures), box=None, padding=(0, 2, 0, 0))
    for row in figures.itertuples(index=False):
        table.add_row(*(f"{value:.3g}" if isinstance(value, float) else str(value) for value in row))
    console = Console()
    console.print(table)
    for made in frame.to_dict("records"):
        if made.get("heard"):  # whole sentences make no column
            console.print(f"{made['file']} was heard as: {made['heard']}", highlight=False, markup=False)
    if not prompt_text:
        console.print(f"the prompt was heard as: {frame.attrs['prompt_text']}", highlight=False)
    if frame.attrs["prompt_notes"]:
        console.print(f"the prompt: {'; '.join(frame.attrs['prompt_notes'])}", highlight=False)
    console.print(f"in {target}; a small teacher's English, no product", highlight=False)
