"""The metric under other people's protocols, and how audio gets to their recognisers."""

from __future__ import annotations

import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.signal
import soundfile
import torch

from imfbench.metrics import ScoreItem
from imfbench.metrics.base import ScoreError, clip
from imfbench.metrics.protocols import PROTOCOLS
from imfbench.metrics.resamplers import RESAMPLERS, resampled
from imfbench.metrics.wer import WordErrorRate
from imfbench.weights import MissingModelError


def metric(protocol: str, **settings: object) -> WordErrorRate:
    return WordErrorRate(WordErrorRate.Config(protocol=protocol, **settings))


def item(text: str) -> ScoreItem:
    return ScoreItem("x", np.zeros(16000, np.float32), 16000, text)


def test_our_own_signature_is_as_it_was() -> None:
    assert WordErrorRate().signature == (
        "wer-v1|asr:faster-whisper-base@d01c3014|compute:int8|beam:5|temperature:0|context:no|timestamps:no|language:en|"
        "resample:soxr-hq|norm:whisper-en@0.1.15|jiwer:4.0|agg:corpus"
    )


def test_a_protocol_decides_decoding_resampling_text_and_aggregate() -> None:
    signature = metric("f5-tts", asr="whisper-base").signature
    assert signature.parts["temperature"] == "0,0.2,0.4,0.6,0.8,1"
    assert {key: signature.parts[key] for key in ("context", "timestamps", "resample", "apostrophes", "agg")} == {
        "context": "yes",
        "timestamps": "yes",
        "resample": "swresample-s16",
        "apostrophes": "deleted",
        "agg": "mean",
    }
    f5 = metric("f5-tts", asr="whisper-base")
    rows = pd.DataFrame(
        [f5.row(item(said), {"hypothesis": heard}) for said, heard in [("no", "yes"), ("a b c", "a b c")]]
    )
    summary = f5.summarise(rows)
    assert summary["wer"] == summary["wer_mean"] == 0.5
    assert summary["wer_corpus"] == 0.25
    assert f5.row(item("It's."), {"hypothesis": "its"})["wer"] == 0
    with pytest.raises(ScoreError, match="normalises to nothing"):
        f5.row(item("'"), {"hypothesis": "its"})


def test_segments_are_joined_as_each_script_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """F5-TTS puts a space between segments, and only that protocol's signature says so; ours are as they come."""
    heard = [types.SimpleNamespace(text=text) for text in (" Good evening.", "Come in.")]
    transcripts = {}
    for name in ("imfbench", "f5-tts"):
        recogniser = metric(name, asr="whisper-base").recogniser
        monkeypatch.setattr(
            recogniser, "model", types.SimpleNamespace(transcribe=lambda *_, **__: (iter(heard), None)), raising=False
        )
        transcripts[name] = recogniser.transcribe(np.zeros(16000, np.float32), "en")
        assert recogniser.parts().get("join") == {"imfbench": None, "f5-tts": "space"}[name]
    assert transcripts == {"imfbench": "Good evening.Come in.", "f5-tts": "Good evening. Come in."}
    usual = metric("f5-tts", asr="whisper-base")
    rows = [usual.row(item("Good evening. Come in."), {"hypothesis": text})["wer"] for text in transcripts.values()]
    assert rows == [0.5, 0.0]


def test_a_recogniser_that_is_not_here_is_told_and_can_be_replaced() -> None:
    listener = PROTOCOLS["seed-tts-eval"].recognition["en"]
    other = metric("seed-tts-eval", recogniser="faster-whisper")
    assert other.signature.parts["asr"].startswith("faster-whisper-base@"), "not the protocol's model, and it says so"
    assert other.signature.parts["beam"] == "1"
    assert other.signature.parts["resample"] == listener.resampler == "scipy-fft"
    with pytest.raises(ValueError, match="unknown recogniser 'whispr'"):
        metric("imfbench", recogniser="whispr")


def test_a_protocol_whose_recogniser_is_not_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    from imfbench.metrics import wer

    monkeypatch.setattr(wer, "RECOGNISERS", {"faster-whisper": wer.RECOGNISERS["faster-whisper"]})
    with pytest.raises(MissingModelError, match=r"listens with 'hubert-ctc'.*there are faster-whisper"):
        _ = metric("zipvoice-librispeech").signature


def test_a_language_that_a_protocol_does_not_know_is_a_wrong_setting() -> None:
    with pytest.raises(ValueError, match="no rule for language 'zh'"):
        metric("zipvoice-librispeech", language="zh")


# ---- resamplers ----


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """A second of something with a wide spectrum at 24 kHz, on the steps of 16 bits as audio from a file is."""
    noise = np.random.default_rng(0).normal(0, 0.1, 24000)
    return (np.rint(np.cumsum(noise - noise.mean()) / 20 * 32768) / 32768).astype(np.float32)


def test_every_protocols_resampler_is_there() -> None:
    named = {r.resampler for p in PROTOCOLS.values() for r in p.recognition.values()}
    named |= {judge.resampler for p in PROTOCOLS.values() for judge in (p.similarity, p.opinion) if judge}
    assert named <= RESAMPLERS.keys()


@pytest.mark.parametrize("name", list(RESAMPLERS))
def test_a_tone_keeps_its_pitch_and_level(name: str) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(24000) / 24000).astype(np.float32)
    found = clip(tone, 24000, 16000, resampler=name)
    assert found.dtype == np.float32
    assert abs(len(found) - 16000) <= 16
    wanted = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    assert np.abs(found[1000:15000] - wanted[1000:15000]).max() < 2e-3
    assert resampled(tone, 24000, 24000, name) is tone


def test_resamplers_are_those_of_the_scripts(speech: np.ndarray, tmp_path: Path) -> None:
    from faster_whisper.audio import decode_audio
    from torchaudio.transforms import Resample

    path = tmp_path / "speech.wav"
    soundfile.write(path, (speech * 32768).astype(np.int16), 24000)
    doubles, rate = soundfile.read(path)
    assert np.array_equal(doubles.astype(np.float32), speech)
    by_fft = scipy.signal.resample(doubles, int(len(doubles) * 16000 / rate))
    assert np.array_equal(clip(speech, rate, 16000, resampler="scipy-fft"), by_fft.astype(np.float32))
    assert np.array_equal(clip(speech, rate, 16000, resampler="swresample-s16"), decode_audio(str(path)))
    by_sinc = Resample(rate, 16000)(torch.from_numpy(speech))
    torch.testing.assert_close(torch.from_numpy(clip(speech, rate, 16000, resampler="torchaudio-sinc")), by_sinc)
    found = {name: clip(speech, rate, 16000, resampler=name) for name in RESAMPLERS}
    assert not np.allclose(found["scipy-fft"], found["soxr-hq"], atol=1e-4), "they do differ"


def test_full_scale_survives_the_way_over_16_bits() -> None:
    loud = np.full(24000, 1.0, np.float32)
    found = clip(loud, 24000, 16000, resampler="swresample-s16")
    assert np.abs(found[2000:-2000] - 1).max() < 1e-3
