"""Batches made before training: each once, resumed after a kill, paid for, gone at the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from imfbench.artefact import ArtefactError
from imfbench.building import build_method
from imfbench.data import Example, training_batches
from imfbench.method import Batch, Condition
from imfbench.preparation import FOLDER, Prepared, affordable_steps, read_batch, write_batch
from imfbench.store import read_json, write_json
from imfbench.training import MEMORY, TrainConfig, budget_to_steps, train

CPU = torch.device("cpu")
SHAPE = {"bands": 8, "tokens": 12, "dim": 32, "depth": 1, "heads": 2, "content_layers": 1}


class Noise:
    def batches(self, frames_per_batch: int, seed: int, start_step: int = 0) -> Iterator[Batch]:
        g = torch.Generator().manual_seed(0)
        examples = [
            Example(f"e{i}", "s", torch.randn(20 + i, 8, generator=g), torch.ones(20 + i, dtype=torch.int64))
            for i in range(6)
        ]
        return training_batches(examples, frames_per_batch, seed, start_step, seconds_per_frame=0.2, pool=8)


def student(**config: Any) -> Any:
    teacher = build_method("teacher", {}, backbone_config=SHAPE)
    with torch.no_grad():
        g = torch.Generator().manual_seed(1)
        teacher.network.outlet.weight.copy_(0.1 * torch.randn(teacher.network.outlet.weight.shape, generator=g))
    return build_method("reflow", {"teacher_nfe": 2, "passes": 3, **config}, teacher)


def config(**changes: Any) -> TrainConfig:
    base = {"steps": 7, "frames_per_batch": 120, "warmup": 0, "precision": "fp32", "save_every": 2, "log_every": 1}
    return TrainConfig(**(base | changes))


def weights(method: Any) -> Tensor:
    return torch.cat([p.detach().flatten() for p in method.network.parameters()])


def prepared(folder: Path, **changes: Any) -> Prepared:
    return Prepared(student(), Noise(), config(**changes), folder, CPU)


@pytest.fixture(autouse=True)
def _measured(tmp_path: Path) -> None:
    """The memory of a step, which is tested elsewhere and takes most of a tiny training's time, is known."""
    for folder in (tmp_path, tmp_path / "whole", tmp_path / "parts"):
        write_json(folder / MEMORY, {"bytes": 1, "kind": "told"})


def first(batches: Iterator[Batch], count: int) -> list[Batch]:
    return [batch for batch, _ in zip(batches, range(count), strict=False)]


def test_the_teachers_steps_share_one_encoding() -> None:
    method, calls = student(teacher_nfe=4), list[int]()

    def encode(condition: Condition) -> Tensor:
        calls.append(len(condition.tokens))
        return condition.tokens.float()

    method.teacher.network.encode = encode
    batch = next(Noise().batches(120, 0))
    pair = method.prepare(batch, torch.Generator().manual_seed(0))
    assert calls == [len(batch.x1)]
    assert pair.condition.encoded is None  # the training loop encodes what it is given


def test_every_batch_is_made_once_and_taken_several_times_in_other_orders(tmp_path: Path) -> None:
    made: list[tuple[int, int]] = []
    data = Prepared(student(), Noise(), config(steps=12), tmp_path, CPU, lambda *a: made.append(a))
    taken = first(data.batches(120, 0), 12)
    assert made == [(1, 4), (2, 4), (3, 4), (4, 4)]
    orders = [[float(batch.x1.sum()) for batch in taken[i : i + 4]] for i in (0, 4, 8)]
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(orders[2])
    assert len(set(orders[0])) == 4
    assert len({tuple(order) for order in orders}) > 1
    # from step 5 on it is what it would have been, and nothing is made again
    again = first(data.batches(120, 0, 5), 7)
    assert [float(batch.x1.sum()) for batch in again] == [float(batch.x1.sum()) for batch in taken[5:]]
    assert len(made) == 4


