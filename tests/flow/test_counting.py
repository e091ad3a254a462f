from __future__ import annotations

import contextlib

import pytest
import torch
from torch import Tensor, nn

from imfbench.flow.counting import CountMismatchError, Counts, count_network, declared_counts
from imfbench.flow.grids import make_grid
from imfbench.flow.solvers import SOLVERS, Velocity


class Doubling(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return 2 * z


@pytest.mark.parametrize("solver", ["euler", "midpoint"])
@pytest.mark.parametrize("guidance", [0.0, 2.0])
@pytest.mark.parametrize(("spec", "steps"), [("uniform", 1), ("sway", 7), ("epss", 6), ([0, 0.65, 1], 2)])
@pytest.mark.parametrize("batch", [1, 3])
def test_measured_is_declared(solver: str, guidance: float, spec: str | list[float], steps: int, batch: int) -> None:
    network, grid = Doubling(), make_grid(spec, steps)

    def velocity(z: Tensor, t: Tensor, r: Tensor) -> Tensor:
        return network(torch.cat([z, z]))[:batch] if guidance else network(z)

    with count_network(network) as count:
        SOLVERS[solver](count.wrap(velocity), torch.ones(batch, 2), grid)
    nfe = steps * (2 if solver == "midpoint" else 1)
    expected = Counts(steps, nfe, nfe * (2 if guidance else 1))
    assert declared_counts(grid, solver, guidance) == expected
    assert count.check(expected, batch) == expected
    assert count.calls == nfe


def test_a_sampler_that_does_not_do_what_it_declares_is_found() -> None:
    network, grid = Doubling(), make_grid("uniform", 4)
    lazy: Velocity = lambda z, t, r: network(z) if t[0] < 0.3 else z  # noqa: E731
    with count_network(network) as count:
        SOLVERS["euler"](count.wrap(lazy), torch.ones(1, 2), grid)
    with pytest.raises(CountMismatchError, match=r"network_calls=4.*network_calls=2"):
        count.check(declared_counts(grid, "euler", 0.0), 1)

    with count_network(network) as count:  # always one step, whatever the grid
        SOLVERS["euler"](count.wrap(lambda z, t, r: network(z)), torch.ones(1, 2), make_grid("uniform", 1))
    with pytest.raises(CountMismatchError, match="steps=1"):
        count.check(declared_counts(grid, "euler", 0.0), 1)


def test_rows_that_do_not_divide_among_the_samples() -> None:
    network = Doubling()
    with count_network(network) as count:
        network(torch.ones(3, 1))
    with pytest.raises(CountMismatchError, match="3 network rows"):
        count.per_sample(2)


def test_counting_ends_with_the_context_also_after_an_error() -> None:
    network = Doubling()
    with contextlib.suppress(KeyError), count_network(network) as count:
        network(torch.ones(2, 1))
        raise KeyError
    network(torch.ones(2, 1))
    assert (count.calls, count.rows) == (1, 2)


def test_two_samplings_in_one_context_count_all_their_steps() -> None:
    network, grid = Doubling(), make_grid("uniform", 1)
    with count_network(network) as count:
        for _ in range(2):
            SOLVERS["euler"](count.wrap(lambda z, t, r: network(z)), torch.ones(1, 1), grid)
    assert count.per_sample(1) == Counts(2, 2, 2)
