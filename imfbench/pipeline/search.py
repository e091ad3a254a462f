"""The search stage: a time grid for one sampler, found on the development set and kept as an artefact of its own."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd
from torch import Tensor

from imfbench.artefact import identity
from imfbench.config import TEACHER_DISTANCE
from imfbench.data import Utterance, revision_of
from imfbench.devices import out_of_memory
from imfbench.features.audio import load_audio
from imfbench.flow.counting import CountMismatchError
from imfbench.flow.grids import uniform
from imfbench.flow.search import SearchResult
from imfbench.flow.solvers import evaluations_per_step
from imfbench.method import Condition, Method
from imfbench.metrics.base import Metric, ScoreError, ScoreItem
from imfbench.pipeline.context import Context, NotReadyError, one_line, recording_of
from imfbench.pipeline.plan import GridSearch, Row, grid_for, teacher_artefact
from imfbench.pipeline.reuse import take_grid
from imfbench.pipeline.teacher_distance import TeacherDistance
from imfbench.plugins import source_of
from imfbench.progress import log
from imfbench.registry import METHODS
from imfbench.sampling import as_loud, synthesize_mel
from imfbench.store import StoreError, content_hash, read_json, write_json
from imfbench.weights import DamagedModelError, MissingModelError

Mels = dict[str, Tensor]


_NO_UTTERANCES = (CountMismatchError, DamagedModelError, MissingModelError, StoreError)
"""What is no utterance's fault."""


class SearchError(RuntimeError):
    """A search that found nothing. Its rows fail with the reason; the others go on."""


class CandidateError(SearchError):
    """What a grid leads to has no figure: a mel that is not finite, or speech that a metric cannot score. Others may have one."""


Failed = list[dict[str, Any]]
"""The grids that could not be scored, each with its reason."""


def search_grid(context: Context, name: str) -> None:
    """Search one grid, or do nothing if the same search has been done, or if the network diverged: its rows say so.

    Raises:
        NotReadyError: The network is not trained.
        SearchError: No grid could be scored.
    """
    search = context.plan.searches[name]
    utterances = context.utterances(context.config.dev)
    try:
        _, card = context.load(search.artefact)
    except NotReadyError as error:
        if str(error) != "diverged":
            raise
        log.warning("%s: no grid is searched for: %s diverged", name, search.artefact)
        return
    recipe = recipe_of_search(context, search, utterances, identity(card))
    present = read_json(context.folder.grid(name)) or {}
    if present.get("recipe_hash") == content_hash(recipe):
        return
    if take_grid(context, name, recipe):
        return
    cls = METHODS.get(search.search.method)
    settings = cls.Config(**search.search.config)
    steps = search.nfe // evaluations_per_step(search.solver)
    started = time.perf_counter()
    limit = getattr(settings, "max_evaluations", 1)
    failed: Failed = []
    with contextlib.ExitStack() as models, context.reporting.bar(f"search {name}", limit) as bar:
        evaluate, _ = evaluation(
            context, search, utterances, models, lambda score: bar.advance(note=f"score {score:.4g}"), failed
        )
        result = cls(settings).search(evaluate, steps)
    if result.evaluations and not math.isfinite(result.score):
        why = f": {failed[0]['reason']}" if failed else ""
        raise SearchError(f"{name}: no grid could be scored on the development set{why}")
    _keep(context, search, recipe, result, time.perf_counter() - started, failed)
    log.info("%s: %s after %d evaluations (%s)", name, _points(result.grid), result.evaluations, result.stopped)


