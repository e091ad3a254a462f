"""What every method of the registry must do, whoever wrote it: ``TrainedContract``, or ``SearchContract``.

A plug-in is tested by being registered. The network is a small DiT whose weights are all random (an untrained one answers
zero everywhere, which hides most mistakes).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from imfbench.flow.counting import count_network, declared_counts
from imfbench.flow.grids import GRIDS, make_grid, uniform
from imfbench.flow.search import SearchLimits
from imfbench.flow.solvers import SOLVERS, SolverError, check_solver
from imfbench.method import Batch, Method, MethodConfig, Needs, State, squared_error
from imfbench.registry import METHODS
from imfbench.training import build_method

StateOf = Callable[..., State]
GRID_CASES = [*((name, steps) for name in GRIDS for steps in (1, 3, 7)), ([0, 0.65, 1], 2)]


def fill(network: nn.Module) -> None:
    """Random numbers for the weights that start at zero or one."""
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim < 2 or not parameter.any():
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=g))


def build(name: str, batch: Batch, backbone: str = "dit") -> Method:
    """The method as the framework builds it: a student starts from its teacher's weights."""
    bands = batch.x1.shape[-1]
    shape = {"dim": 32, "depth": 2, "heads": 2, "bands": bands, "tokens": 24, "content_layers": 1}
    if backbone == "aligning-dit":
        shape |= {"bands": bands - 1, "tokens": 128, "alignment_depth": 1}
    if not METHODS.get(name).needs.teacher:
        method = build_method(name, backbone=backbone, backbone_config=shape)
        fill(method.network)
        return method
    teacher = build_method("teacher", backbone=backbone, backbone_config=shape)
    fill(teacher.network)
    return build_method(name, teacher=teacher)


def prepared(method: Method, state: State) -> State:
    """The state with what the method's needs declare."""
    ema = copy.deepcopy(method.network) if method.needs.ema_target else None
    return replace(state, ema=ema)


def loss_of(method: Method, batch: Batch, state: State) -> Tensor:
    """One loss."""
    loss, logs = method.loss(batch, prepared(method, state))
    assert loss.shape == ()
    assert loss.dtype == torch.float32
    assert all(isinstance(key, str) and isinstance(value, float) for key, value in logs.items())
    return loss


class DeclarationContract:
    """What a class says of itself."""

    def test_declares_config_needs_and_source(self, name: str) -> None:
        cls = METHODS.get(name)
        assert issubclass(cls.Config, MethodConfig)
        assert isinstance(cls.needs, Needs)
        assert cls.Config() == cls.Config()
        assert "arXiv" in (cls.__doc__ or ""), f"{cls.__name__}'s docstring should cite its paper"
        with pytest.raises(ValueError, match="no_such_setting"):
            cls.Config(no_such_setting=1)
        assert type(cls.Config()).model_validate_json(cls.Config().model_dump_json()) == cls.Config()


