"""Write the corpus' card, CARD.md, from measurements: ``python -m imfbench.datasets.demo.card``.

Minutes, words and phones are counted; Whisper transcribes every test, dev and hard utterance and a sample of the training
speech; speaker embeddings of test and dev utterances give the equal error rate of "same voice or not".
"""

from __future__ import annotations

import argparse
import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from imfbench.datasets.demo.corpus import DATA, DemoCorpus
from imfbench.features.audio import load_audio
from imfbench.metrics.base import Metric, ScoreItem
from imfbench.registry import METRICS

CARD = Path(__file__).parent / "CARD.md"
TEXT = """# The embedded corpus

Synthetic English of 28 voices, made by Kokoro-82M (int8 ONNX), with the exact duration of every phone. It exists so that
the whole of imfbench runs anywhere, without a download and in minutes. It is clean, read, and by one synthesiser: **scores
on it say nothing about human speech and are not comparable with published ones.**

- **Source**: `python -m imfbench.datasets.demo.build` and `…pack`; model hexgrad/Kokoro-82M (Apache-2.0), voices from kokoro-js
  1.2.1 (Apache-2.0), phones by espeak-ng. Sentences: written by hand for this project (CC0-1.0), `sentences/*.txt`.
- **Licence**: audio Apache-2.0, sentences CC0-1.0.
- **Voices**: training {train_voices} (a American, b British, f female, m male: {train_names});
  dev {dev_names}; test {test_names}. The voices and the sentences of dev and test are in no training utterance.
- **Format**: test and dev 24 kHz FLAC in Seed-TTS lists (`meta.lst`, `hardcase.lst`: utt|prompt_text|prompt_wav|text|gt_wav);
  training speech 24 kHz Opus at {kilobits:.0f} kb/s; `alignments.jsonl` holds phones and their frames of 25 ms.
- **Revision** {revision}: SHA256SUMS covers every file, and `imfbench doctor` compares.

{table}

WER: faster-whisper base on the corpus' own audio, all errors over all words, with a 95 % bootstrap interval (`n` utterances were
transcribed); signature `{signature}`.

Speakers: cosine of {embedder} embeddings, {pairs} pairs of test and dev utterances. Same voice {same:.3f} ± {same_sd:.3f},
other voice {other:.3f} ± {other_sd:.3f} (mean ± standard deviation), **equal error rate {eer:.1%}** over six voices.

Phones in the training speech (units of 25 ms, share of all): {phones}.
"""


def _items(rows: list[tuple[str, str, Path]]) -> list[ScoreItem]:
    found = []
    for name, text, path in rows:
        audio, rate = load_audio(path)
        found.append(ScoreItem(id=name, audio=audio, sample_rate=rate, text=text))
    return found


def _transcribe(metric: Metric, rows: list[tuple[str, str, Path]]) -> dict[str, float]:
    scored = pd.DataFrame(
        [{"id": item.id, "noise_seed": 0, "status": "ok", **metric.score(item)} for item in _items(rows)]
    )
    return metric.summarise(scored)


def equal_error_rate(same: np.ndarray, other: np.ndarray) -> float:
    """Where the share of same-voice pairs below a threshold equals the share of other-voice pairs above it."""
    thresholds = np.sort(np.concatenate([same, other]))
    misses = np.searchsorted(np.sort(same), thresholds) / len(same)
    alarms = 1 - np.searchsorted(np.sort(other), thresholds) / len(other)
    best = int(np.abs(misses - alarms).argmin())
    return float((misses[best] + alarms[best]) / 2)


def main() -> None:
    """Measure and write CARD.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=12, help="transcribe every n-th training utterance")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    corpus = DemoCorpus()
    wer = METRICS.get("wer")(threads=arguments.threads)
    sets: dict[str, list[tuple[str, str, Path]]] = {}
    spoken: dict[str, pd.DataFrame] = {}
    for split in ("test", "dev", "hard"):
        listed = corpus.utterances(split)
        sets[split] = [(u.id, u.text, u.target_audio) for u in listed if u.target_audio]
        spoken[split] = pd.DataFrame([{"speaker": u.speaker, "seconds": u.seconds, "text": u.text} for u in listed])
    training = list(corpus._alignments("train").values())
    audio = DATA / "train" / "audio"
    sets["train"] = [(r["id"], r["text"], audio / f"{r['id']}.opus") for r in training[:: arguments.every]]
    spoken["train"] = pd.DataFrame(training)
    lines = ["| set | voices | utterances | minutes | words | distinct words | WER % (n) |", "|" + " --- |" * 7]
    with wer.loaded():
        for split, rows in spoken.items():
            found = _transcribe(wer, sets[split])
            words = [word.strip(".,!?").lower() for text in rows["text"] for word in text.split()]
            cells = [
                split,
                rows["speaker"].nunique(),
                len(rows),
                f"{rows['seconds'].sum() / 60:.1f}",
                len(words),
                len(set(words)),
            ]
            interval = f"[{100 * found['wer_low']:.2f}, {100 * found['wer_high']:.2f}]"
            cells.append(f"{100 * found['wer']:.2f} {interval} ({len(sets[split])})")
            lines.append(f"| {' | '.join(map(str, cells))} |")
            print(lines[-1], flush=True)
    sim = METRICS.get("sim")(threads=arguments.threads)
    embeddings: list[tuple[str, Any]] = []
    with sim.loaded():
        for utterance in [*corpus.utterances("test")[::3], *corpus.utterances("dev")[::3]]:
            assert utterance.target_audio is not None
            samples, rate = load_audio(utterance.target_audio)
            vector = np.asarray(sim._embed(samples, rate, "audio"))
            embeddings.append((utterance.speaker, vector / np.linalg.norm(vector)))
    scores: dict[bool, list[float]] = {True: [], False: []}
    for (a, x), (b, y) in itertools.combinations(embeddings, 2):
        scores[a == b].append(float(x @ y))
    same, other = np.array(scores[True]), np.array(scores[False])
    phones: Counter[str] = Counter()
    for r in training:
        for phone, frames in zip(r["phones"], r["frames"], strict=True):
            phones[phone.strip("ˈˌː ") or "space"] += frames
    total = sum(phones.values())
    size = sum(p.stat().st_size for p in (DATA / "train" / "audio").iterdir())
    voices = sorted({r["speaker"] for r in training})
    CARD.write_text(
        TEXT.format(
            train_voices=len(voices),
            train_names=", ".join(voices),
            dev_names=", ".join(sorted({u.speaker for u in corpus.utterances("dev")})),
            test_names=", ".join(sorted({u.speaker for u in corpus.utterances("test")})),
            kilobits=size * 8 / sum(r["seconds"] for r in training) / 1000,
            revision=corpus.revision,
            table="\n".join(lines),
            signature=wer.signature,
            embedder="Resemblyzer",
            pairs=len(same) + len(other),
            same=same.mean(),
            same_sd=same.std(),
            other=other.mean(),
            other_sd=other.std(),
            eer=equal_error_rate(same, other),
            phones=", ".join(f"{p} {100 * n / total:.1f} %" for p, n in phones.most_common()),
        ),
        encoding="utf-8",
    )
    print(CARD)


if __name__ == "__main__":
    main()
