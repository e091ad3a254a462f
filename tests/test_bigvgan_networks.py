"""F5-TTS's networks of BigVGAN's mel: their settings, what they are given, and the vocoders that they may have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from imfbench import model_hub, published
from imfbench.artefact import load_artefact, read_card, save_artefact
from imfbench.building import build_method
from imfbench.config import load
from imfbench.config_file import ConfigError
from imfbench.features.f5_condition import character_condition
from imfbench.features.mel import BIGVGAN, MEL_FORMATS, VOCOS
from imfbench.flow.grids import uniform
from imfbench.inputs import common_inputs, inputs_of, vocoder_mel
from imfbench.pipeline.lacking import models_lacking
from imfbench.registry import BACKBONES, VOCODERS
from imfbench.sampling import synthesize_mel

pytest.importorskip("f5_tts", reason="the extra f5 is not installed")

SHAPE: dict[str, Any] = {
    "dim": 32, "depth": 1, "heads": 2, "dim_head": 16, "text_dim": 16, "conv_layers": 1, "text_num_embeds": 60,
}  # fmt: skip


def inputs(**settings: Any) -> Any:
    cls = BACKBONES.get("f5tts")
    return inputs_of(cls, cls.Config(**SHAPE, **settings))


def test_the_vocoder_is_registered_with_its_mel() -> None:
    assert "bigvgan" in VOCODERS
    assert vocoder_mel("bigvgan") == BIGVGAN == MEL_FORMATS["bigvgan-24k"]


def test_the_settings_choose_the_mel_and_nothing_else_changes() -> None:
    cls = BACKBONES.get("f5tts")
    usual, other = cls.Config(**SHAPE), cls.Config(**SHAPE, mel_format="bigvgan-24k")
    assert "mel_format" not in usual.model_dump(mode="json")  # what is known by its settings keeps its name
    assert other.model_dump(mode="json") == {**usual.model_dump(mode="json"), "mel_format": "bigvgan-24k"}
    assert cls.Config(**other.model_dump()) == other
    assert (inputs().mel, inputs(mel_format="bigvgan-24k").mel) == (VOCOS, BIGVGAN)
    with pytest.raises(ValueError, match="vocos-24k"):
        cls.Config(mel_format="hifigan-22k")
    network, twin = cls(usual), cls(other)
    assert {k: v.shape for k, v in network.state_dict().items()} == {k: v.shape for k, v in twin.state_dict().items()}
    with pytest.raises(ValueError, match="cannot start from the weights"):
        twin.start_from(network)


@pytest.mark.parametrize(
    ("settings", "vocoder", "told"),
    [
        (
            {"mel_format": "bigvgan-24k"},
            "vocos",
            "makes mels of bigvgan-24k .*'vocos' takes vocos-24k .*: auto, bigvgan, griffin-lim",
        ),
        ({}, "bigvgan", "makes mels of vocos-24k .*'bigvgan' takes bigvgan-24k .*: auto, griffin-lim, vocos"),
    ],
)
def test_the_vocoder_of_the_other_mel_is_refused(settings: dict[str, Any], vocoder: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        common_inputs({"'f5tts'": inputs(**settings)}, vocoder)


def test_an_artefact_keeps_its_mel_and_is_sampled_in_it(tmp_path: Path) -> None:
    for package in ("rjieba", "pypinyin"):
        pytest.importorskip(package, reason="the extra f5 is not installed")
    method = build_method("teacher", backbone="f5tts", backbone_config={**SHAPE, "mel_format": "bigvgan-24k"})
    save_artefact(tmp_path, "teacher", method, {"task": "text2mel"})
    assert "vocabulary_sha256" not in read_card(tmp_path)
    network = load_artefact(tmp_path)[0]
    assert inputs_of(network.network).mel == BIGVGAN
    characters = [" ", *map(chr, range(97, 123))]
    prompt = (0.3 * np.sin(np.arange(24_100) / 9)).astype(np.float32)
    condition = character_condition(characters, prompt, 24_000, "yes", "no and yes and no", BIGVGAN)
    frames = 24_100 // 256  # its frames are not centred: as many as whole hops, where Vocos's mel has one more
    assert int(condition.prompt.sum()) == frames
    torch.testing.assert_close(condition.prompt_mel[0, :frames], BIGVGAN.log_mel(torch.from_numpy(prompt)))
    mel, _ = synthesize_mel(network, condition, "x", uniform(1))
    assert len(mel) == condition.valid.shape[1] - frames == int(frames / len("yes.  ") * len("no and yes and no"))


@pytest.mark.parametrize(
    ("there", "told"),
    [
        (False, "vocoder (bigvgan): pip install 'imfbench[bigvgan]' && pip install --no-deps bigvgan==2.4.1"),
        (True, "nvidia/bigvgan_v2_24khz_100band_256x"),
    ],
)
def test_a_missing_package_or_file_is_told_before_anything_runs(
    tiny: Any, monkeypatch: pytest.MonkeyPatch, there: bool, told: str
) -> None:
    monkeypatch.setattr(published, "installed", lambda module: there)
    monkeypatch.setattr(model_hub, "download", lambda *_, **__: None)
    systems = [{"method": "teacher", "name": "own", "network": {"name": "f5tts", "config": dict(SHAPE)}, "nfe": [1]}]
    path = tiny.config(task="text2mel", vocoder="bigvgan", systems=systems, metrics=[])
    with pytest.raises(ConfigError, match=r"'f5tts' of own makes mels of vocos-24k .* 'bigvgan' takes bigvgan-24k"):
        load(str(path))
    config = load(str(path), ("systems.own.network.config.mel_format=bigvgan-24k",))
    found = [line for line in models_lacking(config) if "bigvgan" in line]
    assert len(found) == 1
    assert told.partition(": ")[2] in found[0]
    assert told.partition(": ")[0] in found[0]
    auto = load(str(path), ("systems.own.network.config.mel_format=bigvgan-24k", "vocoder=auto"))
    assert models_lacking(auto) == models_lacking(config), "told as the one that it stands for"
