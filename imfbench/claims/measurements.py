"""What claims need besides scored speech: memory of training steps, speed side by side, and a search's score on a lattice.

A measurement is data (its settings stand in claims.yaml) and leaves ``measurements/<name>.json``: settings, hardware, a row for
each thing measured, written as they come, so that a killed measurement goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from imfbench.store import content_hash, read_json, write_json

Row = dict[str, Any]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StepSize(_Strict):
    """The size of a training step."""

    frames: int = Field(ge=8)
    """Mel frames of each row, a quarter of them the prompt's."""
    batch: int = Field(ge=1)
    """Rows."""
    width: int = Field(256, ge=32)
    """``dim`` of the network; 256 is the embedded teacher's."""


class Trained(_Strict):
    """A method whose step is measured."""

    method: str
    config: dict[str, Any] = {}


class StepMeasurement(_Strict):
    """Peak memory and seconds of a training step: every method on the same batch, at every size."""

    kind: Literal["training-step"]
    methods: dict[str, Trained]
    sizes: list[StepSize]
    repeats: int = Field(3, ge=1)
    """Timed steps, one of each method in turn, so that a machine that drifts drifts for all."""

    @property
    def experiment(self) -> None:
        """None is needed."""


class SpeedMeasurement(_Strict):
    """Seconds of the same utterances by several rows of an experiment, one after another in turn, nothing beside."""

    kind: Literal["speed"]
    experiment: str
    rows: dict[str, str]
    """Name → label of a row of the experiment, such as "intmeanflow 1 NFE uniform"."""
    utterances: int = Field(12, ge=2)


class ScoreMeasurement(_Strict):
    """The score that a search aims at, sampled on a lattice of time grids; by development utterance, lower is better."""

    kind: Literal["grid-scores"]
    experiment: str
    artefact: str
    """Name of an artefact of the experiment."""
    nfe: int = Field(3, ge=2, le=4)
    points: int = Field(8, ge=3)
    """The lattice has the multiples of 1/points."""
    score: str = "teacher-distance"
    """``teacher-distance`` or a metric."""


Measurement = Annotated[StepMeasurement | SpeedMeasurement | ScoreMeasurement, Field(discriminator="kind")]


class Record:
    """``measurements/<name>.json``, row by row.

    Another one begins where settings, device or what is measured differ, and where a machine meets one that another has left
    unfinished.

    Args:
        path: The file.
        settings: Of the measurement.
        of: What is measured: networks by sha256, utterances.
        hardware: Of this machine.
    """

    def __init__(self, path: Path, settings: BaseModel, of: dict[str, Any], hardware: dict[str, Any]) -> None:
        self.path = path
        recipe = settings.model_dump(mode="json")
        digest = content_hash(recipe, of, hardware.get("device"))
        present = read_json(path) or {}
        fresh: dict[str, Any] = {"settings": recipe, "of": of, "hardware": hardware, "hash": digest, "rows": []}
        # What another machine finished is evidence; what it has begun is no half of one, for its clock is another.
        goes_on = present.get("complete") or present.get("hardware") == hardware
        self.content = present if present.get("hash") == digest and goes_on else fresh

    def rows(self) -> list[Row]:
        """What has been measured."""
        return list(self.content["rows"])

    def has(self, **key: Any) -> bool:
        """Whether there is a row with these values."""
        return any(all(row.get(name) == value for name, value in key.items()) for row in self.content["rows"])

    def add(self, row: Row) -> None:
        """Keep a row, whole or not at all."""
        self.content["rows"].append(row)
        write_json(self.path, self.content)

    def finish(self, **values: Any) -> None:
        """Say that all rows are there."""
        self.content |= {"complete": True, **values}
        write_json(self.path, self.content)

    @property
    def complete(self) -> bool:
        """Whether all rows are there."""
        return bool(self.content.get("complete"))


# --- memory and seconds of a training step ----------------------------------------------------------------------------


