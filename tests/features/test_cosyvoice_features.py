"""What CosyVoice 2 hears: mel, S3 tokens and CAM++ against the originals' code, and what is said of missing and foreign files."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchaudio
from small_cosyvoice_files import exported, network_file, tokenizer_state

from imfbench.backbones.originals import original
from imfbench.datasets.demo.corpus import DATA
from imfbench.features.audio import load_audio
from imfbench.features.mel import COSYVOICE2
from imfbench.features.s3_tokens import (
    SAMPLE_RATE,
    CamPlus,
    S3Tokenizer,
    TokenRateError,
    check_token_rate,
    cosyvoice_mel,
    fbank,
)
from imfbench.weights import DamagedModelError, MissingModelError

RECORDING = DATA / "test" / "prompts" / "prompt-af_sarah-000.flac"


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return load_audio(RECORDING, SAMPLE_RATE)[0]


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No folder of models, and no hub."""
    for name in ("MODEL_DIR", "COSYVOICE2_TOKENIZER", "COSYVOICE2_CAMPPLUS", "COSYVOICE2_HIFT"):
        monkeypatch.delenv(f"IMFBENCH_{name}", raising=False)
    monkeypatch.setattr("imfbench.published._hub", lambda model, local: None)


# ---- mel ----


@pytest.mark.parametrize("filters", ["librosa's", "ours"])
def test_the_mel_is_matchas(filters: str) -> None:
    """With librosa's filters where it is installed; with ours under Matcha's transform everywhere."""
    if filters == "librosa's":
        pytest.importorskip("librosa")
    if importlib.util.find_spec("matcha") is None:
        pytest.skip("Matcha-TTS is not installed: pip install 'imfbench[cosyvoice]'")
    audio = original(
        "matcha.utils.audio", extra="cosyvoice", without=["matcha.utils"], unused={"librosa.filters": {"mel": None}}
    )
    audio.mel_basis.clear()
    if filters == "ours":
        audio.librosa_mel_fn = lambda **_: COSYVOICE2.filters.numpy()
    wave = torch.from_numpy(load_audio(RECORDING, 24_000)[0][:48_000])
    expected = audio.mel_spectrogram(wave[None], 1920, 80, 24_000, 480, 1920, 0, 8000, center=False)[0].T
    audio.mel_basis.clear()
    found = cosyvoice_mel(wave)
    assert found.shape == expected.shape == (100, 80)
    assert expected.std() > 1
    torch.testing.assert_close(found, expected, atol=2e-4 if filters == "librosa's" else 1e-6, rtol=0)


def test_two_frames_a_token_or_an_error_with_both_numbers() -> None:
    for frames in (98, 99, 100, 101, 102):
        check_token_rate(frames, 50)
    for frames, tokens in ((97, 50), (103, 50), (50, 50), (172, 50)):
        with pytest.raises(TokenRateError, match=f"mine has {frames} mel frames and {tokens} tokens, .* on 100 frames"):
            check_token_rate(frames, tokens, "mine")


# ---- S3 tokens ----


@pytest.mark.parametrize("layers", [1, 2])
def test_tokens_are_the_packages_25_a_second(layers: int, tmp_path: Path, speech: np.ndarray) -> None:
    network, state = tokenizer_state(layers)
    torch.save(state, tmp_path / "tokenizer.pt")
    found = S3Tokenizer(tmp_path / "tokenizer.pt").load()(speech)
    mel = __import__("s3tokenizer").log_mel_spectrogram(torch.from_numpy(speech), n_mels=80)
    expected, lengths = network.quantize(mel[None], torch.tensor([mel.shape[1]]))
    assert found.dtype == torch.int64
    assert found.tolist() == expected[0, : lengths[0]].tolist()
    assert len(set(found.tolist())) > 5
    assert int(found.max()) < 3**8
    check_token_rate(len(cosyvoice_mel(torch.from_numpy(load_audio(RECORDING, 24_000)[0]))), len(found))


def test_the_published_form_is_read_from_its_folder(tmp_path: Path, speech: np.ndarray) -> None:
    _, state = tokenizer_state(2)
    torch.save(state, tmp_path / "tokenizer.pt")
    exported(state, tmp_path / "speech_tokenizer_v2.onnx")
    found = S3Tokenizer(tmp_path)(speech[:SAMPLE_RATE])
    assert len(found) == 25
    assert torch.equal(found, S3Tokenizer(tmp_path / "tokenizer.pt")(speech[:SAMPLE_RATE]))


