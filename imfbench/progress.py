"""Progress of long work: bars with the time left on a terminal, one log line per piece of work elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from imfbench import interruption

log = logging.getLogger("imfbench")
QUIET_SECONDS = 300.0
"""Without a terminal, work that takes hours says so often that it lives; shorter work says one line when it ends."""


class Bar(Protocol):
    """What a piece of work tells about itself."""

    def advance(self, steps: float = 1, note: str = "") -> None:
        """``steps`` more are done; ``note`` says in a few words how it goes."""

    def reach(self, done: float, total: float | None = None, note: str = "") -> None:
        """``done`` steps in all are done, of ``total`` if that has changed."""


class _TerminalBar:
    def __init__(self, progress: Progress, what: str, total: float) -> None:
        self.progress = progress
        self.task = progress.add_task(what, total=total, note="")

    def advance(self, steps: float = 1, note: str = "") -> None:
        interruption.check()
        self.progress.update(self.task, advance=steps, note=note)

    def reach(self, done: float, total: float | None = None, note: str = "") -> None:
        interruption.check()
        self.progress.update(self.task, completed=done, total=total, note=note)


class _LogBar:
    def __init__(self, what: str, total: float) -> None:
        self.what, self.total, self.done, self.note = what, total, 0.0, ""
        self.started = self.said = time.monotonic()
        self.known: tuple[float, float] | None = None  # done and when, from which the speed is reckoned

    def advance(self, steps: float = 1, note: str = "") -> None:
        self.known = self.known or (self.done, self.started)
        self.reach(self.done + steps, note=note)

    def reach(self, done: float, total: float | None = None, note: str = "") -> None:
        interruption.check()
        self.done, self.note = done, note or self.note
        self.total = self.total if total is None else total
        now = time.monotonic()
        # What is there at the first word may be an earlier run's, which took none of this one's time.
        before, since = self.known = self.known or (done, now)
        if now - self.said > QUIET_SECONDS and before < self.done < self.total:
            left = (now - since) / (self.done - before) * (self.total - self.done)
            log.info("%s: %g of %g, about %s left%s", self.what, self.done, self.total, clock(left), self._noted())
            self.said = now

    def ended(self) -> None:
        took = clock(time.monotonic() - self.started)
        log.info("%s: %g of %g in %s%s", self.what, self.done, self.total, took, self._noted())

    def _noted(self) -> str:
        return f" ({self.note})" if self.note else ""


class Reporting:
    """The choice between the two: bars if ``terminal``, else log lines.

    Args:
        terminal: Whether somebody is watching; by default whether standard error is a terminal.
    """

    def __init__(self, terminal: bool | None = None) -> None:
        self.console = Console(stderr=True)
        self.terminal = self.console.is_terminal if terminal is None else terminal

    def set_up_logging(self, verbose: bool = False) -> None:
        """Send log lines to standard error, through the bars' console where there are bars."""
        handler: logging.Handler
        if self.terminal:
            handler = RichHandler(console=self.console, show_path=False, markup=False)
        else:
            handler = logging.StreamHandler(sys.stderr)
            handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
        log.handlers[:] = [handler]
        log.setLevel(logging.DEBUG if verbose else logging.INFO)
        log.propagate = False

    @contextmanager
    def bar(self, what: str, total: float) -> Iterator[Bar]:
        """Show a piece of work of ``total`` steps while the context is open."""
        if not self.terminal:
            line = _LogBar(what, total)
            yield line
            line.ended()
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=self.console) as progress:
            yield _TerminalBar(progress, what, total)


def clock(seconds: float) -> str:
    """Seconds as people read them: "8 s", "3 min 20 s", "2 h 5 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
