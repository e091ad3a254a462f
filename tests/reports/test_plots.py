"""Pareto front, axes, marks and labels of the pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from imfbench.reports.grouping import group_cells
from imfbench.reports.plots import pareto_front, quality_against_nfe, quality_against_rtf, save
from imfbench.reports.results import read_run
from imfbench.reports.training_plot import training_curves

EVEN = np.tile([0.0, 0.02], 6)


def panels(block: Any) -> list[Any]:
    return [axis for axis in block.axes if axis.axison]


def test_the_pareto_front_of_a_known_set() -> None:
    points = [(1.0, 0.5), (2.0, 0.4), (3.0, 0.45), (4.0, 0.1), (1.0, 0.6), (5.0, 0.1)]
    assert pareto_front(points, "lower") == [0, 1, 3]
    assert pareto_front([(cost, -value) for cost, value in points], "higher") == [0, 1, 3]


@pytest.mark.parametrize("better", ["lower", "higher"])
def test_the_pareto_front_is_what_nothing_beats(better: str) -> None:
    points = [(float(x), float(y)) for x, y in np.random.default_rng(0).integers(0, 12, (60, 2))]
    front = set(pareto_front(points, better))
    sign = 1 if better == "lower" else -1
    for i, (x, y) in enumerate(points):
        beaten = any((a < x and sign * b <= sign * y) or (a <= x and sign * b < sign * y) for a, b in points)
        assert (i in front) is not beaten


def test_equal_points_share_the_front_and_one_point_is_one() -> None:
    assert pareto_front([(1.0, 1.0), (1.0, 1.0)], "lower") == [0, 1]
    assert pareto_front([(1.0, 1.0)], "higher") == [0]
    assert pareto_front([], "higher") == []


def test_nfe_has_whole_numbers_on_a_base_2_axis(run: Any) -> None:
    for nfe in (1, 2, 3, 32):
        run.cell("teacher", nfe, {"sim": 0.7 + EVEN + nfe / 1000})
    run.cell("meanflow", 2, {"sim": 0.7 + EVEN})
    run.cell("ground-truth", scores={"sim": 0.9 + EVEN})
    figure = quality_against_nfe(group_cells(read_run(run.path).cells))
    assert figure is not None
    (axis,) = panels(figure)
    assert axis.get_xscale() == "log"
    assert axis.xaxis.get_transform().base == 2
    assert [label.get_text() for label in axis.get_xticklabels()] == ["1", "2", "3", "32"]
    assert axis.get_xlabel().startswith("NFE")
    assert axis.get_ylabel() == "SIM-o"
    assert set(axis.get_legend_handles_labels()[1]) == {"teacher", "meanflow", "ground truth"}


def test_nothing_sampled_or_timed_gives_no_picture(run: Any) -> None:
    run.cell("ground-truth", scores={"sim": EVEN})
    run.cell("meanflow", 2, status="diverged", n_expected=12)
    groups = group_cells(read_run(run.path).cells)
    assert quality_against_nfe(groups) is None
    assert quality_against_rtf(groups) is None
    assert training_curves([]) is None


def test_speeds_of_different_settings_have_panels_of_their_own(run: Any) -> None:
    for threads, rtf in ((1, 0.4), (2, 0.2)):
        for nfe in (1, 2):
            changes = {"threads": threads, "rtf_total": rtf * nfe, "rtf_network": 0.1 * nfe, "key": f"{threads}-{nfe}"}
            run.cell("teacher", nfe, {"sim": 0.7 + EVEN + nfe / 100, "f0cv": EVEN}, **changes)
    figure = quality_against_rtf(group_cells(read_run(run.path).cells))
    assert figure is not None
    assert len(figure.subfigs) == 2
    assert [len(panels(block)) for block in figure.subfigs] == [2, 2], "network with vocoder, network alone"
    assert "1 thread, batch 1" in figure.subfigs[0].get_suptitle()
    (total, network) = panels(figure.subfigs[1])
    fronts = [axis for axis in (total, network) if "Pareto front" in axis.get_legend_handles_labels()[1]]
    assert len(fronts) == 2
    step = next(line for line in total.lines if line.get_label() == "Pareto front")
    assert list(step.get_xdata()) == [0.2, 0.4]


def test_figures_beside_points_do_not_overlap(run: Any) -> None:
    rng = np.random.default_rng(4)
    for i in range(12):
        system = ("teacher", "meanflow", "intmeanflow")[i % 3]
        run.cell(system, 2 ** (i // 3), {"sim": rng.normal(0.7, 0.1) + EVEN}, rtf_total=rng.uniform(0.1, 0.3))
    figure = quality_against_rtf(group_cells(read_run(run.path).cells))
    assert figure is not None
    figure.draw_without_rendering()
    (axis,) = panels(figure)
    boxes = [text.get_window_extent() for text in axis.texts]
    assert len(boxes) == 12
    overlaps = [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]
    assert overlaps == []
    assert all(axis.bbox.contains(*corner) for box in boxes for corner in box.corners())


def test_divergence_is_marked_where_it_happened(run: Any) -> None:
    run.training("good", np.linspace(1, 0.5, 60), np.ones(60))
    run.training("bad", [*np.ones(50), np.inf, np.nan], [*np.ones(50), 1e5, np.nan], status="diverged", steps=52)
    figure = training_curves(read_run(run.path).trainings)
    assert figure is not None
    bad, good = figure.subfigs
    assert "diverged" in bad.get_suptitle()
    assert "diverged" not in good.get_suptitle()
    for axis, broken in zip(bad.axes, ([51, 52], [52]), strict=True):
        names = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
        assert list(names["diverged at step 52"].get_xdata()) == [52, 52]
        assert list(names["not finite"].get_xdata()) == broken
    assert [axis.get_ylabel() for axis in good.axes] == ["Loss", "Gradient norm"]


def test_a_log_without_gradient_norms_or_with_many_lines_is_drawn(run: Any, tmp_path: Any) -> None:
    run.training("long", 1 / np.arange(1, 3001), np.ones(3000))
    log = run.path / "artefacts" / "long" / "log.csv"
    log.write_text("\n".join(line.rsplit(",", 2)[0] for line in log.read_text().splitlines()))
    figure = training_curves(read_run(run.path).trainings)
    assert figure is not None
    loss, norm = figure.subfigs[0].axes
    assert "lowest to highest of 7" in loss.get_legend_handles_labels()[1]
    assert norm.texts[0].get_text() == "no finite value was logged"
    assert [path.suffix for path in save(figure, tmp_path / "training")] == [".png", ".svg"]
