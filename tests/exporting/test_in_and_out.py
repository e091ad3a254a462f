"""From F5-TTS's own file to a student's: import, an experiment, export, by their commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile
from click.testing import CliRunner

pytest.importorskip("f5_tts", reason="needs `pip install 'imfbench[f5]'`")
pytest.importorskip("rjieba", reason="needs `pip install 'imfbench[f5]'`")
pytest.importorskip("pypinyin", reason="needs `pip install 'imfbench[f5]'`")

from small_f5 import CHARACTERS, V1, network

from imfbench.artefact import read_card
from imfbench.backbones.f5_checkpoint import write_checkpoint
from imfbench.cli import main
from imfbench.contracts.trial import small_corpus
from imfbench.datasets.demo.corpus import DATA
from imfbench.features.audio import load_audio

SIZE = ("dim", "depth", "heads", "dim_head", "text_dim", "conv_layers")


def imfbench(*arguments: object) -> str:
    result = CliRunner().invoke(main, [*map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


def prompt(folder: Path) -> Path:
    """Two seconds of speech."""
    audio, rate = load_audio(DATA / "test" / "prompts" / "prompt-af_sarah-000.flac")
    soundfile.write(folder / "prompt.wav", audio[: 2 * rate], rate)
    return folder / "prompt.wav"


def test_a_student_of_an_imported_teacher_carries_its_licence_characters_grid_and_scores(
    tmp_path: Path, tiny_in: Callable[[Path], Any]
) -> None:
    write_checkpoint(tmp_path / "model_7.safetensors", network())
    vocabulary = "".join(f"{c}\n" for c in " abcdefghijklmnopqrstuvwxyz.,!")
    assert len(vocabulary.splitlines()) == CHARACTERS
    (tmp_path / "vocab.txt").write_text(vocabulary)
    sizes = [word for name in SIZE for word in ("--set", f"{name}={getattr(V1, name)}")]
    teacher = tmp_path / "teacher"
    imfbench(
        "import", tmp_path / "model_7.safetensors", "--format", "f5", "--model", "F5TTS_v1_Base", "--vocab",
        tmp_path / "vocab.txt", "--out", teacher, *sizes,
    )  # fmt: skip
    imfbench(
        "synthesize", "--text", "Good evening.", "--prompt", prompt(tmp_path), "--prompt-text", "The morning air.", "--method",
        teacher, "--nfe", 2, "--no-score", "--device", "cpu", "--out", tmp_path / "said.wav",
    )  # fmt: skip
    audio, rate = soundfile.read(tmp_path / "said.wav")
    assert rate == 24_000
    assert len(audio) > rate / 4
    tiny = tiny_in(tmp_path)
    path = tiny.config(
        task="text2mel",
        teacher={"artefact": str(teacher), "nfe": [2], "guidance": 2.0},
        train_data={"options": {"root": str(small_corpus(tmp_path / "speech"))}},
        training={"steps": 2, "warmup": 0, "frames_per_batch": 600, "log_every": 1},
        systems=[
            {
                "method": "intmeanflow", "name": "student", "config": {"teacher_nfe": 2, "guidance": 2.0}, "nfe": [1],
                "search": {"method": "o3s", "nfe": [2], "score": "teacher-distance", "config": {"max_evaluations": 2}},
            }
        ],
        dataset={"limit": 1, "prefer_short": True},
        precision="fp32",
    )  # fmt: skip
    result = tiny.invoke(path)
    assert result.exit_code == 0, result.output
    student, out = tiny.out / "artefacts" / "student", tmp_path / "exported"
    assert read_card(student)["licence"] == "CC-BY-NC-4.0"
    told = imfbench("export", student, "--format", "f5", "--out", out)
    assert (out / "vocab.txt").read_text() == vocabulary
    card = json.loads((out / "card.json").read_text())
    assert card["licence"] == "CC-BY-NC-4.0"
    assert card["teacher"]["sha256"] == read_card(teacher)["sha256"]
    assert card["teacher"]["imported"]["file"] == "model_7.safetensors"
    assert (card["teacher_nfe"], card["guidance"]) == (2, 2.0)
    assert card["grids"]["2"]["from"] == "o3s"
    assert {row["nfe"] for row in card["scores"]} == {1, 2}
    assert all(row["sim"] is not None and row["signatures"]["sim"] for row in card["scores"])
    assert 'F5TTS(model="F5TTS_v1_Base", ckpt_file="model_7.safetensors", vocab_file="vocab.txt")' in told
