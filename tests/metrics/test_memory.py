from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from imfbench.metrics.memory import CPU_KIND, LiveTensors, peak_memory

MEGA = 2**20


def block(megabytes: float = 1) -> Tensor:
    return torch.zeros(int(megabytes * MEGA) // 4)


def layers(depth: int) -> nn.Sequential:
    """Linear layers of width 256 without bias: each weight is 256 kB."""
    return nn.Sequential(*(nn.Linear(256, 256, bias=False) for _ in range(depth)))


def test_a_chain_of_sums_needs_three_blocks_at_a_time() -> None:
    with peak_memory("cpu") as peak:
        a, b = block(), block()
        for _ in range(10):
            a = a + b
    assert (peak.bytes, peak.kind) == (3 * MEGA, CPU_KIND)


def test_results_that_are_kept_add_up() -> None:
    with peak_memory("cpu") as peak:
        kept = [block(size) for size in (1, 2, 0.5)]
        kept.append(kept[0] + 1)
    assert peak.bytes == 4.5 * MEGA


def test_freed_memory_is_subtracted() -> None:
    mode = LiveTensors()
    with mode:
        a = block(8)
        assert mode.live == 8 * MEGA
        del a
        assert mode.live == 0
        b = block(3)
        assert (mode.live, mode.peak) == (3 * MEGA, 8 * MEGA)
    del b
    assert mode.live == 0, "also after the block"


def test_views_and_work_in_place_cost_nothing() -> None:
    with peak_memory("cpu") as peak:
        a = block(4)
        b = a.view(2, -1).t()[:100]
        c = a.reshape(-1, 8).unflatten(0, (-1, 2)).detach()
        a.add_(1).mul_(2)
        c.exp_()
    assert peak.bytes == 4 * MEGA
    del b


def test_a_view_keeps_its_whole_storage_alive() -> None:
    mode = LiveTensors()
    with mode:
        a = block(4)
        last = a[-1:]
        del a
        assert mode.live == 4 * MEGA
        del last
        assert mode.live == 0


def test_what_was_there_before_counts_from_the_beginning_if_it_takes_part() -> None:
    weight, bystander = block(2), block(64)
    with peak_memory("cpu") as peak:
        first = block(5)
        del first
        second = weight + 1
    # While `first` was alive, so was `weight`.
    assert peak.bytes == 7 * MEGA
    del second, bystander


def test_a_storage_that_grows_is_followed() -> None:
    with peak_memory("cpu") as peak:
        a = block(1)
        a.resize_(3 * MEGA // 4)
    assert peak.bytes == 3 * MEGA


def test_double_work_shows() -> None:
    def step(batch: int, depth: int) -> int:
        network, x = layers(depth), torch.randn(batch, 256)
        with peak_memory("cpu") as peak:
            network(x).sum().backward()
        return peak.bytes

    weights, one = 4 * 256 * 256 * 4, step(1024, 4)
    assert step(2048, 4) - weights > 1.8 * (one - weights)
    assert step(1024, 8) > 1.7 * one


def test_autograds_saved_tensors_count_while_they_live() -> None:
    network, x = layers(8), torch.randn(1024, 256)
    weights = sum(weight.nbytes for weight in network.parameters())
    with peak_memory("cpu") as inference, torch.no_grad():
        network(x)
    # Two activations at a time: a layer's input and its output, and x, which the caller holds.
    assert inference.bytes == weights + 3 * x.nbytes
    mode = LiveTensors()
    with mode:
        out = network(x)
        # Each layer saves its input for its weight's gradient.
        assert mode.live == weights + 9 * x.nbytes
        out.backward(torch.ones_like(out))
        assert mode.live == 2 * weights + 2 * x.nbytes, "weights, gradients, x and out are left"
    assert mode.peak > weights + 9 * x.nbytes


def test_checkpointing_shows_as_less_memory() -> None:
    from torch.utils.checkpoint import checkpoint_sequential

    def peak_of(run: Callable[[], Tensor]) -> int:
        with peak_memory("cpu") as peak:
            run().square().sum().backward()
        return peak.bytes

    network, x = nn.Sequential(*(nn.Sequential(layers(1), nn.GELU()) for _ in range(16))), torch.randn(2048, 256)
    assert peak_of(lambda: checkpoint_sequential(network, 4, x, use_reentrant=False)) < 0.7 * peak_of(
        lambda: network(x)
    )


def test_forward_mode_with_a_graph_grows_with_depth_and_without_one_does_not() -> None:
    x, v = torch.randn(1024, 256), torch.randn(1024, 256)

    def beyond_weights(depth: int, graph: bool) -> int:
        network = layers(depth)
        with peak_memory("cpu") as peak, torch.set_grad_enabled(graph):
            torch.func.jvp(network, (x,), (v,))
        return peak.bytes - sum(weight.nbytes for weight in network.parameters())

    assert beyond_weights(12, graph=False) == beyond_weights(3, graph=False) >= 4 * x.nbytes
    # Every further layer leaves its input and that input's tangent behind.
    assert beyond_weights(12, graph=True) - beyond_weights(3, graph=True) >= 9 * 2 * x.nbytes


def test_other_memory_formats_and_scopes() -> None:
    with peak_memory("cpu") as outer:
        a = block(1)
        with peak_memory("cpu") as inner:
            b = block(2)
        sparse = torch.eye(4).to_sparse()
        meta = torch.empty(10**9, device="meta") + 1
    assert inner.bytes == 2 * MEGA
    assert outer.bytes == pytest.approx(3 * MEGA, abs=1000)
    del a, b, sparse, meta


def test_the_figure_survives_an_exception() -> None:
    with contextlib.suppress(RuntimeError), peak_memory("cpu") as peak:
        _ = block(2)
        raise RuntimeError("on the way")
    assert peak.bytes == 2 * MEGA


def test_unreachable_garbage_of_earlier_work_is_gone_before_measuring() -> None:
    gc.disable()
    try:
        cycle: list[object] = [torch.zeros(10)]
        cycle.append(cycle)
        garbage = weakref.ref(cycle[0])
        del cycle
        assert garbage() is not None
        with peak_memory("cpu"):
            assert garbage() is None
    finally:
        gc.enable()


@pytest.mark.gpu
def test_an_accelerator_reports_what_it_allocated() -> None:
    from imfbench.devices import resolve_device

    device = resolve_device("auto")
    if device.type == "cpu":
        pytest.skip("no accelerator here")

    def peak_of(megabytes: int) -> int:
        with peak_memory(device) as peak:
            kept = torch.zeros(megabytes * MEGA // 4, device=device)
            del kept
        assert peak.kind == f"{device.type}-peak-allocated"
        return peak.bytes

    assert peak_of(64) - peak_of(32) == 32 * MEGA
