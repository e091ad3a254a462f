"""Pictures of a run: quality against NFE, and quality against the real-time factor with the Pareto front."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from imfbench.reports.columns import Quality, qualities
from imfbench.reports.grouping import Group, labels
from imfbench.reports.results import Cell
from imfbench.reports.speeds import speed_setting
from imfbench.store import atomic, natural

Label = tuple[float, float, str]
"""A point in data coordinates and the text beside it."""

INK = "#333333"
_MARKERS = "sD^vPX<>p*"
_VARIANTS: tuple[dict[str, Any], ...] = (
    {"linestyle": "-"},
    {"linestyle": "--", "markerfacecolor": "white"},
    {"linestyle": ":", "fillstyle": "left", "markerfacecoloralt": "white"},
    {"linestyle": "-.", "fillstyle": "bottom", "markerfacecoloralt": "white"},
)
_REFERENCE_LINES = {"ground-truth": (0, (6, 3)), "vocoded-ground-truth": (0, (1, 1.5))}
_SCOPES = {"rtf_total": "RTF of network and vocoder (s/s)", "rtf_network": "RTF of the network alone (s/s)"}


@dataclass(frozen=True)
class Block:
    """One titled block of panels: the rows it shows, a figure a column, an x axis a row (or wrapped, with one x axis)."""

    title: str
    group: Group
    panels: list[Quality]
    scopes: list[str]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of panels."""
        if len(self.scopes) > 1:
            return len(self.scopes), len(self.panels)
        columns = len(self.panels) if len(self.panels) <= 3 else 2 if len(self.panels) == 4 else 3
        return math.ceil(len(self.panels) / columns), columns


def pareto_front(points: Sequence[tuple[float, float]], better: str) -> list[int]:
    """Indices of the points (cost, quality) that no other point beats, by rising cost.

    A point is beaten by one that costs no more and is no worse, and differs in one of the two.

    Args:
        points: Cost (lower is better) and quality of each point.
        better: Whether a "lower" or a "higher" quality is better.
    """
    sign = 1.0 if better == "lower" else -1.0
    signed = [(cost, sign * value) for cost, value in points]

    def beaten(p: tuple[float, float]) -> bool:
        return any(q[0] <= p[0] and q[1] <= p[1] and q != p for q in signed)

    return sorted((i for i, p in enumerate(signed) if not beaten(p)), key=lambda i: signed[i])


def quality_against_nfe(groups: Sequence[Group]) -> Figure | None:
    """Each quality figure against NFE with 95 % intervals, recordings as lines; None if nothing was sampled."""
    return _figure(_nfe_blocks(groups), _draw_nfe)


def _nfe_blocks(groups: Sequence[Group]) -> list[Block]:
    return [Block(g.title, g, _panels(g, "nfe", directed=False), ["nfe"]) for g in groups]


def quality_against_rtf(groups: Sequence[Group]) -> Figure | None:
    """WER, SIM and MOS against the real-time factor, with the Pareto front; None if no speed was timed.

    Speeds compare under one device, thread count and batch size only, so each such setting has a block of its own.
    """
    return _figure(_rtf_blocks(groups), _draw_rtf)


def single_panels(
    groups: Sequence[Group], against: Literal["nfe", "rtf"], scopes: Sequence[str] = ("nfe", *_SCOPES)
) -> list[tuple[str, str, Figure]]:
    """The panels of one of the two pictures, a figure each, for places whose width is not known beforehand.

    Args:
        groups: Rows that may stand together.
        against: Which of the pictures.
        scopes: Columns of the x axis that are wanted.

    Returns:
        For each panel the title of its block, the figure's title, and the figure.
    """
    blocks, draw = (_nfe_blocks(groups), _draw_nfe) if against == "nfe" else (_rtf_blocks(groups), _draw_rtf)
    found = []
    for block in blocks:
        for scope in (scope for scope in block.scopes if scope in scopes):
            for quality in block.panels:
                one = replace(block, title="", panels=[quality], scopes=[scope])
                if (figure := _figure([one], draw, narrowest=4.8)) is not None:
                    found.append((block.title, quality.title, figure))
    return found


