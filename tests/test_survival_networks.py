"""``imfbench synthesize --text`` with networks that were trained on another dataset than the embedded corpus."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from speaking import AUDIO, PROMPT_TEXT, RATE, networks, quick_vocoder, recording, refused, say

from imfbench import speak as speak_module
from imfbench.datasets.demo.corpus import DATA, DemoCorpus
from imfbench.features.audio import resample
from imfbench.features.mel import SAMPLE_RATE
from imfbench.registry import DATASETS

__all__ = ["networks", "quick_vocoder", "recording"]


class WithoutTask(DemoCorpus):
    """A dataset as a plug-in may have it."""

    def __init__(self) -> None:
        super().__init__(task="text2mel")


class WithRoot(DemoCorpus):
    """Another one."""

    def __init__(self, root: str) -> None:
        super().__init__(Path(root), task="text2mel")


class WithoutTexts:
    """A dataset that has no phones for a text."""


@pytest.fixture
def trained_on(networks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:  # type: ignore[no-untyped-def]
    """``trained_on(name, **options)``: the teacher as if it had been trained on that dataset."""
    for cls in (WithoutTask, WithRoot, WithoutTexts):
        monkeypatch.setitem(DATASETS._entries, cls.__name__, cls)

    def _trained_on(name: str, **options: Any) -> Path:
        folder = tmp_path / "own"
        shutil.copytree(networks[0], folder)
        card = json.loads((folder / "card.json").read_text())
        card["train_data"] = {"name": name, "options": options}
        (folder / "card.json").write_text(json.dumps(card))
        return folder

    return _trained_on


@pytest.mark.usefixtures("quick_vocoder")
@pytest.mark.parametrize(("name", "options"), [("WithoutTask", {}), ("WithRoot", {"root": str(DATA)})])
def test_a_network_of_another_dataset_speaks_as_its_card_says(  # type: ignore[no-untyped-def]
    trained_on, recording, tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    said = say(recording(), trained_on(name, **options), tmp_path / "a.wav", "--prompt-text", PROMPT_TEXT, "--no-score")
    assert said.exit_code == 0, said.output
    assert (tmp_path / "a.wav").is_file()


def test_a_network_of_another_copy_is_given_its_phones(tmp_path: Path) -> None:
    phones = (DATA / "phones.txt").read_text(encoding="utf-8").splitlines()
    (tmp_path / "phones.txt").write_text("\n".join(reversed(phones)) + "\n", encoding="utf-8")
    request = speak_module.Request("Good evening.", tmp_path / "me.wav", PROMPT_TEXT, ["own"], [1])
    prompt = resample(AUDIO, RATE, SAMPLE_RATE)
    ours, theirs = (
        speak_module._conditions(request, "own", {"task": "text2mel", "train_data": data}, prompt, lambda: PROMPT_TEXT)[
            0
        ]
        for data in ({"name": "demo"}, {"name": "demo", "options": {"root": str(tmp_path)}})
    )
    said = (ours.tokens > 0) & (ours.tokens <= len(phones))
    assert torch.equal(theirs.tokens[said], len(phones) + 1 - ours.tokens[said])


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("WithoutTexts", {}, "which has no way from a text to its phones (`own_condition`): name another network"),
        ("folder", {"root": "."}, "which has no way from a text to its phones (`own_condition`): name another network"),
        ("of-a-plugin", {}, "which is not known here (unknown dataset 'of-a-plugin'"),
        ("WithRoot", {}, "as its card says, which cannot be used here: dataset 'WithRoot' needs the option 'root'"),
        ("demo", {"speed": 1}, "which cannot be used here: dataset 'demo' has no option 'speed': did you mean 'speeds'"),
        ("demo", {"root": "gone"}, "which cannot be used here: gone is no folder of the demo corpus, it holds no phones.txt"),
    ],
)  # fmt: skip
def test_a_network_whose_dataset_is_not_here_is_refused(  # type: ignore[no-untyped-def]
    trained_on, recording, tmp_path: Path, name: str, options: dict[str, Any], words: str
) -> None:
    network = trained_on(name, **options)
    told = refused(say(recording(), network, tmp_path / "a.wav", "--prompt-text", PROMPT_TEXT, "--no-score"))
    assert f"the network {network} was trained on the dataset {name!r}, " in told
    assert words in told
    assert not (tmp_path / "a.wav").exists()
