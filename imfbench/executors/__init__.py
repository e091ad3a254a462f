"""Who runs the jobs of an experiment: everything behind one call, so that another engine can take its place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from imfbench.pipeline.plan import Job

Perform = Callable[[Job], None]


class Executor(Protocol):
    """Runs jobs, each after those that it needs."""

    def run(self, jobs: Sequence[Job], perform: Perform, failed: Callable[[Job, Exception], None]) -> None:
        """Do all jobs.

        Args:
            jobs: In an order in which each comes after what it needs; needs that are not among them have been met.
            perform: Does one job. Doing a job twice changes nothing the second time.
            failed: Told of a job that raised; the others go on.
        """