def evaluation(
    context: Context, search: GridSearch, utterances: list[Utterance], models: contextlib.ExitStack,
    told: Callable[[float], None] = lambda _: None, failed: Failed | None = None,
) -> tuple[Callable[[Tensor], float], Method]:  # fmt: skip
    """What scores a grid on the development set, and whose grid it is.

    Args:
        context: The run.
        search: What is searched for.
        utterances: Of the development set; what the network may know of them is read once.
        models: Keeps metrics' models loaded until it is closed.
        told: Called with each score.
        failed: Gets the grids that cannot be scored. They are the worst of all, −∞: what they lead to is their own fault. What is
            wrong with a prompt, a condition or the teacher's references is not, and ends a search.
    """
    conditions = conditions_of(context, utterances)
    scores = _scores(context, search, utterances, conditions, models)
    method, _ = context.load(search.artefact)

    def evaluate(grid: Tensor) -> float:
        try:
            mels = sampled_mels(context, method, utterances, conditions, grid, search.solver)
            found = float(sum(weight * score(mels) for weight, score in scores))
        except CandidateError as error:
            log.warning("%s: %s cannot be scored and is the worst: %s", search.name, _points(grid), error)
            found = -math.inf
            if failed is not None:
                failed.append({"grid": grid.tolist(), "reason": str(error)})
        told(found)
        return found

    return evaluate, method


def conditions_of(context: Context, utterances: list[Utterance]) -> dict[str, Condition]:
    """Utterance id → its condition: reading a prompt takes as long as a step of the network."""
    dataset = context.dataset(context.config.dev)
    found: dict[str, Condition] = {}
    for u in utterances:
        with _named(u):
            found[u.id] = dataset.condition(u)
    return found


def sampled_mels(
    context: Context, method: Method, utterances: list[Utterance], conditions: dict[str, Condition], grid: Tensor,
    solver: str,
) -> Mels:  # fmt: skip
    """Every candidate starts from the same noise: that of the experiment's first noise seed."""
    seed, precision = context.config.noise_seeds[0], context.config.precision
    found: Mels = {}
    for u in utterances:
        with _named(u):
            found[u.id] = synthesize_mel(method, conditions[u.id], u.id, grid, solver, seed, context.device, precision)[
                0
            ]
    return found


@contextlib.contextmanager
def _named(utterance: Utterance) -> Iterator[None]:
    """What is wrong with one utterance stops a search, so it has to say with which; the run's other rows are made."""
    try:
        yield
    except _NO_UTTERANCES:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        said = str(error) if isinstance(error, ValueError) else one_line(error)  # ours are written for users
        where = recording_of(error, "prompt", utterance.prompt_audio)
        kind = CandidateError if isinstance(error, FloatingPointError | ScoreError) else SearchError
        raise kind(f"development utterance {utterance.id}: {said}{where}") from error


def _scores(
    context: Context, search: GridSearch, utterances: list[Utterance], conditions: dict[str, Condition],
    models: contextlib.ExitStack,
) -> list[tuple[float, Callable[[Mels], float]]]:  # fmt: skip
    """The weighted parts of the score; metrics' models stay loaded until ``models`` is closed."""
    found: list[tuple[float, Callable[[Mels], float]]] = []
    for name, weight in search.search.score.items():
        if name == TEACHER_DISTANCE:
            found.append((weight, TeacherDistance(teacher_mels(context, utterances, conditions))))
        else:
            metric = models.enter_context(context.metric(name).loaded())
            found.append((weight, _metric_score(context, metric, utterances, conditions)))
    return found


def teacher_mels(context: Context, utterances: list[Utterance], conditions: dict[str, Condition]) -> Mels:
    """The teacher's own output at its largest number of evaluations."""
    teacher = context.config.teacher
    assert teacher is not None
    nfe, name = max(teacher.nfe), teacher_artefact(context.config, context.plan.artefacts).name
    log.info("the teacher's references: %d utterances at %d NFE", len(utterances), nfe)
    row = Row("teacher", "sampled", name, None, None, teacher.solver, nfe, teacher.guidance)
    method, _ = context.sampler(row)
    return sampled_mels(
        context, method, utterances, conditions, grid_for(teacher.grid[0], nfe, teacher.solver), teacher.solver
    )