def test_a_pair_on_disk_is_the_pair_that_was_made(tmp_path: Path) -> None:
    data = prepared(tmp_path, steps=3)
    (found,) = first(data.batches(120, 0), 1)
    raw = next(Noise().batches(120, 0))
    assert found.x0 is not None
    assert found.ids == raw.ids
    for name in raw.condition.__dataclass_fields__:
        kept, made = getattr(found.condition, name), getattr(raw.condition, name)
        assert kept is made is None or torch.equal(kept, made), name
    method = data.method  # two Euler steps of the sway grid from the stored noise come to the stored end point
    z, w = found.x0, 2.0
    middle = 1 - 0.5**0.5
    for t, r in ((0.0, middle), (middle, 1.0)):
        time = torch.full((len(z),), t)
        with torch.no_grad():
            both = [method.teacher.network(z, time, None, c) for c in (raw.condition, raw.condition.drop())]
        z = z + (r - t) * (both[0] + w * (both[0] - both[1]))
    torch.testing.assert_close(found.x1, z, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("when", ["preparing", "training"])
def test_a_killed_training_ends_with_the_weights_of_one_that_was_not(when: str, tmp_path: Path) -> None:
    whole, parts, again = student(), student(), student()
    train(whole, "reflow", Noise(), config(), tmp_path / "whole", CPU)

    class Killed(Exception):
        pass

    made: list[int] = []

    def kill_preparing(done: int, count: int) -> None:
        made.append(done)
        if when == "preparing" and done == 2:
            raise Killed

    def kill_training(step: int, steps: int, loss: float) -> None:
        if step == 5:
            raise Killed

    arguments = ("reflow", Noise(), config(), tmp_path / "parts", CPU)
    with pytest.raises(Killed):
        train(parts, *arguments, progress=kill_training, preparing=kill_preparing)
    train(again, *arguments, preparing=lambda done, _: made.append(done))
    assert made == [1, 2, 3]
    torch.testing.assert_close(weights(again), weights(whole), atol=1e-6, rtol=1e-5)
    assert not (tmp_path / "parts" / FOLDER).exists()


def test_the_making_is_counted_as_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(path: Path, batch: Batch, _: float) -> None:
        write_batch(path, batch, 100.0)

    monkeypatch.setattr("imfbench.preparation.write_batch", slow)
    part = train(student(), "reflow", Noise(), config(), tmp_path, CPU, stop_at=3)
    assert part.status == "unfinished"
    (tmp_path / "status.json").unlink()
    result = train(student(), "reflow", Noise(), config(), tmp_path, CPU)
    assert result.seconds_preparing == 300  # in the first process, and still known in the second
    assert 300 < result.seconds < 400
    assert result.seconds_per_step == pytest.approx(result.seconds / 7)
    assert read_json(tmp_path / "status.json")["seconds_preparing"] == 300


def test_a_budget_pays_for_both() -> None:
    every = student(passes=3)
    # 10 s a step, and 30 s a batch of which three steps need one: 20 s a step
    assert affordable_steps(every, 1200, 10, 30) == 60
    assert affordable_steps(every, 1200, 10, 30, accumulate=2) == 39  # 78 batches, 26 made; 40 would need 27: 1210 s
    assert affordable_steps(every, 1219, 10, 30) == 60
    assert affordable_steps(every, 1, 10, 30) == 1
    assert affordable_steps(student(passes=0), 1200, 10, 30) == 120
    # Two batches were made in 60 s, each of ten steps took 10 s.
    times = iter([0.0, 60.0, *(moment for i in range(10) for moment in (100.0 * i, 100.0 * i + 10))])
    steps = budget_to_steps(every, Noise(), config(steps=None, minutes=20), CPU, clock=lambda: next(times))
    assert steps == 60


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    data = prepared(tmp_path, steps=3)
    first(data.batches(120, 0), 1)
    (path,) = (tmp_path / FOLDER).glob("*/*.safetensors")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ArtefactError, match=r"000000\.safetensors, a batch prepared .* remove it"):
        read_batch(path)
    path.unlink()
    assert first(prepared(tmp_path, steps=3).batches(120, 0), 1)


def test_a_training_that_stopped_at_its_last_step_still_counts_the_making(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imfbench.preparation.write_batch", lambda path, batch, _: write_batch(path, batch, 100.0))
    train(student(), "reflow", Noise(), config(steps=8), tmp_path, CPU, stop_at=7)
    (tmp_path / "status.json").unlink()
    result = train(student(), "reflow", Noise(), config(steps=7), tmp_path, CPU)
    assert result.seconds_preparing == 300


@pytest.mark.parametrize("late", [0, 1, 2])
def test_processes_that_look_at_other_moments_leave_no_batch_unmade(
    late: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one looks when the first has made ``late`` of its own."""
    members = [prepared(tmp_path, steps=18) for _ in range(2)]
    folder = tmp_path / FOLDER / "0"
    monkeypatch.setattr("imfbench.distribution.count", lambda: 2)
    made: list[list[int]] = [[], []]

    def make(member: int) -> None:
        monkeypatch.setattr("imfbench.distribution.index", lambda: member)
        members[member]._make(folder, 120, 0)

    def first_made(done: int, _: int) -> None:
        made[0].append(done - 1)
        if len(made[0]) == late:
            make(1)
            monkeypatch.setattr("imfbench.distribution.index", lambda: 0)

    members[0].progress, members[1].progress = first_made, lambda done, _: made[1].append(done - 1)
    if not late:
        make(1)
    make(0)
    assert made == [[0, 2, 4], [1, 3, 5]]
