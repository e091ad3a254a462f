"""What a training writes down of its steps, and how it knows that it has diverged."""

from __future__ import annotations

import csv
import math
import statistics
from collections import deque
from pathlib import Path
from typing import Any

import pandas as pd

from imfbench.disk import unwritable
from imfbench.store import atomic

DIVERGENCE_FACTOR = 100.0
DIVERGENCE_STEPS = 20


class DivergenceMonitor:
    """METHODS.md's definition: a value that is not finite, or a gradient norm above 100 × its running median for 20 steps.

    Where a method weights its rows adaptively it logs ``weight``, the mean weight, and the norm is divided by it: an adaptive
    weight bounds the norm of exactly those gradients that explode. That is a stand-in for the unweighted gradient's norm, and
    equal to it only where all rows weigh the same; for a factor of 100 it serves.
    """

    def __init__(self, window: int = 200) -> None:
        self._norms: deque[float] = deque(maxlen=window)
        self._above = 0

    def state(self) -> dict[str, Any]:
        """For the checkpoint: a resumed training must come to the same verdict."""
        return {"norms": list(self._norms), "above": self._above}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint's state."""
        self._norms.extend(state["norms"])
        self._above = state["above"]

    def update(self, loss: float, norm: float, weight: float = 1.0) -> str:
        """Take a step's figures; returns the reason if training has diverged, else an empty string."""
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return "a value that is not finite"
        rescaled = norm / max(weight, 1e-12)
        if len(self._norms) >= DIVERGENCE_STEPS and rescaled > DIVERGENCE_FACTOR * statistics.median(self._norms):
            self._above += 1
        else:
            self._above = 0
            self._norms.append(rescaled)  # steps above the bound must not move the median
        if self._above >= DIVERGENCE_STEPS:
            return f"gradient norm above {DIVERGENCE_FACTOR:g} times its running median for {DIVERGENCE_STEPS} steps"
        return ""


class TrainingLog:
    """log.csv; rows past the checkpoint that a resumed training starts from are dropped."""

    def __init__(self, path: Path, step: int) -> None:
        self._path = path
        kept: list[dict[str, str]] = []
        if path.is_file():
            with path.open(encoding="utf-8", newline="") as file:
                whole = (row for row in csv.DictReader(file) if None not in row.values())  # a full disk tears a row
                kept = [row for row in whole if row.get("step") and int(float(row["step"])) <= step]
        self._columns = list(kept[0]) if kept else []
        with atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            if kept:
                writer = csv.DictWriter(file, self._columns)
                writer.writeheader()
                writer.writerows(kept)

    def write(self, row: dict[str, Any]) -> None:
        """Append a row; the first one names the columns.

        Raises:
            StoreError: The disk is full, and the like.
        """
        try:
            with self._path.open("a", encoding="utf-8", newline="") as file:
                if not self._columns:
                    self._columns = ["step", *(k for k in row if k != "step")]
                    csv.DictWriter(file, self._columns).writeheader()
                csv.DictWriter(file, self._columns, extrasaction="ignore", restval="").writerow(
                    {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()}
                )
        except OSError as error:
            raise unwritable(self._path, error) from error


def thin(log: pd.DataFrame, rows: int = 400) -> pd.DataFrame:
    """A log of at most about ``rows`` rows, each the median of the rows around it, with the last step's number."""
    size = max(1, len(log) // rows)
    groups = log.groupby(log.index // size)
    return groups.median(numeric_only=True).assign(step=groups["step"].last().astype(int))
