"""Samples the programs beside this file; nothing else than torch is needed.

    mel = sample(".", noise, [0.0, 0.5, 1.0], tokens=..., prompt_mel=..., valid=..., ...)

README.md says what the inputs are, card.json in which order they go into each program.
"""

import json
from itertools import pairwise
from pathlib import Path

import torch


def sample(folder: str | Path, noise: torch.Tensor, grid: list[float], **inputs: torch.Tensor) -> torch.Tensor:
    """The end of the path from ``noise``, (rows, frames, bands), over the times of ``grid``, from 0 to 1; prompt included."""
    order = json.loads(Path(folder, "card.json").read_text(encoding="utf-8"))["graphs"]
    programs = {name: torch.export.load(Path(folder, f"{name}.pt2")).module() for name in order}
    with torch.no_grad():
        if "encode" in programs:
            inputs["encoded"] = programs["encode"](*[inputs[name] for name in order["encode"]])
        z = noise
        for t, r in pairwise(grid):
            given = {**inputs, "z": z, "t": torch.full((len(z),), t), "r": torch.full((len(z),), r)}
            z = z + (r - t) * programs["velocity"](*[given[name] for name in order["velocity"]])
    return z
