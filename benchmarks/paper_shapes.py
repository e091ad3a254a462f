"""Training steps and sampling of F5-TTS Base's and CosyVoice 2's own networks on random weights: seconds, memory, RTF.

    .venv/bin/python benchmarks/paper_shapes.py --out docs/results/paper_shapes

Needs the extras f5 and cosyvoice, and an accelerator to be of use. `training.csv` has a whole step (forward, backward, clipping,
AdamW, EMA) of flow matching, MeanFlow in one pass and split, and IntMeanFlow with K = 2 … 16, as `imfbench train` takes it, for
batches up to what the memory holds; after the first size that does not fit, a system's larger ones are not tried.
`sampling.csv` has 10 s of speech after a prompt of 5 s, batch 1, the flow alone, by Euler: the guided teacher, the unguided one,
and a student. Both are written row by row, so that what was measured before an interruption stays.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
import torch
from torch import nn

from imfbench.devices import describe, dtype_name, free_memory, out_of_memory, resolve_device
from imfbench.metrics.memory import peak_memory
from imfbench.metrics.speed import time_passes
from imfbench.profiling.rows import System
from imfbench.profiling.sizes import Size
from imfbench.profiling.steps import ready_step

TRAINED = [
    System("teacher"),
    System("meanflow", {"jvp": "one_pass"}),
    System("meanflow", {"jvp": "split"}),
    *(System("intmeanflow", {"teacher_nfe": k}) for k in (2, 4, 8, 16)),
]
SAMPLED = [
    (System("teacher", {"guidance": 2.0}), (1, 2, 3, 7, 16, 32)),
    (System("teacher", {"guidance": 0.0}), (1, 2, 3, 7, 16, 32)),
    (System("intmeanflow"), (1, 2, 3)),
]
SIZES = {
    "f5tts": [(1000, 1), (1000, 4), (1000, 8), (1000, 16), (1000, 38), (2000, 8), (500, 16)],
    "cosyvoice2-flow": [(500, 1), (500, 8), (500, 32), (500, 64), (1000, 32)],
}
"""Frames and rows; 38 rows of 1,000 frames are the batch of F5-TTS's recipe for one GPU."""
SPOKEN = {"f5tts": (1406, 24_000 / 256), "cosyvoice2-flow": (750, 50.0)}
"""Frames of a sampling, of which a third is prompt, and frames of a second."""


@dataclass
class Table:
    """Rows that go to a CSV file as they come."""

    path: Path
    rows: list[dict[str, Any]]

    def add(self, row: dict[str, Any]) -> None:
        """Write the table with one row more, and show it."""
        self.rows.append(row)
        pd.DataFrame(self.rows).to_csv(self.path, index=False)
        print(" ".join(str(row[key]) for key in row if key in SHOWN), flush=True)


SHOWN = ("shape", "system", "weights", "frames", "batch", "nfe", "seconds", "peak_memory_gb", "rtf", "note")


def training_rows(
    shape: str, device: torch.device, systems: list[System], repeats: int, until: float
) -> Iterator[dict[str, Any]]:
    too_large: dict[str, int] = {}
    for frames, batch in SIZES[shape]:
        for system in systems:
            if frames * batch >= too_large.get(system.name, 10**12) or time.monotonic() > until:
                continue
            row: dict[str, Any] = {"shape": shape, "system": system.name, "frames": frames, "batch": batch}
            row |= {"frames_a_step": frames * batch, "dtype": dtype_name(device, "auto")}
            free_memory()
            try:
                row |= _step(system, Size(frames, batch, shape), device, repeats)
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                too_large[system.name] = frames * batch
                row["note"] = "out of memory"
            yield row


def _step(system: System, size: Size, device: torch.device, repeats: int) -> dict[str, Any]:
    with device:  # random weights are drawn where they are used
        step = ready_step(system.method, system.config, size, "training", 1, device, "auto")
    for _ in range(2):
        step.run()
    with peak_memory(device) as peak:
        step.run()
    seconds = time_passes(step.run, 0, repeats, device)
    return {
        "parameters": step.parameters, "seconds": median(seconds), "fastest": min(seconds), "slowest": max(seconds),
        "repeats": repeats, "peak_memory_gb": peak.bytes / 1e9, "note": "",
    }  # fmt: skip


def sampling_rows(shape: str, device: torch.device, repeats: int, until: float) -> Iterator[dict[str, Any]]:
    frames, rate = SPOKEN[shape]
    generated = (frames - frames // 3) / rate
    for system, counts in SAMPLED:
        for weights in ("float32", "bfloat16"):
            for nfe in counts:
                if time.monotonic() > until:
                    return
                with device:
                    step = ready_step(
                        system.method, system.config, Size(frames, 1, shape), "sampling", nfe, device, "auto"
                    )
                if weights == "bfloat16":
                    _halve(step.method.network)
                for _ in range(2):
                    step.run()
                with peak_memory(device) as peak:
                    step.run()
                seconds = time_passes(step.run, 0, repeats, device)
                yield {
                    "shape": shape, "system": system.name, "weights": weights, "dtype": dtype_name(device, "auto"),
                    "frames": frames, "batch": 1, "nfe": nfe, "network_calls": step.network_calls(), "seconds": median(seconds),
                    "fastest": min(seconds), "slowest": max(seconds), "repeats": repeats, "generated_seconds": generated,
                    "rtf": median(seconds) / generated, "peak_memory_gb": peak.bytes / 1e9,
                }  # fmt: skip


def _halve(network: nn.Module) -> None:
    """Weights of matrix products to bf16, so that no step casts them; norms stay float32, as autocast has them."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv1d):
            layer.to(torch.bfloat16)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default=",".join(SIZES))
    parser.add_argument("--stages", default="sampling,training")
    parser.add_argument("--sizes", help="frames x rows in place of the table's, such as 500x4,1000x8")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=60.0, help="nothing is begun after them")
    parser.add_argument("--out", type=Path, default=Path("docs/results/paper_shapes"), help="folder")
    arguments = parser.parse_args(words)
    warnings.filterwarnings("ignore", ".*LoRACompatibleLinear.*")
    device = resolve_device(arguments.device)
    arguments.out.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + 60 * arguments.minutes
    if arguments.sizes:
        pairs = [tuple(map(int, pair.split("x"))) for pair in arguments.sizes.split(",")]
        SIZES.update(dict.fromkeys(SIZES, pairs))  # type: ignore[misc]
    machine = {**describe(device), "torch": torch.__version__, "date": time.strftime("%Y-%m-%d")}
    for stage in arguments.stages.split(","):
        table = Table(arguments.out / f"{stage}.csv", [])
        for shape in arguments.shapes.split(","):
            made = (
                training_rows(shape, device, TRAINED, arguments.repeats, until)
                if stage == "training"
                else sampling_rows(shape, device, 2 * arguments.repeats, until)
            )
            for row in made:
                table.add({**row, **machine})


if __name__ == "__main__":
    main()
