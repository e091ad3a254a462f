"""Several jobs at once, each worker a process: on a CPU two single threads do more than one job with two threads."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from imfbench import interruption
from imfbench.executors import Perform, Work
from imfbench.pipeline.context import RunError
from imfbench.pipeline.plan import Job, Stage

ASIDE: tuple[Stage, ...] = ("train", "search", "synthesise")
"""What workers do. Scores of one cell stand in one file, and reports are about everything: those are this process's."""
STOP_SECONDS = 60.0
"""A worker that was asked to stop saves its training step first."""

log = logging.getLogger("imfbench")


class WorkerError(RuntimeError):
    """A worker's process ended, or its error cannot be sent from one process to another; the message says what it was."""


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    job: Job | None = None
    only_begins: bool = False
    begun: bool = False


class ProcessExecutor:
    """Trains, searches and samples in ``workers`` processes, each job after those that it needs; does the rest itself.

    The performed work must be a ``Work``, which can be sent to another process.

    Args:
        workers: How many jobs may be at work at once.
        plugins: Files that every worker imports first.
    """

    def __init__(self, workers: int, plugins: Sequence[Path] = ()) -> None:
        if workers < 1:
            raise ValueError(f"{workers} workers cannot do anything: 1 is the fewest")
        self.workers = workers
        self.plugins = tuple(plugins)

    def run(self, jobs: Sequence[Job], perform: Perform, failed: Callable[[Job, Exception], None]) -> None:
        """Do all jobs; see ``imfbench.executors.Executor``."""
        if not isinstance(perform, Work):
            raise TypeError("work for other processes must be an imfbench.executors.Work")
        aside = [job for job in jobs if job.stage in ASIDE]
        if aside:
            self._side_by_side(aside, perform, failed)
        for job in jobs:
            if job.stage in ASIDE:
                continue
            try:
                perform(job)
            except Exception as error:
                failed(job, error)

    def _side_by_side(self, jobs: list[Job], work: Work, failed: Callable[[Job, Exception], None]) -> None:
        left, busy, idle = list(jobs), [], []  # type: list[Job], list[_Worker], list[_Worker]
        timed: set[str] = set()
        try:
            while left or busy:
                while left and len(busy) < self.workers and not any(worker.only_begins for worker in busy):
                    at_work = [worker.job for worker in busy if worker.job]
                    job, only_begins = _next(left, at_work, lambda job: job.name not in timed and work.times(job))
                    if job is None:
                        break
                    timed.add(job.name)
                    if not only_begins:
                        left.remove(job)
                    worker = idle.pop() if idle else _start(work, self.plugins)
                    worker.job, worker.only_begins = job, only_begins
                    with contextlib.suppress(OSError):  # of one that has died meanwhile; told below
                        worker.connection.send((job, only_begins, work.news()))
                    busy.append(worker)
                for ready in wait([worker.connection for worker in busy], timeout=1.0):
                    worker = next(w for w in busy if w.connection is ready)
                    if not worker.begun:
                        _begin(worker)
                        continue
                    busy.remove(worker)
                    error = _outcome(worker, work)
                    if worker.process.is_alive():
                        idle.append(worker)
                    assert worker.job is not None
                    if error is None:
                        continue
                    if worker.only_begins:
                        left.remove(worker.job)
                    failed(worker.job, error)
                interruption.check()
        finally:
            _stop([*busy, *idle])


def _next(left: Sequence[Job], at_work: Sequence[Job], times: Callable[[Job], bool]) -> tuple[Job | None, bool]:
    """The first job whose needs are met, and whether it is only begun: what times something is so first, and alone."""
    unmet = {job.name for job in (*left, *at_work)}
    ready = [job for job in left if unmet.isdisjoint(job.needs)]
    timing = next((job for job in ready if times(job)), None)
    if timing is not None:
        return (None, False) if at_work else (timing, True)
    return next(iter(ready), None), False


def _begin(worker: _Worker) -> None:
    """Hear that a worker is there.

    Raises:
        RunError: It ended before: so would every other one, and each would take a job with it.
    """
    try:
        worker.connection.recv()
    except (EOFError, OSError):
        raise RunError(
            f"a worker's process ended before its first job ({_end_of(worker)}); what it said stands above. A script that calls "
            'imfbench must do so under `if __name__ == "__main__":`, since each worker imports it; --workers 1 needs none'
        ) from None
    worker.begun = True


def _outcome(worker: _Worker, work: Work) -> Exception | None:
    """Hear what a worker has to say of its job: its error, if it had one."""
    try:
        error, news = worker.connection.recv()
    except (EOFError, OSError):
        return WorkerError(f"the worker's process ended ({_end_of(worker)}); repeat the command to try it again")
    work.hear(news)
    return error  # type: ignore[no-any-return]


def _end_of(worker: _Worker) -> str:
    """How the process of a worker ended."""
    worker.process.join(STOP_SECONDS)
    code = worker.process.exitcode
    if code is None or code >= 0:
        return f"exit code {code}"
    why = signal.Signals(-code).name
    if -code == signal.SIGKILL:
        why += ", which is what the system does to a process when memory runs out: fewer --workers need less"
    return why


def _start(work: Work, plugins: Sequence[Path]) -> _Worker:
    # Not fork: a copy of a process with threads (torch's, a GPU's) may stand still for ever.
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    # It must not be told of Ctrl-C by the terminal and again by this process: the second one would not wait for a training step.
    process = context.Process(target=_serve, args=(there, pickle.dumps(work), tuple(plugins)), daemon=True)
    process.start()
    there.close()
    return _Worker(process, here)


def _stop(workers: Sequence[_Worker]) -> None:
    for worker in workers:
        if worker.job is not None and worker.process.is_alive():
            worker.process.terminate()
        worker.connection.close()  # an idle one sees the end of its work
    for worker in workers:
        worker.process.join(STOP_SECONDS)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()


def _serve(connection: Connection, pickled: bytes, plugins: Sequence[Path]) -> None:
    """A worker's life: jobs, until there are none or the process that asks for them has gone."""
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    interruption.listen()
    from imfbench.plugins import load_file, told_elsewhere
    from imfbench.progress import Reporting

    Reporting(terminal=False).set_up_logging()
    told_elsewhere()
    try:
        for file in plugins:
            load_file(file)
        work: Work = pickle.loads(pickled)
        interruption.when_parent_ends(lambda: os.kill(os.getpid(), signal.SIGTERM))  # which saves, as Ctrl-C does
        connection.send("begun")
        while True:
            try:
                job, only_begins, news = connection.recv()
            except (EOFError, OSError):
                return
            work.hear(news)
            try:
                (work.begin if only_begins else work)(job)
                error = None
            except Exception as caught:
                log.debug("where %s failed", job.name, exc_info=caught)
                error = _portable(caught)
            connection.send((error, work.news()))
    except KeyboardInterrupt:
        pass  # the process that sent it tells the user


def _portable(error: Exception) -> Exception:
    """The error, if it survives the way to another process, else what it says; without its traceback."""
    with contextlib.suppress(Exception):
        copy: Any = pickle.loads(pickle.dumps(error))
        if type(copy) is type(error) and str(copy) == str(error):
            return error
    return WorkerError(f"{type(error).__name__}: {error}")
