"""Batches that a method makes before it trains (ReFlow's pairs): on disk, one file each, made once, gone when it is trained.

Batch i depends on the seed, on i and on the method alone, and is written whole or not at all: a killed run goes on with the
batch at which it stopped. A pair's noise and end point lie in one file. What the making costs is counted as training.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from imfbench import distribution
from imfbench.artefact import ArtefactError
from imfbench.devices import autocast, synchronize
from imfbench.method import Batch, Condition, Method
from imfbench.store import write_bytes
from imfbench.train_settings import TrainConfig

if TYPE_CHECKING:
    from imfbench.training import TrainingData

FOLDER = "prepared"
_CONDITION = [field.name for field in fields(Condition)]


def prepare_batch(method: Method, batch: Batch, seed: str, device: torch.device, config: TrainConfig) -> Batch:
    """What a method makes of one batch, on the CPU; ``seed`` names its random draws."""
    digest = hashlib.sha256(f"prepare/{seed}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    with torch.no_grad(), autocast(device, config.precision):
        return method.prepare(batch.to(device), generator).to("cpu")


def rehearsed(method: Method, batches: list[Batch], device: torch.device, config: TrainConfig) -> list[Batch]:
    """Batches as the loss is given them in training, made in memory: for steps that are timed or measured."""
    if not method.batches_to_prepare(1):
        return batches
    return [prepare_batch(method, batch, f"rehearsal/{i}", device, config) for i, batch in enumerate(batches)]


class Prepared:
    """Training batches of which a few were made beforehand, each taken several times; ``TrainingData`` for the loop.

    Args:
        method: What makes them.
        data: Whence their conditions are.
        config: Of the training.
        folder: Of the training; the files lie in ``prepared/`` there.
        device: Where they are made.
        progress: Called after each one with (made, to be made).

    Attributes:
        count: How many are made.
        seconds: What their making took, in whatever process.
    """

    def __init__(
        self, method: Method, data: TrainingData, config: TrainConfig, folder: Path, device: torch.device,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:  # fmt: skip
        self.method, self.data, self.config, self.device = method, data, config, device
        self.folder, self.progress = folder / FOLDER, progress
        self.count = method.batches_to_prepare((config.steps or 0) * config.accumulate)
        self.seconds = self._seconds_of((self.folder / str(config.seed)).glob("*.safetensors"))

    def batches(self, frames_per_batch: int, seed: int, start_step: int = 0, stride: int = 1) -> Iterator[Batch]:
        """Endless batches: all of them in one random order, then in another; what is not there yet is made first.

        The processes of a training share the making.
        """
        folder = self.folder / str(seed)
        paths = self._make(folder, frames_per_batch, seed)
        distribution.meet()
        self.seconds = self._seconds_of(paths)
        for i in itertools.islice(self._numbers(seed), start_step, None, stride):
            yield read_batch(folder / _name(i))

    def _seconds_of(self, paths: Iterable[Path]) -> float:
        return sum(_seconds(path) for path in paths) / distribution.count()

    def _numbers(self, seed: int) -> Iterator[int]:
        for taken in itertools.count():
            order = list(range(self.count))
            random.Random(f"{seed}/{taken}").shuffle(order)
            yield from order

    def _make(self, folder: Path, frames_per_batch: int, seed: int) -> list[Path]:
        paths = [folder / _name(i) for i in range(self.count)]
        present = {path.name for path in folder.glob("*.safetensors")}
        missing = [i for i, path in enumerate(paths) if path.name not in present]
        if missing:
            raw = self.data.batches(frames_per_batch, seed, missing[0])
            # By number: what is missing may be another list a moment later, when another process has made something.
            mine = {i for i in missing if i % distribution.count() == distribution.index()}
            for i, batch in zip(range(missing[0], self.count), raw, strict=False):
                if i not in mine:
                    continue
                start = time.perf_counter()
                made = prepare_batch(self.method, batch, f"{seed}/{i}", self.device, self.config)
                synchronize(self.device)
                write_batch(paths[i], made, time.perf_counter() - start)
                if self.progress is not None:
                    self.progress(i + 1, self.count)
        return paths

    def remove(self) -> None:
        """Give back the disk; the same batches can be made again."""
        shutil.rmtree(self.folder, ignore_errors=True)


def write_batch(path: Path, batch: Batch, seconds: float) -> None:
    """Write a batch whole or not at all, with what its making took."""
    told = {name: getattr(batch.condition, name) for name in _CONDITION}
    tensors = {"x1": batch.x1, **{name: value for name, value in told.items() if value is not None}}
    if batch.x0 is not None:
        tensors["x0"] = batch.x0
    about = {"ids": json.dumps(batch.ids), "seconds": repr(seconds)}
    write_bytes(path, save({name: value.contiguous() for name, value in tensors.items()}, about))


def read_batch(path: Path) -> Batch:
    """A batch as it was written.

    Raises:
        ArtefactError: The file is damaged.
    """
    with _opened(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        condition = Condition(**{name: tensors.get(name) for name in _CONDITION})  # type: ignore[arg-type]
        return Batch(tensors["x1"], condition, tuple(json.loads(file.metadata()["ids"])), tensors.get("x0"))


def affordable_steps(method: Method, seconds: float, of_step: float, of_batch: float, accumulate: int = 1) -> int:
    """The most optimiser steps whose time, with that of the batches to be made beforehand, is within ``seconds``; 1 at least.

    Args:
        method: Says how many batches it wants made.
        seconds: The budget.
        of_step: Seconds of a step.
        of_batch: Seconds of making one batch.
        accumulate: Batches of a step.
    """
    least, most = 1, max(1, round(seconds / of_step))
    if not method.batches_to_prepare(1):
        return most
    while least < most:
        steps = (least + most + 1) // 2
        if steps * of_step + method.batches_to_prepare(steps * accumulate) * of_batch <= seconds:
            least = steps
        else:
            most = steps - 1
    return least


def _name(i: int) -> str:
    return f"{i:06d}.safetensors"


def _seconds(path: Path) -> float:
    with _opened(path) as file:
        return float(file.metadata()["seconds"])


def _opened(path: Path) -> safe_open:
    try:
        return safe_open(path, "pt")
    except SafetensorError as error:
        raise ArtefactError(
            f"{path}, a batch prepared for training, cannot be read ({error}): remove it, and the same command makes it again"
        ) from None
