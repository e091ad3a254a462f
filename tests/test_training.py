"""The training loop: it learns, resumes to the same weights, accumulates exactly, and knows divergence when it sees it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from imfbench.artefact import ArtefactError, load_artefact, save_artefact
from imfbench.building import build_method
from imfbench.data import DatasetError, Example, training_batches
from imfbench.method import Batch, State
from imfbench.training import TrainConfig, Training, budget_to_steps, learning_rate, train
from imfbench.training_log import DivergenceMonitor

CPU = torch.device("cpu")
SHAPE = {"bands": 8, "tokens": 12, "dim": 32, "depth": 2, "heads": 2}


class ToneData:
    """Mels whose every frame is a fixed function of its token: learnable in a few steps."""

    def __init__(self, sizes: tuple[int, ...] = (20, 24, 28, 32, 36, 40)) -> None:
        g = torch.Generator().manual_seed(0)
        table = torch.randn(12, 8, generator=g)
        self.examples = []
        for i, frames in enumerate(sizes):
            tokens = torch.randint(1, 12, (frames,), generator=g)
            self.examples.append(Example(f"e{i}", f"s{i % 2}", table[tokens], tokens))

    def batches(self, frames_per_batch: int, seed: int, start_step: int = 0) -> Iterator[Batch]:
        return training_batches(self.examples, frames_per_batch, seed, start_step, seconds_per_frame=0.2, pool=12)


def teacher(seed: int = 0):
    return build_method("teacher", {}, backbone_config=SHAPE, seed=seed)


def config(**changes) -> TrainConfig:
    base = {
        "steps": 30,
        "frames_per_batch": 300,
        "learning_rate": 3e-3,
        "warmup": 3,
        "precision": "fp32",
        "save_every": 7,
        "log_every": 5,
    }
    return TrainConfig(**(base | changes))


def weights(method) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in method.network.parameters()])


def test_training_lowers_the_loss_and_leaves_an_artefact(tmp_path: Path) -> None:
    losses: list[float] = []
    method = teacher()
    result = train(
        method, "teacher", ToneData(), config(steps=120), tmp_path, CPU, progress=lambda *a: losses.append(a[2])
    )
    assert result.status == "ok"
    assert result.steps == 120 == len(losses)
    assert sum(losses[-20:]) < 0.8 * sum(losses[:20])
    assert result.peak_memory is not None
    assert result.peak_memory > 4 * result.parameters
    loaded, card = load_artefact(tmp_path)
    assert torch.equal(weights(loaded), weights(method))
    assert card["training"]["steps"] == 120


def test_a_killed_training_ends_with_the_weights_of_one_that_was_not(tmp_path: Path) -> None:
    whole, parts = teacher(), teacher()
    train(whole, "teacher", ToneData(), config(), tmp_path / "whole", CPU)

    class Killed(Exception):
        pass

    def kill(step: int, steps: int, loss: float) -> None:
        if step == 17:
            raise Killed

    with pytest.raises(Killed):
        train(parts, "teacher", ToneData(), config(), tmp_path / "parts", CPU, progress=kill)
    again = teacher(seed=5)  # what it holds must not matter: the checkpoint does
    result = train(again, "teacher", ToneData(), config(), tmp_path / "parts", CPU)
    assert result.steps == 30
    torch.testing.assert_close(weights(again), weights(whole), atol=1e-6, rtol=1e-5)
    steps = [int(line.split(",")[0]) for line in (tmp_path / "parts" / "log.csv").read_text().splitlines()[1:]]
    assert steps == sorted(set(steps)), "no step may be logged twice"


def test_the_memory_of_a_step_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = train(teacher(), "teacher", ToneData(), config(), tmp_path, CPU, stop_at=3)
    assert part.status == "unfinished"
    assert part.peak_memory
    (tmp_path / "status.json").unlink()
    monkeypatch.setattr("imfbench.training.step_memory", lambda *_: pytest.fail("measured again"))
    whole = train(teacher(), "teacher", ToneData(), config(), tmp_path, CPU)
    assert (whole.steps, whole.peak_memory, whole.peak_memory_kind) == (30, part.peak_memory, part.peak_memory_kind)


def test_a_finished_training_is_not_repeated(tmp_path: Path) -> None:
    train(teacher(), "teacher", ToneData(), config(steps=5), tmp_path, CPU)
    before = (tmp_path / "model.safetensors").read_bytes()
    again = teacher(seed=3)
    calls: list[int] = []
    train(again, "teacher", ToneData(), config(steps=5), tmp_path, CPU, progress=lambda *a: calls.append(a[0]))
    assert not calls
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_what_is_kept_is_the_average_of_the_weights(tmp_path: Path) -> None:
    """Not the weights, from which it is far after a few large steps."""
    settings = config(steps=4, learning_rate=0.05, ema=0.9)
    method, by_hand = teacher(), teacher()
    train(method, "teacher", ToneData(), settings, tmp_path, CPU)
    training = Training(by_hand, ToneData(), settings, Path(), CPU)
    batches = training.micro_batches()
    for _ in range(4):
        training.advance(next(batches), 4)
    average = torch.cat([p.detach().flatten() for p in training.ema.parameters()])
    torch.testing.assert_close(weights(load_artefact(tmp_path)[0]), average)
    assert (average - weights(by_hand)).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("changed", "steps", "own"),
    [
        ({"device": "another"}, 24, True),
        ({"device": "another"}, 4, False),
        ({"threads": 99}, 24, False),
        ({}, 24, False),
    ],
)
def test_steps_of_another_machine_are_not_told_as_this_ones(
    tmp_path: Path, changed: dict[str, object], steps: int, own: bool
) -> None:
    """A training that was begun there: its seconds are spent, and its seconds a step are of the steps here, if enough are."""
    settings = config(steps=steps, save_every=1)
    train(teacher(), "teacher", ToneData(), settings, tmp_path, CPU, stop_at=2)
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    torch.save({**saved, "hardware": {**saved["hardware"], **changed}, "seconds": 9000.0}, tmp_path / "checkpoint.pt")
    result = train(teacher(), "teacher", ToneData(), settings, tmp_path, CPU)
    assert result.seconds > 9000
    assert (result.seconds_per_step < 100) == own
    assert result.hardware["device"] == "cpu"


def test_a_step_is_measured_again_where_its_memory_hangs_on_something_else(tmp_path: Path) -> None:
    """A training that ran out of memory goes on with other savings; a figure from before this was recorded is kept."""
    train(teacher(), "teacher", ToneData(), config(steps=2), tmp_path / "a", CPU)
    own = json.loads((tmp_path / "a" / "step_memory.json").read_text())
    planted = (
        {**own, "bytes": 7},
        {"bytes": 7, "kind": own["kind"]},
        {**own, "bytes": 7, "of": {**own["of"], "ema_device": "cpu"}},
    )
    for i, (present, expected) in enumerate(zip(planted, (7, 7, own["bytes"]), strict=True)):
        (tmp_path / f"{i}").mkdir()
        (tmp_path / f"{i}" / "step_memory.json").write_text(json.dumps(present))
        assert train(teacher(), "teacher", ToneData(), config(steps=2), tmp_path / f"{i}", CPU).peak_memory == expected


def halves(batch: Batch) -> list[Batch]:
    """A batch's rows as two batches, of different numbers of frames."""
    rows = torch.arange(len(batch.x1))
    return [Batch(batch.x1[part], batch.condition.rows(part)) for part in (rows[:1], rows[1:])]


