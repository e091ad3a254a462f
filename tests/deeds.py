"""Work for test_workers.py: of a module that other processes can import too."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from imfbench.config_file import ConfigError
from imfbench.executors import Work
from imfbench.pipeline.plan import Job


class TwoPartsError(RuntimeError):
    """Cannot be copied by pickle: it is made of two arguments and remembers one."""

    def __init__(self, what: str, where: str) -> None:
        super().__init__(f"{what} at {where}")


@dataclass
class Deeds(Work):
    """Writes when each job began and ended; some jobs fail in ways of their own."""

    folder: Path
    known: list[str] = field(default_factory=list)

    def __call__(self, job: Job) -> None:
        self.known.append(job.name)
        (self.folder / f"{job.subject}.began").write_text(f"{time.monotonic()} {os.getpid()}")
        if job.subject == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if job.subject == "refused":
            raise ConfigError("my.yaml, line 3: no such key")
        if job.subject == "clumsy":
            raise TwoPartsError("a fault", "line 4")
        deadline = time.monotonic() + 120 if job.subject.startswith("long") else 0.0
        while len(list(self.folder.glob("long-*.began"))) < 2 and time.monotonic() < deadline:
            time.sleep(
                0.02
            )  # a long job lasts until there are two: however slowly a process begins, they can be seen side by side
        (self.folder / f"{job.subject}.ended").write_text(f"{time.monotonic()} {' '.join(self.known)}")

    def times(self, job: Job) -> bool:
        return "timed" in job.subject

    def begin(self, job: Job) -> None:
        began = time.monotonic()
        if "refused" in job.subject:
            raise ConfigError("no time")
        time.sleep(0.2)  # long enough for another worker to take up something, if it were let
        (self.folder / f"{job.subject}.timed").write_text(f"{began} {time.monotonic()}")

    def news(self) -> list[str]:
        return self.known

    def hear(self, news: list[str]) -> None:
        self.known = sorted({*self.known, *news})

    def when(self, subject: str) -> tuple[float, float]:
        return tuple(float((self.folder / f"{subject}.{x}").read_text().split()[0]) for x in ("began", "ended"))  # type: ignore[return-value]
