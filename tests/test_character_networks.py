"""F5-TTS's network on characters: the vocab.txt beside its weights decides what it reads, and goes with its students."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from imfbench.artefact import ArtefactError, identity, load_artefact, read_card, save_artefact
from imfbench.building import build_method
from imfbench.config import Search, load
from imfbench.contracts.trial import small_corpus
from imfbench.datasets.demo.corpus import DemoCorpus
from imfbench.features.audio import load_audio
from imfbench.features.f5_condition import character_condition
from imfbench.features.griffin_lim import GriffinLim
from imfbench.features.mel import VOCOS
from imfbench.flow.grids import uniform
from imfbench.inputs import Inputs
from imfbench.method import Condition
from imfbench.pipeline import search as search_stage
from imfbench.pipeline.cells import cell_of
from imfbench.pipeline.context import Context, RunError
from imfbench.pipeline.plan import GridSearch
from imfbench.pipeline.search import recipe_of_search, sampled_mels
from imfbench.pipeline.synthesise import synthesise
from imfbench.pipeline.train import recipe_of_training, settings_of, train_artefact
from imfbench.pipeline.train_task import TrainTask
from imfbench.sampling import sampling_guidance
from imfbench.store import RunFolder, content_hash, file_sha256

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


def order(folder: Path, lines: tuple[str, ...]) -> Path:
    """The same weights beside characters in another order."""
    shutil.copytree(folder, folder.with_name("other-order"))
    (folder.with_name("other-order") / "vocab.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder.with_name("other-order")


def test_cells_searches_and_trainings_know_their_characters(tmp_path: Path, tiny: Any) -> None:
    one = artefact(tmp_path / "f5")
    other, none = order(one, (CHARACTERS[0], *reversed(CHARACTERS[1:]))), tmp_path / "phones"
    shutil.copytree(one, none)
    (none / "vocab.txt").unlink()
    assert len({(folder / "model.safetensors").read_bytes() for folder in (one, other, none)}) == 1

    def known(folder: Path) -> tuple[str, str, dict[str, Any], str]:
        path = tiny.config(
            f"{folder.name}.yaml",
            task="text2mel",
            teacher={"artefact": str(folder), "nfe": [2]},
            systems=[{"method": "intmeanflow", "name": "student", "nfe": [1]}],
        )
        context = Context(load(str(path)), RunFolder(tmp_path / f"run-{folder.name}"))
        context.once("inputs", lambda: Inputs(VOCOS, "plain"))
        cell = cell_of(context, next(row for row in context.plan.rows.values() if row.artefact == "teacher"))
        student = context.plan.artefacts["student"]
        recipe = recipe_of_training(context, student, settings_of(context.config, student))
        search = GridSearch("s", "teacher", "euler", 2, Search(method="o3s", nfe=[2], score={"sim": 1.0}))
        searched = recipe_of_search(context, search, [], identity(context.card("teacher")))
        return cell.folder.key, cell.identity["artefact_sha256"], recipe, content_hash(searched)

    found = [known(folder) for folder in (one, other, none)]
    for of_each in zip(*(map(str, row) for row in found), strict=True):
        assert len(set(of_each)) == 3
    _, sha256, recipe, _ = found[2]
    assert (
        sha256 == recipe["teacher_sha256"] == file_sha256(none / "model.safetensors")
    )  # as before there were characters
    assert "vocabulary_sha256" not in recipe
    assert found[0][2]["vocabulary_sha256"] == file_sha256(one / "vocab.txt")
    assert found[0][2]["teacher_sha256"] == recipe["teacher_sha256"]


def test_a_vocabulary_that_was_changed_or_lost_is_told(tmp_path: Path) -> None:
    ready = artefact(tmp_path / "f5")
    assert read_card(ready)["vocabulary_sha256"] == file_sha256(ready / "vocab.txt")
    card = json.loads((ready / "card.json").read_text())
    (ready / "card.json").write_text(json.dumps(card | {"vocabulary_sha256": file_sha256(ready / "vocab.txt")}))
    load_artefact(ready)
    whole = (ready / "vocab.txt").read_text()
    (ready / "vocab.txt").write_text(whole + "x\n")
    with pytest.raises(
        ArtefactError, match=r"vocab.txt has sha256 .*, but the card beside it says .*own vocab.txt there"
    ):
        load_artefact(ready)
    (ready / "vocab.txt").unlink()
    with pytest.raises(ArtefactError, match=r"vocab.txt is missing: the weights mean nothing"):
        read_card(ready)


def test_a_student_that_is_killed_has_its_characters(
    tmp_path: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = artefact(tmp_path / "f5")
    path = tiny.config(
        task="text2mel",
        teacher={"artefact": str(ready), "nfe": [2]},
        systems=[{"method": "intmeanflow", "name": "student", "nfe": [1]}],
    )
    context = Context(load(str(path)), RunFolder(tiny.out))

    def killed(task: Any, *_: Any) -> None:
        assert task.card["vocabulary_sha256"] == file_sha256(ready / "vocab.txt")
        raise KeyboardInterrupt

    monkeypatch.setattr(TrainTask, "carry_out", killed)
    with pytest.raises(KeyboardInterrupt):
        train_artefact(context, "student")
    assert (tiny.out / "artefacts/student/vocab.txt").read_bytes() == (ready / "vocab.txt").read_bytes()


def test_what_is_said_is_as_quiet_as_its_prompt(tmp_path: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In cells and in searches: the network hears the same of a prompt that is ten times quieter, and its speech is quieter."""
    path = tiny.config(
        task="text2mel",
        dataset={"limit": 1, "prefer_short": True},
        systems=[{"method": "teacher", "name": "own", "artefact": str(artefact(tmp_path / "f5")), "nfe": [1]}],
    )
    scored: list[np.ndarray] = []

    class Scorer:
        summary_columns = ("loudness",)

        def score(self, item: Any) -> dict[str, float]:
            scored.append(item.audio)
            return {"loudness": 0.0}

        def summarise(self, _: Any) -> dict[str, float]:
            return {"loudness": 0.0}

    def made(rms: float) -> tuple[np.ndarray, np.ndarray, Condition]:
        def quiet(path: Path, *rate: int) -> tuple[np.ndarray, int]:
            audio, found = load_audio(path, *rate)
            return audio * np.float32(rms / np.sqrt(np.mean(audio**2))), found

        monkeypatch.setattr("imfbench.datasets.demo.corpus.load_audio", quiet)
        context = Context(load(str(path)), RunFolder(tmp_path / f"run-{rms}"))
        context.once("vocoder", lambda: GriffinLim(2, mel=VOCOS))  # quick
        row = next(row for row in context.plan.rows.values() if row.kind == "sampled")
        synthesise(context, row.label)
        wav = next((tmp_path / f"run-{rms}").rglob("cells/*/audio/*"))
        utterance = context.utterances(context.test_set(row))[0]
        condition = context.dataset(context.test_set(row)).condition(utterance)
        mels = sampled_mels(
            context, context.load("own")[0], [utterance], {utterance.id: condition}, uniform(1), "euler"
        )
        search_stage._metric_score(context, Scorer(), [utterance], {utterance.id: condition})(mels)  # type: ignore[arg-type]
        return load_audio(wav)[0], scored.pop(), condition

    (low, low_scored, of_low), (quiet, quiet_scored, of_quiet) = made(0.05), made(0.005)
    assert of_low.gain is not None
    assert of_quiet.gain is not None
    assert [*of_low.gain.tolist(), *of_quiet.gain.tolist()] == pytest.approx([0.5, 0.05], rel=1e-4)
    torch.testing.assert_close(of_quiet.prompt_mel, of_low.prompt_mel, atol=1e-3, rtol=0)
    assert low_scored.std() > 1e-3
    np.testing.assert_allclose(quiet_scored, 0.1 * low_scored, atol=2e-4 * float(np.abs(low_scored).max()))
    np.testing.assert_allclose(low, low_scored, atol=1 / 32_768)  # 16 bits
    np.testing.assert_allclose(quiet, quiet_scored, atol=1 / 32_768)
    assert made(0.2)[2].gain == torch.ones(1)


