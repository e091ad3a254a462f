"""Mels, units and vocoders on tones and on real speech of the corpus."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from imfbench.datasets.demo.corpus import DemoCorpus
from imfbench.datasets.demo.features import Features
from imfbench.features import hifigan, mel
from imfbench.features.audio import load_audio, resample, save_audio
from imfbench.features.griffin_lim import GriffinLim
from imfbench.features.hifigan import Generator, HiFiGAN, MixedHiFiGAN
from imfbench.features.units import tokens_of_frames, units


def test_a_tone_lands_in_the_band_whose_filter_is_highest_there() -> None:
    time = torch.arange(mel.SAMPLE_RATE) / mel.SAMPLE_RATE
    for hertz in (300.0, 1000.0, 3000.0):
        spectrum = mel.log_mel(torch.sin(2 * torch.pi * hertz * time))
        column = mel.filters()[:, round(hertz * mel.WINDOW / mel.SAMPLE_RATE)]
        assert abs(int(spectrum[40].argmax()) - int(column.argmax())) <= 1


def test_frames_are_counted_as_the_mel_makes_them() -> None:
    for samples in (5000, 5120, 22_050, 22_049):
        assert len(mel.log_mel(torch.zeros(samples))) == mel.frame_count(samples)


def test_silence_is_the_floor() -> None:
    quiet = mel.log_mel(torch.zeros(4096))
    torch.testing.assert_close(mel.normalise(mel.denormalise(quiet)), quiet)
    # sqrt(1e-9) through each filter's area, or the floor of 1e-5 where that is less
    assert float(quiet.max()) < -9


def test_a_frame_takes_the_unit_at_its_centre() -> None:
    row = units([7, 8, 9], [2, 0, 3])
    assert row.tolist() == [7, 7, 9, 9, 9]
    found = tokens_of_frames(row, 12)
    times = [(256 * k + 128) / 22_050 for k in range(12)]
    assert found.tolist() == [row[min(int(t / 0.025), 4)].item() for t in times]


def test_speed_moves_units_and_audio_together() -> None:
    row = units([1, 2], [40, 40])  # the change is at 1 s, and at 0.5 s when played twice as fast
    fast = tokens_of_frames(row, 80, speed=2.0)
    change = int((fast == 2).nonzero()[0]) * mel.HOP / mel.SAMPLE_RATE
    assert abs(change - 0.5) < 0.02


@pytest.mark.parametrize("task", ["token2mel", "text2mel"])
def test_training_speech_at_another_speed_keeps_tokens_and_sound_together(
    task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All teachers that ship learnt from such speech: faster is shorter, and what is heard at a time is what is said then."""
    rows = DemoCorpus()._training_rows()[:1]
    monkeypatch.setattr(DemoCorpus, "_training_rows", lambda self: rows)
    monkeypatch.setattr(
        Features, "of", lambda self, rows, speed, key: [self.example(row, path, speed) for row, path in rows]
    )
    usual, fast = DemoCorpus(task=task, speeds=(1.0, 1.25)).examples()
    assert len(fast.mel) == pytest.approx(len(usual.mel) / 1.25, abs=2)
    assert fast.speaker != usual.speaker, "at another speed a voice is somebody else's"
    points = np.linspace(0.02, 0.98, 200)
    loud = [np.interp(points, np.linspace(0, 1, len(e.mel)), e.mel.mean(1).numpy()) for e in (usual, fast)]
    assert np.corrcoef(*loud)[0, 1] > 0.95
    if task == "text2mel":
        assert usual.ends is not None
        assert fast.ends is not None
        assert torch.equal(usual.tokens, fast.tokens)
        torch.testing.assert_close(fast.ends.double(), usual.ends.double() / 1.25, atol=2.0, rtol=0)
        return
    begins = [torch.cat([torch.tensor([0]), 1 + (e.tokens.diff() != 0).nonzero()[:, 0]]) for e in (usual, fast)]
    said = [e.tokens[b].tolist() for e, b in zip((usual, fast), begins, strict=True)]
    held = [(token, b) for token, b in zip(said[0], begins[0].tolist(), strict=True) if said[0].count(token) == 1]
    moved = [(b, begins[1][said[1].index(token)].item()) for token, b in held if said[1].count(token) == 1]
    assert len(moved) > 3
    for before, after in moved:
        assert after == pytest.approx(before / 1.25, abs=3)


