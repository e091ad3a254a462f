"""Ctrl-C and SIGTERM, also where Python loses them: an exception in a callback from C (libsndfile's, for one) is swallowed."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_asked = False
_deferred = 0


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


@contextmanager
def deferred() -> Iterator[None]:
    """Around work in which C calls back into Python: an interruption comes when it has ended, not within.

    Raised within, cffi would print its traceback, and what the work returns would be wrong. One that got lost before is left
    to the next ``check``.
    """
    global _deferred
    if threading.current_thread() is not threading.main_thread():  # signals come to the main thread alone
        yield
        return
    before = _asked
    _deferred += 1
    try:
        yield
    finally:
        _deferred -= 1
    if not before:
        check()


def when_parent_ends(then: Callable[[], None]) -> None:
    """Call ``then``, in a thread, when the process that started this one has gone: nobody else would end it.

    A parent that was killed cannot tell its processes to end; two runs in one folder, or processes that wait for work for ever,
    would follow.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    sentinel = parent.sentinel

    def watch() -> None:
        multiprocessing.connection.wait([sentinel])
        then()

    threading.Thread(target=watch, daemon=True).start()


def _note(_number: int, _frame: FrameType | None) -> None:
    global _asked
    _asked = True
    if _deferred:
        return
    raise KeyboardInterrupt
