"""The vocoder BigVGAN beside the package's own loading, and its mel beside F5-TTS's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from imfbench import published
from imfbench.features.bigvgan import CONFIG, WEIGHTS, BigVGAN, build
from imfbench.features.mel import BIGVGAN
from imfbench.inputs import open_vocoder
from imfbench.weights import DamagedModelError, MissingModelError

if not published.installed("bigvgan"):  # importing it would ask for librosa, which nothing here needs
    pytest.skip("needs `pip install --no-deps bigvgan==2.4.1`", allow_module_level=True)

TRUE: dict[str, Any] = {
    "upsample_initial_channel": 1536, "resblock_kernel_sizes": [3, 7, 11], "resblock_dilation_sizes": [[1, 3, 5]] * 3,
}  # fmt: skip
"""What ``settings`` has smaller than nvidia/bigvgan_v2_24khz_100band_256x."""


def settings(**changes: Any) -> dict[str, Any]:
    """The published configuration with fewer channels."""
    return {
        "resblock": "1", "upsample_rates": [4, 4, 2, 2, 2, 2], "upsample_kernel_sizes": [8, 8, 4, 4, 4, 4],
        "upsample_initial_channel": 64, "resblock_kernel_sizes": [3, 7], "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5]],
        "use_tanh_at_final": False, "use_bias_at_final": False, "activation": "snakebeta", "snake_logscale": True,
        "num_mels": 100, "n_fft": 1024, "hop_size": 256, "win_size": 1024, "sampling_rate": 24000, "fmin": 0, "fmax": None,
        **changes,
    }  # fmt: skip


def folder(place: Path, **changes: Any) -> Path:
    """Configuration and random weights, as they are published."""
    (place / CONFIG).write_text(json.dumps(settings(**changes)), encoding="utf-8")
    if not changes or changes == TRUE:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = build(place / CONFIG)
        torch.save({"generator": network.state_dict()}, place / WEIGHTS)
    return place


def speech() -> torch.Tensor:
    time = torch.arange(6000) / 24_000
    tone = 0.3 * torch.sin(2 * torch.pi * (200 + 300 * time) * time)
    return tone + 0.01 * torch.randn(len(time), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("changes", [{}, pytest.param(TRUE, marks=pytest.mark.slow)], ids=["small", "true size"])
def test_the_waveform_is_the_packages_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    place = folder(tmp_path, **changes)
    theirs = build(place / CONFIG)
    theirs.load_state_dict(torch.load(place / WEIGHTS, weights_only=True)["generator"])
    theirs.remove_weight_norm()
    parameters = sum(p.numel() for p in theirs.parameters())
    assert (parameters > 100e6) == bool(changes), parameters
    mel = BIGVGAN.log_mel(speech())
    with torch.no_grad():
        wanted = theirs.eval()(mel.T[None])[0, 0].numpy()
    monkeypatch.setenv("IMFBENCH_BIGVGAN_V2_24KHZ_100BAND_256X", str(place))
    found = open_vocoder("bigvgan", BIGVGAN)(mel)
    assert np.array_equal(found, wanted)
    assert found.dtype == np.float32
    assert len(found) == len(mel) * 256
    assert found.std() > 1e-4


def test_its_mel_is_the_one_that_f5_tts_makes_for_it() -> None:
    """Upstream's filters are librosa's; torchaudio's Slaney filters stand for them where librosa is not installed."""
    pytest.importorskip("f5_tts")
    from imfbench.backbones.f5tts import original_module

    module, audio = original_module("modules"), speech()
    key = "1024_100_24000_256_1024_0_None_cpu"
    if not published.installed("librosa"):
        module.mel_basis_cache[key], module.hann_window_cache[key] = BIGVGAN.filters, torch.hann_window(1024)
    wanted = module.get_bigvgan_mel_spectrogram(audio[None])[0].T
    found = BIGVGAN.log_mel(audio)
    assert found.shape == wanted.shape
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"num_mels": 80}, "num_mels 80, not 100"),
        ({"fmax": 8000}, "fmax 8000, not 12000"),
        ({"sampling_rate": 22050, "hop_size": 200}, "sampling_rate 22050, not 24000, hop_size 200, not 256"),
        ({"activation": "relu"}, "describes no BigVGAN"),
    ],
)
def test_a_configuration_of_another_vocoder_is_refused(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    place = folder(folder(tmp_path), **changes)
    with pytest.raises(DamagedModelError, match=told):
        BigVGAN(place).load()


def test_what_is_missing_or_damaged_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingModelError, match=r"lacks config.json and bigvgan_generator.pt.*nvidia/bigvgan_v2_24khz"):
        BigVGAN(tmp_path).load()
    place = folder(tmp_path)
    torch.save({"discriminator": {}}, place / WEIGHTS)
    with pytest.raises(DamagedModelError, match="it holds no 'generator'"):
        BigVGAN(place).load()
    (place / CONFIG).write_text("[1", encoding="utf-8")
    with pytest.raises(DamagedModelError, match="no configuration in JSON"):
        BigVGAN(place).load()
    (place / CONFIG).write_text("[]", encoding="utf-8")
    with pytest.raises(DamagedModelError, match="no configuration in JSON"):
        BigVGAN(place).load()
    monkeypatch.setattr(published, "installed", lambda module: False)
    with pytest.raises(MissingModelError, match=r"needs the package bigvgan: .*pip install --no-deps bigvgan==2.4.1"):
        BigVGAN(place).load()
