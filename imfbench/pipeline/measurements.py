"""What work costs on this machine, by measurement: in cells and trainings that are finished, or on a first utterance and step.

Figures are kept by what they are of: a network call of an artefact (in a precision, on so many threads), an utterance of a
vocoder or of a metric with its settings, a step of a training. Nothing is assumed: what was not measured has no figure.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch

from imfbench.artefact import identity
from imfbench.data import Utterance
from imfbench.devices import machine_name, synchronize
from imfbench.features.audio import save_audio
from imfbench.flow.grids import uniform
from imfbench.method import Method
from imfbench.metrics.memory import kind_on, peak_memory
from imfbench.pipeline.content import taught_by
from imfbench.pipeline.context import Context, RunError, one_line
from imfbench.pipeline.plan import Artefact
from imfbench.pipeline.reuse import RECIPE, folders
from imfbench.pipeline.score import COSTS, where_scored
from imfbench.pipeline.scorer import Asked, Ready, Scorer
from imfbench.pipeline.train import FITTED, settings_of
from imfbench.pipeline.train_task import fitted, method_to_train
from imfbench.preparation import rehearsed
from imfbench.progress import log
from imfbench.registry import METHODS
from imfbench.sampling import synthesize_mel
from imfbench.store import content_hash, file_sha256, read_json
from imfbench.training import rehearsal

MOST_SECONDS = 60.0
"""So long a first cell may be measured; what has no turn is estimated from its like."""
RECORDED, MEASURED, LIKE = "on record", "measured", "estimated"
Key = tuple[str, ...]


@dataclass(frozen=True)
class Figure:
    """A cost, and where it is from: finished work, a first cell, or (``LIKE``) the dearest of its kind that was measured."""

    value: float
    source: str


@dataclass
class Measurements:
    """Figures by what they are of, such as ("call", artefact): seconds of one process, or bytes where the first word says so.

    Attributes:
        figures: All of them.
        unmeasured: What could not be measured → why.
        elsewhere: They are of another machine: what is on record was made on this one, and replaces none of them; its seconds
            are no figures at all.
    """

    figures: dict[Key, Figure] = field(default_factory=dict)
    unmeasured: dict[str, str] = field(default_factory=dict)
    elsewhere: bool = False

    def get(self, *key: str) -> Figure | None:
        """The figure, else the largest of its kind, as an estimate; None if nothing of the kind was measured."""
        if key in self.figures:
            return self.figures[key]
        if key[0] in ("score", "score memory", "load"):
            return None  # what one scorer takes says nothing about another
        like = [figure.value for known, figure in self.figures.items() if known[0] == key[0]]
        return Figure(max(like), LIKE) if like else None

    def keep(self, key: Key, value: float, source: str) -> None:
        """Keep a figure of something that has none, or one on record in place of an estimate or a first cell's."""
        known = self.figures.get(key)
        if known is None or (source == RECORDED != known.source and not self.elsewhere):
            self.figures[key] = Figure(float(value), source)

    def keep_time(self, key: Key, seconds: float, source: str) -> None:
        """``keep`` of seconds: those of this machine say nothing about another one."""
        if not self.elsewhere:
            self.keep(key, seconds, source)


def step_key(context: Context, artefact: Artefact) -> str:
    """Hash of what decides the time and the memory of a training step."""
    assert artefact.system is not None
    system, settings = context.config.systems[artefact.system], settings_of(context.config, artefact)
    method = METHODS.get(system.method)
    network = None if method.needs.teacher else system.network.model_dump(mode="json", exclude={"start"})
    teacher = context.config.teacher.artefact if method.needs.teacher and context.config.teacher is not None else None
    own = taught_by(context.config, artefact)  # of a teacher that is trained here the name says nothing
    taught = None if own is None else step_key(context, own)
    return content_hash(
        [
            context.config.task, system.method, method.Config(**system.config).model_dump(mode="json"), network, teacher, taught,
            settings.frames_per_batch, settings.accumulate, settings.precision, context.device.type, context.threads,
            settings.processes, settings.memory, settings.checkpoint_activations, settings.compile, settings.ema_device,
            settings.teacher_dtype,
        ]
    )  # fmt: skip


def call_key(context: Context, network: str, dtype: str | None = None) -> Key:
    """By what the seconds of a network call are kept: the network, device and threads, and the precision of sampling."""
    return ("call", network, f"{context.device.type}/{context.threads}/{dtype or context.dtype}")


def scorer_key(context: Context, metric: str) -> str:
    """By what a scorer's figures are kept: its name, and its settings where it has some."""
    options = context.config.metrics.get(metric, {})
    return f"{metric}:{content_hash(options)[:16]}" if options else metric


