"""The README's example method as it stands there: linted, registered, trained, sampled."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
import torch

from imfbench.building import build_method
from imfbench.data import Example, training_batches
from imfbench.flow.counting import Counts
from imfbench.flow.grids import make_grid
from imfbench.registry import METHODS
from imfbench.sampling import synthesize_mel
from imfbench.training import TrainConfig, train

CLONE = Path(__file__).parent.parent
README = CLONE / "README.md"
NAME, FILE = "two-in-one", "methods/two_in_one.py"


class Noise:
    def batches(self, frames_per_batch: int, seed: int, start_step: int = 0):
        g = torch.Generator().manual_seed(0)
        examples = [
            Example(f"e{i}", "s", torch.randn(20, 8, generator=g), torch.ones(20, dtype=torch.int64)) for i in range(4)
        ]
        return training_batches(examples, frames_per_batch, seed, start_step, seconds_per_frame=0.2, pool=8)


@pytest.fixture
def example() -> str:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    return code


@pytest.fixture
def registered(example: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The README's own text has the name for one test, also where a reader saved it as a file already."""
    monkeypatch.setitem(METHODS._entries, NAME, "imfbench.methods.two_in_one:TwoInOne")  # a decorator replaces it
    exec(compile(example, str(README), "exec"), {"__name__": "imfbench.methods.two_in_one"})
    assert isinstance(METHODS._entries[NAME], type)


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]])
def test_the_example_passes_the_projects_linter(command: list[str], example: str) -> None:
    ruff = [
        sys.executable,
        "-m",
        "ruff",
        *command,
        "--no-cache",
        "--stdin-filename",
        FILE,
        "--config",
        "pyproject.toml",
    ]
    found = subprocess.run([*ruff, "-"], input=example, capture_output=True, text=True, encoding="utf-8", cwd=CLONE)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.usefixtures("registered")
def test_the_example_trains_and_samples(precision: Literal["fp32", "bf16"], tmp_path: Path) -> None:
    shape = {"bands": 8, "tokens": 4, "dim": 32, "depth": 1, "heads": 2}
    teacher = build_method("teacher", {}, backbone_config=shape)
    with torch.no_grad():
        teacher.network.outlet.weight.normal_(std=0.1)
    method = build_method(NAME, {}, teacher)
    before = {name: value.clone() for name, value in method.network.state_dict().items()}
    config = TrainConfig(steps=3, frames_per_batch=200, precision=precision, warmup=0, weight_decay=0)
    result = train(method, NAME, Noise(), config, tmp_path, torch.device("cpu"))
    assert result.status == "ok"
    after = method.network.state_dict()
    still = {name for name, _ in method.network.named_parameters() if torch.equal(after[name], before[name])}
    assert not still, "weights that no gradient reached"
    condition = next(Noise().batches(20, 0)).condition
    mel, counts = synthesize_mel(method, condition, "u", make_grid("uniform", 2))
    assert counts == Counts(steps=2, nfe=2, network_calls=2)
    assert mel.shape == (int((condition.valid & ~condition.prompt).sum()), 8)
