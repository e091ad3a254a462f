"""The largest batches whose training step fits into a budget of memory, found by running real steps.

``frames_per_batch × accumulate`` stays; small batches fill less of their frames (docs/training.md). Steps are measured from the
smallest batches upwards, each only if what is known so far says that it will fit, so that the search does not itself run out of
memory.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from imfbench.config_file import ConfigError
from imfbench.devices import available_memory, free_memory, out_of_memory
from imfbench.method import Batch, Method
from imfbench.metrics.memory import peak_memory
from imfbench.preparation import rehearsed
from imfbench.profiling.parts import steady_parts
from imfbench.train_settings import TrainConfig
from imfbench.training import TrainingData, rehearsal

HEADROOM = 1.1
"""A step fits if so many times its measured peak does: later batches are a little larger, and allocators leave gaps."""
LOOKED_AT = 32
"""Batches of which the two heaviest are measured: the most frames, and the most pairs of frames, which attention may keep."""
LAST_CUTS = 3
"""Measurements between the largest batches that fit and the smallest that do not."""


@dataclass(frozen=True)
class Fit:
    """Batches that fit.

    Attributes:
        frames_per_batch: Frames of each.
        accumulate: How many make a step.
        peak: Measured peak of a step of them, in bytes.
        kind: What kind of peak, see ``imfbench.metrics.memory``.
        measured: Frames of a batch → peak; None where memory ran out.
    """

    frames_per_batch: int
    accumulate: int
    peak: int
    kind: str
    measured: dict[int, int | None]


@dataclass(frozen=True)
class Peak:
    """The measured peak of a step, with the bytes of it that no batch changes."""

    bytes: int
    kind: str
    steady: int


Measure = Callable[[int, int], Peak | None]
"""(frames of a batch, batches of a step) → the peak; None if memory ran out."""


def fit(method: Method, data: TrainingData, config: TrainConfig, device: torch.device) -> Fit:
    """Find the largest batches for ``config.memory``.

    Args:
        method: Whose steps; its network is left as it is.
        data: Training data.
        config: ``frames_per_batch × accumulate`` is the size of a step, ``processes`` the least that ``accumulate`` may be.
        device: Where.

    Raises:
        ConfigError: Less is free than ``memory``, or not even the smallest batches fit; the message has the measured bytes.
    """
    if config.memory is None:
        raise ValueError("fit() needs config.memory")
    free = available_memory(device)
    if config.memory > free:
        raise ConfigError(
            f"training.memory = {_gb(config.memory)}, but only {_gb(free)} are free on {device}: give less, or free some"
        )
    plain = config.model_copy(update={"processes": 1, "memory": None, "seed": 0})
    longest = max(batch.x1.shape[1] for batch in itertools.islice(data.batches(1, 0), LOOKED_AT))
    return search(config, longest, lambda frames, batches: _measured(method, data, plain, device, frames, batches))


def search(config: TrainConfig, longest: int, measure: Measure) -> Fit:
    """The search by itself.

    Args:
        config: As for ``fit``.
        longest: Frames of the longest utterance: fewer frames a batch change nothing.
        measure: Runs steps.

    Raises:
        ConfigError: Not even the smallest batches fit.
    """
    budget, whole, least = config.memory or 0, config.frames_per_batch * config.accumulate, config.processes
    measured: dict[int, Peak | None] = {}

    def frames(times: int) -> int:
        return math.ceil(whole / (times * least))

    def fits(times: int) -> bool:
        if times not in measured:
            if _foreseen(frames(times), {frames(k): peak for k, peak in measured.items()}) * HEADROOM > budget:
                return False
            measured[times] = measure(frames(times), times * least)
        found = measured[times]
        return found is not None and found.bytes * HEADROOM <= budget

    good = max(1, whole // (least * max(longest, 1)))
    if not fits(good):
        raise ConfigError(_too_small(config, frames(good), measured[good]))
    too_large = 0
    while good > 1:
        if not fits(-(-good // 2)):
            too_large = -(-good // 2)
            break
        good = -(-good // 2)
    for _ in range(LAST_CUTS):
        if good - too_large <= 1:
            break
        middle = (good + too_large) // 2
        if fits(middle):
            good = middle
        else:
            too_large = middle
    peak = measured[good]
    assert peak is not None
    known = {frames(k): None if found is None else found.bytes for k, found in measured.items()}
    return Fit(frames(good), good * least, peak.bytes, peak.kind, known)


def _foreseen(frames: int, measured: dict[int, Peak | None]) -> float:
    """Bytes for so many frames: on the line through the two largest measured, or through one and what no batch changes."""
    known = sorted((count, peak) for count, peak in measured.items() if peak is not None)
    if not known:
        return 0.0
    (count, peak) = known[-1]
    before, base = (known[-2][0], known[-2][1].bytes) if len(known) > 1 else (0, peak.steady)
    if count == before:
        return float(peak.bytes)
    return peak.bytes + (peak.bytes - base) * (frames - count) / (count - before)


def _measured(
    method: Method, data: TrainingData, config: TrainConfig, device: torch.device, frames: int, batches: int
) -> Peak | None:
    count = min(2, batches)  # with more than one, gradients are there while the second one's activations are
    some = config.model_copy(update={"frames_per_batch": frames, "accumulate": count})
    try:
        with rehearsal(method, data, some, device) as training:
            looked_at = list(itertools.islice(data.batches(frames, 0), LOOKED_AT))
            weighed = [[weigh(batch) for batch in looked_at] for weigh in _WEIGHTS]
            heaviest = {weights.index(max(weights)) for weights in weighed}
            found, kind = 0, ""
            for i in sorted(heaviest):
                micro = rehearsed(method, [looked_at[i]] * count, device, some)
                training.advance(micro, 1_000_000)  # the first one allocates what stays, the optimiser's state
                with peak_memory(device) as peak:
                    training.advance(micro, 1_000_000)
                found, kind = max(found, peak.bytes), peak.kind
            return Peak(found, kind, sum(steady_parts(training).values()))
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        return None
    finally:
        free_memory()


def _frames(batch: Batch) -> int:
    return batch.x1.shape[0] * batch.x1.shape[1]


def _pairs(batch: Batch) -> int:
    return batch.x1.shape[0] * batch.x1.shape[1] ** 2


_WEIGHTS: tuple[Callable[[Batch], int], ...] = (_frames, _pairs)


def _too_small(config: TrainConfig, frames: int, peak: Peak | None) -> str:
    took = "memory ran out" if peak is None else (
        f"a step takes {_gb(peak.bytes)}, of which {_gb(peak.steady)} are weights, gradients, optimiser, average and teacher"
    )  # fmt: skip
    savers: dict[str, Any] = {
        "checkpoint_activations": True, "teacher_dtype": "bf16", "ema_device": "cpu", "precision": "bf16",
    }  # fmt: skip
    left = [f"training.{k}={str(v).lower()}" for k, v in savers.items() if getattr(config, k) != v]
    return (
        f"training.memory = {_gb(config.memory or 0)} is too little: with the smallest batches, {frames} frames each, {took} "
        f"(and {round((HEADROOM - 1) * 100)} % are kept free). Give more, take a smaller network, or set {', '.join(left)}"
    )


def _gb(bytes: float) -> str:
    return f"{bytes / 1e9:.3g} GB" if bytes >= 1e8 else f"{bytes / 1e6:.3g} MB"
