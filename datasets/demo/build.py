"""Build the embedded corpus: ``python -m imfbench.datasets.demo.build --voices package/voices --out FOLDER``.

Every utterance has a job (id, text, style blend, speed); jobs are spread over single-threaded processes, each of which
journals what it made, so that a killed build goes on where it stopped. Needs the extra ``corpus``, the packages of
``requirements-corpus.txt`` and the voices (``npm pack kokoro-js@1.2.1 && tar xzf kokoro-js-1.2.1.tgz``).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import soundfile

from imfbench.datasets.demo.kokoro import SAMPLE_RATE, Kokoro

TEST_VOICES = ["af_sarah", "am_michael", "bf_emma", "bm_george"]
DEV_VOICES = ["af_nova", "am_eric"]
BLENDS = 96
SENTENCES = Path(__file__).parent / "sentences"
SPLITS = ["prompts", "test", "dev", "hard", "train", "more"]


@dataclass(frozen=True)
class Job:
    """One utterance to synthesise; ``blend`` maps voices to weights."""

    id: str
    split: str
    text: str
    blend: dict[str, float]
    speed: float = 1.0


def read_sentences(name: str) -> list[str]:
    """The hand-written sentences of ``sentences/<name>.txt``."""
    return [line for line in (SENTENCES / f"{name}.txt").read_text(encoding="utf-8").splitlines() if line.strip()]


def training_sentences() -> list[str]:
    """All hand-written training sentences in a fixed random order."""
    found = [s for path in sorted(SENTENCES.glob("train_*.txt")) for s in read_sentences(path.stem)]
    random.Random(0).shuffle(found)
    return list(dict.fromkeys(found))


def blended_speakers(voices: list[str], count: int) -> list[dict[str, float]]:
    """``count`` further speakers, each between two training voices: their style vectors' weighted mean."""
    generator = random.Random(0)
    found = []
    for _ in range(count):
        first, second = generator.sample(voices, 2)
        weight = round(generator.uniform(0.5, 0.85), 2)
        found.append({first: weight, second: round(1 - weight, 2)})
    return found


def jobs(split: str, voices: list[str], count: int, seed: int) -> Iterator[Job]:
    """The jobs of a split. ``count`` and ``seed`` matter to ``more`` only: speech beyond what is committed."""
    training = [v for v in voices if v not in TEST_VOICES + DEV_VOICES]
    if split in ("train", "more"):
        generator = random.Random(seed)
        speakers = blended_speakers(training, BLENDS)
        texts = training_sentences()
        if split == "more":
            from imfbench.datasets.demo.grammar import sentences

            texts = [*texts, *sentences(max(0, count - len(texts)), seed)]
            generator.shuffle(texts)
        for i, text in enumerate(texts[:count] if split == "more" else texts):
            if split == "train":
                yield Job(f"train-{i:05d}", split, text, {training[i * 7 % len(training)]: 1.0})
                continue
            yield Job(
                f"more-{seed}-{i:05d}", split, text, speakers[i % len(speakers)], round(generator.uniform(0.9, 1.1), 2)
            )
        return
    targets = {"test": TEST_VOICES, "dev": DEV_VOICES, "hard": TEST_VOICES, "prompts": TEST_VOICES + DEV_VOICES}[split]
    for i, text in enumerate(read_sentences(split)):
        voice = targets[i % len(targets)]
        yield Job(f"{split.removesuffix('s')}-{voice}-{i // len(targets):03d}", split, text, {voice: 1.0})


def _work(arguments: tuple[Path, Path, list[Job], int]) -> None:
    voices, out, todo, part = arguments
    kokoro = Kokoro(voices)
    with (out / f"journal-{part}.jsonl").open("a", encoding="utf-8") as journal:
        for job in todo:
            speech = kokoro(job.text, job.blend, job.speed)
            path = out / f"{job.split}-audio" / f"{job.id}.flac"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, speech.audio, SAMPLE_RATE, subtype="PCM_16")
            row: dict[str, Any] = {**asdict(job), "seconds": round(len(speech.audio) / SAMPLE_RATE, 3)}
            row |= {"phones": speech.phones, "frames": speech.frames}
            journal.write(json.dumps(row, ensure_ascii=False) + "\n")
            journal.flush()


def speaker_of(row: dict[str, Any]) -> str:
    """The voice's name, or for a blend its parts and weights."""
    return "+".join(
        f"{name}*{weight:g}" if len(row["blend"]) > 1 else name for name, weight in sorted(row["blend"].items())
    )


def read_journals(out: Path) -> dict[str, dict[str, Any]]:
    """Rows of all journals in ``out`` by utterance id; a half-written last line is dropped."""
    rows: dict[str, dict[str, Any]] = {}
    for path in sorted(out.glob("journal-*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            rows[row["id"]] = row
    return rows


def main() -> None:
    """Synthesise the wanted splits into ``--out``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--voices", type=Path, required=True, help="folder of Kokoro's voices (*.bin)")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", choices=SPLITS, action="append", help="default: all but `more`")
    parser.add_argument("--count", type=int, default=2000, help="utterances of `more`")
    parser.add_argument("--seed", type=int, default=1, help="seed of `more`")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    voices = sorted(path.stem for path in arguments.voices.glob("[ab][fm]_*.bin"))
    done = read_journals(arguments.out)
    todo = [
        job
        for split in arguments.split or SPLITS[:-1]
        for job in jobs(split, voices, arguments.count, arguments.seed)
        if job.id not in done
    ]
    print(f"{len(done)} utterances are there, {len(todo)} to make")
    parts = [(arguments.voices, arguments.out, todo[part :: arguments.jobs], part) for part in range(arguments.jobs)]
    with multiprocessing.get_context("spawn").Pool(arguments.jobs) as pool:
        pool.map(_work, parts, chunksize=1)


if __name__ == "__main__":
    main()
