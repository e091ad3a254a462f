"""F5-TTS's long texts: pieces and cross-fades beside the original's, and ``imfbench synthesize`` with a small network."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from small_f5 import inference

from imfbench import speak as speak_module
from imfbench.artefact import load_artefact, save_artefact
from imfbench.building import build_method
from imfbench.datasets.demo.corpus import DATA
from imfbench.features.audio import load_audio
from imfbench.features.f5_condition import character_condition
from imfbench.features.f5_pieces import cross_faded, most_bytes, pieces_of
from imfbench.features.griffin_lim import GriffinLim
from imfbench.features.mel import VOCOS
from imfbench.flow.grids import make_grid
from imfbench.sampling import synthesize_mel
from imfbench.speak import Request, SpeakError, speak

pytest.importorskip("f5_tts", reason="the extra f5 is not installed")
pytest.importorskip("rjieba", reason="the extra f5 is not installed")
pytest.importorskip("pypinyin", reason="the extra f5 is not installed")

RATE = 24_000
CHARACTERS = tuple(" !',-.?" + "abcdefghijklmnopqrstuvwxyz" + "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
PROMPT = DATA / "test" / "prompts" / "prompt-af_sarah-000.flac"
PROMPT_TEXT = "The morning air was crisp, and the streets were quiet."
SHAPE = {
    "dim": 32, "depth": 1, "heads": 2, "dim_head": 16, "text_dim": 16, "conv_layers": 1, "text_num_embeds": len(CHARACTERS),
}  # fmt: skip


@pytest.mark.parametrize("most", [-5, 0, 12, 30, 31, 60, 135, 1000])
@pytest.mark.parametrize(
    "text",
    [
        "One. Two, three; four: five! Six? Seven.",
        "No mark at all in this text of some length",
        "Version 1.5 is out.It has no space,here;  and two there.  Ends with spaces.  ",
        "你好世界，今天天气很好。我们去公园吧！好吗？Yes, let us go. 走吧",
        "Short. " * 30,
        "",
    ],
)
def test_pieces_are_the_originals(text: str, most: int) -> None:
    found = pieces_of(text, most)
    assert found == inference().chunk_text(text, most)
    assert "".join("".join(found).split()) == "".join(text.split())


def test_a_blank_text_has_no_pieces() -> None:
    assert pieces_of("  \n ", 100) == []


def original(prompt: str, audio: np.ndarray, text: str, speed: float = 1.0) -> tuple[list[str], np.ndarray]:
    """The pieces for which the original's whole inference asks its network, and what it makes of a vocoder's known signals."""
    asked: list[str] = []
    module = inference()

    class Network:
        def sample(self, text: list[list[str]], duration: int, **_: Any) -> tuple[torch.Tensor, None]:
            asked.append("".join(text[0]))
            return torch.full((1, duration, 100), float(len(text[0]))), None

    loaded = SimpleNamespace(load=lambda _: (torch.from_numpy(audio)[None], RATE))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "torchaudio", loaded)
        made, rate, _ = module.infer_process(
            "prompt.wav", prompt, text, Network(), SimpleNamespace(decode=signal), show_info=lambda _: None, progress=None,
            speed=speed, device="cpu",
        )  # fmt: skip
    assert rate == RATE
    return sorted(asked), made


def signal(mel: torch.Tensor) -> torch.Tensor:
    """A waveform that tells of its mel, (1, bands, frames): another one for each piece."""
    at = torch.arange(mel.shape[-1] * 256) / RATE
    return torch.sin(2 * torch.pi * 50 * mel[0, 0, 0] * at)[None]


@pytest.mark.parametrize("speed", [1.0, 1.4])
def test_a_long_text_is_the_originals_recording(speed: float) -> None:
    """Which pieces, in which order, how long, and the cross-fade: all of it at once, to the sample."""
    prompt = (0.2 * np.sin(np.arange(3 * RATE) / 7)).astype(np.float32)
    said, text = "It is so.", " ".join(f"Then we say {'more ' * (k % 7)}of it." for k in range(40))
    asked, wanted = original("It is so. ", prompt, text, speed)
    pieces = pieces_of(text, most_bytes(said, 3.0, speed))
    assert len(pieces) > 3
    assert len(set(map(len, pieces))) > 3  # signals are told apart by it
    assert asked == sorted(f"It is so.  {piece}" for piece in pieces)
    waves = []
    for piece in pieces:
        condition = character_condition(CHARACTERS, prompt, RATE, said, piece, VOCOS, speed)
        frames = condition.valid.shape[1] - len(prompt) // 256
        waves.append(signal(torch.full((1, 100, frames), float(len(f"It is so.  {piece}"))))[0].numpy())
    found = cross_faded(waves, RATE)
    assert len(found) == sum(map(len, waves)) - (len(waves) - 1) * 3600
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_the_cross_fade_is_linear_and_no_longer_than_its_pieces() -> None:
    ones, twos = np.ones(10, np.float32), np.full(8, 2, np.float32)
    found = cross_faded([ones, twos], 10, 0.5)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [1] * 5 + [1, 1.25, 1.5, 1.75, 2] + [2] * 3)
    np.testing.assert_allclose(cross_faded([ones, twos[:2], ones], 10, 0.5)[7:10], [1, 1, 1.5], atol=0.51)
    assert len(cross_faded([ones, twos[:2], ones], 10, 0.5)) == 10 + 2 + 10 - 2 - 5
    np.testing.assert_array_equal(cross_faded([ones], 10), ones)
    np.testing.assert_array_equal(cross_faded([ones, twos], 10, 0.0), [1] * 10 + [2] * 8)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher that says noise, on characters; trained on a dataset that has no way from a text to its phones."""
    folder = tmp_path_factory.mktemp("f5") / "small"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        method = build_method("teacher", {"guidance": 2.0}, backbone="f5tts", backbone_config=SHAPE)
        for weight in method.network.parameters():  # one that was never trained has a velocity of 0
            weight.data += 0.05 * torch.randn(weight.shape)
    save_artefact(folder, "teacher", method, {"task": "text2mel", "train_data": {"name": "manifest"}})
    (folder / "vocab.txt").write_text("\n".join(CHARACTERS) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def quick_vocoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speak_module, "open_vocoder", lambda *_: GriffinLim(2, mel=VOCOS))