def on_record(context: Context, found: Measurements) -> None:
    """Add what the finished work of this run's folders says, as far as it was done on this machine."""
    seconds: dict[Key, list[float]] = {}
    sizes: list[float] = []
    for folder in folders(context.folder):
        for path in sorted(folder.path.glob("cells/*/cell.json")):
            about = read_json(path) or {}
            network, dtype = str(about.get("artefact_sha256")), about.get("dtype")
            for row in folder.cell(path.parent.name).journal.rows().values():
                if row["status"] != "ok" or row.get("device", context.device.type) != context.device.type:
                    continue
                sizes.append(_size(path.parent / row["audio"]))
                if row.get("threads") != context.threads or not context.is_ours(row.get("hardware")):
                    continue
                if row.get("vocoder_seconds") is not None:
                    seconds.setdefault(("vocoder", str(about.get("vocoder"))), []).append(row["vocoder_seconds"])
                if row.get("network_seconds") is not None:
                    made = row["counts"]["network_calls"]
                    seconds.setdefault(call_key(context, network, dtype), []).append(row["network_seconds"] / made)
            if about.get("peak_memory") is not None and about.get("peak_memory_kind") == kind_on(context.device):
                found.keep(("sampling memory", network), about["peak_memory"], RECORDED)
        for metric, cost in (read_json(folder.path / COSTS) or {}).items():
            _scorer_on_record(context, found, metric, cost)
    if sizes:
        found.keep(("audio bytes", ""), statistics.fmean(sizes), RECORDED)
    for key, values in seconds.items():
        found.keep_time(key, statistics.fmean(values), RECORDED)
    for artefact in context.plan.artefacts.values():
        status = read_json(context.folder.artefact(artefact.name) / "status.json") or {}
        if artefact.ready is None and status.get("status") == "ok":
            _training_on_record(context, found, artefact, status)


def _scorer_on_record(context: Context, found: Measurements, metric: str, cost: dict[str, Any]) -> None:
    here = where_scored(context, metric)
    if any(cost.get(name, value) != value for name, value in here.items()):
        return
    key, together = scorer_key(context, metric), cost.get("workers", 1)
    # The seconds are those of all processes at once; older records do not say of how many.
    found.keep_time(("score", key), together * cost["seconds"] / cost["utterances"], RECORDED)
    # Older records of several processes looked at the one that has no model, which took neither time nor memory there.
    if together == 1 or "options" in cost:
        found.keep_time(("load", key), cost["load_seconds"], RECORDED)
        found.keep(("score memory", key), cost["memory"], RECORDED)


def _training_on_record(context: Context, found: Measurements, artefact: Artefact, status: dict[str, Any]) -> None:
    key, hardware = step_key(context, artefact), status.get("hardware") or {}
    same = not hardware or context.is_ours(machine_name(hardware, context.device))
    if hardware.get("device", context.device.type) == context.device.type:
        if same and hardware.get("threads", context.threads) == context.threads:
            found.keep_time(("step", key), status["seconds_per_step"], RECORDED)
        if status.get("peak_memory") is not None:
            found.keep(("step memory", key), status["peak_memory"], RECORDED)
    size = sum(_size(path) for path in context.folder.artefact(artefact.name).iterdir())
    found.keep(("training bytes", key), size, RECORDED)


def first_cell(
    context: Context, found: Measurements, ready: Iterable[str], trained: Iterable[Artefact], metrics: Iterable[str],
    vocoded: bool, clock: Callable[[], float] = time.perf_counter,
) -> None:  # fmt: skip
    """Time what has no figure yet on one utterance and a few training steps; nothing of it is kept in the run folder.

    Args:
        context: The run.
        found: Gets the figures, and why something could not be measured.
        ready: Artefacts that are there and are to be sampled.
        trained: Artefacts to be trained.
        metrics: Scorers that have something to score.
        vocoded: Whether anything is to be vocoded.
        clock: Seconds.
    """
    begun = clock()
    utterance = _middle(context)
    for name in ready:
        sha256 = identity(context.card(name))
        if call_key(context, sha256) not in found.figures:
            with _attempt(found, f"sampling {name}"):
                _time_sampling(context, found, context.load(name)[0], utterance, sha256)
    if vocoded and (("vocoder", context.vocoder_name) not in found.figures or ("audio bytes", "") not in found.figures):
        with _attempt(found, f"vocoder {context.config.vocoder}"):
            _time_vocoder(context, found, utterance)
    context.forget("vocoder")
    for metric in metrics:
        if ("score", scorer_key(context, metric)) not in found.figures:
            with _attempt(found, f"metric {metric}"):
                _time_metric(context, found, metric, utterance)
    for artefact in trained:
        key = step_key(context, artefact)
        if ("step", key) in found.figures:
            continue
        if clock() - begun > MOST_SECONDS and any(known[0] == "step" for known in found.figures):
            found.unmeasured.setdefault(f"training {artefact.name}", f"no turn within {MOST_SECONDS:g} s")
            continue
        with _attempt(found, f"training {artefact.name}"):
            _time_training(context, found, artefact, key, utterance)


class _attempt:
    """What goes wrong while a cost is measured is told beside the plan; the run itself would tell it again."""

    def __init__(self, found: Measurements, what: str) -> None:
        self.found, self.what = found, what

    def __enter__(self) -> None:
        log.info("measuring: %s", self.what)

    def __exit__(self, _kind: Any, error: BaseException | None, _trace: Any) -> bool:
        if not isinstance(error, Exception):
            return False
        self.found.unmeasured[self.what] = one_line(error)
        return True