class TrainedContract:
    """A method with a loss and a velocity."""

    backbone = "dit"

    def test_kind_is_declared(self, name: str) -> None:
        assert METHODS.get(name).kind in ("instantaneous", "average")

    def test_a_teacher_is_needed_for_training_and_not_for_sampling(self, name: str, batch: Batch) -> None:
        cls = METHODS.get(name)
        if not cls.needs.teacher:
            return
        with pytest.raises(ValueError, match="needs a teacher"):
            build_method(name)
        trained = build(name, batch, self.backbone)
        loaded = cls(cls.Config(), trained.network, None)
        query = self._query(batch)
        torch.testing.assert_close(loaded.velocity(*query, batch.condition), trained.velocity(*query, batch.condition))

    def test_loss_reaches_the_network_and_not_the_teacher(self, name: str, batch: Batch, state_of: StateOf) -> None:
        method = build(name, batch, self.backbone)
        before = copy.deepcopy(method.teacher.network.state_dict()) if method.teacher else {}
        loss = loss_of(method, batch, state_of(batch))
        assert loss.isfinite()
        loss.backward()
        gradients = [p.grad for p in method.network.parameters() if p.requires_grad]
        assert all(g is not None and g.isfinite().all() for g in gradients)
        assert sum(float(g.abs().sum() > 0) for g in gradients if g is not None) > 0.8 * len(gradients)
        if method.teacher:
            assert all(p.grad is None for p in method.teacher.network.parameters())
            after = method.teacher.network.state_dict()
            assert all(torch.equal(after[key], value) for key, value in before.items())

    def test_all_randomness_is_the_states_generator(self, name: str, batch: Batch, state_of: StateOf) -> None:
        method = build(name, batch, self.backbone)
        torch.manual_seed(1)
        first = loss_of(method, batch, state_of(batch, seed=5)).item()
        torch.manual_seed(2)
        assert loss_of(method, batch, state_of(batch, seed=5)).item() == first
        assert loss_of(method, batch, state_of(batch, seed=6)).item() != first

    def test_prompt_and_padding_frames_carry_no_loss(self, name: str, batch: Batch, state_of: StateOf) -> None:
        """What lies on those frames of the data changes neither the loss nor any gradient."""
        results = []
        for filling in (0.0, 1.0, -30.0):
            x1 = torch.where(batch.target[..., None], batch.x1, torch.tensor(filling))
            method = build(name, batch, self.backbone)
            loss = loss_of(method, replace(batch, x1=x1), state_of(batch))
            loss.backward()
            results.append([loss.detach(), *(p.grad for p in method.network.parameters() if p.grad is not None)])
        for other in results[1:]:
            for a, b in zip(results[0], other, strict=True):
                torch.testing.assert_close(a, b)

    def test_prompt_and_padding_frames_carry_no_gradient(self, name: str, batch: Batch, state_of: StateOf) -> None:
        """A velocity that is wrong on those frames alone costs nothing; one that is wrong elsewhere does."""

        class Offset(nn.Module):
            """Adds a parameter of its own to every frame of the network's velocity."""

            def __init__(self, network: nn.Module) -> None:
                super().__init__()
                self.network, self.offset = network, nn.Parameter(torch.zeros(batch.x1.shape[:2]))

            def forward(self, z: Tensor, t: Tensor, r: Tensor | None, condition: Any) -> Tensor:
                repeated = len(z) // len(self.offset)
                return self.network(z, t, r, condition) + self.offset.repeat(repeated, 1)[..., None]

        method = build(name, batch, self.backbone)
        method.network = Offset(method.network)
        loss_of(method, batch, state_of(batch)).backward()
        gradient = method.network.offset.grad
        assert isinstance(gradient, Tensor)
        assert (gradient[~batch.target] == 0).all()
        assert (gradient[batch.target] != 0).all()

    def test_loss_is_over_the_global_batch(self, name: str, batch: Batch, state_of: StateOf) -> None:
        """Twice the frames and rows elsewhere halve this process's part."""
        method = build(name, batch, self.backbone)
        state = state_of(batch)
        alone = loss_of(method, batch, state).item()
        state = state_of(batch)
        shared = replace(state, frames=2 * state.frames, samples=2 * state.samples)
        assert loss_of(method, batch, shared).item() == pytest.approx(alone / 2, rel=1e-5)

    def test_autocast_keeps_every_gradient(self, name: str, batch: Batch, state_of: StateOf) -> None:
        """Autocast reuses a weight's cast; one made without gradient must not be reused by the pass with gradient."""
        reached = []
        for enabled in (False, True):
            method = build(name, batch, self.backbone)
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                loss = loss_of(method, batch, state_of(batch))
            loss.backward()
            assert loss.isfinite()
            reached.append({key for key, p in method.network.named_parameters() if p.grad is not None and p.grad.any()})
        assert reached[0] == reached[1]

    def test_training_steps_stay_finite_and_move_the_velocity(self, name: str, batch: Batch, state_of: StateOf) -> None:
        method = build(name, batch, self.backbone)
        target = method.velocity(*self._query(batch), batch.condition).detach()
        optimizer = torch.optim.AdamW([p for p in method.network.parameters() if p.requires_grad], 3e-3)
        for step in range(10):
            optimizer.zero_grad()
            loss = loss_of(method, batch, replace(state_of(batch, seed=step), step=step, progress=step / 10))
            loss.backward()
            optimizer.step()
            assert loss.isfinite()
        moved = method.velocity(*self._query(batch), batch.condition).detach() - target
        assert squared_error(moved, batch, state_of(batch)).item() > 1e-6

    def test_velocity_has_the_mels_shape(self, name: str, batch: Batch) -> None:
        method = build(name, batch, self.backbone)
        with torch.no_grad():
            v = method.velocity(*self._query(batch), batch.condition)
        assert v.shape == batch.x1.shape
        assert v.isfinite().all()
        assert v.dtype == torch.float32

    def test_a_student_equals_its_teacher_at_initialisation(self, name: str, batch: Batch) -> None:
        """Unguided, and for every r, not for r = t alone."""
        method = build(name, batch, self.backbone)
        if method.kind != "average" or method.teacher is None:
            return
        z, t, _ = self._query(batch)
        with torch.no_grad():
            expected = method.teacher.network(z, t, None, batch.condition)
            assert expected.abs().max() > 0.01
            for r in (t, t + 0.3, torch.ones_like(t)):
                torch.testing.assert_close(method.velocity(z, t, r, batch.condition), expected)

    @pytest.mark.parametrize("solver", list(SOLVERS))
    def test_measured_counts_are_the_declared_ones(self, name: str, solver: str, batch: Batch) -> None:
        method = build(name, batch, self.backbone)
        if method.kind == "average" and solver != "euler":
            with pytest.raises(SolverError):
                check_solver(solver, method.kind)
            return
        guidance = float(getattr(method, "sampling_guidance", 0.0))
        z = self._query(batch)[0]
        for spec, steps in GRID_CASES:
            grid = make_grid(spec, steps)
            with torch.no_grad(), count_network(method.network) as count:
                velocity = count.wrap(lambda z, t, r: method.velocity(z, t, r, batch.condition))
                sample = SOLVERS[solver](velocity, z, grid)
            assert sample.isfinite().all()
            count.check(declared_counts(grid, solver, guidance), len(z))

    def test_a_row_does_not_depend_on_its_neighbours_or_its_padding(self, name: str, batch: Batch) -> None:
        method = build(name, batch, self.backbone)
        z, t, r = self._query(batch)
        row, frames = 1, int(batch.condition.valid[1].sum())
        assert frames < z.shape[1]
        names = batch.condition.__dataclass_fields__
        alone = {key: getattr(batch.condition, key)[row : row + 1] for key in names}
        alone = {key: value[:, :frames] if value.ndim > 1 else value for key, value in alone.items()}
        with torch.no_grad():
            together = method.velocity(z, t, r, batch.condition)[row, :frames]
            single = method.velocity(z[row : row + 1, :frames], t[:1], r[:1], type(batch.condition)(**alone))[0]
        torch.testing.assert_close(single, together, rtol=1e-4, atol=1e-5)

    @staticmethod
    def _query(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        z = torch.randn(batch.x1.shape, generator=torch.Generator().manual_seed(3))
        return z, torch.full((len(z),), 0.25), torch.full((len(z),), 0.75)


class SearchContract:
    """A search of time grids."""

    @staticmethod
    def score(grid: Tensor) -> float:
        """Uneven, with several maxima."""
        return math.sin(17 * grid[1].item()) + math.cos(9 * float(grid.square().sum()))

    @pytest.mark.parametrize("steps", [2, 3, 5])
    @pytest.mark.parametrize("start", ["uniform", "sway"])
    def test_result_is_valid_counted_and_never_worse_than_the_start(self, name: str, steps: int, start: str) -> None:
        cls = METHODS.get(name)
        calls: list[tuple[float, ...]] = []

        def evaluate(grid: Tensor) -> float:
            calls.append(tuple(grid.tolist()))
            return self.score(grid)

        begin = make_grid(start, steps)
        result = cls(cls.Config()).search(evaluate, steps, begin, SearchLimits(max_evaluations=40))
        assert make_grid(result.grid, steps).tolist() == result.grid.tolist()
        assert result.score == pytest.approx(self.score(result.grid))
        assert result.score >= self.score(begin)
        assert result.evaluations == len(calls) == len(result.trace) <= 40
        assert len(set(calls)) == len(calls), "a grid was scored twice"
        assert result.stopped

    def test_is_reproducible(self, name: str) -> None:
        cls = METHODS.get(name)
        runs = [cls(cls.Config()).search(self.score, 3, uniform(3), SearchLimits(20)) for _ in range(2)]
        assert torch.equal(runs[0].grid, runs[1].grid)
        assert runs[0].trace == runs[1].trace

    def test_one_step_says_that_there_is_nothing_to_search(self, name: str) -> None:
        cls = METHODS.get(name)
        result = cls(cls.Config()).search(self.score, 1, uniform(1), SearchLimits())
        assert result.grid.tolist() == [0, 1]
        assert result.evaluations == 0
        assert "nothing to search" in result.stopped
