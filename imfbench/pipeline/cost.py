"""The plan of a run and its cost: what is left to do, how long it will take, its memory and its room on the disk."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from torch import nn

from imfbench.artefact import identity, read_settings
from imfbench.config import TEACHER_DISTANCE
from imfbench.data import DatasetError, Utterance
from imfbench.flow.counting import declared_counts
from imfbench.flow.grids import uniform
from imfbench.flow.solvers import evaluations_per_step
from imfbench.pipeline.cells import Cell, all_cells
from imfbench.pipeline.content import row_content, search_content, taught_content
from imfbench.pipeline.context import Context, NotReadyError
from imfbench.pipeline.measurements import Figure, Measurements, call_key, scorer_key, step_key
from imfbench.pipeline.plan import Artefact, GridSearch, teacher_artefact
from imfbench.pipeline.reuse import same_grid
from imfbench.pipeline.search import recipe_of_search
from imfbench.pipeline.synthesise import done, replaced_in
from imfbench.pipeline.train import settings_of
from imfbench.progress import clock
from imfbench.registry import METHODS
from imfbench.sampling import sampling_guidance
from imfbench.schema import read_utterances
from imfbench.store import read_json
from imfbench.weights import MissingModelError

BUDGET = "budget"


@dataclass
class Cost:
    """What the rest of a stage costs.

    Attributes:
        stage: Which.
        left: What is to be done, in words; "" if nothing is.
        seconds: Wall time of one process; None where something has no figure.
        memory: Peak bytes.
        disk: Bytes that are added.
        sources: Where the figures are from.
    """

    stage: str
    left: str = ""
    seconds: float | None = 0.0
    memory: float | None = None
    disk: float | None = 0.0
    sources: set[str] = field(default_factory=set)

    def add_seconds(self, times: float, figure: Figure | None) -> None:
        """Add so many times a figure."""
        if times and figure is not None and self.seconds is not None:
            self.seconds += times * figure.value
            self.sources.add(figure.source)
        elif times:
            self.seconds = None

    def add_disk(self, times: float, figure: Figure | None) -> None:
        """Add so many times a size."""
        if times:
            self.disk = None if figure is None or self.disk is None else self.disk + times * figure.value

    def reach(self, figure: Figure | None) -> None:
        """The peak is at least this figure."""
        if figure is not None:
            self.memory = max(self.memory or 0.0, figure.value)


@dataclass
class Left:
    """What is left of one experiment.

    Attributes:
        context: The experiment.
        cells: Its cells with how many utterances they lack.
        taken: Rows, trainings and searches that another one of the run makes.
        trainings: To be done, or to be gone on with.
        searches: To be done.
        scores: Metric → rows to be scored.
    """

    context: Context
    cells: list[tuple[Cell, int]]
    taken: dict[str, str]
    trainings: list[Artefact]
    searches: list[GridSearch]
    scores: dict[str, int]


def left_of(context: Context, seen: dict[str, str]) -> Left:
    """What is left of an experiment.

    Args:
        context: The experiment.
        seen: Content → where it is made, of the experiments before; this one's are added.
    """
    where = context.folder.path.name
    taken: dict[str, str] = {}
    trainings = []
    for artefact in context.plan.artefacts.values():
        if artefact.ready is not None:
            continue
        own = f"{where}/{artefact.name}"
        same = seen.setdefault(f"train:{taught_content(context.config, artefact)}", own)  # one that is done, too
        if _ended(context, artefact):
            continue
        if same == own:
            trainings.append(artefact)
        else:
            taken[f"train:{artefact.name}"] = same
    searches = []
    for search in context.plan.searches.values():
        own = f"{where}/{search.name}"
        same = seen.setdefault(f"search:{search_content(context.config, context.plan, search)}", own)
        if same != own:
            taken[f"search:{search.name}"] = same
        elif not _searched(context, search):
            searches.append(search)
    cells = []
    scores = dict.fromkeys(context.config.metrics, 0)
    for cell in all_cells(context):
        utterances = context.utterances(context.test_set(cell.row))
        expected, kept = len(utterances), _kept(context, cell, utterances)
        made = expected if cell.status == "diverged" else len(kept)
        content = row_content(context.config, context.plan, cell.row)
        same = seen.setdefault(content, f"{where}/{cell.row.label}")
        if same != f"{where}/{cell.row.label}":
            taken[f"synthesise:{cell.row.label}"] = same
        cells.append((cell, expected - made))
        for metric in scores:
            own = f"{where}/{cell.row.label}"
            once = seen.setdefault(f"{content}:{metric}:{context.config.metrics[metric]}", own)
            if once == own and cell.status != "diverged":
                scores[metric] += expected - _scored(context, cell, metric, kept, utterances)
    return Left(context, cells, taken, trainings, searches, scores)


def costs_of(left: Left, found: Measurements, stages: Iterable[str]) -> list[Cost]:
    """The cost of each stage of what is left; with ``overwrite: only-cache`` nothing is made."""
    makers = {"train": _training, "search": _searching, "synthesise": _sampling, "score": _scoring}
    if left.context.config.overwrite == "only-cache":
        return [Cost(stage) for stage in stages if stage in makers]
    return [makers[stage](left, found) for stage in stages if stage in makers]


def total(costs: Iterable[Cost], workers: int) -> Cost:
    """All costs together: times by as many processes as work side by side, the largest memory in each of them."""
    found = Cost("all")
    costs = list(costs)
    unknown = any(cost.seconds is None for cost in costs)
    found.seconds = None if unknown else sum(cost.seconds or 0.0 for cost in costs) / workers
    memories = [cost.memory for cost in costs if cost.memory is not None]
    found.memory = max(memories) * workers if memories else None
    found.disk = None if any(cost.disk is None for cost in costs) else sum(cost.disk or 0.0 for cost in costs)
    found.sources = set().union(*(cost.sources for cost in costs))
    return found


def in_words(cost: Cost) -> str:
    """Time, memory and disk in a line; what has no figure says so."""
    time = "an unknown time" if cost.seconds is None else f"about {clock(cost.seconds)}"
    memory = "unknown memory" if cost.memory is None else f"{size(cost.memory)} of memory"
    disk = "an unknown size" if cost.disk is None else size(cost.disk)
    return f"{time}, {memory}, {disk} on the disk"


def size(bytes: float) -> str:
    """Bytes as people read them."""
    return (
        f"{bytes / 1e9:.1f} GB"
        if bytes >= 1e9
        else f"{bytes / 1e6:.0f} MB"
        if bytes >= 1e6
        else f"{bytes / 1e3:.0f} kB"
    )


def source(cost: Cost) -> str:
    """Where a cost's figures are from, in words."""
    return ", ".join(sorted(cost.sources))


