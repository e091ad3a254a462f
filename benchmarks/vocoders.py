"""HiFi-GAN in bf16 against float32: processor time, and how far apart the two waveforms are.

    .venv/bin/python benchmarks/vocoders.py --utterances 48 --out vocoded
    imfbench score vocoded/hifigan vocoded/hifigan-bf16 --dataset demo --limit 48 --metrics wer,sim,mos --margin wer=0.02

Both vocode the mels of the same recordings, in turns, after a warm-up of each length; the ratio is that of the sums. The second
command scores what the first one wrote, as any system's speech is scored.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np
import torch

from imfbench.datasets.demo.corpus import DemoCorpus
from imfbench.devices import describe
from imfbench.features.audio import save_audio
from imfbench.metrics.speed import CLOCKS
from imfbench.pipeline.context import select
from imfbench.registry import VOCODERS

NAMES = ("hifigan", "hifigan-bf16")


def main(words: Sequence[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utterances", type=int, default=48)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="folder of both vocoders' recordings")
    arguments = parser.parse_args(words)
    torch.set_num_threads(arguments.threads)
    data, clock = DemoCorpus(), CLOCKS["processor"]
    vocoders = {name: VOCODERS.get(name)().load(torch.device("cpu")) for name in NAMES}
    seconds, spoken, decibels = dict.fromkeys(NAMES, 0.0), 0.0, []
    for utterance in select(data.utterances("test"), arguments.utterances, prefer_short=False):
        mel = data.target_mel(utterance)
        audio: dict[str, np.ndarray] = {}
        for name, vocoder in vocoders.items():
            vocoder(mel)
            began = clock()
            audio[name] = vocoder(mel)
            seconds[name] += clock() - began
            if arguments.out:
                path = arguments.out / name / f"{utterance.id}.flac"
                path.parent.mkdir(parents=True, exist_ok=True)
                save_audio(path, audio[name], vocoder.sample_rate)
        exact, mixed = (audio[name] for name in NAMES)
        spoken += len(exact) / vocoders[NAMES[0]].sample_rate
        decibels.append(float(10 * np.log10(np.square(exact).sum() / np.square(mixed - exact).sum())))
    found = {f"{name}_rtf": seconds[name] / spoken for name in NAMES}
    found |= {
        "ratio": seconds[NAMES[0]] / seconds[NAMES[1]],
        "decibels_median": median(decibels),
        "decibels_least": min(decibels),
        "utterances": len(decibels),
    }
    print({**found, "threads": arguments.threads, **describe(torch.device("cpu"))})
    return found


if __name__ == "__main__":
    main()
