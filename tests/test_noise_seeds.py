"""The initial noise: of each utterance and seed its own, everywhere and always the same, and other seeds are other speech."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from imfbench.sampling import initial_noise

PINNED = [0.4896279, 1.1114252, 0.4040821], [0.5912659, -0.6306783, -0.7310857]


def test_noise_is_normal_and_another_for_each_seed_and_utterance() -> None:
    drawn = {(id, seed): initial_noise(id, seed, (200, 80)) for id in ("a", "b", "1/a") for seed in (0, 1)}
    for (key, one), (other_key, other) in itertools.combinations(drawn.items(), 2):
        correlation = np.corrcoef(one.flatten(), other.flatten())[0, 1]
        assert abs(correlation) < 0.04, f"{key} and {other_key}: five standard errors of 16,000 values"
    for key, noise in drawn.items():
        assert torch.equal(noise, initial_noise(*key, (200, 80)))
        assert stats.kstest(noise.flatten().numpy(), "norm").pvalue > 1e-4


def test_noise_is_that_of_earlier_versions() -> None:
    """Figures that are published hang on it: SHA-256 of "seed/id", its first seven bytes, torch's generator of a CPU."""
    assert initial_noise("test-a-1", 0, (3,)).tolist() == pytest.approx(PINNED[0], abs=1e-6)
    assert initial_noise("test-a-1", 7, (3,)).tolist() == pytest.approx(PINNED[1], abs=1e-6)


def test_each_noise_seed_is_a_row_of_its_own_with_its_own_speech(tiny: Any) -> None:
    assert tiny.invoke(tiny.config(noise_seeds=[0, 1], references=[], metrics=["f0cv"])).exit_code == 0
    found = {}
    for folder in (tiny.out / "cells").iterdir():
        row = json.loads((folder / "summary.json").read_text())
        found[row["noise_seed"]] = pd.read_parquet(folder / "utterances.parquet").set_index("id")["audio_sha256"]
    assert sorted(found) == [0, 1]
    assert list(found[0].index) == list(found[1].index)
    assert len(found[0]) == 2
    assert (found[0] != found[1]).all()
