"""A whole run on two utterances with one part of it in question: a tiny training, real sampling, a real scorer, a leaderboard."""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from imfbench.registry import BACKBONES, DATASETS, METHODS

TINY = {"name": "dit", "config": {"dim": 32, "depth": 1, "heads": 2, "content_layers": 1}}
OWN = {"method": "teacher", "name": "tiny", "network": TINY, "nfe": [2]}
EMBEDDED = {"artefact": "embedded:token2mel", "nfe": [2], "grid": "uniform"}
EVALUATIONS = 10
"""Grids that a search may score, where its settings let one say so."""
LARGE_VOCABULARY = 8192
"""Contents that the tiny network knows of another's dataset; S3 tokens are 6561."""


def values_of(kind: str, name: str, options: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The experiment that tries a part: what stands in its YAML.

    Args:
        kind: Of the part.
        name: Its registered name.
        options: Settings of it.
        folder: Gets the training speech and the score cache.
    """
    values: dict[str, Any] = {
        "name": "trial",
        "dataset": {"limit": 2, "prefer_short": True},
        "dev": {"limit": 1, "prefer_short": True},
        "train_data": {"options": {"root": str(small_corpus(folder / "speech"))}},
        "training": {"steps": 3, "frames_per_batch": 400, "log_every": 1, "warmup": 0},
        "metrics": ["sim"],
        "vocoder": "griffin-lim",  # a fifth of HiFi-GAN's time, and the figures of a trial are no results
        "score_cache": str(folder / "scores"),
        "reports": ["leaderboard"],
    }
    return values | {
        "method": _method,
        "dataset": _dataset,
        "metric": lambda name, options: {"teacher": EMBEDDED, "metrics": {name: options}},
        "backbone": _backbone,
        "vocoder": lambda name, _: {"teacher": EMBEDDED, "vocoder": name},
        "report": lambda name, _: {"teacher": EMBEDDED, "reports": ["leaderboard", name]},
    }[kind](name, options)


def _method(name: str, options: dict[str, Any]) -> dict[str, Any]:
    cls = METHODS.get(name)
    if not cls.needs.training:
        limit = {"max_evaluations": EVALUATIONS} if "max_evaluations" in cls.Config.model_fields else {}
        search = {"method": name, "nfe": [3], "score": "teacher-distance", "config": {**limit, **options}}
        return {"teacher": {"artefact": "tiny", "nfe": [4]}, "systems": [{**OWN, "search": search}]}
    system = {"method": name, "name": f"{name}-trial", "config": options, "nfe": [2]}
    return (
        {"teacher": EMBEDDED, "systems": [system]} if cls.needs.teacher else {"systems": [{**system, "network": TINY}]}
    )


def _dataset(name: str, options: dict[str, Any]) -> dict[str, Any]:
    cls, data = DATASETS.get(name), {"name": name, "options": options}
    network = {**TINY, "config": {**TINY["config"], "tokens": LARGE_VOCABULARY}}  # type: ignore[dict-item]
    found: dict[str, Any] = {"systems": [{**OWN, "network": network}]}
    found |= {"dataset": {**data, "limit": 2, "prefer_short": True}} if hasattr(cls, "utterances") else {}
    return found | ({"train_data": data} if hasattr(cls, "batches") else {})


def _backbone(name: str, options: dict[str, Any]) -> dict[str, Any]:
    from imfbench.artefact import build_network
    from imfbench.contracts.backbones import task_of

    options = BACKBONES.get(name).Config(**options).model_dump(mode="json")
    task = task_of(build_network(name, options))
    return {"task": task, "systems": [{**OWN, "name": f"{name}-trial", "network": {"name": name, "config": options}}]}


def small_corpus(folder: Path) -> Path:
    """A few training utterances of the embedded corpus: the features of all of them would take a minute at first."""
    from imfbench.datasets.demo.corpus import DATA

    taken: dict[str, list[dict[str, Any]]] = {}
    for line in (DATA / "train" / "alignments.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        taken.setdefault(row["speaker"], []).append(row)
    rows = [row for speaker in list(taken)[:2] for row in taken[speaker][:4]]
    (folder / "train" / "audio").mkdir(parents=True, exist_ok=True)
    for row in rows:
        shutil.copy(DATA / "train" / "audio" / f"{row['id']}.opus", folder / "train" / "audio")
    (folder / "train" / "alignments.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
    )
    for name in ("SHA256SUMS", "phones.txt"):
        shutil.copy(DATA / name, folder)
    return folder


def run_trial(kind: str, name: str, options: dict[str, Any], folder: Path) -> Any:
    """Run the experiment that tries a part, in ``folder/run``.

    Returns:
        The run's context: ``failures`` says what failed.

    Raises:
        ConfigError: A setting is wrong.
    """
    from imfbench.config import check
    from imfbench.config_file import Source
    from imfbench.experiment import run

    config = check(Source(f"the trial of {kind} {name}", values_of(kind, name, options, folder)))
    return run(config, folder / "run")


@functools.cache
def finished_run() -> Path:
    """A run folder without a report: recordings, a tiny network that was trained for two steps, and figures of them.

    It is made once in a process and removed when that ends.
    """
    from imfbench.config import check
    from imfbench.config_file import Source
    from imfbench.experiment import run

    folder = Path(tempfile.mkdtemp(prefix="imfbench-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    values = values_of("report", "leaderboard", {}, folder)
    values |= {"teacher": None, "systems": [OWN], "reports": []}
    values["training"] = {**values["training"], "steps": 2}
    run(check(Source("the run that a report is tried on", values)), folder / "run")
    return folder / "run"
