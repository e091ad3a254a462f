"""The page's pictures: quality against NFE and RTF, single utterances, cost, grids, training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import seaborn as sns
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from imfbench.flow.grids import make_grid
from imfbench.reports import plots, training_plot
from imfbench.reports.columns import Quality, qualities, quality
from imfbench.reports.comparison import Comparison, utterance_differences
from imfbench.reports.grouping import labels, networks
from imfbench.reports.page.sentences import PAIRS
from imfbench.reports.page.sources import Source, Table
from imfbench.reports.page.svg import svg
from imfbench.reports.results import Cell
from imfbench.store import natural

FEW = 60
"""Utterances up to which each is drawn as a point; more are drawn as boxes alone, and the file stays small."""
_BOX: dict[str, Any] = {"width": 0.55, "fill": False, "linewidth": 1.1, "showfliers": False, "color": plots.INK}
_GRIDS = {"uniform": "uniform", "sway": "sway (s = −1)", "epss": "EPSS"}


@dataclass(frozen=True)
class Section:
    """Pictures of one subject.

    Attributes:
        title: The subject.
        about: How to read them.
        parts: What a part is of (a table, or "" where there is but one) → title and SVG of each of its pictures.
    """

    title: str
    about: str
    parts: dict[str, list[tuple[str, Markup]]]


def sections(source: Source) -> list[Section]:
    """All pictures that have something to show."""
    groups = [table.group for table in source.tables]
    count = iter(range(10_000))

    def drawn(found: Sequence[tuple[str, str, Figure]]) -> dict[str, list[tuple[str, Markup]]]:
        parts: dict[str, list[tuple[str, Markup]]] = {}
        for block, told, figure in found:
            parts.setdefault(block, []).append((told, Markup(svg(figure, f"f{next(count)}", f"{told}, {block}"))))
        return parts

    whiskers = "Each point is an utterance" if _points(source) else "Boxes hold the middle half of the utterances"
    made = [
        ("Quality against NFE", "Bars are 95 % bootstrap intervals; recordings are grey lines.",
         drawn(plots.single_panels(groups, "nfe"))),
        ("Quality against speed", "RTF is seconds of work for a second of speech, on the hardware named; numbers are NFE. "
         "No other row beats one on the Pareto front in both.", drawn(plots.single_panels(groups, "rtf", ["rtf_total"]))),
        ("Single utterances", f"{whiskers}; whiskers reach 1.5 times as far.", drawn(_distributions(source))),
        ("Differences, utterance by utterance",
         "Row minus what it was tested against, over the same utterances, each a mean over the noise seeds that both have. The "
         "dark point with its bar is the difference that was tested, with its 95 % interval.", drawn(_differences(source))),
        ("Cost", "Of training as far as it was done in this run, and of sampling.", drawn(_cost(source))),
        ("Time grids", "Where the searched grids evaluate the network, between noise (0) and data (1), beside usual grids of as "
         "many steps.", drawn(_time_grids(source))),
        ("Training", "A dashed line marks a divergence.", drawn(_trainings(source))),
    ]  # fmt: skip
    return [Section(title, about, parts) for title, about, parts in made if parts]


def _points(source: Source) -> bool:
    return max((len(c.utterances) for c in source.cells if c.utterances is not None), default=0) <= FEW


def _rows(title: str, count: int, draw: Callable[[Any], None], label: str) -> Figure:
    """A figure with one panel of horizontal rows."""

    def build() -> Figure:
        figure = Figure(figsize=(5.4, 0.27 * count + 1.0), layout="constrained")
        axis = figure.subplots()
        draw(axis)
        axis.set_xlabel(label)
        axis.set_ylabel("")
        axis.xaxis.set_major_locator(MaxNLocator(6))
        axis.grid(axis="y", visible=False)
        return figure

    return plots.themed(build)


def _names(table: Table, cells: Sequence[Cell]) -> dict[str, str]:
    names = labels(table.group.cells)
    found = {}
    for cell in cells:
        nfe = cell.value("nfe")
        found[str(cell.row["key"])] = names[str(cell.row["key"])] + ("" if nfe is None else f", {nfe:g} NFE")
    return found


def _colours(table: Table) -> dict[str, Any]:
    """The colour of each system, as in the other pictures: teacher dark, recordings grey, students in the palette's order."""
    others = sorted({c.system for c in table.group.cells if not c.teacher and not c.reference}, key=natural)
    palette = sns.color_palette("colorblind", max(len(others), 1))
    fixed = {c.system: plots.INK if c.teacher else "#777777" for c in table.group.cells if c.teacher or c.reference}
    return {**dict(zip(others, palette, strict=False)), **fixed}


