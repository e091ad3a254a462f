"""Fixtures for all tests: utterances of the embedded test set as the scorers see them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from imfbench import plugins
from imfbench.datasets.demo import corpus
from imfbench.features.audio import load_audio
from imfbench.metrics import ScoreItem


@pytest.fixture(scope="session")
def demo_test_items() -> Callable[[int], list[ScoreItem]]:
    """``demo_test_items(n)``: n ground-truth recordings with text and prompt, spread over all of the list's voices.

    Each takes its prompt by the same voice; ids read test-<voice>-<number>.
    """
    folder = corpus.DATA / "test"
    rows = [line.split("|") for line in (folder / "meta.lst").read_text(encoding="utf-8").splitlines()]

    def items(n: int) -> list[ScoreItem]:
        assert n <= len(rows), f"the test set has {len(rows)} utterances, not {n}"
        found = []
        for utt, _, prompt, text, target in (rows[k * len(rows) // n] for k in range(n)):
            audio, rate = load_audio(folder / target)
            prompt_audio, prompt_rate = load_audio(folder / prompt)
            found.append(ScoreItem(utt, audio, rate, text, "en", prompt_audio, prompt_rate))
        return found

    return items


@pytest.fixture
def fresh_plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No plug-in is known when the test begins, and those that it loads are gone when it ends."""
    monkeypatch.setattr(plugins, "_plugins", [])
    plugins._unread.cache_clear()
    yield
    plugins._unread.cache_clear()
    for plugin in plugins._plugins:
        for registry, name in plugin.gives:
            registry.remove(name)
