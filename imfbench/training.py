"""One training loop for every method: mixed precision, EMA, checkpoints, resume, divergence; gradients by Accelerate.

The random draws of step k come from generators seeded by (seed, k, number of the batch within the step), and batches from their
numbers: a resumed training needs no random state and repeats what an uninterrupted one would have done. Several processes (DDP,
see ``imfbench.distribution``) share the batches of each step and learn what one process does from the same batches and draws:
losses are divided by the frames of all, and only the first one writes.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from imfbench import distribution
from imfbench.artefact import ArtefactError, save_artefact
from imfbench.config_file import ConfigError
from imfbench.devices import describe, dtype_name, has_fused_optimizers, made_current, out_of_memory, synchronize
from imfbench.economy import Economy, hold_in_bf16
from imfbench.method import Batch, Method, State
from imfbench.metrics.memory import kind_on
from imfbench.preparation import Prepared, affordable_steps, rehearsed
from imfbench.store import atomic, read_json, write_json, write_text
from imfbench.train_settings import TrainConfig, learning_rate
from imfbench.training_log import DivergenceMonitor, TrainingLog
from imfbench.training_step import StepLoss, batches_of, clipped, ema_update, in_steps, seeded, step_generator

CHECKPOINT = "checkpoint.pt"
STATUS = "status.json"
MEMORY = "step_memory.json"
FEWEST_STEPS = 20
"""Steps on a machine that went on with a training, for seconds a step of its own."""
LOG = "log.csv"


@dataclass
class TrainResult:
    """What a training left: also ``status.json`` in its folder."""

    status: Literal["ok", "diverged", "unfinished"]
    reason: str
    steps: int
    seconds_per_step: float
    seconds: float
    peak_memory: int | None
    peak_memory_kind: str
    seed: int
    parameters: int
    precision: str
    hardware: dict[str, Any]
    seconds_preparing: float = 0.0
    """Part of ``seconds``, and with it of ``seconds_per_step``: what the batches took that were made beforehand."""
    processes: int = 1


class TrainingData(Protocol):
    """What the loop needs of a dataset."""

    def batches(self, frames_per_batch: int, seed: int, start_step: int = 0) -> Iterator[Batch]:
        """Endless batches; batch k depends on (seed, k) alone."""


class Training:
    """One training: builds the optimiser, resumes from its folder, steps, and saves. Use :func:`train`."""

    def __init__(
        self, method: Method, data: TrainingData, config: TrainConfig, folder: Path, device: torch.device
    ) -> None:
        from accelerate import Accelerator
        from accelerate.utils import DistributedDataParallelKwargs

        self.method, self.config, self.folder, self.device = method, config, folder, made_current(device)
        self.dtype = dtype_name(device, config.precision)
        as_views = DistributedDataParallelKwargs(gradient_as_bucket_view=True)  # else every gradient is there twice
        threads = torch.get_num_threads()
        self.accelerator = Accelerator(
            cpu=device.type == "cpu", mixed_precision="no", kwargs_handlers=[as_views]
        )  # autocast is ours: per training
        torch.set_num_threads(threads)  # among processes on a CPU Accelerate sets a number of its own
        method.network.to(device).train()
        if method.teacher is not None:
            if config.teacher_dtype == "bf16":
                hold_in_bf16(method.teacher.network)
            method.teacher.network.to(device).eval()
        if config.ema_device == "cpu" and method.needs.ema_target:
            raise ConfigError(
                f"{type(method).__name__} learns from the moving average, which must be where it trains: set ema_device: same"
            )
        self.ema = copy.deepcopy(method.network).eval().requires_grad_(False)
        if config.ema_device == "cpu":
            self.ema.to("cpu")
        self.optimizer = torch.optim.AdamW(
            [p for p in method.network.parameters() if p.requires_grad],
            config.learning_rate, betas=config.betas, weight_decay=config.weight_decay,
            fused=has_fused_optimizers(device),  # a third of the time of an update on a CPU
        )  # fmt: skip
        step = StepLoss(method, device, config.precision, Economy(config))
        self.wrapped, self.prepared = self.accelerator.prepare(step, self.optimizer)
        self.step, self.seconds, self.updating = 0, 0.0, False
        self.hardware = describe(device)
        self.taken_over = (0, 0.0)  # step and seconds at which this hardware went on with it
        self.monitor = DivergenceMonitor()
        self.data = data

    def restore(self) -> bool:
        """Read the checkpoint if there is one.

        Raises:
            ArtefactError: It cannot be read, or is another network's.
        """
        path = self.folder / CHECKPOINT
        if not path.is_file():
            return False
        try:
            saved = torch.load(path, map_location=self.device, weights_only=True)
            self.method.network.load_state_dict(saved["network"])
            self.ema.load_state_dict(saved["ema"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.step, self.seconds = saved["step"], saved["seconds"]
            there = saved.get("hardware") or self.hardware  # checkpoints of earlier versions do not tell
            same = {**there, "threads": None} == {**self.hardware, "threads": None}
            self.taken_over = tuple(saved.get("taken_over", (0, 0.0))) if same else (self.step, self.seconds)
            self.monitor.restore(saved["monitor"])
        except Exception as error:  # torch raises many kinds; what is wrong is the file in any case
            if out_of_memory(error):
                raise
            raise ArtefactError(
                f"{path} cannot be read ({type(error).__name__}: {str(error).partition('. ')[0][:200]}): remove it, and the "
                "training begins anew with the same command"
            ) from None
        return True

    def save(self) -> None:
        """Write the checkpoint whole or not at all."""
        if not self.accelerator.is_main_process:
            return
        state = {
            "network": self.method.network.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "hardware": self.hardware,
            "taken_over": self.taken_over,
            "monitor": self.monitor.state(),
        }
        # By Python's own file: given a path, torch does not say that the disk is full.
        with atomic(self.folder / CHECKPOINT) as temporary, temporary.open("wb") as file:
            torch.save(state, file)

    def micro_batches(self) -> Iterator[list[Batch]]:
        """The batches of each coming step, one list a step: of its ``accumulate`` batches every process takes its own."""
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        skip = self.step * self.config.accumulate + rank
        mine = batches_of(self.data, self.config.frames_per_batch, self.config.seed, skip, world)
        return in_steps(mine, self.config.accumulate // world)

    def state(self, micro: list[Batch], steps: int) -> State:
        """The step's state with the sizes of the global batch, and the draws of its first batch."""
        sizes = [sum(float(b.target.sum()) for b in micro), sum(float(len(b.x1)) for b in micro)]
        frames, samples = distribution.summed(sizes, self.device)
        generator = step_generator(self.config.seed, self.step)
        ema = self.ema if self.method.needs.ema_target else None
        return State(self.step, self.step / steps, generator, frames, samples, ema)

    def gradients(self, micro: list[Batch], steps: int) -> tuple[float, dict[str, float]]:
        """Forward and backward of one step; returns the global loss and the method's logs."""
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        state = self.state(micro, steps)
        total = 0.0
        logs: dict[str, float] = {}
        for i, batch in enumerate(micro):
            last, number = i == len(micro) - 1, i * world + rank
            state = replace(state, generator=step_generator(self.config.seed, self.step, number))
            with (
                contextlib.nullcontext() if last else self.accelerator.no_sync(self.wrapped),
                seeded(self.config.seed, self.step, number, self.device),
            ):
                loss, found = self.wrapped(batch.to(self.device), state)
                # DDP averages over processes, and the loss is already divided by the global count.
                self.accelerator.backward(loss * world)
            total += float(loss.detach())
            for name, value in found.items():
                share = value if name in self.method.shares else value / len(micro) / world
                logs[name] = logs.get(name, 0.0) + share
        total, *values = distribution.summed([total, *logs.values()], self.device)
        return total, dict(zip(logs, values, strict=True))

    def advance(self, micro: list[Batch], steps: int) -> dict[str, float]:
        """One optimiser step; returns its figures."""
        rate = learning_rate(self.config, self.step, steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss, logs = self.gradients(micro, steps)
        norm = clipped([p for p in self.method.network.parameters() if p.requires_grad], self.config.clip)
        if math.isfinite(loss) and math.isfinite(norm):
            self.updating = (
                True  # from here to the end the weights, their averages and the optimiser do not belong together
            )
            self.prepared.step()
            self.step += 1
            ema_update(self.ema, self.method.network, min(self.config.ema, (1 + self.step) / (10 + self.step)))
            self.updating = False
        self.prepared.zero_grad(set_to_none=True)
        return {"step": self.step, "loss": loss, "grad_norm": norm, "learning_rate": rate, **logs}


@contextlib.contextmanager
def rehearsal(method: Method, data: TrainingData, config: TrainConfig, device: torch.device) -> Iterator[Training]:
    """A training on a copy of the method's network: steps that are timed or measured leave no trace.

    Meanwhile the network itself waits on the CPU: on an accelerator, where a student lies as its teacher did, it would count as
    memory of the step.
    """
    network = method.network
    place = next((value.device for value in network.parameters()), device)
    if place.type != "cpu":
        network.to("cpu")
    try:
        method.network = copy.deepcopy(network)
        yield Training(method, data, config, Path(), device)
    finally:
        method.network = network
        if place.type != "cpu":
            network.to(place)


def _memory_of(config: TrainConfig, device: torch.device) -> dict[str, Any]:
    """What a step's memory hangs on besides the recipe: a training may go on with other savings, or on another device."""
    saving = config.model_dump(mode="json", include={"checkpoint_activations", "ema_device", "processes"})
    return {**saving, "kind": kind_on(device)}


def step_memory(
    method: Method, data: TrainingData, config: TrainConfig, device: torch.device
) -> tuple[int | None, str]:
    """Peak memory of a whole training step (weights, gradients, optimiser, EMA, teacher), in a pass of its own."""
    from imfbench.metrics.memory import peak_memory

    with rehearsal(method, data, config, device) as training:
        micro = next(training.micro_batches())
        # The first step allocates what stays: the optimiser's state.
        training.advance(rehearsed(method, micro, device, config), 1_000_000)
        with peak_memory(device) as peak:
            training.advance(rehearsed(method, micro, device, config), 1_000_000)
    return peak.bytes, peak.kind


def budget_to_steps(
    method: Method,
    data: TrainingData,
    config: TrainConfig,
    device: torch.device,
    clock: Callable[[], float] = time.perf_counter,
) -> int:
    """Turn ``config.minutes`` into steps by timing ten (two more first, to warm up) on a copy of the network.

    The median counts: all methods are timed on the same batches, and a moment in which the machine did something else would
    cost one of them steps. Where a method prepares batches, the making of two is timed as well, and paid from the same minutes.
    """
    if config.steps is not None:
        return config.steps
    if config.minutes is None:
        raise ValueError("a training needs `steps` or `minutes`")
    with rehearsal(method, data, config, device) as training:
        batches, of_batch = training.micro_batches(), 0.0
        if method.batches_to_prepare(1):
            made = [rehearsed(method, next(batches), device, config)]
            synchronize(device)
            start = clock()
            made += [rehearsed(method, next(batches), device, config) for _ in range(2)]
            synchronize(device)
            of_batch = (clock() - start) / 2 / config.accumulate  # of all processes: each makes its own
            batches = itertools.cycle(made)
        for _ in range(2):
            training.advance(next(batches), 1_000_000)
        seconds = []
        for _ in range(10):
            micro = next(batches)
            synchronize(device)
            start = clock()
            training.advance(micro, 1_000_000)
            synchronize(device)
            seconds.append(clock() - start)
    return affordable_steps(method, config.minutes * 60, statistics.median(seconds), of_batch, config.accumulate)


def train(
    method: Method, method_name: str, data: TrainingData, config: TrainConfig, folder: Path, device: torch.device,
    card: dict[str, Any] | None = None, progress: Callable[[int, int, float], None] | None = None, stop_at: int | None = None,
    preparing: Callable[[int, int], None] | None = None,
) -> TrainResult:  # fmt: skip
    """Train ``method`` in ``folder``: resume where a killed run stopped, return at once what is finished.

    Args:
        method: From :func:`build_method`; its network ends with the EMA weights.
        method_name: The registry's name, for the artefact.
        data: Training batches.
        config: ``steps`` must be set (see :func:`budget_to_steps`).
        folder: Gets checkpoint, log.csv, status.json and, at the end, the artefact.
        device: Where to train.
        card: What the artefact's card says besides the training's figures.
        progress: Called after each step with (steps done, steps in all, loss).
        stop_at: Stop after this step with status "unfinished" (for training in parts).
        preparing: Called after each batch that is made beforehand with (made, to be made).

    Every process of a group calls it alike; a ``KeyboardInterrupt`` in one of them stops all after the same step.

    Returns:
        The result; a diverged training is a result too, and leaves no artefact.
    """
    if config.steps is None:
        raise ValueError("train() needs config.steps; see budget_to_steps")
    status_path = folder / STATUS
    if status_path.is_file():
        found = TrainResult(**read_json(status_path))
        if found.status == "diverged" or found.steps >= config.steps:
            if found.status == "ok":
                from imfbench.artefact import load_artefact

                loaded, _ = load_artefact(folder, device)
                method.network = loaded.network
            return found
    measured, of = read_json(folder / MEMORY), _memory_of(config, device)
    distribution.meet()  # all have looked before one writes
    if measured is None or measured.get("of", of) != of:  # a training that goes on as it began has its figure already
        measured = {**dict(zip(("bytes", "kind"), step_memory(method, data, config, device), strict=True)), "of": of}
        if distribution.index() == 0:
            write_json(folder / MEMORY, measured)
    training = Training(method, data, config, folder, device)
    training.restore()
    prepared = Prepared(method, data, config, folder, device, preparing)
    if prepared.count:
        training.data = prepared
    batches = training.micro_batches()
    reason = ""
    log = TrainingLog(folder / LOG, training.step) if training.accelerator.is_main_process else None
    while training.step < config.steps and not reason and (stop_at is None or training.step < stop_at):
        micro = next(batches)
        start = time.perf_counter()
        try:
            figures = training.advance(micro, config.steps)
        except (MemoryError, RuntimeError) as error:
            if out_of_memory(error) and not training.updating:
                training.save()
            raise
        synchronize(device)
        training.seconds += time.perf_counter() - start
        reason = training.monitor.update(figures["loss"], figures["grad_norm"], figures.get("weight", 1.0))
        done = int(figures["step"])
        if log is not None and (done % config.log_every == 0 or reason or done == config.steps):
            log.write({"seconds": round(training.seconds, 3), **figures})
        stopping = False
        try:
            if progress is not None:
                progress(done, config.steps, figures["loss"])
        except KeyboardInterrupt:
            stopping = True
        if distribution.anywhere(stopping, device):
            training.save()
            raise KeyboardInterrupt
        if done % config.save_every == 0 and not reason:
            training.save()
    if not reason:
        training.save()
    status: Literal["ok", "diverged", "unfinished"]
    status = "diverged" if reason else "ok" if training.step >= config.steps else "unfinished"
    seconds = training.seconds + prepared.seconds
    # Of fewer steps here the first, which are slow, would be too large a part.
    first, before = training.taken_over if training.step >= training.taken_over[0] + FEWEST_STEPS else (0, 0.0)
    per_step = (training.seconds - before) / max(1, training.step - first) + prepared.seconds / max(1, training.step)
    result = TrainResult(
        status, reason, training.step, per_step, seconds,
        measured["bytes"], measured["kind"], config.seed,
        sum(p.numel() for p in method.network.parameters()), training.dtype, training.hardware, prepared.seconds,
        distribution.count(),
    )  # fmt: skip
    method.network = training.ema.to(device)
    if training.accelerator.is_main_process:
        if status == "ok":
            save_artefact(
                folder, method_name, method, (card or {}) | {"training": asdict(result), "config": config.model_dump()}
            )
        write_text(status_path, json.dumps(asdict(result), indent=1) + "\n")
        if status == "ok":
            prepared.remove()
    return result
