"""Manifests that lhotse itself writes: plain stretches are read as lhotse reads them, and everything else by lhotse."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from imfbench.data import DatasetError
from imfbench.manifest_audio import read_audio
from imfbench.manifest_rows import Row, read_rows

RATE = 16_000


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))).astype(np.float32)


def test_cuts_of_lhotse(tmp_path: Path) -> None:
    lhotse = pytest.importorskip("lhotse", reason="the extra lhotse is not installed")
    soundfile.write(tmp_path / "a.wav", noise(3.0), RATE)
    soundfile.write(tmp_path / "b.wav", np.stack([noise(2.0, 1), noise(2.0, 2)], 1), RATE)
    a, b = (lhotse.Recording.from_file(tmp_path / f"{name}.wav", recording_id=name) for name in "ab")

    def said(recording: Any, start: float, seconds: float, channel: int = 0) -> Any:
        return lhotse.SupervisionSegment(
            f"{recording.id}{start:g}",
            recording.id,
            start,
            seconds,
            channel=channel,
            text=f"At {start:g}.",
            speaker="x",
        )

    long = lhotse.MonoCut("long", 0.5, 2.5, 0, recording=a, supervisions=[said(a, 0.0, 1.0), said(a, 1.25, 0.75)])
    right = lhotse.MonoCut("right", 0.25, 1.0, 1, recording=b, supervisions=[said(b, 0.0, 1.0, channel=1)])
    fast = lhotse.MonoCut("whole", 0.0, 3.0, 0, recording=a, supervisions=[said(a, 0.0, 3.0)]).perturb_speed(1.5)
    mixed = right.append(right.with_id("again"))
    path = tmp_path / "cuts.jsonl.gz"
    lhotse.CutSet.from_cuts([long, right, fast, mixed]).to_file(path)
    rows = read_rows([path])
    assert [row.text for row in rows] == ["At 0.", "At 1.25.", "At 0.", "At 0.", "At 0.", "At 0."]
    assert [row.audio is None for row in rows] == [False, False, False, True, True, True]
    expected = [
        long.truncate(offset=0.0, duration=1.0), long.truncate(offset=1.25, duration=0.75), right, fast,
        mixed.truncate(duration=1.0), mixed.truncate(offset=1.0, duration=1.0),
    ]  # fmt: skip
    for row, cut in zip(rows, expected, strict=True):
        read_audio(row)
        samples, rate = read_audio(row)  # as in a second epoch
        assert rate == RATE
        assert row.seconds == pytest.approx(len(samples) / RATE, abs=1e-3)
        assert np.allclose(samples, cut.load_audio()[0], atol=1e-6)
    recordings, supervisions = tmp_path / "recordings.jsonl.gz", tmp_path / "supervisions.jsonl.gz"
    lhotse.RecordingSet.from_recordings([a, b]).to_file(recordings)
    lhotse.SupervisionSet.from_segments([said(a, 1.0, 0.5), said(b, 0.5, 1.0, channel=1)]).to_file(supervisions)
    rows = read_rows([recordings], [supervisions])
    assert [row.id for row in rows] == ["a1", "b0.5"]
    assert np.allclose(
        read_audio(rows[0])[0], soundfile.read(tmp_path / "a.wav", dtype="float32")[0][RATE : RATE * 3 // 2]
    )
    assert np.allclose(
        read_audio(rows[1])[0], soundfile.read(tmp_path / "b.wav", dtype="float32")[0][RATE // 2 : RATE * 3 // 2, 1]
    )


def test_without_the_package_its_cuts_are_refused_and_not_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lhotse.serialization", None)
    row = Row("mix", "Both.", "x", 1.0, None, cut={"id": "mix", "type": "MixedCut", "imfbench": [0.0, 1.0]})
    with pytest.raises(DatasetError, match=r"mix is no plain stretch of a file.*pip install 'imfbench\[lhotse\]'"):
        read_audio(row)
