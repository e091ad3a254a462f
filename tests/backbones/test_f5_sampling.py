"""Sampling beside F5-TTS's own ``CFM.sample``: the same noise, grid and guidance give the same mel."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

pytest.importorskip("f5_tts", reason="needs `pip install 'imfbench[f5]'`")
pytest.importorskip("torchdiffeq", reason="needs `pip install 'imfbench[f5]'`")

from small_f5 import BASE, CHARACTERS, V1, network, original_of

from imfbench.backbones.f5_sampling import condition_of, generated, whole
from imfbench.backbones.f5tts import F5Config, F5DiT, original_module
from imfbench.flow.grids import EPSS_POINTS, make_grid
from imfbench.flow.guidance import guided_velocity
from imfbench.flow.solvers import euler
from imfbench.method import Condition, encoded

PROMPTS, TEXTS, DURATIONS = (11, 6, 9), (17, 8, 12), (40, 25, 33)
TOLERANCE = 1e-4
"""Of mels whose values are of size 1. The network multiplies times by 1000, and upstream's grid is rounded to float32."""


def grid_as_upstream(steps: int, sway: float | None) -> Tensor:
    """Ours of the same name; upstream's pruned steps without sway have none."""
    if sway is not None:
        return make_grid("epss", steps)
    return make_grid([p / 32 for p in EPSS_POINTS[steps]] if steps in EPSS_POINTS else "uniform", steps)


def inputs(rows: int) -> tuple[list[Tensor], Tensor, list[int]]:
    """Prompts' mels, characters' numbers padded with −1, and durations."""
    g = torch.Generator().manual_seed(8)
    prompts = [torch.randn(n, 100, generator=g) for n in PROMPTS[:rows]]
    text = torch.full((rows, max(TEXTS[:rows])), -1)
    for row, length in zip(text, TEXTS[:rows], strict=True):
        row[:length] = torch.randint(0, CHARACTERS, (length,), generator=g)
    return prompts, text, list(DURATIONS[:rows])


def upstream(
    ours: F5DiT,
    prompts: list[Tensor],
    text: Tensor,
    durations: list[int],
    steps: int,
    w: float,
    sway: float | None,
    **more: bool,
) -> Tensor:
    model = original_module("cfm").CFM(original_of(ours), num_channels=100)
    found: Tensor = model.sample(
        cond=torch.nn.utils.rnn.pad_sequence(prompts, batch_first=True),
        text=text,
        duration=torch.tensor(durations),
        lens=torch.tensor([len(mel) for mel in prompts]),
        steps=steps,
        cfg_strength=w,
        sway_sampling_coef=sway,
        seed=5,
        **more,
    )[0]
    return found


def sampled(ours: F5DiT, condition: Condition, grid: Tensor, w: float) -> Tensor:
    """z at the end of the path, from upstream's noise: each row's own, of the seed that all rows share."""
    noise = []
    for frames in condition.valid.sum(1).tolist():
        noise.append(torch.randn(frames, 100, generator=torch.Generator().manual_seed(5)))
    z = torch.nn.utils.rnn.pad_sequence(noise, batch_first=True)
    with torch.no_grad():
        condition = encoded(ours, condition)
        return euler(lambda z, t, r: guided_velocity(ours, z, t, condition, w, r), z, grid)


def deviation(found: Tensor, wanted: Tensor) -> float:
    assert found.shape == wanted.shape
    assert wanted.std() > 0.5
    return float((found - wanted).abs().max())


@pytest.mark.parametrize("sway", [-1.0, None], ids=["sway", "plain"])
@pytest.mark.parametrize("w", [0.0, 2.0])
@pytest.mark.parametrize("steps", [1, 2, 3, 5, 7, 16, 32])
def test_one_utterance_is_the_originals(steps: int, w: float, sway: float | None) -> None:
    ours, (prompts, text, durations) = network(), inputs(1)
    wanted = upstream(ours, prompts, text, durations, steps, w, sway)
    condition = condition_of(prompts, text, durations)
    found = whole(sampled(ours, condition, grid_as_upstream(steps, sway), w), condition)
    assert deviation(found, wanted) < TOLERANCE