@pytest.mark.parametrize(("longest", "scale"), [(1e6, 1.0), (None, 1.0), (0.5, 0.5), (1e-3, 1e-3)])
def test_gradients_are_as_long_as_they_may_be(tmp_path: Path, longest: float | None, scale: float) -> None:
    """``longest`` in units of the norm that the gradients have; None is a hair above it."""
    method = teacher()
    norm = Training(method, ToneData(), config(clip=1e6), tmp_path, CPU)
    micro = next(norm.micro_batches())
    norm.gradients(micro, 30)
    own = [p.grad.clone() for p in method.network.parameters() if p.grad is not None]
    length = float(torch.cat([g.flatten() for g in own]).norm())
    limit = length * 1.00001 + 1e-6 if longest is None else length * longest

    again = teacher()
    training = Training(again, ToneData(), config(clip=limit), tmp_path, CPU)
    seen: list[torch.Tensor] = []
    training.prepared.step = lambda: seen.extend(
        p.grad.clone() for p in again.network.parameters() if p.grad is not None
    )
    assert training.advance(micro, 30)["grad_norm"] == pytest.approx(length, rel=1e-5), "the log has it before"
    for found, was in zip(seen, own, strict=True):
        torch.testing.assert_close(found, was * scale, rtol=1e-4, atol=0 if scale == 1 else 1e-9)


