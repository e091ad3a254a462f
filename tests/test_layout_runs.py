"""``imfbench run`` on the published layouts: references, English texts by text2mel, and what is said where that cannot be."""

from __future__ import annotations

import csv
import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imfbench.artefact import save_artefact
from imfbench.backbones.aligning_dit import AligningDiT
from imfbench.building import build_method
from imfbench.contracts.layouts import LAYOUTS, write_layout
from imfbench.data import Utterance
from imfbench.datasets.demo.corpus import DemoCorpus
from imfbench.features import mel
from imfbench.features.audio import load_audio, save_audio
from imfbench.features.phones import TextError
from imfbench.pipeline.context import select
from imfbench.sets import open_set

SHAPE = {"dim": 32, "depth": 1, "alignment_depth": 1, "heads": 2, "content_layers": 1}
FIRST = {"seed-tts-eval": "en", "librispeech": "test-clean"}


def data(name: str, root: Path, **options: Any) -> dict[str, Any]:
    return {"name": name, "split": FIRST.get(name, "test"), "options": {"root": str(root), **options}}


def text2mel(folder: Path) -> list[dict[str, Any]]:
    """A system whose network is ready: what it says is noise."""
    method = build_method("teacher", {"guidance": 2.0}, backbone="aligning-dit", backbone_config=SHAPE)
    save_artefact(folder / "text", "teacher", method, {"task": "text2mel", "training": {"steps": 1}})
    return [{"method": "teacher", "name": "own", "artefact": str(folder / "text"), "nfe": [1]}]


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_recordings_are_the_ground_truth(name: str, tiny) -> None:  # type: ignore[no-untyped-def]
    root = write_layout(name, tiny.folder / name, 2)
    config = tiny.config(dataset=data(name, root), systems=[])
    for command in ("synthesize", "score"):
        result = tiny.invoke(config, command=command)
        assert result.exit_code == 0, result.output
    opened = open_set(name, root)
    tables = tiny.tables()
    assert set(tables) == {"ground-truth", "vocoded-ground-truth"}
    for table in tables.values():
        assert list(table.index) == [u.id for u in opened.utterances()]
        assert set(table["status"]) == {"ok"}
        assert table["sim"].between(0.5, 1).all()
        assert (table["reference_seconds"] > 4).all()
        for u in opened.utterances():
            assert table.loc[u.id, "seconds"] == pytest.approx(table.loc[u.id, "reference_seconds"], abs=0.1)
            if name.startswith("librispeech"):
                assert table.loc[u.id, "notes"] is None  # 16 kHz is its own rate
    truth = opened.utterances()[0]
    made = next((tiny.out / "cells").glob(f"*/audio/{truth.id}.*"))
    assert len(load_audio(made)[0]) > 60_000


def test_hard_texts_without_recordings_are_rows_with_a_reason(tiny) -> None:  # type: ignore[no-untyped-def]
    root = write_layout("seed-tts-eval", tiny.folder / "seed", 2)
    hard = {**data("seed-tts-eval", root), "split": "hard"}
    config = tiny.config(dataset=[data("seed-tts-eval", root), hard], systems=[])
    for command in ("synthesize", "score"):
        assert tiny.invoke(config, command=command).exit_code == 0
    tables = tiny.tables()
    assert set(tables["ground-truth on seed-tts-eval/en"]["status"]) == {"ok"}
    failed = tables["vocoded-ground-truth on seed-tts-eval/hard"]
    assert set(failed["status"]) == {"failed"}
    assert failed["reason"].str.contains("holds no recording of this utterance").all()


def test_english_texts_are_said_by_text2mel_and_a_missing_prompt_is_its_own_row(tiny) -> None:  # type: ignore[no-untyped-def]
    root = write_layout("librispeech-pc", tiny.folder / "pc", 3)
    utterances = open_set("librispeech-pc", root).utterances()
    utterances[0].prompt_audio.unlink()
    systems = text2mel(tiny.folder)
    config = tiny.config(task="text2mel", dataset=data("librispeech-pc", root), systems=systems, references=[])
    for command in ("synthesize", "score"):
        result = tiny.invoke(config, command=command)
        assert result.exit_code == 0, result.output
    (table,) = tiny.tables().values()
    first, *others = (u.id for u in utterances)
    assert table.loc[first, "status"] == "failed"
    assert f"no audio file {utterances[0].prompt_audio}" in table.loc[first, "reason"]
    assert set(table.loc[others, "status"]) == {"ok"}
    assert set(table.loc[others, "network_calls"]) == {2}


