"""Students in CosyVoice 2's own flow and in Chatterbox's: the mel is ours at 1, 2 and 3 steps, from the same noise."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_chatterbox import chatterbox_flow
from small_cosyvoice import SMALL, numbers, original_flow, pair
from torch import Tensor

from imfbench.artefact import load_artefact
from imfbench.backbones.cosyvoice2_sampling import fixed_noise, lay_out
from imfbench.exporting.export import export
from imfbench.flow.grids import uniform
from imfbench.flow.solvers import euler
from imfbench.method import encoded

GRIDS = {1: [0.0, 1.0], 2: [0.0, 0.65, 1.0], 3: [0.0, 0.2, 0.7, 1.0]}
TOLERANCE = 5e-5


def tokens(number: int, seed: int) -> Tensor:
    return torch.randint(SMALL.vocab_size, (number,), generator=torch.Generator().manual_seed(seed))


PROMPT, TARGET, MEL, SPEAKER = tokens(5, 1), tokens(9, 2), numbers(10, 80, seed=3), numbers(192, seed=4)


@torch.no_grad()
def ours(folder: Path, grid: Any, noise: Tensor) -> Tensor:
    """Prompt and target, (1, frames, bands), by our solver."""
    network = load_artefact(folder)[0].network
    condition = encoded(network, lay_out(PROMPT, MEL, TARGET, SPEAKER))
    return euler(lambda z, t, r: network(z, t, r, condition), noise, torch.as_tensor(grid, dtype=torch.float64))


@pytest.mark.parametrize("streaming", [False, True])
def test_the_patched_original_makes_the_students_mel(
    streaming: bool, student_of: Callable[..., Path], module_of: Callable[[Path], Any], tmp_path: Path
) -> None:
    folder, out = student_of(pair(streaming=streaming)[1]), tmp_path / "out"
    card, _ = export(str(folder), "cosyvoice2", out)
    patch, flow = module_of(out / "imfbench_cosyvoice2.py"), copy.deepcopy(original_flow())
    assert card["patch"] == "imfbench_cosyvoice2.py"
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.zero_()  # all that is heard comes from the file
    found = {}
    for steps, grid in GRIDS.items():
        patch.few_step(flow, out / "flow.pt", grid)
        found[steps], _ = flow.inference(
            token=TARGET[None], token_len=torch.tensor([9]), prompt_token=PROMPT[None], prompt_token_len=torch.tensor([5]),
            prompt_feat=MEL[None], prompt_feat_len=torch.tensor([10]), embedding=SPEAKER[None], streaming=streaming,
            finalize=True,
        )  # fmt: skip
        mine = ours(folder, grid, fixed_noise(28)[None])[:, len(MEL) :]
        torch.testing.assert_close(found[steps].transpose(1, 2), mine, atol=TOLERANCE, rtol=0)
    assert (found[1] - found[2]).abs().max() > 0.01
    other = ours(folder, [0.0, 0.5, 1.0], fixed_noise(28)[None])[:, len(MEL) :]
    assert (found[2].transpose(1, 2) - other).abs().max() > 0.01, "another grid would be noticed"


@pytest.mark.parametrize("streaming", [False, True])
def test_a_students_own_mask_is_told_and_that_of_chunks_is_kept_whatever_is_asked_for(
    streaming: bool, student_of: Callable[..., Path], module_of: Callable[[Path], Any], tmp_path: Path
) -> None:
    """The software asks for attention over all frames in the last chunk of its streams."""
    folder, out = student_of(pair(streaming=streaming)[1]), tmp_path / "out"
    card, told = export(str(folder), "cosyvoice2", out, grid="[0, 0.65, 1]")
    assert card["streaming"] is streaming
    line = f'few_step(cosyvoice.model.flow, "flow.pt", [0.0, 0.65, 1.0]{", streaming=True" if streaming else ""})'
    assert line in told
    assert ("stream=False" in told) is not streaming
    flow = copy.deepcopy(original_flow())
    patch = module_of(out / "imfbench_cosyvoice2.py")
    for mask in (True, streaming):  # the second call puts aside what the first one did
        patch.few_step(flow, out / "flow.pt", GRIDS[2], streaming=mask)
    found, _ = flow.inference(
        token=TARGET[None], token_len=torch.tensor([9]), prompt_token=PROMPT[None], prompt_token_len=torch.tensor([5]),
        prompt_feat=MEL[None], prompt_feat_len=torch.tensor([10]), embedding=SPEAKER[None], streaming=False, finalize=True,
    )  # fmt: skip
    mine = ours(folder, GRIDS[2], fixed_noise(28)[None])[:, len(MEL) :]
    torch.testing.assert_close(found.transpose(1, 2), mine, atol=TOLERANCE, rtol=0)


def test_a_teacher_takes_the_place_of_the_official_file(student_of: Callable[..., Path], tmp_path: Path) -> None:
    network = pair()[1]
    card, _ = export(str(student_of(network, "teacher")), "cosyvoice2", tmp_path / "out")
    assert card["patch"] is None
    state = torch.load(tmp_path / "out" / "flow.pt", weights_only=True)
    flow = copy.deepcopy(original_flow())
    flow.load_state_dict(state, strict=True)
    assert list(state) == list(network.state_dict())


def test_chatterbox_plays_it_without_a_patch(student_of: Callable[..., Path], tmp_path: Path) -> None:
    flow = chatterbox_flow(meanflow=True)
    save_file(
        {"flow.x": torch.zeros(1), "tokenizer.window": torch.ones(3), "mel2wav.a": torch.ones(2)}, tmp_path / "s3gen"
    )
    folder = student_of(pair()[1])
    card, told = export(str(folder), "chatterbox", tmp_path / "out", grid="uniform", beside=tmp_path / "s3gen")
    assert card["patch"] is None
    assert card["parts"] == ["flow", "mel2wav", "tokenizer"]
    assert "S3Gen(meanflow=True)" in told
    state = load_file(tmp_path / "out" / "s3gen_meanflow.safetensors")
    assert torch.equal(state.pop("tokenizer.window"), torch.ones(3))
    del state["mel2wav.a"]
    flow.load_state_dict({name.removeprefix("flow."): value for name, value in state.items()}, strict=True)
    condition = lay_out(PROMPT, MEL, TARGET, SPEAKER)
    with torch.no_grad():
        h, _ = flow.encoder(flow.input_embedding(condition.tokens[:, ::2] - 1), torch.tensor([14]))
        given = {
            "mu": flow.encoder_proj(h).transpose(1, 2), "mask": torch.ones(1, 1, 28),
            "cond": condition.prompt_mel.transpose(1, 2),
            "spks": flow.spk_embed_affine_layer(torch.nn.functional.normalize(SPEAKER[None], dim=1)),
        }  # fmt: skip
        for steps in (1, 2, 3):
            torch.manual_seed(6)
            found, _ = flow.decoder(**given, n_timesteps=steps, meanflow=True)
            torch.manual_seed(6)
            noise = torch.randn_like(given["mu"]).transpose(1, 2)  # drawn in the order in which mu lies in memory
            mine = ours(folder, uniform(steps), noise)
            torch.testing.assert_close(found.transpose(1, 2), mine, atol=TOLERANCE, rtol=0)


def test_chatterbox_is_told_that_its_grid_is_uniform(student_of: Callable[..., Path], tmp_path: Path) -> None:
    _, told = export(str(student_of(pair()[1])), "chatterbox", tmp_path / "out", grid="[0, 0.65, 1]")
    assert "Chatterbox samples on uniform grids; the grid [0.0, 0.65, 1.0]" in told
    assert "strict=False" in told
