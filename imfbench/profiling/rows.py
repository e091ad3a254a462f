"""Rows of a profile: every step is estimated first, and measured if the estimate fits into what memory is free."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any, Literal, get_args

import torch
from pydantic import ValidationError

from imfbench.config_file import ConfigError
from imfbench.devices import (
    Precision,
    available_memory,
    describe,
    dtype_name,
    free_memory,
    out_of_memory,
    resolve_device,
)
from imfbench.metrics.memory import peak_memory
from imfbench.pipeline.plan import TEACHER
from imfbench.profiling.fake import KIND, Estimate, NoEstimateError, estimate
from imfbench.profiling.sizes import Size
from imfbench.profiling.steps import Stage, Step, ready_step
from imfbench.registry import METHODS, nearest

STAGES: tuple[Stage, ...] = get_args(Stage)
Estimates = Literal["first", "only", "none"]
ROOM = 1.25
"""What must be free for a step to be run, in its estimate: kernels' scratch memory and the allocator's gaps are not in that."""
UNKNOWN = 8.0
"""What must be free for a step that has no estimate, in that of a flow-matching step of the same size: MeanFlow in one pass, the
dearest step that ships, takes about three of them."""


@dataclass(frozen=True)
class System:
    """A method with the settings that its row is about."""

    method: str
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Such as ``intmeanflow, teacher_nfe = 4``."""
        return ", ".join([self.method, *(f"{key} = {value}" for key, value in self.config.items())])


def systems_of(
    methods: Iterable[str], settings: dict[str, Any] | None = None, stage: Stage = "training"
) -> list[System]:
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
    device: str | torch.device = "auto", precision: Precision = "auto", estimates: Estimates = "first", warmup: int = 1,
    repeats: int = 5,
) -> dict[str, Any]:  # fmt: skip
    """Seconds and peak memory of one step: one row of :func:`profile`, which has the arguments and keys."""
    systems = [System(method, dict(config or {}))]
    _check(systems[0], METHODS.get(method))
    options: dict[str, Any] = {"estimates": estimates, "warmup": warmup, "repeats": repeats}
    return profile(systems, [size], stage, nfe=nfe, device=device, precision=precision, **options)[0]


