"""``imfbench score --protocol``, sets by their own names, their options, and what becomes of the transcripts."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import soundfile
import yaml
from click.testing import CliRunner, Result

from imfbench.cli import main
from imfbench.cli_score import experiment_of
from imfbench.config import load
from imfbench.config_file import ConfigError
from imfbench.contracts.layouts import LAYOUTS, write_layout
from imfbench.features.audio import load_audio
from imfbench.metrics.protocols import PROTOCOLS
from imfbench.metrics.wer import WordErrorRate, language_note
from imfbench.registry import METRICS
from imfbench.sets import open_set

OPTIONS: dict[str, Any] = {
    "dataset": "demo", "data": None, "split": None, "metrics": "wer,sim,mos,f0cv", "protocol": None, "model_dir": None,
    "baseline": None, "margin": (), "allow_missing": False, "ground_truth": False, "cluster": None,
}  # fmt: skip


def imfbench(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def experiment(*settings: str, **changes: Any) -> Any:
    return experiment_of((Path("mine"),), {**OPTIONS, **changes}, settings)


@pytest.fixture
def listens(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Every recogniser hears what the test says: id → transcript. The model's parts of the signature stay those of Whisper."""
    said: dict[str, str] = {}
    monkeypatch.setattr(WordErrorRate, "open_model", lambda self: None)
    monkeypatch.setattr(WordErrorRate, "observe", lambda self, item: {"hypothesis": said[item.id]})
    return said


def wavs_of(name: str, root: Path, folder: Path, split: str | None = None) -> Path:
    """The recordings of a set as another program's output: ID.wav."""
    folder.mkdir(parents=True)
    for u in open_set(name if split is None else f"{name}/{split}", root).utterances():
        audio, rate = load_audio(u.target_audio)
        soundfile.write(folder / f"{u.id}.wav", audio, rate)
    return folder


def tables(out: Path) -> dict[str, pd.DataFrame]:
    found = {}
    for file in out.glob("cells/*/utterances.parquet"):
        cell = json.loads((file.parent / "cell.json").read_text())
        found[str(cell["system"])] = pd.read_parquet(file).set_index("id")
    return found


# ---- what a protocol decides ----


@pytest.mark.parametrize("name", list(PROTOCOLS))
def test_a_protocol_decides_who_listens_who_compares_and_who_judges(name: str) -> None:
    found, protocol = experiment(protocol=name), PROTOCOLS[name]
    assert found.metrics["wer"] == {"protocol": name, "language": "en"}
    assert found.metrics["sim"] == {"backend": protocol.similarity.model, "resampler": protocol.similarity.resampler}
    if protocol.opinion is not None:
        assert found.metrics[protocol.predictor] == {"resampler": protocol.opinion.resampler}
    assert list(found.metrics) == ["wer", "sim", protocol.predictor or "mos", "f0cv"]
    for metric, options in found.metrics.items():
        METRICS.get(metric).Config(**options)


def test_a_setting_wins_over_the_protocol_and_the_resolved_experiment_reads_the_same(tmp_path: Path) -> None:
    found = experiment("metrics.sim.backend=resemblyzer", "metrics.wer.asr=whisper-base", protocol="f5-tts")
    assert found.metrics["sim"] == {"backend": "resemblyzer", "resampler": "torchaudio-sinc"}
    assert found.metrics["wer"]["asr"] == "whisper-base"
    (tmp_path / "again.yaml").write_text(found.dump())
    again = load(str(tmp_path / "again.yaml"))
    assert again == found
    assert again.hash == found.hash
    assert found.hash != experiment("metrics.sim.backend=resemblyzer", "metrics.wer.asr=whisper-base").hash


def test_protocols_that_differ_in_a_figure_differ_in_its_signature() -> None:
    """Two protocols share a signature only where every part is the same: SIM of seed-tts-eval and F5-TTS."""
    heard: dict[str, list[str]] = {}
    for name in PROTOCOLS:
        options = {"protocol": name, "asr": "whisper-base", "recogniser": "faster-whisper"}
        heard.setdefault(str(WordErrorRate(WordErrorRate.Config(**options)).signature), []).append(name)
    assert all(len(names) == 1 for names in heard.values()), heard
    sim: dict[tuple[Any, ...], list[str]] = {}
    for name, protocol in PROTOCOLS.items():
        sim.setdefault(tuple(protocol.metric_settings()["sim"].values()), []).append(name)
    assert sorted(map(tuple, sim.values())) == [
        ("imfbench",),
        ("seed-tts-eval", "f5-tts"),
        ("zipvoice", "zipvoice-librispeech"),
    ]


