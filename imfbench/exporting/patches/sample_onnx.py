"""Samples the graphs beside this file with onnxruntime; nothing else than numpy is needed.

    mel = sample(".", noise, [0.0, 0.5, 1.0], tokens=..., prompt_mel=..., valid=..., ...)

README.md says what the inputs are.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime


def sample(folder: str | Path, noise: np.ndarray, grid: list[float], **inputs: np.ndarray) -> np.ndarray:
    """The end of the path from ``noise``, (rows, frames, bands), over the times of ``grid``, from 0 to 1; prompt included."""
    sessions = {path.stem: onnxruntime.InferenceSession(path) for path in sorted(Path(folder).glob("*.onnx"))}
    if "encode" in sessions:
        inputs["encoded"] = _run(sessions["encode"], inputs)
    z = np.asarray(noise, np.float32)
    for t, r in pairwise(grid):
        times = {name: np.full(len(z), value, np.float32) for name, value in (("t", t), ("r", r))}
        z = z + np.float32(r - t) * _run(sessions["velocity"], {**inputs, **times, "z": z})
    return z


def _run(session: Any, inputs: dict[str, np.ndarray]) -> Any:
    return session.run(None, {wanted.name: inputs[wanted.name] for wanted in session.get_inputs()})[0]