def _rtf_blocks(groups: Sequence[Group]) -> list[Block]:
    blocks = []
    for group in groups:
        recordings = [c for c in group.cells if c.reference]
        settings: dict[str, list[Cell]] = {}
        for cell in group.cells:
            if not cell.reference and cell.value("rtf_total"):
                settings.setdefault(speed_setting(cell), []).append(cell)
        for setting, cells in settings.items():
            part = Group(group.task, group.dataset, [*recordings, *cells], group.part, group.parts)
            scopes = [s for s in _SCOPES if any(c.ok and c.value(s) for c in cells)]
            title = f"{group.title}; timed on {setting}; figures beside points are NFE"
            blocks.append(Block(title, part, _panels(part, "rtf_total", directed=True), scopes))
    return blocks


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write ``stem.png`` and ``stem.svg``, whole or not at all; the same figure gives the same bytes."""
    paths = []
    kinds: tuple[tuple[str, dict[str, None]], ...] = (
        ("png", {"Software": None}),
        ("svg", {"Date": None, "Creator": None}),
    )
    with mpl.rc_context({"svg.hashsalt": stem.name}):
        for kind, metadata in kinds:
            paths.append(stem.with_suffix(f".{kind}"))
            with atomic(paths[-1]) as temporary:
                figure.savefig(temporary, format=kind, dpi=150, metadata=metadata)
    return paths


def themed(draw: Callable[[], Figure]) -> Figure:
    """Run ``draw`` under the common look, leaving matplotlib's global settings as they were."""
    look = {**sns.axes_style("whitegrid"), **sns.plotting_context("notebook", font_scale=0.85)}
    look |= {"axes.edgecolor": "#999999", "grid.color": "#e4e4e4", "axes.linewidth": 0.9, "text.color": INK}
    look |= {"axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK}
    with mpl.rc_context(look):
        return draw()


def _panels(group: Group, x: str, directed: bool) -> list[Quality]:
    sampled = [c for c in group.cells if c.ok and not c.reference and c.value(x)]
    shown = [q for q in qualities([c.row for c in group.cells]) if q.better or not directed]
    return [q for q in shown if any(c.value(q.name) is not None for c in sampled)]


Draw = Callable[[Axes, Group, Quality, str, dict[str, dict[str, Any]]], list[Label]]


def _figure(blocks: Sequence[Block], draw: Draw, narrowest: float = 6.5) -> Figure | None:
    """All blocks with anything to show, one beneath the other, each with its title and legend."""
    blocks = [b for b in blocks if b.panels]
    if not blocks:
        return None

    def build() -> Figure:
        heights = [3.0 * b.shape[0] + 1.1 for b in blocks]
        width = 4.0 * max(b.shape[1] for b in blocks) + 0.8
        layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)
        figure = Figure(figsize=(max(width, narrowest), sum(heights)), layout=layout)
        parts = figure.subfigures(len(blocks), 1, height_ratios=heights, squeeze=False)[:, 0]
        pending: list[tuple[Axes, list[Label]]] = []
        for part, block in zip(parts, blocks, strict=True):
            if block.title:
                # A letter of a title takes about a tenth of an inch.
                part.suptitle(
                    textwrap.fill(block.title, round(10 * max(width, narrowest))), fontsize="medium", fontweight="bold"
                )
            axes = part.subplots(*block.shape, squeeze=False).ravel()
            wanted = [(quality, scope) for scope in block.scopes for quality in block.panels]
            styles = _styles(block.group)
            for axis, (quality, scope) in zip(axes, wanted, strict=False):
                pending.append((axis, draw(axis, block.group, quality, scope, styles)))
            for axis in axes[len(wanted) :]:
                axis.set_axis_off()
            _legend(part, axes[: len(wanted)])
        figure.draw_without_rendering()  # settles the layout, on which the places of the labels depend
        for axis, texts in pending:
            _place_labels(axis, texts, figure.dpi / 72)
        return figure

    return themed(build)


