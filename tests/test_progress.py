"""What is said of work that takes long where no terminal is attached."""

from __future__ import annotations

import logging

import pytest

from imfbench import progress
from imfbench.progress import Reporting


class Clock:
    """A clock that goes on by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The lines with a time left, each once: the logger may have handlers of other tests."""
    return list(dict.fromkeys(record.message for record in caplog.records if "left" in record.message))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(progress, "time", found)
    return found


def test_the_time_left_of_work_that_goes_on_is_reckoned_by_the_speed_of_this_run(
    clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("imfbench"), "propagate", True)
    with caplog.at_level(logging.INFO, logger="imfbench"), Reporting(terminal=False).bar("train x", 2000) as bar:
        for step in range(1000, 1101):  # a thousand steps were there; each of these takes four seconds
            bar.reach(step, note="loss 1")
            clock.now += 4
    # The line comes after five minutes, at 76 steps of this run: 2000 - 1076 are left.
    assert said(caplog) == ["train x: 1076 of 2000, about 1 h 1 min left (loss 1)"]


def test_the_time_left_of_work_that_begins(
    clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("imfbench"), "propagate", True)
    with caplog.at_level(logging.INFO, logger="imfbench"), Reporting(terminal=False).bar("score wer", 10) as bar:
        for _ in range(4):
            clock.now += 100
            bar.advance()
    assert said(caplog) == ["score wer: 4 of 10, about 10 min 0 s left"]
