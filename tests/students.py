"""Students whose second time matters, as artefacts: for several test modules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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


def save_student(folder: Path, network: nn.Module, method: str = "intmeanflow", **card: Any) -> Path:
    """An IntMeanFlow around the network, K = 8, w = 3, saved; ``method="teacher"`` leaves it of one time."""
    if method != "teacher":
        hear_both_times(network)
    cls = METHODS.get(method)
    config = cls.Config(guidance=3.0, **({} if method == "teacher" else {"teacher_nfe": 8}))
    about = {
        "name": "student", "method": method, "method_config": config.model_dump(mode="json"), "licence": "MIT",
        "task": TASKS[type(network).__name__], "train_data": {"name": "demo"}, "training": {"steps": 12},
        "teacher_sha256": None if method == "teacher" else "ab" * 32, **card,
    }  # fmt: skip
    save_artefact(folder, method, cls(config, network), about)
    return folder
