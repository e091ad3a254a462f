"""Training curves: loss and gradient norm of each trained artefact, with divergence marked where it happened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from imfbench.reports.plots import themed
from imfbench.reports.results import Training

_CURVES = (("loss", "Loss"), ("grad_norm", "Gradient norm"))
_BINS = 400


def training_curves(trainings: Sequence[Training]) -> Figure | None:
    """One row of panels an artefact, loss and gradient norm against the step; None without a training log."""
    if not trainings:
        return None

    def build() -> Figure:
        figure = Figure(figsize=(9.0, 2.9 * len(trainings) + 0.3), layout="constrained")
        blocks = figure.subfigures(len(trainings), 1, squeeze=False)[:, 0]
        for block, training in zip(blocks, trainings, strict=True):
            block.suptitle(_title(training), fontsize="medium", fontweight="bold")
            for axis, (column, label) in zip(block.subplots(1, 2), _CURVES, strict=True):
                _draw(axis, training, column, label)
        return figure

    return themed(build)


def _title(training: Training) -> str:
    status = training.status
    last = int(training.log["step"].max()) if len(training.log) else 0
    words = [training.name, f"{status.get('steps', last)} steps"]
    if status.get("seconds_per_step") is not None:
        words.append(f"{status['seconds_per_step']:.3g} s a step")
    if status.get("seed") is not None:
        words.append(f"seed {status['seed']}")
    return ", ".join(words) + (": diverged" if training.diverged else "")


def _draw(axis: Axes, training: Training, column: str, label: str) -> None:
    axis.set_xlabel("Training step")
    axis.set_ylabel(label)
    axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    present = column in training.log.columns
    curve = training.log[["step", column]] if present else pd.DataFrame({"step": [], column: []})
    finite = curve[np.isfinite(curve[column].to_numpy(dtype=float))]
    blue, red = (sns.color_palette("colorblind")[i] for i in (0, 3))
    if finite.empty:
        axis.text(0.5, 0.5, "no finite value was logged", transform=axis.transAxes, ha="center", va="center")
    else:
        _lines(axis, finite, column, blue)
        _scale(axis, finite[column])
    broken = curve[~curve["step"].isin(finite["step"])]
    if len(broken):
        # On the upper edge, whatever the scale.
        edge: dict[str, Any] = {"transform": axis.get_xaxis_transform(), "clip_on": False}
        axis.plot(broken["step"], [0.97] * len(broken), "x", color=red, markersize=6, label="not finite", **edge)
    if training.diverged:
        step = training.status.get("steps", int(curve["step"].max()) if len(curve) else 0)
        axis.axvline(step, color=red, linestyle="--", linewidth=1.6, label=f"diverged at step {step}")
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize="small", loc="best", framealpha=0.85, edgecolor="none")


def _lines(axis: Axes, finite: pd.DataFrame, column: str, color: tuple[float, float, float]) -> None:
    """Every logged value in pale (many: the lowest to the highest of each bin), the median in dark."""
    if len(finite) > 2 * _BINS:
        bins = pd.cut(finite["step"], _BINS, labels=False)
        ends = finite.groupby(bins)[column].agg(["min", "max"])
        steps = finite.groupby(bins)["step"].mean()
        label = f"lowest to highest of {len(finite) // _BINS}"
        axis.fill_between(steps, ends["min"], ends["max"], color=color, alpha=0.25, linewidth=0, label=label)
    else:
        axis.plot(finite["step"], finite[column], color=color, alpha=0.35, linewidth=0.9, label="each logged step")
    window = max(5, len(finite) // 25)
    if len(finite) >= 2 * window:
        median = finite[column].rolling(window, center=True, min_periods=window // 2).median()
        kept = median.iloc[:: max(1, len(finite) // _BINS)]
        axis.plot(finite["step"].loc[kept.index], kept, color=color, linewidth=1.8, label=f"running median of {window}")


def _scale(axis: Axes, values: pd.Series) -> None:
    low, high = float(values.min()), float(values.max())
    if low > 0 and high > 20 * low:
        axis.set_yscale("log")
        if high < 2e3 * low:
            axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.yaxis.set_minor_formatter(NullFormatter())
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
