"""What of a training is dear: fitting its batches, timing its steps, its steps; in this process or in several that share them."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import torch

from imfbench import distribution, plugins
from imfbench.artefact import load_artefact
from imfbench.building import build_method
from imfbench.config import ExperimentConfig
from imfbench.config_file import ConfigError
from imfbench.devices import available_memory, device_of_process, memory_words, out_of_memory
from imfbench.fitting import fit
from imfbench.method import Method
from imfbench.pipeline.context import Context, RunError, one_line
from imfbench.pipeline.plan import Artefact, teacher_artefact
from imfbench.progress import Bar, Reporting, log
from imfbench.registry import METHODS
from imfbench.store import RunFolder, read_json
from imfbench.train_settings import TrainConfig
from imfbench.training import MEMORY, budget_to_steps, train

Tell = Callable[[Any], None]


@dataclass(frozen=True)
class TrainTask:
    """A piece of work about one training, which can be sent to another process.

    Attributes:
        what: "fit" its batches to ``memory``, "time" its steps, or "train".
        name: Of the artefact.
        settings: How it is trained.
        card: What the artefact's card is to say besides.
    """

    what: Literal["fit", "time", "train"]
    name: str
    settings: TrainConfig
    card: dict[str, Any] | None = None

    def perform(self, context: Context, tell: Tell) -> Any:
        """Do it in this process; ``tell`` hears ("step", done, of, loss) and ("preparing", made, of).

        Raises:
            RunError: Memory ran out; the message says what to lower, with measured numbers.
        """
        artefact = context.plan.artefacts[self.name]
        assert artefact.system is not None
        settings = self.settings
        try:
            method = method_to_train(context, artefact, settings)
            data = context.dataset(context.config.train_data)
            if self.what == "fit":
                return fit(method, data, settings, context.device)
            if self.what == "time":
                return budget_to_steps(method, data, settings, context.device)
            with interrupted_between_steps() as check:

                def told(*what: Any) -> None:
                    tell(what)
                    check()

                return train(
                    method, context.config.systems[artefact.system].method, data, settings,
                    context.folder.artefact(self.name), context.device, self.card,
                    lambda *step: told("step", *step), preparing=lambda *made: told("preparing", *made),
                )  # fmt: skip
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            raise RunError(lacking_memory(error, self, context)) from None

    def carry_out(self, context: Context, bar: Bar | None = None) -> Any:
        """Do it here, or in the processes that the settings ask for, while ``bar`` shows how far it is.

        Raises:
            RunError: Memory ran out, or one of the processes was killed.
        """

        def tell(what: Any) -> None:
            kind, done, total, *loss = what
            if bar is not None and kind == "step":
                bar.reach(done, total, f"loss {loss[0]:.3g}")
            elif bar is not None:
                bar.reach(0, note=f"{done} of {total} batches prepared")

        processes = self.settings.processes if self.what != "fit" else 1
        if self.settings.processes == 1:
            return self.perform(context, tell)
        there = context.threads_of(processes)
        sent = _InGroup(self, context.config, context.folder.path, dict(context.failures), there)
        try:
            with interrupted_between_steps() as check:
                return distribution.together(sent, processes, context.device, tell, check, plugins.files())
        except distribution.ProcessEnded as error:
            raise RunError(
                f"{self.name}: {error}, and its training cannot go on without it: the others were stopped. The same command goes "
                "on from the last checkpoint"
            ) from None


@dataclass(frozen=True)
class _InGroup:
    """The task as each process of a group does it: with a context of its own, on its own device."""

    task: TrainTask
    config: ExperimentConfig
    folder: Path
    failures: dict[str, str]
    threads: int

    def __call__(self, tell: Tell) -> Any:
        context = Context(self.config, RunFolder(self.folder), Reporting(terminal=False), self.failures)
        context.use_threads(self.threads)
        context.device = device_of_process(context.device, distribution.index())
        return self.task.perform(context, tell)


def check_processes(config: ExperimentConfig, settings: TrainConfig, device: torch.device) -> None:
    """Refuse processes that cannot be had.

    Raises:
        ConfigError: The run trains side by side already, or there are fewer accelerators.
    """
    if settings.processes == 1:
        return
    if config.workers > 1:
        raise ConfigError(
            f"training.processes = {settings.processes} share one training, workers = {config.workers} train several side by "
            "side: set one of them to 1"
        )
    there = torch.accelerator.device_count() if device.type != "cpu" else settings.processes
    if settings.processes > there:
        raise ConfigError(
            f"training.processes = {settings.processes}, but there are {there} accelerators: set training.processes={there}"
        )


def lacking_memory(error: BaseException, task: TrainTask, context: Context) -> str:
    """Why a training stopped when memory ran out: what was needed and is free, as far as it was measured, and what to lower."""
    settings, device = task.settings, context.device
    measured = (read_json(context.folder.artefact(task.name) / MEMORY) or {}).get("bytes")
    numbers = [f"at most {settings.frames_per_batch} frames a batch"]
    if words := memory_words(error):
        numbers.append(words)
    if measured is not None:
        numbers.append(f"a step took {measured / 1e9:.3g} GB when it was measured")
    numbers.append(f"{available_memory(device) / 1e9:.3g} GB are free beside it")
    return (
        f"{task.name}: memory ran out while training ({one_line(error)}; {', '.join(numbers)}). Lower training.frames_per_batch "
        f"(now {settings.frames_per_batch}) and raise training.accumulate (now {settings.accumulate}) by as much, which keeps "
        "the step's size, or let training.memory=16GB (what there is) find both; training.checkpoint_activations=true, "
        "teacher_dtype=bf16, ema_device=cpu, precision=bf16 or a smaller network need less too. With other frames or types it "
        "is another training: give the system another name or the run another --out. Where other programs took the memory, the "
        "same command goes on from the last checkpoint"
    )


@contextlib.contextmanager
def interrupted_between_steps() -> Iterator[Callable[[], None]]:
    """Let Ctrl-C and SIGTERM wait until the step is done: yields a check that raises ``KeyboardInterrupt`` if one came.

    In the middle of a step the network and its optimiser do not belong together, and must not be saved. A second Ctrl-C
    does not wait. One that comes behind the last step, while the network is saved, is raised when that is done.
    """
    asked: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        log.warning("stopping after this step")

    def check() -> None:
        if asked:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield check
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    check()  # or the next job would begin, though the user has been told that the run stops


def method_to_train(context: Context, artefact: Artefact, settings: TrainConfig) -> Method:
    """The method of an artefact before its first step, with its teacher's weights or those that it starts from."""
    assert artefact.system is not None
    system = context.config.systems[artefact.system]
    teacher = None
    if METHODS.get(system.method).needs.teacher:
        teacher = context.load(teacher_artefact(context.config, context.plan.artefacts).name)[0]
        context.forget("artefact")  # training freezes it and keeps it to itself
    network = system.network
    start = None if teacher or network.start is None else load_artefact(network.start)[0].network
    return build_method(
        system.method, system.config, teacher, network.name, network.config, settings.seed, start,
        scratch=system.start == "scratch", second_time=system.second_time,
    )  # fmt: skip


def fitted(
    context: Context, name: str, settings: TrainConfig, before: dict[str, Any]
) -> tuple[TrainConfig, dict[str, Any]]:
    """Settings whose batches fit into ``memory``, and what a record must hold for a repeated command to have the same.

    Args:
        context: The run.
        name: Of the artefact.
        settings: As the experiment has them.
        before: That record of an earlier command; empty if there is none.
    """
    if settings.memory is None:
        return settings, {}
    asked = [settings.memory, settings.frames_per_batch * settings.accumulate, settings.processes]
    if before.get("asked") != asked:
        log.info("%s: finding the largest batches that fit into %.3g GB", name, settings.memory / 1e9)
        found = TrainTask("fit", name, settings).carry_out(context)
        before = {
            "asked": asked, "frames_per_batch": found.frames_per_batch, "accumulate": found.accumulate, "peak": found.peak,
        }  # fmt: skip
        log.info(
            "%s: %d batches of %d frames a step; one takes %.3g GB (%s)", name, found.accumulate, found.frames_per_batch,
            found.peak / 1e9, found.kind,
        )  # fmt: skip
    change = {"frames_per_batch": before["frames_per_batch"], "accumulate": before["accumulate"], "memory": None}
    return settings.model_copy(update=change), before
