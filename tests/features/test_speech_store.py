"""S3 tokens and speaker vectors: made once and kept, made again where something is another, or given by somebody."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save

from imfbench.contracts.manifests import write_features
from imfbench.data import DatasetError
from imfbench.features import speech_store
from imfbench.features.audio import save_audio
from imfbench.features.speech_store import Given, Heard, Listener, Recordings, Shards
from imfbench.manifest_audio import read_audio, state_of
from imfbench.manifest_rows import Row


class Counting(Listener):
    """Hears the length and the mean: what the real networks need files for is not what is tested here."""

    signature = "first"  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __call__(self, audio: np.ndarray, rate: int) -> Heard:
        self.calls += 1
        if len(audio) > 50:
            raise ValueError("a recording of 31.0 s, but the S3 tokenizer hears 30 s at most")
        return Heard(torch.arange(len(audio)) + 6000, torch.full((4,), float(audio.mean())))


def load(i: int) -> tuple[np.ndarray, int]:
    if i == 3:
        raise OSError("no audio file d.wav")
    return np.full(60 if i == 1 else i + 1, i / 8, np.float32), 16_000


def test_they_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech_store, "SHARD", 2)
    ids, listener = list("abcdefg"), Counting()
    made: list[tuple[int, int]] = []
    found, failed = Shards(tmp_path, listener).of(ids, load, lambda done, of: made.append((done, of)))
    assert made == [(2, 7), (4, 7), (6, 7), (7, 7)]
    assert listener.calls == 6
    assert sorted(found) == [0, 2, 4, 5, 6]
    assert failed == {1: "a recording of 31.0 s, but the S3 tokenizer hears 30 s at most", 3: "no audio file d.wav"}
    assert found[4].tokens.tolist() == [6000, 6001, 6002, 6003, 6004]
    assert found[4].tokens.dtype == torch.int64
    assert found[4].voice.tolist() == [0.5] * 4
    again = Counting()
    kept, told = Shards(tmp_path, again).of(ids, load)
    assert again.calls == 0
    assert told == failed
    assert all(torch.equal(kept[i].tokens, heard.tokens) for i, heard in found.items())


def test_a_killed_making_goes_on_and_what_is_another_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speech_store, "SHARD", 2)
    ids, listener = list("abcdefg"), Counting()

    def killed(i: int) -> tuple[np.ndarray, int]:
        if i == 4:
            raise KeyboardInterrupt
        return load(i)

    with pytest.raises(KeyboardInterrupt):
        Shards(tmp_path, listener).of(ids, killed)
    before = listener.calls
    Shards(tmp_path, listener).of(ids, load)
    assert listener.calls - before == 3  # e, f and g alone
    Shards(tmp_path, listener).of([*ids[:4], "x", *ids[5:]], load)
    assert listener.calls - before == 5  # the two of its file
    listener.signature = "second"  # type: ignore[misc]
    Shards(tmp_path, listener).of(ids, load)
    assert listener.calls - before == 11
    (tmp_path / "rows-000001.safetensors").write_bytes(b"cut short")
    Shards(tmp_path, listener).of(ids, load)
    assert listener.calls - before == 12


def test_another_recording_under_the_same_name_is_heard_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that cannot be looked at now is taken as it was heard."""
    monkeypatch.setattr(speech_store, "SHARD", 3)
    levels, states = [0.1, 0.2, 0.3, 0.4], ["a", "b", "", "d"]

    def heard() -> tuple[list[float], int]:
        listener = Counting()
        found, failed = Shards(tmp_path, listener).of(
            list("abcd"), lambda i: (np.full(5, levels[i], np.float32), 16_000), state=lambda i: states[i]
        )
        assert not failed
        return [round(float(found[i].voice[0]), 3) for i in range(4)], listener.calls

    assert heard() == ([0.1, 0.2, 0.3, 0.4], 4)
    levels[:] = [0.5, 0.6, 0.7, 0.8]
    assert heard() == ([0.1, 0.2, 0.3, 0.4], 0), "nothing says that they are others"
    states[:] = ["a", "other", "c", ""]
    assert heard() == ([0.1, 0.6, 0.3, 0.4], 1)
    states[:] = ["a", "other", "c", "d"]
    assert heard() == ([0.1, 0.6, 0.3, 0.4], 0)