def _training(left: Left, found: Measurements) -> Cost:
    cost, context = Cost("train"), left.context
    for artefact in left.trainings:
        settings, key = settings_of(context.config, artefact), step_key(context, artefact)
        if settings.steps is None:
            cost.add_seconds(1, Figure((settings.minutes or 0.0) * 60, BUDGET))
        else:
            cost.add_seconds(settings.steps - _steps_done(context, artefact), found.get("step", key))
        cost.reach(found.get("step memory", key))
        cost.add_disk(1, found.get("training bytes", key))
    if left.trainings:
        cost.left = _many(len(left.trainings), "training")
    return cost


def _searching(left: Left, found: Measurements) -> Cost:
    cost, context = Cost("search"), left.context
    if not left.searches:
        return cost
    utterances, config = len(context.utterances(context.config.dev)), context.config
    evaluations = 0
    for search in left.searches:
        settings = METHODS.get(search.search.method).Config(**search.search.config)
        most = int(getattr(settings, "max_evaluations", None) or 1)
        evaluations += most
        artefact = context.plan.artefacts[search.artefact]
        calls = network_calls(context, artefact, None, search.nfe, search.solver)
        cost.add_seconds(most * utterances * calls, call_figure(context, artefact, found))
        for name in search.search.score:
            if name == TEACHER_DISTANCE:
                assert config.teacher is not None
                teacher, rows = teacher_artefact(config, context.plan.artefacts), config.teacher
                calls = network_calls(context, teacher, rows.guidance, max(rows.nfe), rows.solver)
                cost.add_seconds(utterances * calls, call_figure(context, teacher, found))
            else:
                cost.add_seconds(most * utterances, found.get("vocoder", context.vocoder_name))
                cost.add_seconds(most * utterances, found.get("score", scorer_key(context, name)))
                cost.reach(found.get("score memory", scorer_key(context, name)))
    cost.left = f"{_many(len(left.searches), 'search', 'searches')}, at most {evaluations} grids"
    return cost


