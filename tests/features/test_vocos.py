"""The vocoder Vocos beside the package's own loading, and its mel beside F5-TTS's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from imfbench import published

if not published.installed("vocos"):  # importing it would ask for encodec, which nothing here needs
    pytest.skip("needs `pip install 'imfbench[f5]'`", allow_module_level=True)

from imfbench.backbones.originals import original
from imfbench.features.mel import VOCOS
from imfbench.features.vocos import CONFIG, MODEL, WEIGHTS, Vocos, build, find
from imfbench.inputs import open_vocoder, vocoder_mel
from imfbench.weights import DamagedModelError, MissingModelError


def settings(dim: int = 16, layers: int = 2) -> dict[str, Any]:
    """The published configuration in a small size."""
    return {
        "feature_extractor": {
            "class_path": "vocos.feature_extractors.MelSpectrogramFeatures",
            "init_args": {"sample_rate": 24000, "n_fft": 1024, "hop_length": 256, "n_mels": 100, "padding": "center"},
        },
        "backbone": {
            "class_path": "vocos.models.VocosBackbone",
            "init_args": {"input_channels": 100, "dim": dim, "intermediate_dim": 3 * dim, "num_layers": layers},
        },
        "head": {
            "class_path": "vocos.heads.ISTFTHead",
            "init_args": {"dim": dim, "n_fft": 1024, "hop_length": 256, "padding": "center"},
        },
    }


def package() -> Any:
    return original("vocos.pretrained", extra="f5", unused={"encodec": {"EncodecModel": None}}).Vocos


def folder(place: Path, said: dict[str, Any] | None = None) -> Path:
    """Configuration and random weights, as they are published."""
    place.mkdir(exist_ok=True)
    (place / CONFIG).write_text(yaml.safe_dump(said or settings()), encoding="utf-8")
    if said is None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            torch.save(package().from_hparams(str(place / CONFIG)).state_dict(), place / WEIGHTS)
    return place


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model on this machine, and no hub."""
    monkeypatch.delenv(MODEL.variable, raising=False)
    monkeypatch.delenv(published.MODEL_DIR, raising=False)
    monkeypatch.setattr(published, "_looked_in", [])
    monkeypatch.setattr(published, "_found", {})
    monkeypatch.setattr(published, "_hub", lambda model, local: None)


def speech(seconds: float = 0.5) -> torch.Tensor:
    time = torch.arange(int(seconds * 24_000)) / 24_000
    tone = 0.3 * torch.sin(2 * torch.pi * (200 + 300 * time) * time)
    return tone + 0.01 * torch.randn(len(time), generator=torch.Generator().manual_seed(0))


def test_the_waveform_is_the_packages_own(tmp_path: Path) -> None:
    place = folder(tmp_path)
    theirs = package().from_hparams(str(place / CONFIG))
    theirs.load_state_dict(torch.load(place / WEIGHTS, weights_only=True))
    mel = VOCOS.log_mel(speech())
    wanted = theirs.eval().decode(mel.T[None])[0].numpy()
    ours = Vocos(place).load()
    state = torch.get_rng_state()
    found = ours(mel)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(found, wanted)
    assert found.dtype == np.float32
    assert found.std() > 1e-3
    assert len(found) == (len(mel) - 1) * 256
    assert np.array_equal(Vocos(place)(mel), wanted), "it loads when it is first asked"


