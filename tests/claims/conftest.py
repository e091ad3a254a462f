"""Run folders with scores that are known, as runs leave them, and claims about them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from imfbench.claims.definition import Claim
from imfbench.claims.evidence import Evidence

SIGNATURES = {"wer": "wer-v1|asr:base|agg:corpus", "sim": "sim-v1|model:x", "mos_distillmos": "mos-v1|model:y"}
WORDS = 10


class Folder:
    """A folder of run folders."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def cell(self, system: str, nfe: int, seed: int = 0, run: str = "speech", on: str = "test", **scores: Any) -> Path:
        """A cell of one network; ``scores`` are per utterance, those of wer are edits of WORDS words; others are columns."""
        changes = {
            key: scores.pop(key)
            for key in ("status", "grid", "signatures", "n_expected", "noise_seed")
            if key in scores
        }
        n = len(next(iter(scores.values()), ()))
        key = f"{system}-{nfe}-{seed}-{on}-{changes.get('grid', 'uniform')}"
        key += f"-{changes['noise_seed']}" if "noise_seed" in changes else ""
        row = {
            "task": "token2mel", "system": system, "kind": "sampled", "nfe": nfe, "grid": "uniform",
            "grid_values": [nfe, changes.get("grid")],
            "dataset": f"demo/{on}@7d", "train_seed": seed, "noise_seed": 0, "status": "ok", "artefact_sha256": f"{system}{seed}",
            "n_expected": n, "n_scored": n, "key": key, "signatures": {m.split("_")[0]: SIGNATURES[m] for m in scores},
            **scores_of(scores), **changes,
        }  # fmt: skip
        folder = self.path / run / "cells" / key
        folder.mkdir(parents=True)
        (folder / "summary.json").write_text(json.dumps(row))
        own = {"test": "u", "noisy": "noisy-u"}.get(on, f"{on}u")  # the noisy set has the test set's sentences
        frame = pd.DataFrame({"id": [f"{own}{i:03d}" for i in range(n)], "status": "ok", **scores})
        if "wer" in scores:
            frame = frame.assign(substitutions=frame["wer"], deletions=0, insertions=0, reference_words=WORDS)
        frame.to_parquet(folder / "utterances.parquet")
        return folder

    def training(
        self, name: str, loss: np.ndarray, norm: np.ndarray, run: str = "stability",
        columns: dict[str, np.ndarray] | None = None, **status: Any,
    ) -> None:  # fmt: skip
        """``log.csv``, with these further columns, and ``status.json`` of an artefact."""
        folder = self.path / run / "artefacts" / name
        folder.mkdir(parents=True, exist_ok=True)
        log = {"step": np.arange(1, len(loss) + 1), "loss": loss, "grad_norm": norm, **(columns or {})}
        pd.DataFrame(log).to_csv(folder / "log.csv", index=False)
        (folder / "status.json").write_text(json.dumps({"status": "ok", "steps": len(loss), **status}))

    def measurement(
        self, name: str, settings: dict[str, Any], rows: list[dict[str, Any]], complete: bool = True
    ) -> None:
        """``measurements/NAME.json``."""
        path = self.path / "measurements" / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"settings": settings, "rows": rows, "complete": complete}))

    def evidence(self, **failures: str) -> Evidence:
        """What a claim sees."""
        return Evidence(self.path, failures)


def scores_of(scores: dict[str, Any]) -> dict[str, float]:
    return {name: float(np.nanmean(values)) / (WORDS if name == "wer" else 1) for name, values in scores.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
def claim() -> Callable[..., Claim]:
    """``claim(part, part, rule=…)``: a claim of these parts, run in the budget small."""

    def make(*parts: dict[str, Any], rule: str = "all") -> Claim:
        usual = {
            "name": "part", "test": "non-inferior", "experiment": "speech", "a": {"system": "student", "nfe": 1},
            "b": {"system": "teacher", "nfe": 32}, "figures": {"sim": 0.03},
        }  # fmt: skip
        return Claim.model_validate(
            {"number": 1, "title": "t", "sentence": "s", "published": "p", "budgets": ["small"], "rule": rule,
             "parts": [{**usual, **part} for part in parts]}
        )  # fmt: skip

    return make
