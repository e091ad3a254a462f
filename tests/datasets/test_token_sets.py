"""token2mel of CosyVoice 2's kind on published sets: tokens that somebody gives, or those of the recordings."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from imfbench import model_hub
from imfbench.contracts.manifests import heard_in_set, write_features
from imfbench.data import DatasetError
from imfbench.features.mel import COSYVOICE2
from imfbench.features.s3_tokens import TokenRateError
from imfbench.features.speech_store import Heard, Listener
from imfbench.inputs import EMBEDDED, Inputs
from imfbench.sets import open_set

COSYVOICE = Inputs(COSYVOICE2, frames_per_token=2, vocabulary=107, speaker_dims=256)


def opened(name: str, root: Path, features: Path | None = None, inputs: Inputs = COSYVOICE) -> Any:
    dataset = open_set(name, root, {} if features is None else {"features": str(features)}).dataset
    dataset.inputs = inputs
    return dataset


def test_given_tokens_are_the_prompts_then_the_texts(layout: Callable[[str], Any], tmp_path: Path) -> None:
    copy = layout("seed-tts-eval")
    heard = heard_in_set(copy.utterances())
    dataset = opened("seed-tts-eval", copy.root, write_features(tmp_path / "f", heard))
    assert dataset.lacking("en") == ""
    assert re.fullmatch("given tokens [0-9a-f]{8}", dataset.variant)
    u = dataset.utterances("en")[0]
    c = dataset.condition(u)
    (before, voice), (after, _) = heard[u.prompt_id], heard[u.id]
    prompt = int(c.prompt.sum())
    assert prompt == 2 * len(before)
    assert c.tokens[0, :prompt:2].tolist() == (before + 1).tolist()
    assert c.tokens[0, prompt::2].tolist() == (after + 1).tolist()
    assert torch.equal(c.tokens[0, ::2], c.tokens[0, 1::2])
    assert c.speaker is not None
    assert torch.equal(c.speaker[0], voice)
    assert not c.prompt_mel[:, prompt:].any()
    others = {id: ((tokens + 1) % 50, vector) for id, (tokens, vector) in heard.items()}
    other, again = (opened("seed-tts-eval", copy.root, write_features(tmp_path / name, what)).variant
                    for name, what in (("others", others), ("again", heard)))  # fmt: skip
    assert other != dataset.variant == again, "speech of other tokens is another cell's"
    slow = {id: (tokens[::2], vector) for id, (tokens, vector) in heard.items()}
    with pytest.raises(TokenRateError, match=r"the prompt .*wav has \d+ mel frames"):
        opened("seed-tts-eval", copy.root, write_features(tmp_path / "slow", slow)).condition(u)
    theirs = opened(
        "seed-tts-eval", copy.root, tmp_path / "f", Inputs(COSYVOICE2, frames_per_token=2, speaker_dims=192)
    )
    with pytest.raises(DatasetError, match=r"a speaker's vector of 256 numbers, and the network takes 192"):
        theirs.condition(u)
    fewer = Inputs(COSYVOICE2, frames_per_token=2, vocabulary=3, speaker_dims=256)
    with pytest.raises(DatasetError, match=r"token \d+, and the network knows 3: the tokens are of another tokenizer"):
        opened("seed-tts-eval", copy.root, tmp_path / "f", fewer).condition(u)
    few = write_features(tmp_path / "few", {u.prompt_id: heard[u.prompt_id]})
    with pytest.raises(DatasetError, match=rf"few/tokens.safetensors has nothing of {u.id!r}"):
        opened("seed-tts-eval", copy.root, few).condition(u)


def test_without_them_the_recordings_are_listened_to(
    layout: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMFBENCH_CACHE", str(tmp_path / "cache"))
    copy = layout("librispeech-pc")
    dataset = opened("librispeech-pc", copy.root)
    monkeypatch.setattr(model_hub, "download", lambda *_: None)
    told = dataset.lacking("test")
    assert "speech_tokenizer_v2.onnx" in told
    assert "`features`" in told
    u = dataset.utterances()[0]
    with pytest.raises(DatasetError, match=r"cannot be made: .*speech_tokenizer_v2.onnx"):
        dataset.condition(u)
    monkeypatch.setattr(Listener, "signature", "of a test")
    monkeypatch.setattr(
        Listener,
        "__call__",
        lambda _, audio, rate: Heard(torch.arange(-(-len(audio) * 25 // rate)) % 107, torch.ones(256)),
    )
    assert dataset.lacking("test") == ""
    assert dataset.variant == "recordings' tokens"
    c = dataset.condition(u)
    target = (~c.prompt & c.valid).sum() * COSYVOICE2.seconds_per_frame
    assert float(target) == pytest.approx(u.seconds, abs=0.1)


def test_other_networks_are_refused_as_before(layout: Callable[[str], Any]) -> None:
    copy = layout("seed-tts-eval")
    dataset = opened("seed-tts-eval", copy.root, inputs=EMBEDDED)
    assert "the phone of every 25 ms, which it does not have" in dataset.lacking("en")
    with pytest.raises(DatasetError, match="the phone of every 25 ms"):
        dataset.condition(dataset.utterances("en")[0])