def profile(
    systems: Sequence[System], sizes: Iterable[Size], stage: Stage = "training", *, nfe: int = 1,
    device: str | torch.device = "auto", precision: Precision = "auto", estimates: Estimates = "first", warmup: int = 1,
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
        estimates: "first": what the estimate says is too large for the memory that is free is not run. "only": nothing is
            run. "none": all is run, which saves the estimate's seconds where everything is known to fit.
        warmup: Steps before the clock starts; the pass in which memory is measured comes before them.
        repeats: Steps that are timed.
        progress: Called with what is done next.

    Returns:
        A row for each size and system, with: ``measured``; ``seconds`` of a step with its share of batches that are made before
        the training (the median; of a row that is not measured scaled by ``flops`` from the same system's largest measured row,
        as ``seconds_kind`` says, or None), ``seconds_each``, ``paired``; ``peak_memory`` in bytes and
        ``peak_memory_kind`` ("cpu-live-tensors", "…-peak-allocated" or "estimate"); ``estimated_memory`` (None if the step
        cannot be followed) and ``flops``; ``network_calls`` of the method's own network; ``parameters``; ``note``: why a row is
        not measured; system, size and machine.

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
            if estimates != "none":
                progress(f"estimate: {row.told}")
                row.estimate()
            if estimates != "only":
                row.decide()
            if row.runs:
                progress(f"memory: {row.told}")
                row.measure_memory()
        running = [row for row in group if row.runs]
        together = sum(row.needed for row in running) <= available_memory(where)
        for some in [running] if together else [[row] for row in running]:
            progress(f"seconds: {len(some)} in turns, {size.frames} frames × {size.batch}")
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
        self._plain = partial(ready_step, TEACHER, {}, size, stage, nfe, device, precision)
        self._masks = size.masks
        self.like = 0.0
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
        """Bytes that should be free before the step is run; 0 if nothing was estimated, as "none" asks for."""
        return ROOM * self.found.peak_memory if self.found else UNKNOWN * self.like

    def estimate(self) -> None:
        """Follow the step on fake tensors."""
        masks = self._masks()
        try:
            self.found = estimate(lambda: self._ready(masks=masks), self.device)
        except NoEstimateError as error:
            self.values["note"] = str(error)
            self.like = self._like(masks)
            return
        memory = self.found.peak_memory
        self.values |= {"peak_memory": memory, "peak_memory_kind": KIND, "estimated_memory": memory}
        self.values |= {"flops": self.found.flops, "parameters": self.found.parameters}

    def decide(self) -> None:
        """Whether there is memory to run the step."""
        free = available_memory(self.device)
        self.runs = self.needed <= free
        if self.runs:
            return
        told = f"{free / 1e9:.3g} GB are free"
        if self.found:
            self.values["note"] = f"not run: needs about {self.found.peak_memory / 1e9:.3g} GB, {told}"
        elif math.isinf(self.like):
            self.values["note"] += "; not run: what it needs is unknown"
        else:
            self.values["note"] += (
                f"; not run: what it needs is unknown, and of {UNKNOWN:g} times a flow-matching step's "
                f"{self.like / 1e9:.3g} GB only {told}"
            )

    def _like(self, masks: tuple[torch.Tensor, ...]) -> float:
        """Bytes of a flow-matching step of the size, in place of an estimate; infinite if that cannot be followed either."""
        try:
            return estimate(lambda: self._plain(masks=masks), self.device).peak_memory
        except NoEstimateError:
            return math.inf

    def measure_memory(self) -> None:
        """Peak memory with no other step on the device."""
        with self.guarded():
            step = self.ready()
            step.prime()
            with peak_memory(self.device) as peak:
                step.prepare()
                self.values["network_calls"] = step.network_calls()
            self.values |= {"measured": True, "peak_memory": peak.bytes, "peak_memory_kind": peak.kind}
            self.values["parameters"] = step.parameters

    def ready(self) -> Step:
        """The step, built anew."""
        return self._ready()

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """If memory runs out, whatever the estimate said, the row keeps its estimate and gets a note."""
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
        else:
            return
        self.runs = False
        self.values |= {"measured": False, "seconds_each": [], "note": "memory ran out when it was run"}
        self.values |= {
            "peak_memory": self.values["estimated_memory"],
            "peak_memory_kind": KIND if self.found else None,
        }
        free_memory()


def _time(rows: list[_Row], warmup: int, repeats: int) -> None:
    steps: dict[int, Step] = {}
    for number, row in enumerate(rows):
        with row.guarded():
            steps[number] = row.ready()
            for _ in range(warmup):
                steps[number].run()
    for _ in range(repeats):
        for number, row in enumerate(rows):
            if row.runs:
                with row.guarded():
                    row.values["seconds_each"].append(steps[number].seconds(row.device))
    for row in rows:
        if row.runs:
            row.values |= {"seconds": median(row.values["seconds_each"]), "seconds_kind": "measured"}
            row.values["paired"] = len(rows) > 1


def _scale(rows: list[dict[str, Any]]) -> None:
    """Seconds of rows that were not run, from the largest that was: the same rate of operations is assumed."""
    for row in rows:
        if row["measured"] or row["flops"] is None:
            continue
        known = [other for other in rows if other["measured"] and other["system"] == row["system"] and other["flops"]]
        if known:
            largest = max(known, key=lambda other: other["flops"])
            row["seconds"] = largest["seconds"] * row["flops"] / largest["flops"]
            row["seconds_kind"] = f"scaled by operations from {largest['frames']} frames × {largest['batch']}"


def grid_of_sizes(
    frames: Sequence[int], batches: Sequence[int], widths: Sequence[int | None], depth: int | None, shape: str
) -> Iterator[Size]:
    """Every combination, the smallest frames first."""
    for width in widths:
        for batch in batches:
            for count in frames:
                yield Size(count, batch, shape, width, depth)
