"""Several processes of one training on one machine: started, told of each other, and ended together.

Within them PyTorch's process group is there before Accelerate looks for it, which then wraps networks in DDP. Outside of any
group, which is the usual case, every function here answers as for a group of one.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, distributed

from imfbench import interruption
from imfbench.config_file import ConfigError
from imfbench.devices import device_of_process, out_of_memory

Tell = Callable[[Any], None]
Task = Callable[[Tell], Any]
"""What every process does: picklable. ``tell`` sends a small thing to the process that started them, from the first one alone."""

STOP_SECONDS = 60.0
"""Processes that were asked to stop end their step and save it first."""
LAST_WORDS = 3.0
"""After one has ended badly: until then the others, which miss it, are heard, for the first to complain need not be at fault."""

log = logging.getLogger("imfbench")


class ProcessEnded(RuntimeError):
    """A process of a training ended without a word; the message says which and how."""


def refuse_launchers() -> None:
    """Refuse to be started by ``torchrun`` or ``accelerate launch``: each of their processes would run the whole experiment.

    Raises:
        ConfigError: The environment says that it was.
    """
    if (given := os.environ.get("WORLD_SIZE", "1")) != "1":
        raise ConfigError(
            f"this is one of {given} processes of a launcher (WORLD_SIZE is set): imfbench starts the processes of a training by "
            f"itself. Run the plain command with --set training.processes={given} --set training.accumulate={given}"
        )


def count() -> int:
    """Processes of this training."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def index() -> int:
    """Which of them this is; 0 writes."""
    return distributed.get_rank() if count() > 1 else 0


def meet() -> None:
    """Wait until all are here."""
    if count() > 1:
        distributed.barrier()


def summed(values: Sequence[float], device: torch.device) -> list[float]:
    """Each value's sum over all processes; double precision where the device has it."""
    if count() == 1:
        return list(values)
    total: Tensor = torch.tensor(values, dtype=torch.float64, device=device)
    distributed.all_reduce(total)
    return [float(value) for value in total.tolist()]


def anywhere(here: bool, device: torch.device) -> bool:
    """Whether something is so in any process: all get the same answer, so that all go on or none does."""
    return summed([float(here)], device)[0] > 0


@dataclass
class _Member:
    process: BaseProcess
    connection: Connection
    outcome: Any = None
    error: BaseException | None = None
    ended: bool = False


def together(
    task: Task, processes: int, device: torch.device, told: Callable[[Any], None] = lambda _: None,
    stop: Callable[[], None] = interruption.check, plugins: Sequence[Path] = (),
) -> Any:  # fmt: skip
    """Do a task in so many new processes of one group: gloo on a CPU, the device's own way (NCCL) on accelerators.

    Args:
        task: What each of them does.
        processes: How many.
        device: Of which kind; each takes one accelerator of its own.
        told: Called here with what the first process tells.
        stop: Called again and again; by raising ``KeyboardInterrupt`` it asks them to stop.
        plugins: Files that each imports first.

    Returns:
        What the first process returns.

    Raises:
        ProcessEnded: One was killed, or ended without a word; the others have been ended.
        Exception: What one of them raised.
    """
    context = multiprocessing.get_context(
        "spawn"
    )  # not fork: a copy of a process with threads may stand still for ever
    with tempfile.TemporaryDirectory(prefix="imfbench-") as folder:
        members: list[_Member] = []
        try:
            for number in range(processes):
                here, there = context.Pipe()
                place = number, processes, f"file://{folder}/group", device.type
                process = context.Process(
                    target=_serve, args=(there, pickle.dumps(task), place, tuple(plugins)), daemon=True
                )
                process.start()
                there.close()
                members.append(_Member(process, here))
            return _attend(members, told, stop)
        finally:
            _end(members)


def _attend(members: list[_Member], told: Callable[[Any], None], stop: Callable[[], None]) -> Any:
    deadline, interrupted = float("inf"), False
    while any(not member.ended for member in members) and time.monotonic() < deadline:
        for ready in wait([m.connection for m in members if not m.ended], timeout=0.5):
            _hear(next(m for m in members if m.connection is ready), told)
        if deadline == float("inf") and any(member.error for member in members):
            deadline = time.monotonic() + LAST_WORDS
        if not interrupted:
            try:
                stop()
            except KeyboardInterrupt:
                interrupted, deadline = True, time.monotonic() + STOP_SECONDS
                for member in members:
                    member.process.terminate()
    if interrupted:
        raise KeyboardInterrupt
    if found := _fault(members):
        raise found
    return members[0].outcome


