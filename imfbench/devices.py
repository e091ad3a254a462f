"""The one module that names accelerators: choice of device, precision, clocks and memory of a device."""

from __future__ import annotations

import contextlib
import gc
import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import psutil
import torch

Precision = Literal["auto", "bf16", "fp32"]


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_threads() -> int:
    """Threads that a process alone should use: the first number of ``OMP_NUM_THREADS`` where it is set, as torch has it, else a
    thread for each core."""
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(asked) if asked.isdecimal() and int(asked) else available_cores()


def resolve_device(name: str = "auto") -> torch.device:
    """The device called ``name``; "auto" takes an accelerator where there is one.

    Raises:
        ValueError: The device was asked for and is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(
            f"unknown device {name!r}: use --device auto, cpu or cuda, or torch's name of another"
        ) from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("device 'cuda' was asked for, but torch finds no such GPU; use --device cpu or auto")
    if device.type == "cpu":
        return device
    there = torch.accelerator.current_accelerator(check_available=True)
    if there is None or there.type != device.type:
        raise ValueError(
            f"device {name!r} was asked for, but torch finds {f'only {there.type!r}' if there else 'no accelerator'} on this "
            "machine; use --device cpu or auto"
        )
    count = torch.accelerator.device_count()
    if (device.index or 0) >= count:
        raise ValueError(
            f"device {name!r} was asked for, but there {'is' if count == 1 else 'are'} {count}, from {there.type}:0"
        )
    return device


def device_of_process(device: torch.device, number: int) -> torch.device:
    """The device that a process of a training takes: the accelerator of its number, which is made the current one; or the CPU.

    Raises:
        ValueError: There are fewer accelerators.
    """
    if device.type == "cpu":
        return device
    there = torch.accelerator.device_count()
    if number >= there:
        raise ValueError(
            f"{number + 1} processes were asked for, and there are {there} accelerators: set training.processes={there}"
        )
    return made_current(torch.device(device.type, number))


def made_current(device: torch.device) -> torch.device:
    """The device, made the current one where it is an accelerator with a number: others know its kind alone and take that one."""
    if device.type != "cpu" and device.index is not None:
        torch.accelerator.set_device_index(device.index)
    return device


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that was asked of it, so that a clock around it tells the truth."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory_reset(device: torch.device) -> None:
    """Forget the device's peak of allocated bytes."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif device.type != "cpu":
        with contextlib.suppress(RuntimeError):  # one without such a count says so when it is read
            torch.accelerator.reset_peak_memory_stats(device)


def peak_memory_allocated(device: torch.device) -> int:
    """Peak of allocated bytes since the reset; accelerators only (see ``imfbench.metrics.memory`` for the CPU)."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        return int(torch.accelerator.max_memory_allocated(device))
    except RuntimeError as error:
        raise ValueError(f"{device} keeps no count of allocated bytes") from error


def available_memory(device: torch.device) -> int:
    """Bytes that can be had now: free on the accelerator; on a CPU free on the machine, or less in a container with a limit."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    found = int(psutil.virtual_memory().available)
    for root, limit, used in (
        ("/sys/fs/cgroup", "memory.max", "memory.current"),
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):  # no such limit ("max"), or another kind of machine
            folder = Path(root)
            left = int((folder / limit).read_text()) - int((folder / used).read_text())
            lines = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
            cached = {name: int(value) for name, value in lines}.get("inactive_file", 0)
            found = min(found, left + cached)
    return max(0, found)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: Python's and numpy's, torch's on any device, ONNX Runtime's, CTranslate2's."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    words = ("out of memory", "can't allocate memory", "failed to allocate memory", "alloc_failed", "bad_alloc")
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)


def free_memory() -> None:
    """Give back what Python and the accelerator's allocator keep for later, after memory ran out."""
    gc.collect()
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()


def _cpu_flags() -> set[str]:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("flags"):
                return set(line.split(":", 1)[1].split())
    except OSError:
        pass
    return set()


def has_amx() -> bool:
    """Whether the processor multiplies matrices of bf16 in tiles, which convolutions gain from too."""
    return "amx_bf16" in _cpu_flags()


def has_fused_optimizers(device: torch.device) -> bool:
    """Whether torch updates all weights of an optimiser in one kernel there."""
    return device.type in ("cpu", "cuda")


def fast_bf16(device: torch.device) -> bool:
    """Whether bf16 matrix products are faster than fp32 on the device (AMX or AVX512-BF16 on a CPU)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return bool({"amx_bf16", "avx512_bf16"} & _cpu_flags())


def autocast(device: torch.device, precision: Precision = "auto") -> contextlib.AbstractContextManager[Any]:
    """bf16 autocast where it is wanted, or with "auto" where it is fast; otherwise fp32.

    Without its cache of cast weights: torch 2.9 takes weights that were cast in a pass without gradient for the pass with
    gradient that follows (pytorch #112583), and methods here are full of such pairs.
    """
    if precision == "bf16" or (precision == "auto" and fast_bf16(device)):
        return torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=False)
    return contextlib.nullcontext()


def dtype_name(device: torch.device, precision: Precision = "auto") -> str:
    """The words "bf16-autocast" or "fp32": what ``autocast`` will use, for the tables."""
    used = precision == "bf16" or (precision == "auto" and fast_bf16(device))
    return "bf16-autocast" if used else "fp32"


def describe(device: torch.device) -> dict[str, Any]:
    """Hardware of a run, for manifests and tables."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    found: dict[str, Any] = {
        "device": device.type,
        "cpu": name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "bf16": fast_bf16(device),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {"gpu": properties.name, "gpu_memory": properties.total_memory, "cuda": torch.version.cuda}
    return found


def machine_name(hardware: Mapping[str, Any], device: Any) -> str | None:
    """The model of a device, as ``describe`` has it; None if that is of another kind of device, or tells none."""
    if not device or hardware.get("device") != str(device).partition(":")[0]:
        return None
    if hardware.get("gpu"):
        return str(hardware["gpu"])
    cores = f", {hardware['cores']} cores" if hardware.get("cores") else ""
    return f"{hardware['cpu']}{cores}" if hardware.get("cpu") else None


_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def memory_told(error: BaseException) -> tuple[int | None, int | None]:
    """What an allocator says when memory runs out, in bytes: what it was asked for, and what was allocated already.

    None for what it does not say: that of the CPU does not count what is allocated.
    """
    size = rf"([\d.]+) ({'|'.join(_UNITS)})"
    words = (rf"[Tt]ried to allocate {size}", rf"[Oo]f the allocated memory {size} is allocated by PyTorch")
    found = [re.search(pattern, str(error)) for pattern in words]
    asked, allocated = (None if match is None else round(float(match[1]) * _UNITS[match[2]]) for match in found)
    return asked, allocated


def memory_words(error: BaseException) -> str:
    """The same for people; empty where the allocator says nothing."""
    asked, allocated = memory_told(error)
    if asked is None:
        return ""
    if allocated is None:
        return f"{asked / 1e9:.3g} GB more were asked for"
    return f"{(allocated + asked) / 1e9:.3g} GB were needed, of which {allocated / 1e9:.3g} GB were there"
