"""Real-time factor: wall seconds over generated seconds, batch 1, after warm-up, with the device synchronised.

The network alone, the vocoder alone and both are timed apart, since published figures mean any of the three. Where the
clock is read, the device has finished: an accelerator that is still working would make everything look fast.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import torch

from imfbench.devices import synchronize

Clock = Callable[[], float]

CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "processor": time.process_time}
"""Clocks by name. A figure of speed is wall time; a ratio on a busy CPU is steadier by the time the processor worked on it."""
SCOPES = ("network", "vocoder", "total")
TIMING = 2
"""How an utterance is timed: since 2, on a CPU, with the kernels for its length made before. Rows that name none are of 1."""


@dataclass(frozen=True)
class RealTimeFactor:
    """Wall time over generated time.

    Attributes:
        aggregate: All wall seconds over all generated seconds; the figure to quote.
        median: Over utterances.
        p95: Over utterances; linear between ranks.
        n: Utterances.
    """

    aggregate: float
    median: float
    p95: float
    n: int


def time_passes(
    function: Callable[[], Any],
    warmup: int = 2,
    repeats: int = 5,
    device: torch.device | str = "cpu",
    clock: Clock = time.perf_counter,
) -> list[float]:
    """Wall seconds of each of ``repeats`` passes, after ``warmup`` passes that are not timed.

    Args:
        function: The work; a training step may be timed as well as a sampling pass.
        warmup: Passes before the clock starts (allocator, kernel choice, caches).
        repeats: Passes that are timed, one by one.
        device: What the work runs on; it is synchronised before the clock is read.
        clock: Seconds, monotonic.

    Raises:
        ValueError: No pass would be timed.
    """
    if repeats < 1 or warmup < 0:
        raise ValueError(f"nothing to time with warmup={warmup} and repeats={repeats}; give at least one repeat")
    device = torch.device(device)
    for _ in range(warmup):
        function()
    return [_timed(function, device, clock)[0] for _ in range(repeats)]


def keep_freed_memory() -> bool:
    """Have the C library keep what this process frees, so that no pass pays for the pages which the one before gave back.

    glibc returns the top of its heap to the system as it sees fit; a pass that allocates it again then takes thousands of
    page faults (some 4,000 of them are 5 ms of a network's 90 on a virtual machine), and the next none. Which of two works
    that are compared takes more of them is chance, and can be more than what lies between the two.

    Returns:
        Whether it could be done: False where the C library is not glibc.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):
        return False
    # From malloc.h: M_MMAP_THRESHOLD at the most that it takes, M_TOP_PAD, M_TRIM_THRESHOLD.
    return all(bool(set_option(option, value)) for option, value in ((-3, 32 << 20), (-2, 64 << 20), (-1, 2**31 - 1)))


@dataclass(frozen=True)
class PairedRatio:
    """How much longer one piece of work takes than another, over pairs timed in turns.

    Attributes:
        ratio: Median of the pairs' ratios.
        low: Their lower quartile.
        high: Their upper quartile.
        seconds: Median of the first work.
        difference: Median of the pairs' differences, in seconds.
        n: Pairs.
    """

    ratio: float
    low: float
    high: float
    seconds: float
    difference: float
    n: int


def paired_ratio(
    first: Callable[[], Any],
    second: Callable[[], Any],
    repeats: int = 9,
    device: torch.device | str = "cpu",
    clock: Clock = time.perf_counter,
) -> PairedRatio:
    """Time two pieces of work in turns, so that a machine that slows down slows both; no warm-up.

    Args:
        first: Whose time is divided.
        second: By whose time; it comes first in every other pair.
        repeats: Pairs.
        device: See :func:`time_passes`.
        clock: Seconds. ``time.process_time`` leaves out the time in which other programs had the processor; it adds up threads.
    """
    device = torch.device(device)
    pairs = []
    for number in range(repeats):
        if number % 2:
            b = _timed(second, device, clock)[0]
            a = _timed(first, device, clock)[0]
        else:
            a = _timed(first, device, clock)[0]
            b = _timed(second, device, clock)[0]
        pairs.append((a, b))
    low, ratio, high = np.quantile([a / b for a, b in pairs], [0.25, 0.5, 0.75]).tolist()
    return PairedRatio(ratio, low, high, median(a for a, _ in pairs), median(a - b for a, b in pairs), repeats)