def test_a_prompt_without_enough_speech_fails_its_own_row_and_is_named(tiny) -> None:  # type: ignore[no-untyped-def]
    root = write_layout("librispeech-pc", tiny.folder / "pc", 4)
    utterances = open_set("librispeech-pc", root).utterances()
    prompts = [u.prompt_audio for u in utterances]
    assert len({*prompts}) == 4
    speech, rate = load_audio(prompts[0])
    faults = [
        (0 * speech, "it is silent: record it again, or give another"),
        (speech[rate : 3 * rate // 2], "s of speech, less than 1 s: give a longer one"),
        (np.tile(speech, 5), "s of speech, more than 10 s: cut it to a sentence or two"),
    ]
    for path, (audio, _) in zip(prompts, faults, strict=False):
        save_audio(path, audio, rate)
    systems = text2mel(tiny.folder)
    config = tiny.config(task="text2mel", dataset=data("librispeech-pc", root), systems=systems, references=[])
    assert tiny.invoke(config, command="synthesize").exit_code == 0
    rows = journalled(tiny.out)
    for u, (_, words) in zip(utterances, faults, strict=False):
        assert rows[u.id]["status"] == "failed"
        assert rows[u.id]["reason"].startswith(f"PromptError: the prompt {u.prompt_audio} cannot be used: it ")
        assert words in rows[u.id]["reason"]
        assert rows[u.id]["reason"].count(str(u.prompt_audio)) == 1
    assert rows[utterances[3].id]["status"] == "ok"


def test_a_text_that_cannot_be_said_is_named_with_its_line_and_no_recording(  # type: ignore[no-untyped-def]
    tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_layout("folder", tiny.folder / "mine", 3)
    path = root / "test.csv"
    rows = list(csv.DictReader(path.open(encoding="utf-8")))
    rows[0]["text"] = "Привет"
    rows[1]["prompt_text"] = "Да"
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, [*rows[0], "language"])
        table.writeheader()
        table.writerows({**row, "language": "en"} for row in rows)
    systems = text2mel(tiny.folder)
    config = tiny.config(task="text2mel", dataset=data("folder", root), systems=systems, references=[])
    assert tiny.invoke(config, command="synthesize").exit_code == 0
    first, second, third = (row["reason"] or "" for row in journalled(tiny.out).values())
    assert "this English voice cannot say: 'Привет'; write it in Latin letters" in first
    assert first.endswith(f" ({path}, line 2)")
    assert "the prompt's text holds " in second
    assert second.endswith(f" ({path}, line 3)")
    assert ".wav" not in first + second
    assert third == ""
    monkeypatch.setattr(AligningDiT, "longest", 10)  # frames, fewer than the text alone needs
    assert tiny.invoke(config, command="synthesize", out=tiny.folder / "longer").exit_code == 0
    third = journalled(tiny.folder / "longer")[rows[2]["id"]]["reason"]
    assert third.endswith(f": split the text (text {rows[2]['text']!r}, {path}, line 4)")


def journalled(out: Path) -> dict[str, dict[str, Any]]:
    """The rows of a run's only cell, by id."""
    (journal,) = out.glob("cells/*/utterances.jsonl")
    return {row["id"]: row for row in map(json.loads, journal.read_text(encoding="utf-8").splitlines())}


def test_a_prompts_text_that_is_another_says_where_to_correct_it(tiny) -> None:  # type: ignore[no-untyped-def]
    root = write_layout("librispeech-pc", tiny.folder / "pc", 1)
    opened = open_set("librispeech-pc", root, {"task": "text2mel"})
    with pytest.raises(TextError, match="with --prompt-text or as the prompt's text in the list"):
        opened.dataset.condition(replace(opened.utterances()[0], prompt_text="Hi."))


def test_every_table_says_where_the_length_of_a_text_comes_from(tiny) -> None:  # type: ignore[no-untyped-def]
    """The embedded corpus by the prompt's rate: as long as the rate makes it, whatever its recording is."""
    corpus = {"name": "demo", "limit": 1, "prefer_short": True}
    systems, options = text2mel(tiny.folder), {"length": "prompt-rate"}
    frames = {}
    for name, given in (("prompt's rate", options), ("true length", {})):
        out = tiny.folder / name[0]
        config = tiny.config(task="text2mel", dataset={**corpus, "options": given}, systems=systems, references=[])
        assert tiny.invoke(config, out=out).exit_code == 0
        (row,) = tiny.leaderboard(out)
        assert row["dataset"].endswith(f", {name}"), row["dataset"]
        assert f", {name}" in (out / "leaderboard" / "leaderboard.md").read_text()
        (table,) = tiny.tables(out).values()
        frames[name] = round(table["seconds"].iloc[0] * mel.SAMPLE_RATE / mel.HOP)
        asked = DemoCorpus(task="text2mel", **given)
        (utterance,) = (u for u in asked.utterances() if u.id == table.index[0])
        assert frames[name] == int((~asked.condition(utterance).prompt).sum())
    assert len({*frames.values()}) == 2


@pytest.mark.parametrize("name", LAYOUTS)
def test_token2mel_is_told_what_is_missing(name: str, tiny) -> None:  # type: ignore[no-untyped-def]
    root = write_layout(name, tiny.folder / name, 2)
    told = tiny.refused(tiny.config(dataset=data(name, root)))
    assert f"dataset {name!r} has texts and recordings, but networks of token2mel are given semantic tokens" in told
    assert "set task: text2mel" in told
    assert "leave out `teacher` and `systems`" in told
    assert not (tiny.out / "cells").exists()


def test_what_text2mel_cannot_say(tiny, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    root = write_layout("seed-tts-eval", tiny.folder / "seed", 2)
    zh = {**data("seed-tts-eval", root), "split": "zh"}
    systems = text2mel(tiny.folder)
    told = tiny.refused(tiny.config(task="text2mel", dataset=zh, systems=systems))
    assert "its set 'zh' is Chinese, and the embedded networks have the phones of English" in told
    config = tiny.config(task="text2mel", dataset=data("seed-tts-eval", root), systems=systems)
    find, missing = importlib.util.find_spec, ("phonemizer", "espeakng_loader")
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None if module in missing else find(module))
    assert "pip install 'imfbench[g2p]'" in tiny.refused(config)


def test_a_set_for_testing_is_no_training_data(tiny) -> None:  # type: ignore[no-untyped-def]
    root = write_layout("folder", tiny.folder / "mine", 2)
    train = {"name": "folder", "options": {"root": str(root)}}
    told = tiny.refused(tiny.config(train_data=train, systems=tiny.trained))
    assert "dataset 'folder' is for testing alone: name another as `train_data`" in told


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"split": "en"}, "dataset 'seed-tts-eval' needs the option 'root', the folder of en/meta.lst"),
        ({"split": "en", "options": {"rot": "x"}}, "has no option 'rot': did you mean 'root'?"),
        ({"split": "en", "options": {"root": "nowhere"}}, "there is no folder nowhere; correct `root` (or --data)"),
        ({"options": {"root": "."}}, "dataset 'seed-tts-eval' has no set 'test': known: en, hard, zh"),
        ({"split": "en", "options": {"root": "."}}, "en/meta.lst cannot be read"),
        ({"split": "en", "options": {"root": 5}}, "dataset 'seed-tts-eval' cannot be opened with"),
    ],
)
def test_a_dataset_that_is_named_wrongly_is_refused(tiny, change: dict[str, Any], words: str) -> None:  # type: ignore[no-untyped-def]
    config = tiny.config(dataset={"name": "seed-tts-eval", **change}, systems=[])
    told = tiny.refused(config)
    assert words in told
    if "option '" in words:
        assert f"{config}, line " in told


def test_an_overview_opens_no_recording_and_a_shortest_one_is_found(tiny) -> None:  # type: ignore[no-untyped-def]
    root = write_layout("seed-tts-eval", tiny.folder / "seed", 4)
    config = tiny.config(dataset=data("seed-tts-eval", root), systems=[])
    from click.testing import CliRunner

    from imfbench.cli import main

    told = CliRunner().invoke(main, ["run", str(config), "--dry-run", "--no-measuring", "--out", str(tiny.out)]).output
    assert "4 utterances of seed-tts-eval/en" in told
    found = open_set("seed-tts-eval", root).utterances()
    (taken,) = select(found, 1, prefer_short=True)
    assert taken == found[0]  # each speaker's shortest, the speakers in turn
    same = [Utterance(u.id, u.text, "en", "one", *(getattr(u, f) for f in LAST)) for u in found]
    (taken,) = select(same, 1, prefer_short=True)
    assert taken.target_audio == min(found, key=lambda u: len(load_audio(u.target_audio)[0])).target_audio


LAST = ("prompt_id", "prompt_text", "prompt_audio", "target_audio", "seconds")
