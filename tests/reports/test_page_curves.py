"""The page's pictures of costs and differences: every bar is one measurement, every row one pair that was tested."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from imfbench.reports.across import compare
from imfbench.reports.page.curves import _cost, _differences
from imfbench.reports.page.sources import Source, of_run, of_tables

N = 24
DRAW = np.random.default_rng(5).normal(0, 0.02, (4, N))
SECONDS = "Seconds per training step"


def bars(source: Source) -> dict[str, dict[str, float]]:
    """Title → name of each bar → its length."""
    found = {}
    for _, title, figure in _cost(source):
        axis = figure.axes[0]
        widths = [patch.get_width() for container in axis.containers for patch in container]
        found[title] = dict(zip(names(figure), widths, strict=True))
    return found


def names(figure: Figure) -> list[str]:
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def test_networks_of_one_system_have_bars_of_their_own(run: Any) -> None:
    for seed, seconds in ((0, 1.0), (1, 3.0)):
        for nfe in (1, 2):
            own = {"train_seed": seed, "artefact_sha256": f"{seed}" * 64, "key": f"s{seed}-{nfe}"}
            run.cell("mine", nfe, {"sim": 0.8 + DRAW[0]}, train_seconds_per_step=seconds, **own)
    run.cell("other", 1, {"sim": 0.8 + DRAW[1]}, train_seconds_per_step=2.0)
    assert bars(of_run(run.path))[SECONDS] == {
        "mine, training seed 0": 1.0,
        "mine, training seed 1": 3.0,
        "other": 2.0,
    }


def test_rows_without_a_hash_are_not_taken_for_one_network(run: Any) -> None:
    for system, seconds in (("one", 1.0), ("two", 2.0)):
        run.cell(system, 1, {"sim": 0.8 + DRAW[0]}, train_seconds_per_step=seconds)
    for k, seconds in ((2, 3.0), (4, 4.0)):
        run.cell("three", 1, {"sim": 0.8 + DRAW[0]}, train_seconds_per_step=seconds, teacher_nfe=k, key=f"k{k}")
    assert bars(of_run(run.path))[SECONDS] == {"one": 1.0, "two": 2.0, "three, K 2": 3.0, "three, K 4": 4.0}


def points(figure: Figure) -> list[float]:
    """The points that mark what was tested."""
    marks = [container for container in figure.axes[0].containers if isinstance(container, ErrorbarContainer)]
    return [float(mark.lines[0].get_xdata()[0]) for mark in marks]


def test_students_of_two_noise_seeds_are_drawn_as_means_over_them(run: Any) -> None:
    for seed in (0, 1):
        run.cell("teacher", 32, {"sim": 0.8 + DRAW[seed]}, noise_seed=seed)
        run.cell("mine", 1, {"sim": 0.7 - 0.1 * seed + DRAW[2 + seed]}, noise_seed=seed)
    ((_, title, figure),) = _differences(of_run(run.path))
    assert title == "SIM-o, against teacher at NFE 32"
    assert names(figure) == ["mine at NFE 1"]
    wanted = -0.15 + (DRAW[2] + DRAW[3] - DRAW[0] - DRAW[1]) / 2
    drawn = np.concatenate([c.get_offsets()[:, 0] for c in figure.axes[0].collections if len(c.get_offsets()) == N])
    assert np.allclose(np.sort(drawn), np.sort(wanted))
    assert points(figure) == [pytest.approx(wanted.mean())]


def test_rows_of_two_runs_and_recordings_are_drawn_against_what_they_were_tested_against(
    run: Any, tmp_path: Path
) -> None:
    other = type(run)(tmp_path / "other")
    run.cell("mine", 1, {"sim": 0.8 + DRAW[0]})
    for place, shift in ((run, 0.0), (other, 0.1)):
        place.cell("theirs", None, {"sim": 0.7 + shift + DRAW[1]}, kind="recordings")
    ((_, title, figure),) = _differences(of_tables("both", compare([run.path, other.path])))
    assert title == "SIM-o"
    assert names(figure) == [
        "theirs (trial) − mine at NFE 1",
        "theirs (other) − mine at NFE 1",
        "theirs (other) − theirs (trial)",
    ]
    assert points(figure)[2] == pytest.approx(0.1)
    ((_, title, figure),) = _differences(of_tables("both", compare([run.path, other.path], baseline="mine")))
    assert (title, names(figure)) == ("SIM-o, against mine at NFE 1", ["theirs (trial)", "theirs (other)"])
    scored = type(run)(tmp_path / "scored")
    for system, place in (("first", 0), ("second", 1)):
        scored.cell(system, None, {"sim": 0.7 + DRAW[place]}, kind="recordings")
    ((_, title, figure),) = _differences(of_run(scored.path))
    assert (title, names(figure)) == ("SIM-o, against first", ["second"])
