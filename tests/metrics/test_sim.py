from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from imfbench import weights
from imfbench.datasets.demo import corpus
from imfbench.features.audio import load_audio, resample
from imfbench.metrics import ScoreError, ScoreItem
from imfbench.metrics.sim import GE2E, Resemblyzer, SpeakerSimilarity, kaldi_fbank

Items = Callable[[int], list[ScoreItem]]
MARGIN = 0.15
"""Over all pairs of the test voices the same voice scores .91 (560 pairs), another .59."""


@pytest.fixture(scope="module")
def sim() -> Iterator[SpeakerSimilarity]:
    metric = SpeakerSimilarity()
    with metric.loaded():
        yield metric


def voice(item: ScoreItem) -> str:
    return item.id.split("-")[1]


def tone_item(seconds: float = 1.0, **changes: object) -> ScoreItem:
    wave = np.sin(2 * np.pi * 220 * np.arange(int(16000 * seconds)) / 16000).astype(np.float32) * np.float32(0.1)
    return replace(ScoreItem("x", wave, 16000, "", "en", wave, 16000), **changes)


def test_the_same_voice_scores_higher_than_any_other_by_the_margin(
    sim: SpeakerSimilarity, demo_test_items: Items
) -> None:
    items = demo_test_items(16)
    same, other = [], []
    for item in items:
        same.append(sim.score(item)["sim"])
        strangers = [stranger for stranger in items if voice(stranger) != voice(item)]
        other += [
            sim.score(replace(item, prompt_audio=stranger.prompt_audio, prompt_rate=stranger.prompt_rate))["sim"]
            for stranger in strangers[::4]
        ]
    assert np.mean(same) > 0.85
    assert np.mean(same) - np.mean(other) > MARGIN
    assert min(same) - np.mean(other) > MARGIN / 2
    summary = sim.summarise(pd.DataFrame({"id": [item.id for item in items], "sim": same}))
    assert summary["sim"] == pytest.approx(np.mean(same))
    assert summary["sim_low"] < summary["sim"] < summary["sim_high"]


@pytest.mark.parametrize(
    ("first", "last", "wanted"),
    [
        (100, 400, {78: 0.18198, 140: 0.17268, 164: 0.16830, 175: 0.16610}),
        (150, 3000, {127: 0.27493, 224: 0.19839, 191: 0.19657, 20: 0.18016}),
    ],
)
def test_embeddings_are_those_of_earlier_versions(first: int, last: int, wanted: dict[int, float]) -> None:
    """Published figures hang on mel, windows and level: the largest components of two sweeps of 2.5 s with harmonics."""
    t = np.arange(40_000) / 16_000
    phase = 2 * np.pi * (first * t + (last - first) * t**2 / (2 * t[-1]))
    sweep = 0.1 * sum(np.sin(k * phase) / k for k in range(1, 6)).astype(np.float32)
    embedder = Resemblyzer(SpeakerSimilarity.Config(), "cpu", None)
    embedder.load()
    found = embedder.embed(sweep)
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-4)
    assert {*np.argsort(-found)[:4].tolist()} == {*wanted}
    assert found[[*wanted]] == pytest.approx([*wanted.values()], abs=2e-4)


def test_similarities_of_recordings_are_those_of_earlier_versions(sim: SpeakerSimilarity) -> None:
    rows = [line.split("|") for line in (corpus.DATA / "test" / "meta.lst").read_text(encoding="utf-8").splitlines()]
    for target, prompt, wanted in ((0, 0, 0.90177), (60, 60, 0.89340), (150, 150, 0.90456), (0, 150, 0.53358)):
        recordings = (
            load_audio(corpus.DATA / "test" / rows[target][4]),
            load_audio(corpus.DATA / "test" / rows[prompt][2]),
        )
        item = ScoreItem(rows[target][0], *recordings[0], rows[target][3], "en", *recordings[1])
        assert sim.score(item)["sim"] == pytest.approx(wanted, abs=2e-4)


def test_a_recording_is_itself_at_any_rate_and_level(sim: SpeakerSimilarity, demo_test_items: Items) -> None:
    item = demo_test_items(1)[0]
    copy = resample(item.audio, item.sample_rate, 22050)
    itself = replace(item, prompt_audio=copy, prompt_rate=22050)
    assert sim.score(itself)["sim"] > 0.999
    assert sim.score(replace(itself, audio=item.audio * np.float32(0.01)))["sim"] > 0.999


def test_noise_has_not_the_prompts_voice(sim: SpeakerSimilarity, demo_test_items: Items) -> None:
    item = demo_test_items(1)[0]
    noise = np.random.default_rng(0).normal(0, 0.1, len(item.audio)).astype(np.float32)
    assert sim.score(replace(item, audio=noise))["sim"] < sim.score(item)["sim"] - 2 * MARGIN


def test_windows_cover_the_audio_and_drop_a_last_one_that_is_mostly_empty() -> None:
    embedder = Resemblyzer(SpeakerSimilarity.Config(), "cpu", None)
    assert embedder.windows(8000) == [0]
    assert embedder.windows(160 * 160) == [0]
    # A second window starts at frame 77; it is kept once three quarters of its 160 frames hold audio.
    assert embedder.windows((77 + 119) * 160) == [0]
    assert embedder.windows((77 + 120) * 160) == [0, 77]
    starts = embedder.windows(16000 * 5)
    assert np.diff(starts).tolist() == [77] * (len(starts) - 1)


def test_embeddings_have_unit_length_and_no_negative_entry(sim: SpeakerSimilarity) -> None:
    embedding = np.array(sim.observe(tone_item(3.0))["embedding"])
    assert embedding.shape == (256,)
    assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-5)
    assert embedding.min() >= 0