def measure_steps(settings: StepMeasurement, record: Record, device: torch.device, note: Callable[[str], None]) -> None:
    """Measure every method at every size.

    One training at a time: what lies beside it on an accelerator would count as its own. Its first step allocates what stays (the
    optimiser's state), the second is watched for memory in the first turn, the last is timed.
    """
    from imfbench.devices import describe, free_memory

    for size in settings.sizes:
        key = size.model_dump()
        if all(record.has(**key, method=name) for name in settings.methods):
            continue
        found: dict[str, Row] = {name: {} for name in settings.methods}
        seconds: dict[str, list[float]] = {name: [] for name in settings.methods}
        for turn in range(settings.repeats):
            for name, trained in settings.methods.items():
                if "reason" in found[name]:
                    continue
                memory, elapsed = one_turn(trained, size, device, memory=turn == 0)
                if elapsed is None:  # a step that fitted in an earlier turn takes at least what it took there
                    memory["at_least"] = memory["at_least"] or found[name].get("peak_memory")
                else:
                    seconds[name].append(elapsed)
                found[name] |= memory
                free_memory()
                if turn == 0:
                    note(f"{name}, {size.batch} × {size.frames} frames, width {size.width}")
        for name, values in found.items():
            median = statistics.median(seconds[name]) if "reason" not in values else None
            if not record.has(**key, method=name):
                timed = {"seconds": median, "hardware": describe(device), "measured": True}
                record.add({**key, "method": name, **values, **timed})


def one_turn(trained: Trained, size: StepSize, device: torch.device, memory: bool) -> tuple[Row, float | None]:
    """Peak memory (if asked for) and seconds of a step of a training of its own, which is gone afterwards.

    Where memory runs out there are no seconds, and ``at_least`` is what was in use when it did, as far as that was watched:
    the step needs more.
    """
    from imfbench.devices import out_of_memory, synchronize
    from imfbench.metrics.memory import PeakMemory, peak_memory

    peak = PeakMemory("")
    try:
        training, batch = _training(trained, size, device)
        for _ in range(2 if memory else 1):
            with peak_memory(device) if memory else contextlib.nullcontext(peak) as peak:
                training.advance([batch], 1_000_000)
        synchronize(device)
        start = time.perf_counter()
        training.advance([batch], 1_000_000)
        synchronize(device)
        elapsed = time.perf_counter() - start
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        return {"peak_memory": None, "at_least": peak.bytes or None, "reason": "memory ran out"}, None
    return ({"peak_memory": peak.bytes, "peak_memory_kind": peak.kind} if memory else {}), elapsed


