"""HiFT, CosyVoice 2's vocoder, on random weights: the original's own audio, and what is said of other files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from imfbench.features import hift
from imfbench.features.hift import KEPT, SEED, HiFT, generator, weights_of
from imfbench.inputs import vocoder_mel
from imfbench.weights import DamagedModelError, MissingModelError

for package in ("matcha", "cosyvoice", "scipy"):
    pytest.importorskip(package, reason="the original CosyVoice 2 is not installed: pip install 'imfbench[cosyvoice]'")

FRAMES = 12


@pytest.fixture(scope="module")
def network() -> Any:
    torch.manual_seed(0)
    return generator().eval()


@pytest.fixture
def folder(network: Any, tmp_path: Path) -> Path:
    torch.save(network.state_dict(), tmp_path / "hift.pt")
    return tmp_path


def mel(frames: int = FRAMES) -> Tensor:
    return -5 + 2 * torch.randn(frames, 80, generator=torch.Generator().manual_seed(1))


def test_the_shape_is_hift_of_cosyvoice2(network: Any) -> None:
    assert sum(p.numel() for p in network.parameters()) == 20_821_295
    assert network.conv_pre.weight.shape == (512, 80, 7)
    assert type(network.m_source).__name__ == "SourceModuleHnNSF2"


def test_the_audio_is_the_originals_from_the_same_random_state_and_the_same_each_time(
    network: Any, folder: Path
) -> None:
    vocoder = HiFT(folder).load()
    torch.manual_seed(SEED)
    expected = network.inference(speech_feat=mel().T[None])[0][0].numpy()
    torch.manual_seed(3)
    state = torch.get_rng_state()
    found = vocoder(mel())
    np.testing.assert_array_equal(found, expected)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(4)
    np.testing.assert_array_equal(vocoder(mel()), found)
    assert found.dtype == np.float32
    assert found.shape == (FRAMES * 480,)
    assert 0 < np.abs(found).max() <= 0.99
    assert vocoder.sample_rate / vocoder_mel_hop() == 50
    assert np.abs(vocoder(mel() + 1) - found).max() > 1e-4


def test_pieces_become_as_much_audio_as_the_whole_and_one_piece_the_same(folder: Path) -> None:
    vocoder = HiFT(folder).load()
    whole = vocoder(mel())
    alone = list(vocoder.stream([mel()]))
    assert [len(piece) for piece in alone] == [480 * (FRAMES - KEPT), 480 * KEPT]
    np.testing.assert_array_equal(np.concatenate(alone), whole)
    pieces = list(vocoder.stream([mel()[:10], mel()[:0], mel()[10:]]))
    assert [len(piece) for piece in pieces] == [480 * 2, 480 * 2, 480 * KEPT]
    assert all(piece.dtype == np.float32 for piece in pieces)
    short = list(vocoder.stream([mel()[:3], mel()[3:6]]))
    assert sum(map(len, short)) == 480 * 6
    assert not list(vocoder.stream([]))


def vocoder_mel_hop() -> int:
    return hift.COSYVOICE2.hop


def test_other_layouts_hold_the_same_vocoder(network: Any, folder: Path, tmp_path: Path) -> None:
    """A checkpoint of its training, Chatterbox's file, and one from before weight norm was a parametrisation."""
    from safetensors.torch import save_file

    state = {name: value.clone() for name, value in network.state_dict().items()}
    new = "parametrizations.weight.original"
    old = {key.replace(f"{new}0", "weight_g").replace(f"{new}1", "weight_v"): value for key, value in state.items()}
    assert set(old) != set(state)
    layouts = {
        "trained.pt": {f"generator.{name}": value for name, value in state.items()},
        "s3gen.safetensors": {f"mel2wav.{name}": value for name, value in state.items()} | {"flow.a": torch.zeros(2)},
        "old.pt": old,
    }
    for name, held in layouts.items():
        save_file(held, tmp_path / name) if name.endswith("safetensors") else torch.save(held, tmp_path / name)
        found = weights_of(tmp_path / name)
        assert set(found) == set(state), name
        assert all(torch.equal(found[key], value) for key, value in state.items())
    np.testing.assert_array_equal(HiFT(tmp_path / "old.pt").load()(mel(4)), HiFT(folder).load()(mel(4)))


def test_missing_and_foreign_files_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        MissingModelError, match=r"hift\.pt, the vocoder hift, does not exist: give the hift\.pt of FunAudioLLM"
    ):
        HiFT(tmp_path).load()
    for name in ("MODEL_DIR", "COSYVOICE2_HIFT"):
        monkeypatch.delenv(f"IMFBENCH_{name}", raising=False)
    monkeypatch.setattr("imfbench.published._hub", lambda model, local: None)
    with pytest.raises(MissingModelError, match="IMFBENCH_COSYVOICE2_HIFT"):
        HiFT()(mel())
    torch.save({"encoder_proj.bias": torch.zeros(80)}, tmp_path / "hift.pt")
    with pytest.raises(DamagedModelError, match=r"another network: it lacks .*"):
        HiFT(tmp_path).load()
    for name, content in (("hift.pt", b"x"), ("hift.safetensors", b"x" * 50)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DamagedModelError, match=name):
            weights_of(tmp_path / name)
    torch.save([1], tmp_path / "hift.pt")
    with pytest.raises(DamagedModelError, match="holds a list"):
        weights_of(tmp_path / "hift.pt")


def test_it_is_registered_for_cosyvoices_mel_alone() -> None:
    found = vocoder_mel("hift")
    assert found is not None
    assert found.name == "cosyvoice2-24k"
