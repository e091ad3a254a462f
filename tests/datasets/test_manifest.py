"""Training speech of manifests: every form gives the same batches, which depend on seed and number alone."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from imfbench.contracts import BrokenContract, clauses
from imfbench.contracts.manifests import MANIFESTS, heard_of, write_features, write_manifests
from imfbench.data import DatasetError
from imfbench.datasets.manifest import Manifest
from imfbench.features.audio import load_audio, save_audio
from imfbench.features.mel import COSYVOICE2, VOCOS
from imfbench.inputs import Inputs
from imfbench.method import Batch
from imfbench.sets import open_dataset

CHARACTERS = tuple(" !\"',-.:?" + "abcdefghijklmnopqrstuvwxyz" + "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
F5 = Inputs(VOCOS, "plain", vocabulary=len(CHARACTERS), characters=CHARACTERS)
COSYVOICE = Inputs(COSYVOICE2, frames_per_token=2, vocabulary=107, speaker_dims=256)
FRAMES = 1500


@pytest.fixture(autouse=True)
def conversion(monkeypatch: pytest.MonkeyPatch) -> None:
    """F5-TTS's own conversion of texts is tested elsewhere, and leaves English as it is."""
    monkeypatch.setattr("imfbench.features.f5_text.characters", lambda texts: [list(text) for text in texts])


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("speech")
    return folder, write_manifests(folder)


def opened(path: Path, inputs: Inputs = F5, **options: Any) -> Any:
    task = "text2mel" if inputs.text == "plain" else "token2mel"
    return open_dataset("manifest", {"manifest": str(path), "task": task, **options}, inputs)


def first(dataset: Any, count: int = 4, seed: int = 0, start: int = 0, frames: int = FRAMES) -> list[Batch]:
    return list(itertools.islice(dataset.batches(frames, seed, start), count))


def same(one: Batch, other: Batch) -> bool:
    fields = one.condition.tensors
    return one.ids == other.ids and torch.equal(one.x1, other.x1) and all(
        torch.equal(value, other.condition.tensors[name]) for name, value in fields.items()
    )  # fmt: skip


