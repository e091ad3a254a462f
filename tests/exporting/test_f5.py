"""Students in F5-TTS's own ``CFM``: with the patch its mel is ours at 1, 2 and 3 steps; teachers need none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("f5_tts", reason="needs `pip install 'imfbench[f5]'`")
pytest.importorskip("torchdiffeq", reason="needs `pip install 'imfbench[f5]'`")

from small_f5 import BASE, CHARACTERS, V1, inference, network, original_of

from imfbench.artefact import load_artefact
from imfbench.backbones.f5_sampling import condition_of, whole
from imfbench.backbones.f5tts import F5Config, original_module
from imfbench.exporting.export import export
from imfbench.flow.grids import make_grid
from imfbench.flow.guidance import guided_velocity
from imfbench.flow.solvers import euler
from imfbench.method import encoded

TOLERANCE = 2e-5
"""Of mels whose values reach 9; upstream's grid is rounded to float32."""
GRIDS = {1: [0.0, 1.0], 2: [0.0, 0.65, 1.0], 3: [0.0, 0.2, 0.7, 1.0]}
G = torch.Generator().manual_seed(8)
PROMPT = torch.randn(9, 100, generator=G)
TEXT = torch.randint(0, CHARACTERS, (1, 14), generator=G)
FRAMES = 37


def cfm(config: F5Config, seed: int = 3) -> Any:
    """The original with other weights."""
    return original_module("cfm").CFM(original_of(network(config, seed)), num_channels=100)


def theirs(model: Any, **settings: Any) -> torch.Tensor:
    """The original's mel, asked as its inference asks."""
    asked = {"steps": 32, "cfg_strength": 2.0, "sway_sampling_coef": -1.0, **settings}
    found: torch.Tensor = model.sample(cond=PROMPT[None], text=TEXT, duration=FRAMES, seed=5, **asked)[0]
    return found


def ours(folder: Path, grid: Any, guidance: float = 0.0) -> torch.Tensor:
    """Our mel from the same noise."""
    loaded = load_artefact(folder)[0].network
    condition = encoded(loaded, condition_of([PROMPT], TEXT, [FRAMES]))
    noise = torch.randn(FRAMES, 100, generator=torch.Generator().manual_seed(5))[None]
    with torch.no_grad():
        z = euler(
            lambda z, t, r: guided_velocity(loaded, z, t, condition, guidance, r),
            noise,
            torch.as_tensor(grid, dtype=torch.float64),
        )
    return whole(z, condition)


@pytest.mark.parametrize("config", [V1, BASE], ids=["v1", "base"])
def test_the_patched_original_makes_the_students_mel(
    config: F5Config, student_of: Callable[..., Path], module_of: Callable[[Path], Any], tmp_path: Path
) -> None:
    folder, out = student_of(network(config)), tmp_path / "out"
    card, told = export(str(folder), "f5", out)
    assert card["patch"] == "imfbench_f5.py"
    assert "few_step" in told
    patch, model = module_of(out / card["patch"]), cfm(config)
    untouched = theirs(model)
    found = {}
    for steps, grid in GRIDS.items():
        assert patch.few_step(model, str(out / "model.safetensors"), grid) is model
        with counted(model.transformer) as calls:
            found[steps] = theirs(model)
        assert calls == [1] * steps, "one unguided row for each step"
        torch.testing.assert_close(found[steps], ours(folder, grid), atol=TOLERANCE, rtol=0)
    assert (found[1] - found[2]).abs().max() > 1000 * TOLERANCE
    assert (found[2] - ours(folder, [0.0, 0.5, 1.0])).abs().max() > 1000 * TOLERANCE, "another grid would be noticed"
    assert (found[3] - untouched).abs().max() > 1000 * TOLERANCE


class counted:
    """The rows of each evaluation of a module."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.module, self.calls = module, list[int]()

    def __enter__(self) -> list[int]:
        self.hook = self.module.proj_out.register_forward_hook(lambda _, given, __: self.calls.append(len(given[0])))
        return self.calls

    def __exit__(self, *_: object) -> None:
        self.hook.remove()


def test_without_the_patch_the_original_refuses_the_file(student_of: Callable[..., Path], tmp_path: Path) -> None:
    export(str(student_of(network())), "f5", tmp_path / "out")
    with pytest.raises(RuntimeError, match=r"time_embed\.mixer\.weight"):
        inference().load_checkpoint(cfm(V1), str(tmp_path / "out" / "model.safetensors"), "cpu", torch.float32)


def test_in_half_precision_the_times_are_still_the_grids(
    student_of: Callable[..., Path], module_of: Callable[[Path], Any], tmp_path: Path
) -> None:
    """The original loads half-precision weights on accelerators, where 0.65 is no number."""
    export(str(student_of(network())), "f5", tmp_path / "out")
    patch, heard = module_of(tmp_path / "out" / "imfbench_f5.py"), []
    model = patch.few_step(cfm(V1).bfloat16(), str(tmp_path / "out" / "model.safetensors"), GRIDS[2])
    embedding = model.transformer.time_embed
    embedding.embedding.time_embed.register_forward_hook(lambda _, given, __: heard.append(given[0].tolist()))
    for time in (0.0, 0.65):
        assert embedding(torch.tensor([time], dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert heard == [[0.0], [pytest.approx(0.65)], [pytest.approx(0.65)], [1.0]]


def test_a_teacher_is_played_by_the_original_as_it_is(student_of: Callable[..., Path], tmp_path: Path) -> None:
    folder = student_of(network(), "teacher")
    card, told = export(str(folder), "f5", tmp_path / "out")
    assert card["patch"] is None
    assert "few_step" not in told
    model = cfm(V1)
    inference().load_checkpoint(model, str(tmp_path / "out" / "model.safetensors"), "cpu", torch.float32)
    found = theirs(model, steps=7)
    torch.testing.assert_close(found, ours(folder, make_grid("epss", 7), 2.0), atol=TOLERANCE, rtol=0)


def test_a_network_of_bigvgans_mel_says_what_the_original_has_to_be_told(
    student_of: Callable[..., Path], tmp_path: Path
) -> None:
    folder = student_of(network(V1.model_copy(update={"mel_format": "bigvgan-24k"})), "teacher")
    card, told = export(str(folder), "f5", tmp_path / "out")
    assert card["mel"]["format"] == "bigvgan-24k"
    assert "write `mel_spec_type: bigvgan` into `configs/F5TTS_v1_Base.yaml`" in told
