"""What the other tasks show: a table with intervals over seeds, all figures as CSV, one picture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from torch import Tensor

from imfbench.other_tasks.run import NFES
from imfbench.other_tasks.tasks import Task
from imfbench.store import atomic, write_text

FEWEST_SEEDS = 3
"""Below that nothing is said about methods."""


def mean_interval(values: Any) -> tuple[float, float, float]:
    """Mean and 95 % t-interval over seeds; the interval is NaN for one seed."""
    x = np.asarray(values, dtype=float)
    mean = float(x.mean())
    if len(x) < 2:
        return mean, math.nan, math.nan
    half = float(stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / math.sqrt(len(x)))
    return mean, mean - half, mean + half


def ratio_interval(values: Any, against: Any) -> tuple[float, float, float]:
    """Geometric mean of the ratios of pairs (same seed, hence same teacher and noise), with its 95 % t-interval."""
    mean, low, high = mean_interval(np.log(np.asarray(values, dtype=float)) - np.log(np.asarray(against, dtype=float)))
    return math.exp(mean), math.exp(low), math.exp(high)


def table(task: Task, frame: pd.DataFrame) -> str:
    """The figures of one task as Markdown: distance at each NFE, the ratio to the teacher at 1 NFE, cost."""
    seeds = sorted(frame["seed"].unique())
    heads = [f"{nfe} NFE" for nfe in NFES]
    lines = [
        f"### {task.name}: {task.about}",
        "",
        f"{task.distance} to data that no training saw, mean over {len(seeds)} seeds [95 % t-interval]; another draw of the "
        f"data comes to {_figure(*mean_interval(_of(frame, 'data')['distance']))}.",
        "",
        f"| Method | {' | '.join(heads)} | 1 NFE against the teacher's | Steps | ms a step |",
        f"| --- | {' | '.join('---' for _ in heads)} | --- | --- | --- |",
    ]
    teacher = _of(frame, "teacher", 1)["distance"]
    for name in dict.fromkeys(frame["method"]):
        if name == "data":
            continue
        own = _of(frame, name)
        bad = own[own["status"] != "ok"]
        cells = [
            f"diverged in {bad['seed'].nunique()} of {len(seeds)}"
            if len(bad)
            else _figure(*mean_interval(_of(frame, name, nfe)["distance"]))
            for nfe in NFES
        ]
        ratio = "–" if name == "teacher" or len(bad) else _ratio(_of(frame, name, 1)["distance"], teacher)
        cost = own.groupby("seed")["seconds_per_step"].first().mean() * 1000
        lines.append(f"| {name} | {' | '.join(cells)} | {ratio} | {int(own['steps'].max())} | {cost:.0f} |")
    if "recognised" in frame:
        told = {
            name: _of(frame, name, nfe)["recognised"].mean()
            for name in dict.fromkeys(frame["method"])
            for nfe in (1,)
            if name != "data"
        }
        full, data = _of(frame, "teacher", 32)["recognised"].mean(), _of(frame, "data")["recognised"].mean()
        lines += [
            "",
            "Share of the images in which a classifier finds the digit asked for, at 1 NFE: "
            + ", ".join(f"{name} {value:.0%}" for name, value in told.items())
            + f"; the teacher at 32 NFE {full:.0%}, data {data:.0%}.",
        ]
    return "\n".join(lines) + "\n"


def _of(frame: pd.DataFrame, method: str, nfe: int | None = None) -> pd.DataFrame:
    found = frame[frame["method"] == method]
    return (found if nfe is None else found[found["nfe"] == nfe]).sort_values("seed")


def _figure(mean: float, low: float, high: float) -> str:
    return f"{mean:.3g}" if math.isnan(low) else f"{mean:.3g} [{low:.3g}, {high:.3g}]"


def _ratio(values: Any, against: Any) -> str:
    mean, low, high = ratio_interval(values, against)
    if len(values) < FEWEST_SEEDS:
        return f"{mean:.2f} (fewer than {FEWEST_SEEDS} seeds: these networks, not the method)"
    word = "less" if high < 1 else "more" if low > 1 else "not told apart"
    return f"× {mean:.2g} [{low:.2g}, {high:.2g}], {word}"


def write(found: dict[str, tuple[Task, pd.DataFrame, dict[str, Tensor]]], folder: Path, about: str) -> list[Path]:
    """Write ``table.md``, ``figures.csv`` and ``picture.png``.

    Args:
        found: Name of a task → task, figures, samples of its first seed.
        folder: Where to.
        about: Line above the tables: how they were made.
    """
    text = "\n".join([about, "", *(table(task, frame) for task, frame, _ in found.values())])
    write_text(folder / "table.md", text)
    frame = pd.concat([frame for _, frame, _ in found.values()], ignore_index=True)
    write_text(folder / "figures.csv", frame.to_csv(index=False))
    draw(found, folder / "picture.png")
    return [folder / name for name in ("table.md", "figures.csv", "picture.png")]


def draw(found: dict[str, tuple[Task, pd.DataFrame, dict[str, Tensor]]], path: Path) -> None:
    """A row of samples and a curve of distances for each task."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    import seaborn as sns

    methods = list(dict.fromkeys(name for _, frame, _ in found.values() for name in frame["method"] if name != "data"))
    columns = ["data", "teacher at 32", *(f"{name} at 1" for name in methods)]
    colours = dict(zip(methods, sns.color_palette("colorblind", len(methods)), strict=True))
    figure = plt.figure(figsize=(1.75 * len(columns), 4.6 * len(found)), layout="constrained")
    grid = figure.add_gridspec(2 * len(found), len(columns), height_ratios=[1, 1.4] * len(found))
    for row, (task, frame, samples) in enumerate(found.values()):
        for column, name in enumerate(columns):
            panel = figure.add_subplot(grid[2 * row, column])
            panel.set_title(name if name == "data" else f"{name} NFE", fontsize=8)
            panel.set_xticks([])
            panel.set_yticks([])
            if name in samples:
                _panel(panel, task, samples[name])
        panel = figure.add_subplot(grid[2 * row + 1, :])
        for name in methods:
            good = frame[(frame["method"] == name) & (frame["status"] == "ok")]
            if good.empty:
                continue
            levels = good.groupby("nfe")["distance"]
            panel.fill_between(list(NFES), levels.min(), levels.max(), color=colours[name], alpha=0.15, linewidth=0)
            panel.plot(list(NFES), levels.mean(), "o-", color=colours[name], label=name, markersize=4)
        panel.axhline(
            _of(frame, "data")["distance"].mean(), color="0.4", linestyle=":", label="another draw of the data"
        )
        panel.set(xscale="log", yscale="log", xlabel="NFE", ylabel=task.distance, xticks=NFES, xticklabels=NFES)
        panel.set_title(f"{task.about}: mean and range over {frame['seed'].nunique()} seeds", fontsize=9)
        panel.legend(fontsize=7, ncols=2)
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=110)
    plt.close(figure)


def _panel(panel: Any, task: Task, samples: Tensor) -> None:
    if task.shape[0] == 1:
        panel.scatter(*samples[:, 0].T.numpy(), s=0.6, linewidths=0, color="0.2")
        panel.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal")
        return
    _, content = task.held_out()
    rows = [samples[(content == value).nonzero()[:5, 0]] for value in content.unique()]
    image = np.concatenate([np.concatenate(list(row.numpy()), 1) for row in rows])
    panel.imshow(image, cmap="gray", vmin=-0.8, vmax=1.9)