def _metric_score(
    context: Context, metric: Metric, utterances: list[Utterance], conditions: dict[str, Condition]
) -> Callable[[Mels], float]:
    """The metric's figure over the development set, every utterance vocoded."""
    vocoder = context.vocoder()
    prompts = {}
    for u in utterances:
        with _named(u):
            prompts[u.id] = load_audio(u.prompt_audio)

    def score(mels: Mels) -> float:
        rows: list[dict[str, Any]] = []
        for u in utterances:
            with _named(u):
                try:
                    columns = heard(metric, vocoder, u, mels[u.id], conditions[u.id], prompts[u.id])
                except ScoreError as error:
                    _check_scorable(metric, u, prompts[u.id], error)
                    raise
                rows.append({"id": u.id, **columns})
        return float(metric.summarise(pd.DataFrame(rows))[metric.summary_columns[0]])

    return score


def _check_scorable(metric: Metric, utterance: Utterance, prompt: tuple[Any, int], error: ScoreError) -> None:
    """Refuse an utterance of which real speech, its prompt's, has no figure either: that is no grid's fault.

    Raises:
        ValueError: The prompt or the text is at fault.
    """
    u = utterance
    try:
        metric.score(ScoreItem(u.id, *prompt, u.text, u.language, *prompt))
    except ScoreError:
        at_fault = f"the recording {u.prompt_audio} has no figure either: mend it, or the text"
        raise ValueError(f"{error}; {at_fault}") from error


def heard(
    metric: Metric, vocoder: Any, utterance: Utterance, mel: Tensor, condition: Condition, prompt: tuple[Any, int]
) -> dict[str, Any]:
    """A metric's columns for a sampled mel, vocoded and as loud as its prompt; ``prompt`` is that recording and its rate."""
    audio, u = as_loud(vocoder(mel), condition), utterance
    return metric.score(ScoreItem(u.id, audio, vocoder.sample_rate, u.text, u.language, *prompt))


def recipe_of_search(
    context: Context, search: GridSearch, utterances: list[Utterance], artefact: str
) -> dict[str, Any]:
    """Everything that decides which grid is found; ``artefact`` is the identity of what is sampled."""
    config = context.config
    teacher = None
    if TEACHER_DISTANCE in search.search.score and config.teacher is not None:
        card = context.card(teacher_artefact(config, context.plan.artefacts).name)
        rows = config.teacher
        teacher = [identity(card), max(rows.nfe), rows.grid[0], rows.guidance, rows.solver]
    settings = METHODS.get(search.search.method).Config(**search.search.config).model_dump(mode="json")
    dev = context.dataset(config.dev)
    variant, revision = getattr(dev, "variant", ""), revision_of(dev, config.dev.split)
    plugin = source_of("method", search.search.method)
    return {
        "search": search.search.method,
        **({} if plugin is None else {"plugin_sha256": plugin.sha256}),
        "config": settings,
        "nfe": search.nfe,
        "solver": search.solver,
        "score": dict(search.search.score),
        "signatures": {
            name: str(context.metric(name).signature) for name in search.search.score if name != TEACHER_DISTANCE
        },
        "artefact_sha256": artefact,
        "teacher": teacher,
        "vocoder": None if set(search.search.score) == {TEACHER_DISTANCE} else context.vocoder_name,
        "dev": [
            config.dev.name,
            revision,
            config.dev.split,
            [u.id for u in utterances],
            *([variant] if variant else []),
        ],
        "noise_seed": config.noise_seeds[0],
        "dtype": context.dtype,
    }


def _points(grid: Tensor) -> str:
    return f"[{', '.join(f'{value:.3f}' for value in grid.tolist())}]"


def _keep(
    context: Context, search: GridSearch, recipe: dict[str, Any], result: SearchResult, seconds: float, failed: Failed
) -> None:
    found = result.to_dict()
    grid = found.pop("grid")
    start = next((e["score"] for e in found["trace"] if e["sweep"] == 0), None)
    write_json(
        context.folder.grid(search.name),
        {
            "name": search.name,
            "values": grid,
            "start": uniform(len(grid) - 1).tolist(),
            "start_score": start,
            **found,
            **({"failed": failed} if failed else {}),
            "seconds": seconds,
            "recipe": recipe,
            "recipe_hash": content_hash(recipe),
        },
    )
