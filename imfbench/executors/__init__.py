"""Who runs the jobs of an experiment: everything behind one call, so that another engine can take its place."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from imfbench.pipeline.plan import Job

Perform = Callable[[Job], None]


class Work(ABC):
    """Does jobs, here or, pickled, in another process; what one of them finds out, the others are told."""

    @abstractmethod
    def __call__(self, job: Job) -> None:
        """Do one job."""

    @abstractmethod
    def times(self, job: Job) -> bool:
        """Whether a job begins by timing something, which must not share the machine: ``begin`` is done first, alone."""

    @abstractmethod
    def begin(self, job: Job) -> None:
        """Do what of a job is timed; the job itself comes later."""

    @abstractmethod
    def news(self) -> Any:
        """What others must know: small, and fit for pickling."""

    @abstractmethod
    def hear(self, news: Any) -> None:
        """Take over what another has found out."""


class Executor(Protocol):
    """Runs jobs, each after those that it needs."""

    def run(self, jobs: Sequence[Job], perform: Perform, failed: Callable[[Job, Exception], None]) -> None:
        """Do all jobs.

        Args:
            jobs: In an order in which each comes after what it needs; needs that are not among them have been met.
            perform: Does one job. Doing a job twice changes nothing the second time.
            failed: Told of a job that raised; the others go on.
        """
