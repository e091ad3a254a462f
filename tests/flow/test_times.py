from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from imfbench.flow.grids import sway
from imfbench.flow.times import draw_from_grids, draw_intervals, draw_shared_intervals, draw_times

ROWS = 20_000


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_uniform_times_are_uniform() -> None:
    t = draw_times("uniform", ROWS, generator())
    assert stats.kstest(t.numpy(), "uniform").pvalue > 0.01


@pytest.mark.parametrize(("mean", "std"), [(0.4, 1.0), (-0.4, 0.5)])
def test_logit_normal_times_are_logit_normal(mean: float, std: float) -> None:
    t = draw_times("logit-normal", ROWS, generator(), mean, std)
    assert stats.kstest(torch.logit(t.double()).numpy(), "norm", args=(mean, std)).pvalue > 0.01


def test_cosine_times_are_what_cosyvoices_training_draws_and_its_grid_is_their_quantiles() -> None:
    """t = 1 − cos(πu/2) has the distribution function 2·arccos(1 − t)/π."""
    t = draw_times("cosine", ROWS, generator())
    assert stats.kstest(t.numpy(), lambda t: 2 * np.arccos(1 - t) / np.pi).pvalue > 0.01
    assert t.mean().item() == pytest.approx(1 - 2 / np.pi, abs=0.01)
    quantiles = torch.quantile(t, torch.linspace(0, 1, 5))
    torch.testing.assert_close(quantiles, sway(4, -1.0).float(), atol=0.02, rtol=0)


def test_stratified_times_are_one_in_each_part_and_each_row_keeps_the_law() -> None:
    drawn = torch.stack([draw_times("uniform", 16, generator(seed), stratified=True) for seed in range(500)])
    assert ((drawn * 16).floor().sort(1).values == torch.arange(16)).all()
    for row in (0, 7, 15):
        assert stats.kstest(drawn[:, row].numpy(), "uniform").pvalue > 0.001
    # A row's place in the batch, which is sorted by length, says nothing of its time.
    assert abs(np.corrcoef(np.tile(np.arange(16), 500), drawn.flatten().numpy())[0, 1]) < 0.05
    plain = torch.stack([draw_times("uniform", 16, generator(seed)) for seed in range(50)])
    assert not ((plain * 16).floor().sort(1).values == torch.arange(16)).all(1).any()
    logit = draw_times("logit-normal", ROWS, generator(), 0.4, 0.5, stratified=True)
    assert stats.kstest(torch.logit(logit.double()).numpy(), "norm", args=(0.4, 0.5)).pvalue > 0.01


def test_a_positive_mean_is_nearer_to_the_data() -> None:
    # MeanFlow's −0.4 in its time (1 = noise) is +0.4 in ours (1 = data)
    assert draw_times("logit-normal", ROWS, generator(), 0.4).median().item() == pytest.approx(0.5987, abs=0.01)


def test_intervals_are_two_sorted_draws() -> None:
    t, r = draw_intervals("uniform", ROWS, generator())
    assert (t <= r).all()
    assert stats.kstest(t.numpy(), stats.beta(1, 2).cdf).pvalue > 0.01
    assert stats.kstest(r.numpy(), stats.beta(2, 1).cdf).pvalue > 0.01


def test_intervals_of_grids_are_equally_likely() -> None:
    t, r = draw_from_grids([[0, 0.65, 1], [0, 1]], ROWS, generator())
    seen, counts = torch.stack([t, r], 1).unique(dim=0, return_counts=True)
    torch.testing.assert_close(seen, torch.tensor([[0, 0.65], [0, 1], [0.65, 1]]))
    assert (counts / ROWS - 1 / 3).abs().max() < 0.02


def test_shares_are_disjoint_and_as_asked() -> None:
    t, r = draw_shared_intervals(ROWS, generator(), 0.2, 0.3, 0.1, [[0, 0.65, 1]])
    assert (t <= r).all()
    first, second = ((t == 0) & (r == 0.65)).float().mean(), ((t == 0.65) & (r == 1)).float().mean()
    assert (t == r).float().mean().item() == pytest.approx(0.2, abs=0.015)
    assert ((t == 0) & (r != 0.65)).float().mean().item() == pytest.approx(0.3, abs=0.015)
    assert first.item() == pytest.approx(0.05, abs=0.01)
    assert second.item() == pytest.approx(0.05, abs=0.01)
    t, r = draw_shared_intervals(ROWS, generator(), 0, 0, 0)
    assert (t < r).all()
    assert (t > 0).float().mean() > 0.999
    assert (draw_shared_intervals(ROWS, generator(), 0, 0, 1, [[0, 0.5, 1]])[0] % 0.5 == 0).all()
