"""Of CosyVoice 2's flow and Chatterbox's: inputs, our import by its command, our mel of what an isolated package was asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from imfbench.artefact import load_artefact
from imfbench.backbones.cosyvoice2_sampling import lay_out
from imfbench.cli import main
from imfbench.flow.guidance import guided_velocity
from imfbench.flow.solvers import euler
from imfbench.method import encoded

for package in ("omegaconf", "einops", "conformer", "diffusers", "matcha", "cosyvoice"):
    pytest.importorskip(package, reason="the original CosyVoice 2 is not installed: pip install 'imfbench[cosyvoice]'")

SMALL = {
    "vocab_size": 40, "encoder_heads": 2, "encoder_units": 32, "encoder_blocks": 1, "channels": 32, "attention_head_dim": 16,
    "heads": 2, "n_blocks": 1, "num_mid_blocks": 1, "chunk": 4,
}  # fmt: skip
INPUTS = {"prompt_tokens": [7, 31, 2, 18, 25], "tokens": [3, 39, 11, 0, 22, 14, 9, 30, 5]}
MANY = {"prompt_tokens": [11 * k % 6561 for k in range(20)], "tokens": [977 * k % 6561 for k in range(30)]}
"""Two chunks of the published size."""
GRIDS = [[0.0, 1.0], [0.0, 0.65, 1.0], [0.0, 0.2, 0.7, 1.0]]
GUIDANCE = 0.7
TOLERANCE = 2e-4
"""Of mels whose values are of size 1: the original adds up its steps in float32, and the network multiplies times by 1000."""
NOTICED = 0.01


def command(*arguments: object) -> str:
    """What ``imfbench`` prints."""
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    return result.output


def imported(path: Path, form: str, out: Path, **settings: Any) -> Any:
    """The network of a checkpoint, by ``imfbench import``."""
    command(
        "import", path, "--format", form, "--out", out, *(f"--set={name}={value}" for name, value in settings.items())
    )
    return load_artefact(out)[0].network


@torch.no_grad()
def ours(
    network: Any, asked: dict[str, Any], answered: dict[str, Tensor], grid: Any, noise: Tensor, w: float
) -> Tensor:
    """Prompt and target, (frames, bands), by our solver, grid and guidance."""
    prompt, target = (torch.tensor(asked[name]) for name in ("prompt_tokens", "tokens"))
    condition = encoded(network, lay_out(prompt, answered["prompt"], target, answered["speaker"]))
    times = torch.as_tensor(grid, dtype=torch.float64)
    return euler(lambda z, t, r: guided_velocity(network, z, t, condition, w, r), noise[None], times)[0]


def apart(what: str, found: Tensor, wanted: Tensor) -> float:
    """The largest difference, printed."""
    assert found.shape == wanted.shape
    assert 0.3 < wanted.std() < 50
    largest = float((found - wanted).abs().max())
    print(f"{what}: {largest:.1e} of {float(wanted.std()):.2f}")
    return largest
