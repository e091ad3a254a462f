"""How large the page of a run of 10,000 utterances is without sound, and how fast it opens in Chromium.

    python benchmarks/page.py [--utterances 10000] [--students 2]

The run is made up (drawn scores and texts): what is measured is the page, not the speech. Needs Playwright and a Chromium.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from imfbench.reports.page import Page
from imfbench.store import write_json, write_parquet

WORDS = (
    "the",
    "of",
    "and",
    "to",
    "in",
    "is",
    "you",
    "that",
    "it",
    "he",
    "was",
    "for",
    "on",
    "are",
    "as",
    "with",
    "his",
    "they",
)
SIGNATURES = {"wer": "wer-v1|asr:none", "sim": "sim-v1|embedder:none", "mos": "mos-v1|predictor:none"}


def cell(run: Path, system: str, nfe: int | None, texts: list[str], seed: int) -> None:
    """A row whose figures are drawn."""
    draw = np.random.default_rng(seed)
    n = len(texts)
    words = np.array([len(text.split()) for text in texts])
    edits = draw.binomial(words, 0.03)
    heard = [" ".join(w for w in text.split() if draw.random() > 0.03) for text in texts]
    frame = pd.DataFrame(
        {"id": [f"utterance-{i:05d}" for i in range(n)], "text": texts, "language": "en", "status": "ok"}
    )
    frame = frame.assign(
        speaker=[f"speaker-{i % 100:02d}" for i in range(n)], prompt_id="p", hypothesis=heard, seconds=draw.uniform(2, 9, n),
        substitutions=edits, deletions=0, insertions=0, reference_words=words, wer=edits / words,
        reference_normalised=texts, hypothesis_normalised=heard, sim=draw.normal(0.7, 0.05, n),
        mos_distillmos=draw.normal(3.9, 0.4, n),
    )  # fmt: skip
    row: dict[str, Any] = {
        "task": "token2mel",
        "system": system,
        "dataset": "made-up/test",
        "status": "ok",
        "n_expected": n,
    }
    row |= {"n_scored": n, "signatures": SIGNATURES, "key": f"{system}-{nfe}", "nfe": nfe, "network_calls": nfe}
    for name in ("wer", "sim", "mos_distillmos"):
        mean, half = float(frame[name].mean()), 1.96 * float(frame[name].std()) / n**0.5
        row |= {name: mean, f"{name}_low": mean - half, f"{name}_high": mean + half}
    folder = run / "cells" / row["key"]
    write_json(folder / "summary.json", row)
    write_parquet(folder / "utterances.parquet", frame)


def opened(file: Path) -> dict[str, float]:
    """Seconds to the load event, to the first line of the browser of utterances, and of a search, in Chromium."""
    from playwright.sync_api import sync_playwright

    path = next(found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name)))
    found = {}
    with sync_playwright() as playwright:
        page = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"]).new_page()
        began = time.perf_counter()
        page.goto(file.as_uri())
        found["opens_seconds"] = time.perf_counter() - began
        for name, deed in (
            ("utterances", "location.hash = '#utterances'"),
            ("scrolls", "document.getElementById('browse').scrollTop = 2e5"),
        ):
            began = time.perf_counter()
            page.evaluate(
                f"() => new Promise(done => {{ {deed}; requestAnimationFrame(() => requestAnimationFrame(done)); }})"
            )
            found[name] = time.perf_counter() - began
        assert page.locator("#browse .body .line").count() > 5
    return found


if __name__ == "__main__":
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--utterances", type=int, default=10_000)
    asked.add_argument("--students", type=int, default=2)
    given = asked.parse_args()
    lots = random.Random(0)
    said = [" ".join(lots.choices(WORDS, k=lots.randint(6, 16))) for _ in range(given.utterances)]
    with tempfile.TemporaryDirectory() as folder:
        cell(Path(folder), "ground-truth", None, said, 0)
        cell(Path(folder), "teacher", 32, said, 1)
        for student in range(given.students):
            cell(Path(folder), f"student-{student}", 1, said, 2 + student)
        start = time.perf_counter()
        written = Page().write(Path(folder))[0]
        figures = {"written_seconds": time.perf_counter() - start, "megabytes": written.stat().st_size / 1e6}
        print(json.dumps({**vars(given), **figures, **opened(written)}, indent=2))
