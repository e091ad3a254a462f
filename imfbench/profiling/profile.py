"""Rows of a profile: every step is estimated first, and measured if the estimate fits into what memory is free."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any, get_args

import torch
from pydantic import ValidationError

from imfbench.config_file import ConfigError
from imfbench.devices import Precision, available_memory, describe, dtype_name, free_memory, out_of_memory, resolve_device
from imfbench.metrics.memory import peak_memory
from imfbench.metrics.speed import time_passes
from imfbench.profiling.fake import KIND, Estimate, NoEstimateError, estimate
from imfbench.profiling.sizes import Size
from imfbench.profiling.steps import Stage, Step, ready_step
from imfbench.registry import METHODS, nearest

STAGES: tuple[Stage, ...] = get_args(Stage)
ROOM = 1.25
"""What must be free for a step to be run, in its estimate: kernels' scratch memory and the allocator's gaps are not in that."""


@dataclass(frozen=True)
class System:
    """A method with the settings that its row is about."""

    method: str
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Such as ``intmeanflow, teacher_nfe = 4``."""
        return ", ".join([self.method, *(f"{key} = {value}" for key, value in self.config.items())])


def systems_of(methods: Iterable[str], settings: dict[str, Any] | None = None, stage: Stage = "training") -> list[System]:
    """A row for each method, in training for each of its ``variants`` that the settings leave open.

    Args:
        methods: Names of the registry.
        settings: KEY → value for every method that has the key, METHOD.KEY or {METHOD: {KEY: value}} for one.
        stage: Variants cost the same in sampling.

    Raises:
        ConfigError: A method without a step of its own, or a key or value that no method takes.
        UnknownNameError: No such method.
    """
    classes = {name: METHODS.get(name) for name in dict.fromkeys(methods)}
    for name, cls in classes.items():
        if not cls.needs.training:
            raise ConfigError(
                f"{name} trains no network, so it has no step to profile: profile the method whose grid it searches"
            )
    left = dict(settings or {})
    own = {name: dict(left.pop(name)) if isinstance(left.get(name), dict) else {} for name in classes}
    for key, value in left.items():
        takers = [name for name, cls in classes.items() if key in cls.Config.model_fields]
        if not takers:
            known = sorted({key for cls in classes.values() for key in cls.Config.model_fields})
            raise ConfigError(f"--set {key}: none of {', '.join(classes)} has this setting; {nearest(key, known)}")
        for name in takers:
            own[name].setdefault(key, value)
    found = []
    for name, cls in classes.items():
        variants = cls.variants if stage == "training" else ({},)
        for variant in variants:
            system = System(name, {**{k: v for k, v in variant.items() if k not in own[name]}, **own[name]})
            _check(system, cls)
            if system not in found:
                found.append(system)
    return found


def _check(system: System, cls: Any) -> None:
    try:
        cls.Config(**system.config)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "its settings"
        hint = nearest(where, list(cls.Config.model_fields)) if first["type"] == "extra_forbidden" else ""
        raise ConfigError(f"{system.method}: {where}: {first['msg']}. {hint}".strip()) from None


def profile_step(
    method: str, config: dict[str, Any] | None, size: Size, stage: Stage = "training", *, nfe: int = 1,
    device: str | torch.device = "auto", precision: Precision = "auto", only_estimate: bool = False, warmup: int = 1,
    repeats: int = 5,
) -> dict[str, Any]:  # fmt: skip
    """Seconds and peak memory of one step: one row of :func:`profile`, which has the arguments and keys."""
    systems = [System(method, dict(config or {}))]
    _check(systems[0], METHODS.get(method))
    options: dict[str, Any] = {"only_estimate": only_estimate, "warmup": warmup, "repeats": repeats}
    return profile(systems, [size], stage, nfe=nfe, device=device, precision=precision, **options)[0]