def _styles(group: Group) -> dict[str, dict[str, Any]]:
    """Line name → look: colour and marker by system (the teacher dark), dashes and filling by variant of the system."""
    names = labels(c for c in group.cells if not c.reference)
    models = [c for c in group.cells if not c.reference]
    teachers = {names[str(c.row["key"])] for c in models if c.teacher}
    system_of = {names[str(c.row["key"])]: "" if c.teacher else c.system for c in models}
    others = sorted(set(system_of.values()) - {""}, key=natural)
    palette = sns.color_palette("colorblind", max(len(others), 1))
    styles: dict[str, dict[str, Any]] = {}
    for name, system in system_of.items():
        i = others.index(system) if system in others else 0
        variant = sum(system_of[n] == system for n in styles)
        color = INK if name in teachers else palette[i % len(palette)]
        marker = "o" if name in teachers else _MARKERS[i % len(_MARKERS)]
        styles[name] = {"color": color, "marker": marker, **_VARIANTS[variant % len(_VARIANTS)]}
    return styles


def _legend(part: SubFigure, axes: Iterable[Axes]) -> None:
    found: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    widest = 4 if part.bbox.width / part.figure.dpi > 6 else 3 if max(map(len, found)) < 14 else 2
    columns = min(len(found), widest if max(map(len, found)) < 28 else 2)
    part.legend(
        found.values(), found.keys(), loc="outside lower center", ncols=columns, fontsize="small", frameon=False
    )


def _lines(group: Group, quality: Quality, x: str) -> dict[str, list[Cell]]:
    names = labels(c for c in group.cells if not c.reference)
    lines: dict[str, list[Cell]] = {}
    for cell in group.cells:
        if cell.ok and not cell.reference and cell.value(x) and cell.value(quality.name) is not None:
            lines.setdefault(names[str(cell.row["key"])], []).append(cell)
    return {name: sorted(cells, key=lambda c: c.value(x) or 0) for name, cells in lines.items()}


def _draw_nfe(axis: Axes, group: Group, quality: Quality, scope: str, styles: dict[str, dict[str, Any]]) -> list[Label]:
    lines = _lines(group, quality, scope)
    at: dict[int, list[str]] = {}
    for name, cells in lines.items():
        for cell in cells:
            at.setdefault(int(cell.value(scope) or 1), []).append(name)
    for name, cells in lines.items():
        nfe = [int(c.value(scope) or 1) for c in cells]
        # Points of equal NFE stand a little beside each other, so that their intervals can be told apart.
        x = [n * 2 ** _beside(at[n].index(name), len(at[n])) for n in nfe]
        y = np.array([c.value(quality.name) for c in cells], dtype=float) * quality.scale
        low = np.array([c.value(quality.low) for c in cells], dtype=float) * quality.scale
        high = np.array([c.value(quality.high) for c in cells], dtype=float) * quality.scale
        sides = np.nan_to_num(np.maximum([y - low, high - y], 0.0))
        axis.errorbar(x, y, sides, label=name, capsize=2.5, elinewidth=1.1, linewidth=1.5, markersize=6, **styles[name])
    _reference_lines(axis, group, quality)
    _scale_quality(axis, group, quality)
    _scale_nfe(axis, sorted(at))
    return []


def _beside(i: int, count: int) -> float:
    """Shift of the i-th of ``count`` points, in octaves; together they stay clear of the next NFE."""
    return min(0.11, 0.3 / max(count - 1, 1)) * (i - (count - 1) / 2)


def _draw_rtf(axis: Axes, group: Group, quality: Quality, scope: str, styles: dict[str, dict[str, Any]]) -> list[Label]:
    texts: list[Label] = []
    lines = _lines(group, quality, scope)
    for name, cells in lines.items():
        points = [(c.value(scope) or 0.0, (c.value(quality.name) or 0.0) * quality.scale) for c in cells]
        texts += [(*p, f"{c.value('nfe') or 0:g}") for p, c in zip(points, cells, strict=True)]
        look = {**styles[name], "linestyle": ""}
        look |= {"markeredgecolor": "white"} if styles[name]["linestyle"] == "-" else {}
        axis.plot(*zip(*points, strict=True), markersize=8, label=name, zorder=3, **look)
    if texts:
        front = [texts[i][:2] for i in pareto_front([t[:2] for t in texts], quality.better)]
        axis.step(
            *zip(*front, strict=True), where="post", color="#c4c4c4", linewidth=4, label="Pareto front", zorder=1.5
        )
        low, high = (end(t[0] for t in texts) for end in (min, max))
        pad = max((high / low) ** 0.1, 1.1)
        axis.set_xscale("log")
        axis.set_xlim(low / pad, high * pad)
        _plain_log_ticks(axis, "x", (low / pad, high * pad))
    _reference_lines(axis, group, quality)
    _scale_quality(axis, group, quality)
    axis.set_xlabel(_SCOPES[scope])
    return texts


