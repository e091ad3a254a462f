"""Scoring the same audio again: what is asked of the models a second time, and that threads and processes change no figure."""

from __future__ import annotations

import dataclasses
import json
import shutil
import threading
import weakref
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import soundfile
from click.testing import CliRunner, Result

from imfbench import published
from imfbench.cli import main
from imfbench.datasets.demo.corpus import DemoCorpus
from imfbench.metrics.base import ScoreError, ScoreItem
from imfbench.metrics.protocols import PROTOCOLS
from imfbench.metrics.signature import differences
from imfbench.metrics.wer import WordErrorRate
from imfbench.pipeline import score_workers
from imfbench.pipeline.context import select
from imfbench.pipeline.scorer import Asked, Scorer
from imfbench.score_cache import ScoreCache
from imfbench.store import file_sha256

N = 3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Recordings of the embedded corpus as somebody else's output, one of them at another rate."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    for i, u in enumerate(select(DemoCorpus().utterances("test"), N, False)):
        audio, rate = soundfile.read(u.target_audio, dtype="float32")
        soundfile.write(folder / f"{u.id}.wav", audio[:: i + 1], rate // (i + 1))
    return folder


@pytest.fixture
def score(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    monkeypatch.setenv("IMFBENCH_CACHE", str(tmp_path / "cache"))

    def run(*arguments: object, out: str = "out", metrics: str = "f0cv", dataset: tuple[object, ...] = ()) -> Result:
        fixed = ("--limit", N, "--metrics", metrics, "--threads", 1, "--out", tmp_path / out)
        given = ("score", folder, *(dataset or ("--dataset", "demo")), *fixed, *arguments)
        result = CliRunner().invoke(main, [str(argument) for argument in given])
        assert result.exit_code == 0, result.output
        return result

    return run


def rows(tmp_path: Path, out: str = "out") -> pd.DataFrame:
    (table,) = (tmp_path / out).glob("cells/*/utterances.parquet")
    return pd.read_parquet(table).set_index("id")


class Listener:
    """Stands for the recogniser and counts what it is asked; what it hears is written beforehand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, hears: str) -> None:
        self.hears, self.asked, self.fails = hears, 0, 0
        monkeypatch.setattr(WordErrorRate, "open_model", lambda metric: self)
        monkeypatch.setattr(WordErrorRate, "observe", lambda metric, item: self.observe(item))

    def observe(self, item: ScoreItem) -> dict[str, Any]:
        self.asked += 1
        if self.asked <= self.fails:
            raise ScoreError("the line was bad")
        return {"hypothesis": self.hears}


def test_the_same_audio_in_another_run_needs_no_model(score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    listener = Listener(monkeypatch, "one")
    score(metrics="wer")
    assert listener.asked == N
    score(metrics="wer", out="again")
    assert listener.asked == N
    pd.testing.assert_frame_equal(rows(tmp_path).drop(columns="audio"), rows(tmp_path, "again").drop(columns="audio"))


def test_failed_rows_are_tried_again_and_only_they(score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    listener = Listener(monkeypatch, "one")
    listener.fails = 1
    score(metrics="wer")
    assert rows(tmp_path)["wer_error"].notna().sum() == 1
    score(metrics="wer")
    assert listener.asked == N + 1
    assert rows(tmp_path)["wer_error"].notna().sum() == 0


def own_set(place: Path, folder: Path, text: str) -> tuple[object, ...]:
    """A test set of one's own for the recordings, in which all of them should have said ``text``."""
    place.mkdir()
    shutil.copy(DemoCorpus().utterances("test")[0].prompt_audio, place / "prompt.flac")
    lines = [f"{file.stem},{text},prompt.flac" for file in sorted(folder.glob("*.wav"))]
    (place / "test.csv").write_text("\n".join(["id,text,prompt_audio", *lines, ""]))
    return "--dataset", "folder", "--data", place


def test_another_text_changes_the_figure_without_another_transcript(  # type: ignore[no-untyped-def]
    score, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = Listener(monkeypatch, "said so")
    for text, figure in (("said so", 0.0), ("said more", 0.5)):
        place = tmp_path / text.replace(" ", "-")
        score(metrics="wer", out=text, dataset=own_set(place, folder, text))
        assert rows(tmp_path, text)["wer"].tolist() == [figure] * N
    assert listener.asked == N


def test_another_normaliser_changes_the_figure_without_another_transcript(  # type: ignore[no-untyped-def]
    score, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = dataclasses.replace(PROTOCOLS["imfbench"], name="other-text", text=PROTOCOLS["seed-tts-eval"].text)
    monkeypatch.setitem(PROTOCOLS, "other-text", other)
    listener = Listener(monkeypatch, "I am here")
    dataset = own_set(tmp_path / "set", folder, "I'm here")
    score(metrics="wer", dataset=dataset)
    score("--set", "metrics={wer: {protocol: other-text}}", metrics="wer", out="other", dataset=dataset)
    ours, theirs = rows(tmp_path), rows(tmp_path, "other")
    assert (ours["wer"].tolist(), theirs["wer"].tolist()) == ([0.0] * N, [1.0] * N)
    assert listener.asked == N
    changed = differences(ours["wer_signature"].iloc[0], theirs["wer_signature"].iloc[0])
    assert "norm" in changed
    assert "beam" not in changed


@pytest.mark.parametrize(
    "options",
    [{"compute": "float32"}, {"protocol": "f5-tts", "asr": "whisper-base"}, {"asr_path": "other"}],
    ids=["precision", "decoding", "model"],
)
def test_another_model_or_decoding_is_another_key(options: dict[str, str], tmp_path: Path) -> None:
    if "asr_path" in options:  # only its sum is asked for
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "model.bin").write_bytes(b"other weights")
        options = {"asr_path": str(tmp_path / "other")}
    audio, rate = soundfile.read(DemoCorpus().utterances("test")[0].target_audio, dtype="float32")
    item = ScoreItem("u", audio, rate, "text")
    ours, other = WordErrorRate(), WordErrorRate(WordErrorRate.Config(**options))
    assert ours.cache_key(item) != other.cache_key(item)
    assert ours.cache_key(item) == WordErrorRate().cache_key(item)


def test_a_damaged_entry_is_made_again_in_a_run(score, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    score()
    before = rows(tmp_path)["f0cv"].tolist()
    observed = [f for f in (tmp_path / "cache" / "scores").rglob("*.jsonl") if b'"f0"' in f.read_bytes()]
    assert len(observed) == N
    observed[1].write_bytes(observed[1].read_bytes().replace(b"0.0", b"9.0", 1))
    whole = observed[0].read_bytes()
    told = score().output
    assert str(observed[1]) in told
    assert str(observed[0]) not in told
    assert rows(tmp_path)["f0cv"].tolist() == before
    assert observed[0].read_bytes() == whole
    assert ScoreCache(tmp_path / "cache" / "scores").sections()[0].entries == 2 * N
    assert "is damaged" not in score().output


@pytest.mark.slow
def test_processes_give_the_rows_of_threads(score, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    score(metrics="f0cv,sim")
    score("--workers", 2, "--set", f"score_cache={tmp_path / 'fresh'}", metrics="f0cv,sim", out="two")
    pd.testing.assert_frame_equal(rows(tmp_path).drop(columns="audio"), rows(tmp_path, "two").drop(columns="audio"))
    assert {section.entries for section in ScoreCache(tmp_path / "fresh").sections()} == {2 * N}
    assert json.loads(next((tmp_path / "two").glob("cells/*/summary.json")).read_text())["n_scored"] == N


def test_only_a_few_utterances_are_in_memory_at_a_time(tmp_path: Path, folder: Path) -> None:
    """Forty of them, of which no more may be alive than are decoded ahead and listened to."""
    alive = most = 0
    lock = threading.RLock()  # the collector may come at any time

    def gone() -> None:
        nonlocal alive
        with lock:
            alive -= 1

    class Counting(WordErrorRate):
        workers = 2  # type: ignore[assignment]

        def prepare(self, item: ScoreItem) -> ScoreItem:
            nonlocal alive, most
            weakref.finalize(item.audio, gone)
            with lock:
                alive += 1
                most = max(most, alive)
            return item

        def open_model(self) -> None:
            return None

        def observe(self, item: ScoreItem) -> dict[str, Any]:
            return {"hypothesis": item.text}

    utterance = DemoCorpus().utterances("test")[0]
    file = sorted(folder.glob("*.wav"))[0]
    audio, rate = soundfile.read(file, dtype="float32")
    asked = []
    for i in range(40):
        soundfile.write(folder / f"x{i}.wav", audio * (1 - i / 100), rate)
        sha256 = file_sha256(folder / f"x{i}.wav")
        row = {"id": str(i), "status": "ok", "audio": f"x{i}.wav", "audio_sha256": sha256}
        asked.append(Asked(row, folder, utterance))
    scorer = Scorer(Counting(), ScoreCache(tmp_path / "cache"), "only-missing")
    found = list(score_workers.by_threads(scorer, iter(asked)))
    assert [row["wer"] for row in found] == [0.0] * 40
    assert 2 <= most <= score_workers.AHEAD + 2 * 2 + 2


@pytest.mark.parametrize("reads", [("audio",), ("audio", "prompt"), None])
def test_a_prompt_is_read_by_what_needs_it_whether_the_score_is_known_or_not(
    tmp_path: Path, folder: Path, reads: tuple[str, ...] | None
) -> None:
    """One that cannot be read costs the figures of the metrics that hear it, and no other."""
    heard: list[bool] = []

    class Hearing(WordErrorRate):
        def open_model(self) -> None:
            return None

        def observe(self, item: ScoreItem) -> dict[str, Any]:
            heard.append(item.prompt_audio is not None)
            return {"hypothesis": item.text}

    Hearing.reads = reads
    whole = DemoCorpus().utterances("test")[0]
    (tmp_path / "no-audio.flac").write_text("no audio")
    damaged = dataclasses.replace(whole, prompt_audio=tmp_path / "no-audio.flac")
    file = folder / f"{whole.id}.wav"
    row = {"id": whole.id, "status": "ok", "audio": file.name, "audio_sha256": file_sha256(file)}

    def scored(utterance: Any, cache: str) -> dict[str, Any]:
        scorer, asked = Scorer(Hearing(), ScoreCache(tmp_path / cache), "only-missing"), Asked(row, folder, utterance)
        return scorer.known(asked) or scorer.hear(scorer.look(asked))

    assert scored(whole, "warm")["wer"] == 0
    cold, warm = scored(damaged, "cold"), scored(damaged, "warm")
    assert cold == warm
    if reads == ("audio",):
        assert (cold["wer"], cold["wer_error"]) == (0, None)
        assert heard == [False, False]
    else:
        assert "no-audio.flac" in cold["wer_error"]
        assert heard == [True]


def test_intervals_and_tests_over_speakers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty-two speakers with short pieces of recordings, some with two; and the same with nineteen."""
    monkeypatch.setenv("IMFBENCH_CACHE", str(tmp_path / "cache"))
    pieces = []
    for u in select(DemoCorpus().utterances("test"), 8, False):
        audio, rate = soundfile.read(u.target_audio, dtype="float32")
        pieces += [audio[i * rate : (i + 1) * rate] for i in range(3)]
    folders = [tmp_path / "slow", tmp_path / "fast"]
    for i, piece in enumerate(pieces):
        for folder, faster in zip(folders, (1.0, 1.1), strict=True):
            folder.mkdir(exist_ok=True)
            soundfile.write(folder / f"u{i}.wav", piece, int(rate * faster))
    for speakers in (22, 19):
        own_set(tmp_path / str(speakers), folders[0], "anything")
        lines = [f"u{i},anything,prompt.flac,voice{i % speakers}" for i in range(len(pieces))]
        text = "\n".join(["id,text,prompt_audio,speaker", *lines, ""])
        (tmp_path / str(speakers) / "test.csv").write_text(text)

    def run(speakers: int) -> Result:
        given = ["score", *folders, "--dataset", "folder", "--data", tmp_path / str(speakers), "--metrics", "f0cv"]
        given += ["--cluster", "speaker", "--threads", 1, "--out", tmp_path / f"out{speakers}"]
        return CliRunner().invoke(main, [str(argument) for argument in given])

    refused = run(19)
    assert refused.exit_code == 2
    assert "there are 19 speakers" in " ".join(refused.output.split())
    assert list((tmp_path / "out19").glob("cells/*")) == []
    result = run(22)
    assert result.exit_code == 0, result.output
    assert "intervals over whole speakers" in " ".join(result.output.split())
    found = [json.loads(file.read_text()) for file in (tmp_path / "out22").glob("cells/*/summary.json")]
    assert [(row["cluster"], 20 <= row["n_clusters"] <= row["f0cv_n"]) for row in found] == [("speaker", True)] * 2
    assert all(row["f0cv_low"] < row["f0cv"] < row["f0cv_high"] for row in found)
    board = json.loads((tmp_path / "out22" / "leaderboard" / "leaderboard.json").read_text())
    (test,) = board["comparisons"]
    assert (test["cluster"], 20 <= test["n_clusters"] <= test["n"]) == ("speaker", True)


def test_a_metric_that_listens_for_the_text_hears_again_when_it_changes(tmp_path: Path, folder: Path) -> None:
    class Letters(WordErrorRate):
        reads = ("audio",)

        def open_model(self) -> None:
            return None

        def cache_inputs(self, item: ScoreItem) -> list[Any]:
            return [*super().cache_inputs(item), item.text]

        def observe(self, item: ScoreItem) -> dict[str, Any]:
            return {"hypothesis": item.text}

    utterance = DemoCorpus().utterances("test")[0]
    file = folder / f"{utterance.id}.wav"
    row = {"id": utterance.id, "status": "ok", "audio": file.name, "audio_sha256": file_sha256(file)}
    scorer = Scorer(Letters(), ScoreCache(tmp_path / "cache"), "only-missing")
    for text in ("four", "seventeen words", "four"):
        asked = Asked(row, folder, dataclasses.replace(utterance, text=text))
        assert (scorer.known(asked) or scorer.hear(scorer.look(asked)))["wer"] == 0


def test_a_run_folder_behind_a_link_is_scored(score, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    disk = tmp_path / "far" / "away" / "disk"
    disk.mkdir(parents=True)
    (tmp_path / "runs").symlink_to(disk)
    score(out="runs/mine")
    found = rows(tmp_path, "runs/mine")
    assert found["f0cv_error"].isna().all()
    assert found["f0cv"].notna().all()


def test_processes_look_for_models_where_the_run_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(published, "_looked_in", [])
    monkeypatch.setattr(WordErrorRate, "__init__", lambda *_: seen.append(list(published._looked_in)))
    with pytest.raises(AttributeError):
        score_workers.Recipe("wer", {}, "cpu", 1, tmp_path, "only-missing", model_dir=str(tmp_path / "models")).make()
    assert seen == [[tmp_path / "models"]]
