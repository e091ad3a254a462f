"""Counts of a sampling run, measured and declared: what is requested is not always what is run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from imfbench.flow.solvers import Velocity, evaluations_per_step


class CountMismatchError(RuntimeError):
    """The measured counts are not the declared ones."""


@dataclass(frozen=True)
class Counts:
    """Cost of one sample.

    Attributes:
        steps: Intervals of the grid.
        nfe: Velocity evaluations; the literature's NFE.
        network_calls: Rows sent through the network; a guided evaluation is 2.
    """

    steps: int
    nfe: int
    network_calls: int


def declared_counts(grid: Tensor, solver: str, guidance: float) -> Counts:
    """What sampling over ``grid`` (steps + 1,) with this solver and guidance w should cost."""
    steps = len(grid) - 1
    nfe = steps * evaluations_per_step(solver)
    return Counts(steps, nfe, nfe * (1 if guidance == 0 else 2))


@dataclass
class NetworkCount:
    """Running counts of one network; filled by :func:`count_network`.

    Attributes:
        calls: Forward passes.
        rows: Batch rows of all passes together.
        evaluations: Calls of velocities wrapped by :meth:`wrap`.
        steps: Intervals that those calls belonged to.
    """

    calls: int = 0
    rows: int = 0
    evaluations: int = 0
    steps: int = 0
    _end: float | None = field(default=None, repr=False)

    def wrap(self, velocity: Velocity) -> Velocity:
        """The same velocity, counted; a change of the step's end ``r`` begins a new step."""

        def counted(z: Tensor, t: Tensor, r: Tensor) -> Tensor:
            end = float(r[0])
            self.steps += end != self._end
            self.evaluations += 1
            self._end = end
            return velocity(z, t, r)

        self._end = None
        return counted

    def per_sample(self, batch: int) -> Counts:
        """The counts of one of the ``batch`` samples drawn together.

        Raises:
            CountMismatchError: The network saw a number of rows that is no multiple of ``batch``.
        """
        if self.rows % batch:
            raise CountMismatchError(f"{self.rows} network rows do not divide among {batch} samples")
        return Counts(self.steps, self.evaluations, self.rows // batch)

    def check(self, declared: Counts, batch: int) -> Counts:
        """The measured counts per sample.

        Raises:
            CountMismatchError: They differ from ``declared``.
        """
        measured = self.per_sample(batch)
        if measured != declared:
            raise CountMismatchError(f"sampling was declared as {declared}, but measured as {measured}")
        return measured


@contextmanager
def count_network(network: nn.Module) -> Iterator[NetworkCount]:
    """Count the passes through ``network`` and their rows by a forward hook while the context is open.

    Example:
        >>> with count_network(network) as count:
        ...     z = euler(count.wrap(velocity), noise, grid)
        >>> count.check(declared_counts(grid, "euler", guidance), batch=len(noise))
    """
    count = NetworkCount()

    def hook(_module: nn.Module, inputs: tuple[Any, ...], _output: Any) -> None:
        count.calls += 1
        count.rows += inputs[0].shape[0]

    handle = network.register_forward_hook(hook)
    try:
        yield count
    finally:
        handle.remove()
