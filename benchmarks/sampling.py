"""Sampling against bare calls of the network: what grid, solver, guidance, counting and noise cost. Goal: at most 1.03.

    .venv/bin/python benchmarks/sampling.py --nfe 1,2,3,8,32 --repeats 9 --out benchmarks/sampling.csv

For each utterance, `imfbench.sampling.synthesize_mel` and as many calls of the same network on inputs that are ready (doubled
already, where guidance sends two rows) are timed in turns, first one and then the other by turns; the figure is the median of
their ratios. A hook sees to it that both sides make the same calls.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
import torch

from imfbench.artefact import load_artefact
from imfbench.building import build_method
from imfbench.datasets.demo.corpus import DemoCorpus
from imfbench.devices import autocast, describe, resolve_device
from imfbench.flow.counting import count_network
from imfbench.flow.grids import uniform
from imfbench.method import Condition, Method
from imfbench.metrics.speed import CLOCKS, keep_freed_memory, paired_ratio
from imfbench.sampling import initial_noise, sampling_guidance, synthesize_mel

METHODS = ("teacher", "intmeanflow")
GOAL = 1.03


def bare(method: Method, condition: Condition, id: str, nfe: int, device: torch.device) -> Callable[[], None]:
    """``nfe`` calls of the network, on tensors that are made beforehand."""
    rows = 2 if sampling_guidance(method) else 1
    z = initial_noise(id, 0, condition.prompt_mel.shape).to(device).repeat(rows, 1, 1)
    given = condition.to(device) if rows == 1 else condition.to(device).twice()
    points = torch.linspace(0, 1, nfe + 1).tolist()
    times = [torch.full((rows,), t, device=device) for t in points]
    two_times = method.kind == "average"

    @torch.no_grad()
    def calls() -> None:
        with autocast(device, "auto"):
            for t, r in pairwise(times):
                method.network(z, t, r if two_times else None, given)

    return calls


def calls_of(method: Method, work: Callable[[], Any]) -> tuple[int, int]:
    """Forward passes and their rows."""
    with count_network(method.network) as count:
        work()
    return count.calls, count.rows


def main(words: Sequence[str] | None = None) -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nfe", default="1,2,3,8,32")
    parser.add_argument("--utterances", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=9, help="pairs for each utterance")
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--clock", choices=sorted(CLOCKS), default="wall", help="processor: without what other programs take"
    )
    parser.add_argument("--threads", type=int)
    parser.add_argument("--teacher", default="embedded:token2mel", help="artefact to sample and to start from")
    parser.add_argument("--out", type=Path, help="CSV file")
    arguments = parser.parse_args(words)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    device, data = resolve_device(arguments.device), DemoCorpus()
    teacher, _ = load_artefact(arguments.teacher, device)
    utterances = data.utterances("dev")[: arguments.utterances]
    conditions = {u.id: data.condition(u) for u in utterances}
    rows: list[dict[str, Any]] = []
    for name in METHODS:
        method = teacher if name == "teacher" else build_method(name, {}, teacher)
        method.network.eval()
        for nfe in map(int, arguments.nfe.split(",")):
            grid, found, counted = uniform(nfe), [], (0, 0)
            for id, condition in conditions.items():

                def sampling(id: str = id, given: Any = condition, m: Any = method, grid: Any = grid) -> None:
                    synthesize_mel(m, given, id, grid, device=device, precision="auto")

                calls = bare(method, condition, id, nfe, device)
                counted = calls_of(method, sampling)  # also the warm-up
                assert counted == calls_of(method, calls), "both sides must ask the network for the same"
                found.append(paired_ratio(sampling, calls, arguments.repeats, device, CLOCKS[arguments.clock]))
            rows.append(
                {
                    "method": name,
                    "nfe": nfe,
                    "network_calls": counted[1],
                    "ratio": median(one.ratio for one in found),
                    "ratio_low": median(one.low for one in found),
                    "ratio_high": median(one.high for one in found),
                    "difference_seconds": median(one.difference for one in found),
                    "seconds": median(one.seconds for one in found),
                    "utterances": len(found),
                    "n": sum(one.n for one in found),
                    "goal": GOAL,
                    "clock": arguments.clock,
                    **describe(device),
                }
            )
            told = rows[-1]
            print(
                f"{name}, NFE {nfe}: {told['ratio']:.3f} ({told['ratio_low']:.3f} to {told['ratio_high']:.3f}, n {told['n']}), "
                f"{1000 * told['difference_seconds']:+.2f} ms of {1000 * told['seconds']:.1f} ms",
                flush=True,
            )
    if arguments.out:
        pd.DataFrame(rows).to_csv(arguments.out, index=False)
    return rows


if __name__ == "__main__":
    keep_freed_memory()
    main()
