from __future__ import annotations

import platform
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from imfbench.metrics import speed


class Accelerator:
    """Work on a device that runs on its own: the clock moves on only while someone waits for the device."""

    def __init__(self) -> None:
        self.now = 0.0
        self.queued = 0.0
        self.events: list[str] = []

    def work(self, seconds: float) -> None:
        self.events.append("work")
        self.queued += seconds

    def synchronize(self, device: torch.device) -> None:
        self.events.append("synchronize")
        self.now, self.queued = self.now + self.queued, 0.0

    def clock(self) -> float:
        self.events.append("clock")
        return self.now


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> Accelerator:
    device = Accelerator()
    monkeypatch.setattr(speed, "synchronize", device.synchronize)
    return device


def columns_at(accelerator: Accelerator, steps: int) -> dict[str, float]:
    """Three utterances, timed as the synthesise stage does it; a step costs .01 and the vocoder .05 seconds a second."""

    def seconds(work: float) -> float:
        return speed.time_passes(lambda: accelerator.work(work), warmup=0, repeats=1, clock=accelerator.clock)[0]

    lengths = [2.0, 4.0, 6.0]
    network = [seconds(0.01 * steps * length) for length in lengths]
    vocoder = [seconds(0.05 * length) for length in lengths]
    made = pd.DataFrame({"network_seconds": network, "vocoder_seconds": vocoder, "seconds": lengths})
    return speed.speed_of_rows(made.assign(device="cpu", threads=1, hardware="Xeon"))[0]


def test_network_vocoder_and_both_are_timed_apart(accelerator: Accelerator) -> None:
    columns = columns_at(accelerator, steps=8)
    assert columns["rtf_n"] == 3
    for statistic in ("", "_median", "_p95"):
        assert columns[f"rtf_network{statistic}"] == pytest.approx(0.08)
        assert columns[f"rtf_vocoder{statistic}"] == pytest.approx(0.05)
        assert columns[f"rtf_total{statistic}"] == pytest.approx(0.13)


def test_double_work_doubles_the_networks_factor_alone(accelerator: Accelerator) -> None:
    once, twice = columns_at(accelerator, steps=4), columns_at(accelerator, steps=8)
    assert twice["rtf_network"] == pytest.approx(2 * once["rtf_network"])
    assert twice["rtf_vocoder"] == pytest.approx(once["rtf_vocoder"])


def test_the_device_is_waited_for_before_every_look_at_the_clock(accelerator: Accelerator) -> None:
    columns_at(accelerator, steps=1)
    looks = [number for number, event in enumerate(accelerator.events) if event == "clock"]
    assert len(looks) == 3 * 2 * 2
    assert all(accelerator.events[number - 1] == "synchronize" for number in looks)


def test_a_scope_that_was_not_timed_has_no_figure() -> None:
    frame = pd.DataFrame({"network_seconds": [0.1, 0.2], "generated_seconds": [1.0, 2.0]})
    columns = speed.rtf_columns(frame.assign(vocoder_seconds=float("nan"), total_seconds=float("nan")))
    assert set(columns) == {"rtf_network", "rtf_network_median", "rtf_network_p95", "rtf_n"}


def test_passes_are_timed_one_by_one(accelerator: Accelerator) -> None:
    costs = iter([5.0, 5.0, 1.0, 2.0, 3.0])
    passes = speed.time_passes(lambda: accelerator.work(next(costs)), warmup=2, repeats=3, clock=accelerator.clock)
    assert passes == [1.0, 2.0, 3.0]
    with pytest.raises(ValueError, match="nothing to time with warmup=0 and repeats=0"):
        speed.time_passes(lambda: None, warmup=0, repeats=0)


def test_aggregate_weighs_by_length_and_the_rest_by_utterance() -> None:
    generated = np.array([10.0] + [1.0] * 19)
    wall = np.array([1.0] + [0.5] * 19)
    found = speed.real_time_factor(wall.tolist(), generated.tolist())
    assert found.aggregate == pytest.approx(10.5 / 29)
    assert (found.median, found.n) == (0.5, 20)
    assert found.p95 == pytest.approx(np.quantile(wall / generated, 0.95))


