"""A step that is not run: peak memory and floating point operations on tensors that have shapes but no values.

The very code of the step runs on torch's fake tensors (``torch._subclasses.fake_tensor``), forward, JVP, backward, optimiser
and all; the account of live tensors is that of :mod:`imfbench.metrics.memory`. Operations are counted by the formulas of
``torch.utils.flop_counter`` (matrix products, convolutions, attention; a product and a sum are two).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    UnsupportedFakeTensorException,
    UnsupportedOperatorException,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from imfbench.metrics.memory import LiveTensors, tensors_in
from imfbench.profiling.steps import Step

KIND = "estimate"
SMALL = 2**16
"""Elements up to which a newly made tensor is real: draws of times, on whose values a step may depend."""

aten = torch.ops.aten
_FLOPS = {
    **flop_registry,
    aten._scaled_dot_product_flash_attention_for_cpu: flop_registry[aten._scaled_dot_product_flash_attention],
    aten._scaled_dot_product_flash_attention_for_cpu_backward: flop_registry[
        aten._scaled_dot_product_flash_attention_backward
    ],
}
SPREAD = 16
"""What real tensors make that is so many times larger than each of them is made fake: masks of pairs, of masks of frames."""
_INDEXING = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)


class NoEstimateError(RuntimeError):
    """A step whose shapes depend on values that fake tensors do not have."""


@dataclass(frozen=True)
class Estimate:
    """What a step would take.

    Attributes:
        peak_memory: Peak of the bytes of live tensors; scratch memory of kernels and what an allocator keeps are not in it.
        flops: Floating point operations of one step, with its share of batches that are made before the training.
        parameters: Of the method's own network.
    """

    peak_memory: int
    flops: int
    parameters: int


def estimate(build: Callable[[], Step], device: torch.device) -> Estimate:
    """Estimate a step without allocating it.

    Args:
        build: Makes the step; whatever it makes (weights, mels) is fake. What was made before, such as masks, is real.
        device: Where it would run.

    Raises:
        NoEstimateError: The step cannot be followed without values.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    watch, live = _Watch(mode), LiveTensors(device.type)
    try:
        with warnings.catch_warnings(), _staying():
            warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")  # torch's own deepcopy does
            with mode, device:
                step = build()
            # The mode is off now: fake tensors carry it with them, and small draws from generators stay real.
            with watch:
                step.prime()
            watch.flops = 0
            with watch, live:
                step.prepare()
            made, watch.flops = watch.flops * step.share, 0
            with watch, live:
                step.run()
    except (
        DataDependentOutputException, DynamicOutputShapeException, UnsupportedFakeTensorException,
        UnsupportedOperatorException,
    ) as error:  # fmt: skip
        raise NoEstimateError(f"fake tensors cannot follow this step ({type(error).__name__}: {error})") from error
    finally:
        live.forget()
    return Estimate(live.peak, watch.flops + round(made), step.parameters)


@contextmanager
def _staying() -> Iterator[None]:
    """Modules stay where they are made, on the device: torch cannot move one whose weights are fake."""
    move = nn.Module.to
    nn.Module.to = lambda module, *_, **__: module  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        nn.Module.to = move  # type: ignore[method-assign]


class _Watch(TorchDispatchMode):
    """Makes large new tensors fake, answers 1 where a value is asked of a fake one, and counts operations.

    Values are asked for logs, for gradient norms and for counts; none of these changes what a step allocates.
    """

    def __init__(self, mode: FakeTensorMode) -> None:
        super().__init__()
        self.mode = mode
        self.flops = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is aten._local_scalar_dense.default and isinstance(args[0], FakeTensor):
            return torch.ones((), dtype=args[0].dtype).item()
        if func in _INDEXING and isinstance(args[0], FakeTensor):
            args = (args[0], _by_number(args[1]), *args[2:])
        if next(tensors_in(args, kwargs), None) is None:
            with self.mode:  # a generator of real numbers has nothing to draw here
                made = func(*args, **{name: None if name == "generator" else value for name, value in kwargs.items()})
            if isinstance(made, Tensor) and made.numel() > SMALL:
                return made
        result = func(*args, **kwargs)
        if formula := _FLOPS.get(func._overloadpacket):
            self.flops += formula(*args, **kwargs, out_val=result)
        if isinstance(result, Tensor) and not isinstance(result, FakeTensor) and _spread((args, kwargs), result):
            with self.mode:
                return torch.empty_strided(result.shape, result.stride(), dtype=result.dtype, device=result.device)
        return result


def _spread(given: Any, result: Tensor) -> bool:
    """Whether a real result's storage is large and far larger than those that it is made of; a view's is one of theirs."""
    if result.layout is not torch.strided or result.untyped_storage().nbytes() <= SMALL:
        return False
    largest = max((t.untyped_storage().nbytes() for t in tensors_in(*given)), default=0)
    return result.untyped_storage().nbytes() > SPREAD * largest


def _by_number(indices: Any) -> list[Tensor | None]:
    """Masks whose values are known as the numbers of their rows: a fake tensor cannot tell how many those are."""
    found: list[Tensor | None] = []
    for index in indices:
        known = isinstance(index, Tensor) and not isinstance(index, FakeTensor)
        if known and index.dtype in (torch.bool, torch.uint8):
            found += index.nonzero(as_tuple=True)
        else:
            found.append(index)
    return found
