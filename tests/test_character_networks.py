"""F5-TTS's network on characters: the vocab.txt beside its weights decides what it reads, and goes with its students."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from imfbench.artefact import save_artefact
from imfbench.building import build_method
from imfbench.contracts.trial import small_corpus
from imfbench.datasets.demo.corpus import DemoCorpus
from imfbench.features.f5_condition import character_condition
from imfbench.features.mel import VOCOS
from imfbench.inputs import Inputs

pytest.importorskip("f5_tts", reason="the extra f5 is not installed")
pytest.importorskip("rjieba", reason="the extra f5 is not installed")
pytest.importorskip("pypinyin", reason="the extra f5 is not installed")

CHARACTERS = tuple(" !',-.?" + "abcdefghijklmnopqrstuvwxyz" + "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
SHAPE = {
    "dim": 32, "depth": 1, "heads": 2, "dim_head": 16, "text_dim": 16, "conv_layers": 1, "text_num_embeds": len(CHARACTERS),
}  # fmt: skip


def artefact(folder: Path, lines: tuple[str, ...] = CHARACTERS) -> Path:
    method = build_method("teacher", backbone="f5tts", backbone_config=SHAPE)
    save_artefact(folder, "teacher", method, {"name": "ready", "task": "text2mel", "training": {"steps": 1}})
    (folder / "vocab.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def test_the_condition_is_the_characters_of_both_texts_and_the_length_is_f5_ttss() -> None:
    prompt = 0.3 * torch.sin(torch.arange(48_000) / 10).numpy()  # two seconds
    c = character_condition(CHARACTERS, prompt, 24_000, "Yes.", "No, Ö.", VOCOS)
    said = [CHARACTERS.index(x) + 1 for x in "Yes.  No, "] + [1, CHARACTERS.index(".") + 1]  # Ö is unknown: the space
    assert c.tokens[0, : len(said)].tolist() == said
    assert not c.tokens[0, len(said) :].any()
    hops = 48_000 // 256
    # of "Yes.  " 6 bytes, of the text 7; a text below 10 bytes takes the speed .3
    assert c.valid.shape[1] == hops + int(hops / 6 * 7 / 0.3)
    assert int(c.prompt.sum()) == hops + 1
    assert c.prompt_mel.shape[2] == 100
    assert not c.prompt_mel[:, hops + 1 :].any()


def test_batches_have_whole_prompts_before_their_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMFBENCH_CACHE", str(tmp_path / "cache"))
    corpus = DemoCorpus(root=small_corpus(tmp_path / "speech"), task="text2mel")
    corpus.inputs = Inputs(VOCOS, "plain", vocabulary=len(CHARACTERS), characters=CHARACTERS)
    texts = {row["id"]: row["text"] for row, _ in corpus._training_rows()}
    frames = {e.id: len(e.mel) for e in corpus.examples()}
    batch = next(corpus.batches(1200, 0))
    for i, name in enumerate(batch.ids):
        tokens = batch.condition.tokens[i]
        said = "".join(CHARACTERS[k - 1] for k in tokens[tokens > 0].tolist())
        prompt = next(id for id, text in texts.items() if said == f"{text}  {texts[name]}")
        assert int(batch.condition.prompt[i].sum()) == frames[prompt]


def test_a_student_has_its_teachers_characters(tmp_path: Path, tiny_in: Callable[[Path], Any]) -> None:
    tiny = tiny_in(tmp_path)
    path = tiny.config(
        task="text2mel",
        teacher={"artefact": str(artefact(tmp_path / "f5")), "nfe": [2]},
        systems=[{"method": "intmeanflow", "name": "student", "nfe": [1]}],
        train_data={"options": {"root": str(small_corpus(tmp_path / "speech"))}},
        training={"steps": 2, "frames_per_batch": 600, "log_every": 1, "warmup": 0},
    )
    result = tiny.invoke(path)
    assert result.exit_code == 0, result.output
    assert all(row["status"] == "ok" and row["n_scored"] == 2 for row in tiny.leaderboard())
    copied = tiny.out / "artefacts" / "student" / "vocab.txt"
    assert copied.read_bytes() == (tmp_path / "f5" / "vocab.txt").read_bytes()
    # the student alone, somewhere else: it still reads characters
    shutil.copytree(tiny.out / "artefacts" / "student", tmp_path / "student")
    alone = [{"method": "intmeanflow", "name": "alone", "artefact": str(tmp_path / "student"), "nfe": [1]}]
    result = tiny.invoke(tiny.config("alone.yaml", task="text2mel", systems=alone), out=tmp_path / "alone")
    assert result.exit_code == 0, result.output


def test_a_vocabulary_of_another_size_is_refused(tmp_path: Path, tiny: Any) -> None:
    ready = artefact(tmp_path / "f5", CHARACTERS[:-1])
    systems = [{"method": "teacher", "name": "own", "artefact": str(ready), "nfe": [1]}]
    message = tiny.refused(tiny.config(task="text2mel", systems=systems))
    assert f"vocab.txt has {len(CHARACTERS) - 1} lines" in message
    assert f"knows {len(CHARACTERS)} characters" in message