def _distributions(source: Source) -> list[tuple[str, str, Figure]]:
    found = []
    for table in source.tables:
        cells = [c for c in table.group.cells if c.ok and c.utterances is not None]
        names = _names(table, cells)
        systems = {names[str(c.row["key"])]: c.system for c in cells}
        for q in qualities([c.row for c in cells]):
            parts = [
                pd.DataFrame({"row": names[str(c.row["key"])], "score": _scores(c, q) * q.scale})
                for c in cells
                if c.utterances is not None and q.per_utterance in c.utterances
            ]
            frame = pd.concat(parts).dropna() if parts else pd.DataFrame()
            if len(frame):
                found.append(
                    (
                        table.group.title,
                        q.title,
                        _strips(frame, {n: _colours(table)[s] for n, s in systems.items()}, q.label),
                    )
                )
    return found


def _scores(cell: Cell, shown: Quality) -> pd.Series:
    assert cell.utterances is not None
    return pd.to_numeric(cell.utterances.set_index("id")[shown.per_utterance], errors="coerce").astype(float)


def _strips(frame: pd.DataFrame, colours: dict[str, Any], label: str) -> Figure:
    order = list(dict.fromkeys(frame["row"]))
    few = frame.groupby("row", sort=False).size().max() <= FEW

    def draw(axis: Any) -> None:
        sns.boxplot(frame, x="score", y="row", order=order, ax=axis, **_BOX)
        if few:
            look: dict[str, Any] = {"size": 3.4, "alpha": 0.65, "jitter": 0.22, "legend": False}
            state = _fixed_jitter()
            sns.stripplot(frame, x="score", y="row", order=order, hue="row", palette=colours, ax=axis, **look)
            state()

    return _rows(label, len(order), draw, label)


def _fixed_jitter() -> Callable[[], None]:
    """seaborn draws its jitter from numpy's global state: the same page twice needs it fixed, and put back."""
    import numpy as np

    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    return lambda: np.random.set_state(before)  # noqa: NPY002


def _differences(source: Source) -> list[tuple[str, str, Figure]]:
    found = []
    for table in source.tables:
        tests = [t for t in table.tests if t.family in PAIRS and t.tested]
        for family, column in dict.fromkeys((t.family, t.column) for t in tests):
            own = [t for t in tests if (t.family, t.column) == (family, column)]
            figure = _pairs(table, own, quality(column))
            if figure is not None:
                against = {t.b for t in own}
                told = (
                    f"{quality(column).title}, against {against.pop()}" if len(against) == 1 else quality(column).title
                )
                found.append((table.group.title, told, figure))
    return found


def _pairs(table: Table, tests: Sequence[Comparison], shown: Quality) -> Figure | None:
    """A row for each test of one figure; None where the utterances behind it are not here."""
    cells = {str(c.row["key"]): c for c in table.group.cells}
    several = len({t.b for t in tests}) > 1
    parts, marks, colours = [], [], {}
    for test in tests:
        a, b = ([cells[key] for key in keys] for keys in (test.a_keys, test.b_keys))
        differences = utterance_differences(a, b, shown) * shown.scale
        if differences.empty:
            continue
        name = f"{test.a} − {test.b}" if several else test.a
        colours[name] = _colours(table)[a[0].system]
        parts.append(pd.DataFrame({"row": name, "score": differences}))
        marks.append([value * shown.scale for value in (test.difference, test.low, test.high) if value is not None])
    if not parts:
        return None
    unit = " (points)" if shown.unit == "%" else ""
    return _differing(pd.concat(parts), colours, marks, f"{shown.title}, difference{unit}")


