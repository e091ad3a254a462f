"""Two short recordings of the embedded corpus, for contracts that need speech."""

from __future__ import annotations

from typing import Any

from imfbench.data import Utterance
from imfbench.features.audio import load_audio
from imfbench.metrics.base import ScoreItem


def corpus() -> tuple[Any, list[Utterance]]:
    """The embedded corpus and the shortest test utterances of two of its speakers."""
    from imfbench.datasets.demo.corpus import DemoCorpus

    demo = DemoCorpus()
    shortest: dict[str, Utterance] = {}
    for utterance in sorted(demo.utterances("test"), key=lambda u: u.seconds or 0.0):
        shortest.setdefault(utterance.speaker, utterance)
    return demo, list(shortest.values())[:2]


def items() -> list[ScoreItem]:
    """The recordings as scorers see them: as good as speech can be."""
    found = []
    for utterance in corpus()[1]:
        assert utterance.target_audio is not None
        audio, rate = load_audio(utterance.target_audio)
        prompt, prompt_rate = load_audio(utterance.prompt_audio)
        found.append(ScoreItem(utterance.id, audio, rate, utterance.text, utterance.language, prompt, prompt_rate))
    return found
