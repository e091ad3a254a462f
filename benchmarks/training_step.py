"""Seconds and peak memory of a training step by method, as ratios to flow matching's, in one run.

    .venv/bin/python benchmarks/training_step.py --frames 2000 --repeats 5 --out benchmarks/training_step.csv

Every method gets the same batch. The order is repeated ``--repeats`` times, so that a machine that drifts drifts for all.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import pandas as pd
import torch

from imfbench.artefact import load_artefact
from imfbench.building import build_method
from imfbench.datasets.demo.corpus import DemoCorpus
from imfbench.devices import describe, resolve_device, synchronize
from imfbench.metrics.memory import peak_memory
from imfbench.training import TrainConfig, Training

SYSTEMS: dict[str, tuple[str, dict[str, object]]] = {
    "flow matching": ("teacher", {}),
    "meanflow, one pass": ("meanflow", {"jvp": "one_pass"}),
    "meanflow, split": ("meanflow", {"jvp": "split"}),
    **{f"intmeanflow, K = {k}": ("intmeanflow", {"teacher_nfe": k}) for k in (1, 2, 4, 8, 16)},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=2000, help="mel frames of the batch")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--teacher", default="embedded:token2mel", help="artefact to start from")
    parser.add_argument("--out", type=Path, help="CSV file")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device, data = resolve_device(arguments.device), DemoCorpus()
    config = TrainConfig(steps=1_000_000, frames_per_batch=arguments.frames)
    trainings, memory = {}, {}
    for name, (method_name, method_config) in SYSTEMS.items():
        teacher, _ = load_artefact(arguments.teacher, device)
        training = Training(build_method(method_name, method_config, teacher), data, config, Path(), device)
        micro = next(training.micro_batches())
        training.advance(micro, 1_000_000)
        with peak_memory(device) as peak:
            training.advance(micro, 1_000_000)
        trainings[name], memory[name], kind = training, peak.bytes, peak.kind
        print(f"{name}: {peak.bytes / 1e6:.0f} MB ({peak.kind})", flush=True)
    seconds: dict[str, list[float]] = {name: [] for name in SYSTEMS}
    for _ in range(arguments.repeats):
        for name, training in trainings.items():
            synchronize(device)
            start = time.perf_counter()
            training.advance(micro, 1_000_000)
            synchronize(device)
            seconds[name].append(time.perf_counter() - start)
    base = seconds["flow matching"]
    rows = [
        {
            "method": name,
            "seconds_median": statistics.median(found),
            "seconds_ratio": statistics.median(a / b for a, b in zip(found, base, strict=True)),
            "peak_memory": memory[name],
            "memory_ratio": (memory[name] or 0) / (memory["flow matching"] or 1),
            "memory_kind": kind,
            "frames": arguments.frames,
            "repeats": arguments.repeats,
            **describe(device),
        }
        for name, found in seconds.items()
    ]
    table = pd.DataFrame(rows)
    print(table[["method", "seconds_median", "seconds_ratio", "peak_memory", "memory_ratio"]].to_string(index=False))
    if arguments.out:
        table.to_csv(arguments.out, index=False)


if __name__ == "__main__":
    main()
