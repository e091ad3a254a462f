"""The jobs of one run, done in this process or in others."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from imfbench.config import ExperimentConfig
from imfbench.executors import Work
from imfbench.pipeline.cells import all_cells
from imfbench.pipeline.context import Context
from imfbench.pipeline.plan import Job
from imfbench.pipeline.score import score
from imfbench.pipeline.search import search_grid
from imfbench.pipeline.summary import summarise
from imfbench.pipeline.synthesise import synthesise
from imfbench.pipeline.train import settled, train_artefact
from imfbench.progress import Reporting, clock, log
from imfbench.registry import REPORTS
from imfbench.store import APART, RunFolder, read_json

News = tuple[ExperimentConfig, dict[str, str]]


class RunWork(Work):
    """The jobs of a run.

    Pickled it is the run's configuration and folder; in another process it opens datasets and models anew, when they are needed.
    """

    def __init__(self, context: Context, records: bool = True) -> None:
        self.context = context
        self.records = records  # a single process writes experiment.yaml; others tell it

    def __reduce__(self) -> Any:
        return _reopened, (self.news(), self.context.folder.path)

    def __call__(self, job: Job) -> None:
        """Do one job."""
        context = self.context
        if context.config.overwrite == "only-cache" and job.stage in ("train", "search"):
            return
        started = time.monotonic()
        if job.stage == "train":
            train_artefact(context, job.subject)
        elif job.stage == "search":
            search_grid(context, job.subject)
        elif job.stage == "synthesise":
            synthesise(context, job.subject)
        elif job.stage == "score":
            context.forget("artefact")
            context.forget("vocoder")
            score(context, job.subject)
        elif job.stage == "report":
            report(context, job.subject)
        log.debug("%s took %s", job.name, clock(time.monotonic() - started))

    def times(self, job: Job) -> bool:
        """A training whose minutes are not yet steps: beside another it would be given fewer steps than its time is worth.

        The first seed of a system times them for all.
        """
        context = self.context
        if job.stage != "train" or context.config.overwrite == "only-cache":
            return False
        index = context.plan.artefacts[job.subject].system
        return index is not None and context.config.training_of(context.config.systems[index]).get("steps") is None

    def begin(self, job: Job) -> None:
        """Have the steps of a training on record: timed, or taken over with an equal one."""
        settled(self.context, job.subject)

    def news(self) -> News:
        """The experiment, with the steps that have been timed, and the reasons of what failed."""
        return self.context.config, dict(self.context.failures)

    def hear(self, news: News) -> None:
        """Take over timed steps and failures, and have them on record."""
        config, failures = news
        self.context.failures |= failures
        systems = [
            theirs if mine.timed_minutes is None else mine
            for mine, theirs in zip(self.context.config.systems, config.systems, strict=True)
        ]
        if systems == self.context.config.systems:
            return
        changed = self.context.config.model_copy(update={"systems": systems})
        if self.records:
            self.context.record(changed)
        else:
            self.context.config = changed


def _reopened(news: News, folder: Path) -> RunWork:
    config, failures = news
    context = Context(config, RunFolder(folder), Reporting(terminal=False), dict(failures))
    context.use_threads(context.threads_of(config.workers))
    return RunWork(context, records=False)


def report(context: Context, name: str) -> None:
    """Bring all summaries up to date, set aside cells of earlier experiments, and write a report."""
    bring_up_to_date(context)
    log.info("writing the report %s", name)
    cls, options = REPORTS.get(name), context.config.reports.get(name)
    files = (cls(cls.Config(**options)) if options else cls()).write(context.folder.path)
    log.info("%s: wrote %s", name, ", ".join(file.name for file in files))


def bring_up_to_date(context: Context) -> None:
    """Have what reports are made from: a summary of each cell that is asked for, and no other cells beside them."""
    cells = all_cells(context)
    if apart := context.folder.show_only(cell.folder.key for cell in cells):
        place = context.folder.path / APART
        names = sorted({str((read_json(place / key / "cell.json") or {}).get("system", key)) for key in apart})
        log.warning(
            "rows that are not asked for any more (%s) were set aside in %s: nothing of them is lost, but no table shows them. "
            "To keep both tables, repeat that command with a run folder of its own (--out)",
            ", ".join(names[:5]) + ("…" if len(names) > 5 else ""), place,
        )  # fmt: skip
    for cell in cells:
        summarise(context, cell)
