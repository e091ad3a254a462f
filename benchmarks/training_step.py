"""Seconds and peak memory of a training step by method, as ratios to the first one's, in one run.

    .venv/bin/python benchmarks/training_step.py --frames 2000 --repeats 5 --out benchmarks/training_step.csv
    .venv/bin/python benchmarks/training_step.py --experiment options_intmeanflow --frames 1000 --repeats 30

Every method gets the same batches, another one in each turn, since settings that draw what a row does cost a mean of their cases.
A machine that drifts drifts for all.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from pathlib import Path

import pandas as pd
import torch

from imfbench.artefact import load_artefact
from imfbench.building import build_method
from imfbench.config import load
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
    parser.add_argument("--experiment", help="whose systems are timed; the methods against flow matching without it")
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
    systems = of_experiment(arguments.experiment) if arguments.experiment else SYSTEMS
    batches = [[batch] for batch in itertools.islice(data.batches(arguments.frames, config.seed), arguments.repeats)]
    trainings, memory = {}, {}
    for name, (method_name, method_config) in systems.items():
        teacher, _ = load_artefact(arguments.teacher, device)
        training = Training(build_method(method_name, method_config, teacher), data, config, Path(), device)
        training.advance(batches[0], 1_000_000)
        with peak_memory(device) as peak:
            training.advance(batches[0], 1_000_000)
        trainings[name], memory[name], kind = training, peak.bytes, peak.kind
        print(f"{name}: {peak.bytes / 1e6:.0f} MB ({peak.kind})", flush=True)
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    for batch in batches:
        for name, training in trainings.items():
            synchronize(device)
            start = time.perf_counter()
            training.advance(batch, 1_000_000)
            synchronize(device)
            seconds[name].append(time.perf_counter() - start)
    first = next(iter(systems))
    base = seconds[first]
    rows = [
        {
            "method": name,
            "seconds_mean": statistics.fmean(found),
            "ratio_of_means": statistics.fmean(found) / statistics.fmean(base),
            "seconds_median": statistics.median(found),
            "median_ratio": statistics.median(a / b for a, b in zip(found, base, strict=True)),
            "peak_memory": memory[name],
            "memory_ratio": (memory[name] or 0) / (memory[first] or 1),
            "memory_kind": kind,
            "frames": arguments.frames,
            "repeats": arguments.repeats,
            **describe(device),
        }
        for name, found in seconds.items()
    ]
    table = pd.DataFrame(rows)
    shown = [
        "method",
        "seconds_mean",
        "ratio_of_means",
        "seconds_median",
        "median_ratio",
        "peak_memory",
        "memory_ratio",
    ]
    print(table[shown].to_string(index=False))
    if arguments.out:
        table.to_csv(arguments.out, index=False)


def of_experiment(name: str) -> dict[str, tuple[str, dict[str, object]]]:
    """Its systems by what is timed: those that differ in how they are trained alone, once."""
    found: dict[str, tuple[str, dict[str, object]]] = {}
    for system in load(name).systems:
        kind = (system.method, dict(system.config))
        if kind not in found.values():
            found[system.label] = kind
    return found


if __name__ == "__main__":
    main()