@pytest.mark.parametrize("form", MANIFESTS)
def test_every_form_gives_the_same_batches(form: str, speech: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, rows = speech
    further = {"supervisions": str(folder / "supervisions.jsonl.gz")} if form == "recordings.jsonl.gz" else {}
    dataset = opened(folder / form, **further)
    assert [row.text for row in dataset.rows] == [row["text"] for row in rows]
    assert [row.seconds for row in dataset.rows] == [row["duration"] for row in rows]
    if form != "prepared":
        assert [row.speaker for row in dataset.rows] == [row["speaker"] for row in rows]
    for one, other in zip(first(dataset), first(opened(folder / "plain.jsonl")), strict=True):
        assert torch.equal(one.x1, other.x1)
        assert torch.equal(one.condition.tokens, other.condition.tokens)


def test_a_batch_is_mels_characters_and_all_but_a_span(speech: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, rows = speech
    texts = {row["id"]: row["text"] for row in rows}
    audio = {row["id"]: folder / row["audio"] for row in rows}
    shares = []
    for batch in first(opened(folder / "plain.jsonl"), 8):
        c = batch.condition
        assert c.valid.shape[0] == 1 or c.valid.numel() <= FRAMES
        assert torch.equal(c.prompt_mel, batch.x1 * c.prompt[..., None])
        for i, name in enumerate(batch.ids):
            tokens = c.tokens[i][c.tokens[i] > 0]
            assert "".join(CHARACTERS[k - 1] for k in tokens.tolist()) == texts[name]
            frames = int(c.valid[i].sum())
            samples, _ = load_audio(audio[name], 24_000)
            assert torch.allclose(batch.x1[i, :frames], VOCOS.log_mel(torch.from_numpy(samples))[:frames], atol=1e-5)
            filled = torch.nonzero(batch.target[i]).flatten()
            assert len(filled) == filled[-1] - filled[0] + 1  # one span
            shares.append(len(filled) / frames)
    assert all(0.69 < share <= 1 for share in shares)
    assert len(set(shares)) > 4


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_depends_on_seed_and_number_alone(workers: int, speech: tuple[Path, list[dict[str, Any]]]) -> None:
    path = speech[0] / "plain.jsonl"
    whole = first(opened(path), 7)
    assert all(same(a, b) for a, b in zip(whole[4:], first(opened(path, workers=workers), 3, start=4), strict=True))
    assert not all(same(a, b) for a, b in zip(whole, first(opened(path), 7, seed=1), strict=True))
    one_of_two = itertools.islice(opened(path, workers=workers).batches(FRAMES, 0, 1, stride=2), 3)
    assert all(same(a, b) for a, b in zip(whole[1::2], one_of_two, strict=True))


def test_another_process_draws_the_same(speech: tuple[Path, list[dict[str, Any]]]) -> None:
    told = (
        "from imfbench.bucketing import *; import itertools, random;"
        "print(list(itertools.islice(batches_of_rows([100, 220, 90, 400, 230, 95], 500, 8, 3), 5)),"
        "infilling_span(400, (.7, 1), random.Random('3/1/2')), prompt_frames(400, .5, .3, random.Random('3/1/4')))"
    )
    out = [
        subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True, env=env).stdout
        for env in ({**_environment(), "PYTHONHASHSEED": seed} for seed in ("1", "2"))
    ]
    assert out[0] == out[1]
    assert "(1, [" in out[0]


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": ":".join(filter(None, sys.path))}


def test_an_utterance_that_is_longer_is_a_batch_of_its_own(speech: tuple[Path, list[dict[str, Any]]]) -> None:
    batches = first(opened(speech[0] / "plain.jsonl"), 8, frames=1)
    assert sorted(batch.ids[0] for batch in batches) == sorted(row["id"] for row in speech[1])


def test_every_utterance_is_given_once_in_an_epoch(speech: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, rows = speech
    seen: list[str] = []
    for batch in opened(folder / "plain.jsonl", max_samples=3).batches(FRAMES, 0):
        assert len(batch.ids) <= 3
        seen += batch.ids
        if len(seen) >= len(rows):
            break
    assert sorted(seen) == sorted(row["id"] for row in rows)


def test_tokens_stand_on_two_frames_and_prompts_are_at_the_beginning(
    speech: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    folder, rows = speech
    heard = {row["id"]: heard_of(row["row"], *load_audio(folder / row["audio"])) for row in rows}
    features = write_features(tmp_path, heard)
    prompts = []
    for batch in first(opened(folder / "plain.jsonl", COSYVOICE, features=str(features)), 8, frames=900):
        c = batch.condition
        assert c.speaker is not None
        for i, name in enumerate(batch.ids):
            tokens, voice = heard[name]
            found = c.tokens[i][c.valid[i]]
            assert torch.equal(found[::2], found[1::2])
            assert torch.equal(found[::2], tokens[: len(found) // 2].long() + 1)
            assert torch.equal(c.speaker[i], voice)
            length = int(c.prompt[i].sum())
            assert bool(c.prompt[i, :length].all())
            assert length % 2 == 0
            prompts.append(length / len(found))
    assert 0 in prompts
    assert 0 < max(prompts) <= 0.3


def test_what_cannot_be_used_is_left_out_and_counted(speech: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> None:
    folder, rows = speech
    good = [
        {"id": row["id"], "audio": str(folder / row["audio"]), "text": row["text"], "duration": row["duration"]}
        for row in rows
    ]
    (tmp_path / "cut.wav").write_bytes((folder / rows[0]["audio"]).read_bytes()[:4000])
    (tmp_path / "other.wav").write_bytes((folder / rows[1]["audio"]).read_bytes())
    save_audio(tmp_path / "still.wav", 0 * load_audio(folder / rows[2]["audio"])[0], 24_000)
    bad = [
        {"audio": "none.wav", "text": "Nothing.", "duration": 2.0},
        {"audio": "cut.wav", "text": "Cut.", "duration": 2.0},
        {"audio": "other.wav", "text": "Longer.", "duration": rows[1]["duration"] + 1},
        {"audio": "still.wav", "text": "Still.", "duration": rows[2]["duration"]},
        {"audio": "any.wav", "text": "Long.", "duration": 31.0},
        {"audio": "any2.wav", "text": "  ", "duration": 2.0},
        {"id": "fast", "audio": str(folder / rows[3]["audio"]), "text": "so " * 500, "duration": rows[3]["duration"]},
    ]
    path = tmp_path / "m.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*bad, *good]))
    dataset = opened(path)
    batches = first(dataset, 24, frames=2000)
    assert {name for batch in batches for name in batch.ids} == {row["id"] for row in rows}
    assert dict(dataset.skipped) == {
        "no audio file": 1, "is cut short": 1, "is not as long as the manifest says": 1, "is silent": 1,
        "too short or too long": 1, "no text": 1, "has more characters than frames": 1,
    }  # fmt: skip
    # With one row a batch, a batch of a bad row is another's, and the numbering stays.
    again = first(opened(path, max_samples=1), 20)
    assert all(len(batch.ids) == 1 for batch in again)
    assert all(same(a, b) for a, b in zip(again[9:], first(opened(path, max_samples=1), 11, start=9), strict=True))


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("", "holds no speech with a text"),
        ('{"audio": "a.wav"}\n{"text": 3\n', r"(?s)line 1: it has no text, but audio.*line 2: not JSON"),
        ('{"audio": "a.wav", "text": "A.", "duration": "long"}\n', "'long'.* is no number of seconds"),
        ('{"id": 1, "audio": "a.wav", "text": "A."}\n{"id": 1, "audio": "b.wav", "text": "B."}\n', "'1' is given twice"),
        ('{"id": "r", "sources": []}\n', "recording of lhotse without a text: give `supervisions`"),
        ('{"audio": "a.wav", "text": "A.", "duration": 2}\n', r"none of the first 1 recordings.*no audio file.*audio_root"),
        ('{"audio": "a.wav", "text": "A.", "duration": 50}\n', "no utterance to train on .too short or too long: 1"),
        ('{"audio": "a.wav", "text": "Naïve.", "duration": 2}\n', r"1 of 1 texts hold characters.*has not \('ï'\).*skip"),
    ],
)  # fmt: skip
def test_a_manifest_that_cannot_be_used_is_told(lines: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(lines)
    with pytest.raises(DatasetError, match=told) as error:
        first(opened(path), 1)
    assert str(path) in str(error.value)


def test_unknown_characters_can_be_left_out_or_read_as_spaces(
    speech: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    folder, rows = speech
    path = tmp_path / "m.jsonl"
    line = {"audio": str(folder / rows[0]["audio"]), "duration": rows[0]["duration"]}
    path.write_text(
        json.dumps({**line, "id": "a", "text": "Naïve."}) + "\n" + json.dumps({**line, "id": "b", "text": "No."})
    )
    skipping = opened(path, unknown="skip")
    assert [row.id for row in skipping.rows] == ["b"]
    assert dict(skipping.skipped) == {"characters that vocab.txt has not": 1}
    (batch,) = [b for b in first(opened(path, unknown="space", max_samples=1), 2) if b.ids == ("a",)]
    assert "".join(CHARACTERS[k - 1] for k in batch.condition.tokens[0, :6].tolist()) == "Na ve."


def test_networks_of_phones_and_a_missing_manifest_are_refused(
    tmp_path: Path, speech: tuple[Path, list[dict[str, Any]]]
) -> None:
    with pytest.raises(DatasetError, match=r"there is no manifest .*none.jsonl.gz.*docs/paper_experiments.md"):
        opened(tmp_path / "none.jsonl.gz")
    with pytest.raises(DatasetError, match=r"reads no characters: name one that has a vocab.txt"):
        opened(speech[0] / "plain.jsonl", Inputs(VOCOS, "plain", vocabulary=9))
    (tmp_path / "prepared").mkdir()
    (tmp_path / "prepared" / "mel.arrow").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"holds mel.arrow.*network's own, but no raw.arrow"):
        _ = opened(tmp_path / "prepared").rows


def test_tokens_of_another_rate_another_tokenizer_or_voice_are_errors(
    speech: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    folder, rows = speech
    heard = {row["id"]: heard_of(row["row"], *load_audio(folder / row["audio"])) for row in rows}
    faster = {name: (tokens.repeat_interleave(2), voice) for name, (tokens, voice) in heard.items()}
    with pytest.raises(DatasetError, match=r"plain.jsonl: .*wavs/.*25 tokens and 50 frames a second"):
        first(opened(folder / "plain.jsonl", COSYVOICE, features=str(write_features(tmp_path / "50", faster))), 1)
    features = str(write_features(tmp_path / "25", heard))
    few = Inputs(COSYVOICE2, frames_per_token=2, vocabulary=3, speaker_dims=256)
    with pytest.raises(DatasetError, match=r"the network knows 3: the tokens are of another tokenizer"):
        first(opened(folder / "plain.jsonl", few, features=features), 1)
    theirs = Inputs(COSYVOICE2, frames_per_token=2, speaker_dims=192)
    with pytest.raises(DatasetError, match=r"speaker vectors of .* have 256 numbers and the network takes 192"):
        first(opened(folder / "plain.jsonl", theirs, features=features), 1)
    with pytest.raises(DatasetError, match=r"holds no tokens.safetensors and no utt2speech_token.pt"):
        opened(folder / "plain.jsonl", COSYVOICE, features=str(folder))


@pytest.mark.parametrize("form", ["plain.jsonl", "cuts.jsonl.gz"])
def test_a_manifest_keeps_the_contract_for_the_networks_that_it_serves(
    form: str, speech: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    folder, rows = speech
    heard = {row["id"]: heard_of(row["row"], *load_audio(folder / row["audio"])) for row in rows}
    options = {"manifest": str(folder / form), "features": str(write_features(tmp_path / "heard", heard))}
    asked = clauses("dataset", "manifest", options)
    assert [task for task, _ in asked[0].part.trainings] == ["text2mel", "token2mel"]
    assert len(asked) == 3
    for clause in asked:
        clause()


def test_the_contract_finds_what_is_wrong_with_a_manifests_batches(
    speech: tuple[Path, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = clauses("dataset", "manifest", {"manifest": str(speech[0] / "plain.jsonl"), "task": "text2mel"})
    made = Manifest._mel
    monkeypatch.setattr(Manifest, "_mel", lambda self, *audio: made(self, *audio).exp() * 100)
    with pytest.raises(BrokenContract, match="natural-log mels between -12 and 8"):
        asked[-1]()
