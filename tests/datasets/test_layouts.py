"""The published layouts, read as they are: rows, recordings and sets, on speech of the embedded corpus."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imfbench.contracts import clauses
from imfbench.contracts.layouts import LAYOUTS
from imfbench.data import DatasetError, Utterance
from imfbench.datasets import librispeech
from imfbench.datasets.demo.corpus import DemoCorpus
from imfbench.datasets.librispeech import LibriSpeech, Recording
from imfbench.datasets.lists import language_of, speaker_of
from imfbench.features.audio import load_audio, resample
from imfbench.features.audio_check import AudioError
from imfbench.registry import DATASETS
from imfbench.sets import open_set

PUBLISHED = {
    "seed-tts-eval": {"en": 1088, "zh": 2020, "hard": 400},
    "librispeech-pc": {"test": 1127},
    "librispeech": {"test-clean": 1237, "test-other": None, "dev-clean": None, "dev-other": None},
    "zipvoice": {"test": None},
    "folder": {"test": None},
}
Make = Callable[[str], Any]


@pytest.fixture(scope="module")
def spoken() -> dict[str, Utterance]:
    """Utterances of the embedded corpus by their first letters: capitals and marks are not the same in all layouts."""
    return {letters(u.text): u for u in DemoCorpus().utterances("test")}


def letters(text: str) -> str:
    return "".join(filter(str.isalpha, text)).lower()


def heard(path: Path) -> np.ndarray:
    return load_audio(path, 16_000)[0]


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_gives_the_utterances_and_their_recordings(
    name: str, layout: Make, spoken: dict[str, Utterance]
) -> None:
    found = layout(name).utterances()
    assert len(found) == 4
    assert len({u.speaker for u in found}) == len({u.id for u in found}) == 4
    for u in found:
        original = spoken[letters(u.text)]
        assert letters(u.prompt_text) == letters(original.prompt_text)
        assert u.language == "en"
        for ours, theirs in ((u.prompt_audio, original.prompt_audio), (u.target_audio, original.target_audio)):
            ours_heard, theirs_heard = heard(ours), heard(theirs)
            assert len(ours_heard) == len(theirs_heard)
            assert np.abs(ours_heard - theirs_heard).max() < 1e-3
        assert u.prompt_id == u.prompt_audio.stem
        assert u.seconds is None or u.seconds == pytest.approx(original.seconds, abs=1e-3)


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_keeps_the_contract_of_datasets(name: str, layout: Make) -> None:
    for clause in clauses("dataset", name, {"root": str(layout(name).root)}):
        clause()


@pytest.mark.parametrize("name", ["demo", *LAYOUTS])
def test_every_dataset_says_what_was_published(name: str) -> None:
    card = DATASETS.get(name).card
    assert card.licence and card.source and card.layout  # noqa: PT018
    if name in PUBLISHED:
        assert {split: found.size for split, found in card.sets.items()} == PUBLISHED[name]
    else:
        assert {split: found.size for split, found in card.sets.items()} == {
            "test": 172, "dev": 46, "hard": 34, "noisy": 172, "long2": 84, "long4": 40,
        }  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("change", ["bom", "windows", "both"])
def test_marks_and_line_ends_of_other_systems_change_nothing(name: str, change: str, layout: Make) -> None:
    copy = layout(name)
    before = open_set(name, copy.root)
    expected, label = before.utterances(), before.label
    data = copy.list.read_bytes().replace(b"\r\n", b"\n")
    if change != "bom":
        data = data.replace(b"\n", b"\r\n")
    copy.write(b"\xef\xbb\xbf" + data if change != "windows" else data)
    after = open_set(name, copy.root)
    assert after.utterances() == expected
    assert after.label == label


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_revision_stands_for_the_content_and_not_for_the_place(name: str, layout: Make, tmp_path: Path) -> None:
    copy = layout(name)
    label = open_set(name, copy.root).label
    shutil.move(copy.root, tmp_path / "moved" / name)
    copy.root = tmp_path / "moved" / name
    assert open_set(name, copy.root).label == label
    word = "KETTLE" if name == "librispeech" else "kettle"
    copy.change(word, word[::-1], 1)
    assert open_set(name, copy.root).label != label


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_dataset_that_is_not_there_is_told_with_where_to_get_it(name: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="there is no folder") as error:
        open_set(name, tmp_path / "nowhere")
    assert DATASETS.get(name).card.source in str(error.value)
    with pytest.raises(DatasetError, match=r"needs the option 'root', the folder of"):
        open_set(name)
    with pytest.raises(DatasetError, match=r"has no option 'rot': did you mean 'root'\?"):
        open_set(name, tmp_path, {"rot": 1})


def test_a_set_that_is_not_there_is_told_with_the_nearest(layout: Make) -> None:
    copy = layout("seed-tts-eval")
    with pytest.raises(DatasetError, match="has no set 'test': known: en, hard, zh"):
        open_set("seed-tts-eval/test", copy.root).utterances()
    with pytest.raises(DatasetError, match=r"has no set 'hrad': did you mean 'hard'\?"):
        open_set("seed-tts-eval/hrad", copy.root).utterances()


# --- Seed-TTS-eval ----------------------------------------------------------------------------------------------------


def test_seed_tts_eval_has_three_sets_and_the_hard_one_has_no_recordings(layout: Make) -> None:
    copy = layout("seed-tts-eval")
    sets = {split: open_set(f"seed-tts-eval/{split}", copy.root).utterances() for split in ("en", "zh", "hard")}
    assert {split: {u.language for u in found} for split, found in sets.items()} == {
        "en": {"en"}, "zh": {"zh"}, "hard": {"zh"},
    }  # fmt: skip
    assert all(u.target_audio.is_file() for split in ("en", "zh") for u in sets[split])
    assert all(u.target_audio is None for u in sets["hard"])
    with pytest.raises(AudioError, match="holds no recording of this utterance"):
        open_set("seed-tts-eval", copy.root).dataset.target_mel(sets["hard"][0])


def test_a_fifth_field_is_the_recording_and_four_point_to_wavs(layout: Make) -> None:
    copy = layout("seed-tts-eval")
    first, *others = copy.rows
    other = others[0].split("|")[0]
    copy.write("\n".join([f"{first}|wavs/{other}.wav", *others]) + "\n")
    found = copy.utterances()
    assert [u.target_audio.name for u in found[:2]] == [f"{other}.wav", f"{other}.wav"]
    shutil.rmtree(copy.root / "en" / "wavs")
    assert [u.target_audio is None for u in copy.utterances()] == [False, True, True, True]


def test_seed_tts_eval_is_found_one_folder_below_and_half_of_it_is_enough(layout: Make, tmp_path: Path) -> None:
    copy = layout("seed-tts-eval")
    shutil.rmtree(copy.root / "zh")
    shutil.move(copy.root, tmp_path / "data" / "seedtts_testset")
    found = open_set("seed-tts-eval", tmp_path / "data")
    assert len(found.utterances()) == 4
    assert found.dataset.sets == ["en"]
    with pytest.raises(DatasetError, match=r"zh/meta\.lst cannot be read"):
        open_set("seed-tts-eval/zh", tmp_path / "data").utterances()


def test_a_text_stays_as_it_is_inside_its_line(layout: Make) -> None:
    copy = layout("seed-tts-eval")
    copy.change("|The kettle began", "|  The\tkettle  began")
    assert copy.utterances()[0].text.startswith("  The\tkettle  began")


# --- LibriSpeech-PC ---------------------------------------------------------------------------------------------------


def test_quotation_marks_belong_to_the_texts(layout: Make) -> None:
    for name in ("librispeech-pc", "zipvoice"):
        copy = layout(name)
        copy.change("The kettle began", 'Kettle"! it "began')
        assert copy.utterances()[0].text.startswith('Kettle"! it "began')


def test_the_list_of_pairs_may_lie_elsewhere(layout: Make, tmp_path: Path) -> None:
    copy = layout("librispeech-pc")
    expected = copy.utterances()
    moved = tmp_path / "pairs.lst"
    copy.list.rename(moved)
    assert "there is no librispeech_pc_test_clean_cross_sentence.lst in" in copy.refused()
    assert copy.utterances(list_file=str(moved)) == expected
    shutil.copy(moved, tmp_path / "librispeech_pc_test_clean_cross_sentence.lst")
    for root in (copy.root / "LibriSpeech", copy.root):
        assert [u.id for u in open_set("librispeech-pc", root).utterances()] == [u.id for u in expected]
    tree = copy.root / "LibriSpeech" / "test-clean"
    assert open_set("librispeech-pc", tree, {"list_file": moved}).utterances() == expected


# --- LibriSpeech and its rule -----------------------------------------------------------------------------------------


@pytest.fixture
def big(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, float]], Path]:
    """A tree of transcripts whose recordings have the lengths that are told."""

    def write(lengths: dict[str, float]) -> Path:
        shutil.rmtree(tmp_path / "test-clean", ignore_errors=True)
        for name in lengths:
            speaker, chapter, _ = name.split("-")
            path = tmp_path / "test-clean" / speaker / chapter / f"{speaker}-{chapter}.trans.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a") as file:
                file.write(f"{name} WORDS OF {name}\n")
        monkeypatch.setattr(librispeech, "seconds_of", lambda path: lengths[path.stem])
        return tmp_path

    return write


LENGTHS = {f"7-{100 + i % 3}-{i:04}": 1.0 + 0.25 * i for i in range(40)} | {
    "8-1-0000": 5.0,
    "9-1-0000": 5.0,
    "9-1-0001": 2.0,
}


def prompts(root: Path, **options: Any) -> dict[str, str]:
    return {u.id: u.prompt_id for u in LibriSpeech(root, **options).utterances("test-clean")}


def test_prompts_are_chosen_by_the_rule(big: Make) -> None:
    chosen = prompts(big(LENGTHS))
    assert set(chosen) == {name for name, s in LENGTHS.items() if 4 <= s <= 10 and name != "8-1-0000"}
    for target, prompt in chosen.items():
        others = [n for n, s in LENGTHS.items() if 2 <= s <= 5 and n[0] == target[0] and n != target]
        expected = sorted(others, key=lambda other: hashlib.sha256(f"0/{target}/{other}".encode()).hexdigest())[0]
        assert prompt == expected
    assert chosen["9-1-0000"] == "9-1-0001"  # both bounds belong to the range
    assert len(set(chosen.values())) > 5


def test_a_known_choice() -> None:
    """The expected ones are by coreutils: printf SEED/7-1-0000/7-1-000N | sha256sum."""
    recordings = [Recording(f"7-1-{i:04}", "", 3.0) for i in range(5)]
    rule = LibriSpeech.__new__(LibriSpeech)
    chosen = []
    for rule.seed in range(6):
        chosen.append(rule.prompt_for(recordings[0], recordings).id[-1])
    assert chosen == ["2", "2", "4", "1", "3", "1"]


def test_a_choice_depends_on_names_alone(big: Make) -> None:
    chosen = prompts(big(LENGTHS))
    assert prompts(big(dict(reversed(LENGTHS.items())))) == chosen
    gone = chosen["7-100-0024"]
    without = prompts(big({name: s for name, s in LENGTHS.items() if name != gone}))
    assert {t for t in without if without[t] != chosen[t]} == {t for t, prompt in chosen.items() if prompt == gone} - {
        gone
    }
    again = prompts(big(LENGTHS), seed=1)
    assert set(again) == set(chosen)
    assert sum(again[t] != chosen[t] for t in chosen) > len(chosen) / 2
    assert prompts(big(LENGTHS), target_seconds=[5, 6], prompt_seconds=(3, 3.5)).keys() == {
        *(n for n, s in LENGTHS.items() if 5 <= s <= 6 and n[0] == "7")
    }


@pytest.mark.parametrize("value", [[5, 2], [0, 3], 4, ["a", "b"], [1, 2, 3]])
def test_ranges_that_are_none_are_refused(big: Make, value: Any) -> None:
    with pytest.raises(DatasetError, match="the option `prompt_seconds` is"):
        prompts(big(LENGTHS), prompt_seconds=value)


def test_a_tree_without_pairs_is_refused(big: Make) -> None:
    with pytest.raises(DatasetError, match="widen the options"):
        prompts(big({"8-1-0000": 5.0, "9-1-0000": 3.0}))


# --- ZipVoice ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["", "zipvoice/", "download/zipvoice/", "else/where/"])
def test_prompts_are_found_from_where_zipvoice_was_run(before: str, layout: Make) -> None:
    copy = layout("zipvoice")
    copy.change("download/zipvoice/prompt_wavs", f"{before}prompt_wavs")
    assert all(u.prompt_audio.is_file() for u in copy.utterances())


def test_prompts_may_lie_elsewhere(layout: Make, tmp_path: Path) -> None:
    copy = layout("zipvoice")
    shutil.move(copy.root / "prompt_wavs", tmp_path / "far" / "away")
    assert not any(u.prompt_audio.is_file() for u in copy.utterances())
    copy.change("download/zipvoice/prompt_wavs", str(tmp_path / "far" / "away"))
    assert "is absolute" in copy.refused()
    assert all(u.prompt_audio.is_file() for u in copy.utterances(audio_root=str(tmp_path / "far")))
    copy.change("far/away", "far/../near")
    assert "near" in copy.refused(audio_root=str(tmp_path / "far"))


def test_texts_of_the_transcript(layout: Make) -> None:
    copy = layout("zipvoice")
    opened = open_set("zipvoice", copy.root, {"texts": "transcript"})
    assert [u.text for u in opened.utterances()] == [u.text.upper() for u in copy.utterances()]
    assert opened.label.endswith(", transcript's texts")
    path = copy.root / "transcript.tsv"
    rows = path.read_text().splitlines()
    path.unlink()
    path.write_text("\n".join(rows[1:]))
    assert "lacks 1 utterances" in copy.refused(texts="transcript")
    assert "'list' or 'transcript'" in copy.refused(texts="both")


def test_a_list_of_another_name(layout: Make) -> None:
    copy = layout("zipvoice")
    expected = copy.utterances()
    copy.list.rename(copy.root / "mine.tsv")
    assert open_set("zipvoice", copy.root / "mine.tsv").utterances() == expected


# --- a folder with a csv ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("between", [";", "\t"])
def test_what_stands_between_fields_is_seen_from_the_first_line(between: str, layout: Make) -> None:
    copy = layout("folder")
    expected = copy.utterances()
    copy.write(
        "\n".join(between.join(row.split(",")) if i == 0 else _with(between, row) for i, row in enumerate(copy.rows))
    )
    assert copy.utterances() == expected


def _with(between: str, row: str) -> str:
    name, text, prompt_text, rest = row.split(',"')[0], *row.split('"')[1::2], row.rpartition('",')[2]
    return between.join([name, f'"{text}"', f'"{prompt_text}"', *rest.split(",")])


def test_columns_in_any_order_with_further_ones(layout: Make) -> None:
    copy = layout("folder")
    name = "test-af_sarah-000"
    copy.write(
        "mood,seconds,language,text,prompt_audio,id\n"
        f'glad,5.1,,"She said ""hello, there"" to you.",prompts/prompt-af_sarah-000.wav,{name}\n'
        f"glad,,zh,你好,prompts/prompt-af_sarah-000.wav,b\nglad,,,你好,prompts/prompt-af_sarah-000.wav,c\n"
    )
    first, second, third = copy.utterances()
    assert first.text == 'She said "hello, there" to you.'
    assert (first.seconds, first.prompt_text, first.target_audio) == (5.1, "", None)
    assert (first.speaker, first.language) == ("prompt-af_sarah-000", "en")
    assert second.language == third.language == "zh"
    assert {u.language for u in copy.utterances(language="en")} == {"en", "zh"}  # a column has the last word


def test_another_csv_is_another_set(layout: Make) -> None:
    copy = layout("folder")
    (copy.root / "dev.csv").write_text("\n".join(copy.rows[:2]))
    assert len(open_set("folder/dev", copy.root).utterances()) == 1
    assert open_set("folder", copy.root).dataset.sets == ["test", "dev"]


# --- names and languages ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "speaker"),
    [
        ("4992-41806-0009", "4992"),
        ("10002287-00000094", "10002287"),
        ("common_voice_en_10119832", "common_voice_en_10119832"),
        ("17-a", "17-a"),
        ("17", "17"),
    ],
)
def test_speakers_by_the_names_of_prompts(name: str, speaker: str) -> None:
    assert speaker_of(name) == speaker


@pytest.mark.parametrize(
    ("text", "language"), [("Hello.", "en"), ("café – 5", "en"), ("他 said", "zh"), ("。", "en"), ("𠀀", "zh")]
)
def test_languages_by_their_signs(text: str, language: str) -> None:
    assert language_of(text) == language


def test_recordings_at_another_rate_are_the_same_speech(spoken: dict[str, Utterance]) -> None:
    """What the comparison above rests on: 24 kHz taken to 16 kHz keeps the samples' number and place."""
    audio, rate = load_audio(next(iter(spoken.values())).prompt_audio)
    assert len(resample(audio, rate, 16_000)) == pytest.approx(len(audio) * 16_000 / rate, abs=1)
