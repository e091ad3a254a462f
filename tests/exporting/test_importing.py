"""``imfbench import``: the original software's files become artefacts, and what cannot is told in one paragraph."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn

from imfbench.artefact import load_artefact, read_card, read_network
from imfbench.cli import main
from imfbench.registry import BACKBONES


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["import", *map(str, arguments)])


def refused(*arguments: object, out: Path) -> str:
    """One paragraph, exit code 2, and nothing of the artefact."""
    result = run(*arguments, "--out", out)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert result.output.startswith("imfbench: ")
    assert not out.exists()
    assert [path for path in out.parent.iterdir() if path.name.startswith(".unfinished")] == []
    return result.output


def settings(values: dict[str, Any]) -> list[str]:
    return [word for key, value in values.items() for word in ("--set", f"{key}={value}")]


def same(folder: Path, network: nn.Module) -> bool:
    found = load_artefact(folder)[0].network.state_dict()
    return found.keys() == network.state_dict().keys() and all(
        torch.equal(found[name], value) for name, value in network.state_dict().items()
    )


# ---- F5-TTS ----


@pytest.fixture
def f5(tmp_path: Path) -> dict[str, Any]:
    """A small checkpoint as F5-TTS releases them, its vocabulary, and the settings that make the layout small."""
    pytest.importorskip("f5_tts", reason="needs `pip install 'imfbench[f5]'`")
    from small_f5 import CHARACTERS, V1, network

    from imfbench.backbones.f5_checkpoint import write_checkpoint

    made = network()
    write_checkpoint(tmp_path / "model_7.safetensors", made)
    vocabulary = tmp_path / "given.txt"
    vocabulary.write_text("".join(f"{c}\n" for c in (" ", *"abcdefghijklmnopqrstuvwxyz.,!"))[: 2 * CHARACTERS])
    names = ("dim", "depth", "heads", "dim_head", "text_dim", "conv_layers")
    return {
        "path": tmp_path / "model_7.safetensors",
        "network": made,
        "vocab": vocabulary,
        "size": settings({name: getattr(V1, name) for name in names}),
    }


def test_an_f5_checkpoint_becomes_a_teacher_with_its_characters(f5: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "teacher"
    result = run(
        f5["path"], "--format", "f5", "--model", "F5TTS_v1_Base", "--vocab", f5["vocab"], "--out", out, *f5["size"]
    )
    assert result.exit_code == 0, result.output
    assert "licence CC-BY-NC-4.0" in result.output
    card = read_card(out)
    assert (card["method"], card["task"], card["licence"]) == ("teacher", "text2mel", "CC-BY-NC-4.0")
    assert card["method_config"]["guidance"] == 2.0
    assert card["imported"]["sha256"] == hashlib.sha256(f5["path"].read_bytes()).hexdigest()
    assert (card["imported"]["file"], card["imported"]["layout"]) == ("model_7.safetensors", "F5TTS_v1_Base")
    assert (out / "vocab.txt").read_bytes() == f5["vocab"].read_bytes()
    assert read_network(out)[0] == "f5tts"
    assert same(out, f5["network"])


def test_licence_and_guidance_can_be_told(f5: dict[str, Any], tmp_path: Path) -> None:
    given = ("--format", "f5", "--model", "F5TTS_v1_Base", "--vocab", f5["vocab"], *f5["size"])
    result = run(f5["path"], *given, "--licence", "MIT", "--guidance", 1.5, "--out", tmp_path / "own")
    assert result.exit_code == 0, result.output
    card = read_card(tmp_path / "own")
    assert (card["licence"], card["method_config"]["guidance"]) == ("MIT", 1.5)


def test_what_is_missing_of_an_f5_checkpoint_is_told(f5: dict[str, Any], tmp_path: Path) -> None:
    out, form = tmp_path / "out", ("--format", "f5", *f5["size"])
    layout, vocab = ("--model", "F5TTS_v1_Base"), ("--vocab", f5["vocab"])
    path = f5["path"]
    assert "give the vocab.txt" in refused(path, *form, *layout, out=out)
    assert "name it with --model (" in refused(path, *form, *vocab, out=out)
    assert "unknown F5-TTS model 'F5TTS_v2'" in refused(path, *form, "--model", "F5TTS_v2", *vocab, out=out)
    f5["vocab"].write_text(" \na\nb\n")
    told = refused(path, *form, *layout, *vocab, out=out)
    assert f"{path} was trained on 30 characters, but {f5['vocab']} has 3" in told
    missing = tmp_path / "none.txt"
    assert f"{missing} cannot be read" in refused(path, *form, *layout, "--vocab", missing, out=out)
    assert "there is no file" in refused(tmp_path / "none.pt", *form, *layout, *vocab, out=out)


def test_another_size_and_unknown_settings_are_told(f5: dict[str, Any], tmp_path: Path) -> None:
    given = ("--format", "f5", "--model", "F5TTS_v1_Base", "--vocab", f5["vocab"])
    told = refused(f5["path"], *given, *f5["size"], "--set", "depth=3", out=tmp_path / "out")
    size = "it is of 2 blocks of width 64, and that of 3 of width 64"
    assert f"does not fit F5TTS_v1_Base: {size}; it lacks transformer.transformer_blocks.2" in told
    assert "--set colour: " in refused(f5["path"], *given, *f5["size"], "--set", "colour=red", out=tmp_path / "out")


def test_a_folder_that_holds_something_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    result = run(tmp_path / "flow.pt", "--format", "cosyvoice2", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "holds something already" in result.output
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


# ---- CosyVoice 2 and Chatterbox ----


@pytest.fixture(scope="module")
def flow() -> Any:
    from small_cosyvoice import pair

    return pair()[1]


SMALL = settings({"attention_head_dim": 16, "chunk": 4})


@pytest.mark.parametrize(("form", "licence"), [("cosyvoice2", "Apache-2.0"), ("chatterbox", "MIT")])
def test_a_flow_becomes_a_teacher(form: str, licence: str, flow: Any, tmp_path: Path) -> None:
    from imfbench.backbones.cosyvoice2_checkpoint import state_for_chatterbox, state_for_original

    path, out = tmp_path / "flow.pt", tmp_path / "teacher"
    torch.save((state_for_original if form == "cosyvoice2" else state_for_chatterbox)(flow), path)
    result = run(path, "--format", form, "--out", out, *SMALL, "--set", "streaming=true")
    assert result.exit_code == 0, result.output
    card = read_card(out)
    assert (card["method"], card["task"], card["licence"]) == ("teacher", "token2mel", licence)
    assert card["method_config"]["guidance"] == 0.7
    assert read_network(out)[1]["streaming"] is True
    assert same(out, flow)
    other = "chatterbox" if form == "cosyvoice2" else "cosyvoice2"
    told = refused(path, "--format", other, *SMALL, out=tmp_path / "out")
    assert f"{path} has the layout of {form}, not of {other}" in told


def test_chatterboxs_two_step_decoder_becomes_a_student(flow: Any, tmp_path: Path) -> None:
    import copy

    from safetensors.torch import save_file

    from imfbench.backbones.cosyvoice2_checkpoint import state_for_chatterbox

    two = copy.deepcopy(flow)
    two.attach_second_time()
    save_file(state_for_chatterbox(two), tmp_path / "s3gen_meanflow.safetensors")
    out = tmp_path / "student"
    result = run(tmp_path / "s3gen_meanflow.safetensors", "--format", "chatterbox", "--out", out, *SMALL)
    assert result.exit_code == 0, result.output
    method, card = load_artefact(out)
    assert card["method"] == "intmeanflow"
    assert card["unknown"] == ["teacher_nfe", "guidance"]
    assert method.network.has_second_time  # type: ignore[truthy-function]
    assert same(out, two)


def test_another_models_file_is_named(tmp_path: Path) -> None:
    pytest.importorskip("cosyvoice", reason="needs `pip install 'imfbench[cosyvoice]'`")
    path = tmp_path / "llm.pt"
    torch.save({"llm.model.weight": torch.zeros(2), "llm_decoder.weight": torch.zeros(2)}, path)
    told = refused(path, "--format", "cosyvoice2", out=tmp_path / "out")
    assert f"{path} is a language model of CosyVoice" in told
    told = refused(path, "--format", "cosyvoice2", "--vocab", path, out=tmp_path / "out")
    assert "--vocab belongs to F5-TTS's checkpoints" in told
    told = refused(path, "--format", "cosyvoice2", "--set", "depth=2", out=tmp_path / "out")
    assert "--set depth: the flow has no such setting" in told


def test_a_flow_of_another_mel_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    pytest.importorskip("small_cosyvoice")
    from small_cosyvoice import SMALL as SHAPE

    from imfbench.backbones.cosyvoice2 import CosyVoice2Flow

    path = tmp_path / "flow.pt"
    other = CosyVoice2Flow(SHAPE.model_copy(update={"mel_dim": 100, "input_size": 32}))
    torch.save(other.state_dict(), path)
    told = refused(path, "--format", "cosyvoice2", *SMALL, out=tmp_path / "out")
    assert f"{path} makes mels of 100 bands, and CosyVoice 2's, cosyvoice2-24k" in told
    assert [file.name for file in tmp_path.iterdir()] == ["flow.pt"]


def test_settings_of_a_flow_are_checked_and_a_file_that_is_cut_short_is_told(flow: Any, tmp_path: Path) -> None:
    from imfbench.backbones.cosyvoice2_checkpoint import state_for_original

    path, out = tmp_path / "flow.pt", tmp_path / "out"
    torch.save(state_for_original(flow), path)
    told = refused(path, "--format", "cosyvoice2", *SMALL, "--set", "streaming=maybe", out=out)
    assert "--set streaming: Input should be a valid boolean" in told
    told = refused(path, "--format", "cosyvoice2", out=out)
    assert "do not divide into heads of 64: set attention_head_dim" in told
    path.write_bytes(path.read_bytes()[:100_000])
    told = refused(path, "--format", "cosyvoice2", *SMALL, out=out)
    assert f"{path} is no checkpoint of tensors that can be read" in told
    assert told.strip().endswith("If it was cut short, fetch it again; else give another file")


def test_backbones_of_the_formats_are_registered() -> None:
    assert {"f5tts", "cosyvoice2"} <= set(BACKBONES.names())
