"""Ctrl-C where Python swallows it: at the next step of a piece of work it is remembered."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

import pytest

from imfbench import interruption
from imfbench.progress import Reporting


@pytest.fixture
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    interruption.listen()  # forgets what was asked
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("terminal", [False, True])
def test_an_interruption_that_was_swallowed_comes_at_the_next_step(
    handlers: None, number: signal.Signals, terminal: bool
) -> None:
    interruption.listen()
    with Reporting(terminal).bar("work", 3) as bar:
        bar.advance()
        with contextlib.suppress(KeyboardInterrupt):  # as a callback from C does
            signal.raise_signal(number)
        with pytest.raises(KeyboardInterrupt):
            bar.advance()


def test_nothing_was_asked_for(handlers: None) -> None:
    interruption.listen()
    interruption.check()
