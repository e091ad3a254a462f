from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from imfbench.building import build_method
from imfbench.flow.derivative import along_path
from imfbench.method import Batch, State, interpolate, randn_like
from imfbench.methods.meanflow import MeanFlow, MeanFlowConfig
from imfbench.methods.teacher import Teacher, TeacherConfig

StateOf = Callable[..., State]


def meanflow(network: nn.Module, teacher_network: nn.Module, **config: Any) -> MeanFlow:
    return MeanFlow(MeanFlowConfig(**config), network, Teacher(TeacherConfig(), teacher_network))


def gradients(method: MeanFlow, batch: Batch, state: State) -> tuple[Tensor, dict[str, float], list[Tensor]]:
    loss, logs = method.loss(batch, state)
    return loss.detach(), logs, list(torch.autograd.grad(loss, list(method.network.parameters())))


@pytest.mark.parametrize("form", ["one_pass", "split"])
@pytest.mark.parametrize("a", [-2.0, 0.7])
def test_the_identity_holds_for_an_exact_average_velocity(
    a: float, form: str, batch_of: Any, state_of: StateOf, decay_average: Any, scaled_field: Any
) -> None:
    batch = batch_of(rows=64)
    plain = {"p": 0.0, "omega": 1.0, "equal_share": 0.25, "times": "uniform", "jvp": form}
    loss, logs = meanflow(decay_average(a), scaled_field(a), **plain).loss(batch, state_of(batch))
    assert loss.item() < 1e-9
    assert logs["tangent_rms"] > 0.05  # the identity had something to cancel
    # neither the instantaneous velocity nor another scale satisfies it
    assert meanflow(scaled_field(a), scaled_field(a), **plain).loss(batch, state_of(batch))[0].item() > 1e-2
    assert meanflow(decay_average(a, 1.1), scaled_field(a), **plain).loss(batch, state_of(batch))[0].item() > 1e-4


def test_training_on_the_identity_finds_the_average_velocity(
    batch_of: Any, state_of: StateOf, scaled_field: Any
) -> None:
    """dz/dt = −z: u = −s(r − t)·z with s(h) = (1 − e^{−h})/h, fitted by a cubic in h."""

    class Cubic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c = nn.Parameter(torch.tensor([1.0, 0.0, 0.0, 0.0]))

        def forward(self, z: Tensor, t: Tensor, r: Tensor | None, condition: Any) -> Tensor:
            h = t * 0 if r is None else r - t
            return -(torch.stack([h**0, h, h**2, h**3], -1) @ self.c)[:, None, None] * z

    network = Cubic()
    method = meanflow(network, scaled_field(-1.0), omega=1.0, equal_share=0.25, times="uniform", p=0.0)
    optimizer = torch.optim.Adam(network.parameters(), 0.05)
    batch = batch_of(rows=256)
    for step in range(150):
        optimizer.zero_grad()
        method.loss(batch, state_of(batch, seed=step))[0].backward()
        optimizer.step()
    assert network.c.sum().item() == pytest.approx(1 - torch.e**-1, abs=0.01)  # s(1): one step from noise to data


def test_gradients_flow_through_the_adaptive_loss(
    batch_of: Any, state_of: StateOf, decay_average: Any, scaled_field: Any
) -> None:
    """The weight is a constant: for one row the gradient is the plain one times the weight."""
    batch = batch_of(rows=1)
    found = {
        p: gradients(meanflow(decay_average(-1.0, 1.5), scaled_field(-1.0), p=p), batch, state_of(batch))
        for p in (0.0, 0.75, 1.0)
    }
    _, plain_logs, (plain,) = found[0.0]
    assert plain_logs["weight"] == 1
    for p in (0.75, 1.0):
        loss, logs, (gradient,) = found[p]
        total = plain_logs["squared_error"] * batch.target.sum() * batch.x1.shape[-1]  # ‖Δ‖²
        torch.testing.assert_close(loss, (total * (total + 1e-2) ** -p).float(), rtol=1e-4, atol=0)
        assert logs["weight"] * logs["squared_error"] == pytest.approx(loss.item(), rel=1e-5)
        torch.testing.assert_close(gradient, logs["weight"] * plain, rtol=1e-4, atol=0)
        # differentiating the weight as well would leave next to nothing of the gradient (p = 1) or a part of it
        assert gradient.abs() > 1e-3


def test_every_row_weighs_alike_at_p_1(batch_of: Any, state_of: StateOf, scaled_field: Any) -> None:
    batch = batch_of(rows=6)
    loss, _ = meanflow(scaled_field(3.0, 5.0), scaled_field(), p=1.0, epsilon=1e-6).loss(batch, state_of(batch))
    assert loss.item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(("omega", "kappa"), [(1.0, 0.0), (3.0, 0.0), (1.5, 0.5), (0.4, 0.6)])