def test_resampling_keeps_a_tone(tmp_path) -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(24_000) / 24_000).astype(np.float32) * 0.5
    save_audio(tmp_path / "tone.flac", tone, 24_000)
    found, rate = load_audio(tmp_path / "tone.flac", 22_050)
    assert rate == 22_050
    assert len(found) == 22_050
    spectrum = np.abs(np.fft.rfft(found))
    assert spectrum.argmax() == 440
    assert np.array_equal(resample(found, 22_050, 22_050), found)


def test_vocoders_give_back_the_mel_of_real_speech() -> None:
    corpus = DemoCorpus()
    shortest = min(corpus.utterances("test"), key=lambda u: u.seconds)
    target = corpus.target_mel(shortest)[:150]
    error = {}
    for vocoder in (HiFiGAN().load(), GriffinLim().load()):
        audio = vocoder(target)
        assert audio.shape == (150 * mel.HOP,)
        again = mel.log_mel(torch.from_numpy(audio))
        error[vocoder.name] = float((again[2:-2] - target[2 : len(again) - 2]).abs().mean())
    noise = mel.log_mel(torch.randn(150 * mel.HOP) * 0.1)
    bad = float((noise - target).abs().mean())
    assert error["hifigan-universal-v1"] < 0.35
    assert error["griffin-lim-32"] < 0.6
    assert bad > 1.5, "the measure must tell speech from noise"


def test_hifigan_in_bf16_differs_little_from_float32_and_has_its_own_name() -> None:
    corpus = DemoCorpus()
    shortest = min(corpus.utterances("test"), key=lambda u: u.seconds)
    target = corpus.target_mel(shortest)
    assert len(target) % hifigan.FRAMES, "a length that is filled up"
    exact, mixed = HiFiGAN().load()(target), MixedHiFiGAN().load()(target)
    assert mixed.shape == exact.shape == (len(target) * mel.HOP,)
    decibels = 10 * np.log10(np.square(exact).sum() / np.square(mixed - exact).sum())
    assert 38 < decibels < 60, "closer than bf16 can be, or further than its first stage in float32 lets it be"
    assert MixedHiFiGAN.name != HiFiGAN.name


def test_windows_of_one_length_cover_every_frame_once_and_away_from_their_cuts() -> None:
    reach, frames = hifigan.REACH, range(hifigan.WINDOW + 1, 3000)
    lengths = set()
    for total in frames:
        found = hifigan.windows(total)
        (length,) = {end - start for start, end, _, _ in found}
        assert length <= hifigan.WINDOW
        lengths.add(length)
        assert [frame for start, _, first, last in found for frame in range(start + first, start + last)] == list(
            range(total)
        )
        for start, end, first, last in found:
            assert first >= reach or (start, first) == (0, 0)
            assert length - last >= reach or (end, last) == (total, length)
    assert len(lengths) <= 8, "kernels are made for each"


def test_a_frame_reaches_no_further_than_the_windows_overlap() -> None:
    vocoder, frames, middle = HiFiGAN().load(), 80, 40
    mels = torch.randn(2, frames, mel.BANDS, generator=torch.Generator().manual_seed(0)) - 4
    mels[1] = mels[0]
    mels[1, middle] += 3
    first, second = (vocoder(one) for one in mels)
    changed = np.flatnonzero(first != second) / mel.HOP
    assert changed[0] > middle - hifigan.REACH
    assert changed[-1] < middle + 1 + hifigan.REACH
    assert changed[-1] > middle + 11, "it must have been seen at all"


