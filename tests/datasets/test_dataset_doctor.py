"""``imfbench doctor --dataset``: what is missing, cut short, of another rate or length, and how that ends."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result

from imfbench import dataset_check
from imfbench.cli import main
from imfbench.contracts.layouts import LAYOUTS
from imfbench.data import DatasetCard, SetCard, Utterance
from imfbench.dataset_check import examine_dataset, examine_set
from imfbench.registry import DATASETS
from imfbench.sets import TestSet

Make = Callable[[str], Any]


def doctor(*words: object) -> Result:
    return CliRunner().invoke(main, ["doctor", *map(str, words)])


@pytest.fixture
def as_published(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published sets have four utterances."""
    for name in LAYOUTS:
        cls = DATASETS.get(name)
        sets = {split: replace(found, size=4, speakers=4, prompts=4) for split, found in cls.card.sets.items()}
        monkeypatch.setattr(cls, "card", replace(cls.card, sets=sets))


def findings(copy: Any, level: str) -> list[str]:
    return [f"{f.subject}: {f.message}" for f in examine_dataset(copy.name, copy.root) if f.level == level]


@pytest.mark.usefixtures("as_published")
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_whole_dataset_is_well(name: str, layout: Make) -> None:
    copy = layout(name)
    result = doctor("--dataset", name, copy.root)
    assert result.exit_code == 0, result.output
    assert not findings(copy, "bad")
    assert f"licence: {DATASETS.get(name).card.licence}" in result.output
    assert "4 utterances, 4 speakers, 4 prompts" in result.output
    rate = 16000 if name.startswith("librispeech") else 24000
    assert f"prompts: 4 of 3.1 to 3.7 s, 0.2 min; 4 at {rate} Hz" in result.output
    assert f"recordings: 4 of 4.3 to 5.1 s, 0.3 min; 4 at {rate} Hz" in result.output


def test_both_forms_and_one_set_alone(layout: Make) -> None:
    root = layout("seed-tts-eval").root
    first, second = doctor("--dataset", "seed-tts-eval", root), doctor("--dataset", "seed-tts-eval", "--data", root)
    assert first.output == second.output
    alone = doctor("--dataset", "seed-tts-eval/zh", root)
    assert "seed-tts-eval/zh:" in alone.output
    assert "seed-tts-eval/en" not in alone.output
    assert doctor("--dataset", "seed-tts-eval/zh", root, "--data", root).exit_code == 2
    assert doctor(root).exit_code == 2
    assert "name the dataset" in doctor(root).output


@pytest.mark.parametrize("name", ["seed-tts-eval", "librispeech-pc", "librispeech"])
def test_another_size_than_was_published(name: str, layout: Make) -> None:
    result = doctor("--dataset", name, layout(name).root)
    assert result.exit_code == 1
    number = next(iter(DATASETS.get(name).card.sets.values())).size
    assert f"4 utterances, 4 speakers, 4 prompts (4 en), but the published set has {number} utterances" in result.output


@pytest.mark.usefixtures("as_published")
@pytest.mark.parametrize("name", [name for name in LAYOUTS if name != "librispeech"])
def test_what_is_missing_is_counted_and_named(name: str, layout: Make) -> None:
    copy = layout(name)
    found = copy.utterances()
    found[0].prompt_audio.unlink()
    for u in found:
        u.target_audio.unlink()
    bad = findings(copy, "bad")
    assert len(bad) == 2
    assert f"prompts: 1 of 4 prompts missing: {found[0].prompt_audio}" in bad[0]
    assert "recordings: 4 of 4 recordings missing: " in bad[1]
    assert bad[1].endswith(f"{found[2].target_audio} and 1 more")
    assert doctor("--dataset", name, copy.root).exit_code == 1


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_wrong_list_is_told_line_by_line(name: str, layout: Make) -> None:
    copy = layout(name)
    copy.write("\n".join([*copy.rows, "x", "y"]))
    bad = findings(copy, "bad")
    assert [f", line {len(copy.rows) - 1 + i}: " in told for i, told in enumerate(bad[:2])] == [True, True]
    assert doctor("--dataset", name, copy.root).exit_code == 1


def put(path: Path, samples: np.ndarray, rate: int, **settings: Any) -> None:
    path.unlink()  # the recording is shared with other tests
    soundfile.write(path, samples, rate, **settings)


