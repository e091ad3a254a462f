"""Peak memory of a piece of work: allocated bytes on an accelerator, bytes of live tensors on the CPU.

The two are not the same thing and carry their kind with them. Measure memory in a pass of its own: the CPU's way
watches every operation and slows the work down.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from imfbench.devices import peak_memory_allocated, peak_memory_reset, synchronize

CPU_KIND = "cpu-live-tensors"


@dataclass
class PeakMemory:
    """What `peak_memory` found; filled in when its block ends, also when it ends in an exception.

    Attributes:
        kind: "cpu-live-tensors", or the device's name with "-peak-allocated".
        bytes: The peak.
    """

    kind: str
    bytes: int = 0


def kind_on(device: torch.device | str) -> str:
    """What a peak that is measured on a device is called (``PeakMemory.kind``)."""
    device = torch.device(device)
    return CPU_KIND if device.type == "cpu" else f"{device.type}-peak-allocated"


@contextmanager
def peak_memory(device: torch.device | str) -> Iterator[PeakMemory]:
    """Measure the peak of memory that a block of code reaches on a device.

    On an accelerator: the allocator's peak, reset before, everything that is allocated included. On the CPU: the peak
    of the summed storage sizes of all tensors that are alive *and take part*: weights and inputs count from the
    beginning, results as long as anything (autograd's saved tensors included) holds them, views not at all. Scratch
    memory inside a single kernel and the Python process itself are not in it.

    Args:
        device: The device that the block works on.

    Yields:
        The figure; read it after the block.

    Raises:
        ValueError: The accelerator keeps no count of allocated bytes.

    Example:
        with peak_memory("cpu") as peak:
            loss = method.loss(batch, state)[0]
            loss.backward()
        print(peak.bytes, peak.kind)
    """
    device = torch.device(device)
    # Garbage of earlier work must not count as this block's.
    gc.collect()
    if device.type == "cpu":
        found, mode = PeakMemory(kind_on(device)), LiveTensors()
        try:
            with mode:
                yield found
        finally:
            found.bytes = mode.peak
            mode.forget()
        return
    found = PeakMemory(kind_on(device))
    synchronize(device)
    peak_memory_reset(device)
    try:
        yield found
    finally:
        synchronize(device)
        found.bytes = peak_memory_allocated(device)


def tensors_in(*things: Any) -> Iterator[Tensor]:
    """The tensors among an operation's arguments or results, which hold nothing but lists, tuples and dictionaries of them."""
    for thing in things:
        if isinstance(thing, Tensor):
            yield thing
        elif isinstance(thing, (list, tuple)):
            yield from tensors_in(*thing)
        elif isinstance(thing, dict):
            yield from tensors_in(*thing.values())


class LiveTensors(TorchDispatchMode):
    """Watches every operation and keeps account of the storages that its tensors live in, on one type of device.

    On the CPU it is what `peak_memory` measures by. Fake tensors (torch's, with shapes but no values) count like real ones.

    Args:
        device_type: Such as "cpu"; tensors elsewhere do not count.

    Attributes:
        live: Bytes alive now.
        peak: The highest that ``live`` was. Storages older than the block are first met as an operation's input; they
            have been alive all along, so they are added to the peak as well.
    """

    def __init__(self, device_type: str = "cpu") -> None:
        super().__init__()
        self.device_type = device_type
        self.live = 0
        self.peak = 0
        self._sizes: dict[int, int] = {}
        self._references: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation; count its inputs before and its results after it."""
        kwargs = kwargs or {}
        for tensor in tensors_in(args, kwargs):
            self._count(tensor, older=True)
        result = func(*args, **kwargs)
        # Inputs again: an operation may have grown one in place (resize_).
        for tensor in tensors_in(args, kwargs, result):
            self._count(tensor, older=False)
        return result

    def forget(self) -> None:
        """Let go of all storages; the account stays as it is."""
        self._references.clear()
        self._sizes.clear()

    def _count(self, tensor: Tensor, older: bool) -> None:
        if tensor.layout is not torch.strided or tensor.device.type != self.device_type:
            return
        # The storage, not the tensor: views share it, and it lives until the last of them is gone.
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        known = self._sizes.get(key)
        if known is None:
            self._references[key] = weakref.ref(storage, partial(self._gone, key))
        if size == known:
            return
        self._sizes[key] = size
        self.live += size - (known or 0)
        if known is None and older:
            self.peak += size
        self.peak = max(self.peak, self.live)

    def _gone(self, key: int, _: weakref.ref[torch.UntypedStorage]) -> None:
        self._references.pop(key, None)
        self.live -= self._sizes.pop(key, 0)