def _training(trained: Trained, size: StepSize, device: torch.device) -> Any:
    """A training of a new teacher's network of this width, and a batch of this size.

    Neither what the weights nor what the frames hold changes memory or time: random ones serve for both.
    """
    from imfbench.building import build_method
    from imfbench.method import Batch, Condition
    from imfbench.training import TrainConfig, Training

    teacher = build_method("teacher", backbone_config={"dim": size.width})
    bands = int(teacher.network.bands)  # type: ignore[arg-type]
    method = build_method(trained.method, trained.config, teacher)
    g = torch.Generator().manual_seed(0)
    x1 = torch.randn(size.batch, size.frames, bands, generator=g)
    prompt = torch.zeros(size.batch, size.frames, dtype=torch.bool)
    prompt[:, : size.frames // 4] = True
    tokens = torch.randint(1, 100, (size.batch, size.frames), generator=g)
    condition = Condition(
        tokens, x1 * prompt[..., None], prompt, torch.ones_like(prompt), torch.zeros(size.batch, dtype=torch.bool)
    )
    batch = Batch(x1, condition, tuple(str(i) for i in range(size.batch)))
    config = TrainConfig.model_validate({"steps": 1_000_000, "frames_per_batch": size.batch * size.frames})
    return Training(method, _Nothing(), config, Path(), device), batch


class _Nothing:
    """A training's data, where its batches come from elsewhere."""

    def batches(self, frames_per_batch: int, seed: int, start_step: int = 0) -> Iterator[Any]:
        """None."""
        return iter(())


# --- speed, utterance by utterance ------------------------------------------------------------------------------------


def spread(utterances: Sequence[Any], count: int) -> list[Any]:
    """So many of the utterances, at equal distances from the first to the last; all if there are no more."""
    if count >= len(utterances):
        return list(utterances)
    return [utterances[i * (len(utterances) - 1) // (count - 1)] for i in range(count)]


def measure_speed(settings: SpeedMeasurement, record: Record, context: Any, note: Callable[[str], None]) -> None:
    """Time the rows in turn on each utterance, the network alone, and with the vocoder.

    Before the clock each row makes one evaluation of each utterance, and the vocoder's kernels for it are made; over the first
    utterance both pass once more, whole. The utterances are spread over the set, that they are
    not all of one voice, and every other one has the rows in the opposite order, so that a machine that drifts favours none.
    """
    from imfbench.inputs import prepare_vocoder
    from imfbench.metrics.speed import time_passes
    from imfbench.pipeline.cells import row_grid
    from imfbench.sampling import warm_up

    test_set = context.config.dataset[0]
    utterances = spread(context.utterances(test_set), settings.utterances)
    dataset, vocoder = context.dataset(test_set), context.vocoder()
    samplers = {}
    for name, label in settings.rows.items():
        row = context.plan.rows[label]
        method, _ = context.sampler(row)
        context.forget("artefact")  # several networks side by side: kept here, not there
        samplers[name] = (method, row_grid(context, row)[0], row)
    warm = False
    for i, u in enumerate(utterances):
        if all(record.has(id=u.id, row=name) for name in samplers):
            continue
        condition = dataset.condition(u)
        for name, (method, grid, row) in list(samplers.items())[:: -1 if i % 2 else 1]:
            made: list[Any] = []
            warm_up(method, condition, context.device, context.config.precision)
            network = time_passes(
                partial(_sample, made, method, condition, u.id, grid, row, context), 0 if warm else 1, 1, context.device
            )[0]
            mel, counts = made[-1]
            prepare_vocoder(vocoder, len(mel))
            vocoding = time_passes(partial(vocoder, mel), 0 if warm else 1, 1, context.device)[0]
            found = {"network_seconds": network, "vocoder_seconds": vocoding, "frames": len(mel)}
            found |= {"generated_seconds": len(mel) * context.inputs.mel.seconds_per_frame}
            counted = {"nfe": counts.nfe, "network_calls": counts.network_calls}
            if not record.has(id=u.id, row=name):
                record.add({"id": u.id, "row": name, **found, **counted})
        warm = True
        note(u.id)


def _sample(made: list[Any], method: Any, condition: Any, id: str, grid: Any, row: Any, context: Any) -> None:
    from imfbench.sampling import synthesize_mel

    precision = context.config.precision
    made.append(synthesize_mel(method, condition, id, grid, row.solver, row.noise_seed, context.device, precision))


# --- a search's score on a lattice -------------------------------------------------------------------------------------


def lattice(points: int, steps: int) -> list[tuple[int, ...]]:
    """All rising choices of steps − 1 inner points among the multiples 1 … points − 1."""
    return list(itertools.combinations(range(1, points), steps - 1))


def measure_scores(settings: ScoreMeasurement, record: Record, context: Any, note: Callable[[str], None]) -> None:
    """Cost of every grid of the lattice for every development utterance, from the same noise."""
    from imfbench.flow.grids import check_grid
    from imfbench.pipeline.search import conditions_of, sampled_mels, teacher_mels
    from imfbench.pipeline.teacher_distance import mel_distance

    utterances = context.utterances(context.config.dev)
    grids = [g for g in lattice(settings.points, settings.nfe) if not record.has(grid=list(g))]
    if not grids:
        return
    conditions = conditions_of(context, utterances)
    if settings.score == "teacher-distance":
        references = teacher_mels(context, utterances, conditions)
        cost = lambda u, mel: mel_distance(mel, references[u.id])  # noqa: E731
        close = lambda: None  # noqa: E731
    else:
        cost, close = _metric_cost(context, settings.score, conditions)
    method, _ = context.load(settings.artefact)
    try:
        for grid in grids:
            values = check_grid([0.0, *(k / settings.points for k in grid), 1.0])
            mels = sampled_mels(context, method, utterances, conditions, values, "euler")
            record.add({"grid": list(grid), "costs": {u.id: float(cost(u, mels[u.id])) for u in utterances}})
            note(str(list(grid)))
    finally:
        close()


def _metric_cost(
    context: Any, name: str, conditions: dict[str, Any]
) -> tuple[Callable[[Any, Any], float], Callable[[], None]]:
    """A metric as a cost of each utterance: what is better when higher is negated."""
    from imfbench.features.audio import load_audio
    from imfbench.pipeline.search import heard

    metric, vocoder, models = context.metric(name), context.vocoder(), contextlib.ExitStack()
    models.enter_context(metric.loaded())
    sign = -1.0 if metric.higher_is_better else 1.0

    def cost(u: Any, mel: Any) -> float:
        columns = heard(metric, vocoder, u, mel, conditions[u.id], load_audio(u.prompt_audio))
        return sign * float(columns[metric.summary_columns[0]])

    return cost, models.close
