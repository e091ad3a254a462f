"""Turn a built corpus (see ``build``) into the committed layout: ``python -m imfbench.datasets.demo.pack --built FOLDER``.

test/  meta.lst, hardcase.lst (Seed-TTS: utt|prompt_text|prompt_wav|text|gt_wav), wavs/, prompts/, alignments.jsonl
dev/   meta.lst, wavs/, prompts/, alignments.jsonl
train/ alignments.jsonl, audio/*.opus
phones.txt, SHA256SUMS
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any

import soundfile

from imfbench.datasets.demo.build import (
    DEV_VOICES,
    SPLITS,
    TEST_VOICES,
    read_journals,
    read_sentences,
    speaker_of,
    training_sentences,
)
from imfbench.datasets.demo.corpus import DATA
from imfbench.datasets.demo.grammar import sentences
from imfbench.datasets.demo.kokoro import kokoro_symbols
from imfbench.features.phones import Phonemizer, join_marks
from imfbench.store import file_sha256

Row = dict[str, Any]
PROMPTS_PER_VOICE = 6
TARGET_SECONDS = (2.5, 7.0)
PROMPT_SECONDS = (2.0, 4.5)


def _within(row: Row, limits: tuple[float, float]) -> bool:
    return limits[0] <= float(row["seconds"]) <= limits[1]


def _alignment(row: Row) -> str:
    kept = {"id": row["id"], "speaker": speaker_of(row), "seconds": row["seconds"], "text": row["text"]}
    return json.dumps(kept | {"phones": row["phones"], "frames": row["frames"]}, ensure_ascii=False)


def _pack_tests(rows: dict[str, Row], built: Path, out: Path, lists: dict[str, str], voices: list[str]) -> None:
    """Copy targets and prompts and write the lists (split → file name) of one test folder."""
    prompts: dict[str, list[Row]] = {}
    for voice in voices:
        fitting = [
            r for r in rows.values() if r["split"] == "prompts" and voice in r["blend"] and _within(r, PROMPT_SECONDS)
        ]
        prompts[voice] = sorted(fitting, key=lambda r: r["id"])[:PROMPTS_PER_VOICE]
    alignments: list[Row] = [row for found in prompts.values() for row in found]
    for row in alignments:
        _copy(built / "prompts-audio" / f"{row['id']}.flac", out / "prompts" / f"{row['id']}.flac")
    for split, name in lists.items():
        chosen = sorted(
            (r for r in rows.values() if r["split"] == split and (split == "hard" or _within(r, TARGET_SECONDS))),
            key=lambda r: r["id"],
        )
        counts: Counter[str] = Counter()
        lines = []
        for row in chosen:
            voice = speaker_of(row)
            prompt = prompts[voice][counts[voice] % len(prompts[voice])]
            counts[voice] += 1
            _copy(built / f"{split}-audio" / f"{row['id']}.flac", out / "wavs" / f"{row['id']}.flac")
            lines.append(
                "|".join(
                    [row["id"], prompt["text"], f"prompts/{prompt['id']}.flac", row["text"], f"wavs/{row['id']}.flac"]
                )
            )
        (out / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        alignments += chosen
        print(f"{split}: {len(lines)} utterances, {sum(r['seconds'] for r in chosen) / 60:.1f} minutes, {dict(counts)}")
    (out / "alignments.jsonl").write_text("\n".join(map(_alignment, alignments)) + "\n", encoding="utf-8")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _pack_training(rows: dict[str, Row], built: Path, out: Path) -> None:
    chosen = sorted((r for r in rows.values() if r["split"] == "train"), key=lambda r: r["id"])
    (out / "audio").mkdir(parents=True, exist_ok=True)
    for row in chosen:
        audio, rate = soundfile.read(built / "train-audio" / f"{row['id']}.flac", dtype="float32")
        target = out / "audio" / f"{row['id']}.opus"
        # Level 0 to 1 is libsndfile's scale from best to smallest; 0.8 gives about 45 kb/s for a mono voice.
        soundfile.write(target, audio, rate, format="OGG", subtype="OPUS", compression_level=0.8)
    (out / "alignments.jsonl").write_text("\n".join(map(_alignment, chosen)) + "\n", encoding="utf-8")
    seconds = sum(r["seconds"] for r in chosen)
    size = sum(p.stat().st_size for p in (out / "audio").iterdir())
    print(f"train: {len(chosen)} utterances, {seconds / 60:.1f} minutes, {size * 8 / seconds / 1000:.1f} kb/s")


@lru_cache
def possible_phones() -> list[str]:
    """All phones that these sentences, and many of the grammar's, have in either accent: the vocabulary outlives a build."""
    texts = [*training_sentences(), *sentences(2000, 0), *(t for split in SPLITS[:4] for t in read_sentences(split))]
    phonemize, symbols = Phonemizer(), set(kokoro_symbols())
    found = {"_"}
    for british in (False, True):
        for text in texts:
            row = [c for c in phonemize(text, british) if c in symbols]
            found.update(join_marks(row, [1] * len(row))[0])
    return sorted(found)


def write_sums(data: Path) -> None:
    """SHA256SUMS over every file below ``data``, sorted by path."""
    files = sorted(p for p in data.rglob("*") if p.is_file() and p.name != "SHA256SUMS" and p.suffix != ".md")
    lines = [f"{file_sha256(path)}  {path.relative_to(data).as_posix()}" for path in files]
    (data / "SHA256SUMS").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(files)} files, revision {hashlib.sha256((data / 'SHA256SUMS').read_bytes()).hexdigest()[:8]}")


def main() -> None:
    """Pack ``--built`` into ``--out``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--built", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=DATA)
    arguments = parser.parse_args()
    built, out = arguments.built, arguments.out
    rows = read_journals(built)
    _pack_tests(rows, built, out / "test", {"test": "meta.lst", "hard": "hardcase.lst"}, TEST_VOICES)
    _pack_tests(rows, built, out / "dev", {"dev": "meta.lst"}, DEV_VOICES)
    _pack_training(rows, built, out / "train")
    (out / "phones.txt").write_text("\n".join(possible_phones()) + "\n", encoding="utf-8")
    spoken = {phone for row in rows.values() for phone in row["phones"]}
    print(f"{len(spoken)} phones are spoken; not in phones.txt: {sorted(spoken - set(possible_phones())) or 'none'}")
    write_sums(out)


if __name__ == "__main__":
    main()
