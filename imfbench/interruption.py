"""Ctrl-C and SIGTERM, also where Python loses them: an exception in a callback from C (libsndfile's, for one) is swallowed."""

from __future__ import annotations

import signal
from types import FrameType

_asked = False


def listen() -> None:
    """From now on SIGINT and SIGTERM raise ``KeyboardInterrupt`` at once, and again at the next ``check``."""
    global _asked
    _asked = False
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _note)


def check() -> None:
    """Raise ``KeyboardInterrupt`` if one was asked for and got lost."""
    if _asked:
        raise KeyboardInterrupt


def _note(_number: int, _frame: FrameType | None) -> None:
    global _asked
    _asked = True
    raise KeyboardInterrupt