@pytest.mark.parametrize(("kind", "least"), [(HiFiGAN, 90), (MixedHiFiGAN, 40)])
def test_hifigan_in_windows_gives_the_audio_that_one_piece_gives(
    kind: type[HiFiGAN], least: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = DemoCorpus()
    target, vocoder = corpus.target_mel(corpus.utterances("test")[0])[:210], kind().load()
    whole = vocoder(target)
    monkeypatch.setattr(hifigan, "WINDOW", 96)
    assert len(hifigan.windows(len(target))) == 3
    pieces = vocoder(target)
    kept = slice(0, 190 * mel.HOP)  # one piece of bf16 has its last frame held, and hears it
    assert pieces.shape == whole.shape
    assert not np.array_equal(pieces, whole), "the windows must have been used"
    decibels = 10 * np.log10(np.square(whole[kept]).sum() / np.square((pieces - whole)[kept]).sum())
    assert decibels > least


def test_hifigan_prepares_a_length_that_it_has_not_met_lately(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hifigan, "WINDOW", 96)
    vocoder, passed = MixedHiFiGAN().load(), []
    inner = vocoder._passed
    monkeypatch.setattr(vocoder, "_passed", lambda given: passed.append(len(given)) or inner(given))
    for frames in (33, 60, 64, 150, 160):
        vocoder.prepare(frames)
    assert passed == [64, 96], "33, 60 and 64 are held up to 64; 150 and 160 frames go in windows of 96"
    for _ in range(hifigan.RECENT):
        vocoder(torch.zeros(50, mel.BANDS))
    assert set(passed) == {64, 96}
    passed.clear()
    vocoder.prepare(160)
    vocoder.prepare(160)
    assert passed == [96], "after many others the library may have forgotten it"
    exact = HiFiGAN().load()
    monkeypatch.setattr(exact, "_passed", lambda given: passed.append(len(given)))
    exact.prepare(50)
    assert passed == [96], "float32's lengths are as many as its mels"
    exact.prepare(160)
    assert passed == [96, 96]


@pytest.mark.parametrize(
    ("amx", "accelerator", "expected"), [(True, False, MixedHiFiGAN), (False, False, HiFiGAN), (True, True, HiFiGAN)]
)
def test_bf16_is_chosen_where_the_processor_is_fast_at_it(
    amx: bool, accelerator: bool, expected: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hifigan, "has_amx", lambda: amx)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: accelerator)
    assert hifigan.fastest() is expected


def test_hifigan_in_place_is_the_papers_network_and_has_its_gradient() -> None:
    """Kong et al. 2020: each stage is the mean of its residual blocks. What is changed in place must not be needed again.

    The paper's convolutions are of one dimension, and so they are here.
    """
    torch.manual_seed(0)
    generator = Generator().eval().requires_grad_(False)

    def one(layer: Any, x: Tensor) -> Tensor:
        around, apart = layer.padding[1], layer.dilation[1]
        return F.conv1d(x, layer.weight[:, :, 0], layer.bias, padding=around, dilation=apart)

    def plain(mel: Tensor) -> Tensor:
        x = one(generator.conv_pre, mel)
        for i, up in enumerate(generator.ups):
            weight, rate, around = up.weight[:, :, 0], up.stride[1], up.padding[1]
            x = F.conv_transpose1d(F.leaky_relu(x, 0.1), weight, up.bias, rate, around)
            blocks = []
            for block in generator.resblocks[3 * i : 3 * i + 3]:
                y = x
                for dilated, second in zip(block.convs1, block.convs2, strict=True):
                    y = y + one(second, F.leaky_relu(one(dilated, F.leaky_relu(y, 0.1)), 0.1))
                blocks.append(y)
            x = torch.stack(blocks).mean(0)
        return torch.tanh(one(generator.conv_post, F.leaky_relu(x)))

    mel = torch.randn(1, 80, 6)
    first, second = mel.clone().requires_grad_(), mel.clone().requires_grad_()
    expected, found = plain(first), generator(second)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    weights = torch.randn_like(expected)
    (expected * weights).sum().backward()
    (found * weights).sum().backward()
    assert first.grad is not None
    assert second.grad is not None
    assert float(first.grad.abs().max()) > 0
    torch.testing.assert_close(second.grad, first.grad, rtol=1e-3, atol=float(first.grad.abs().max()) * 1e-4)
