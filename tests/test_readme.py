"""The README's example method is executed as it stands: registered, trained, sampled."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from imfbench.data import Example, training_batches
from imfbench.flow.counting import Counts
from imfbench.flow.grids import make_grid
from imfbench.registry import METHODS
from imfbench.sampling import synthesize_mel
from imfbench.training import TrainConfig, build_method, train

README = Path(__file__).parent.parent / "README.md"


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


def test_the_example_trains_and_samples(example: str, tmp_path: Path) -> None:
    exec(compile(example, str(README), "exec"), {"__name__": "readme_example"})
    try:
        shape = {"bands": 8, "tokens": 4, "dim": 32, "depth": 1, "heads": 2}
        teacher = build_method("teacher", {}, backbone_config=shape)
        with torch.no_grad():
            teacher.network.outlet.weight.normal_(std=0.1)
        method = build_method("split-meanflow", {}, teacher)
        before = method.network.time.mixer.weight.clone()
        config = TrainConfig(steps=3, frames_per_batch=200, precision="fp32", warmup=0)
        result = train(method, "split-meanflow", Noise(), config, tmp_path, torch.device("cpu"))
        assert result.status == "ok"
        assert not torch.equal(method.network.time.mixer.weight, before)
        condition = next(Noise().batches(20, 0)).condition
        mel, counts = synthesize_mel(method, condition, "u", make_grid("uniform", 2))
        assert counts == Counts(steps=2, nfe=2, network_calls=2)
        assert mel.shape == (int((condition.valid & ~condition.prompt).sum()), 8)
    finally:
        METHODS._entries.pop("split-meanflow", None)