def test_its_mel_is_f5_tts_and_its_own() -> None:
    pytest.importorskip("f5_tts")
    from imfbench.backbones.f5tts import original_module

    audio = speech()
    audio[4000:7000] = 0  # silence, where the floor is
    found = VOCOS.log_mel(audio)
    wanted = original_module("modules").get_vocos_mel_spectrogram(audio[None])[0].T
    assert found.shape == (len(audio) // 256 + 1, 100)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)
    assert found.min() == pytest.approx(np.log(1e-5))
    own = original("vocos.feature_extractors", extra="f5", unused={"encodec": {"EncodecModel": None}})
    trained_with = own.MelSpectrogramFeatures(padding="center")(audio[None])[0].T
    loud = trained_with > np.log(1.1e-5)  # Vocos itself has a lower floor, 1e-7
    assert 0.3 < loud.float().mean() < 1
    torch.testing.assert_close(found[loud], trained_with[loud], atol=1e-4, rtol=0)


def test_it_is_registered_for_its_mel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert vocoder_mel("vocos") == VOCOS
    place = folder(tmp_path / "vocos-mel-24khz")
    monkeypatch.setenv(published.MODEL_DIR, str(tmp_path))
    assert find() == place
    mel = VOCOS.log_mel(speech())
    assert np.array_equal(open_vocoder("vocos", VOCOS)(mel), Vocos(place)(mel))


def test_what_is_missing_is_told_with_what_brings_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingModelError, match=r"lacks pytorch_model.bin.*charactr/vocos-mel-24khz"):
        Vocos(folder(tmp_path, settings())).load()

    def offline(model: object, local: bool) -> None:
        if not local:
            raise ConnectionError("the name leads nowhere")

    monkeypatch.setattr(published, "_hub", offline)
    with pytest.raises(MissingModelError, match=r"vocos-mel-24khz of charactr.*IMFBENCH_VOCOS_MEL_24KHZ.*hub"):
        Vocos().load()
    monkeypatch.setattr(published, "installed", lambda module: False)
    with pytest.raises(MissingModelError, match=r"needs the package vocos.*imfbench\[f5\]"):
        Vocos(tmp_path).load()


@pytest.mark.parametrize(
    ("part", "key", "value", "told"),
    [
        ("feature_extractor", "class_path", "os.system", r"its feature_extractor is os.system, not vocos"),
        (
            "backbone",
            "class_path",
            "vocos.models.VocosResNetBackbone",
            "its backbone is vocos.models.VocosResNetBackbone",
        ),
        ("head", "class_path", "vocos.heads.IMDCTCosHead", "its head is"),
        ("feature_extractor", "n_mels", 80, "n_mels 80, not 100"),
        (
            "feature_extractor",
            "sample_rate",
            22050,
            r"other mels than vocos-24k .24 kHz, 100 bands.* sample_rate 22050",
        ),
        ("backbone", "input_channels", 80, "input_channels 80, not 100"),
        ("head", "hop_length", 300, "hop_length 300, not 256"),
        ("head", "padding", "same", "padding same, not center"),
    ],
)
def test_a_configuration_of_another_vocoder_is_refused(
    tmp_path: Path, part: str, key: str, value: object, told: str
) -> None:
    said = settings()
    (said[part] if key == "class_path" else said[part]["init_args"])[key] = value
    place = folder(folder(tmp_path), said)
    with pytest.raises(DamagedModelError, match=told):
        Vocos(place).load()


def test_files_that_are_no_configuration_or_of_other_weights_are_refused(tmp_path: Path) -> None:
    place = folder(tmp_path)
    state = torch.load(place / WEIGHTS, weights_only=True)
    del state["head.out.bias"]
    torch.save({**state, "head.more": torch.ones(1)}, place / WEIGHTS)
    with pytest.raises(DamagedModelError, match=r"lacks head.out.bias; head.more, which the network has not"):
        Vocos(place).load()
    (place / WEIGHTS).write_bytes(b"no checkpoint")
    with pytest.raises(DamagedModelError, match="no checkpoint of tensors"):
        Vocos(place).load()
    (place / CONFIG).write_text("[unclosed", encoding="utf-8")
    with pytest.raises(DamagedModelError, match="cannot be read as YAML"):
        Vocos(place).load()
    (place / CONFIG).write_text("- a list\n", encoding="utf-8")
    with pytest.raises(DamagedModelError, match="feature_extractor is None"):
        Vocos(place).load()


def test_the_published_shape_has_the_published_size(tmp_path: Path) -> None:
    place = folder(tmp_path, settings(dim=512, layers=8))
    held = sum(value.numel() for value in build(place / CONFIG).state_dict().values())
    assert abs(4 * held - MODEL.size) < 1e6
