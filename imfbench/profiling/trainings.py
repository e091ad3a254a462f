"""What a training takes before anything of it is there: weights, memory by part, operations and seconds of a step.

Networks have the configured shapes and random weights, batches rows of one length; neither data nor checkpoints are read.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

import torch
from pydantic import ValidationError
from torch._subclasses.fake_tensor import unset_fake_temporarily

from imfbench.building import build_method
from imfbench.data import plain_tokens, text_tokens
from imfbench.devices import available_memory, dtype_name, free_memory, out_of_memory, synchronize
from imfbench.method import Batch, Condition, Method
from imfbench.metrics.memory import peak_memory
from imfbench.pipeline.plan import TEACHER, teacher_nfe
from imfbench.profiling.fake import KIND, NoEstimateError, estimate
from imfbench.profiling.parts import count_parameters, steady_parts
from imfbench.profiling.rows import ROOM
from imfbench.profiling.steps import Step, sampling_step, training_step
from imfbench.registry import BACKBONES, METHODS
from imfbench.train_settings import TrainConfig

ROW = 1000
"""Frames of a row of the assumed batches: 10.7 s at 24 kHz and hop 256, an utterance with its prompt."""
EFFICIENCY = 0.4
"""Share of a large matrix product's speed that a whole step is reckoned with: attention, norms and small products are slower."""
MOST_SECONDS = 20.0
"""Steps that are reckoned to take longer are not run for the sake of a plan."""