@pytest.mark.parametrize("config", [V1, BASE], ids=["v1", "base"])
@pytest.mark.parametrize(("steps", "w"), [(3, 0.0), (3, 2.0), (7, 2.0), (16, 2.0)])
def test_a_batch_of_unequal_lengths_is_the_originals(config: F5Config, steps: int, w: float) -> None:
    """With the original's setting, in which shorter rows hear their padding, the batch is the original's batch; with ours each
    row is what the original makes of the utterance alone."""
    prompts, text, durations = inputs(3)
    grid, condition = grid_as_upstream(steps, -1.0), condition_of(prompts, text, durations)
    plain, ours = network(config.model_copy(update={"attn_mask_enabled": False})), network(config)
    batch = upstream(ours, prompts, text, durations, steps, w, -1.0)
    mels = whole(sampled(plain, condition, grid, w), condition)
    valid = condition.valid
    assert deviation(mels[valid], batch[valid]) < TOLERANCE
    mels = whole(sampled(ours, condition, grid, w), condition)
    for row, (prompt, frames, characters) in enumerate(zip(prompts, durations, TEXTS, strict=True)):
        alone = upstream(ours, [prompt], text[row : row + 1, :characters], [frames], steps, w, -1.0)
        assert deviation(mels[row : row + 1, :frames], alone) < TOLERANCE
    assert (batch - mels)[1, :25].abs().max() > 0.05, "padding is heard by the original"


@pytest.mark.parametrize("steps", [5, 6])
def test_sway_without_pruned_steps_is_the_originals(steps: int) -> None:
    ours, (prompts, text, durations) = network(), inputs(1)
    condition = condition_of(prompts, text, durations)
    wanted = upstream(ours, prompts, text, durations, steps, 2.0, -1.0, use_epss=False)
    found = whole(sampled(ours, condition, make_grid("sway", steps), 2.0), condition)
    assert deviation(found, wanted) < TOLERANCE


def test_another_grid_or_guidance_would_be_noticed() -> None:
    ours, (prompts, text, durations) = network(), inputs(1)
    condition = condition_of(prompts, text, durations)
    wanted = upstream(ours, prompts, text, durations, 7, 2.0, -1.0)
    for grid, w in (("sway", 2.0), ("uniform", 2.0), ("epss", 1.9)):
        found = whole(sampled(ours, condition, make_grid(grid, 7), w), condition)
        assert deviation(found, wanted) > 50 * TOLERANCE


def test_too_short_durations_are_lengthened_as_upstream_does() -> None:
    ours, (prompts, text, _) = network(), inputs(3)
    wanted = upstream(ours, prompts, text, [4, 60, 4], 2, 0.0, -1.0)
    condition = condition_of(prompts, text, [4, 60, 4])
    assert condition.valid.sum(1).tolist() == [18, 60, 13], "one frame more than the text has characters"
    assert condition.valid.shape[1] == wanted.shape[1]
    assert condition_of(prompts, text, [4, 60, 4], longest=50).valid.sum(1).tolist() == [18, 50, 13]
    alone = condition_of(prompts[:1], text[:1, :3], [4])
    assert int(alone.valid.sum()) == 12, "one frame more than the prompt"


def test_prompt_frames_are_kept_and_cut_as_upstream_does() -> None:
    prompts, text, durations = inputs(3)
    condition = condition_of(prompts, text, durations)
    z = torch.randn(condition.prompt_mel.shape)
    kept = whole(z, condition)
    for row, prompt in enumerate(prompts):
        assert torch.equal(kept[row, : len(prompt)], prompt)
        assert torch.equal(kept[row, len(prompt) :], z[row, len(prompt) :])
    cut = generated(z, condition, [10, 6, 0])
    assert [len(mel) for mel in cut] == [30, 19, 33]
    assert torch.equal(cut[0][0], prompts[0][-1]), "upstream's inference keeps the prompt's last frame"
    assert torch.equal(cut[1], z[1, 6:25])