def test_what_could_not_be_read_is_tried_again_alone(tmp_path: Path) -> None:
    """As a manifest reads it: the file is away, and comes back; what was heard and is not fit is not heard again."""
    rows = [Row(name, "a", "s", None, tmp_path / f"{name}.wav", whole=True) for name in "abc"]

    def save(name: str, samples: int) -> None:
        save_audio(tmp_path / f"{name}.wav", np.full(samples, 0.25, np.float32), 16_000)

    def heard(listener: Counting) -> tuple[list[int], list[int], int]:
        shards = Shards(tmp_path / "kept", listener)
        found, failed = shards.of(list("abc"), lambda i: read_audio(rows[i]), state=lambda i: state_of(rows[i]))
        return sorted(found), sorted(failed), listener.calls

    listener = Counting()
    save("a", 5)
    assert heard(listener) == ([0], [1, 2], 1)
    assert heard(listener) == ([0], [1, 2], 1)
    save("b", 60)  # too long for the listener
    save("c", 6)
    assert heard(listener) == ([0, 2], [1], 3)
    assert heard(listener) == ([0, 2], [1], 3)
    save("b", 7)
    assert heard(listener) == ([0, 1, 2], [], 4)
    (tmp_path / "c.wav").unlink()
    assert heard(listener) == ([0, 1, 2], [], 4), "away again: what was heard is kept"


def test_what_earlier_versions_kept_is_taken_and_its_reasons_are_tried_again(tmp_path: Path) -> None:
    ids, state = list("ab"), lambda i: f"size {i}"
    assert len(Shards(tmp_path, Counting()).of(ids, load, state=state)[1]) == 1
    (file,) = tmp_path.glob("*.safetensors")
    with safe_open(file, "pt") as opened:
        tensors, about = {key: opened.get_tensor(key) for key in opened.keys()}, opened.metadata()  # noqa: SIM118
    file.write_bytes(save(tensors, {key: about[key] for key in ("name", "failed")}))
    listener = Counting()
    for calls in (1, 1):  # the one that was refused, once; and states are on record from then on
        assert sorted(Shards(tmp_path, listener).of(ids, load, state=state)[0]) == [0]
        assert listener.calls == calls
    Shards(tmp_path, listener).of(ids, load, state=lambda i: "another size")
    assert listener.calls == 3


def test_files_are_known_by_their_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMFBENCH_CACHE", str(tmp_path / "cache"))
    listener = Counting()
    heard = Recordings(listener)
    for name, level in (("one", 0.25), ("same", 0.25), ("other", 0.5)):
        save_audio(tmp_path / f"{name}.wav", np.full(20, level, np.float32), 16_000)
    one, same, other = (heard(tmp_path / f"{name}.wav") for name in ("one", "same", "other"))
    assert listener.calls == 2
    assert torch.equal(one.voice, same.voice)
    assert not torch.equal(one.voice, other.voice)
    save_audio(tmp_path / "long.wav", np.full(60, 0.5, np.float32), 16_000)
    with pytest.raises(DatasetError, match=r"long.wav cannot be used: a recording of 31.0 s"):
        heard(tmp_path / "long.wav")


def test_given_ones_are_ours_or_cosyvoices(tmp_path: Path) -> None:
    ours = Given(write_features(tmp_path / "ours", {"a": (torch.tensor([4, 6560]), torch.ones(192))}))
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    torch.save({"a": [4, 6560]}, theirs / "utt2speech_token.pt")
    torch.save({"a": [1.0] * 192}, theirs / "utt2embedding.pt")
    for given in (ours, Given(theirs)):
        assert "a" in given
        assert "b" not in given
        assert given("a").tokens.tolist() == [4, 6560]
        assert given("a").voice.shape == (192,)
    with pytest.raises(DatasetError, match=r"utt2speech_token.pt has nothing of 'b', but 1 others such as 'a'"):
        Given(theirs).tokens("b")
    torch.save({"a": [0.5]}, theirs / "utt2speech_token.pt")
    with pytest.raises(DatasetError, match=r"for 'a' a \(1,\) tensor of torch.float32, and tokens are"):
        Given(theirs).tokens("a")
