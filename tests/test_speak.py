"""One's own text: the corpus' phones, trimmed prompts, lengths by the prompt's rate, and requests that cannot be met."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from click.testing import CliRunner

from imfbench.artefact import ArtefactError, save_artefact
from imfbench.building import build_method
from imfbench.cli import main
from imfbench.datasets.demo.corpus import DATA, DemoCorpus
from imfbench.datasets.demo.own_text import own_condition, prepared, tokens
from imfbench.features import mel
from imfbench.features.audio import load_audio
from imfbench.features.phones import MissingPhonemizerError, Phonemizer, PromptError, TextError, join_marks
from imfbench.speak import Request, SpeakError, speak

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


TONE = (0.1 * np.sin(np.arange(249_165) / 9)).astype(np.float32)  # 11.3 s


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
        (np.zeros(66_150, np.float32), "it is silent: record it again"),
        (0.1 * np.ones(66_150, np.float32), "it is silent"),
        (np.zeros(0, np.float32), "it is silent"),
        (TONE[:8_000], "it holds 0.4 s of speech, less than 1 s: give a longer one"),
        (TONE, "it holds 11.3 s of speech, more than 10 s: cut it to a sentence or two"),
    ],
)
def test_a_prompt_without_enough_speech_is_refused(samples: np.ndarray, words: str) -> None:
    with pytest.raises(PromptError, match=words):
        prepared(samples)


def test_a_microphones_offset_is_silence(prompt: np.ndarray) -> None:
    silence = np.zeros(2 * mel.SAMPLE_RATE, np.float32)
    offset = 0.1 + np.concatenate([silence, prompt, silence])
    assert abs(len(prepared(offset)) - len(prepared(prompt))) <= 0.05 * mel.SAMPLE_RATE


def test_the_length_follows_the_prompts_rate(corpus: DemoCorpus, prompt: np.ndarray) -> None:
    def frames(text: str, speed: float = 1.0) -> int:
        c = own_condition(corpus.vocabulary, prompt, lambda: PROMPT_TEXT, text, speed=speed)
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


def test_marks_that_the_corpus_lacks_become_those_that_it_has(corpus: DemoCorpus) -> None:
    def said(text: str) -> list[int]:
        return tokens(Phonemizer(), corpus.vocabulary, text, False).tolist()

    assert said("He came: she left; it rained…") == said("He came, she left, it rained.")
    assert said("What?!") == said("What?")
    assert said("He said “no”.") == said("He said no.")


def test_sounds_that_the_voice_lacks_are_not_left_out_in_silence(corpus: DemoCorpus) -> None:
    fewer = {phone: token for phone, token in corpus.vocabulary.items() if phone != "θ"}
    with pytest.raises(TextError, match=r"the text holds sounds that this voice cannot make \(θ\): 'Think\.'"):
        tokens(Phonemizer(), fewer, "Think.", False)


def test_numbers_and_accents_are_said(corpus: DemoCorpus) -> None:
    said = tokens(Phonemizer(), corpus.vocabulary, "Café at 42 €!", False)
    assert len(said) > 15


def test_a_text_that_is_too_long_for_one_piece(corpus: DemoCorpus, prompt: np.ndarray) -> None:
    with pytest.raises(TextError, match="give it sentence by sentence"):
        own_condition(corpus.vocabulary, prompt, lambda: PROMPT_TEXT, 12 * PROMPT_TEXT)


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
    with pytest.raises(SpeakError, match="no method is named: give --method"):
        speak(request(), tmp_path / "said")


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
    assert "RTF" in result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name an experiment"),
        (["--text", "Hello."], "--text needs --prompt"),
        (["quickstart", "--text", "Hello.", "--prompt", "x.wav"], "exclude each other"),
        (["--text", "Hello.", "--prompt", "x.wav", "--nfe", "a"], "no list of numbers from 1 to 256"),
        (["--text", "Hello.", "--prompt", "x.wav", "--method", "nobody"], "no text2mel network of 'nobody' ships"),
        (["--text", "Hello.", "--prompt", "x.wav", "--method", "embedded:token2mel"], "no audio file x.wav"),
        (["--text", "Hello.", "--prompt", "x.wav", "--method", " "], "no method is named"),
        (["--text", "Hello.", "--prompt", "x.wav", "--limit", "3"], "--limit: only with an experiment"),
        (["--text", "Hello.", "--prompt", "x.wav", "--set", "a=b", "--dry-run"], "--dry-run, --set: only with an exp"),
        (["quickstart", "--prompt", "x.wav", "--no-score"], "--prompt, --no-score: only with --text"),
    ],
)
def test_commands_that_cannot_be_met_end_with_2(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(main, ["synthesize", *arguments])
    assert result.exit_code == 2
    assert words in result.output
    assert "Traceback" not in result.output


@pytest.mark.slow
def test_the_networks_that_ship_say_a_text_so_that_it_is_heard(tmp_path: Path) -> None:
    """A sentence of nobody's test set, in a test voice, by its prompt's rate: the prompt's words are heard, not given."""
    out = tmp_path / "said"
    text = "The old gardener walked slowly home along the quiet river."
    arguments = ["synthesize", "--text", text, "--prompt", str(PROMPT), "--method", "teacher,meanflow,intmeanflow"]
    result = CliRunner().invoke(main, [*arguments, "--nfe", "3,16", "--device", "cpu", "--out", str(out)])
    assert result.exit_code == 0, result.output
    table = pd.read_csv(out / "comparison.csv").set_index(["method", "nfe"])
    assert {*table.index} == {(method, nfe) for method in ("teacher", "meanflow", "intmeanflow") for nfe in (3, 16)}
    assert table["wer"].max() <= 0.5  # noise has 1 and more
    assert table.loc[("teacher", 16), "wer"] <= 0.4
    assert table["sim"].min() > 0.7