def test_two_batches_of_a_step_log_what_one_batch_of_the_same_frames_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shares of the step add up, ratios are averaged."""
    method = build_method("meanflow", {}, teacher())
    training = Training(method, ToneData(), config(), Path(), CPU)
    batch = next(training.micro_batches())[0]
    assert len({float(half.target.sum()) for half in halves(batch)}) == 2

    def loss(batch: Batch, state: State) -> tuple[torch.Tensor, dict[str, float]]:
        error = (batch.x1.square().sum(-1) * batch.target).sum() / state.frames
        return error + 0 * method.network.outlet.bias.sum(), {"squared_error": float(error), "ratio": 0.5}

    monkeypatch.setattr(method, "loss", loss)
    (one, of_one), (two, of_two) = (training.gradients(micro, 30) for micro in ([batch], halves(batch)))
    assert two == pytest.approx(one, rel=1e-5)
    assert of_two == pytest.approx(of_one, rel=1e-5)
    assert of_one == pytest.approx({"squared_error": one, "ratio": 0.5}, rel=1e-5)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_meanflows_logged_error_is_the_whole_steps(accumulate: int) -> None:
    """Unweighted it is the loss."""
    method = build_method("meanflow", {"p": 0.0, "guidance_from": "none"}, teacher())
    training = Training(method, ToneData(), config(accumulate=accumulate), Path(), CPU)
    figures = training.advance(next(training.micro_batches()), 30)
    assert figures["squared_error"] == pytest.approx(figures["loss"], rel=1e-5)
    assert figures["weight"] == pytest.approx(1.0)


def test_budget_is_turned_into_steps_by_the_clock_and_leaves_the_network_alone() -> None:
    method = teacher()
    before = weights(method).clone()
    each = [2.0] * 9 + [60.0]  # ten steps took 2 s each, but for one in which the machine did something else
    times = iter([moment for i, step in enumerate(each) for moment in (100.0 * i, 100.0 * i + step)])
    assert budget_to_steps(method, ToneData(), config(steps=None, minutes=3), CPU, clock=lambda: next(times)) == 90
    assert torch.equal(weights(method), before)


def test_schedules() -> None:
    linear = config(steps=100, schedule="linear", warmup=10)
    assert learning_rate(linear, 0, 100) == pytest.approx(3e-4)
    assert learning_rate(linear, 99, 100) == pytest.approx(3e-5)
    flat = config(steps=100, schedule="trapezoid", decay=0.2, warmup=1)
    assert learning_rate(flat, 80, 100) == pytest.approx(3e-3)
    assert learning_rate(flat, 90, 100) == pytest.approx(1.5e-3)


def test_divergence_is_a_value_or_a_long_excursion_never_a_rising_loss() -> None:
    monitor = DivergenceMonitor()
    assert not any(monitor.update(loss=float(i), norm=1.0) for i in range(200)), "a rising loss is no divergence"
    assert not any(monitor.update(1.0, 150.0) for _ in range(19))
    assert monitor.update(1.0, 1.0) == ""
    assert not any(monitor.update(1.0, 150.0) for _ in range(19)), "the excursion starts anew"
    assert "100 times" in monitor.update(1.0, 150.0)
    assert "finite" in DivergenceMonitor().update(float("nan"), 1.0)
    assert "finite" in DivergenceMonitor().update(1.0, float("inf"))


def test_an_adaptive_weight_cannot_hide_an_explosion() -> None:
    monitor = DivergenceMonitor()
    for _ in range(30):
        monitor.update(1.0, 1.0, weight=1.0)
    # the weighted norm stays 1 while the rows' weights fall a thousandfold
    assert any(monitor.update(1.0, 1.0, weight=1e-3) for _ in range(20))


def test_a_resumed_training_comes_to_the_same_verdict() -> None:
    whole, first, second = DivergenceMonitor(), DivergenceMonitor(), DivergenceMonitor()
    norms = [1.0] * 30 + [150.0] * 20
    verdicts = [whole.update(1.0, norm) for norm in norms]
    for norm in norms[:40]:
        first.update(1.0, norm)
    second.restore(first.state())
    assert [second.update(1.0, norm) for norm in norms[40:]] == verdicts[40:]
    assert verdicts[-1]


def test_divergence_is_a_result(tmp_path: Path) -> None:
    method = teacher()
    with torch.no_grad():
        method.network.outlet.weight.fill_(float("inf"))
    result = train(method, "teacher", ToneData(), config(), tmp_path, CPU)
    assert result.status == "diverged"
    assert "finite" in result.reason
    assert json.loads((tmp_path / "status.json").read_text())["status"] == "diverged"
    assert (tmp_path / "log.csv").read_text().count("\n") >= 2
    assert not (tmp_path / "model.safetensors").exists()


def test_a_student_starts_as_its_teacher_and_leaves_it_alone(tmp_path: Path) -> None:
    first = teacher()
    with torch.no_grad():
        first.network.outlet.weight.normal_(std=0.1)
    before = weights(first).clone()
    student = build_method("intmeanflow", {}, first)
    batch = next(ToneData().batches(300, 0))
    t = torch.full((len(batch.x1),), 0.3)
    expected = first.network(batch.x1, t, None, batch.condition)
    torch.testing.assert_close(student.network(batch.x1, t, t + 0.5, batch.condition), expected)
    train(student, "intmeanflow", ToneData(), config(steps=4), tmp_path, CPU)
    assert torch.equal(weights(first), before)
    assert not torch.equal(weights(student)[: len(before)], before)


def test_a_method_that_needs_a_teacher_says_so() -> None:
    with pytest.raises(ValueError, match="needs a teacher"):
        build_method("intmeanflow", {}, None, backbone_config=SHAPE)


def test_changed_weights_are_refused(tmp_path: Path) -> None:
    save_artefact(tmp_path, "teacher", teacher(), {"made": "here"})
    raw = bytearray((tmp_path / "model.safetensors").read_bytes())
    raw[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(raw)
    with pytest.raises(ArtefactError, match="sha256"):
        load_artefact(tmp_path)


def test_pickles_are_refused_and_missing_artefacts_name_what_ships(tmp_path: Path) -> None:
    import hashlib

    torch.save({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    digest = hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    (tmp_path / "card.json").write_text(json.dumps({"sha256": digest}))
    with pytest.raises(ArtefactError, match="safetensors"):
        load_artefact(tmp_path)
    with pytest.raises(ArtefactError, match="embedded:token2mel"):
        load_artefact("embedded:token2mol")


def test_equal_networks_have_equal_hashes(tmp_path: Path) -> None:
    hashes = {save_artefact(tmp_path / str(i), "teacher", teacher(), {"made": i}) for i in range(5)}
    assert len(hashes) == 1


def test_an_interrupted_training_saves_its_last_step(tmp_path: Path) -> None:
    def interrupt(step: int, steps: int, loss: float) -> None:
        if step == 4:  # save_every is 7
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(teacher(), "teacher", ToneData(), config(), tmp_path, CPU, progress=interrupt)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 4


def test_half_precision_artefacts_load_as_float32(tmp_path: Path) -> None:
    method = teacher()
    save_artefact(tmp_path, "teacher", method, {}, half=True)
    loaded, _ = load_artefact(tmp_path)
    assert weights(loaded).dtype == torch.float32
    torch.testing.assert_close(weights(loaded), weights(method), atol=1e-3, rtol=1e-3)


def test_data_that_end_are_told_and_not_trained_on_as_nothing(tmp_path: Path) -> None:
    class Ending(ToneData):
        def batches(self, frames_per_batch: int, seed: int, start_step: int = 0) -> Iterator[Batch]:
            return itertools.islice(super().batches(frames_per_batch, seed, start_step), 5 - start_step)

    with pytest.raises(
        DatasetError, match=r"the training data ended after 5 batches of this process: .* go on for ever"
    ):
        train(teacher(), "teacher", Ending(), config(steps=9, accumulate=2), tmp_path, CPU)


def test_a_teacher_with_guidance_in_its_weights_is_not_guided_again() -> None:
    first = build_method("reflow", {"guidance": 1.5, "teacher_nfe": 2}, teacher())
    with pytest.raises(
        ValueError, match=r"guidance \(w = 1.5\) in its weights, and this student would guide it again \(w = 2\)"
    ):
        build_method("intmeanflow", {"guidance": 2.0}, first)
    with pytest.raises(ValueError, match="would guide it again"):
        build_method("meanflow", {}, first)
    build_method("intmeanflow", {"guidance": 0.0}, first)
    build_method("meanflow", {"guidance_from": "self", "condition_dropout": 0.1}, first)  # which never asks the teacher
    build_method("meanflow", {"omega": 1.0}, first)
    build_method(
        "intmeanflow", {"guidance": 2.0}, build_method("reflow", {"guidance": 0.0, "teacher_nfe": 2}, teacher())
    )


def test_weights_of_another_program_are_told(tmp_path: Path) -> None:
    """Safetensors, but not an artefact: what somebody has who names a checkpoint's folder."""
    import hashlib

    save_artefact(tmp_path, "teacher", teacher(), {"made": "here"})
    save_file({"weight": torch.ones(2)}, tmp_path / "model.safetensors")
    card = json.loads((tmp_path / "card.json").read_text())
    digest = hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    (tmp_path / "card.json").write_text(json.dumps({**card, "sha256": digest}))
    with pytest.raises(
        ArtefactError, match="was not written by imfbench, or by another version of it: its metadata lack"
    ):
        load_artefact(tmp_path)
