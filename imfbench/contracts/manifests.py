"""Small training manifests with speech of the embedded corpus, and what CosyVoice 2 hears of it: to test what reads them.

The corpus' phones, one every 40 ms, stand for S3 tokens and Resemblyzer's vectors for CAM++'s: the same interface, other numbers.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from imfbench.data import Utterance
from imfbench.features.audio import load_audio, save_audio
from imfbench.features.mel import COSYVOICE2
from imfbench.features.units import tokens_of_frames
from imfbench.store import write_bytes

MANIFESTS = ("plain.jsonl", "table.csv", "cuts.jsonl.gz", "recordings.jsonl.gz", "prepared")
"""What ``write_manifests`` leaves: all of the same speech. ``recordings.jsonl.gz`` goes with ``supervisions.jsonl.gz``."""


def write_manifests(folder: Path, count: int = 8, root: Path | None = None) -> list[dict[str, Any]]:
    """Write recordings of training utterances and a manifest of each form of them.

    Args:
        folder: Where to; made if it is not there.
        count: Utterances, the first of the corpus.
        root: The corpus' folder; the one that ships without it.

    Returns:
        For each its ``id``, ``audio``, ``text``, ``speaker`` and ``duration``, and ``row``, as the corpus has it.
    """
    from imfbench.datasets.demo.corpus import DemoCorpus

    rows = []
    for row, audio in DemoCorpus(root)._training_rows()[:count]:
        samples, rate = load_audio(audio)
        name = f"wavs/{row['id']}.wav"
        (folder / "wavs").mkdir(parents=True, exist_ok=True)
        save_audio(folder / name, samples, rate)
        rows.append(
            {
                "id": row["id"], "audio": name, "text": row["text"], "speaker": row["speaker"],
                "duration": len(samples) / rate, "samples": len(samples), "rate": rate, "row": row,
            }
        )  # fmt: skip
    plain = [{key: row[key] for key in ("id", "audio", "text", "speaker", "duration")} for row in rows]
    write_bytes(folder / "plain.jsonl", _lines(plain))
    table = io.StringIO()
    writer = csv.DictWriter(table, list(plain[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(plain)
    write_bytes(folder / "table.csv", table.getvalue().encode())
    recordings = [recording(row) for row in rows]
    spoken = [
        {
            "id": f"{row['id']}-said", "recording_id": row["id"], "start": 0.0, "duration": row["duration"], "channel": 0,
            "text": row["text"], "language": "en", "speaker": row["speaker"],
        }
        for row in rows
    ]  # fmt: skip
    cuts = [
        {
            "id": row["id"], "start": 0.0, "duration": row["duration"], "channel": 0, "supervisions": [said],
            "recording": recorded, "type": "MonoCut",
        }
        for row, said, recorded in zip(rows, spoken, recordings, strict=True)
    ]  # fmt: skip
    for name, lines in (("cuts", cuts), ("recordings", recordings), ("supervisions", spoken)):
        write_bytes(folder / f"{name}.jsonl.gz", gzip.compress(_lines(lines), mtime=0))
    _prepared(folder / "prepared", rows, folder)
    return rows


def recording(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row's recording as lhotse describes it."""
    source = {"type": "file", "channels": [0], "source": row["audio"]}
    return {
        "id": row["id"], "sources": [source], "sampling_rate": row["rate"], "num_samples": row["samples"],
        "duration": row["duration"], "channel_ids": [0],
    }  # fmt: skip


def write_features(folder: Path, heard: Mapping[str, tuple[Tensor, Tensor]]) -> Path:
    """Write ``tokens.safetensors`` and ``voices.safetensors``: what ``Given`` reads.

    Args:
        folder: Where to; made if it is not there.
        heard: Id → tokens and vector.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / "tokens.safetensors", save({id: tokens.to(torch.int32) for id, (tokens, _) in heard.items()}))
    write_bytes(folder / "voices.safetensors", save({id: voice for id, (_, voice) in heard.items()}))
    return folder


def heard_of(row: Mapping[str, Any], audio: np.ndarray, rate: int) -> tuple[Tensor, Tensor]:
    """A corpus row's phones at 25 a second, from 0, and its speaker's vector, of 256 numbers."""
    from imfbench.datasets.demo.corpus import DemoCorpus
    from imfbench.features.voice import voice_of

    frames = COSYVOICE2.frame_count(round(len(audio) / rate * COSYVOICE2.sample_rate)) // 2 * 2
    tokens = tokens_of_frames(DemoCorpus()._units(dict(row)), frames, mel=COSYVOICE2, frames_per_token=2)
    return tokens[::2] - 1, voice_of(audio, rate)


def heard_in_set(utterances: Iterable[Utterance]) -> dict[str, tuple[Tensor, Tensor]]:
    """Of a copy of a published set (``layouts.write_layout``): the texts' and the prompts' tokens and vectors by their ids."""
    from imfbench.datasets.demo.corpus import DemoCorpus

    corpus = DemoCorpus()
    rows = corpus._alignments("test")
    spoken: dict[str, tuple[str, Path]] = {}  # LibriSpeech's texts have neither marks nor small letters
    for u in corpus.utterances("test"):
        spoken[_letters(u.prompt_text)] = (u.prompt_id, u.prompt_audio)
        if u.target_audio is not None:
            spoken[_letters(u.text)] = (u.id, u.target_audio)
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for u in utterances:
        for id, text in ((u.prompt_id, u.prompt_text), (u.id, u.text)):
            if id not in found:
                name, audio = spoken[_letters(text)]
                found[id] = heard_of(rows[name], *load_audio(audio))
    return found


def _letters(text: str) -> str:
    return "".join(sign for sign in text if sign.isalpha()).upper()


def _prepared(folder: Path, rows: list[dict[str, Any]], base: Path) -> None:
    """F5-TTS's prepared form: paths are absolute there."""
    import pyarrow

    folder.mkdir(parents=True, exist_ok=True)
    table = pyarrow.table(
        {
            "audio_path": [str((base / row["audio"]).absolute()) for row in rows],
            "text": [row["text"] for row in rows],
            "duration": [row["duration"] for row in rows],
        }
    )
    with pyarrow.OSFile(str(folder / "raw.arrow"), "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    write_bytes(folder / "duration.json", json.dumps({"duration": [row["duration"] for row in rows]}).encode())


def _lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