def real_time_factor(wall_seconds: Sequence[float], generated_seconds: Sequence[float]) -> RealTimeFactor:
    """RTF from an utterance's wall seconds and generated seconds, both (utterances,).

    Raises:
        ValueError: The lengths differ or are zero, or an utterance has no generated length.
    """
    wall, generated = np.asarray(wall_seconds, dtype=float), np.asarray(generated_seconds, dtype=float)
    if wall.shape != generated.shape or wall.ndim != 1 or not len(wall):
        raise ValueError(f"wall and generated seconds are not one pair an utterance: {wall.shape}, {generated.shape}")
    if not (generated > 0).all():
        raise ValueError("an utterance has no generated length; leave it out, and count it")
    each = wall / generated
    return RealTimeFactor(
        float(wall.sum() / generated.sum()), float(np.median(each)), float(np.quantile(each, 0.95)), len(each)
    )


def rtf_columns(frame: pd.DataFrame) -> dict[str, float]:
    """The columns of a summary from rows of utterances.

    Args:
        frame: Columns network_seconds, vocoder_seconds and total_seconds, of wall time, and generated_seconds.

    Returns:
        rtf_network, rtf_network_median, rtf_network_p95, the same for vocoder and total, and rtf_n. A scope that was
        not timed is left out.
    """
    columns: dict[str, float] = {}
    for scope in SCOPES:
        if frame[f"{scope}_seconds"].isna().any():
            continue
        found = real_time_factor(frame[f"{scope}_seconds"].to_list(), frame["generated_seconds"].to_list())
        columns[f"rtf_{scope}"] = found.aggregate
        columns[f"rtf_{scope}_median"] = found.median
        columns[f"rtf_{scope}_p95"] = found.p95
    return {**columns, "rtf_n": len(frame)}


def speed_of_rows(made: pd.DataFrame, network: bool = True) -> tuple[dict[str, Any], pd.DataFrame]:
    """The columns of speed of a cell from its utterances, if all of them were timed under the same conditions.

    Args:
        made: Rows of ``utterances.parquet`` of utterances that were made; those without ``vocoder_seconds`` were not timed.
        network: Whether a network took part; otherwise the total is the vocoder's.

    Returns:
        device, hardware, threads, workers, batch and what ``rtf_columns`` gives, empty unless there is one condition; and the
        conditions (device, threads, workers, hardware, timing), a row each.
    """
    timed = made.dropna(subset=["vocoder_seconds"])
    # Rows from before workers were known of are of one process.
    beside = timed["workers"].fillna(1).astype(int) if "workers" in timed else 1
    # Nor did they name their machine: such rows are of one that is not known, and may not be of the others'.
    machine = timed["hardware"].fillna("") if "hardware" in timed else ""
    rule = timed["timing"].fillna(1).astype(int) if "timing" in timed else 1
    about = timed[["device", "threads"]].assign(workers=beside, hardware=machine, timing=rule)
    conditions = about.dropna().drop_duplicates()
    if len(conditions) != 1:
        return {}, conditions
    found: dict[str, Any] = {"device": conditions["device"].iloc[0], "batch": 1}
    found |= {name: int(conditions[name].iloc[0]) for name in ("threads", "workers")}
    found |= {"hardware": conditions["hardware"].iloc[0]} if conditions["hardware"].iloc[0] else {}
    own, vocoder = timed["network_seconds"].astype(float), timed["vocoder_seconds"].astype(float)
    seconds = {
        "network_seconds": own,
        "vocoder_seconds": vocoder,
        "total_seconds": own + vocoder if network else vocoder,
    }
    found |= rtf_columns(pd.DataFrame({**seconds, "generated_seconds": timed["seconds"].astype(float)}))
    return found, conditions


def _timed(function: Callable[[], Any], device: torch.device, clock: Clock) -> tuple[float, Any]:
    synchronize(device)
    start = clock()
    result = function()
    synchronize(device)
    return clock() - start, result
