"""Who scores: threads of this process that decode ahead of the model, or processes of which each has the model.

Rows come back in the order in which they were asked for, and no more utterances are in memory than a few for each that works:
what grows with their number is the table of rows alone.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import psutil

from imfbench import interruption
from imfbench.pipeline.context import RunError, told
from imfbench.pipeline.scorer import Asked, Ready, Row, Scorer
from imfbench.score_cache import ScoreCache

A = TypeVar("A")
B = TypeVar("B")
AHEAD = 4
"""Utterances that are decoded before the model asks for them."""
CHUNK = 8
"""Utterances that a process is given at a time."""


def by_threads(scorer: Scorer, asked: Iterable[Asked]) -> Generator[Row, None, None]:
    """The rows, by one model in this process: a thread decodes ahead, and as many listen as the model allows."""
    with ThreadPoolExecutor(1) as reader:
        looked = (found.result() for found in in_order(reader, scorer.look, asked, AHEAD))
        for found in looked:
            if isinstance(found, Ready):
                scorer.open()  # only now is known how many may use the model side by side
                break
            yield found
        else:
            return
        rest = chain([found], looked)
        if scorer.metric.workers == 1:
            yield from map(scorer.hear, rest)
            return
        with ThreadPoolExecutor(scorer.metric.workers) as listeners:
            yield from (row.result() for row in in_order(listeners, scorer.hear, rest, scorer.metric.workers))


def in_order(pool: Executor, work: Callable[[A], B], what: Iterable[A], ahead: int) -> Iterator[Future[B]]:
    """Futures of ``work`` in the order of ``what``, of which at most ``ahead`` are begun before they are asked for."""
    waiting: deque[Future[B]] = deque()
    try:
        for one in what:
            waiting.append(pool.submit(work, one))
            if len(waiting) > ahead:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:  # Ctrl-C does not wait for what has not begun
        for future in waiting:
            future.cancel()


@dataclass(frozen=True)
class Recipe:
    """What a process needs to make a scorer of its own.

    Attributes:
        metric: Name in the registry.
        options: Its settings in the experiment.
        device: Where its model runs.
        threads: CPU threads of the process.
        cache: Folder of the score cache.
        overwrite: As in ``ExperimentConfig``.
        plugins: Files that were given by ``--plugin``.
        model_dir: As in ``ExperimentConfig``.
    """

    metric: str
    options: dict[str, Any]
    device: str
    threads: int
    cache: Path
    overwrite: str
    plugins: tuple[Path, ...] = ()
    model_dir: str | None = None

    def make(self) -> Scorer:
        """The scorer, its model not yet loaded."""
        from imfbench.plugins import load_file
        from imfbench.published import look_in
        from imfbench.registry import METRICS

        look_in(self.model_dir)
        for file in self.plugins:
            load_file(file)
        cls = METRICS.get(self.metric)
        metric = cls(cls.Config(**self.options), self.device, self.threads)
        return Scorer(metric, ScoreCache(self.cache), self.overwrite)


@dataclass(frozen=True)
class Took:
    """What a model took that was loaded in a process: seconds to load, and bytes by which the process has grown."""

    load_seconds: float
    memory: int


def by_processes(
    recipe: Recipe, workers: int, asked: Sequence[Asked], took: Callable[[Took], None] = lambda _: None
) -> Generator[Row, None, None]:
    """The rows, by ``workers`` processes that load the model each; they are the rows that ``by_threads`` gives.

    Args:
        recipe: Of the scorer.
        workers: Processes.
        asked: What is to be scored.
        took: Told with each few rows what their process has taken so far.

    Raises:
        RunError: A process was ended from outside, as for want of memory, or could not make the scorer.
    """
    # A forked process would inherit torch's and CTranslate2's locks, taken by threads that it does not have.
    begin = multiprocessing.get_context("spawn")
    least = min(CHUNK, -(-len(asked) // workers)) or 1
    waiting = iter(asked)
    chunks = iter(lambda: list(islice(waiting, least)), [])
    try:
        with ProcessPoolExecutor(workers, begin, _begin, (recipe,)) as pool:
            for made in in_order(pool, _chunk, chunks, 2 * workers):
                rows, so_far = made.result()
                took(so_far)
                yield from rows
    except BrokenProcessPool:
        raise RunError(
            f"a process that scores {recipe.metric} was ended from outside, most likely because memory ran out: each of the "
            f"{workers} --workers loads the model; what is scored is kept, so repeat the command with fewer"
        ) from None


_scorer: Scorer | None = None
_before = 0
_unable = ""


def _begin(recipe: Recipe) -> None:
    global _scorer, _before, _unable
    import torch

    from imfbench.plugins import told_elsewhere

    told_elsewhere()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all of them; the parent says what becomes of it
    interruption.when_parent_ends(lambda: os._exit(1))
    torch.set_num_threads(recipe.threads)
    try:
        _scorer = recipe.make()
        _before = _resident()
    except Exception as error:  # raised from here it would end the process, and nobody would be told why
        _unable = (
            f"a process that is to score {recipe.metric} cannot begin: {told(error)}; mend that, or repeat the command with "
            "--workers 1"
        )


def _chunk(asked: list[Asked]) -> tuple[list[Row], Took]:
    if _scorer is None:
        raise RunError(_unable)
    rows = list(by_threads(_scorer, asked))
    return rows, Took(_scorer.load_seconds, _resident() - _before)


def _resident() -> int:
    return int(psutil.Process().memory_info().rss)
