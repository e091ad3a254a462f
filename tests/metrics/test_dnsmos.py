"""DNSMOS: the reference's digits, and what it hears."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from imfbench.metrics import ScoreError, ScoreItem
from imfbench.metrics.dnsmos import DNSMOS, SAMPLE_RATE, WINDOW, windows

Items = Callable[[int], list[ScoreItem]]


@pytest.fixture(scope="module")
def dnsmos() -> Iterator[DNSMOS]:
    metric = DNSMOS(threads=1)
    with metric.loaded():
        yield metric


def sweep(seconds: float) -> ScoreItem:
    k = np.arange(int(seconds * SAMPLE_RATE))
    wave = 0.3 * np.sin(k * 0.05 * (1 + 0.3 * np.sin(k * 3e-4))) * (1 + np.sin(k * 1e-3)) / 2
    return ScoreItem("x", wave.astype(np.float32), SAMPLE_RATE, "")


# By speechmos.dnsmos.run itself (0.0.1.1), of the same samples.
REFERENCE = {
    3.0: (2.9012071286, 3.7532235145, 2.5181932277),
    20.0: (2.4739454483, 3.2023984285, 2.0394203702),
}


@pytest.mark.parametrize("seconds", list(REFERENCE))
def test_the_scores_have_the_references_digits(dnsmos: DNSMOS, seconds: float) -> None:
    found = dnsmos.score(sweep(seconds))
    assert [found[column] for column in ("mos_dnsmos_speech", "mos_dnsmos_background", "mos_dnsmos")] == pytest.approx(
        REFERENCE[seconds], abs=1e-4
    )


def test_windows_that_are_a_sample_short_are_left_out_as_in_the_reference() -> None:
    audio = np.zeros(20 * SAMPLE_RATE, np.float32)
    found = windows(audio)
    assert len(found) == 7, "those that begin at 0 to 6 s of eleven"
    assert {len(part) for part in found} == {WINDOW}


def test_noise_is_heard_and_has_a_column_of_its_own(dnsmos: DNSMOS, demo_test_items: Items) -> None:
    assert dnsmos.signature == "dnsmos-v1|predictor:dnsmos-p835@269fbebd|window:9.01s|fill:repeat|resample:soxr-hq"
    assert DNSMOS.summary_columns == ("mos_dnsmos",)
    (item,) = demo_test_items(1)
    noise = np.random.default_rng(0).normal(0, 0.05, len(item.audio)).astype(np.float32)
    clean, noisy = dnsmos.score(item), dnsmos.score(replace(item, audio=item.audio + noise))
    for column in DNSMOS.columns:
        assert 1 < noisy[column] < clean[column] < 5
    assert clean["mos_dnsmos_background"] - noisy["mos_dnsmos_background"] > 1
    with pytest.raises(ScoreError, match=r"0\.01 s"):
        dnsmos.score(replace(item, audio=item.audio[:200]))