def profile(
    systems: Sequence[System], sizes: Iterable[Size], stage: Stage = "training", *, nfe: int = 1,
    device: str | torch.device = "auto", precision: Precision = "auto", only_estimate: bool = False, warmup: int = 1,
    repeats: int = 5, progress: Callable[[str], None] = lambda _: None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Profile systems at sizes.

    Systems of one size are timed in turns, so that a machine that slows down slows all of them: the k-th of
    ``seconds_each`` of two rows are a pair if ``paired`` is True. That holds unless they do not fit into memory together.

    Args:
        systems: Methods with settings, see :func:`systems_of`.
        sizes: Of networks and batches.
        stage: "training" or "sampling".
        nfe: Velocity evaluations of a sampling.
        device: "auto", "cpu", or torch's name of an accelerator.
        precision: Of autocast.
        only_estimate: Run nothing.
        warmup: Steps before the clock starts; the pass in which memory is measured comes before them.
        repeats: Steps that are timed.
        progress: Called with what is done next.

    Returns:
        A row for each size and system, with: ``measured``; ``seconds`` of a step (the median; of a row that is not measured
        scaled by ``flops`` from the same system's largest measured row, as ``seconds_kind`` says, or None), ``seconds_each``,
        ``paired``; ``peak_memory`` in bytes and ``peak_memory_kind`` ("cpu-live-tensors", "cuda-peak-allocated" or
        "estimate"); ``estimated_memory`` (None if the step cannot be followed) and ``flops``; ``network_calls`` of the
        method's own network; ``parameters``; ``note``: why a row is not measured; system, size and machine.

    Raises:
        ConfigError: A size that no network has, or no such device.
    """
    try:
        where = resolve_device(device) if isinstance(device, str) else device
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if stage not in STAGES:
        raise ConfigError(f"unknown stage {stage!r}: {nearest(stage, list(STAGES))}")
    for name, value, least in (("nfe", nfe, 1), ("repeats", repeats, 1), ("warmup", warmup, 0)):
        if value < least:
            raise ConfigError(f"{name} {value}: it must be at least {least}")
    sizes = list(sizes)
    for size in sizes:
        size.network()
    rows = []
    for size in sizes:
        group = [_Row(system, size, stage, nfe, where, precision) for system in systems]
        for row in group:
            progress(f"estimate {row.told}")
            row.estimate(only_estimate)
        running = [row for row in group if row.runs]
        for row in running:
            progress(f"measure {row.told}")
            row.measure_memory()
        running = [row for row in running if row.runs]
        together = sum(row.needed for row in running) <= available_memory(where)
        for some in [running] if together else [[row] for row in running]:
            progress("time " + "; ".join(row.told for row in some))
            _time(some, warmup, repeats)
        rows += [row.values for row in group]
    _scale(rows)
    return rows


class _Row:
    """One row in the making."""

    def __init__(
        self, system: System, size: Size, stage: Stage, nfe: int, device: torch.device, precision: Precision
    ) -> None:
        network = size.network()
        self.device = device
        self.told = f"{system.name}, {stage}: {size.frames} frames × {size.batch}, {size.shape}, width {network.dim}"
        self._ready = partial(ready_step, system.method, system.config, size, stage, nfe, device, precision)
        self._masks = size.masks
        self.runs = False
        self.found: Estimate | None = None
        self.values: dict[str, Any] = {
            "system": system.name,
            "method": system.method,
            "config": dict(system.config),
            "stage": stage,
            "nfe": nfe if stage == "sampling" else None,
            "shape": size.shape,
            "frames": size.frames,
            "batch": size.batch,
            "width": network.dim,
            "depth": network.depth,
            "heads": network.heads,
            "parameters": None,
            "measured": False,
            "seconds": None,
            "seconds_kind": None,
            "seconds_each": [],
            "paired": False,
            "peak_memory": None,
            "peak_memory_kind": None,
            "estimated_memory": None,
            "flops": None,
            "network_calls": None,
            "note": "",
            "dtype": dtype_name(device, precision),
            **describe(device),
        }

    @property
    def needed(self) -> float:
        """Bytes that should be free before the step is run."""
        return ROOM * self.found.peak_memory if self.found else 0.0

    def estimate(self, only: bool) -> None:
        """Estimate, and decide whether the step is run."""
        masks = self._masks()
        try:
            self.found = estimate(self._remembered(partial(self._ready, masks=masks)), self.device)
        except NoEstimateError as error:
            self.runs, self.values["note"] = not only, f"{error}"
            return
        memory, flops = self.found.peak_memory, self.found.flops
        self.values |= {"peak_memory": memory, "peak_memory_kind": KIND, "estimated_memory": memory, "flops": flops}
        free = available_memory(self.device)
        self.runs = not only and self.needed <= free
        if not only and not self.runs:
            self.values["note"] = (
                f"not run: it needs about {_gigabytes(memory)}, and a quarter more to be safe, of which {_gigabytes(free)} are free"
            )

    def _remembered(self, build: Callable[[], Step]) -> Callable[[], Step]:
        def counted() -> Step:
            step = build()
            self.values["parameters"] = sum(p.numel() for p in step.method.network.parameters())
            return step

        return counted

    def measure_memory(self) -> None:
        """Peak memory with nothing else on the device."""
        with self._guarded():
            step = self._remembered(self._ready)()
            step.prime()
            with peak_memory(self.device) as peak:
                self.values["network_calls"] = step.network_calls()
            self.values |= {"measured": True, "peak_memory": peak.bytes, "peak_memory_kind": peak.kind}

    def ready(self) -> Step:
        """The step, built anew."""
        return self._ready()

    def _guarded(self) -> _Guard:
        return _Guard(self)


class _Guard:
    """A step for which memory runs out, whatever the estimate said, is a row with an estimate and a note."""

    def __init__(self, row: _Row) -> None:
        self.row = row

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if error is None or not out_of_memory(error):
            return False
        row = self.row
        row.runs = False
        row.values |= {"measured": False, "seconds": None, "seconds_each": [], "note": "memory ran out when it was run"}
        row.values["peak_memory"] = row.values["estimated_memory"]
        row.values["peak_memory_kind"] = KIND if row.found else None
        free_memory()
        return True


def _time(rows: list[_Row], warmup: int, repeats: int) -> None:
    steps: dict[int, Step] = {}
    for number, row in enumerate(rows):
        with row._guarded():
            steps[number] = row.ready()
            time_passes(steps[number].run, warmup, 1, row.device)
    for _ in range(repeats):
        for number, row in enumerate(rows):
            if row.runs:
                with row._guarded():
                    row.values["seconds_each"] += time_passes(steps[number].run, 0, 1, row.device)
    for row in rows:
        if row.runs:
            row.values |= {"seconds": median(row.values["seconds_each"]), "seconds_kind": "measured"}
            row.values["paired"] = len(rows) > 1
    steps.clear()
    gc.collect()


def _scale(rows: list[dict[str, Any]]) -> None:
    """Seconds of rows that were not run, from the largest that was: the same rate of operations is assumed."""
    for row in rows:
        if row["measured"] or row["flops"] is None:
            continue
        known = [
            other for other in rows if other["measured"] and other["system"] == row["system"] and other["flops"]
        ]
        if known:
            largest = max(known, key=lambda other: other["flops"])
            row["seconds"] = largest["seconds"] * row["flops"] / largest["flops"]
            row["seconds_kind"] = f"scaled by operations from {largest['frames']} frames × {largest['batch']}"


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.3g} GB"


def grid_of_sizes(
    frames: Sequence[int], batches: Sequence[int], widths: Sequence[int | None], depth: int | None, shape: str
) -> Iterator[Size]:
    """Every combination, the smallest frames first."""
    for width in widths:
        for batch in batches:
            for count in frames:
                yield Size(count, batch, shape, width, depth)
