"""One evaluation of a search against the sampling of the same utterances alone.

    .venv/bin/python benchmarks/search_cost.py --scores teacher-distance,sim --repeats 9 --out benchmarks/search_cost.csv

What a search adds to sampling is its score: the distance to the teacher's own mels costs next to nothing, a metric needs a
vocoder and its model. An evaluation as `imfbench search` makes it, and the sampling of its utterances from conditions that are
ready, are timed in turns over the same grid; the figure is the median of their ratios.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from imfbench.config import check
from imfbench.config_file import Source
from imfbench.devices import describe
from imfbench.flow.counting import count_network
from imfbench.flow.grids import uniform
from imfbench.metrics.speed import CLOCKS, paired_ratio
from imfbench.pipeline.context import Context
from imfbench.pipeline.search import evaluation
from imfbench.progress import Reporting
from imfbench.sampling import synthesize_mel
from imfbench.store import RunFolder


def experiment(score: str, nfe: int, limit: int, artefact: str, vocoder: str, device: str, folder: Path) -> Context:
    """A run that searches one grid of a ready network."""
    values: dict[str, Any] = {
        "name": "search-cost",
        "dataset": {"limit": 1},
        "dev": {"limit": limit, "prefer_short": True},
        "teacher": {"artefact": artefact, "nfe": [32]},
        "systems": [
            {
                "method": "teacher", "name": "searched", "artefact": artefact, "nfe": [],
                "search": {"method": "o3s", "nfe": [nfe], "score": {score: 1.0}},
            }
        ],
        "metrics": ["sim"],
        "vocoder": vocoder,
        "device": device,
    }  # fmt: skip
    return Context(check(Source("search_cost.py", values)), RunFolder(folder), Reporting())


def main(words: Sequence[str] | None = None) -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scores", default="teacher-distance,sim")
    parser.add_argument("--nfe", type=int, default=3)
    parser.add_argument("--utterances", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--clock", choices=sorted(CLOCKS), default="wall", help="processor: without what other programs take"
    )
    parser.add_argument("--threads", type=int)
    parser.add_argument("--vocoder", default="hifigan")
    parser.add_argument("--artefact", default="embedded:token2mel", help="network whose grid is searched")
    parser.add_argument("--out", type=Path, help="CSV file")
    arguments = parser.parse_args(words)
    rows: list[dict[str, Any]] = []
    grid = uniform(arguments.nfe)
    for score in arguments.scores.split(","):
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as models:
            given = (score, arguments.nfe, arguments.utterances, arguments.artefact, arguments.vocoder)
            context = experiment(*given, arguments.device, Path(folder))
            if arguments.threads:
                context.use_threads(arguments.threads)
            (search,) = context.plan.searches.values()
            utterances = context.utterances(context.config.dev)
            evaluate, method = evaluation(context, search, utterances, models)
            conditions = {u.id: context.dataset(context.config.dev).condition(u) for u in utterances}

            def sampling(conditions: Any = conditions, method: Any = method, context: Any = context) -> None:
                seed, precision = context.config.noise_seeds[0], context.config.precision
                for id, condition in conditions.items():
                    synthesize_mel(method, condition, id, grid, "euler", seed, context.device, precision)

            def searching(evaluate: Any = evaluate) -> None:
                evaluate(grid)

            counts = []
            for side in (searching, sampling):  # also the warm-up
                with count_network(method.network) as count:
                    side()
                counts.append((count.calls, count.rows))
            assert counts[0] == counts[1], "both sides must ask the network for the same"
            found = paired_ratio(searching, sampling, arguments.repeats, context.device, CLOCKS[arguments.clock])
            rows.append(
                {
                    "score": score,
                    "nfe": arguments.nfe,
                    "utterances": len(utterances),
                    "network_calls": counts[0][0],
                    "ratio": found.ratio,
                    "ratio_low": found.low,
                    "ratio_high": found.high,
                    "seconds": found.seconds,
                    "n": found.n,
                    "clock": arguments.clock,
                    "vocoder": arguments.vocoder,
                    **describe(context.device),
                }
            )
            print(
                f"{score}: {found.ratio:.3f} ({found.low:.3f} to {found.high:.3f}, n {found.n}), "
                f"{found.seconds:.2f} s an evaluation of {len(utterances)} utterances",
                flush=True,
            )
    if arguments.out:
        pd.DataFrame(rows).to_csv(arguments.out, index=False)
    return rows


if __name__ == "__main__":
    main()
