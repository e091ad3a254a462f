"""Students as graphs: onnxruntime and torch make the same mel at 1, 2 and 3 steps, for any number of rows and frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("onnxscript", reason="needs `pip install 'imfbench[onnx]'`")

from imfbench.artefact import load_artefact
from imfbench.backbones.dit import DiT, DiTConfig
from imfbench.contracts.batches import batch_for, fill, row_alone
from imfbench.exporting.export import export
from imfbench.flow.solvers import euler
from imfbench.inputs import inputs_of
from imfbench.method import Batch, Condition

GRIDS = ([0.0, 1.0], [0.0, 0.65, 1.0], [0.0, 0.2, 0.7, 1.0])
TOLERANCE = 5e-5


def small(name: str) -> nn.Module:
    """Random in every weight."""
    if name == "f5tts":
        pytest.importorskip("f5_tts", reason="needs `pip install 'imfbench[f5]'`")
        from imfbench.backbones.f5tts import F5Config, F5DiT

        network: nn.Module = F5DiT(
            F5Config(dim=32, depth=1, heads=2, dim_head=16, text_dim=16, text_num_embeds=100, conv_layers=1)
        )
    elif name == "cosyvoice2":
        for package in ("omegaconf", "einops", "conformer", "diffusers", "matcha", "cosyvoice"):
            pytest.importorskip(package, reason="needs `pip install 'imfbench[cosyvoice]'`")
        from imfbench.backbones.cosyvoice2 import CosyVoice2Config, CosyVoice2Flow

        network = CosyVoice2Flow(
            CosyVoice2Config(
                vocab_size=40, input_size=32, encoder_heads=2, encoder_units=32, encoder_blocks=1, channels=32,
                attention_head_dim=16, heads=2, n_blocks=1, num_mid_blocks=1, chunk=2, streaming=True,
            )
        )  # fmt: skip
    else:
        network = DiT(DiTConfig(dim=32, depth=1, heads=2, content_layers=1))
    fill(network)
    return network.eval()


def conditions(network: Any) -> list[Condition]:
    """A batch with padding and one row alone, of other lengths than those that the graph was made with."""
    batch: Batch = batch_for(inputs_of(network), network.task)
    return [batch.condition, row_alone(batch, 1)[0]]


def given(condition: Condition) -> dict[str, Tensor]:
    """What a user of the graphs has."""
    found = replace(condition, encoded=None).tensors
    del found["dropped"]
    return found


def ours(folder: Path, condition: Condition, noise: Tensor, grid: list[float]) -> Tensor:
    """The method's own mel."""
    method = load_artefact(folder)[0]
    times = torch.tensor(grid, dtype=torch.float64)
    with torch.no_grad():
        return euler(lambda z, t, r: method.velocity(z, t, r, condition), noise, times)


def agree(folder: Path, sampler: Any, out: Path, form: str) -> None:
    """All grids and conditions."""
    network = load_artefact(folder)[0].network
    for condition in conditions(network):
        noise = torch.randn(condition.prompt_mel.shape, generator=torch.Generator().manual_seed(4))
        tensors = given(condition)
        ends = []
        for grid in GRIDS:
            if form == "onnx":
                arrays = {name: value.numpy() for name, value in tensors.items()}
                found = torch.from_numpy(sampler.sample(out, noise.numpy(), grid, **arrays))
            else:
                found = sampler.sample(out, noise, grid, **tensors)
            valid = condition.valid
            torch.testing.assert_close(
                found[valid], ours(folder, condition, noise, grid)[valid], atol=TOLERANCE, rtol=1e-4
            )
            ends.append(found[valid])
        assert (ends[0] - ends[1]).abs().max() > 100 * TOLERANCE


def slowly(*values: str) -> Any:
    """Tracing the original networks takes half a minute and more; what is traced of ours goes the same way."""
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("dit", "onnx"),
        slowly("f5tts", "torch"),
        slowly("cosyvoice2", "torch"),
        slowly("dit", "torch"),
        slowly("f5tts", "onnx"),
        slowly("cosyvoice2", "onnx"),
    ],
)
def test_the_graphs_make_the_students_mel(
    name: str, form: str, student_of: Callable[..., Path], module_of: Callable[[Path], Any], tmp_path: Path
) -> None:
    folder, out = student_of(small(name)), tmp_path / "out"
    card, told = export(str(folder), form, out)
    assert set(card["graphs"]) == ({"velocity"} if name == "dit" else {"encode", "velocity"})
    assert "r" in card["graphs"]["velocity"]
    assert all(f"`{entry}`" in told for graph in card["graphs"].values() for entry in graph)
    agree(folder, module_of(out / card["patch"]), out, form)


@pytest.mark.slow
def test_a_teachers_guidance_is_in_its_graph(
    student_of: Callable[..., Path], module_of: Callable[[Path], Any], tmp_path: Path
) -> None:
    folder, out = student_of(small("dit"), "teacher"), tmp_path / "out"
    card, told = export(str(folder), "onnx", out)
    assert "r" not in card["graphs"]["velocity"]
    assert "Guidance w = 3.0 is a part of the graph" in told
    agree(folder, module_of(out / "sample_onnx.py"), out, "onnx")
