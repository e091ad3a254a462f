"""One's own text: the corpus' phones, trimmed prompts, lengths by the prompt's rate, and requests that cannot be met."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

from imfbench.artefact import ArtefactError, save_artefact
from imfbench.cli import main
from imfbench.datasets.demo.corpus import DATA, DemoCorpus
from imfbench.datasets.demo.own_text import own_condition, prepared, tokens
from imfbench.features import mel
from imfbench.features.audio import load_audio
from imfbench.features.phones import MissingPhonemizerError, Phonemizer, TextError, join_marks
from imfbench.speak import Request, SpeakError, speak
from imfbench.training import build_method

PROMPT = DATA / "test" / "prompts" / "prompt-af_sarah-000.flac"
PROMPT_TEXT = "The morning air was crisp, and the streets were quiet."


@pytest.fixture(scope="module")
def corpus() -> DemoCorpus:
    return DemoCorpus(task="text2mel")


@pytest.fixture(scope="module")
def prompt() -> np.ndarray:
    return load_audio(PROMPT, mel.SAMPLE_RATE)[0]


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny network as training leaves it; what it says is noise."""
    folder = tmp_path_factory.mktemp("tiny")
    shape = {"dim": 32, "depth": 1, "alignment_depth": 1, "heads": 2, "content_layers": 1}
    method = build_method("teacher", {"guidance": 2.0}, backbone="aligning-dit", backbone_config=shape)
    save_artefact(folder, "teacher", method, {"task": "text2mel", "train_data": {"name": "demo"}})
    return folder


def request(*methods: str, **changes: object) -> Request:
    given = {"text": "Good evening.", "prompt": PROMPT, "prompt_text": PROMPT_TEXT, "methods": methods, "nfe": [2]}
    return Request(**{**given, **changes})  # type: ignore[arg-type]


def test_phones_are_the_corpus_own(corpus: DemoCorpus) -> None:
    phonemize = Phonemizer()
    rows = [row for row in corpus._alignments("test").values() if "text" in row]
    assert len(rows) >= 172
    for row in rows[::7]:
        assert phonemize.phones(row["text"], row["speaker"].startswith("b")) == row["phones"]


def test_marks_join_their_phones() -> None:
    assert join_marks(["ˈ", "ɑ", "ː", "t"], [1, 2, 3, 4]) == (["ˈɑː", "t"], [6, 4])


def test_a_prompt_is_trimmed_and_as_loud_as_the_corpus(prompt: np.ndarray) -> None:
    silence = np.zeros(200 * 220, np.float32)  # whole blocks of 10 ms
    quiet = prepared(np.concatenate([silence, 0.1 * prompt, silence]))
    np.testing.assert_allclose(quiet, prepared(prompt), atol=2e-3)
    assert abs(len(quiet) - len(prompt)) < 0.4 * mel.SAMPLE_RATE
    assert abs(quiet[: mel.SAMPLE_RATE // 4]).max() == 0


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (np.zeros(66_150, np.float32), "0.0 s of speech"),
        (0.1 * np.ones(8_000, np.float32), "0.4 s of speech"),
        (0.1 * np.ones(250_000, np.float32), "11.3 s of speech"),
    ],
)
def test_a_prompt_without_enough_speech_is_refused(samples: np.ndarray, words: str) -> None:
    with pytest.raises(TextError, match=f"the prompt holds {words}; 1 to 10 s are needed"):
        prepared(samples)


def test_the_length_follows_the_prompts_rate(corpus: DemoCorpus, prompt: np.ndarray) -> None:
    def frames(text: str, speed: float = 1.0) -> int:
        c = own_condition(corpus.vocabulary, prompt, PROMPT_TEXT, text, speed=speed)
        return int((c.valid & ~c.prompt).sum())

    spoken = len(mel.log_mel(torch.from_numpy(prepared(prompt))))
    assert abs(frames(PROMPT_TEXT) - spoken) <= 1
    assert frames("Good evening.") < spoken / 2
    edges = 0.99 * mel.SAMPLE_RATE / mel.HOP
    assert frames(PROMPT_TEXT, 2.0) - edges == pytest.approx((spoken - edges) / 2, abs=2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("…", "nothing to say"),
        ("  ", "nothing to say"),
        ("Say 你好 now.", "the text holds 你 好, which"),
        ("¡Ще!", "Щ е"),
    ],
)
def test_texts_that_cannot_be_said(corpus: DemoCorpus, text: str, words: str) -> None:
    with pytest.raises(TextError, match=words):
        tokens(Phonemizer(), corpus.vocabulary, text, False)


