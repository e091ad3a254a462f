"""Estimates on fake tensors: known answers, what needs values, and the factor to what is measured."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from imfbench.metrics.memory import LiveTensors, peak_memory
from imfbench.profiling import Size, System, estimate, profile, profile_step, steps, systems_of
from imfbench.profiling.fake import NoEstimateError
from imfbench.profiling.steps import Step
from imfbench.registry import METHODS

CPU = torch.device("cpu")
FACTOR = 1.02
"""How far the estimate may be from what is measured; docs/profiling.md says so."""


def followed(make: Any, twice: bool = False) -> Any:
    """The estimate of ``make() → run``; a method's network is not needed."""

    def build() -> Step:
        run = make()
        return Step(run, run if twice else lambda: None, SimpleNamespace(network=nn.Linear(2, 2, bias=False)), 1)  # type: ignore[arg-type]

    return estimate(build, CPU)


def test_a_product_has_its_known_cost() -> None:
    def make() -> Any:
        a, b = torch.zeros(30, 500), torch.zeros(500, 700)
        return lambda: (a @ b).sum()

    found = followed(make)
    assert found.flops == 2 * 30 * 500 * 700
    assert found.peak_memory == 4 * (30 * 500 + 500 * 700 + 30 * 700 + 1)
    assert found.parameters == 4


def test_attention_counts_whichever_kernel_it_takes() -> None:
    def make(grad: bool) -> Any:
        q = torch.zeros(2, 4, 64, 16, requires_grad=grad)
        return lambda: nn.functional.scaled_dot_product_attention(q, q, q)

    forward = 2 * 2 * (2 * 4) * 64 * 64 * 16  # two products of n² · channels for each head
    assert followed(lambda: make(False)).flops == forward

    def with_backward() -> Any:
        attend = make(True)
        return lambda: attend().sum().backward()

    assert followed(with_backward).flops == 3.5 * forward  # the scores are computed again: five products


def test_a_jvp_with_a_gradient_costs_what_torch_counts_when_it_runs() -> None:
    def make() -> Any:
        layers, x = nn.Sequential(nn.Linear(64, 32), nn.GELU(), nn.Linear(32, 64)), torch.zeros(8, 64)

        def run() -> None:
            value, tangent = torch.func.jvp(layers, (x,), (x,))
            (value - tangent.detach()).square().sum().backward()

        return run

    real = make()
    with FlopCounterMode(display=False) as counted:
        real()
    with peak_memory("cpu") as peak:
        real()  # gradients are there already, as in the estimate's second pass
    found = followed(make, twice=True)
    assert (found.flops, found.peak_memory) == (counted.get_total_flops(), peak.bytes)


def test_values_are_real_where_they_are_drawn_and_large_draws_are_not() -> None:
    drawn: list[float] = []

    def make() -> Any:
        z = torch.zeros(4, 100)

        def run() -> Tensor:
            generator = torch.Generator().manual_seed(0)
            times = torch.rand(4, generator=generator)
            drawn.append(float(times[0]))
            z[times < 2] = 0.5 * z[times < 2]  # all four rows: the mask has values
            assert float(z.sum()) == 1, "a value of a fake tensor is answered by 1"
            return torch.randn(10**6, 10**6, generator=generator) + z[0, 0]

        return run

    found = followed(make)
    assert drawn == [float(torch.rand(4, generator=torch.Generator().manual_seed(0))[0])]
    assert found.peak_memory > 2 * 4 * 10**12, "4 TB that nobody has"


def test_a_step_whose_shapes_hang_on_values_is_told() -> None:
    def make() -> Any:
        z = torch.zeros(4, 100)
        return lambda: z[z > 0].sum()

    with pytest.raises(NoEstimateError, match="cannot follow"):
        followed(make)


def test_modules_can_be_moved_again_afterwards() -> None:
    followed(lambda: lambda: torch.zeros(3) + 1)
    assert nn.Linear(2, 2).to(torch.float64).weight.dtype is torch.float64


def test_the_account_is_of_one_type_of_device() -> None:
    with LiveTensors("meta") as elsewhere, peak_memory("cpu") as here:
        kept = torch.zeros(1000), torch.zeros(10, device="meta")
    assert (elsewhere.peak, here.bytes) == (40, 4000)
    del kept


def test_pairs_that_are_made_once_are_paid_by_the_steps_that_take_them() -> None:
    """ReFlow's step is flow matching's; of the pairs' cost each step bears its share."""
    reflow = {passes: System("reflow", {"passes": passes, "teacher_nfe": 3}) for passes in (0, 1, 4)}
    plain, *others = profile(
        [System("teacher"), *reflow.values()], [Size(20, 2, width=64, depth=1)], estimates="only", device="cpu"
    )
    each_step_anew, once, four_times = (row["flops"] - plain["flops"] for row in others)
    assert each_step_anew == once > 0
    assert four_times == pytest.approx(once / 4, rel=1e-5)


def test_the_seconds_of_a_step_have_the_share_of_what_is_made_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []

    def timed(work: Any, *_: Any) -> list[float]:
        work()
        return [{"step": 3.0, "pair": 8.0}[taken[-1]]]

    monkeypatch.setattr(steps, "time_passes", timed)
    network: Any = SimpleNamespace(network=nn.Linear(2, 2))
    step = Step(lambda: taken.append("step"), lambda: None, network, 1, lambda: taken.append("pair"), share=0.25)
    assert step.seconds(CPU) == 5.0
    assert taken == ["pair", "step"]


TRAINED = [name for name in METHODS if METHODS.get(name).needs.training]
FURTHER = {"intmeanflow": [System("intmeanflow", {"teacher_nfe": 2, "on_trajectory": 0.5, "trajectory_nfe": 2})]}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("stage", ["training", "sampling"])
@pytest.mark.parametrize("method", TRAINED)
def test_the_estimate_is_near_what_is_measured(method: str, stage: Any, precision: Any) -> None:
    """Each method that trains a network, with each of its variants."""
    systems = systems_of([method], None, stage) + FURTHER.get(method, [])
    sizes = Size(90, 3, width=64, depth=2), Size(61, 2, "f5-base", width=64, depth=1)
    rows = profile(systems, sizes, stage, nfe=2, device="cpu", precision=precision, warmup=0, repeats=1)
    assert len(rows) == len(systems) * len(sizes)
    for row in rows:
        assert row["measured"], row["note"]
        assert 1 / FACTOR < row["estimated_memory"] / row["peak_memory"] < FACTOR, row


@pytest.mark.gpu
def test_the_estimate_is_near_what_an_accelerator_allocates() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no accelerator here")
    row = profile_step("intmeanflow", {"teacher_nfe": 2}, Size(1000, 8), device="cuda")
    assert row["peak_memory_kind"] == "cuda-peak-allocated"
    assert 0.67 < row["estimated_memory"] / row["peak_memory"] < 1.5