def _reference_lines(axis: Axes, group: Group, quality: Quality) -> None:
    for cell in group.cells:
        value = cell.value(quality.name)
        if cell.reference and cell.ok and value is not None:
            look: dict[str, Any] = {"color": "#777777", "linewidth": 1.2, "linestyle": _REFERENCE_LINES[cell.recording]}
            axis.axhline(value * quality.scale, label=cell.system.replace("-", " "), zorder=1, **look)


def _scale_quality(axis: Axes, group: Group, quality: Quality) -> None:
    values = [v * quality.scale for c in group.cells if c.ok and (v := c.value(quality.name)) is not None]
    axis.set_ylabel(quality.label)
    axis.set_title({"lower": "lower is better", "higher": "higher is better", "": ""}[quality.better], fontsize="small")
    if quality.unit == "%" and min(values) > 0 and max(values) > 8 * min(values):
        axis.set_yscale("log")
        axis.set_ylim(bottom=min(values) / 1.6)
        _plain_log_ticks(axis, "y", axis.get_ylim())
        axis.set_ylabel(f"{quality.label}, log scale")
    elif quality.unit == "%":
        axis.set_ylim(0, max(axis.get_ylim()[1], 1.1 * max(values)) or 1)


def _plain_log_ticks(axis: Axes, which: str, ends: tuple[float, float]) -> None:
    """Ticks at 1, 2, 5 of each decade (more where the axis spans little), written as plain numbers."""
    side = axis.xaxis if which == "x" else axis.yaxis
    subs = (1.0, 2.0, 5.0) if ends[1] > 6 * ends[0] else (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)
    side.set_major_locator(LogLocator(subs=subs))
    side.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    side.set_minor_formatter(NullFormatter())


def _scale_nfe(axis: Axes, present: Sequence[int]) -> None:
    """A base-2 axis with whole numbers at its ticks: the NFE that occur, powers of two first where they stand close."""
    axis.set_xscale("log", base=2)
    ticks: list[int] = []
    for nfe in sorted(present, key=lambda n: (n & (n - 1) != 0, n)):
        if all(abs(math.log2(nfe / tick)) > 0.3 for tick in ticks):
            ticks.append(nfe)
    axis.xaxis.set_major_locator(FixedLocator(sorted(ticks)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xlim(min(present) / 1.35, max(present) * 1.35)
    axis.set_xlabel("NFE (velocity evaluations per sample)")


def _place_labels(axis: Axes, texts: Sequence[Label], per_point: float) -> None:
    """Write each text beside its point, on the side where it covers least of the others (pixels ``per_point``)."""
    size = 7.5
    spots = [axis.transData.transform((x, y)) / per_point for x, y, _ in texts]
    inside = np.asarray(axis.bbox.extents) / per_point
    taken = [np.array([*(spot - 4.5), *(spot + 4.5)]) for spot in spots]
    sides = [(0, 1), (1, 0), (0, -1), (-1, 0), (0.8, 0.8), (0.8, -0.8), (-0.8, -0.8), (-0.8, 0.8)]
    for (x, y, text), spot in zip(texts, spots, strict=True):
        half = np.array([0.32 * size * len(text), 0.4 * size])
        offsets = [np.array(side) * (half + 6.0) for side in sides]
        boxes = [np.array([*(spot + offset - half), *(spot + offset + half)]) for offset in offsets]
        outside = [bool((box[:2] < inside[:2]).any() or (box[2:] > inside[2:]).any()) for box in boxes]
        cost = [sum(_overlap(b, t) for t in taken) + 1e3 * out for b, out in zip(boxes, outside, strict=True)]
        best = int(np.argmin(cost))
        taken.append(boxes[best])
        note = axis.annotate(text, (x, y), tuple(offsets[best]), textcoords="offset points", fontsize=size, zorder=4)
        note.set(ha="center", va="center", in_layout=False, path_effects=[withStroke(linewidth=2, foreground="white")])


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0.0)))
