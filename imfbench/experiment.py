"""From an experiment to its results: prepare → train → search → synthesise → score → report.

Every job may be done twice and does nothing the second time, so a run that was killed goes on with the same command. A job
that fails leaves its reason in the rows that depend on it, and the others go on.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from imfbench import plugins
from imfbench.artefact import locate
from imfbench.config import TEACHER_DISTANCE, ExperimentConfig
from imfbench.data import revision_of
from imfbench.disk import FULL_DISK, unwritable, write_fault
from imfbench.executors import Executor
from imfbench.executors.local import LocalExecutor
from imfbench.executors.processes import ProcessExecutor
from imfbench.features.cosyvoice_files import find
from imfbench.metrics.clustered import require_clusters
from imfbench.metrics.stats import TooFewClustersError
from imfbench.pipeline import manifest
from imfbench.pipeline.context import STOPPING, Context, RunError, told
from imfbench.pipeline.lacking import heard_by
from imfbench.pipeline.plan import STAGES, Job, Stage
from imfbench.pipeline.train import settings_of
from imfbench.pipeline.train_task import check_processes
from imfbench.pipeline.work import RunWork, bring_up_to_date
from imfbench.progress import Reporting, log
from imfbench.published import Published
from imfbench.store import RunFolder
from imfbench.weights import MissingModelError

SMALLEST_DISK = 500_000_000


def run(
    config: ExperimentConfig,
    out: Path | None = None,
    stages: tuple[Stage, ...] = STAGES,
    reporting: Reporting | None = None,
    executor: Executor | None = None,
) -> Context:
    """Run an experiment, or some of its stages.

    Args:
        config: The experiment.
        out: The run folder; ``runs/<name>`` by default. One that holds an earlier run of the experiment is gone on with.
        stages: Which kinds of jobs to do.
        reporting: Where progress goes.
        executor: Who does the jobs; by default this process, or ``config.workers`` of its own.

    Returns:
        The run's context; ``failures`` is empty if all jobs ended well.

    Raises:
        ConfigError, RunError and others of ``STOPPING``: Things for the user to mend; most are found before the work begins.
    """
    folder = RunFolder(out or default_folder(config))
    with folder.lock():
        return _run(config, folder, stages, reporting, executor)


def _run(
    config: ExperimentConfig, folder: RunFolder, stages: tuple[Stage, ...], reporting: Reporting | None,
    executor: Executor | None, failures: Mapping[str, str] | None = None,
) -> Context:  # fmt: skip
    """Do what :func:`run` does in a folder that is held already, after jobs of the same command of which some failed."""
    context = Context(config, folder, reporting or Reporting(), dict(failures or {}))
    prepare(context, stages)
    manifest.begin(context, stages)
    try:
        (executor or _executor(config)).run(
            [job for job in context.plan.of_stage(*stages) if job.stage != "prepare"],
            RunWork(context),
            lambda job, error: _failed(context, job, error),
        )
    except BaseException:
        with contextlib.suppress(*STOPPING):  # on a full disk: the reason for stopping is told, not its consequence
            manifest.end(context, "interrupted")
        raise
    manifest.end(context, "failed" if context.failures else "ok")
    return context


def run_all(
    config: ExperimentConfig, out: Path | None = None, stages: tuple[Stage, ...] = STAGES,
    reporting: Reporting | None = None, executor: Executor | None = None,
) -> list[Context]:  # fmt: skip
    """Run an experiment and those that ``then`` adds, each of them in a folder below; one leaderboard shows them all.

    Arguments and errors are those of :func:`run`; the contexts come in the order of the experiments.
    """
    out = out or default_folder(config)
    if not config.then:
        return [run(config, out, stages, reporting, executor)]
    work: tuple[Stage, ...] = tuple(stage for stage in stages if stage != "report")
    folder, contexts = RunFolder(out), []
    # Over all parts, whose folders have locks of their own: in between, another command would begin the whole anew.
    with folder.lock():
        if work:
            _check_models_of_parts(config, out, work)
            contexts.append(_run(config, folder, work, reporting, executor))
        # The whole's report shows all rows; a part's own is made by `imfbench report` on its folder, or where none else is.
        parts = [run(part, out / part.name, work or stages, reporting, executor) for part in config.then]
        if "report" in stages:
            for part in parts if work else ():
                with part.folder.lock():
                    bring_up_to_date(part)
            contexts = [_run(config, folder, ("report",), reporting, executor, contexts[0].failures if work else {})]
    return [*contexts, *parts]


def _check_models_of_parts(config: ExperimentConfig, out: Path, stages: tuple[Stage, ...]) -> None:
    """Find the models of all parts before the first one begins: what the last one lacks would be told after hours.

    Raises:
        MissingModelError: What is missing, with the parts that need it.
    """
    missing: dict[str, list[str]] = {}
    for part, folder in ((config, out), *((part, out / part.name) for part in config.then)):
        try:
            _check_models(Context(part, RunFolder(folder)), stages)
        except MissingModelError as error:
            missing.setdefault(str(error), []).append(part.name)
    if missing:
        raise MissingModelError("\n".join(f"{', '.join(names)}: {told}" for told, names in missing.items()))


def _executor(config: ExperimentConfig) -> Executor:
    if (
        config.workers == 1 or config.task == "speech"
    ):  # files are read sooner than a process starts; scoring has its own
        return LocalExecutor()
    return ProcessExecutor(config.workers, plugins.files())


def default_folder(config: ExperimentConfig) -> Path:
    """``runs/<name>`` in the working directory."""
    return Path("runs") / config.name


def prepare(context: Context, stages: tuple[Stage, ...] = STAGES) -> None:
    """Find out now what would stop these stages later: data, models, trainings without an end, a full disk.

    Raises:
        RunError, ConfigError, MissingModelError: What to mend.
    """
    context.folder.path.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(context.folder.path).free
    if free < SMALLEST_DISK:
        raise RunError(
            f"only {free / 1e6:.0f} MB are free at {context.folder.path}, a run needs {SMALLEST_DISK / 1e6:.0f}: make room, or "
            "use --out elsewhere"
        )
    for artefact in context.plan.artefacts.values():
        if artefact.ready is not None:
            locate(artefact.ready)  # before data, which are opened for what it is given
    _ = context.inputs  # networks and vocoder agree
    _check_models(context, stages)
    for selection in (*context.config.dataset, *((context.config.dev,) if context.plan.searches else ())):
        context.utterances(selection)
    _check_data(context)
    _check_sets(context)
    _check_clusters(context)
    if not context.plan.rows and all(artefact.ready is not None for artefact in context.plan.artefacts.values()):
        raise RunError(
            f"{context.config.name} has no row: give it `systems`, a `teacher`, `references` or `recordings`"
        )
    for artefact in context.plan.artefacts.values():
        if artefact.ready is None:
            settings = settings_of(context.config, artefact)
            if "train" in stages:
                check_processes(context.config, settings, context.device)
        else:
            card = context.card(artefact.name)
            if {"train", "search", "synthesise"} & {*stages}:
                context.load(artefact.name)  # which verifies it: better now than after hours of training
            if (card.get("task") or context.config.task) != context.config.task:
                raise RunError(
                    f"artefact {artefact.ready!r} was trained for the task {card['task']}, but this experiment's is "
                    f"{context.config.task}: name another artefact, or set task: {card['task']}"
                )
    context.forget("artefact")
    context.record(context.config)


def _check_sets(context: Context) -> None:
    """Refuse two test sets that only their recordings tell apart: their rows would be one, and its speech of one of them.

    Raises:
        RunError: There are two such sets.
    """
    seen: dict[tuple[str, ...], str] = {}
    for selection in context.config.dataset:
        dataset = context.dataset(selection)
        known = (
            selection.name,
            selection.split,
            revision_of(dataset, selection.split),
            getattr(dataset, "variant", ""),
        )
        if (own := repr(selection.options)) != seen.setdefault(known, own):
            raise RunError(
                f"two test sets of {selection.name}/{selection.split} have the same ids, texts and prompts' names "
                f"({seen[known]} and {own}): no table could tell their rows apart. Give each a run of its own, "
                "or rename the ids of one"
            )


def _check_models(context: Context, stages: tuple[Stage, ...]) -> None:
    """Find and verify all models that these stages need: the vocoder, what hears tokens and voices, those of the metrics.

    Raises:
        MissingModelError: All that is missing, one by one, each with what to do about it.
    """
    missing: dict[str, str] = {}
    for what, look in _models(context, stages).items():
        try:
            look()
        except MissingModelError as error:
            missing[what] = str(error)
    if len(missing) == 1 and context.config.protocol is None:
        raise MissingModelError(next(iter(missing.values())))
    if missing:
        protocol = context.config.protocol if all(what in context.config.metrics for what in missing) else None
        whose = "this experiment" if protocol is None else f"protocol {protocol!r}"
        told = "\n".join(f"- {what}: {message}" for what, message in missing.items())
        raise MissingModelError(
            f"{whose} needs models that are not here; nothing was scored. `imfbench doctor` lists all models, `--metrics` (of a "
            f"run: --set 'metrics=[…]') leaves some out\n{told}"
        )


def _models(context: Context, stages: tuple[Stage, ...]) -> dict[str, Callable[[], Any]]:
    """Each model → what finds it; metrics by their signatures, which hold the models' sha256."""
    found: dict[str, Callable[[], Any]] = {}
    vocoded = any(row.kind in ("sampled", "vocoded-ground-truth") for row in context.plan.rows.values())
    if "synthesise" in stages and vocoded:
        found[f"vocoder {context.config.vocoder}"] = partial(_try_vocoder, context)
    if context.inputs.speaker_dims is not None and {"train", "search", "synthesise"} & {*stages}:
        found |= {model.name: partial(_find_hearing, model) for model in heard_by(context.config)}
    searched = {name for search in context.plan.searches.values() for name in search.search.score} - {TEACHER_DISTANCE}
    scored = [*(context.config.metrics if "score" in stages else ()), *(sorted(searched) if "search" in stages else ())]
    return found | {name: partial(_try_metric, context, name) for name in dict.fromkeys(scored)}


