"""Mel formats beside the functions that the original software makes its mels with, and what follows from a format's frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from imfbench.data import Example, collate, join
from imfbench.datasets.demo.corpus import DemoCorpus
from imfbench.features.auto_vocoder import AutoVocoder
from imfbench.features.mel import BIGVGAN, COSYVOICE2, HIFIGAN, MEL_FORMATS, VOCOS, MelFormat, mel_format
from imfbench.features.units import tokens_of_frames, units
from imfbench.inputs import EMBEDDED, Inputs, common_inputs, open_vocoder, vocoder_mel, vocoder_name

AUDIO = torch.randn(24_000, generator=torch.Generator().manual_seed(0)) * 0.1


def test_the_vocos_mel_is_f5_ttss() -> None:
    pytest.importorskip("f5_tts", reason="the extra f5 is not installed")
    from imfbench.backbones.f5tts import original_module

    theirs = original_module("modules").get_vocos_mel_spectrogram(AUDIO[None])[0].T
    torch.testing.assert_close(VOCOS.log_mel(AUDIO), theirs, atol=1e-5, rtol=0)


def by_hand(audio: np.ndarray, rate: int, hop: int, window: int, bands: int, highest: float) -> np.ndarray:
    """A log-mel, (frames, bands), by the definition of Slaney's scale, frame by frame, in double precision."""

    def mels(hertz: float) -> float:
        return 3 * hertz / 200 if hertz < 1000 else 15 + 27 * np.log(hertz / 1000) / np.log(6.4)

    def hertz(mel: np.ndarray) -> np.ndarray:
        return np.where(mel < 15, 200 * mel / 3, 1000 * 6.4 ** ((mel - 15) / 27))

    edges = hertz(np.linspace(0, mels(highest), bands + 2))[:, None]
    lower, peak, upper = edges[:-2], edges[1:-1], edges[2:]
    at = np.arange(window // 2 + 1) * rate / window
    filters = (
        np.clip(np.minimum((at - lower) / (peak - lower), (upper - at) / (upper - peak)), 0, None) * 2 / (upper - lower)
    )
    padded = np.pad(audio.astype(np.float64), (window - hop) // 2, mode="reflect")
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    frames = np.stack([padded[i : i + window] * hann for i in range(0, len(padded) - window + 1, hop)])
    power = np.abs(np.fft.rfft(frames)) ** 2
    return np.log(np.maximum(np.sqrt(power + 1e-9) @ filters.T, 1e-5))


@pytest.mark.parametrize(
    ("mel", "settings"),
    [
        (BIGVGAN, (24_000, 256, 1024, 100, 12_000.0)),  # BigVGAN v2, 24 kHz, 100 bands
        (COSYVOICE2, (24_000, 480, 1920, 80, 8000.0)),  # Matcha's as CosyVoice 2 calls it
        (HIFIGAN, (22_050, 256, 1024, 80, 8000.0)),  # HiFi-GAN's universal generator
    ],
    ids=str,
)
def test_mels_of_slaneys_scale_are_what_their_networks_heard(mel: MelFormat, settings: tuple[Any, ...]) -> None:
    wanted = torch.from_numpy(by_hand(AUDIO.numpy(), *settings)).float()
    found = mel.log_mel(AUDIO)
    assert len(found) == len(AUDIO) // mel.hop
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


def test_vocos_and_bigvgan_hear_other_mels() -> None:
    found = BIGVGAN.log_mel(AUDIO)
    assert float((VOCOS.log_mel(AUDIO)[: len(found)] - found).abs().mean()) > 1


def test_the_bigvgan_filters_are_librosas() -> None:
    librosa = pytest.importorskip("librosa.filters", reason="librosa is not installed")
    wanted = torch.from_numpy(librosa.mel(sr=24_000, n_fft=1024, n_mels=100, fmin=0, fmax=None))
    torch.testing.assert_close(BIGVGAN.filters, wanted, atol=1e-6, rtol=1e-4)


def test_the_cosyvoice_mel_is_cosyvoice_2s() -> None:
    for name in ("matcha", "librosa"):
        pytest.importorskip(name, reason="the extra cosyvoice, and librosa, are not installed")
    from imfbench.backbones.originals import original

    module = original("matcha.utils.audio", extra="cosyvoice", without=["matcha.utils"])
    theirs = module.mel_spectrogram(AUDIO[None], 1920, 80, 24_000, 480, 1920, 0, 8000, center=False)[0].T
    torch.testing.assert_close(COSYVOICE2.log_mel(AUDIO), theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("mel", MEL_FORMATS.values(), ids=str)
def test_frames_are_counted_and_centred_as_the_mel_makes_them(mel: MelFormat) -> None:
    for samples in (5000, 5120, 24_000, 23_999):
        assert len(mel.log_mel(torch.zeros(samples))) == mel.frame_count(samples)
    click = torch.zeros(12_000)
    click[6000] = 1.0
    found = mel.log_mel(click).exp().sum(1)
    nearest = (mel.centres(len(found)) - 6000 / mel.sample_rate).abs()
    assert float(nearest[found.argmax()]) == float(nearest.min())
    torch.testing.assert_close(mel.denormalise(mel.normalise(found)), found)
    assert mel.frames_per_second * mel.seconds_per_frame == pytest.approx(1)


def test_formats_are_named() -> None:
    assert mel_format("vocos-24k") is VOCOS
    with pytest.raises(ValueError, match="unknown mel format 'vocos-22k': did you mean 'vocos-24k'"):
        mel_format("vocos-22k")


def test_two_frames_share_the_unit_in_the_middle_of_both() -> None:
    row = units(list(range(1, 41)), [1] * 40)  # a second: unit k + 1 from k · 25 ms on
    found = tokens_of_frames(row, 50, mel=COSYVOICE2, frames_per_token=2).view(25, 2)
    assert torch.equal(found[:, 0], found[:, 1])
    assert found[:, 0].tolist() == [(40 * j + 20) // 25 + 1 for j in range(25)]
    odd = tokens_of_frames(row, 49, mel=COSYVOICE2, frames_per_token=2)
    assert torch.equal(odd, found.flatten()[:49])


def example(name: str, frames: int, tokens: torch.Tensor, bands: int, **about: torch.Tensor) -> Example:
    g = torch.Generator().manual_seed(len(name))
    return Example(name, "s", torch.randn(frames, bands, generator=g), tokens, **about)


def test_a_prompt_is_cut_at_whole_tokens_and_brings_its_voice() -> None:
    inputs = Inputs(COSYVOICE2, frames_per_token=2, speaker_dims=3)
    pairs = torch.arange(1, 21).repeat_interleave(2)
    one = example("a", 40, pairs, 80, voice=torch.tensor([1.0, 2.0, 3.0]))
    two = example("bb", 12, pairs[:12] + 50, 80, voice=torch.tensor([4.0, 5.0, 6.0]))
    mel, tokens, length = join(one, two, 7, 15, inputs)
    assert length == 14
    assert torch.equal(mel[:14], one.mel[6:20])
    assert tokens.tolist() == [*pairs[6:20].tolist(), *two.tokens.tolist()]
    batch = collate([(mel, tokens, length)], ("bb",), [one.voice])
    assert batch.condition.speaker is not None
    assert batch.condition.speaker.tolist() == [[1.0, 2.0, 3.0]]


def test_a_plain_text_has_neither_boundary_nor_band() -> None:
    inputs = Inputs(VOCOS, "plain")
    ends = torch.tensor([10.0, 20.0, 30.0])
    one = example("a", 30, torch.tensor([3, 4, 5]), 100, ends=ends)
    two = example("bb", 40, torch.tensor([6, 7, 8]), 100, ends=ends + 10)
    mel, tokens, length = join(one, two, 9, 12, inputs)
    assert (length, mel.shape) == (10, (50, 100))
    assert torch.equal(mel[:10], one.mel[10:20])
    assert tokens.tolist() == [4, 6, 7, 8] + [0] * 46
    assert inputs.bands("text2mel") == 100
    assert EMBEDDED.bands("text2mel") == 81


def test_features_that_were_kept_before_there_were_formats_are_found() -> None:
    """The name of the embedded corpus' cache file: another digest would extract everything anew on every machine."""
    corpus = DemoCorpus()
    rows = corpus._training_rows()
    assert corpus._features(EMBEDDED).digest(rows) == "d0d6d1decd78"
    others = {corpus._features(Inputs(mel)).digest(rows) for mel in (HIFIGAN, VOCOS, COSYVOICE2)}
    assert len(others) == 3


def test_a_vocoder_of_every_format_is_named_with_it() -> None:
    assert vocoder_name("griffin-lim", HIFIGAN) == "griffin-lim-32"
    assert vocoder_name("auto", VOCOS) == vocoder_name("vocos", VOCOS) != "auto"
    assert vocoder_name("auto", HIFIGAN) == vocoder_name("hifigan-auto", HIFIGAN)
    assert open_vocoder("auto", HIFIGAN).name == vocoder_name("auto", HIFIGAN)
    for mel in MEL_FORMATS.values():
        assert vocoder_mel(AutoVocoder.stands_for(mel)) == mel
    assert vocoder_name("griffin-lim", VOCOS) == "griffin-lim-32@vocos-24k"
    assert vocoder_name("hifigan", HIFIGAN) == "hifigan-universal-v1"
    assert open_vocoder("griffin-lim", COSYVOICE2).sample_rate == 24_000
    assert common_inputs({}, "hifigan").mel is HIFIGAN
    assert common_inputs({"a": Inputs(VOCOS)}, "griffin-lim").mel is VOCOS
