"""How long a training step waits for its batch: the loader's share of a step. Goal: below 5 %.

    .venv/bin/python benchmarks/loader.py --steps 30 --out benchmarks/loader.csv

The loop is a training's: the batch is asked for, then the step is taken; both are timed. Flow matching has the cheapest step, so
its share is the largest. The first batch, which reads the corpus, is told apart.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from imfbench.artefact import load_artefact
from imfbench.building import build_method
from imfbench.datasets.demo.corpus import DemoCorpus
from imfbench.devices import describe, resolve_device, synchronize
from imfbench.training import TrainConfig, Training

GOAL = 0.05
STEPS = 1_000_000


def main(words: Sequence[str] | None = None) -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default="teacher,intmeanflow")
    parser.add_argument("--frames", type=int, default=2000, help="mel frames of a batch")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--task", choices=["token2mel", "text2mel"], default="token2mel")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--teacher", help="artefact to start from [the embedded teacher of the task]")
    parser.add_argument("--out", type=Path, help="CSV file")
    arguments = parser.parse_args(words)
    if arguments.threads:
        import torch

        torch.set_num_threads(arguments.threads)
    device = resolve_device(arguments.device)
    config = TrainConfig(steps=STEPS, frames_per_batch=arguments.frames)
    rows: list[dict[str, Any]] = []
    for name in arguments.methods.split(","):
        teacher, _ = load_artefact(arguments.teacher or f"embedded:{arguments.task}", device)
        training = Training(build_method(name, {}, teacher), DemoCorpus(task=arguments.task), config, Path(), device)
        batches = training.micro_batches()
        start = time.perf_counter()
        first = next(batches)
        opening = time.perf_counter() - start
        training.advance(first, STEPS)
        waited, stepped = [], []
        for _ in range(arguments.steps):
            start = time.perf_counter()
            micro = next(batches)
            between = time.perf_counter()
            training.advance(micro, STEPS)
            synchronize(device)
            waited.append(between - start)
            stepped.append(time.perf_counter() - between)
        rows.append(
            {
                "method": name,
                "task": arguments.task,
                "share": sum(waited) / (sum(waited) + sum(stepped)),
                "longest_wait": max(waited),
                "first_batch": opening,
                "step_seconds": sum(stepped) / len(stepped),
                "frames": arguments.frames,
                "n": arguments.steps,
                "goal": GOAL,
                **describe(device),
            }
        )
        told = rows[-1]
        print(
            f"{name}: waits {told['share']:.2%} of its time, {1000 * max(waited):.1f} ms at most (n {arguments.steps}); "
            f"a step takes {told['step_seconds']:.2f} s, the first batch {opening:.2f} s",
            flush=True,
        )
    if arguments.out:
        pd.DataFrame(rows).to_csv(arguments.out, index=False)
    return rows


if __name__ == "__main__":
    main()
