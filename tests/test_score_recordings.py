"""``imfbench score DIR… --dataset``: matching files to utterances, what is missing, and the comparison at the end."""

from __future__ import annotations

import dataclasses
import json
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from click.testing import CliRunner, Result

from imfbench.cli import main
from imfbench.datasets.demo.corpus import DemoCorpus
from imfbench.metrics.wer import WordErrorRate
from imfbench.pipeline.context import select
from imfbench.pipeline.recordings import match
from imfbench.pipeline.synthesise import synthesise
from imfbench.store import CellFolder

N = 4


def imfbench(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def utterances():  # type: ignore[no-untyped-def]
    return select(DemoCorpus().utterances("test"), N, False)


@pytest.fixture
def systems(utterances, tmp_path: Path) -> tuple[Path, Path]:  # type: ignore[no-untyped-def]
    """The recordings themselves, as ID.wav in folders; and a copy at half the rate, as gen_ID.flac in one folder."""
    first, second = tmp_path / "first", tmp_path / "second"
    for u in utterances:
        audio, rate = soundfile.read(u.target_audio, dtype="float32")
        (first / u.speaker).mkdir(parents=True, exist_ok=True)
        soundfile.write(first / u.speaker / f"{u.id}.wav", audio, rate)
        second.mkdir(exist_ok=True)
        soundfile.write(second / f"gen_{u.id}.flac", audio[::2], rate // 2)
    return first, second


@pytest.fixture
def score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    monkeypatch.setenv("IMFBENCH_CACHE", str(tmp_path / "cache"))

    def run(*arguments: object, metrics: str = "f0cv") -> Result:
        out = ("--dataset", "demo", "--limit", N, "--metrics", metrics, "--threads", 1, "--out", tmp_path / "out")
        return imfbench("score", *arguments, *out)

    return run


def summaries(folder: Path) -> dict[str, dict]:  # type: ignore[type-arg]
    found = [json.loads(file.read_text()) for file in folder.glob("cells/*/summary.json")]
    return {row["system"]: row for row in found}


def test_files_are_found_by_id_in_every_usual_form(tmp_path: Path) -> None:
    ids = ["a-1", "b/2", "c-3", "d-4", "e:5", "f-6"]
    kept = CellFolder(tmp_path).audio("e:5").name  # as a run keeps an id that makes no file name
    for name in ("a-1.wav", "b/2.flac", "deep/er/gen_c-3.WAV", kept, "notes.txt", "g-7.wav", "f-6.mp3"):
        (tmp_path / "files" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "files" / name).touch()
    found = match(tmp_path / "files", ids)
    assert {id: path.relative_to(tmp_path / "files").as_posix() for id, path in found.files.items()} == {
        "a-1": "a-1.wav",
        "b/2": "b/2.flac",
        "c-3": "deep/er/gen_c-3.WAV",
        "e:5": kept,
        "f-6": "f-6.mp3",
    }
    assert found.missing == ["d-4"]
    assert [path.name for path in found.extra] == ["g-7.wav"]
    assert found.twice == {}
    assert match(tmp_path / "files", ids, [*ids, "g-7"]).extra == []  # of the set, beyond a limit


def test_names_with_accents_are_found_however_a_file_system_writes_them(tmp_path: Path) -> None:
    one, other = (unicodedata.normalize(form, "étude-1") for form in ("NFC", "NFD"))
    for here, listed in ((one, other), (other, one)):
        (tmp_path / here).mkdir()
        (tmp_path / here / f"{here}.wav").touch()
        found = match(tmp_path / here, [listed])
        assert (list(found.files), found.missing, found.extra) == ([listed], [], [])


def test_two_systems_are_scored_and_tested_against_each_other(score, systems, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    result = score(*systems)
    assert result.exit_code == 0, result.output
    rows = summaries(tmp_path / "out")
    assert {name: (row["kind"], row["n_scored"]) for name, row in rows.items()} == {
        "first": ("recordings", N),
        "second": ("recordings", N),
    }
    board = json.loads((tmp_path / "out" / "leaderboard" / "leaderboard.json").read_text())
    tests = [(t["family"], t["a"], t["b"], t["column"], t["n"]) for t in board["comparisons"]]
    assert tests == [("recordings", "second", "first", "f0cv", N)]
    # The same speech at half the rate has nearly the same melody; equal figures would mean that one file was read twice.
    assert rows["first"]["f0cv"] != rows["second"]["f0cv"]
    assert abs(rows["first"]["f0cv"] - rows["second"]["f0cv"]) < 0.05
    assert "f0cv: f0cv-v1|" in result.output
    assert "second" in result.output
    text = (tmp_path / "out" / "leaderboard" / "leaderboard.md").read_text()
    assert "| NFE |" not in text
    assert "another program's: only its speech is here" in text


def test_ground_truth_as_a_system_has_the_figures_of_the_ground_truth_row(score, systems, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert score(systems[0], "--ground-truth").exit_code == 0
    rows = summaries(tmp_path / "out")
    assert rows["first"]["f0cv"] == pytest.approx(rows["ground-truth"]["f0cv"], rel=1e-3)


def test_a_changed_file_gets_a_new_score_and_the_others_keep_theirs(score, systems, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    first = systems[0]

    def scores() -> pd.DataFrame:
        assert score(first).exit_code == 0
        (table,) = (tmp_path / "out").glob("cells/*/utterances.parquet")
        return pd.read_parquet(table).set_index("id")

    before = scores()
    file = sorted(first.rglob("*.wav"))[0]
    audio, rate = soundfile.read(file)
    soundfile.write(file, audio[: len(audio) // 2], rate)
    after = scores()
    changed = before.index[before["f0cv"] != after["f0cv"]]
    assert list(changed) == [file.stem]


def test_a_missing_file_ends_the_command_and_names_itself(score, systems, utterances) -> None:  # type: ignore[no-untyped-def]
    lost = next(systems[0].rglob(f"{utterances[2].id}.wav"))
    lost.unlink()
    result = score(systems[0])
    assert result.exit_code == 2
    told = " ".join(result.output.split())
    assert f"first: 1 of {N} utterances have no file ({utterances[2].id})" in told
    assert "--allow-missing" in told


def test_allowed_missing_and_unreadable_files_count_as_all_deleted(  # type: ignore[no-untyped-def]
    score, systems, utterances, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {u.id: u.text for u in utterances}
    monkeypatch.setattr(WordErrorRate, "open_model", lambda self: None)
    monkeypatch.setattr(WordErrorRate, "observe", lambda self, item: {"hypothesis": texts[item.id]})
    next(systems[0].rglob(f"{utterances[0].id}.wav")).unlink()
    next(systems[0].rglob(f"{utterances[1].id}.wav")).write_bytes(b"RIFF")
    refused = score(systems[0], metrics="wer")
    assert refused.exit_code == 2
    assert "1 cannot be read" in " ".join(refused.output.split())
    # The metric that follows must leave the figures of the missing rows alone.
    result = score(systems[0], "--allow-missing", metrics="wer,f0cv")
    assert result.exit_code == 0, result.output
    row = summaries(tmp_path / "out")["first"]
    (table,) = (tmp_path / "out").glob("cells/*/utterances.parquet")
    frame = pd.read_parquet(table).set_index("id")
    assert frame["wer"].tolist() == [1.0, 1.0, 0.0, 0.0]
    words = frame["reference_words"].astype(int)
    assert row["wer"] == pytest.approx(words.iloc[:2].sum() / words.sum())
    assert (row["n_expected"], row["n_scored"]) == (N, N - 2)
    assert frame["f0cv_error"].notna().sum() == 2
    assert frame["wer_error"].isna().all(), "they have a WER"
    assert "all of its words count as deleted" in (tmp_path / "out" / "leaderboard" / "leaderboard.md").read_text()


def test_two_files_for_one_utterance_are_refused(score, systems, utterances) -> None:  # type: ignore[no-untyped-def]
    file = next(systems[0].rglob(f"{utterances[0].id}.wav"))
    shutil.copy(file, systems[0] / f"gen_{utterances[0].id}.wav")
    result = score(systems[0])
    assert result.exit_code == 2
    assert f"'{utterances[0].id}' has 2 files" in " ".join(result.output.split())
    for path in systems[0].rglob("*.wav"):
        if utterances[0].id not in path.name:
            path.unlink()
    assert f"'{utterances[0].id}' has 2 files" in " ".join(
        score(systems[0]).output.split()
    )  # also where nothing else is there


def test_silent_and_clipped_speech_is_flagged_in_its_row(score, systems, utterances, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    files = [next(systems[0].rglob(f"{u.id}.wav")) for u in utterances[:2]]
    audio, rate = soundfile.read(files[0])
    soundfile.write(files[0], np.zeros_like(audio), rate)
    soundfile.write(files[1], np.clip(100 * audio, -1, 1), rate)
    assert score(systems[0]).exit_code == 0
    (table,) = (tmp_path / "out").glob("cells/*/utterances.parquet")
    notes = pd.read_parquet(table)["notes"]
    assert "recording silent" in notes[0]
    assert "recording clipped" in notes[1]
    assert pd.isna(notes[2])


def test_a_recording_of_half_the_rate_that_is_listened_to_is_flagged(score, systems, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    for path in systems[0].rglob("*.wav"):
        audio, rate = soundfile.read(path)
        soundfile.write(path, audio[:: rate // 8000], 8000)
    assert score(*systems).exit_code == 0
    notes = {}
    for table in (tmp_path / "out").glob("cells/*/utterances.parquet"):
        frame = pd.read_parquet(table)
        notes[frame["sample_rate"].unique()[0]] = set(frame["notes"])
    usual = next(rate for rate in notes if rate != 8000)
    assert notes[8000] == {"recording of 8000 Hz, less than the 16000 Hz that is listened to"}
    assert (notes[usual] == {None}) == (usual >= 16000)


def test_a_file_is_decoded_once_when_it_is_matched(  # type: ignore[no-untyped-def]
    score, systems, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, times = soundfile.read, []
    # Each file is read here and once more by the scorer, whose samples are not kept until then.
    monkeypatch.setattr(soundfile, "read", lambda path, *a, **k: times.append(Path(path).stem) or read(path, *a, **k))
    monkeypatch.setattr("imfbench.experiment.RunWork.__call__", _only_matching)
    score(systems[0])
    assert len(times) == len(set(times)) == N


def _only_matching(work, job) -> None:  # type: ignore[no-untyped-def]
    if job.stage == "synthesise":
        synthesise(work.context, job.subject)


def test_what_was_left_out_or_lacking_stands_in_a_file(score, systems, utterances, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    ids, folder = [u.id for u in utterances], systems[0]
    places = {id: next(folder.rglob(f"{id}.wav")) for id in ids}
    places[ids[0]].unlink()
    places[ids[1]].rename(places[ids[1]].with_suffix(".m4a"))
    places[ids[2]].write_bytes(b"RIFF")
    for i in range(7):
        (folder / f"stranger{i}.aac").touch()
    shutil.copy(
        places[ids[3]], places[ids[3]].with_suffix(".M4A")
    )  # beside a file that can be read it is no second one
    for arguments, code in (((), 2), (("--allow-missing",), 0)):
        result = score(folder, *arguments)
        told = " ".join(result.output.split())
        assert result.exit_code == code, result.output
        assert "1 of 4 utterances have no file" in told
        assert "2 cannot be read" in told
        assert "files of the format .m4a are not read; convert it to wav or FLAC" in told
        (file,) = (tmp_path / "out").glob("cells/*/files.json")
        held = json.loads(file.read_text())
        assert (held["n_expected"], held["n_read"], held["missing"]) == (4, 1, [ids[0]])
        assert list(held["unreadable"]) == ids[1:3]
        assert ".m4a" in held["unreadable"][ids[1]]
        second = places[ids[3]].with_suffix(".M4A").relative_to(folder).as_posix()
        assert sorted(held["extra"]) == sorted([*(f"stranger{i}.aac" for i in range(7)), second])
        assert str(file) in result.output.replace("\n", "")


def test_rows_of_an_earlier_command_are_set_aside_with_a_word(score, systems, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert "set aside" not in score(systems[0]).output
    told = " ".join(score(systems[1]).output.split())
    assert "rows that are not asked for any more (first) were set aside in" in told
    assert "--out" in told
    assert [*(tmp_path / "out" / "cells" / ".apart").glob("*/summary.json")]
    assert "set aside" not in score(*systems).output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("score", "{first}"), "Name their test set with --dataset"),
        (("score", "--dataset", "demo"), "name the folders"),
        (("score", "{first}", "--dataset", "dmo"), "unknown dataset 'dmo': did you mean 'demo'"),
        (("score", "{first}", "--dataset", "demo", "--metrics", "wr"), "unknown metric 'wr': did you mean 'wer'"),
        (
            ("score", "{first}", "--dataset", "demo", "--metrics", " ,"),
            "name at least one metric, such as wer,sim,mos,f0cv",
        ),
        (("score", "{first}", "--dataset", "demo", "--margin", "wer"), "no METRIC=LOSS"),
        (
            ("score", "{first}", "--dataset", "demo", "--margin", "werr=0.1"),
            "no figure 'werr' to have a margin: did you mean",
        ),
        (
            ("score", "{first}", "--dataset", "demo", "--margin", "wer_mean=0.1"),
            "no figure 'wer_mean' to have a margin: did you mean 'wer'",
        ),
        (("score", "{first}", "--dataset", "demo", "--margin", "f0cv=0.1"), "neither better high nor low"),
        (("score", "{none}", "--dataset", "demo"), "no such folder"),
        (("score", "{empty}", "--dataset", "demo"), "whose ids look like 'test-"),
        (("score", "quickstart", "--baseline", "{first}"), "--baseline is for folders of recordings"),
    ],
)
def test_wrong_words_are_answered(arguments, words: str, systems, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "empty").mkdir()
    places = {"first": systems[0], "none": tmp_path / "none", "empty": tmp_path / "empty"}
    result = imfbench(*(argument.format(**places) for argument in arguments), "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())


def test_formats_are_printed(score, systems) -> None:  # type: ignore[no-untyped-def]
    latex = score(*systems, "--format", "latex").stdout
    assert r"\toprule" in latex
    assert latex.count(r"\\") == 3
    assert json.loads(score(*systems, "--format", "json").stdout)["schema"] == "imfbench-leaderboard-v1"
    assert score(*systems, "--format", "csv").stdout.startswith("task,system,kind,")
    assert score(*systems, "--format", "md").stdout.startswith("# Leaderboard of out")


def test_a_known_score_is_found_without_decoding_a_file(  # type: ignore[no-untyped-def]
    score, systems, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert score(systems[0], metrics="f0cv,sim").exit_code == 0
    before = summaries(tmp_path / "out")["first"]
    shutil.rmtree(tmp_path / "out" / "leaderboard")
    for name in ("scorer.load_audio", "recordings.load_noted"):
        monkeypatch.setattr(f"imfbench.pipeline.{name}", lambda *_: pytest.fail("decoded again"))
    assert score(systems[0], metrics="f0cv,sim").exit_code == 0
    after = summaries(tmp_path / "out")["first"]
    assert (after["f0cv"], after["sim"]) == (before["f0cv"], before["sim"])


def test_a_changed_prompt_changes_the_similarity_alone(  # type: ignore[no-untyped-def]
    score, systems, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert score(systems[0], metrics="f0cv,sim").exit_code == 0
    before = summaries(tmp_path / "out")["first"]
    other = DemoCorpus().utterances("dev")[0].prompt_audio
    honest = DemoCorpus.utterances
    monkeypatch.setattr(
        DemoCorpus,
        "utterances",
        lambda self, split: [dataclasses.replace(u, prompt_audio=other) for u in honest(self, split)],
    )
    assert score(systems[0], metrics="f0cv,sim").exit_code == 0
    after = summaries(tmp_path / "out")["first"]
    assert after["f0cv"] == before["f0cv"]
    assert after["sim"] < before["sim"] - 0.05