def _sampling(left: Left, found: Measurements) -> Cost:
    cost, context = Cost("synthesise"), left.context
    many = 0
    for cell, missing in left.cells:
        if not missing or f"synthesise:{cell.row.label}" in left.taken:
            continue
        many += missing
        row = cell.row
        cost.add_disk(missing, found.get("audio bytes", ""))
        if row.kind in ("sampled", "vocoded-ground-truth"):
            cost.add_seconds(missing, found.get("vocoder", context.vocoder_name))
        if row.kind == "sampled":
            assert row.artefact is not None
            artefact = context.plan.artefacts[row.artefact]
            calls = network_calls(context, artefact, row.guidance, row.nfe or 1, row.solver or "euler")
            # Two more, without a clock: one warms up, the memory is measured on the other.
            figure = call_figure(context, artefact, found)
            cost.add_seconds((missing + 2) * calls + missing * warm_up_calls(context, artefact, row.guidance), figure)
            cost.reach(found.get("sampling memory", _network(context, artefact)))
    if many:
        cost.left = _many(many, "utterance")
    return cost


def warm_up_calls(context: Context, artefact: Artefact, guidance: float | None) -> int:
    """Network calls before the clock of each utterance (``sampling.warm_up``)."""
    return network_calls(context, artefact, guidance, 1, "euler") if context.device.type == "cpu" else 0


def _scoring(left: Left, found: Measurements) -> Cost:
    cost = Cost("score")
    for metric, rows in left.scores.items():
        if rows:
            key = scorer_key(left.context, metric)
            cost.add_seconds(rows / min(left.context.config.workers, rows), found.get("score", key))
            cost.add_seconds(1, found.get("load", key))
            cost.reach(found.get("score memory", key))
    if any(left.scores.values()):
        cost.left = _many(sum(left.scores.values()), "score")
    return cost


def _many(number: int, what: str, several: str = "") -> str:
    return f"{number} {what if number == 1 else several or f'{what}s'}"


def _ended(context: Context, artefact: Artefact) -> bool:
    status = read_json(context.folder.artefact(artefact.name) / "status.json") or {}
    steps = settings_of(context.config, artefact).steps
    return status.get("status") == "diverged" or (status.get("status") == "ok" and status["steps"] >= (steps or 0))


def is_there(context: Context, artefact: Artefact) -> bool:
    """Whether an artefact can be sampled now."""
    if artefact.ready is not None:
        return True
    try:
        return _ended(context, artefact) and bool(identity(context.card(artefact.name)))
    except (RuntimeError, ValueError):  # it diverged, or its weights are away
        return False


