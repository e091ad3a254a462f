"""Students whose second time matters, as artefacts; files that an export lays down, as modules."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from imfbench.artefact import save_artefact
from imfbench.registry import METHODS

TASKS = {"DiT": "token2mel", "CosyVoice2Flow": "token2mel", "F5DiT": "text2mel"}


def hear_both_times(network: Any) -> None:
    """A mixer that is not [I, 0]: with that one r would not be heard, and no mistake with it."""
    network.attach_second_time()
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if "mixer" in name:
                weight.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(7)))


@pytest.fixture
def student_of(tmp_path: Path) -> Callable[..., Path]:
    """``student_of(network)``: an IntMeanFlow around it, K = 8, w = 3, saved; ``method="teacher"`` leaves it of one time."""

    def save(network: nn.Module, method: str = "intmeanflow", **card: Any) -> Path:
        if method != "teacher":
            hear_both_times(network)
        cls = METHODS.get(method)
        config = cls.Config(guidance=3.0, **({} if method == "teacher" else {"teacher_nfe": 8}))
        folder = tmp_path / "artefacts" / "student"
        about = {
            "name": "student", "method": method, "method_config": config.model_dump(mode="json"), "licence": "MIT",
            "task": TASKS[type(network).__name__], "train_data": {"name": "demo"}, "training": {"steps": 12},
            "teacher_sha256": None if method == "teacher" else "ab" * 32, **card,
        }  # fmt: skip
        save_artefact(folder, method, cls(config, network), about)
        return folder

    return save


@pytest.fixture
def module_of() -> Callable[[Path], Any]:
    """A Python file as it lies in an export."""

    def load(path: Path) -> Any:
        spec = importlib.util.spec_from_file_location(f"exported_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load