@pytest.mark.usefixtures("as_published")
def test_recordings_that_are_not_as_they_should_be(layout: Make) -> None:
    copy = layout("folder")
    found = copy.utterances()
    speech, rate = soundfile.read(found[0].target_audio)
    put(found[0].target_audio, speech[::3], 8000)
    put(found[1].target_audio, np.stack([speech, speech], 1), rate, subtype="FLOAT")
    data = found[2].target_audio.read_bytes()
    found[2].target_audio.unlink()
    found[2].target_audio.write_bytes(data[: len(data) // 2])
    put(found[3].target_audio, speech[:100], rate)
    found[3].prompt_audio.unlink()
    found[3].prompt_audio.write_text("no audio")
    bad, notes = findings(copy, "bad"), findings(copy, "note")
    assert [told.partition(", ")[2] for told in bad] == [
        f"prompts: 1 of 4 prompts not to be read: {found[3].prompt_audio}",
        f"recordings: 1 of 4 recordings not to be read: {found[2].target_audio} "
        f"(its last {len(data) - len(data) // 2} bytes are missing)",
    ]
    told = "\n".join(notes)
    assert "1 below 16000 Hz" in told
    assert "2 sampling rates" in told
    assert "1 of several channels" in told
    assert f"shorter than 0.5 s or longer than 40 s: {found[3].target_audio} (0.00 s)" in told


@pytest.mark.usefixtures("as_published")
def test_lengths_and_rates_that_the_list_or_the_publisher_tells_otherwise(layout: Make) -> None:
    copy = layout("librispeech-pc")
    first = copy.utterances()[0]
    copy.change("\t5.1\t", "\t6.1\t")
    (bad,) = findings(copy, "bad")
    assert f"of another length than the list tells: {first.target_audio} (5.10 s, listed 6.10 s)" in bad
    speech, _ = soundfile.read(first.target_audio)
    put(first.target_audio, np.repeat(speech, 2), 32_000)
    assert "1 of another rate than the 16000 Hz of what was published" in "\n".join(findings(copy, "note"))


@pytest.mark.usefixtures("as_published")
def test_texts_that_are_worth_a_note(layout: Make) -> None:
    copy = layout("seed-tts-eval")
    rows = [row.split("|") for row in copy.rows]
    rows[0][3], rows[1][3], rows[2][3], rows[3][3] = "<b>Hello</b> &amp; you", "Hel\u200blo.", "你好。", "…!"
    rows[0][1] = ""
    copy.write("\n".join("|".join(row) for row in rows))
    notes = [told.partition("texts: ")[2] for told in findings(copy, "note") if "/en, texts" in told]
    names = [row[0] for row in rows]
    assert notes == [
        f"1 of 4 are not in the language of the set, by their signs: '{names[2]}'",
        f"1 of 4 hold what looks like markup, which is scored as text: '{names[0]}'",
        f"1 of 4 hold invisible signs, which change words: '{names[1]}'",
        f"1 of 4 hold no letter or digit: nothing is left of them to be scored: '{names[3]}'",
        f"1 of 4 have a prompt without its text, which text2mel needs: '{names[0]}'",
    ]


def test_sets_that_are_not_there(layout: Make, tmp_path: Path) -> None:
    copy = layout("librispeech")
    notes = findings(copy, "note")
    assert [told.partition(":")[0] for told in notes] == [
        f"dataset librispeech/{name}" for name in ("test-other", "dev-clean", "dev-other")
    ]
    (tmp_path / "empty").mkdir()
    for name in ("seed-tts-eval", "librispeech", "folder"):
        result = doctor("--dataset", name, tmp_path / "empty")
        assert result.exit_code == 1
        assert "holds none of its sets" in result.output
        assert DATASETS.get(name).card.layout in result.output
    result = doctor("--dataset", "zipvoice", tmp_path / "empty")
    assert result.exit_code == 1
    assert "cannot be read" in result.output


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--dataset", "seed-tts", "."], "unknown dataset 'seed-tts': did you mean 'seed-tts-eval'"),
        (["--dataset", "seed-tts-eval"], "needs the option 'root', the folder of en/meta.lst"),
        (["--dataset", "seed-tts-eval", "no-such-folder"], "does not exist"),
        (["--dataset", "librispeech-pc", "."], "there is no librispeech_pc_test_clean_cross_sentence.lst in"),
        (["--dataset", "librispeech", ".", "--set", "sed=1"], "has no option 'sed': did you mean 'seed'"),
        (["--dataset", "librispeech", ".", "--set", "seed"], "write it as key=value"),
        (["--dataset", "librispeech", ".", "--set", "seed=[1]"], "dataset 'librispeech' cannot be opened with"),
    ],
)
def test_what_cannot_be_looked_at_ends_with_exit_code_2(
    words: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = doctor(*words)
    assert result.exit_code == 2
    assert told in result.output
    assert "Traceback" not in result.output


def test_the_embedded_corpus_is_a_dataset_too() -> None:
    result = doctor("--dataset", "demo/dev")
    assert result.exit_code == 0, result.output
    assert "every file as listed" in result.output
    assert "dataset demo/dev: 46 utterances, 2 speakers" in result.output
    assert "dataset demo/test" not in result.output


def test_the_check_keeps_nothing_of_the_recordings() -> None:
    """Ten times as many recordings, the same memory beside the list, even where each of them is missing."""

    class Many:
        card = DatasetCard({"test": SetCard(None, "en")}, "", "", "")
        revision = "0"

        def __init__(self, count: int) -> None:
            prompt = Path("p.wav")
            self.rows = [Utterance(f"{i}", "Hello.", "en", "s", "p", "", prompt, prompt, 1.0) for i in range(count)]

        def utterances(self, split: str) -> list[Utterance]:
            return self.rows

    def peak(count: int) -> int:
        listed = TestSet("many", "test", Many(count)).utterances()
        gc.collect()
        tracemalloc.start()
        try:
            for _ in dataset_check._recordings("s", "recording", pairs(listed), None, (1.0, 2.0)):
                pass
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    def pairs(listed: list[Utterance]) -> Iterator[tuple[Path, float | None]]:
        return ((Path(f"/nowhere/{u.id}.wav"), u.seconds) for u in listed)

    peak(10)
    # The least of two: the first may count the interpreter's own table of path names, which grows once.
    assert min(peak(20_000), peak(20_000)) < peak(2_000) + 20_000
    assert [f.level for f in examine_set(TestSet("many", "test", Many(3)), None)] == ["ok", "bad", "bad", "note"]