def _searched(context: Context, search: GridSearch) -> bool:
    """Whether nothing is left of a search: this very one is done, here or elsewhere in the run, or its network diverged."""
    artefacts = [context.plan.artefacts[search.artefact]]
    if TEACHER_DISTANCE in search.search.score:
        artefacts.append(teacher_artefact(context.config, context.plan.artefacts))
    if any(artefact.ready is None and not _ended(context, artefact) for artefact in artefacts):
        return False  # a grid that is there was found for another network
    try:
        sampled = identity(context.card(search.artefact))
        recipe = recipe_of_search(context, search, context.utterances(context.config.dev), sampled)
    except NotReadyError:  # it diverged
        return True
    except (MissingModelError, DatasetError):  # the signature of what scored the grid, or its data, cannot be told
        return context.folder.grid(search.name).is_file()
    return same_grid(context, recipe) is not None


def _steps_done(context: Context, artefact: Artefact) -> int:
    """Steps of a training that was interrupted, by its log; those since its last checkpoint are done again."""
    path = context.folder.artefact(artefact.name) / "log.csv"
    if not path.is_file() or not (path.parent / "checkpoint.pt").is_file():
        return 0
    steps = pd.to_numeric(pd.read_csv(path, on_bad_lines="skip")["step"], errors="coerce").dropna()
    every = settings_of(context.config, artefact).save_every
    return 0 if steps.empty else int(steps.max()) // every * every


def _kept(context: Context, cell: Cell, utterances: list[Utterance]) -> dict[str, dict[str, Any]]:
    """Rows of these utterances whose audio the run leaves as it is; a cell may hold others, of a larger limit."""
    if cell.status != "ok" or context.config.overwrite == "always":
        return {}
    ids = {u.id for u in utterances}
    made = {id: row for id, row in done(cell).items() if id in ids}
    again = replaced_in(context, made, utterances)
    return {id: row for id, row in made.items() if id not in again}


def _scored(
    context: Context, cell: Cell, metric: str, kept: dict[str, dict[str, Any]], utterances: list[Utterance]
) -> int:  # fmt: skip
    """Rows of these utterances that have this metric's score, or a reason for having none, by its present signature."""
    if not kept or not cell.folder.table.is_file():
        return 0
    table = read_utterances(cell.folder.table)
    signature = f"{metric}_signature"
    if signature not in table:
        return 0
    made = {u.id: kept.get(u.id, {}).get("audio_sha256") for u in utterances}
    rows = zip(table["id"], table["audio_sha256"], strict=True)
    same = [id in made and made[id] == sha256 for id, sha256 in rows]
    key = f"signature:{metric}"
    current: str = context.once(key, lambda: str(context.metric(metric).signature))
    return int(((table[signature] == current) & pd.Series(same, index=table.index)).sum())


def _network(context: Context, artefact: Artefact) -> str:
    """What the figures of a network call are kept by: its artefact's identity, or, before its training, how it is trained."""
    if artefact.ready is not None or _ended(context, artefact):
        try:
            return identity(context.card(artefact.name))
        except (RuntimeError, ValueError):  # it diverged, or is not there
            return ""
    return step_key(context, artefact)


def call_figure(context: Context, artefact: Artefact, found: Measurements) -> Figure | None:
    """Seconds of one network call of an artefact; None where that is not known."""
    return found.get(*call_key(context, _network(context, artefact)))


def network_calls(context: Context, artefact: Artefact, guidance: float | None, nfe: int, solver: str) -> int:
    """Network calls of one utterance, guidance counted; of the artefact's own guidance where none is given."""
    if guidance is None:
        settings: tuple[str, dict[str, Any]]
        if artefact.ready is not None:
            settings = context.once(f"settings:{artefact.ready}", lambda: read_settings(artefact.ready or ""))
        else:
            assert artefact.system is not None
            system = context.config.systems[artefact.system]
            settings = system.method, system.config
        cls = METHODS.get(settings[0])
        guidance = sampling_guidance(cls(cls.Config(**settings[1]), nn.Identity()))
    return declared_counts(uniform(nfe // evaluations_per_step(solver)), solver, guidance).network_calls
