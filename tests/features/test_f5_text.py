"""F5-TTS's text, duration and loudness rules beside the original's own functions."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("f5_tts", reason="needs `pip install 'imfbench[f5]'`")

from small_f5 import inference

from imfbench.backbones.f5tts import original_module
from imfbench.features import f5_text

RATE, HOP = 24_000, 256
VOCABULARY = " \n!\n\"\n'\n,\n.\na\nb\nc\ne\nh\nl\no\nni2\nhao3\n\u2028\n，\n"


def vocabulary_file(folder: Path, text: str = VOCABULARY) -> Path:
    path = folder / "vocab.txt"
    path.write_bytes(text.encode())
    return path


def test_a_vocabulary_is_read_as_the_original_reads_it(tmp_path: Path) -> None:
    path = vocabulary_file(tmp_path)
    wanted, size = original_module("utils").get_tokenizer(str(path), "custom")
    found = f5_text.read_vocabulary(path)
    assert found == wanted
    assert len(found) == size == 17
    assert found[" "] == 0
    assert f5_text.read_vocabulary(vocabulary_file(tmp_path, VOCABULARY.replace("\n", "\r\n"))) == wanted
    # Without a newline behind its last line the original loses that line's last character.
    assert f5_text.read_vocabulary(vocabulary_file(tmp_path, VOCABULARY[:-1])) == wanted


def test_the_packages_own_vocabulary_has_the_size_of_the_released_checkpoints() -> None:
    path = Path(original_module("utils").__file__).parents[1] / "infer" / "examples" / "vocab.txt"
    found = f5_text.read_vocabulary(path)
    assert found == original_module("utils").get_tokenizer(str(path), "custom")[0]
    assert len(found) == 2545


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("\na\nb\n", "the first line of .*vocab.txt is '', not a space"),
        ("", "the first line of .*vocab.txt is 'missing'"),
        (" \na\nb\na\n", "'a' on line 2 and again on line 4"),
    ],
)
def test_a_damaged_vocabulary_is_told(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(f5_text.VocabularyError, match=told):
        f5_text.read_vocabulary(vocabulary_file(tmp_path, text))


def test_a_vocabulary_that_is_no_text_or_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(f5_text.VocabularyError, match=r"nothing.txt cannot be read \(No such file"):
        f5_text.read_vocabulary(tmp_path / "nothing.txt")
    (tmp_path / "vocab.txt").write_bytes(b" \n\xff\xfe\n")
    with pytest.raises(f5_text.VocabularyError, match="not text in UTF-8"):
        f5_text.read_vocabulary(tmp_path / "vocab.txt")


def test_characters_and_their_numbers_are_the_originals(tmp_path: Path) -> None:
    pytest.importorskip("rjieba")
    pytest.importorskip("pypinyin")
    utils = original_module("utils")
    vocabulary = f5_text.read_vocabulary(vocabulary_file(tmp_path))
    texts = ["Hello; “all”.", "你好，hello!", "ab你好c", ""]
    wanted = utils.convert_char_to_pinyin(texts)
    found = f5_text.characters(texts)
    assert found == wanted
    assert found[1][:4] == [" ", "ni2", " ", "hao3"], "Chinese becomes syllables, with their tones in that place"
    numbers = f5_text.numbers(found, vocabulary)
    assert torch.equal(numbers, utils.list_str_to_idx(wanted, vocabulary))
    assert numbers[1, 1] == vocabulary["ni2"]
    assert numbers[0, 0] == 0, "H is unknown here"
    assert (numbers[3] == -1).all()
    assert f5_text.unknown(found, vocabulary) == ["H"]


def test_tokens_stand_as_long_as_the_mel() -> None:
    text = torch.tensor([[4, 0, 9], [7, -1, -1]])
    assert f5_text.tokens(text, 5).tolist() == [[5, 1, 10, 0, 0], [8, 0, 0, 0, 0]]
    assert f5_text.tokens(text, 2).tolist() == [[5, 1], [8, 0]]


class Listener:
    """In place of the original's network: keeps what ``infer_batch_process`` asks it for."""

    def sample(self, **asked: Any) -> tuple[torch.Tensor, None]:
        self.asked = asked
        return torch.zeros(1, asked["duration"], 100), None


