"""Parts of the page: sentences no stronger than tests, sound, spectrograms, edits, choices, tables and the browser's data."""

from __future__ import annotations

import io
import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from matplotlib.figure import Figure
from PIL import Image

from imfbench.features.mel import FLOOR
from imfbench.reports.comparison import Comparison
from imfbench.reports.merged import merged
from imfbench.reports.page import audio, of_run
from imfbench.reports.page.board import board
from imfbench.reports.page.browse import browser
from imfbench.reports.page.choose import DIVIDED, RANDOM, WORST, choose
from imfbench.reports.page.sentences import findings, sentence
from imfbench.reports.page.spectrograms import LEVELS, LOUDEST, picture
from imfbench.reports.page.svg import svg
from imfbench.reports.page.words import edits
from imfbench.reports.results import Cell

TEST = Comparison(
    "teacher", "g", "wer", "student at NFE 1", "teacher at NFE 32", ["s"], ["t"], difference=0.01, low=0.0, high=0.02, p=0.2,
    p_holm=0.2, n=24, minimum_detectable=0.034, margin=0.02, verdict="no difference shown",
)  # fmt: skip


@pytest.mark.parametrize(
    ("different", "verdict", "not_worse", "equivalent"),
    list(itertools.product([True, False], ["better", "worse"], [True, False, None], [True, False, None])),
)
def test_a_sentence_says_no_more_than_its_test(
    different: bool, verdict: str, not_worse: bool | None, equivalent: bool | None
) -> None:
    p, shown = (0.01, verdict) if different else (0.3, "no difference shown")
    test = replace(TEST, p=p, p_holm=p, verdict=shown, not_worse=not_worse, equivalent=equivalent)
    text = sentence([test], [], [])
    assert text.startswith("student at 1 NFE ")
    assert ("is better than the teacher at 32 NFE on WER by 1.0 points" in text) == (different and verdict == "better")
    assert ("equals" in text) == (bool(equivalent) and not different)
    assert ("within the margin" in text) == (
        bool(equivalent and not different) or bool(not_worse and not (different and verdict == "better"))
    )
    assert ("is worse than" in text) == (different and verdict == "worse")
    assert ("by 1.0 points (within the margin of 2.0 points)" in text) == (
        different and verdict == "worse" and bool(not_worse)
    )
    claims = (not_worse, equivalent and not different, different)
    assert ("shows no difference" in text) == (not any(claims))
    if "shows no difference" in text:
        assert "3.4 points could have been seen four times in five, before correction" in text


def test_too_few_utterances_are_said_to_be_too_few_and_never_to_show_equality() -> None:
    few = replace(TEST, minimum_detectable=None, verdict="too few to tell", not_worse=True, equivalent=True)
    told = sentence([few, replace(few, column="sim")], [], [])
    assert told == (
        "student at 1 NFE has too few utterances to show a difference from the teacher at 32 NFE on WER and SIM-o."
    )
    worse = replace(TEST, p_holm=0.01, verdict="worse", not_worse=False)
    assert sentence([worse, replace(few, column="sim")], [], []) == (
        "student at 1 NFE is worse than the teacher at 32 NFE on WER by 1.0 points; it has too few utterances to show a "
        "difference on SIM-o."
    )


def test_a_sentence_over_several_figures_reads_as_the_tests_do() -> None:
    tests = [
        replace(TEST, not_worse=True),
        replace(TEST, column="sim", margin=0.03, not_worse=True, difference=-0.01),
        replace(
            TEST, column="mos_distillmos", p=0.001, p_holm=0.004, difference=-1.5, verdict="worse", not_worse=False
        ),
    ]
    row = {
        "system": "student",
        "status": "ok",
        "nfe": 1,
        "rtf_network": 0.05,
        "device": "cpu",
        "threads": 2,
        "batch": 1,
    }
    teacher = {**row, "system": "teacher", "nfe": 32, "rtf_network": 1.35}
    text = sentence(tests, [Cell(row)], [Cell(teacher)])
    assert text == (
        "student at 1 NFE is within the margin of the teacher at 32 NFE on WER (2.0 points) and SIM-o (0.030); it is worse "
        "than it on MOS (DistillMOS) by 1.50; 27 times less network time."
    )
    elsewhere = sentence(tests, [Cell(row)], [Cell({**teacher, "threads": 8})])
    assert "network time" not in elsewhere  # speeds of two settings say nothing about two systems
    untested = sentence([replace(TEST, p_holm=None, verdict="not tested: no utterances")], [], [])
    assert untested == "student at 1 NFE could not be tested against the teacher at 32 NFE: no utterances."