def request(network: Path, text: str, **changes: Any) -> Request:
    return Request(
        **{"text": text, "prompt": PROMPT, "prompt_text": PROMPT_TEXT, "methods": [str(network)], "nfe": [1], **changes}
    )


def test_a_text_beyond_the_networks_length_is_said_in_pieces(network: Path, tmp_path: Path) -> None:
    text = "We walked down to the sea, and there we stayed. " * 14
    audio, rate = load_audio(PROMPT)
    pieces = pieces_of(text, most_bytes(PROMPT_TEXT, len(audio) / rate))
    assert len(pieces) > 1
    method = load_artefact(network)[0]
    whole = character_condition(CHARACTERS, audio, rate, PROMPT_TEXT, text, VOCOS)
    assert whole.valid.shape[1] > method.network.longest
    frame = speak(request(network, text), tmp_path / "said.wav", "cpu", "fp32", scored=False)
    assert frame["pieces"].tolist() == [len(pieces)]
    assert frame["network_calls"].tolist() == [2 * len(pieces)]
    waves = []
    for i, piece in enumerate(pieces):
        condition = character_condition(CHARACTERS, audio, rate, PROMPT_TEXT, piece, VOCOS)
        mel, _ = synthesize_mel(method, condition, f"own-{i}" if i else "own", make_grid("sway", 1))
        waves.append(GriffinLim(2, mel=VOCOS)(mel))
        if condition.gain is not None:
            waves[-1] = waves[-1] * condition.gain.numpy()
    found, _ = soundfile.read(tmp_path / "said.wav", dtype="float32")
    assert len(found) == sum(map(len, waves)) - (len(waves) - 1) * 3600
    np.testing.assert_allclose(found, np.clip(cross_faded(waves, RATE), -1, 1), atol=1e-4)
    short = speak(request(network, pieces[0]), tmp_path / "short.wav", "cpu", "fp32", scored=False)
    assert "pieces" not in short
    begins, _ = soundfile.read(tmp_path / "short.wav", dtype="float32")
    np.testing.assert_array_equal(begins[:-3600], found[: len(begins) - 3600])


@pytest.mark.parametrize(
    ("text", "changes", "told"),
    [
        (" \n", {}, "the text is empty: there is nothing to say"),
        (
            "Yes. " + "we walked down to the sea and there we stayed " * 20,
            {},
            r"the text cannot be said: piece 2 of 2, cut at marks .*the network takes 4096 .*cut the prompt to|split the text",
        ),
        ("Yes.", {"prompt_text": " "}, "cannot be used: F5-TTS needs the text of its prompt"),
    ],
)
def test_texts_and_prompts_that_cannot_be_said(
    network: Path, tmp_path: Path, text: str, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(SpeakError, match=told):
        speak(request(network, text, **changes), tmp_path / "said", "cpu", scored=False)
    assert not list((tmp_path / "said").glob("*"))


def test_a_silent_or_short_prompt_is_told(network: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE), RATE)
    with pytest.raises(SpeakError, match=r"silent.wav cannot be used: .*silent"):
        speak(request(network, "Yes.", prompt=tmp_path / "silent.wav"), tmp_path / "said", "cpu", scored=False)
    soundfile.write(tmp_path / "short.wav", 0.1 * np.ones(300), RATE)
    with pytest.raises(SpeakError, match=r"short.wav cannot be used: audio of 12.5 ms is too short"):
        speak(request(network, "Yes.", prompt=tmp_path / "short.wav"), tmp_path / "said", "cpu", scored=False)
