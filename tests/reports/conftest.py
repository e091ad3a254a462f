"""Builds small run folders whose leaderboard is known beforehand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

SIGNATURES = {"wer": "wer-v1|asr:base|beam:5", "sim": "sim-v1|model:resemblyzer", "mos": "mos-v1|model:distillmos"}
WORDS = 10


class RunBuilder:
    """Writes cells and training logs as a run leaves them; figures follow from the per-utterance scores given."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)

    def cell(
        self,
        system: str,
        nfe: int | None = None,
        scores: Mapping[str, Sequence[float]] | None = None,
        parquet: bool = True,
        **changes: Any,
    ) -> str:
        """Write one cell; ``scores`` hold per-utterance wer (edits of WORDS words), sim, mos_distillmos, f0cv."""
        scores = {name: np.asarray(values, dtype=float) for name, values in (scores or {}).items()}
        n = len(next(iter(scores.values()), []))
        key = changes.pop("key", None) or "-".join(
            [system, str(nfe), *(str(changes[c]) for c in ("vocoder", "noise_seed", "dataset", "grid") if c in changes)]
        )
        row: dict[str, Any] = {
            "task": "token2mel",
            "system": system,
            "dataset": "demo/test",
            "key": key,
            "status": "ok",
        }
        row |= {"n_expected": n, "n_scored": n, "not_measured": {}, "vocoder": "hifigan", "device": "cpu", "threads": 1}
        row |= {"signatures": {m: s for m, s in SIGNATURES.items() if any(name.startswith(m) for name in scores)}}
        if nfe is not None:
            calls = 2 * nfe if system == "teacher" else nfe
            row |= {"method": system.split("+")[0], "nfe": nfe, "steps": nfe, "network_calls": calls, "solver": "euler"}
            row |= {"guidance": 2.0 if system == "teacher" else 0.0, "grid": "uniform", "noise_seed": 0, "batch": 1}
            row |= {"grid_values": [i / nfe for i in range(nfe + 1)], "dtype": "float32", "train_seed": 0}
        for name, values in scores.items():
            half = 1.96 * float(np.nanstd(values)) / max(n, 1) ** 0.5
            mean = float(np.nanmean(values))
            row |= {name: mean, f"{name}_low": mean - half, f"{name}_high": mean + half}
        row |= changes
        row["key"] = key = key.replace("/", "-")
        folder = self.path / "cells" / key
        folder.mkdir(parents=True)
        (folder / "summary.json").write_text(json.dumps(row))
        if parquet:
            frame = pd.DataFrame({"id": [f"u{i:03d}" for i in range(n)], "status": "ok", **scores})
            if "wer" in scores:
                edits = np.rint(scores["wer"] * WORDS)
                frame = frame.assign(substitutions=edits, deletions=0, insertions=0, reference_words=WORDS)
            frame.to_parquet(folder / "utterances.parquet")
        return key

    def speech(self, key: str, texts: Sequence[str], heard: Sequence[str] | None = None, **columns: Any) -> Path:
        """Give a cell texts, transcripts, audio (half a second each, a tone of its own) and further columns."""
        folder = self.path / "cells" / key.replace("/", "-")
        frame = pd.read_parquet(folder / "utterances.parquet")
        said = [text.lower() for text in texts]
        spoken = [text.lower() for text in heard or texts]
        names = [f"audio/{name}.flac" for name in frame["id"]]
        (folder / "audio").mkdir(exist_ok=True)
        for i, name in enumerate(names):
            tone = 0.3 * np.sin(2 * np.pi * (200 + 40 * i) * np.arange(12_000) / 24_000)
            soundfile.write(folder / name, tone, 24_000)
        content = [f"{key}/{name}" for name in names]
        added = {"text": list(texts), "hypothesis": list(heard or texts), "audio": names, "audio_sha256": content}
        added |= {"reference_normalised": said, "hypothesis_normalised": spoken, "seconds": 0.5, **columns}
        frame.assign(**added).to_parquet(folder / "utterances.parquet")
        return folder

    def training(self, name: str, loss: Sequence[float], grad_norm: Sequence[float], **status: Any) -> None:
        """Write ``log.csv`` and ``status.json`` of an artefact."""
        folder = self.path / "artefacts" / name
        folder.mkdir(parents=True)
        steps = np.arange(1, len(loss) + 1)
        log = pd.DataFrame({"step": steps, "seconds": steps * 0.5, "loss": loss, "grad_norm": grad_norm})
        log.assign(learning_rate=1e-3).to_csv(folder / "log.csv", index=False)
        (folder / "status.json").write_text(json.dumps({"status": "ok", "steps": len(loss), "seed": 0, **status}))


@pytest.fixture
def run(tmp_path: Path) -> RunBuilder:
    return RunBuilder(tmp_path / "trial")