def test_a_search_knows_the_conditions_that_it_looked_at(tmp_path: Path, tiny: Any) -> None:
    """The same development set with another length to fill is another search."""
    student = {"method": "intmeanflow", "name": "student", "nfe": [1]}
    search = GridSearch("s", "student", "euler", 2, Search(method="o3s", nfe=[2], score={"sim": 1.0}))
    found = []
    for length in ("truth", "prompt-rate"):
        dev = {"name": "demo", "split": "dev", "limit": 2, "options": {"length": length}}
        teacher = {"artefact": "embedded:text2mel", "nfe": [2]}
        path = tiny.config(f"{length}.yaml", task="text2mel", teacher=teacher, systems=[student], dev=dev)
        context = Context(load(str(path)), RunFolder(tmp_path / f"run-{length}"))
        found.append(recipe_of_search(context, search, [], "artefact")["dev"])
    assert found[0][:4] == found[1][:4]
    assert [dev[4:] for dev in found] == [["true length"], ["prompt's rate"]]


def test_a_teachers_rows_have_the_guidance_that_is_asked_for(tmp_path: Path, tiny: Any) -> None:
    """Its own without a word, another where one is given; what a student has baked in cannot be set."""

    def sampler(artefact: str, task: str, guidance: float | None) -> float:
        teacher = {"artefact": artefact, "nfe": [1], "guidance": guidance}
        path = tiny.config("asked.yaml", task=task, teacher=teacher, systems=[])
        context = Context(load(str(path)), RunFolder(tmp_path / "run"))
        row = next(row for row in context.plan.rows.values() if row.kind == "sampled")
        method, _ = context.sampler(row)
        assert float(method.config.guidance) == sampling_guidance(method) or method.baked_guidance is not None
        return sampling_guidance(method)

    own = sampler(str(tiny.artefact()), "token2mel", None)
    assert sampler(str(tiny.artefact()), "token2mel", own + 1.5) == own + 1.5
    assert sampler(str(tiny.artefact()), "token2mel", 0.0) == 0.0
    with pytest.raises(RunError, match="teacher: guidance 2 cannot be set while sampling: it is baked into teacher"):
        sampler("embedded:text2mel-intmeanflow", "text2mel", 2.0)