def test_numbers_and_accents_are_said(corpus: DemoCorpus) -> None:
    said = tokens(Phonemizer(), corpus.vocabulary, "Café at 42 €!", False)
    assert len(said) > 15


def test_a_text_that_is_too_long_for_one_piece(corpus: DemoCorpus, prompt: np.ndarray) -> None:
    with pytest.raises(TextError, match="give it sentence by sentence"):
        own_condition(corpus.vocabulary, prompt, PROMPT_TEXT, 12 * PROMPT_TEXT)


def test_several_step_counts_into_a_folder(artefact: Path, tmp_path: Path) -> None:
    frame = speak(request(str(artefact), nfe=[1, 3]), tmp_path / "said", "cpu", scored=False)
    assert frame["nfe"].tolist() == [1, 3]
    assert frame["network_calls"].tolist() == [2, 6]
    for row in frame.itertuples():
        audio, rate = soundfile.read(tmp_path / "said" / str(row.file))
        assert len(audio) / rate == pytest.approx(float(row.seconds), abs=1e-3)  # type: ignore[arg-type]
        assert 0.5 < len(audio) / rate < 2.5
    assert (tmp_path / "said" / "comparison.csv").is_file()


def test_requests_that_cannot_be_met(artefact: Path, tmp_path: Path) -> None:
    with pytest.raises(SpeakError, match="2 files are asked for; give a folder"):
        speak(request(str(artefact), nfe=[1, 2]), tmp_path / "one.wav")
    with pytest.raises(SpeakError, match=r"give a .wav file or a folder"):
        speak(request(str(artefact)), tmp_path / "one.mp3")
    with pytest.raises(SpeakError, match="no text2mel network of 'o3s' ships"):
        speak(request("o3s"), tmp_path / "said")
    with pytest.raises(ArtefactError, match="task is token2mel"):
        speak(request("embedded:token2mel"), tmp_path / "said", "cpu", scored=False)
    with pytest.raises(SpeakError, match="the prompt cannot be used: no audio file"):
        speak(request(str(artefact), prompt=tmp_path / "no.wav"), tmp_path / "said")


def test_a_missing_phonemizer_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(MissingPhonemizerError, match=r"pip install 'imfbench\[g2p\]'"):
        Phonemizer()


def test_the_command_says_a_text(artefact: Path, tmp_path: Path) -> None:
    out = tmp_path / "evening.wav"
    arguments = ["synthesize", "--text", "Good evening.", "--prompt", str(PROMPT), "--prompt-text", PROMPT_TEXT]
    arguments += ["--method", str(artefact), "--nfe", "2", "--no-score", "--device", "cpu"]
    result = CliRunner().invoke(main, [*arguments, "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert soundfile.info(out).frames > 8_000
    assert "rtf_network" in result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name an experiment"),
        (["--text", "Hello."], "--text needs --prompt"),
        (["quickstart", "--text", "Hello.", "--prompt", "x.wav"], "exclude each other"),
        (["--text", "Hello.", "--prompt", "x.wav", "--nfe", "a"], "no list of numbers from 1 to 256"),
        (["--text", "Hello.", "--prompt", "x.wav", "--method", "nobody"], "no text2mel network of 'nobody' ships"),
        (["--text", "Hello.", "--prompt", "x.wav", "--method", "embedded:token2mel"], "no audio file x.wav"),
    ],
)
def test_commands_that_cannot_be_met_end_with_2(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(main, ["synthesize", *arguments])
    assert result.exit_code == 2
    assert words in result.output
    assert "Traceback" not in result.output
