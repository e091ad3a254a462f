"""Recordings of every kind of damage, as prompts and as targets: a reason in one row, and the run goes on."""

from __future__ import annotations

import errno
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from imfbench.backbones.aligning_dit import AligningDiT
from imfbench.backbones.dit import DiT
from imfbench.contracts.trial import small_corpus
from imfbench.data import DatasetError, make_condition
from imfbench.datasets.demo.corpus import DATA, DemoCorpus
from imfbench.features.audio import load_audio, notes_of_file
from imfbench.features.audio_check import AudioError, audio_notes
from imfbench.sampling import LengthError, check_length

RATE = 24_000
TONE = (0.2 * np.sin(np.arange(2 * RATE) / 20)).astype(np.float32)


def wav(path: Path, audio: np.ndarray = TONE, rate: int = RATE, subtype: str = "PCM_16") -> Path:
    path.parent.mkdir(exist_ok=True)
    soundfile.write(path, audio, rate, subtype=subtype)
    return path


def cut(path: Path, kept: float) -> Path:
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    return path


def holed(path: Path) -> Path:
    """A recording that holds a value which is no number."""
    return wav(path, np.where(np.arange(len(TONE)) == 999, np.nan, TONE).astype(np.float32), subtype="FLOAT")


def make_unsayable(alignments: Path, utterance: str) -> None:
    """Give an utterance a phone that no network knows."""
    rows = [json.loads(line) for line in alignments.read_text(encoding="utf-8").splitlines()]
    (row,) = (row for row in rows if row["id"] == utterance)
    row["phones"], row["frames"] = ["ʘ", *row["phones"]], [1, *row["frames"]]
    alignments.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "no audio file"),
    "empty": (lambda path: path.write_bytes(b""), "cannot be decoded (it is an empty file)"),
    "noaudio": (lambda path: path.write_text("no audio"), "cannot be decoded (Format not recognised)"),
    "cutshort": (lambda path: cut(wav(path), 0.6), "is cut short, its last 38418 bytes are missing"),
    "zerolength": (lambda path: wav(path, TONE[:0]), "holds no samples"),
    "nan": (holed, "holds values that are not finite"),
}
NOTED: dict[str, tuple[Callable[[Path], object], str]] = {
    "silent": (lambda path: wav(path, 0 * TONE), "silent"),
    "clipped": (lambda path: wav(path, np.clip(20 * TONE, -1, 1)), "clipped ("),
    "slow": (lambda path: wav(path, TONE[::3], RATE // 3), "8000 Hz, resampled"),
    "stereo": (lambda path: wav(path, np.stack([TONE, TONE], 1)), "2 channels, mixed down"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_recording_that_cannot_be_used_names_itself_and_the_remedy(tmp_path: Path, kind: str) -> None:
    damage, words = DAMAGE[kind]
    path = tmp_path / "a.wav"
    path.parent.mkdir(exist_ok=True)
    damage(path)
    with pytest.raises(AudioError) as error:
        load_audio(path)
    told = str(error.value)
    assert words in told
    assert str(path) in told
    assert told.endswith("put a whole recording in its place, or take its row out of the list")


UNANNOUNCED = ("MP3", "AVR", "IRCAM", "MAT4", "MAT5", "MPC2K", "PAF", "PVF", "SD2", "VOC", "WVE")
"""Formats of which a file that is cut short is read as a shorter recording; docs/robustness.md lists them."""
HEADERLESS = ("RAW", "XI")  # libsndfile has to be told what they hold


@pytest.mark.parametrize("kind", sorted({*soundfile.available_formats()} - {*UNANNOUNCED, *HEADERLESS}))
def test_what_announces_its_length_is_not_read_as_a_shorter_recording(tmp_path: Path, kind: str) -> None:
    """libsndfile itself gives the rest of most of these files without a word."""
    path = tmp_path / "a.audio"
    noise = np.random.default_rng(0).normal(0, 0.1, 2 * RATE).astype(np.float32)
    subtypes = {"VORBIS", "OPUS", "FLOAT", "PCM_16"} & {*soundfile.available_subtypes(kind)}
    assert subtypes
    for subtype in sorted(subtypes):
        soundfile.write(path, noise, RATE, format=kind, subtype=subtype)
        whole = path.read_bytes()
        assert len(load_audio(path)[0]) == 2 * RATE
        for kept in (0.999, 0.7, 0.3):
            path.write_bytes(whole[: int(kept * len(whole))])
            with pytest.raises(AudioError, match=r"is cut short|cannot be decoded"):
                load_audio(path)


def test_the_page_of_faults_lists_the_formats_that_announce_no_length() -> None:
    page = (Path(__file__).parent.parent / "docs" / "robustness.md").read_text(encoding="utf-8")
    told = page.partition("- Formats that do not announce their length")[2].partition("\n- ")[0].lower()
    assert [kind for kind in UNANNOUNCED if kind.lower() not in told] == []


def test_a_file_that_may_not_be_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = wav(tmp_path / "a.wav")

    def denied(_: Path) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("imfbench.features.audio.missing_bytes", denied)
    with pytest.raises(AudioError) as error:
        load_audio(path)
    assert str(error.value).startswith(f"{path} cannot be read (Permission denied): put a whole recording in its place")


def test_a_wav_of_unknown_length_and_one_with_more_behind_are_whole(tmp_path: Path) -> None:
    path = wav(tmp_path / "a.wav")
    whole = path.read_bytes()
    at = whole.index(b"data") + 4
    path.write_bytes(whole[:at] + b"\xff\xff\xff\xff" + whole[at + 4 :])  # as ffmpeg writes into a pipe
    assert len(load_audio(path)[0]) == len(TONE)
    path.write_bytes(whole[:at] + struct.pack("<I", 0x7FFFF000) + whole[at + 4 :])  # as SoX does
    assert len(load_audio(path)[0]) == len(TONE)
    path.write_bytes(whole + b"LIST\x04\x00\x00\x00abcd")
    assert len(load_audio(path)[0]) == len(TONE)


@pytest.mark.parametrize("kind", NOTED)
def test_a_recording_that_can_be_used_gets_its_note(tmp_path: Path, kind: str) -> None:
    make, words = NOTED[kind]
    make(tmp_path / "a.wav")
    (note,) = notes_of_file(tmp_path / "a.wav", RATE)
    assert words in note
    assert notes_of_file(wav(tmp_path / "b.wav"), RATE) == []


def test_one_loud_peak_is_no_clipping() -> None:
    loud = TONE.copy()
    loud[1000:1002] = 1.0
    assert audio_notes(loud, RATE) == []
    loud[1000:1100] = 1.0
    assert audio_notes(loud, RATE) == ["clipped (0.2 % of its samples)"]
    assert audio_notes(np.zeros(0, np.float32), RATE) == ["silent"]


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory, tiny_in) -> tuple[Path, dict[str, pd.DataFrame], str]:  # type: ignore[no-untyped-def]
    """A run over utterances each of which has another fault, first in its prompt, then in its recording."""
    tiny = tiny_in(tmp_path_factory.mktemp("damaged"))
    faults = {**DAMAGE, **NOTED, "unsayable": (None, ""), "short": (lambda path: wav(path, TONE[:200]), "")}
    root = tiny.corpus(2 * len(faults) + 1)
    lines = [line.split("|") for line in (root / "test" / "meta.lst").read_text().splitlines()]
    rows = []
    for field, half in ((2, lines[: len(faults)]), (4, lines[len(faults) :])):
        for kind, row in zip(faults, half, strict=False):
            if make := faults[kind][0]:
                file = Path(row[field])
                row[field] = f"{file.parent}-{kind}/{file.stem}.wav"
                (root / "test" / row[field]).parent.mkdir(exist_ok=True)
                make(root / "test" / row[field])
            rows.append([f"{kind}-{field}", *row])
    unsayable = next(row for row in rows if row[0] == "unsayable-2")[1]
    alignments = root / "test" / "alignments.jsonl"
    make_unsayable(alignments, unsayable)
    whole = [["whole", *lines[-1]]]
    (root / "test" / "meta.lst").write_text("".join("|".join(row[1:]) + "\n" for row in rows + whole))
    result = tiny.invoke(tiny.config(dataset={"options": {"root": str(root)}}))
    assert result.exit_code == 0, result.output
    names = {row[1]: row[0] for row in rows + whole}
    return root, {label: frame.rename(index=names) for label, frame in tiny.tables().items()}, result.output


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_prompt_fails_its_own_row_alone(damaged, kind: str) -> None:  # type: ignore[no-untyped-def]
    root, tables, output = damaged
    row, words = tables["own 1 NFE uniform"].loc[f"{kind}-2"], DAMAGE[kind][1]
    assert row["status"] == "failed"
    assert row["reason"].startswith("AudioError: ")
    assert words in row["reason"]
    assert f"{root}/test/prompts-{kind}" in row["reason"]
    assert words in output
    # The recording is there; only what compares it with the prompt is not.
    reference = tables["ground-truth"].loc[f"{kind}-2"]
    assert reference["status"] == "ok"
    assert words in reference["sim_error"]
    assert tables["own 1 NFE uniform"].loc["whole", "sim"] > -1


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_recording_fails_the_references_and_not_the_systems(damaged, kind: str) -> None:  # type: ignore[no-untyped-def]
    _, tables, _ = damaged
    for label in ("ground-truth", "vocoded-ground-truth"):
        row = tables[label].loc[f"{kind}-4"]
        assert row["status"] == "failed"
        assert DAMAGE[kind][1] in row["reason"]
    row = tables["own 1 NFE uniform"].loc[f"{kind}-4"]
    assert row["status"] == "ok"
    assert row["sim"] > -1


@pytest.mark.parametrize("kind", NOTED)
def test_silence_clipping_rates_and_channels_are_scored_and_noted(damaged, kind: str) -> None:  # type: ignore[no-untyped-def]
    _, tables, output = damaged
    sampled = tables["own 1 NFE uniform"].loc[f"{kind}-2"]
    assert sampled["status"] == "ok"
    assert f"prompt {NOTED[kind][1]}" in sampled["notes"]
    assert "prompt of test-af_sarah-0" in output
    for label in ("ground-truth", "vocoded-ground-truth"):
        row = tables[label].loc[f"{kind}-4"]
        assert row["status"] == "ok", row["reason"]
        assert f"recording {NOTED[kind][1]}" in row["notes"]
        assert (row["sim"] > -1) != (kind == "silent"), "silence has no voice to compare, which is the row's reason"
    if kind == "silent":
        assert "silent" in sampled["sim_error"]
    assert pd.isna(tables["ground-truth"].loc["whole", "notes"])
    # What the untrained network makes is noise at full scale: the output's own note, of every row.
    assert tables["own 1 NFE uniform"].loc["whole", "notes"].startswith("output clipped")


def test_what_no_network_can_say_and_what_is_too_short_are_reasons(damaged) -> None:  # type: ignore[no-untyped-def]
    root, tables, _ = damaged
    row = tables["own 1 NFE uniform"].loc["unsayable-2"]
    assert row["status"] == "failed"
    assert (
        f"that the networks cannot say, {root}/phones.txt lacks them: ʘ; mend its row of alignments.jsonl"
        in row["reason"]
    )
    assert tables["ground-truth"].loc["unsayable-2", "status"] == "ok"
    short = "AudioError: audio of 8.3 ms is too short for a mel: give a longer recording"
    told = tables["own 1 NFE uniform"].loc["short-2", "reason"]
    assert told.startswith(f"{short} (prompt {root}/test/prompts-short/")
    told = tables["vocoded-ground-truth"].loc["short-4", "reason"]
    assert told.startswith(f"{short} (recording {root}/test/wavs-short/")


def test_the_leaderboard_counts_what_failed_and_shows_the_notes(damaged) -> None:  # type: ignore[no-untyped-def]
    root, tables, output = damaged
    text = (root.parent / "out" / "leaderboard" / "leaderboard.md").read_text()
    expected = len(tables["ground-truth"])
    assert expected == 25
    scored = int(tables["ground-truth"]["sim"].notna().sum())
    assert f"{scored}/{expected}" in text
    assert "with a note: " in text
    assert "no audio file" in text
    assert "Traceback" not in output


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_training_recording_stops_the_run_and_names_itself(tiny, kind: str) -> None:  # type: ignore[no-untyped-def]
    """Before the training; with another recording in its place, the same command ends well."""
    root = small_corpus(tiny.folder / "speech")
    file = sorted((root / "train" / "audio").iterdir())[3]
    whole = file.read_bytes()
    file.unlink()
    damage, words = DAMAGE[kind]
    damage(file.with_suffix(".wav"))
    if (made := file.with_suffix(".wav")).exists():
        made.rename(file)
    config = tiny.config(systems=tiny.trained, train_data={"options": {"root": str(root)}}, references=[])
    told = tiny.refused(config)
    assert words in told
    assert str(file) in told
    assert ("a training utterance (1 are missing)" if kind == "missing" else f"utterance '{file.stem}'") in told
    assert not (tiny.out / "artefacts" / "own" / "log.csv").exists()
    if kind == "cutshort":
        file.write_bytes(whole)
        assert tiny.invoke(config).exit_code == 0
        assert [row["status"] for row in tiny.leaderboard()] == ["ok"]


DEV_DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut": (lambda path: cut(path, 0.5), "{prompt} cannot be dec"),
    "nan": (lambda path: holed(path.with_suffix(".wav")).rename(path), "{prompt} holds values that are not finite"),
    "short": (
        lambda path: wav(path, TONE[:200]),
        "audio of 8.3 ms is too short for a mel: give a longer recording (prompt {prompt})",
    ),
    "unsayable": (
        lambda path: None,
        "{id} has phones that the networks cannot say, {root}/phones.txt lacks them: ʘ; mend its row of alignments.jsonl",
    ),
}


@pytest.mark.parametrize("kind", DEV_DAMAGE)
def test_a_damaged_development_utterance_fails_the_searched_rows_and_names_itself(tiny, kind: str) -> None:  # type: ignore[no-untyped-def]
    damage, words = DEV_DAMAGE[kind]
    root = tiny.corpus()
    for name in ("prompts", "alignments.jsonl"):
        (root / "dev" / name).unlink()
    shutil.copytree(DATA / "dev" / "prompts", root / "dev" / "prompts")
    shutil.copy(DATA / "dev" / "alignments.jsonl", root / "dev")
    dev = {"limit": 1, "options": {"root": str(root)}}
    utterance = DemoCorpus(root).utterances("dev")[0]
    prompt = utterance.prompt_audio
    whole = prompt.read_bytes()
    damage(prompt)
    if kind == "unsayable":
        make_unsayable(root / "dev" / "alignments.jsonl", utterance.id)
    own = {"method": "teacher", "name": "own", "artefact": str(tiny.artefact()), "nfe": [1]}
    own["search"] = {"method": "o3s", "nfe": [2], "score": "sim", "config": {"max_evaluations": 2}}
    path = tiny.config(systems=[own], references=[], dev=dev)
    result = tiny.invoke(path)
    assert result.exit_code == 1, result.output
    status = {row["system"]: row["status"] for row in tiny.leaderboard()}
    assert status["own"] == "ok"
    told = f"failed: SearchError: development utterance {utterance.id}: "
    assert status["own+o3s"].startswith(told + words.format(prompt=prompt, id=utterance.id, root=root))
    assert "Traceback" not in result.output
    if kind == "cut":
        assert "put a whole recording in its place" in status["own+o3s"]
        prompt.write_bytes(whole)
        assert tiny.invoke(path).exit_code == 0
        assert {row["status"] for row in tiny.leaderboard()} == {"ok"}


def test_a_text_that_does_not_fit_into_its_frames_says_what_gives_more() -> None:
    """A hundred sentences' phones in the time of one, of which only the first have a length."""
    for length, remedy in (
        ("truth", "mend the `frames` of its row of alignments.jsonl, or take it out of the list"),
        ("prompt-rate", "name another prompt than {prompt}, whose rate this length follows, or set the option `length: truth`"),
    ):  # fmt: skip
        corpus = DemoCorpus(task="text2mel", length=length)  # type: ignore[arg-type]
        utterance = corpus.utterances("test")[0]
        rows = corpus._alignments("test")
        for name in (utterance.id, utterance.prompt_id):
            phones, frames = rows[name]["phones"], rows[name]["frames"]
            rows[name] = rows[name] | {"phones": 99 * phones, "frames": frames + 98 * len(frames) * [0]}
        with pytest.raises(DatasetError) as error:
            corpus.condition(utterance)
        told = str(error.value)
        assert told.startswith(f"{utterance.id}: ")
        assert " phones do not fit into " in told
        assert told.endswith(remedy.format(prompt=utterance.prompt_audio))


def test_phones_that_cannot_be_said_are_told_in_joined_sentences_too() -> None:
    corpus = DemoCorpus()
    utterance = corpus.utterances("long2")[0]
    corpus._long_rows("long2")[utterance.id]["phones"][3] = "ʘ"
    with pytest.raises(DatasetError, match=f"^{utterance.id} has phones that the networks cannot say"):
        corpus.condition(utterance)


def test_an_utterance_longer_than_the_network_takes_says_how_much_to_cut() -> None:
    assert DiT.longest == AligningDiT.longest == 4096
    long = make_condition(
        torch.zeros(3000, 80), torch.ones(3000, dtype=torch.int64), torch.ones(2000, dtype=torch.int64)
    )
    with pytest.raises(
        LengthError, match=r"prompt of 34\.8 s and the 23\.2 s .* takes 4096 .*cut the prompt to 24\.3 s"
    ):
        check_length(long, 4096)
    with pytest.raises(LengthError, match="split the text"):
        check_length(long, 1999)
    check_length(long, 5000)
    check_length(long, None)


def test_a_prompt_that_is_too_long_fails_its_own_row(tiny, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(DiT, "longest", 1000)
    root = tiny.corpus()
    path = root / "test" / "prompts" / "prompt-af_sarah-000.flac"
    audio, rate = soundfile.read(path)
    soundfile.write(path, np.tile(audio, 4), rate)
    config = tiny.config(dataset={"options": {"root": str(root)}}, references=[])
    assert tiny.invoke(config).exit_code == 0
    (table,) = tiny.tables().values()
    assert "LengthError: the prompt of " in table.loc["test-af_sarah-000", "reason"]
    assert "cut the prompt to" in table.loc["test-af_sarah-000", "reason"]
    assert table.loc["test-af_sarah-000", "reason"].endswith(f" (prompt {path})")
    assert list(table["status"]) == ["failed", "ok", "ok"]
    assert table["sim"].notna().sum() == 2