def _differing(frame: pd.DataFrame, colours: dict[str, Any], marks: list[list[float]], label: str) -> Figure:
    figure = _strips(frame, colours, label)
    axis = figure.axes[0]
    axis.axvline(0, color="#777777", linewidth=1.2, linestyle=(0, (6, 3)), zorder=0.5)
    for place, mark in enumerate(marks):
        if len(mark) == 3:
            sides = [[max(mark[0] - mark[1], 0)], [max(mark[2] - mark[0], 0)]]
            look: dict[str, Any] = {"color": plots.INK, "markersize": 6, "elinewidth": 2.2, "capsize": 3, "zorder": 5}
            axis.errorbar([mark[0]], [place], xerr=sides, fmt="o", **look)
    return figure


def _cost(source: Source) -> list[tuple[str, str, Figure]]:
    found = []
    for table in source.tables:
        cells = [c for c in table.group.cells if c.ok and not c.reference]
        wanted = (
            ("train_seconds_per_step", "Seconds per training step", 1.0, True),
            ("train_peak_memory", "Peak memory of a training step (MB)", 1e-6, True),
            ("peak_memory", "Peak memory of sampling (MB)", 1e-6, False),
        )
        for column, title, scale, of_network in wanted:
            known = [c for c in cells if c.value(column) is not None]
            # A trained network is one, however many steps sample it.
            names = _names(table, known)
            named = networks(known) if of_network else {names[str(c.row["key"])]: c for c in known}
            if named:
                values = [(name, (c.value(column) or 0.0) * scale) for name, c in named.items()]
                colours = {name: _colours(table)[c.system] for name, c in named.items()}
                frame = pd.DataFrame(values, columns=["row", "score"])
                found.append((table.group.title, title, _bars(frame, colours, title)))
    return found


def _bars(frame: pd.DataFrame, colours: dict[str, Any], label: str) -> Figure:
    order = list(dict.fromkeys(frame["row"]))

    def draw(axis: Any) -> None:
        sns.barplot(
            frame,
            x="score",
            y="row",
            order=order,
            hue="row",
            palette=colours,
            saturation=1,
            legend=False,
            ax=axis,
            errorbar=None,
        )
        for container in axis.containers:
            axis.bar_label(container, fmt="%.3g", padding=3, fontsize="small", color=plots.INK)
        axis.margins(x=0.14)

    return _rows(label, len(order), draw, label)


def _time_grids(source: Source) -> list[tuple[str, str, Figure]]:
    found = []
    for grid in source.grids:
        steps = len(grid.values) - 1
        known = {told: make_grid(name, steps).tolist() for name, told in _GRIDS.items()}
        rows = [(name, value) for name, values in {grid.name: grid.values, **known}.items() for value in values]
        frame = pd.DataFrame(rows, columns=["row", "score"])
        asked = f"; {grid.evaluations} grids were tried" if grid.evaluations else ""
        found.append(("", f"{grid.name}, {steps} steps{asked}", _points_of(frame, grid.name)))
    return found


def _points_of(frame: pd.DataFrame, own: str) -> Figure:
    order = list(dict.fromkeys(frame["row"]))

    def draw(axis: Any) -> None:
        blue, grey = sns.color_palette("colorblind")[0], "#777777"
        for name in order:
            values = frame.loc[frame["row"] == name, "score"]
            axis.plot(values, [name] * len(values), "-", color="#c4c4c4", linewidth=1.2, zorder=1)
        colours = {name: blue if name == own else grey for name in order}
        sns.stripplot(
            frame,
            x="score",
            y="row",
            order=order,
            hue="row",
            palette=colours,
            jitter=False,
            size=8,
            legend=False,
            ax=axis,
        )
        axis.set_xlim(-0.04, 1.04)

    return _rows(own, len(order), draw, "t (0 is noise, 1 is data)")


def _trainings(source: Source) -> list[tuple[str, str, Figure]]:
    figures = ((t.name, training_plot.training_curves([t])) for t in source.trainings)
    return [("", name, figure) for name, figure in figures if figure is not None]