@dataclass(frozen=True)
class Sizes:
    """What is trained, by names and numbers.

    Attributes:
        method: A name of the registry.
        config: Its settings.
        backbone: Name of the network.
        shape: The network's settings.
        settings: Of the training.
        task: "token2mel" or "text2mel".
    """

    method: str
    config: dict[str, Any]
    backbone: str
    shape: dict[str, Any]
    settings: TrainConfig
    task: str = "token2mel"

    @property
    def batch(self) -> tuple[int, int]:
        """Rows and frames of each row of a batch."""
        frames = min(ROW, self.settings.frames_per_batch)
        return max(1, self.settings.frames_per_batch // frames), frames

    def build(self) -> Method:
        """The method on random weights, its teacher with it."""
        needs_teacher = METHODS.get(self.method).needs.teacher
        teacher = build_method(TEACHER, {}, None, self.backbone, self.shape) if needs_teacher else None
        return build_method(self.method, self.config, teacher, self.backbone, self.shape)


@dataclass
class Price:
    """What a step takes.

    Attributes:
        parameters: Of the network.
        trained: Of what of it is trained.
        teacher: Of the teacher, 0 if there is none.
        average: Of the moving average.
        memory: Part → bytes, see ``imfbench.profiling.parts``; empty if the step could not be followed.
        peak: Bytes in all; None likewise.
        peak_kind: "estimate", or how it was measured.
        flops: Floating point operations of a step, None if it could not be followed.
        call_flops: Of one pass of one row through the network.
        seconds: Of a step of all its batches; None if nothing is known.
        seconds_kind: "measured", or "estimate: …" with what it rests on.
        dtype: Of the matrix products.
        note: Why something is missing.
    """

    parameters: int = 0
    trained: int = 0
    teacher: int = 0
    average: int = 0
    memory: dict[str, int] = field(default_factory=dict)
    peak: int | None = None
    peak_kind: str | None = None
    flops: int | None = None
    call_flops: int | None = None
    seconds: float | None = None
    seconds_kind: str | None = None
    dtype: str = ""
    note: str = ""


def price(sizes: Sizes, device: torch.device, measure: bool = True, flops_per_second: float | None = None) -> Price:
    """What a step of a training takes.

    Args:
        sizes: Of what.
        device: Where it is to run; on fake tensors nothing is allocated there.
        measure: Run a step, if it fits into what memory is free and is not reckoned to take long.
        flops_per_second: Of a large matrix product on the machine that it is meant for; with it nothing is run. Without it this
            one's, by measurement.

    Returns:
        The price; seconds and memory each say whether they were measured.
    """
    found = Price(dtype=dtype_name(device, sizes.settings.precision))
    try:
        flops, peak = _followed(sizes, device, found)
        found.flops = flops * sizes.settings.accumulate
        _account(found, peak, KIND)
        found.call_flops = estimate(partial(_call, sizes, device), device).flops
    except NoEstimateError as error:
        found.note = str(error)
    if found.flops is not None:
        speed = flops_per_second or matrix_product_speed(device, found.dtype)
        found.seconds = found.flops / (speed * EFFICIENCY)
        told = "told" if flops_per_second else "this device's"
        rate = f"{EFFICIENCY:.0%} of {speed / 1e12:.3g} TFLOP/s ({told})"
        found.seconds_kind = f"estimate: {found.flops / 1e12:.3g} TFLOP at {rate}"
    if measure and flops_per_second is None:
        _measure(sizes, device, found)
    return found


def _followed(sizes: Sizes, device: torch.device, found: Price) -> tuple[int, int]:
    """Operations of one batch and the step's peak, on fake tensors.

    Of K teacher's steps one and two are followed (two and three where a setting forbids one), and the others reckoned to be like
    the last: each is the same passes again, and following sixteen of them takes minutes.
    """
    steps = teacher_nfe(METHODS.get(sizes.method).Config(**sizes.config).model_dump()) or 0
    some = [steps] if steps < 4 else [1, 2] if _allowed(sizes, 1) else [2, 3]
    made = []
    for k in some:
        one = replace(sizes, config={**sizes.config, "teacher_nfe": k}) if len(some) > 1 else sizes
        made.append(estimate(partial(_training, one, device, found), device))
    more, last = steps - some[-1], made[-1]
    flops, memory = last.flops - made[0].flops, max(0, last.peak_memory - made[0].peak_memory)
    return last.flops + more * flops, last.peak_memory + more * memory


def _allowed(sizes: Sizes, k: int) -> bool:
    try:
        METHODS.get(sizes.method).Config(**{**sizes.config, "teacher_nfe": k})
    except ValidationError:
        return False
    return True


def _measure(sizes: Sizes, device: torch.device, found: Price) -> None:
    free = available_memory(device)
    if found.peak is None or found.seconds is None:
        found.note = f"not run: what it needs is unknown. {found.note}"
        return
    if found.peak * ROOM > free:
        found.note = f"not run: needs about {found.peak / 1e9:.3g} GB, {free / 1e9:.3g} GB are free"
        return
    if found.seconds > MOST_SECONDS:
        found.note = f"not run: a step is reckoned to take more than {MOST_SECONDS:g} s here"
        return
    try:
        step = _training(sizes, device, found)
        step.prime()
        with peak_memory(device) as peak:
            step.prepare()
            step.run()
        times = [step.seconds(device)]
        if times[0] < MOST_SECONDS / 4:
            times = [step.seconds(device) for _ in range(3)]
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        found.note = "memory ran out when it was run"
        free_memory()
        return
    _account(found, peak.bytes, peak.kind)
    found.seconds = statistics.median(times) * sizes.settings.accumulate
    found.seconds_kind = "measured"


def _account(found: Price, peak: int, kind: str) -> None:
    found.peak, found.peak_kind = peak, kind
    found.memory["activations"] = max(0, peak - sum(v for k, v in found.memory.items() if k != "activations"))


def _masks(sizes: Sizes) -> tuple[torch.Tensor, ...]:
    """Tokens, prompt, valid and dropped."""
    rows, frames = sizes.batch
    prompt = (torch.arange(frames) < frames // 3).repeat(rows, 1)
    if sizes.task == "text2mel":
        phones = torch.ones(max(1, frames // 18), dtype=torch.int64)
        plain = getattr(BACKBONES.get(sizes.backbone), "text", None) == "plain"
        tokens = (plain_tokens if plain else text_tokens)(phones, phones.repeat(2), frames).repeat(rows, 1)
    else:
        tokens = torch.ones(rows, frames, dtype=torch.int64)
    return tokens, prompt, torch.ones(rows, frames, dtype=torch.bool), torch.zeros(rows, dtype=torch.bool)


def _batch(method: Method, sizes: Sizes, rows: int | None = None) -> Batch:
    with unset_fake_temporarily():  # the masks are real also where all else is fake: a step may depend on their values
        tokens, prompt, valid, dropped = (mask[:rows] for mask in _masks(sizes))
    config: Any = BACKBONES.get(sizes.backbone).Config(**sizes.shape)
    bands = int(getattr(method.network, "bands", getattr(config, "bands", 0)))
    x1 = torch.zeros(*tokens.shape, bands)
    dims = getattr(config, "speaker_dims", None)
    speaker = None if dims is None else torch.ones(len(tokens), dims)
    return Batch(x1, Condition(tokens, torch.zeros_like(x1), prompt, valid, dropped, speaker))


def _training(sizes: Sizes, device: torch.device, found: Price) -> Step:
    """A step of one batch, whose weights are counted on the way: they are gone when it is.

    Of several batches the second meets the gradients of the first, which are therefore there from the beginning.
    """
    method = sizes.build()
    plain = sizes.settings.model_copy(update={"processes": 1, "memory": None, "compile": False, "steps": 1})
    step, training = training_step(method, _batch(method, sizes).to(device), device, plain)
    found.parameters, found.trained = count_parameters(method.network), count_parameters(method.network, trained=True)
    found.teacher = 0 if method.teacher is None else count_parameters(method.teacher.network)
    found.average = count_parameters(training.ema)
    found.memory = steady_parts(training)
    if plain.ema_device == "cpu" and device.type != "cpu":
        found.memory["average"] = 0  # fake tensors stay where they are made
    if sizes.settings.accumulate == 1:
        return step

    def run() -> None:
        for parameter in method.network.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter)
        step.run()

    return replace(step, run=run)


def _call(sizes: Sizes, device: torch.device) -> Step:
    """One pass of one row through the network, as a sampling of one step."""
    method = build_method(TEACHER, {"guidance": 0.0}, None, sizes.backbone, sizes.shape)
    batch = _batch(method, sizes, 1).to(device)
    return sampling_step(method, batch, 1, device, sizes.settings.precision)


@cache
def matrix_product_speed(device: torch.device, dtype: str) -> float:
    """Floating point operations a second of a large matrix product, as measured once; ``dtype`` as ``dtype_name`` has it."""
    large = 8192 if device.type != "cpu" else 1024
    kind = torch.bfloat16 if dtype.startswith("bf16") else torch.float32
    a = torch.ones(large, large, dtype=kind, device=device)
    times = []
    for _ in range(4):
        synchronize(device)
        start = time.perf_counter()
        a @ a
        synchronize(device)
        times.append(time.perf_counter() - start)
    return 2 * large**3 / min(times[1:])
