"""``imfbench score`` beside a plain loop over the same models, in one run: seconds, transcripts, memory.

    .venv/bin/python benchmarks/score.py --limit 40 --threads 2 --workers 2 --out benchmarks/score.csv

The plain loop does as F5-TTS's evaluation script does on one device: model by model and file by file, each recording decoded and
resampled when its turn comes, one transcription at a time, and for the similarity the prompt embedded again with each utterance.
Ours decodes ahead and shares the threads out. Both have the same weights, options and threads. Each part is a process of its own,
so that memory is its own too, and is repeated in turn, so that a machine that drifts drifts for both; imports are not timed. The
last part scores the same audio again into another run folder: everything is known.

Figures of a machine that does something else meanwhile are worth nothing.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import soundfile

MEASURES = {"wer": "hypothesis", "sim": "sim", "mos": "mos_distillmos", "f0cv": "f0cv"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=40, help="utterances of the embedded test set")
    parser.add_argument("--metrics", default="wer,sim,mos")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1, help="processes of ours, which share the threads")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--out", type=Path, help="CSV file")
    arguments = parser.parse_args()
    metrics = arguments.metrics.split(",")
    found: dict[str, list[dict[str, Any]]] = {"plain loop": [], "imfbench score": [], "the same again": []}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "theirs"
        recordings(folder, arguments.limit)
        for i in range(arguments.repeats):
            cache = Path(place) / f"cache{i}"
            given = (folder, arguments.limit, metrics, arguments.threads)
            found["plain loop"].append(apart(plain, *given))
            for part in ("imfbench score", "the same again"):
                out = Path(place) / f"{part.replace(' ', '-')}{i}"
                found[part].append(apart(ours, *given, arguments.workers, cache, out))
    seconds = {part: statistics.median(run["seconds"] for run in runs) for part, runs in found.items()}
    table = pd.DataFrame(
        [
            {
                "part": part,
                "seconds": seconds[part],
                "ratio": seconds["plain loop"] / seconds[part],
                "against_first": seconds["imfbench score"] / seconds[part],
                "memory": max(run["memory"] for run in runs),
                "memory_of_a_worker": max(run["child"] for run in runs),
                "utterances": arguments.limit,
                "metrics": arguments.metrics,
                "threads": arguments.threads,
                "workers": arguments.workers,
                "repeats": arguments.repeats,
            }
            for part, runs in found.items()
        ]
    )
    print(table[["part", "seconds", "ratio", "against_first", "memory", "memory_of_a_worker"]].to_string(index=False))
    for name in metrics:
        print(agreement(name, found["plain loop"][0]["scores"][name], found["imfbench score"][0]["scores"][name]))
    if arguments.out:
        table.to_csv(arguments.out, index=False)


def recordings(folder: Path, limit: int) -> None:
    """Recordings of the embedded corpus as wav files of another program."""
    from imfbench.datasets.demo.corpus import DemoCorpus
    from imfbench.pipeline.context import select

    folder.mkdir()
    for u in select(DemoCorpus().utterances("test"), limit, False):
        audio, rate = soundfile.read(u.target_audio)
        soundfile.write(folder / f"{u.id}.wav", audio, rate)


def apart(part: Any, *given: Any) -> dict[str, Any]:
    """What a part finds, in a process of its own, and its peak memory in bytes."""
    # Not a Pool, whose processes may have none of their own.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measured, part, *given).result()


def measured(part: Any, *given: Any) -> dict[str, Any]:
    seconds, scores = part(*given)
    memory, child = (
        resource.getrusage(who).ru_maxrss * 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return {"seconds": seconds, "scores": scores, "memory": memory, "child": child}


def plain(folder: Path, limit: int, metrics: list[str], threads: int) -> tuple[float, dict[str, dict[str, Any]]]:
    """One model after the other, one file after the other."""
    import torch

    from imfbench.datasets.demo.corpus import DemoCorpus
    from imfbench.features.audio import load_audio
    from imfbench.metrics.base import ScoreItem
    from imfbench.pipeline.context import select
    from imfbench.registry import METRICS

    torch.set_num_threads(threads)
    utterances = select(DemoCorpus().utterances("test"), limit, False)
    classes = {name: METRICS.get(name) for name in metrics}
    scores: dict[str, dict[str, Any]] = {name: {} for name in metrics}
    begun = time.perf_counter()
    for name, cls in classes.items():
        metric = cls(None, "cpu", threads)
        with metric.loaded():
            if name == "wer":
                one_at_a_time(metric.model, threads)
            for u in utterances:
                audio, rate = load_audio(folder / f"{u.id}.wav")
                prompt, prompt_rate = load_audio(u.prompt_audio) if name == "sim" else (None, None)
                item = ScoreItem(u.id, audio, rate, u.text, u.language, prompt, prompt_rate)
                scores[name][u.id] = metric.score(item)[MEASURES[name]]
                if name == "sim":
                    metric._prompts.clear()
    return time.perf_counter() - begun, scores


def one_at_a_time(recogniser: Any, threads: int) -> None:
    """The recogniser as a script makes it: one transcription at a time, by all threads."""
    from faster_whisper import WhisperModel

    recogniser.model = WhisperModel(
        str(recogniser.folder),
        device="cpu",
        compute_type=recogniser.compute,
        cpu_threads=threads,
        local_files_only=True,
    )


def ours(
    folder: Path, limit: int, metrics: list[str], threads: int, workers: int, cache: Path, out: Path
) -> tuple[float, dict[str, dict[str, Any]]]:
    """``imfbench score`` up to the scores; tables and tests are left out, which the loop has none of."""
    from imfbench.config import check
    from imfbench.config_file import Source
    from imfbench.experiment import run
    from imfbench.registry import METRICS

    for name in metrics:
        METRICS.get(name)
    values = {
        "name": "benchmark",
        "task": "speech",
        "dataset": {"name": "demo", "limit": limit},
        "references": [],
        "recordings": [{"name": "theirs", "folder": str(folder)}],
        "metrics": metrics,
        "threads": max(1, threads // workers),  # of each process: as many in all as the plain loop has
        "workers": workers,
        "score_cache": str(cache),
    }
    config = check(Source("benchmark", values))
    begun = time.perf_counter()
    run(config, out, ("synthesise", "score"))
    seconds = time.perf_counter() - begun
    (table,) = out.glob("cells/*/utterances.parquet")
    frame = pd.read_parquet(table).set_index("id")
    return seconds, {name: frame[MEASURES[name]].to_dict() for name in metrics}


def agreement(name: str, theirs: dict[str, Any], mine: dict[str, Any]) -> str:
    """How far the two agree, in words."""
    if name == "wer":
        same = sum(theirs[key] == mine[key] for key in theirs)
        return f"transcripts: {same} of {len(theirs)} are the same"
    worst = max(abs(theirs[key] - mine[key]) for key in theirs)
    return f"{name}: the largest difference of an utterance is {worst:.2g}"


if __name__ == "__main__":
    main()