def test_self_guidance_in_the_target(
    omega: float, kappa: float, batch: Batch, state_of: StateOf, scaled_field: Any, recorder: Any
) -> None:
    network = recorder(scaled_field(0.5, 2.0))
    config = {
        "guidance_from": "self",
        "omega": omega,
        "kappa": kappa,
        "condition_dropout": 0.4,
        "equal_share": 1.0,
        "p": 0.0,
    }
    loss, _ = meanflow(network, scaled_field(9.0, 9.0), **config).loss(batch, state_of(batch, seed=1))
    z, t, r, condition = network.calls[-1]
    assert torch.equal(t, r)
    assert 0 < condition.dropped.sum() < len(z)
    x0 = randn_like(batch.x1, torch.Generator().manual_seed(1))
    v = batch.x1 - x0
    torch.testing.assert_close(z, interpolate(x0, batch.x1, t))
    guided = omega * v + kappa * (0.5 * z + 2.0) + (1 - omega - kappa) * 0.5 * z
    target = torch.where(condition.dropped[:, None, None], v, guided)
    delta = (network.network(z, t, r, condition) - target)[batch.target]
    torch.testing.assert_close(loss, delta.square().mean())


def test_a_teachers_guided_velocity_as_target(batch: Batch, state_of: StateOf, scaled_field: Any) -> None:
    # the teacher's ṽ at w = 2 is 0.5·z + 3: a student that is this field has no error where r = t
    method = meanflow(scaled_field(0.5, 3.0), scaled_field(0.5, 1.0), omega=3.0, equal_share=1.0, p=0.0)
    assert method.loss(batch, state_of(batch))[0].item() < 1e-12


def test_guidance_replaces_v_in_the_tangent_too(batch: Batch, state_of: StateOf, scaled_field: Any) -> None:
    # u = z, hence du/dt is the tangent's first part; the teacher's guided velocity is 3 everywhere
    method = meanflow(scaled_field(1.0), scaled_field(0.0, 1.0), omega=3.0, equal_share=0.0, times="uniform")
    _, logs = method.loss(batch, state_of(batch))
    g = torch.Generator().manual_seed(0)
    torch.randn(batch.x1.shape, generator=g)
    h = (torch.rand(4, generator=g) - torch.rand(4, generator=g)).abs()
    frames = batch.target.sum(-1)
    expected = (frames * (3 * h) ** 2).sum() / frames.sum()
    assert logs["tangent_rms"] == pytest.approx(expected.sqrt().item(), rel=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.75, 1.0])
def test_share_of_r_equal_t_and_the_law_of_times(
    share: float, batch_of: Any, state_of: StateOf, scaled_field: Any, recorder: Any
) -> None:
    batch, network = batch_of(rows=3000, frames=2), recorder(scaled_field())
    meanflow(network, scaled_field(), equal_share=share).loss(batch, state_of(batch))
    _, t, r, _ = network.calls[-1]
    assert (t <= r).all()
    assert (t == r).float().mean().item() == pytest.approx(share, abs=0.03)
    if share == 0:
        both = torch.logit(torch.cat([t, r]).double())
        assert both.mean().item() == pytest.approx(0.4, abs=0.05)  # −0.4 in the paper's time
        assert both.std().item() == pytest.approx(1.0, abs=0.05)


def test_tangent_warmup(batch: Batch, state_of: StateOf, decay_average: Any, scaled_field: Any) -> None:
    def loss(progress: float, warmup: float) -> float:
        config = {"p": 0.0, "omega": 1.0, "equal_share": 0.0, "tangent_warmup": warmup}
        method = meanflow(scaled_field(-1.0), scaled_field(-1.0), **config)
        return method.loss(batch, state_of(batch, progress=progress))[0].item()

    full = loss(0.3, 0.0)
    assert loss(0.0, 0.5) < 1e-10  # without the tangent the teacher's velocity is the whole target
    assert loss(0.25, 0.5) == pytest.approx(full / 4, rel=1e-4)
    assert loss(0.5, 0.5) == pytest.approx(full, rel=1e-5)


def test_tangent_normalisation_bounds_the_gradient(batch_of: Any, state_of: StateOf, scaled_field: Any) -> None:
    batch = batch_of(rows=1)
    norms = []
    for size in (1.0, 1000.0):
        method = meanflow(
            scaled_field(0.0, 0.0), scaled_field(0.0, size), omega=1.0, equal_share=1.0, tangent_normalisation=0.1
        )
        _, _, (_, gradient) = gradients(method, batch, state_of(batch))
        norms.append(gradient.abs().item())
    # Δ = −size everywhere: 2·size/(size + c) instead of 2·size
    assert norms == pytest.approx([2 / 1.1, 2000 / 1000.1], rel=1e-4)


