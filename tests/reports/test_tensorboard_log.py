"""Training curves in TensorBoard are those of the log."""

from __future__ import annotations

import math
import sys
from typing import Any

import pytest

from imfbench.registry import REPORTS
from imfbench.reports.results import RunFolderError


def test_every_logged_number_is_a_scalar_at_its_step(run: Any) -> None:
    reading = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="TensorBoard is not installed: imfbench[tensorboard]",
    )
    run.training("student", [1.0, 0.5, math.nan], [2.0, 3.0, 4.0])
    report = REPORTS.get("tensorboard")()
    (file,) = report.write(run.path)
    before = file.read_bytes()
    read = reading.EventAccumulator(str(file.parent))
    read.Reload()
    assert set(read.Tags()["scalars"]) == {"loss", "grad_norm", "learning_rate"}
    assert [(e.step, e.value, e.wall_time) for e in read.Scalars("grad_norm")] == [
        (1, 2.0, 0.5),
        (2, 3.0, 1.0),
        (3, 4.0, 1.5),
    ]
    assert math.isnan(read.Scalars("loss")[2].value)  # a divergence is seen there too
    assert report.write(run.path) == [file]
    assert file.read_bytes() == before


def test_without_a_training_or_the_package_it_says_what_is_lacking(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run.cell("teacher", 1, {"sim": [0.8, 0.9]})
    with pytest.raises(RunFolderError, match="nothing was trained in this run"):
        REPORTS.get("tensorboard")().write(run.path)
    run.training("student", [1.0], [1.0])
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    with pytest.raises(RunFolderError, match=r"pip install 'imfbench\[tensorboard\]'"):
        REPORTS.get("tensorboard")().write(run.path)