def _hear(member: _Member, told: Callable[[Any], None]) -> None:
    kind: Literal["told", "done", "failed"]
    try:
        kind, what = member.connection.recv()
    except (EOFError, OSError):
        member.ended, member.error = True, ProcessEnded(_how_it_ended(member.process))
        return
    if kind == "told":
        told(what)
        return
    member.ended = True
    if kind == "done":
        member.outcome = what
    else:
        member.error = what


def _fault(members: list[_Member]) -> BaseException | None:
    """Of several errors the one that the others follow from: a process that was killed, memory that ran out, else the first."""
    found = [(number, member.error) for number, member in enumerate(members) if member.error is not None]
    for number, error in found:
        if isinstance(error, ProcessEnded):
            return ProcessEnded(f"process {number + 1} of {len(members)} {error}")
    for _, error in found:
        if out_of_memory(error):
            return error
    return found[0][1] if found else None


def _how_it_ended(process: BaseProcess) -> str:
    process.join(LAST_WORDS)
    code = process.exitcode
    if code is None or code >= 0:
        return f"ended without a word (exit code {code})"
    told = signal.Signals(-code).name
    if -code == signal.SIGKILL:
        told += ", which is also what the system does when the machine's memory runs out"
    return f"was ended by {told}"


def _end(members: list[_Member]) -> None:
    for member in members:
        if not member.ended and member.process.is_alive():
            member.process.kill()  # it waits for one that is gone, in a call that hears no other signal
        member.connection.close()
    for member in members:
        member.process.join(STOP_SECONDS)
        if member.process.is_alive():
            member.process.kill()
            member.process.join()


def _serve(connection: Connection, task: bytes, place: tuple[int, int, str, str], plugins: tuple[Path, ...]) -> None:
    number, processes, meeting, kind = place
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)  # the terminal's Ctrl-C is for the process that started this one, which tells all
    interruption.listen()
    from imfbench.plugins import load_file, told_elsewhere
    from imfbench.progress import Reporting

    Reporting(terminal=False).set_up_logging()
    if number:
        log.setLevel(logging.ERROR)  # what the first one logs need not be read again
    told_elsewhere()
    try:
        interruption.when_parent_ends(lambda: os.kill(os.getpid(), signal.SIGKILL))
        for file in plugins:
            load_file(file)
        _join(number, processes, meeting, kind)
        work: Task = pickle.loads(task)
        outcome = work(lambda what: None if number else connection.send(("told", what)))
        meet()  # none may leave while another still asks it for something
        connection.send(("done", outcome))
    except KeyboardInterrupt:
        connection.send(
            ("failed", ProcessEnded("was stopped by a signal"))
        )  # if this is news to the one that started it
    except Exception as error:
        log.debug("where process %d failed", number + 1, exc_info=error)
        with contextlib.suppress(OSError):
            connection.send(("failed", _portable(error)))
    connection.close()
    sys.stdout.flush()
    os._exit(0)  # not through the group's own end, which waits for processes that may be gone


def _join(number: int, processes: int, meeting: str, kind: str) -> None:
    """Make this process one of the group, for torch and, by its environment variables, for Accelerate."""
    os.environ |= {
        "RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes),
        "ACCELERATE_USE_CPU": str(kind == "cpu").lower(),
    }  # fmt: skip
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all are on this machine, whatever its name leads to
    device = device_of_process(torch.device(kind), number)
    where: dict[str, Any] = {} if device.type == "cpu" else {"device_id": device}
    backend = distributed.get_default_backend_for_device(device)
    distributed.init_process_group(backend, init_method=meeting, rank=number, world_size=processes, **where)


def _portable(error: Exception) -> Exception:
    """The error, if it survives the way to another process, else what it says; memory that ran out is still told as that."""
    with contextlib.suppress(Exception):
        copy: Any = pickle.loads(pickle.dumps(error))
        if type(copy) is type(error) and str(copy) == str(error):
            return error
    kind = MemoryError if out_of_memory(error) else RuntimeError
    return kind(f"{type(error).__name__}: {error}")
