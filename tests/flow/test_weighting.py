from __future__ import annotations

import torch

from imfbench.flow.weighting import adaptive, normalising


def test_values() -> None:
    error = torch.tensor([0.0, 3.0, 99.99])
    torch.testing.assert_close(adaptive(error, 1.0, 0.01), torch.tensor([100.0, 1 / 3.01, 0.01]))
    torch.testing.assert_close(adaptive(error, 0.5, 0.01)[2], torch.tensor(0.1))
    torch.testing.assert_close(adaptive(error, 0.0, 0.01), torch.ones(3))
    torch.testing.assert_close(normalising(torch.tensor([36.0]), torch.tensor([4]), 1.0), torch.tensor([0.25]))
    assert normalising(torch.zeros(1), torch.zeros(1), 0.1).isfinite().all()  # a row of padding alone


def test_the_weight_is_a_constant_for_the_gradient() -> None:
    delta = torch.tensor([30.0], requires_grad=True)
    error = delta**2
    for weight in (adaptive(error, 1.0, 1e-2), normalising(error, torch.ones(1), 0.1)):
        assert not weight.requires_grad
    (adaptive(error, 1.0, 1e-2) * error).sum().backward()
    stopped = delta.grad.item()  # type: ignore[union-attr]
    (through,) = torch.autograd.grad((delta**2 / (delta**2 + 1e-2)).sum(), delta)
    assert abs(stopped - 2 * 30 / (900 + 1e-2)) < 1e-6
    assert through.abs().item() < 1e-4 * stopped  # without the stop-gradient nothing would be learnt