def upstream(prompt: str, text: str, audio: np.ndarray, speed: float = 1.0) -> tuple[dict[str, Any], np.ndarray]:
    """What the original asks its network for, and the audio that it returns of a vocoder that answers 0.5 everywhere."""
    listener = Listener()
    vocoder = SimpleNamespace(decode=lambda mel: torch.full((1, mel.shape[-1] * HOP), 0.5))
    found = next(
        inference().infer_batch_process(
            (torch.from_numpy(audio)[None], RATE),
            prompt,
            [text],
            listener,
            vocoder,
            progress=None,
            speed=speed,
            device="cpu",
        )
    )
    return listener.asked, found[0]


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return (0.03 * np.random.default_rng(0).standard_normal(RATE + 100)).astype(np.float32)


@pytest.mark.parametrize(
    ("prompt", "text", "speed"),
    [
        ("A prompt's words.", "Some more of them, to be spoken.", 1.0),
        ("A prompt's words. ", "And at another speed.", 1.3),
        ("A prompt", "Hi there.", 1.0),  # 9 bytes: slowly
        ("A prompt", "Hi, there.", 1.0),  # 10 bytes: not
        ("他说。", "你好世界，今天。", 1.0),
        ("他说", "你好", 0.8),  # 6 bytes
    ],
)
def test_duration_and_text_are_what_the_original_asks_its_network_for(
    noise: np.ndarray, prompt: str, text: str, speed: float
) -> None:
    pytest.importorskip("rjieba")
    pytest.importorskip("pypinyin")
    asked, _ = upstream(preprocessed(prompt), text, noise, speed)
    frames = len(noise) // HOP
    whole = f5_text.ended(prompt)
    assert frames + f5_text.frames_to_generate(frames, whole, text, speed) == asked["duration"]
    assert f5_text.characters([whole + text]) == asked["text"]


def preprocessed(prompt: str) -> str:
    """By the original's ``preprocess_ref_audio_text``, of whose audio nothing is read: it is as if it had been seen before."""
    module, path = inference(), Path(__file__)
    module._ref_audio_cache[module.hashlib.md5(path.read_bytes()).hexdigest()] = "seen"
    found: str = module.preprocess_ref_audio_text(str(path), prompt, show_info=lambda _: None)[1]
    return found


@pytest.mark.parametrize("prompt", ["Yes", "Yes.", "Yes. ", "Yes?", "是", "是。", "是。 ", "是."])
def test_the_prompts_ending_is_the_originals(noise: np.ndarray, prompt: str) -> None:
    pytest.importorskip("rjieba")
    pytest.importorskip("pypinyin")
    asked, _ = upstream(preprocessed(prompt), "X.", noise)
    assert f5_text.characters([f5_text.ended(prompt) + "X."]) == asked["text"]
    assert f5_text.ended("Yes.") == "Yes.  "
    assert f5_text.spaced("Yes.") == "Yes. "
    assert f5_text.spaced("是。") == "是。"


@pytest.mark.parametrize("loudness", [0.3, 1.0, 5.0])
def test_quiet_prompts_are_scaled_up_and_their_output_back_down(noise: np.ndarray, loudness: float) -> None:
    audio = loudness * noise  # RMS .009, .03, .15
    asked, output = upstream("Prompt. ", "Text.", audio)
    heard, rms = f5_text.scaled_up(audio)
    assert np.array_equal(heard, asked["cond"][0].numpy())
    assert rms == pytest.approx(float(np.sqrt(np.mean(audio.astype(np.float64) ** 2))), rel=1e-5)
    assert np.allclose(0.5 * f5_text.gain_back(rms), output, atol=1e-7)
    assert (abs(float(np.sqrt(np.mean(heard**2))) - 0.1) < 1e-4) == (loudness < 3)


def test_prompts_without_text_sound_or_speed_are_told() -> None:
    with pytest.raises(f5_text.PromptError, match="needs the text of its prompt"):
        f5_text.ended("  ")
    with pytest.raises(f5_text.PromptError, match="silent"):
        f5_text.scaled_up(np.zeros(100, np.float32))
    with pytest.raises(f5_text.PromptError, match="must be above 0"):
        f5_text.frames_to_generate(10, "a", "b", 0.0)


def test_the_evaluations_rule_has_no_slow_short_texts() -> None:
    assert f5_text.frames_to_generate(100, "0123456789", "12345", 1.0, slow_short_texts=False) == 50
    assert f5_text.frames_to_generate(100, "0123456789", "12345") == 166
