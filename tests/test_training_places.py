"""Where a training's tensors lie and how many threads it has, on devices that are only played here."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import accelerate
import pytest
import torch
from process_tasks import CPU, Tones, method_of, settings
from torch import nn

from imfbench import training as loop
from imfbench.devices import device_of_process
from imfbench.training import Training, rehearsal

SECOND = torch.device("xpu", 1)


class Somewhere(nn.Module):
    """A network that only says where it lies; ``lying`` are all of them, copies too."""

    lying: list[Somewhere]

    def __init__(self, place: torch.device) -> None:
        super().__init__()
        self.place = place
        Somewhere.lying = [self]

    def __deepcopy__(self, _: Any) -> Somewhere:
        everyone = Somewhere.lying
        found = Somewhere(self.place)
        Somewhere.lying = [*everyone, found]
        self.count()
        return found

    def parameters(self, recurse: bool = True) -> Iterator[Any]:
        return iter([SimpleNamespace(device=self.place)])

    def to(self, device: Any) -> Somewhere:  # type: ignore[override]
        self.place = torch.device(device)
        self.count()
        return self

    @staticmethod
    def count() -> None:
        most.append(sum(network.place == SECOND for network in Somewhere.lying))


most: list[int] = []


class Stepping:
    """In place of a training: it moves the method's network to the device."""

    def __init__(self, method: Any, data: Any, config: Any, folder: Path, device: torch.device) -> None:
        method.network.to(device)
        if config == "broken":
            raise ValueError("as a training is made")


@pytest.mark.parametrize("fault", ["", "within", "broken"])
def test_a_rehearsal_on_an_accelerator_holds_one_network(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It measures a step's memory, which has one; and afterwards all is where it was, whatever happened."""
    monkeypatch.setattr(loop, "Training", Stepping)
    most.clear()
    network = Somewhere(SECOND)
    method: Any = SimpleNamespace(network=network)
    told = pytest.raises(ValueError, match="within a step" if fault == "within" else "as a training is made")
    with told if fault else contextlib.nullcontext(), rehearsal(method, None, fault, SECOND):  # type: ignore[arg-type]
        assert method.network is not network
        assert (method.network.place, network.place) == (SECOND, CPU)
        if fault:
            raise ValueError("within a step")
    assert method.network is network
    assert network.place == SECOND
    assert max(most[:-1]) == 1, "the copy is made where there is room"


def test_a_network_that_was_on_the_cpu_stays_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "Training", Stepping)
    network = Somewhere(CPU)
    most.clear()
    with rehearsal(SimpleNamespace(network=network), None, "", SECOND):  # type: ignore[arg-type]
        assert network.place == CPU
    assert network.place == CPU
    assert most == [0, 1], "copied, and the copy moved"


class Taken(Exception):
    """Accelerate was asked for."""


def test_a_numbered_accelerator_is_the_current_one_before_accelerate_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside of a group of processes Accelerate knows the kind of device alone, and moves the network to the current one."""
    current = [0]
    monkeypatch.setattr(torch.accelerator, "set_device_index", lambda number: current.append(number))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 4)

    def taking(**_: Any) -> None:
        raise Taken(current[-1])

    monkeypatch.setattr(accelerate, "Accelerator", taking)
    for device, number in ((SECOND, 1), (torch.device("xpu", 3), 3)):
        with pytest.raises(Taken, match=str(number)):
            Training(method_of("teacher"), Tones(), settings(1), Path(), device)
    asked = len(current)
    for device in (torch.device("xpu"), CPU):  # the one that is current already, and one that has no number
        with pytest.raises(Taken, match="3"):
            Training(method_of("teacher"), Tones(), settings(1), Path(), device)
    assert len(current) == asked
    assert device_of_process(torch.device("xpu"), 2) == torch.device("xpu", 2)
    assert current[-1] == 2


def test_a_training_keeps_the_threads_that_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accelerate gives each of several processes on a CPU its share of the cores, unless ``OMP_NUM_THREADS`` is set."""
    given, own = torch.get_num_threads(), accelerate.Accelerator

    def accelerator(**options: Any) -> Any:
        torch.set_num_threads((os.cpu_count() or 1) + 3)
        return own(**options)

    monkeypatch.setattr(accelerate, "Accelerator", accelerator)
    try:
        torch.set_num_threads(2)
        Training(method_of("teacher"), Tones(), settings(1), Path(), CPU)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(given)