def test_an_experiment_takes_a_protocol(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    base = {"teacher": "embedded:token2mel", "protocol": "zipvoice", "metrics": ["wer", "mos"]}
    file.write_text(yaml.safe_dump(base))
    found = load(str(file))
    assert found.metrics == {"wer": {"protocol": "zipvoice"}, "utmos": {"resampler": "soxr-hq"}}
    file.write_text(yaml.safe_dump({**base, "protocol": "zip-voice"}))
    with pytest.raises(ConfigError, match=r"mine.yaml, line \d+: protocol: unknown protocol 'zip-voice'.*'zipvoice'"):
        load(str(file))
    file.write_text(yaml.safe_dump({**base, "then": [{"task": "text2mel", "teacher": None, "protocol": "f5-tts"}]}))
    assert [part.metrics["wer"]["protocol"] for part in (load(str(file)), *load(str(file)).then)] == [
        "zipvoice",
        "f5-tts",
    ]


def test_a_protocol_that_does_not_know_the_language_of_the_set_is_refused(tmp_path: Path) -> None:
    root = write_layout("seed-tts-eval", tmp_path / "seed", 1)
    with pytest.raises(ConfigError, match="'zipvoice-librispeech' has no rule for language 'zh'"):
        experiment(dataset="seed-tts-eval/zh", data=root, protocol="zipvoice-librispeech")


# ---- sets and their options ----


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_folders_are_scored_on_every_layout(name: str, tmp_path: Path) -> None:
    root = write_layout(name, tmp_path / "data", 2)
    mine = wavs_of(name, root, tmp_path / "mine")
    out = tmp_path / "out"
    result = imfbench(
        "score",
        mine,
        "--dataset",
        name,
        "--data",
        root,
        "--metrics",
        "f0cv",
        "--ground-truth",
        "--threads",
        1,
        "--out",
        out,
    )
    assert result.exit_code == 0, result.output
    found = tables(out)
    opened = open_set(name, root)
    assert set(found) == {"mine", "ground-truth"}
    assert list(found["mine"].index) == [u.id for u in opened.utterances()]
    assert found["mine"]["f0cv"].tolist() == pytest.approx(found["ground-truth"]["f0cv"].tolist(), rel=0.02)
    summary = json.loads(next(out.glob("cells/*/summary.json")).read_text())
    assert summary["dataset"].startswith(f"{name}/{opened.split}@")


def test_a_set_is_named_behind_its_dataset(tmp_path: Path) -> None:
    root = write_layout("seed-tts-eval", tmp_path / "data", 1)
    for changes, split, language in (
        ({"dataset": "seed-tts-eval"}, "en", "en"),
        ({"dataset": "seed-tts-eval/zh"}, "zh", "zh"),
        ({"dataset": "seed-tts-eval", "split": "hard"}, "hard", "zh"),
    ):
        found = experiment(data=root, **changes)
        assert found.name == f"score-seed-tts-eval-{split}"
        assert found.dataset[0].split == split
        assert found.metrics["wer"] == {"language": language}
    assert experiment(dataset="demo").dataset[0].split == "test"
    assert experiment(dataset="demo/dev").dataset[0].split == "dev"
    told = imfbench("score", root, "--dataset", "seed-tts-eval/zh", "--split", "en", "--data", root)
    assert told.exit_code == 2
    assert "name a set each; keep one" in " ".join(told.output.split())
    told = imfbench("score", root, "--dataset", "seed-tts-eval/fr", "--data", root, "--out", tmp_path / "out")
    assert told.exit_code == 2
    assert "has no set 'fr': known: en, hard, zh" in " ".join(told.output.split())


def test_plain_settings_are_the_datasets_own(tmp_path: Path) -> None:
    root = write_layout("librispeech-pc", tmp_path / "data", 2)
    (pairs,) = root.glob("*.lst")
    pairs.rename(tmp_path / "pairs.lst")
    mine = tmp_path / "mine"
    mine.mkdir()
    base = (
        "score",
        mine,
        "--dataset",
        "librispeech-pc",
        "--data",
        root,
        "--metrics",
        "f0cv",
        "--dry-run",
        "--no-measuring",
    )
    lost = imfbench(*base)
    assert lost.exit_code == 2
    found = imfbench(*base, "--set", f"list_file={tmp_path / 'pairs.lst'}")
    assert found.exit_code == 0, found.output
    assert "2 utterances (10 s) of librispeech-pc/test" in found.output
    both = experiment(
        f"list_file={tmp_path / 'pairs.lst'}", "overwrite=always", "metrics.wer.compute=float32",
        dataset="librispeech-pc", data=root,
    )  # fmt: skip
    assert both.overwrite == "always"
    assert both.metrics["wer"]["compute"] == "float32"
    assert both.dataset[0].options == {"root": str(root), "list_file": str(tmp_path / "pairs.lst")}
    wrong = imfbench(*base, "--set", "listfile=pairs.lst")
    assert wrong.exit_code == 2
    assert "has no option 'listfile': did you mean 'list_file'" in " ".join(wrong.output.split())


# ---- language, transcripts ----


@pytest.mark.parametrize(
    ("text", "heard", "language", "note"),
    [
        ("好的", "好的", "zh", None),
        ("好的 OK", "OK 好", "zh", None),
        ("好的", "Hello there.", "zh", "no Chinese character in the transcript, which should be Chinese"),
        (
            "Hello.",
            "Hello.",
            "zh",
            "no Chinese character in the text and no Chinese character in the transcript, which",
        ),
        ("Hello.", "你好", "en", "Chinese characters in the transcript, which should be English"),
        ("Hello.", "", "en", None),
        ("好的", "", "zh", None),
        ("好的", "123 !", "zh", None),
    ],
)
def test_another_language_is_seen_by_its_signs(text: str, heard: str, language: str, note: str | None) -> None:
    found = language_note(text, heard, language)
    assert (found or "").startswith(note or "")
    assert (found is None) == (note is None)


def test_english_speech_on_a_chinese_list_is_scored_and_flagged(
    tmp_path: Path, listens: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    root = write_layout("seed-tts-eval", tmp_path / "data", 2)
    mine = wavs_of("seed-tts-eval", root, tmp_path / "mine", "zh")
    first, second = open_set("seed-tts-eval/zh", root).utterances()
    listens |= {first.id: first.text, second.id: "好的"}
    out = tmp_path / "out"
    with caplog.at_level(logging.WARNING):
        result = imfbench(
            "score",
            mine,
            "--dataset",
            "seed-tts-eval/zh",
            "--data",
            root,
            "--metrics",
            "wer",
            "--threads",
            1,
            "--out",
            out,
        )
    assert result.exit_code == 0, result.output
    (table,) = tables(out).values()
    assert table.loc[first.id, "wer"] == 0, "characters, the same on both sides"
    assert table.loc[first.id, "wer_note"].startswith(
        "no Chinese character in the text and no Chinese character in the"
    )
    assert table.loc[second.id, "wer_note"] == "no Chinese character in the text, which should be Chinese"
    assert set(table["language"]) == {"zh"}
    assert "|language:zh|" in table["wer_signature"].iloc[0]
    assert "2 of 2 rows: no Chinese character" in result.output + caplog.text


def test_scored_transcripts_are_compared_under_all_protocols(tmp_path: Path, listens: dict[str, str]) -> None:
    """The run that score leaves is what ``protocols compare`` reads, and its own figure stands there again."""
    root = write_layout("folder", tmp_path / "data", 3)
    mine = wavs_of("folder", root, tmp_path / "mine")
    utterances = open_set("folder", root).utterances()
    listens |= {u.id: u.text for u in utterances}
    listens[utterances[0].id] = utterances[0].text.replace(" the ", " ")
    listens[utterances[2].id] = ""
    out = tmp_path / "out"
    result = imfbench(
        "score", mine, "--dataset", "folder", "--data", root, "--metrics", "wer", "--threads", 1, "--out", out
    )
    assert result.exit_code == 0, result.output
    (table,) = tables(out).values()
    assert {"text", "hypothesis", "language"} <= set(table.columns)
    compared = imfbench("protocols", "compare", out, "--format", "json")
    assert compared.exit_code == 0, compared.output
    rows = {row["protocol"]: row for row in json.loads(compared.stdout)}
    assert set(rows) == set(PROTOCOLS)
    assert {row["system"] for row in rows.values()} == {"mine"}
    assert {row["n_expected"] for row in rows.values()} == {3}
    (summary,) = (json.loads(file.read_text()) for file in out.glob("cells/*/summary.json"))
    assert rows["imfbench"]["corpus"] == pytest.approx(summary["wer_corpus"])
    assert rows["imfbench"]["mean"] == pytest.approx(summary["wer_mean"])
    assert rows["seed-tts-eval"]["wer"] == rows["seed-tts-eval"]["mean"]
