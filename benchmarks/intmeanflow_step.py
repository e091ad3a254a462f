"""A training step of IntMeanFlow against student forward and backward and the teacher's 2K forwards. Goal: at most 1.05.

    .venv/bin/python benchmarks/intmeanflow_step.py --frames 2000 --repeats 9 --out benchmarks/intmeanflow_step.csv

Step and parts are timed in turns on the same batch; the figure is the median of their ratios. The step is the whole of a
training's: draws, interpolation, roll-out, loss, clipping, optimiser and EMA; ``update`` is the share of the last three.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from imfbench.artefact import load_artefact
from imfbench.building import build_method
from imfbench.datasets.demo.corpus import DemoCorpus
from imfbench.devices import autocast, describe, resolve_device
from imfbench.flow.counting import count_network
from imfbench.method import Batch
from imfbench.metrics.speed import CLOCKS, keep_freed_memory, paired_ratio
from imfbench.training import TrainConfig, Training

GOAL = 1.05
STEPS = 1_000_000


def parts(training: Training, batch: Batch, evaluations: int) -> Callable[[], None]:
    """The teacher's guided evaluations and the student's forward and backward, on tensors that are made beforehand."""
    method = training.method
    student, teacher, device = method.network, method.teacher, training.device
    assert teacher is not None
    batch = batch.to(device)
    rows = len(batch.x1)
    twice, both = batch.condition.twice(), batch.x1.repeat(2, 1, 1)
    t = torch.full((rows,), 0.25, device=device)

    def run() -> None:
        with autocast(device, training.config.precision):
            with torch.no_grad():
                for _ in range(evaluations):
                    teacher.network(both, t.repeat(2), None, twice)
            loss = (student(batch.x1, t, 2 * t, batch.condition) - batch.x1).square().mean()
        loss.backward()
        student.zero_grad(set_to_none=True)

    return run


def calls_of(training: Training, work: Callable[[], Any]) -> tuple[int, ...]:
    """Forward passes and rows of the student, then of the teacher."""
    assert training.method.teacher is not None
    with count_network(training.method.network) as student, count_network(training.method.teacher.network) as teacher:
        work()
    return student.calls, student.rows, teacher.calls, teacher.rows


def main(words: Sequence[str] | None = None) -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=2000, help="mel frames of the batch")
    parser.add_argument("--teacher-nfe", default="1,2,4,8,16", help="K")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--clock", choices=sorted(CLOCKS), default="wall", help="processor: without what other programs take"
    )
    parser.add_argument("--threads", type=int)
    parser.add_argument("--teacher", default="embedded:token2mel", help="artefact to start from")
    parser.add_argument("--out", type=Path, help="CSV file")
    arguments = parser.parse_args(words)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device, data = resolve_device(arguments.device), DemoCorpus()
    config = TrainConfig(steps=STEPS, frames_per_batch=arguments.frames)
    rows: list[dict[str, Any]] = []
    for evaluations in map(int, arguments.teacher_nfe.split(",")):
        teacher, _ = load_artefact(arguments.teacher, device)
        method = build_method("intmeanflow", {"teacher_nfe": evaluations}, teacher)
        training = Training(method, data, config, Path(), device)
        micro = next(training.micro_batches())
        bare = parts(training, micro[0], evaluations)

        def step(training: Training = training, micro: list[Batch] = micro) -> None:
            training.advance(micro, STEPS)

        def gradients(training: Training = training, micro: list[Batch] = micro) -> None:
            training.gradients(micro, STEPS)
            training.prepared.zero_grad(set_to_none=True)

        counted = calls_of(training, step)  # also the warm-up
        assert counted == calls_of(training, bare), "both sides must ask the networks for the same"
        found = paired_ratio(step, bare, arguments.repeats, device, CLOCKS[arguments.clock])
        whole = paired_ratio(step, gradients, arguments.repeats, device, CLOCKS[arguments.clock])
        rows.append(
            {
                "teacher_nfe": evaluations,
                "teacher_rows": counted[3],
                "ratio": found.ratio,
                "ratio_low": found.low,
                "ratio_high": found.high,
                "update": 1 - 1 / whole.ratio,
                "seconds": found.seconds,
                "frames": arguments.frames,
                "n": found.n,
                "goal": GOAL,
                "clock": arguments.clock,
                **describe(device),
            }
        )
        told = rows[-1]
        print(
            f"K = {evaluations}: {found.ratio:.3f} ({found.low:.3f} to {found.high:.3f}, n {found.n}), "
            f"update {told['update']:.1%} of {found.seconds:.2f} s",
            flush=True,
        )
    if arguments.out:
        pd.DataFrame(rows).to_csv(arguments.out, index=False)
    return rows


if __name__ == "__main__":
    keep_freed_memory()
    main()
