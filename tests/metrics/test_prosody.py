from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from imfbench.metrics import ScoreError, ScoreItem
from imfbench.metrics.prosody import PitchVariation, voiced_frames

Items = Callable[[int], list[ScoreItem]]
RATE = 24000


@pytest.fixture(scope="module")
def f0cv() -> Iterator[PitchVariation]:
    metric = PitchVariation(threads=1)
    with metric.loaded():
        yield metric


def voice(hertz: np.ndarray) -> np.ndarray:
    """Harmonics of a pitch contour (samples,), falling by 6 dB an octave."""
    phase = 2 * np.pi * np.cumsum(hertz) / RATE
    return (0.2 * sum(np.sin(k * phase) / k for k in range(1, 16))).astype(np.float32)


def item(audio: np.ndarray) -> ScoreItem:
    return ScoreItem("x", audio, RATE, "")


@pytest.mark.parametrize(("start", "stop"), [(100, 160), (120, 220), (220, 300), (180, 110)])
def test_a_glide_has_the_variation_of_its_contour(f0cv: PitchVariation, start: float, stop: float) -> None:
    contour = np.linspace(start, stop, 2 * RATE)
    row = f0cv.score(item(voice(contour)))
    assert row["f0cv"] == pytest.approx(contour.std() / contour.mean(), rel=0.05)
    assert row["f0_mean"] == pytest.approx(contour.mean(), rel=0.02)
    assert row["voiced_share"] > 0.95


def test_a_monotone_voice_has_none(f0cv: PitchVariation) -> None:
    assert f0cv.score(item(voice(np.full(RATE, 150.0))))["f0cv"] < 0.005


def test_pauses_count_as_unvoiced_and_change_nothing_else(f0cv: PitchVariation) -> None:
    contour = np.linspace(120, 200, RATE)
    spoken, pause = voice(contour), np.random.default_rng(0).normal(0, 1e-3, RATE).astype(np.float32)
    row = f0cv.score(item(np.concatenate([pause, spoken, pause])))
    assert row["f0cv"] == pytest.approx(contour.std() / contour.mean(), rel=0.05)
    assert row["voiced_share"] == pytest.approx(1 / 3, abs=0.03)


def test_speech_made_monotone_varies_less_and_its_level_does_not_matter(
    f0cv: PitchVariation, demo_test_items: Items
) -> None:
    for spoken in demo_test_items(4):
        row = f0cv.score(spoken)
        assert 0.05 < row["f0cv"] < 0.45
        assert 80 < row["f0_mean"] < 280
        quiet = f0cv.score(replace(spoken, audio=spoken.audio * np.float32(0.01)))
        assert quiet["f0cv"] == pytest.approx(row["f0cv"], rel=1e-3)


@pytest.mark.parametrize(
    ("audio", "reason"),
    [
        (np.zeros(RATE, np.float32), "silent"),
        (np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32), "0.00 s of voice"),
    ],
)
def test_silence_and_noise_are_failed_rows(f0cv: PitchVariation, audio: np.ndarray, reason: str) -> None:
    with pytest.raises(ScoreError, match=reason):
        f0cv.score(item(audio))


def test_short_runs_and_octave_errors_are_not_voice() -> None:
    f0 = np.array([0, 150, 150, 0, 100, 110, 120, 130, 290, 140, 0, 50, 50, 50, 0, 125, 124, 123], dtype=float)
    assert np.flatnonzero(voiced_frames(f0, 3, 1.0)).tolist() == [4, 5, 6, 7, 9, 15, 16, 17]
    assert not voiced_frames(np.zeros(5), 3, 1.0).any()


def test_signature_pins_tracker_and_voicing() -> None:
    signature = PitchVariation().signature
    assert signature.startswith("f0cv-v1|f0:swift-f0@")
    assert signature != PitchVariation(PitchVariation.Config(shortest_run=5)).signature
    assert PitchVariation().model_signature == PitchVariation(PitchVariation.Config(shortest_run=5)).model_signature
