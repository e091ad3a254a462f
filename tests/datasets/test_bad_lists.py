"""Bad lists in every layout: told with file and line before any work begins, all of it at once, and memory by the row."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from imfbench.contracts.layouts import LAYOUTS
from imfbench.data import DatasetError
from imfbench.datasets.lists import id_problem, path_problem, text_problem
from imfbench.features.audio_check import AudioError
from imfbench.sets import open_set

Make = Callable[[str], Any]
BETWEEN = {"seed-tts-eval": "|", "librispeech-pc": "\t", "librispeech": " ", "zipvoice": "\t", "folder": ","}
FIRST = {"folder": 2}
"""The line of the first row, where it is not the first line."""


def row(copy: Any) -> str:
    return copy.rows[FIRST.get(copy.name, 1) - 1]


def damaged(copy: Any, new: str) -> str:
    """What is said when the first row is another one."""
    lines = copy.rows
    lines[FIRST.get(copy.name, 1) - 1] = new
    copy.write("\n".join(lines) + "\n")
    return copy.refused()


def place(copy: Any) -> str:
    return f"{copy.list}, line {FIRST.get(copy.name, 1)}: "


@pytest.mark.parametrize("name", LAYOUTS)
def test_fields_that_lack_or_are_too_many(name: str, layout: Make) -> None:
    copy = layout(name)
    good, between = row(copy), BETWEEN[name]
    if name == "librispeech":  # a text may hold any number of words
        assert damaged(copy, good.split()[0]) == place(copy) + "the field text is empty; fill it in, or remove the row"
        return
    fields = 6 if name == "folder" else good.count(between) + 1  # its texts hold commas
    assert damaged(copy, good.rsplit(between, 1)[0]).startswith(place(copy) + f"{fields - 1} fields instead of ")
    assert damaged(copy, good + between * 3 + "more").startswith(place(copy) + f"{fields + 3} fields instead of ")


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("bad", ["../x", "/etc/x", "..\\x", "a/b", "", "x" * 200])
def test_ids_that_leave_the_folder_or_name_no_file(name: str, bad: str, layout: Make) -> None:
    copy = layout(name)
    good = row(copy)
    old = good.split(BETWEEN[name])[3 if name == "librispeech-pc" else 0]
    told = damaged(copy, good.replace(old, bad, 1))
    assert told.startswith(place(copy))
    if name.startswith("librispeech"):
        assert "is no name of" in told
    else:
        words = [
            "leaves the dataset's folder",
            "is absolute",
            "as Windows writes",
            "holds a /",
            "is empty",
            "more than 150",
        ]
        words += ["3 fields instead of 4"]  # a tab at the beginning of a line is no tab to ZipVoice either
        assert any(word in told for word in words), told


@pytest.mark.parametrize("name", ["seed-tts-eval", "zipvoice", "folder"])
@pytest.mark.parametrize("bad", ["../x.wav", "a/../../x.wav", "/x.wav", "C:\\x.wav", "x\x1b.wav"])
def test_prompts_that_leave_the_folder(name: str, bad: str, layout: Make) -> None:
    copy = layout(name)
    good = row(copy)
    (prompt,) = [f for f in good.split(BETWEEN[name]) if "prompt" in f and f.endswith(".wav")]
    told = damaged(copy, good.replace(prompt, bad))
    assert told.startswith(place(copy) + "prompt_")


@pytest.mark.parametrize("name", LAYOUTS)
def test_an_id_that_stands_twice(name: str, layout: Make) -> None:
    copy = layout(name)
    lines = copy.rows
    copy.write("\n".join([*lines, row(copy)]))
    first = FIRST.get(name, 1)
    assert f", line {len(lines) + 1}: the id " in copy.refused()
    assert f"stands in line {first} already" in copy.refused()


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize(
    ("sign", "code"), [("\x00", "U+0000"), ("\x1b", "U+001B"), ("\x07", "U+0007"), ("\x85", "U+0085")]
)
def test_control_characters_in_a_text(name: str, sign: str, code: str, layout: Make) -> None:
    copy = layout(name)
    word = "KETTLE" if name == "librispeech" else "kettle"
    told = damaged(copy, row(copy).replace(word, word[:3] + sign + word[3:]))
    assert told.startswith(place(copy))
    assert f"holds the control character {code} at place" in told
    assert sign not in told


@pytest.mark.parametrize("name", LAYOUTS)
def test_markup_is_a_text_like_any_other(name: str, layout: Make) -> None:
    copy = layout(name)
    word, new = ("KETTLE", "<b>KETTLE</b>") if name == "librispeech" else ("kettle", "<b>ket\u2028tle</b> &amp; {x}")
    copy.change(word, new, 1)
    assert any(new in u.text for u in copy.utterances())


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_is_no_list(name: str, layout: Make) -> None:
    copy = layout(name)
    good = copy.list.read_bytes()
    copy.write(good + b"\xe9t\xe9\n")
    assert f"{copy.list}, line {len(good.splitlines()) + 1}: not UTF-8" in copy.refused()
    copy.write("\r\n\n  \n")
    if name == "librispeech":  # a chapter without texts
        assert "1089" not in {u.speaker for u in copy.utterances()}
        return
    assert "is empty" in copy.refused() if name == "folder" else "holds no rows" in copy.refused()
    copy.list.unlink()
    assert str(copy.list.name) in copy.refused()


@pytest.mark.parametrize("name", LAYOUTS)
def test_all_that_is_wrong_is_told_at_once_but_not_a_thousand_lines(name: str, layout: Make) -> None:
    copy = layout(name)
    copy.write("\n".join([*copy.rows, *["x"] * 30]))
    told = copy.refused().splitlines()
    assert len(told) == 9
    assert told[-1] == "… and 22 more such lines"


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_missing_prompt_is_its_own_rows_matter(name: str, layout: Make) -> None:
    copy = layout(name)
    before = copy.utterances()
    before[0].prompt_audio.unlink()
    if name == "librispeech":  # its length is what the rule goes by
        told = copy.refused()
        assert "1 recordings that the transcripts name are missing" in told
        assert str(before[0].prompt_audio) in told
        return
    dataset = open_set(name, copy.root, {"task": "text2mel"}).dataset
    after = dataset.utterances(open_set(name, copy.root).split)
    assert after == before
    with pytest.raises(AudioError, match="no audio file"):
        dataset.condition(after[0])


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_missing_recording_is_its_own_rows_matter(name: str, layout: Make) -> None:
    copy = layout(name)
    before = copy.utterances()
    assert before[0].target_audio is not None
    before[0].target_audio.unlink()
    if name == "librispeech":
        assert "are missing or cannot be read" in copy.refused()
        return
    dataset = open_set(name, copy.root).dataset
    assert dataset.utterances(open_set(name, copy.root).split) == before
    with pytest.raises(AudioError, match="no audio file"):
        dataset.target_mel(before[0])


def test_a_prompt_that_is_the_recording_of_the_text_is_refused(layout: Make) -> None:
    seed = layout("seed-tts-eval")
    first = seed.rows[0].split("|")
    seed.write("|".join([first[0], first[1], f"wavs/{first[0]}.wav", first[3]]))
    assert (
        f"the recording of their own text, so that a system would be given what it is to say, the first '{first[0]}'"
        in (seed.refused())
    )
    pairs = layout("librispeech-pc")
    fields = pairs.rows[0].split("\t")
    assert "the recording of their own text" in damaged(pairs, "\t".join([*fields[3:], *fields[3:]]))


def test_pairs_of_two_speakers_and_lengths_that_are_none(layout: Make) -> None:
    copy = layout("librispeech-pc")
    first, second = (line.split("\t") for line in copy.rows[:2])
    assert "are of two speakers" in damaged(copy, "\t".join([*second[:3], *first[3:]]))
    for bad in ("0", "-1", "nan", "3,5", ""):
        assert f"gen_dur {bad!r} is no length in seconds" in damaged(copy, "\t".join([*first[:4], bad, first[5]]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("id,text,", "id,txt,"), "line 1: the first line lacks text; it has id, txt,"),
        (("id,text,", "id,text,text,"), "line 1: the first line names a column twice"),
        (('"The kettle began', '"The "kettle began'), "line 2: "),
        (('front door."', "front door."), "line 2: "),
        ((",af_sarah", ",af\x1bsarah"), "line 2: speaker"),
    ],
)
def test_columns_and_quotation_marks_of_a_csv(change: tuple[str, str], words: str, layout: Make) -> None:
    copy = layout("folder")
    copy.change(*change, 1)
    told = copy.refused().splitlines()
    assert len(told) == 1  # a mark that is never closed costs its own row
    assert words in told[0]


def test_languages_and_lengths_of_a_csv(layout: Make) -> None:
    copy = layout("folder")
    header = "id,text,prompt_audio,language,seconds\n"
    copy.write(header + "a,b,c.wav,de,1\nb,b,c.wav,en,long\n")
    first, second = copy.refused().splitlines()
    assert "line 2: the language 'de' is neither en nor zh" in first
    assert "line 3: seconds 'long' is no length" in second


def test_links_are_the_users_own(layout: Make, tmp_path: Path) -> None:
    copy = layout("folder")
    (copy.root / "prompts").rename(tmp_path / "elsewhere")
    (copy.root / "prompts").symlink_to(tmp_path / "elsewhere")
    assert all(u.prompt_audio.is_file() for u in copy.utterances())


def test_what_no_id_path_or_text_may_be() -> None:
    assert id_problem("id", "a-1") == path_problem("p", "a b/c.wav") == text_problem("t", "<b>\tx</b>") == ""
    assert path_problem("p", "/data/a.wav", Path("/data")) == ""
    for bad in ("/data2/a.wav", "/data/../a.wav", "/a.wav"):
        assert "is absolute" in path_problem("p", bad, Path("/data"))


# --- memory -----------------------------------------------------------------------------------------------------------

ROWS = 5_000
PER_ROW = 1500
"""Bytes that a row may take, its texts of 80 characters included."""


@pytest.mark.parametrize("name", ["seed-tts-eval", "librispeech-pc", "zipvoice", "folder"])
def test_memory_grows_with_the_list_alone(name: str, tmp_path: Path) -> None:
    text = "So many words are in a sentence that is neither long nor short."
    rows = {
        "seed-tts-eval": lambda i: f"1{i:07}-00000001|{text} {i}|prompt-wavs/{i % 700}.wav|{text} {i}",
        "librispeech-pc": lambda i: f"7-1-{i % 700}\t3.5\t{text}\t7-2-{i}\t5.5\t{text} {i}",
        "zipvoice": lambda i: f"a{i}\t{text}\tprompts/{i % 700}.wav\t{text} {i}",
        "folder": lambda i: f'a{i},"{text}",prompts/{i % 700}.wav,wavs/a{i}.wav',
    }[name]
    (tmp_path / "en" / "wavs").mkdir(parents=True)
    (tmp_path / "LibriSpeech" / "test-clean").mkdir(parents=True)
    files = {
        "seed-tts-eval": "en/meta.lst",
        "librispeech-pc": "librispeech_pc_test_clean_cross_sentence.lst",
        "zipvoice": "test.tsv",
        "folder": "test.csv",
    }
    head = "id,text,prompt_audio,target_audio\n" if name == "folder" else ""
    (tmp_path / files[name]).write_text(head + "\n".join(map(rows, range(ROWS))))
    open_set(name, tmp_path).utterances()  # what is imported for it, once a process, is no memory of the list
    opened = open_set(name, tmp_path)
    gc.collect()
    tracemalloc.start()
    try:
        found = opened.utterances()
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found) == ROWS
    assert kept / ROWS < PER_ROW
    assert peak / ROWS < 2 * PER_ROW


def test_an_unknown_dataset_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="did you mean 'seed-tts-eval'"):
        open_set("seed-tts", tmp_path)
    with pytest.raises(DatasetError, match="is no folder of the demo corpus"):
        open_set("demo", tmp_path).utterances()


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_knows_in_which_line_a_text_stands(name: str, layout: Make) -> None:
    copy = layout(name)
    opened = open_set(name, copy.root)
    for utterance in opened.utterances():
        path, _, line = opened.dataset.place_of(utterance).rpartition(", line ")
        row = Path(path).read_text(encoding="utf-8").splitlines()[int(line) - 1]
        assert utterance.text in row
        assert utterance.id in row
    assert opened.dataset.place_of(replace(utterance, text="another")) == ""
