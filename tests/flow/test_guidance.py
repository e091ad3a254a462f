from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from imfbench.flow.guidance import drop_condition, guided, guided_velocity
from imfbench.method import Condition


def condition(rows: int, frames: int = 3, bands: int = 2) -> Condition:
    return Condition(
        torch.arange(rows * frames).view(rows, frames) + 1,
        torch.zeros(rows, frames, bands),
        torch.zeros(rows, frames, dtype=torch.bool),
        torch.ones(rows, frames, dtype=torch.bool),
        torch.zeros(rows, dtype=torch.bool),
    )


class Spy(nn.Module):
    """v(c) = tokens + t, v(∅) = −1 + t; remembers how many rows it saw and the r it was given."""

    def forward(self, z: Tensor, t: Tensor, r: Tensor | None, condition: Condition) -> Tensor:
        self.rows, self.r = len(z), r
        v = torch.where(condition.dropped[:, None], torch.tensor(-1), condition.tokens)[..., None]
        return (v + t[:, None, None]).expand_as(z).to(torch.bfloat16 if z.dtype == torch.bfloat16 else z.dtype)


def test_the_formula() -> None:
    a, b = torch.tensor([2.0]), torch.tensor([0.5])
    assert guided(a, b, 0).item() == 2
    assert guided(a, b, 2).item() == 2 + 2 * 1.5
    assert guided(a, b, -1).item() == 0.5


@pytest.mark.parametrize(("w", "rows"), [(0.0, 4), (2.0, 8), (0.7, 8)])
def test_one_pass_of_as_many_rows_as_needed(w: float, rows: int) -> None:
    spy, c = Spy(), condition(4)
    z, t = torch.zeros(4, 3, 2), torch.tensor([0.0, 0.1, 0.2, 0.3])
    v = guided_velocity(spy, z, t, c, w)
    assert spy.rows == rows
    assert spy.r is None
    expected = (c.tokens + w * (c.tokens + 1) + t[:, None])[..., None]
    torch.testing.assert_close(v, expected.expand_as(v))


def test_the_second_time_is_doubled_as_well() -> None:
    spy, r = Spy(), torch.tensor([0.5, 1.0])
    guided_velocity(spy, torch.zeros(2, 3, 2), torch.zeros(2), condition(2), 1.0, r)
    assert spy.r is not None
    assert spy.r.tolist() == [0.5, 1, 0.5, 1]


def test_a_low_precision_network_gives_float32() -> None:
    z = torch.zeros(1, 3, 2, dtype=torch.bfloat16)
    for w in (0.0, 2.0):
        assert guided_velocity(Spy(), z, torch.zeros(1), condition(1), w).dtype == torch.float32


def test_dropping_hits_the_asked_share_and_keeps_what_was_dropped() -> None:
    g = torch.Generator().manual_seed(0)
    c = condition(4000)
    assert drop_condition(c, 0.2, g).dropped.float().mean().item() == pytest.approx(0.2, abs=0.03)
    assert not drop_condition(c, 0.0, g).dropped.any()
    assert drop_condition(c.drop(), 0.1, g).dropped.all()


def test_the_other_draws_of_a_step_do_not_depend_on_the_probability() -> None:
    after = []
    for probability in (0.0, 0.5):
        g = torch.Generator().manual_seed(7)
        drop_condition(condition(5), probability, g)
        after.append(torch.rand(3, generator=g))
    torch.testing.assert_close(*after)