def _middle(context: Context) -> Utterance:
    """The utterance of middle length, or the middle one where lengths are not known."""
    utterances = context.utterances(context.config.dataset[0])
    ordered = sorted(utterances, key=lambda u: u.seconds or 0.0)
    return ordered[len(ordered) // 2]


def _time_sampling(
    context: Context, found: Measurements, method: Method, utterance: Utterance, network: str
) -> None:  # fmt: skip
    """Seconds of one network call, by samples of two steps after one that warms up; the memory is of one of one step."""
    condition = context.dataset(context.config.dataset[0]).condition(utterance)

    def sample(steps: int) -> int:
        precision = context.config.precision
        made = synthesize_mel(method, condition, utterance.id, uniform(steps), "euler", 0, context.device, precision)
        return made[1].network_calls

    calls = sample(2)
    seconds = _seconds(lambda: sample(2), context) / calls
    with torch.no_grad(), peak_memory(context.device) as peak:
        sample(1)
    found.keep(call_key(context, network), seconds, MEASURED)
    found.keep(("sampling memory", network), peak.bytes, MEASURED)


def _time_vocoder(context: Context, found: Measurements, utterance: Utterance) -> None:
    mel = context.dataset(context.config.dataset[0]).target_mel(utterance)
    vocoder = context.vocoder()
    audio = vocoder(mel)
    found.keep(("vocoder", context.vocoder_name), _seconds(lambda: vocoder(mel), context), MEASURED)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "first.flac"
        save_audio(path, audio, vocoder.sample_rate)
        found.keep(("audio bytes", ""), _size(path), MEASURED)


def _time_metric(context: Context, found: Measurements, name: str, utterance: Utterance) -> None:
    """Seconds for one recording, the model loaded and warm; its memory is what the process grew by."""
    metric = context.metric(name)
    recording = utterance.target_audio or utterance.prompt_audio
    row = {"status": "ok", "audio": recording.name, "audio_sha256": file_sha256(recording), "id": utterance.id}
    process = psutil.Process()
    before = process.memory_info().rss
    scorer = Scorer(metric, context.cache, "always")
    try:
        scorer.open()

        def hear() -> None:
            ready = scorer.look(Asked(row, recording.parent, utterance))
            if not isinstance(ready, Ready):
                raise RuntimeError(str(ready.get(f"{name}_error")))
            metric.observe(ready.item)

        hear()
        key = scorer_key(context, name)
        found.keep(("score", key), _seconds(hear, context), MEASURED)
        found.keep(("load", key), scorer.load_seconds, MEASURED)
        found.keep(("score memory", key), max(0, process.memory_info().rss - before), MEASURED)
    finally:
        scorer.close()


def _time_training(context: Context, found: Measurements, artefact: Artefact, key: str, utterance: Utterance) -> None:
    """Seconds of a step after one that warms up, with its share of batches that are made beforehand; memory of another; and a
    network call of what is trained."""
    settings = settings_of(context.config, artefact)
    if settings.memory is not None:
        before = (read_json(context.folder.artefact(artefact.name) / RECIPE) or {}).get(FITTED)
        if not before:  # whole, they may not fit: that is what the setting is for
            raise RunError("training.memory cuts its batches by measurement when it begins")
        settings = fitted(context, artefact.name, settings, before)[0]
    method = method_to_train(context, artefact, settings)
    data = context.dataset(context.config.train_data)
    with rehearsal(method, data, settings, context.device) as training:
        raw = training.micro_batches()
        micro = rehearsed(method, next(raw), context.device, settings)
        training.advance(micro, 1_000_000)
        of_step, steps = 0.0, settings.steps or 1000
        if made := method.batches_to_prepare(steps * settings.accumulate):
            of_batch = _seconds(lambda: rehearsed(method, next(raw)[:1], context.device, settings), context)
            of_step, batches = of_batch * made / steps, iter(lambda: micro, None)
        else:
            batches = raw
        of_step += _seconds(lambda: training.advance(next(batches), 1_000_000), context)
        found.keep(("step", key), of_step, MEASURED)
        micro = rehearsed(method, next(raw), context.device, settings)
        with peak_memory(context.device) as peak:
            training.advance(micro, 1_000_000)
        found.keep(("step memory", key), peak.bytes, MEASURED)
        weights = sum(value.numel() * value.element_size() for value in method.network.state_dict().values())
        # The artefact, and a checkpoint of the network, its average and the two moments of Adam.
        found.keep(("training bytes", key), 5 * weights, MEASURED)
        if call_key(context, key) not in found.figures:
            _time_sampling(context, found, method, utterance, key)


def _seconds(work: Callable[[], Any], context: Context) -> float:
    """Seconds of warm work: the median of three times, which a busy moment does not move; of fewer where each takes long."""
    times: list[float] = []
    while len(times) < 3 and sum(times) < 4.0:
        synchronize(context.device)
        start = time.perf_counter()
        work()
        synchronize(context.device)
        times.append(time.perf_counter() - start)
    return statistics.median_low(times)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