def test_lengths_that_cannot_be_divided_by() -> None:
    with pytest.raises(ValueError, match="no generated length"):
        speed.real_time_factor([1.0], [0.0])
    with pytest.raises(ValueError, match="not one pair an utterance"):
        speed.real_time_factor([], [])


@pytest.mark.gpu
def test_a_real_accelerator_is_waited_for() -> None:
    from imfbench.devices import resolve_device

    device = resolve_device("auto")
    if device.type == "cpu":
        pytest.skip("no accelerator here")
    x = torch.randn(4096, 4096, device=device)
    passes = speed.time_passes(lambda: [x @ x for _ in range(20)], device=device)
    # 2.7e12 operations: no accelerator needs less than 0.1 ms, and merely asking for them takes less.
    assert min(passes) > 1e-4


def test_two_pieces_of_work_are_timed_in_turns(accelerator: Accelerator) -> None:
    order: list[str] = []

    def work(name: str, seconds: list[float]) -> None:
        order.append(name)
        accelerator.work(seconds.pop(0))

    first, second = [2.0, 9.0, 3.0], [1.0, 3.0, 2.0]
    found = speed.paired_ratio(lambda: work("a", first), lambda: work("b", second), repeats=3, clock=accelerator.clock)
    assert order == ["a", "b", "b", "a", "a", "b"]
    # Ratios 2, 3 and 1.5; differences 1, 6 and 1. The medians of either side, 3 and 2, would have given 1.5.
    assert (found.ratio, found.low, found.high) == (2, 1.75, 2.5)
    assert (found.seconds, found.difference, found.n) == (3, 1, 3)


def test_times_of_two_machines_are_no_one_figure() -> None:
    """Another run's row, gone on with here, or a folder that moved: the number of threads alone does not tell."""
    one = {"device": "cpu", "threads": 1, "workers": 1, "network_seconds": 0.1, "vocoder_seconds": 0.3, "seconds": 2.0}
    rows = pd.DataFrame([{**one, "hardware": "Xeon, 2 cores"}, {**one, "hardware": "Xeon, 2 cores"}])
    columns, conditions = speed.speed_of_rows(rows)
    assert columns["hardware"] == "Xeon, 2 cores"
    assert columns["rtf_total"] == pytest.approx(0.2)
    assert len(conditions) == 1
    for other in ("EPYC, 8 cores", None):  # None: of before rows named it
        columns, conditions = speed.speed_of_rows(rows.assign(hardware=["Xeon, 2 cores", other]))
        assert columns == {}
        assert set(conditions["hardware"]) == {"Xeon, 2 cores", other or ""}
    assert "hardware" not in speed.speed_of_rows(rows.drop(columns="hardware"))[0]


def test_times_by_two_rules_are_no_one_figure() -> None:
    """A row that was begun before lengths were warmed up, and gone on with since."""
    one = {"device": "cpu", "threads": 1, "workers": 1, "network_seconds": 0.1, "vocoder_seconds": 0.3, "seconds": 2.0}
    before = pd.DataFrame([one, one])
    assert speed.speed_of_rows(before)[0]["rtf_total"] == pytest.approx(0.2)
    assert speed.speed_of_rows(before.assign(timing=speed.TIMING))[0]["rtf_total"] == pytest.approx(0.2)
    columns, conditions = speed.speed_of_rows(before.assign(timing=[None, speed.TIMING]))
    assert columns == {}
    assert conditions["timing"].to_list() == [1, speed.TIMING]


FAULTS = """
import resource, torch
from imfbench.metrics.speed import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        held = [torch.empty(20 << 20, dtype=torch.uint8).fill_(1) for _ in range(4)]
        del held
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

returned = faults()
assert keep_freed_memory()
faults()
print(returned, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these options")
def test_freed_memory_that_is_kept_costs_no_page_faults() -> None:
    told = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True).stdout
    returned, kept = map(int, told.split())
    assert returned > 100  # otherwise there is nothing to keep, and the next line says nothing
    assert kept < returned / 10
