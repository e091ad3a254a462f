"""Training curves for TensorBoard: each number of ``log.csv`` as a scalar, from what the run has on record."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import pandas as pd

from imfbench.reports.results import RunFolderError, Training, read_run
from imfbench.store import write_bytes

FILE = "events.out.tfevents.0000000000.imfbench"
"""TensorBoard knows its files by the beginning of the name; one without a date makes the same results the same file."""


class TensorBoardLog:
    """Writes ``tensorboard/<artefact>/`` of a run folder, for ``tensorboard --logdir RUN/tensorboard``.

    Needs the extra ``tensorboard``.
    """

    def write(self, run: Path) -> list[Path]:
        """Write an event file for each training log.

        Args:
            run: The run folder.

        Raises:
            RunFolderError: TensorBoard is not installed, or no training left a log here.
        """
        trainings = read_run(run).trainings
        if not trainings:
            raise RunFolderError(
                f"{run} has no artefacts/*/log.csv: nothing was trained in this run, so it has no training curves"
            )
        files = []
        for training in trainings:
            files.append(run / "tensorboard" / training.name / FILE)
            write_bytes(files[-1], _events(training))
        return files


def _events(training: Training) -> bytes:
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter
    except ImportError:
        raise RunFolderError(
            "the report tensorboard needs the package tensorboard: pip install 'imfbench[tensorboard]', or leave the report out"
        ) from None
    found = _Kept()
    writer = RecordWriter(found)
    writer.write(Event(wall_time=0.0, file_version="brain.Event:2").SerializeToString())
    log = training.log
    names = [
        name for name in log.columns if name not in ("step", "seconds") and pd.api.types.is_numeric_dtype(log[name])
    ]
    for row in log.to_dict("records"):
        # Time is that of the training itself: hours of sleep between two starts are none of it.
        event = Event(step=int(row["step"]), wall_time=_seconds(row.get("seconds")))
        for name in names:
            event.summary.value.add(tag=str(name), simple_value=float(row[name]))
        writer.write(event.SerializeToString())
    writer.flush()
    return found.getvalue()


class _Kept(io.BytesIO):
    def close(self) -> None:
        """Stay open: the bytes are wanted after the writer is done."""


def _seconds(value: Any) -> float:
    return float(value) if value is not None and math.isfinite(float(value)) else 0.0
