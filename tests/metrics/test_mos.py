from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from imfbench import weights
from imfbench.features.audio import resample
from imfbench.features.griffin_lim import GriffinLim
from imfbench.features.mel import SAMPLE_RATE, log_mel
from imfbench.metrics import ScoreError, ScoreItem
from imfbench.metrics.mos import UTMOS, DistillMOS

Items = Callable[[int], list[ScoreItem]]


@pytest.fixture(scope="module")
def mos() -> Iterator[DistillMOS]:
    metric = DistillMOS()
    with metric.loaded():
        yield metric


def test_clean_scores_above_griffin_lim_above_noise(mos: DistillMOS, demo_test_items: Items) -> None:
    vocoder = GriffinLim().load()
    clean, rebuilt, noise = [], [], []
    for item in demo_test_items(4):
        mel = log_mel(torch.from_numpy(resample(item.audio, item.sample_rate, SAMPLE_RATE)))
        hiss = np.random.default_rng(0).normal(0, 0.1, len(item.audio)).astype(np.float32)
        clean.append(mos.score(item)["mos_distillmos"])
        rebuilt.append(mos.score(replace(item, audio=vocoder(mel), sample_rate=SAMPLE_RATE))["mos_distillmos"])
        noise.append(mos.score(replace(item, audio=hiss))["mos_distillmos"])
        assert clean[-1] > rebuilt[-1] > noise[-1]
    assert np.mean(clean) > 4
    assert np.mean(clean) - np.mean(rebuilt) > 0.2
    assert np.mean(rebuilt) - np.mean(noise) > 1
    assert all(1 <= score <= 5 for score in clean + rebuilt + noise)


def test_level_and_sampling_rate_hardly_matter(mos: DistillMOS, demo_test_items: Items) -> None:
    item = demo_test_items(1)[0]
    score = mos.score(item)["mos_distillmos"]
    assert mos.score(replace(item, audio=item.audio * np.float32(0.2)))["mos_distillmos"] == pytest.approx(
        score, abs=0.02
    )
    other = replace(item, audio=resample(item.audio, item.sample_rate, 22050), sample_rate=22050)
    assert mos.score(other)["mos_distillmos"] == pytest.approx(score, abs=0.05)


@pytest.mark.parametrize(
    ("audio", "reason"), [(np.zeros(100), "0.01 s"), (np.full(9000, np.nan), "not finite"), (np.zeros(0), "empty")]
)
def test_what_cannot_be_judged_is_a_failed_row_with_its_reason(mos: DistillMOS, audio: np.ndarray, reason: str) -> None:
    with pytest.raises(ScoreError, match=reason):
        mos.score(ScoreItem("x", audio.astype(np.float32), 16000, ""))


def test_the_predictor_stands_in_column_and_signature() -> None:
    assert DistillMOS.columns == ("mos_distillmos",)
    assert UTMOS.columns == ("mos_utmos",)
    assert DistillMOS().signature == "mos-v1|predictor:distillmos@b18b3ac6|pad:7.68s|resample:soxr-hq"


def test_distillmos_without_its_package_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xls_r_sqa", None)
    with pytest.raises(
        weights.MissingModelError, match=r"requirements-models\.txt.*distillmos==0\.9\.1 xls-r-sqa==0\.1\.0"
    ):
        DistillMOS().load()


def test_utmos_without_its_package_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "utmos_pytorch", None)
    with pytest.raises(weights.MissingModelError, match=r"pip install imfbench\[utmos\]"):
        UTMOS().load()


def test_utmos_weights_that_do_not_exist_are_named(tmp_path: Path) -> None:
    with pytest.raises(weights.MissingModelError, match=r"does not exist: .*none\.pt"):
        _ = UTMOS(UTMOS.Config(path=tmp_path / "none.pt")).signature


@pytest.fixture
def small_utmos(monkeypatch: pytest.MonkeyPatch) -> type[torch.nn.Module]:
    """A package in the place of utmos-pytorch, which like it leaves tensors random that a file lacks; 200 tensors."""

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.ModuleList(torch.nn.Linear(2, 2) for _ in range(100))

    class Score(Network):
        def __init__(self, file: str, device: str) -> None:
            super().__init__()
            self.load_state_dict(torch.load(file, weights_only=True), strict=False)

        def forward(self, audio: torch.Tensor) -> torch.Tensor:
            return 3 + torch.stack([layer.weight.sum() for layer in self.layers]).mean() + 0 * audio.mean()

    for name, given in (
        ("utmos_pytorch", {"UTMOSScoreTorch": Score}),
        ("utmos_pytorch.utmos_torch", {"UTMOSModel": Network}),
    ):
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        module.__dict__.update(given)
        monkeypatch.setitem(sys.modules, name, module)
    return Network


def test_utmos_weights_that_lack_a_single_tensor_are_refused(
    small_utmos: type[torch.nn.Module], tmp_path: Path
) -> None:
    whole = small_utmos().state_dict()
    torch.save(whole, tmp_path / "whole.pt")
    UTMOS(UTMOS.Config(path=tmp_path / "whole.pt")).load()
    del whole["layers.42.weight"]
    torch.save(whole, tmp_path / "lacking.pt")
    with pytest.raises(weights.DamagedModelError, match=r"lacks 1 of 200 tensors, such as 'layers\.42\.weight'"):
        UTMOS(UTMOS.Config(path=tmp_path / "lacking.pt")).load()


def test_a_known_utmos_score_is_found_without_decoding() -> None:
    assert UTMOS.reads == ("audio",)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("utmos_pytorch") is None, reason="needs `pip install imfbench[utmos]`")
def test_utmos_loads_a_file_of_weights_and_refuses_any_other(tmp_path: Path) -> None:
    # Its trained weights are in no package: random ones show that the file is really what is loaded, and no more.
    from utmos_pytorch.utmos_torch import UTMOSModel

    item = ScoreItem("x", np.random.default_rng(0).normal(0, 0.1, 24000).astype(np.float32), 24000, "")
    scores = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        file = tmp_path / f"utmos{seed}.pt"
        torch.save(UTMOSModel().state_dict(), file)
        metric = UTMOS(UTMOS.Config(path=file))
        assert f"predictor:utmos22-strong@{weights.sha256(file)[:8]}" in metric.signature
        with metric.loaded():
            scores.append(metric.score(item)["mos_utmos"])
            assert metric.score(item)["mos_utmos"] == scores[-1]
    assert scores[0] != scores[1]
    torch.save({"model": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(weights.DamagedModelError, match="no file of UTMOS weights"):
        UTMOS(UTMOS.Config(path=tmp_path / "other.pt")).load()