def test_more_than_the_tokenizer_hears_is_refused(tmp_path: Path) -> None:
    _, state = tokenizer_state()
    torch.save(state, tmp_path / "tokenizer.pt")
    with pytest.raises(ValueError, match=r"30\.1 s, but the S3 tokenizer hears 30 s"):
        S3Tokenizer(tmp_path / "tokenizer.pt")(np.zeros(int(30.1 * SAMPLE_RATE), np.float32))


def test_other_tokenizers_are_refused(tmp_path: Path) -> None:
    _, state = tokenizer_state()
    torch.save({"encoder.conv1.weight": torch.zeros(64)}, tmp_path / "other.pt")
    with pytest.raises(DamagedModelError, match="no S3 tokenizer of version 2"):
        S3Tokenizer(tmp_path / "other.pt").load()
    del state["quantizer._codebook.project_down.bias"]
    torch.save(state | {"quantizer._codebook.embed": torch.zeros(4096, 64)}, tmp_path / "first.pt")
    with pytest.raises(DamagedModelError, match=r"project_down\.bias.*_codebook\.embed"):
        S3Tokenizer(tmp_path / "first.pt").load()
    (tmp_path / "broken.onnx").write_bytes(b"\xff" * 50)
    with pytest.raises(DamagedModelError, match=r"broken\.onnx is not the speech_tokenizer_v2\.onnx"):
        S3Tokenizer(tmp_path / "broken.onnx").load()


# ---- CAM++ ----


def test_the_speakers_vector_is_made_as_cosyvoices_front_end_makes_it(tmp_path: Path, speech: np.ndarray) -> None:
    matrix = network_file(tmp_path / "campplus.onnx")
    bands = torchaudio.compliance.kaldi.fbank(
        torch.from_numpy(speech)[None], num_mel_bins=80, dither=0, sample_frequency=16000
    )
    expected = ((bands - bands.mean(0)) ** 2).mean(0).numpy() @ matrix
    for place in (tmp_path, tmp_path / "campplus.onnx"):
        found = CamPlus(place).load()(speech)
        assert found.shape == (192,)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-3, atol=1e-3)


def test_the_level_of_a_recording_is_no_part_of_its_features() -> None:
    noise = np.random.default_rng(0).standard_normal(SAMPLE_RATE).astype(np.float32) * 0.3
    loud = fbank(noise)
    assert loud.shape == (98, 80)
    assert loud.std() > 0.3
    assert float((fbank(0.5 * noise) - loud).abs().max()) < 1e-3
    with pytest.raises(ValueError, match=r"6\.2 ms has no voice"):
        fbank(noise[:100])


def test_other_networks_than_campplus_are_refused(tmp_path: Path) -> None:
    network_file(tmp_path / "a.onnx", bands=64)
    network_file(tmp_path / "b.onnx", dims=256)
    (tmp_path / "c.onnx").write_bytes(b"x" * 50)
    for name, words in (("a", "'T', 64]"), ("b", "256]"), ("c", "no ONNX model")):
        with pytest.raises(DamagedModelError) as caught:
            CamPlus(tmp_path / f"{name}.onnx").load()
        assert words in str(caught.value)
        assert "campplus.onnx of CosyVoice2-0.5B" in str(caught.value)


# ---- missing files ----


@pytest.mark.parametrize(("kind", "file"), [(S3Tokenizer, "speech_tokenizer_v2.onnx"), (CamPlus, "campplus.onnx")])
def test_missing_files_are_told_with_all_places_they_may_have(
    kind: Any, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (tmp_path, tmp_path / file):
        with pytest.raises(
            MissingModelError, match=f"{file}, .*, does not exist: give the {file} of FunAudioLLM/CosyVoice2"
        ):
            kind(path).load()
    with pytest.raises(MissingModelError, match=f"CosyVoice2-0.5B/{file} .* IMFBENCH_MODEL_DIR"):
        kind().load()
    (tmp_path / "CosyVoice2-0.5B").mkdir()
    (tmp_path / "CosyVoice2-0.5B" / file).write_bytes(b"another one")
    monkeypatch.setenv("IMFBENCH_MODEL_DIR", str(tmp_path))
    with pytest.raises(DamagedModelError, match=r"is not the published speech_tokenizer|no ONNX model"):
        kind().load()
