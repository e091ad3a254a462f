"""Sampling against bare calls of the network: what grid, solver, guidance, counting and noise cost. Goal: at most 1.03.

    .venv/bin/python benchmarks/sampling.py --nfe 1,2,3,8,32 --repeats 9 --out benchmarks/sampling.csv

For each utterance, `imfbench.sampling.synthesize_mel` and as many calls of the same network on inputs that are ready (doubled
already, where guidance sends two rows) are timed in turns, first one and then the other by turns; the figure is the median of
their ratios. A hook sees to it that both sides make the same calls.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
import torch

from imfbench.artefact import load_artefact
from imfbench.datasets.demo.corpus import DemoCorpus
from imfbench.devices import autocast, describe, resolve_device, synchronize
from imfbench.flow.counting import count_network
from imfbench.flow.grids import uniform
from imfbench.method import Condition, Method
from imfbench.sampling import initial_noise, sampling_guidance, synthesize_mel
from imfbench.training import build_method

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
            for t, r in zip(times[:-1], times[1:], strict=True):
                method.network(z, t, r if two_times else None, given)

    return calls


def seconds(work: Callable[[], Any], device: torch.device) -> float:
    synchronize(device)
    start = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - start


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
            pairs: list[tuple[float, float]] = []
            for id, condition in conditions.items():
                grid = uniform(nfe)

                def sampling(id: str = id, given: Any = condition, m: Any = method, grid: Any = grid) -> None:
                    synthesize_mel(m, given, id, grid, device=device, precision="auto")

                calls = bare(method, condition, id, nfe, device)
                counted = calls_of(method, sampling)  # also the warm-up
                assert counted == calls_of(method, calls), "both sides must ask the network for the same"
                for number in range(arguments.repeats):
                    sides = (sampling, calls) if number % 2 else (calls, sampling)
                    taken = [seconds(side, device) for side in sides]
                    pairs.append((taken[0], taken[1]) if number % 2 else (taken[1], taken[0]))
            ratios = sorted(a / b for a, b in pairs)
            rows.append(
                {
                    "method": name,
                    "nfe": nfe,
                    "network_calls": counted[1],
                    "ratio": median(ratios),
                    "ratio_low": ratios[len(ratios) // 4],
                    "ratio_high": ratios[-1 - len(ratios) // 4],
                    "overhead_ms": 1000 * median(a - b for a, b in pairs),
                    "sampling_seconds": median(a for a, _ in pairs),
                    "n": len(pairs),
                    "goal": GOAL,
                    **describe(device),
                }
            )
            told = rows[-1]
            print(
                f"{name}, NFE {nfe}: {told['ratio']:.3f} ({told['ratio_low']:.3f} to {told['ratio_high']:.3f}, n {len(pairs)}), "
                f"{told['overhead_ms']:+.2f} ms of {1000 * told['sampling_seconds']:.1f} ms",
                flush=True,
            )
    if arguments.out:
        pd.DataFrame(rows).to_csv(arguments.out, index=False)
    return rows


if __name__ == "__main__":
    main()