def test_a_shared_prompt_is_embedded_once(sim: SpeakerSimilarity, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    embed = sim.model.embed
    monkeypatch.setattr(sim.model, "embed", lambda audio: calls.append(len(audio)) or embed(audio))
    item = tone_item(1.5)
    for seconds in (0.7, 0.8, 0.9):
        sim.observe(replace(item, audio=item.audio[: int(16000 * seconds)]))
    assert len(calls) == 4


def test_cache_key_depends_on_both_recordings_and_on_nothing_else(sim: SpeakerSimilarity) -> None:
    item = tone_item()
    key = sim.cache_key(item)
    assert sim.cache_key(replace(item, text="other", id="y")) == key
    assert sim.cache_key(replace(item, prompt_audio=item.audio[1:])) != key
    assert sim.cache_key(replace(item, audio=item.audio[1:])) != key


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"prompt_audio": None}, "no prompt recording"),
        ({"audio": np.zeros(16000, np.float32)}, "silent"),
        ({"audio": np.ones(3000, np.float32)}, "0.19 s"),
        ({"prompt_audio": np.full(16000, np.inf, np.float32)}, "the prompt audio holds values that are not finite"),
    ],
)
def test_what_cannot_be_compared_is_a_failed_row_with_its_reason(
    sim: SpeakerSimilarity, change: dict[str, object], reason: str
) -> None:
    with pytest.raises(ScoreError, match=reason):
        sim.score(tone_item(**change))


def test_the_users_own_weights_are_used_and_named(tmp_path: Path) -> None:
    torch.manual_seed(0)
    file = tmp_path / "mine.pt"
    torch.save({"model_state": GE2E().state_dict()}, file)
    metric = SpeakerSimilarity(SpeakerSimilarity.Config(path=file))
    assert metric.signature != SpeakerSimilarity().signature
    assert f"@{weights.sha256(file)[:8]}" in metric.signature
    assert "embedder:resemblyzer@39373b86" in SpeakerSimilarity().signature
    with metric.loaded():
        assert metric.score(tone_item())["sim"] == pytest.approx(1)


# ---- WeSpeaker ----


def test_kaldi_filterbank_finds_a_tone_in_its_band_and_has_no_mean() -> None:
    features = kaldi_fbank(tone_item().audio)
    assert features.shape == (98, 80)  # 1 + (16000 - 400) // 160
    assert features.mean(0).abs().max() < 1e-4
    times = np.arange(16000) / 16000
    low_then_high = np.sin(2 * np.pi * np.where(times < 0.5, 500, 3000) * times).astype(np.float32) * np.float32(0.1)
    features = kaldi_fbank(low_then_high)
    change = features[50:].mean(0) - features[:48].mean(0)
    mel = 1127 * np.log(1 + np.array([20, 8000, 500, 3000]) / 700)
    low, high = (mel[2:] - mel[0]) / (mel[1] - mel[0]) * 81 - 1
    assert abs(int(change.argmin()) - low) <= 1
    assert abs(int(change.argmax()) - high) <= 1


def test_a_wespeaker_onnx_model_gets_the_filterbank_and_its_output_is_compared(
    tmp_path: Path, demo_test_items: Items
) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx, of the extra 'dev', builds the model of this test")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["feats", "feats"], ["square"]),
            helper.make_node("ReduceMean", ["square"], ["embs"], axes=[1], keepdims=0),
        ],
        "variance of each band",
        [helper.make_tensor_value_info("feats", kind, [1, "T", 80])],
        [helper.make_tensor_value_info("embs", kind, [1, 80])],
    )
    file = tmp_path / "variance.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), file)
    metric = SpeakerSimilarity(SpeakerSimilarity.Config(backend="wespeaker-onnx", path=file), threads=1)
    assert f"embedder:wespeaker-onnx-variance@{weights.sha256(file)[:8]}|fbank:kaldi80-hamming" in metric.signature
    item = demo_test_items(1)[0]
    with metric.loaded():
        found = metric.score(item)["sim"]
    assert item.prompt_audio is not None
    assert item.prompt_rate is not None
    one, two = (
        (kaldi_fbank(resample(audio, rate, 16000)) ** 2).mean(0).numpy()
        for audio, rate in ((item.audio, item.sample_rate), (item.prompt_audio, item.prompt_rate))
    )
    assert found == pytest.approx(one @ two / np.linalg.norm(one) / np.linalg.norm(two), abs=1e-5)


def test_wespeaker_without_model_or_package_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(weights.MissingModelError, match=r"set metrics\.sim\.path"):
        _ = SpeakerSimilarity(SpeakerSimilarity.Config(backend="wespeaker-onnx")).signature
    with pytest.raises(weights.MissingModelError, match=r"does not exist.*none\.onnx"):
        _ = SpeakerSimilarity(SpeakerSimilarity.Config(backend="wespeaker-onnx", path=tmp_path / "none.onnx")).signature
    with pytest.raises(weights.MissingModelError, match=r"holds no config\.yaml"):
        _ = SpeakerSimilarity(SpeakerSimilarity.Config(backend="wespeaker", path=tmp_path)).signature
    monkeypatch.setitem(sys.modules, "wespeaker", None)
    with pytest.raises(weights.MissingModelError, match=r"pip install imfbench\[wespeaker\]"):
        _ = SpeakerSimilarity(SpeakerSimilarity.Config(backend="wespeaker")).signature
    with pytest.raises(ValueError, match=r"unknown SIM backend 'resemblizer'.*'resemblyzer'"):
        SpeakerSimilarity.Config(backend="resemblizer")