def test_opus_is_the_same_for_the_same_sound_and_can_be_decoded(tmp_path: Path) -> None:
    time = np.arange(24_000) / 24_000
    sound = (0.4 * np.sin(2 * np.pi * 220 * time) * np.hanning(24_000)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", sound, 24_000)
    made, seconds = audio.opus(tmp_path / "a.wav", 32)
    assert made == audio.opus(tmp_path / "a.wav", 32)[0]
    assert seconds == 1.0
    assert 2_000 < len(made) < 8_000  # 32 kbit/s, and what Ogg adds
    heard, rate = soundfile.read(io.BytesIO(made))  # libogg leaves out pages whose checksum is wrong
    assert (rate, len(heard)) == (24_000, 24_000)
    assert np.corrcoef(heard, sound)[0, 1] > 0.98
    with pytest.raises(ValueError, match="no Ogg page at byte 0"):
        audio.renumbered(b"RIFF")


def test_spectrograms_share_one_scale() -> None:
    mel = np.full((7, 80), np.log(FLOOR))
    mel[3, 0] = LOUDEST
    mel[4, 79] = LOUDEST + 5
    image = Image.open(io.BytesIO(picture(mel)))
    levels = np.asarray(image)
    assert levels.shape == (80, 7)
    assert levels[79, 3] == levels[0, 4] == LEVELS - 1  # low bands below; what is louder still is as bright
    assert levels.sum() == 2 * (LEVELS - 1)
    quiet = np.asarray(Image.open(io.BytesIO(picture(mel - 3))))
    assert quiet[79, 3] < levels[79, 3]  # no picture is stretched to its own loudest point


def test_edits_are_those_that_the_wer_counts() -> None:
    assert edits("the cat sat down", "a cat sat") == [
        ("sub", "the", "a"), ("ok", "cat", "cat"), ("ok", "sat", "sat"), ("del", "down", ""),
    ]  # fmt: skip
    assert edits("one two", "one new two")[1] == ("ins", "", "new")
    assert edits("one two", "") == [("del", "one", ""), ("del", "two", "")]
    assert edits(None, "x") == edits(float("nan"), "x") == []


def test_utterances_are_chosen_by_chance_by_wer_and_by_disagreement(run: Any) -> None:
    worst, divided = np.zeros(30), np.full(30, 0.8)
    worst[[4, 9]] = 0.5
    divided[17] = 0.2
    run.cell("ground-truth", None, {"wer": np.ones(30), "sim": np.ones(30)})
    run.cell("one", 1, {"wer": worst, "sim": divided})
    run.cell("two", 1, {"wer": worst, "sim": np.full(30, 0.8)})
    cells = of_run(run.path).cells
    found = choose(cells, 9, seed=0)
    assert len(found) == 9
    assert {one for one, why in found.items() if WORST in why} == {"u004", "u009"}  # recordings are not "generated"
    assert DIVIDED in found["u017"]
    assert sum(RANDOM in why for why in found.values()) >= 3
    assert choose(cells, 9, seed=0) == found != choose(cells, 9, seed=1)
    assert len(choose(cells, 100, seed=0)) == 30
    assert choose(cells, 0, seed=0) == {}
    assert all(len(why) == len(set(why)) for why in found.values())


def test_the_table_keeps_references_above_and_sets_other_hardware_apart(run: Any) -> None:
    scores = np.linspace(0.7, 0.9, 24)
    run.cell("ground-truth", None, {"sim": scores + 0.05})
    run.cell("teacher", 32, {"sim": scores}, rtf_total=1.0)
    run.cell("best", 1, {"sim": scores - 0.01 + 0.001 * np.sin(3 * np.arange(24))}, rtf_total=0.1)
    run.cell("tied", 1, {"sim": scores - 0.01 + 0.002 * np.sin(np.arange(24))}, rtf_total=0.1)
    run.cell("elsewhere", 1, {"sim": scores - 0.2 + 0.01 * np.cos(np.arange(24))}, rtf_total=0.01, threads=8)
    made = board(of_run(run.path).tables[0])
    assert [[row.name for row in block.rows] for block in made.blocks] == [
        ["ground-truth", "teacher"], ["best", "tied"], ["elsewhere"],
    ]  # fmt: skip
    assert made.blocks[0].pinned
    assert made.blocks[2].title.startswith("Timed on cpu, 8 threads, batch 1")
    titles = [title for title, _, _ in made.columns]
    marks = {row.name: row.figures[titles.index("SIM-o") - 1].mark for block in made.blocks for row in block.rows}
    assert marks == {"ground-truth": "", "teacher": "best", "best": "", "tied": "", "elsewhere": ""}
    assert made.signatures == {"sim": "sim-v1|model:resemblyzer"}
    assert (made.systems, made.nfes) == (["ground-truth", "teacher", "best", "elsewhere", "tied"], ["1", "32"])


def test_what_two_machines_timed_is_set_apart_and_its_speeds_are_not_divided(run: Any, tmp_path: Path) -> None:
    scores = np.linspace(0.7, 0.9, 24)
    runs = {"laptop": run, "server": type(run)(tmp_path / "server")}
    runs["laptop"].cell("teacher", 32, {"sim": scores}, rtf_total=9.0, rtf_network=8.0)
    for number, (machine, one) in enumerate(runs.items()):
        change = {"rtf_total": 0.2, "rtf_network": 0.1}
        one.cell(f"on-{machine}", 1, {"sim": scores - 0.1 * np.cos(number + np.arange(24))}, **change)
        hardware = {"device": "cpu", "cpu": f"{machine}'s CPU", "cores": 2 + number}
        (one.path / "manifest.json").write_text(json.dumps({"hardware": hardware}))
    (table,) = merged([run.path, tmp_path / "server"]).tables
    assert [cell.row["hardware"] for cell in table.group.cells] == [
        *["laptop's CPU, 2 cores"] * 2,
        "server's CPU, 3 cores",
    ]
    told = {one.text.partition(" at ")[0]: one.text for one in findings(table)}
    assert "80 times less network time" in told["on-laptop"]
    assert "network time" not in told["on-server"]
    made = board(table)
    assert [[row.name for row in block.rows] for block in made.blocks] == [["teacher"], ["on-laptop"], ["on-server"]]
    assert made.blocks[2].title.startswith("Timed on cpu (server's CPU, 3 cores), 1 thread, batch 1")
    for one in runs.values():
        (one.path / "manifest.json").unlink()
    told = {
        one.text.partition(" at ")[0]: one.text for one in findings(merged([run.path, tmp_path / "server"]).tables[0])
    }
    assert "80 times less network time" in told["on-laptop"]
    assert "network time" not in told["on-server"]


def test_a_teacher_that_was_timed_elsewhere_is_marked(run: Any) -> None:
    scores = {"sim": np.linspace(0.7, 0.9, 24)}
    run.cell("ground-truth", None, scores)
    for nfe in (8, 32):
        run.cell("teacher", nfe, scores, rtf_total=0.1, device="cuda")
    run.cell("one", 1, scores, rtf_total=0.1)
    made = board(of_run(run.path).tables[0])
    place = [title for title, _, _ in made.columns].index("RTF") - 1
    notes = dict(made.footnotes)
    told = [notes.get(row.figures[place].note, "") for block in made.blocks for row in block.rows]
    assert (
        told[1]
        == told[2]
        == ("timed on cuda, 1 thread, batch 1, unlike most rows (cpu, 1 thread, batch 1): the speeds do not compare")
    )
    assert told[3] == ""
    assert [block.title for block in made.blocks] == ["", ""]


def test_the_browser_has_every_utterance_with_its_figures_and_each_text_once(run: Any) -> None:
    for system in ("teacher", "student"):
        run.speech(run.cell(system, 1, {"wer": [0, 0.3], "sim": [0.81234567, np.nan]}), ["same", "other"])
    data = browser(of_run(run.path).tables)
    assert data["texts"].count("same") == 1
    assert [name for name, *_ in data["figures"]] == ["wer", "sim"]
    assert [row["figures"] for row in data["rows"]] == [[[0, 0.3], [0.8123, None]]] * 2
    assert [data["texts"][i] for i in data["rows"][1]["id"]] == ["u000", "u001"]
    assert data["rows"][0]["said"] == data["rows"][0]["text"]
    assert data["rows"][0]["why"] == [-1, -1]


def test_a_figure_becomes_markup_without_styles() -> None:
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([0, 1], [0, 1], color="#0173b2", label="a <b> & c")
    figure.axes[0].legend()
    text = svg(figure, "f0", 'what "it" shows')
    assert text.startswith("<svg")
    assert "style" not in text
    assert "http" not in text
    assert 'stroke="#0173b2"' in text
    assert "a &lt;b&gt; &amp; c" in text
    assert 'aria-label="what &quot;it&quot; shows"' in text
