"""One job after another in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from imfbench.executors import Perform
from imfbench.pipeline.plan import Job


class LocalExecutor:
    """The default: no processes, no queue. Models are loaded one at a time, which small machines need."""

    def run(self, jobs: Sequence[Job], perform: Perform, failed: Callable[[Job, Exception], None]) -> None:
        """Do all jobs in order; see ``imfbench.executors.Executor``."""
        for job in jobs:
            try:
                perform(job)
            except Exception as error:
                failed(job, error)
