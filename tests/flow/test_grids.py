from __future__ import annotations

import math

import pytest
import torch

from imfbench.flow.grids import EPSS_POINTS, GRIDS, GridError, epss, grid_name, make_grid, shift, sway, uniform

SPECS = ["uniform", "sway", "sway(-0.8)", "sway(1.7)", "shift", "shift(0.7)", "shift(3)", "epss"]


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("steps", [1, 2, 3, 5, 7, 12, 16, 32])
def test_every_named_grid_rises_from_0_to_1(spec: str, steps: int) -> None:
    grid = make_grid(spec, steps)
    assert grid.dtype == torch.float64
    assert grid.shape == (steps + 1,)
    assert grid[0] == 0
    assert grid[-1] == 1
    assert (grid.float().diff() > 0).all()  # also after the rounding that the network sees


def test_known_values() -> None:
    assert uniform(4).tolist() == [0, 0.25, 0.5, 0.75, 1]
    # sway(−1) is the cosine grid of CosyVoice 2
    torch.testing.assert_close(sway(10), 1 - torch.cos(math.pi / 2 * uniform(10)), rtol=0, atol=1e-15)
    torch.testing.assert_close(sway(4, 0.5)[2], torch.tensor(0.5 + 0.5 * (math.sqrt(0.5) - 0.5)).double())
    torch.testing.assert_close(sway(4, 0.0), uniform(4))
    assert shift(2, 0.5)[1].item() == pytest.approx(1 / 3)
    assert shift(2, 0.7)[1].item() == pytest.approx(0.7 / 1.7)
    expected = [1 - math.cos(math.pi / 2 * point / 32) for point in (0, 2, 4, 6, 8, 16, 24, 32)]
    torch.testing.assert_close(epss(7), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("steps", "gaps"),
    [
        (5, [2, 2, 4, 8, 16]),
        (6, [2] * 4 + [8, 16]),
        (7, [2] * 4 + [8] * 3),
        (10, [2] * 4 + [4] * 6),
        (12, [2] * 8 + [4] * 4),
        (16, [1] * 8 + [2] * 4 + [4] * 4),
    ],
)
def test_epss_tables_are_the_papers(steps: int, gaps: list[int]) -> None:
    """In 32nds, written as gaps; then sway."""
    at = torch.tensor([0, *gaps], dtype=torch.float64).cumsum(0) / 32
    torch.testing.assert_close(epss(steps), 1 - torch.cos(math.pi / 2 * at), rtol=0, atol=1e-15)


def test_epss_tables_have_as_many_steps_as_they_say_and_others_are_sway() -> None:
    for steps, points in EPSS_POINTS.items():
        assert len(points) == steps + 1
        assert not torch.allclose(epss(steps), sway(steps))
    torch.testing.assert_close(epss(8), sway(8))


def test_shifted_grids_end_at_the_data_whatever_the_rounding() -> None:
    for hundredths in range(1, 400):
        grid = make_grid(f"shift({hundredths / 100})", 4)
        assert grid[-1] == 1


def test_explicit_points() -> None:
    assert make_grid([0, 0.65, 1]).tolist() == [0, 0.65, 1]
    assert make_grid(torch.tensor([0, 0.5, 1.0])).dtype == torch.float64
    assert make_grid((0, 1), 1).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("spec", "steps", "message"),
    [
        ("swya", 4, "did you mean 'sway'"),
        ("cosine", 4, "known: uniform, sway, shift, epss"),
        ("sway(x)", 4, "not a number"),
        ("sway(-1, 2)", 4, "takes 1 argument"),
        ("uniform(2)", 4, "takes no argument"),
        ("sway", None, "needs a number of steps"),
        ("sway(-1.1)", 4, "between -1 and"),
        ("sway(1.8)", 4, "between -1 and"),
        ("shift(0)", 4, "a > 0"),
        ("uniform", 0, "at least 1 step"),
        ([0, 0.5], None, "must start at 0 .* and end at 1"),
        ([0.1, 1], None, "must start at 0"),
        ([0, 0.7, 0.6, 1], None, r"point 2 \(0.6\) does not exceed point 1 \(0.7\)"),
        ([0, 0.5, 0.5, 1], None, "must rise"),
        ([0, float("nan"), 1], None, "not finite"),
        ([0], None, "at least two points"),
        ([0, 0.5, 1], 3, "has 2 steps, but 3 were asked for"),
        (["a", "b"], None, "list of numbers"),
    ],
)
def test_a_bad_grid_says_what_is_wrong(spec: object, steps: int | None, message: str) -> None:
    with pytest.raises(GridError, match=message):
        make_grid(spec, steps)  # type: ignore[arg-type]


def test_names_are_those_of_the_values() -> None:
    assert {grid_name(spec, 1) for spec in SPECS} == {"uniform"}
    assert grid_name("epss", 8) == "sway"
    assert grid_name("sway(-1)", 8) == "sway"
    assert grid_name("epss", 7) == "epss"
    assert grid_name("shift", 4) == grid_name("shift(0.50)", 4) == grid_name(shift(4)) == "shift(0.5)"
    assert grid_name("sway( -0.8 )", 4) == "sway(-0.8)"
    assert grid_name([0, 0.5, 1]) == "uniform"
    assert grid_name(torch.tensor([0, 0.65, 1.0])) == "[0,0.65,1]"


def test_all_constructors_are_listed() -> None:
    assert set(GRIDS) == {"uniform", "sway", "shift", "epss"}