def _try_vocoder(context: Context) -> None:
    context.vocoder()
    context.forget("vocoder")  # it would count as memory of the trainings


def _find_hearing(model: Published) -> None:
    try:
        find(model)
    except MissingModelError as error:
        raise MissingModelError(
            f"{error}, or give tokens and speaker vectors by the data's option `features`"
        ) from None


def _try_metric(context: Context, name: str) -> None:
    if not str(context.metric(name).signature):
        raise RunError(f"metric {name!r} has no signature")


def _check_data(context: Context) -> None:
    """Refuse sets of which networks cannot be told what they are to say, and training data without batches.

    Raises:
        RunError: What is lacking, and what to do about it.
    """
    sampled = {row.test_set[0] for row in context.plan.rows.values() if row.kind == "sampled"}
    asked = [context.config.dataset[i] for i in sorted(sampled)] + (
        [context.config.dev] if context.plan.searches else []
    )
    for selection in asked:
        dataset = context.dataset(selection)
        if told := dataset.lacking(selection.split) if hasattr(dataset, "lacking") else "":
            raise RunError(told)
    trained = any(artefact.ready is None for artefact in context.plan.artefacts.values())
    if trained and not hasattr(context.dataset(context.config.train_data), "batches"):
        raise RunError(f"dataset {context.config.train_data.name!r} is for testing alone: name another as `train_data`")


def _check_clusters(context: Context) -> None:
    """Refuse now what would have no interval when all is scored.

    Raises:
        RunError: A test set has too few speakers for intervals that resample whole speakers.
    """
    cluster = context.config.cluster
    for selection in context.config.dataset if cluster else ():
        try:
            require_clusters([getattr(u, str(cluster)) for u in context.utterances(selection)], str(cluster))
        except TooFewClustersError as error:
            raise RunError(f"--cluster {cluster}: {selection.name}/{selection.split}: {error}") from None


def _failed(context: Context, job: Job, error: Exception) -> None:
    """Keep the reason; what the user can mend at once stops the run instead."""
    if isinstance(error, STOPPING):
        raise error
    if full := write_fault(error, FULL_DISK):
        raise unwritable(Path(full.filename or context.folder.path), full) from error
    context.failures[job.name] = told(error)
    log.error("%s failed, the run goes on: %s", job.name, context.failures[job.name])
    log.debug("where %s failed", job.name, exc_info=error)