def test_tangent_normalisation_is_of_each_rows_own_frames(batch_of: Any, state_of: StateOf, recorder: Any) -> None:
    """Rows with prompts and padding, and errors of other sizes: Σ ‖Δ‖²/(rms + c) over all frames of the global batch."""

    class PerRow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.size = nn.Parameter(torch.tensor([1.0, 10.0, 0.1, 3.0]))

        def forward(self, z: Tensor, t: Tensor, r: Tensor | None, condition: Any) -> Tensor:
            return self.size[:, None, None].expand_as(z)

    class Zero(nn.Module):
        def forward(self, z: Tensor, t: Tensor, r: Tensor | None, condition: Any) -> Tensor:
            return torch.zeros_like(z)

    batch = batch_of(rows=4)
    assert len({*batch.target.sum(1).tolist()}) > 1
    method = meanflow(PerRow(), Zero(), omega=1.0, equal_share=1.0, tangent_normalisation=0.1)
    frames = batch.target.sum(1)
    size = method.network.size.detach()
    expected = (frames * size**2 / (size + 0.1)).sum() / frames.sum()
    state = state_of(batch)
    torch.testing.assert_close(method.loss(batch, state)[0], expected)
    state = state_of(batch)
    state.frames *= 2
    torch.testing.assert_close(method.loss(batch, state)[0], expected / 2)


def test_self_guidance_leaves_bands_alone_that_are_not_guided(
    batch: Batch, state_of: StateOf, scaled_field: Any, recorder: Any
) -> None:
    """As a teacher's guidance does: text2mel's alignment is not guided."""
    network = recorder(scaled_field(0.5, 2.0))
    bands = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.5])
    network.guided_bands = bands
    config = {
        "guidance_from": "self",
        "omega": 2.0,
        "kappa": 0.3,
        "condition_dropout": 0.4,
        "equal_share": 1.0,
        "p": 0.0,
    }
    loss, _ = meanflow(network, scaled_field(9.0), **config).loss(batch, state_of(batch, seed=1))
    z, t, r, condition = network.calls[-1]
    v = batch.x1 - randn_like(batch.x1, torch.Generator().manual_seed(1))
    guided = 2.0 * v + 0.3 * (0.5 * z + 2.0) + (1 - 2.0 - 0.3) * 0.5 * z
    target = torch.where(condition.dropped[:, None, None], v, (1 - bands) * v + bands * guided)
    delta = (network.network(z, t, r, condition) - target)[batch.target]
    torch.testing.assert_close(loss, delta.square().mean())


def test_self_guidance_under_autocast_leaves_gradients_to_all_weights(batch: Batch, state_of: StateOf) -> None:
    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layer = nn.Linear(6, 6)

        def forward(self, z: Tensor, t: Tensor, r: Tensor | None, condition: Any) -> Tensor:
            found: Tensor = self.layer(z)
            return found

    network = Linear()
    method = meanflow(network, Linear(), guidance_from="self", condition_dropout=0.1)
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = method.loss(batch, state_of(batch))
    loss.backward()
    for parameter in network.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"kappa": 0.5}, "guidance_from: self"),
        ({"guidance_from": "self", "omega": 2.0}, "condition_dropout above 0"),
        ({"kappa": 1.0, "guidance_from": "self"}, "less than 1"),
        ({"sigma": 1.0}, "sigma"),
    ],
)
def test_settings_that_make_no_sense(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        MeanFlowConfig(**config)


@pytest.fixture
def dit() -> nn.Module:
    shape = {"dim": 32, "depth": 2, "heads": 2, "bands": 6, "tokens": 24, "content_layers": 1}
    network = build_method("teacher", backbone="dit", backbone_config=shape).network
    network.attach_second_time()  # type: ignore[operator]
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=g))
    return network


def test_the_backbones_jvp_is_the_finite_difference(dit: nn.Module, batch: Batch) -> None:
    g = torch.Generator().manual_seed(1)
    z, v = torch.randn(2, *batch.x1.shape, generator=g)
    t, r = torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([0.3, 1.0, 0.7, 0.4])
    u = lambda z, t, r: dit(z, t, r, batch.condition)  # noqa: E731
    with torch.no_grad():
        _, derivative = along_path(u, z, t, r, v)
        h = 4e-3
        difference = (u(z + h * v, t + h, r) - u(z - h * v, t - h, r)) / (2 * h)
    assert derivative.abs().max() > 1
    error = (derivative - difference).norm() / difference.norm()
    assert error < 5e-3


@pytest.mark.parametrize("guidance", [{}, {"guidance_from": "self", "condition_dropout": 0.3}])
def test_one_pass_and_split_give_the_backbone_the_same_gradients(
    guidance: dict[str, Any], dit: nn.Module, batch: Batch, state_of: StateOf
) -> None:
    found = []
    for form in ("one_pass", "split"):
        method = meanflow(dit, dit, jvp=form, equal_share=0.25, **guidance)
        found.append(gradients(method, batch, state_of(batch)))
    torch.testing.assert_close(found[0][0], found[1][0])
    for one, other in zip(found[0][2], found[1][2], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
