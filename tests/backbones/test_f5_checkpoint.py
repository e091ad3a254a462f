"""F5-TTS's checkpoints: those that the original writes are read, those that we write the original reads, others are refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

pytest.importorskip("f5_tts", reason="needs `pip install 'imfbench[f5]'`")

from small_f5 import BASE, CHARACTERS, V1, condition, inference, network, original_of, states

from imfbench.backbones.f5_checkpoint import (
    MIXER,
    CheckpointError,
    models,
    read_checkpoint,
    settings,
    state_for_original,
    write_checkpoint,
)
from imfbench.backbones.f5tts import F5Config, F5DiT, original_module
from imfbench.weights import DamagedModelError

SIZE: dict[str, Any] = {
    name: getattr(V1, name) for name in ("dim", "depth", "heads", "dim_head", "text_dim", "conv_layers", "mel_dim")
}
OLD = {"mel_spec.mel_stft.mel_scale.fb": torch.ones(3, 3), "mel_spec.mel_stft.spectrogram.window": torch.ones(3)}


def cfm(seed: int = 0) -> nn.Module:
    """The original's whole model, which is what it writes and reads."""
    return original_module("cfm").CFM(original_of(network(seed=seed)), num_channels=100)


def ema(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**{f"ema_model.{k}": v for k, v in state.items()}, "initted": torch.tensor(True), "step": torch.tensor(7)}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Files as the original's trainer and its pruning tool write them: seed 0 is the EMA, seed 1 the trained weights."""
    folder = tmp_path_factory.mktemp("f5")
    averaged, raw = ema(cfm().state_dict()), cfm(1).state_dict()
    training = {
        "model_state_dict": raw,
        "ema_model_state_dict": averaged,
        "optimizer_state_dict": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1e-4}]},
        "scheduler_state_dict": {"last_epoch": 3},
        "update": 7,
    }
    found = SimpleNamespace(folder=folder)
    for name, state in (
        ("training.pt", training),
        ("pruned_ema.pt", {"ema_model_state_dict": averaged}),
        ("pruned_raw.pt", {"model_state_dict": raw}),
        ("old.pt", {"ema_model_state_dict": {**averaged, **{f"ema_model.{k}": v for k, v in OLD.items()}}}),
    ):
        torch.save(state, folder / name)
    save_file(averaged, folder / "ema.safetensors")
    save_file(raw, folder / "raw.safetensors")
    save_file({k: v.half() if v.is_floating_point() else v for k, v in averaged.items()}, folder / "half.safetensors")
    return found


def read(path: Path, **changes: Any) -> F5DiT:
    return read_checkpoint(path, "F5TTS_v1_Base", **{**SIZE, **changes})


def same_weights(found: F5DiT, wanted: F5DiT) -> bool:
    state = wanted.state_dict()
    return all(torch.equal(value, state[name]) for name, value in found.state_dict().items())


@pytest.mark.parametrize(
    ("name", "weights", "seed"),
    [
        ("training.pt", None, 0),
        ("training.pt", "ema", 0),
        ("training.pt", "raw", 1),
        ("pruned_ema.pt", None, 0),
        ("pruned_raw.pt", None, 1),
        ("old.pt", None, 0),
        ("ema.safetensors", None, 0),
        ("raw.safetensors", None, 1),
    ],
)
def test_every_form_is_read_as_the_original_reads_it(
    files: SimpleNamespace, name: str, weights: Any, seed: int
) -> None:
    found = read(files.folder / name, weights=weights)
    assert same_weights(found, network(seed=seed))
    assert not found.training
    assert not found.has_second_time
    theirs = cfm(2)
    inference().load_checkpoint(theirs, str(files.folder / name), "cpu", torch.float32, use_ema=seed == 0)
    c = condition((23,), (9,), (7,))
    z, t = states(c)
    with torch.no_grad():
        wanted = theirs.eval().transformer(x=z, cond=c.prompt_mel, text=c.tokens[:, :9] - 1, time=t)
        assert torch.equal(found(z, t, None, c), wanted)


def test_half_precision_becomes_float32(files: SimpleNamespace) -> None:
    found = read(files.folder / "half.safetensors")
    assert {p.dtype for p in found.parameters()} == {torch.float32}
    assert all(
        torch.equal(p, q.half().float()) for p, q in zip(found.parameters(), network().parameters(), strict=True)
    )


@pytest.mark.parametrize("ending", [".safetensors", ".pt"])
def test_the_original_reads_what_is_written(tmp_path: Path, ending: str) -> None:
    ours, path = network(seed=5), tmp_path / f"model{ending}"
    if ending == ".pt":
        torch.save({"ema_model_state_dict": state_for_original(ours)}, path)
    else:
        write_checkpoint(path, ours, step=12)
        assert load_file(path)["step"] == 12
    theirs = cfm()
    inference().load_checkpoint(theirs, str(path), "cpu", torch.float32)
    state = theirs.state_dict()
    assert state.keys() == ours.state_dict().keys()
    assert all(torch.equal(value, state[name]) for name, value in ours.state_dict().items())
    assert same_weights(read(path), ours)


def test_the_originals_own_ema_takes_what_is_written() -> None:
    ema_pytorch = pytest.importorskip("ema_pytorch")
    average = ema_pytorch.EMA(cfm(), include_online_model=False)
    average.load_state_dict(state_for_original(network(seed=5), step=3))
    state = average.ema_model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in network(seed=5).state_dict().items())
    assert int(average.step) == 3
    assert average.state_dict().keys() == state_for_original(network()).keys()


def test_a_network_of_two_times_comes_back_and_is_refused_by_an_original_that_has_one(tmp_path: Path) -> None:
    ours, path = network(), tmp_path / "student.safetensors"
    ours.attach_second_time()
    with torch.no_grad():
        ours.transformer.time_embed.mixer.weight.add_(0.1)
    write_checkpoint(path, ours)
    assert load_file(path).keys() - ema(cfm().state_dict()).keys() == {f"ema_model.{MIXER}"}
    found = read(path)
    assert found.has_second_time
    assert same_weights(found, ours)
    with pytest.raises(RuntimeError, match=r"Unexpected key.*mixer"):
        inference().load_checkpoint(cfm(), str(path), "cpu", torch.float32)


def test_published_shapes_are_those_of_the_originals_configurations() -> None:
    assert models() == ["F5TTS_Base", "F5TTS_Base_bigvgan", "F5TTS_Small", "F5TTS_v1_Base", "F5TTS_v1_Small"]
    assert settings("F5TTS_v1_Base", 2545) == F5Config()
    base = settings("F5TTS_Base", 2545)
    assert (base.text_mask_padding, base.pe_attn_head) == (False, 1)
    assert settings("F5TTS_Base_bigvgan", 2545) == base.model_copy(update={"mel_format": "bigvgan-24k"})
    assert settings("F5TTS_v1_Base", 2545, mel_format="bigvgan-24k").mel_format == "bigvgan-24k"
    with torch.device("meta"):
        sizes = [sum(p.numel() for p in F5DiT(settings(name, 2545)).parameters()) / 1e6 for name in models()]
    assert [round(size, 1) for size in sizes] == [337.1, 337.1, 159.2, 337.1, 159.2]


def test_an_unknown_model_is_told_with_the_nearest(files: SimpleNamespace) -> None:
    with pytest.raises(CheckpointError, match=r"unknown F5-TTS model 'F5TTS_v1_Bse': did you mean 'F5TTS_v1_Base'"):
        read_checkpoint(files.folder / "ema.safetensors", "F5TTS_v1_Bse")
    with pytest.raises(CheckpointError, match="unknown F5-TTS model 'E2TTS_Base'"):
        read_checkpoint(files.folder / "ema.safetensors", "E2TTS_Base")


def test_a_vocabulary_of_another_size_is_refused(files: SimpleNamespace, tmp_path: Path) -> None:
    letters = [" ", *map(chr, range(0x100, 0x100 + CHARACTERS))]
    (tmp_path / "right.txt").write_text("".join(f"{c}\n" for c in letters[:CHARACTERS]), encoding="utf-8")
    (tmp_path / "wrong.txt").write_text("".join(f"{c}\n" for c in letters), encoding="utf-8")
    assert read(files.folder / "ema.safetensors", vocabulary=tmp_path / "right.txt").config == V1
    with pytest.raises(CheckpointError, match=r"ema.safetensors was trained on 30 characters, but .*wrong.txt has 31"):
        read(files.folder / "ema.safetensors", vocabulary=tmp_path / "wrong.txt")


def test_another_mel_width_and_another_size_are_refused(files: SimpleNamespace) -> None:
    with pytest.raises(CheckpointError, match=r"makes mels of 100 bands, but the network is set to 80"):
        read(files.folder / "ema.safetensors", mel_dim=80)
    with pytest.raises(CheckpointError, match=r"lacks transformer.transformer_blocks.2.*name the model that it is of"):
        read(files.folder / "ema.safetensors", depth=3)
    with pytest.raises(CheckpointError, match=r"does not know transformer.transformer_blocks.1.attn.to_k.bias"):
        read(files.folder / "ema.safetensors", depth=1)
    with pytest.raises(CheckpointError, match=r"of other shapes are transformer.transformer_blocks.0.ff"):
        read(files.folder / "ema.safetensors", ff_mult=3)


def test_the_size_of_another_published_model_is_recognised(tmp_path: Path) -> None:
    state = {
        "transformer.text_embed.text_embed.weight": torch.zeros(CHARACTERS + 1, 512),
        "transformer.proj_out.weight": torch.zeros(100, 768),
        **{f"transformer.transformer_blocks.{i}.attn.to_q.bias": torch.zeros(1) for i in range(18)},
    }
    save_file(state, tmp_path / "small.safetensors")
    with pytest.raises(CheckpointError, match=r"It has the size of F5TTS_Small and F5TTS_v1_Small: name the one it is"):
        read_checkpoint(tmp_path / "small.safetensors", "F5TTS_v1_Base", dim=64, depth=1)


def test_unknown_and_missing_keys_are_listed(files: SimpleNamespace, tmp_path: Path) -> None:
    state = load_file(files.folder / "ema.safetensors")
    del state["ema_model.transformer.proj_out.bias"], state["ema_model.transformer.input_embed.proj.weight"]
    save_file({**state, "ema_model.duration_predictor.weight": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError) as told:
        read(tmp_path / "other.safetensors")
    for part in ("other.safetensors", "proj_out.bias", "input_embed.proj.weight", "know duration_predictor.weight"):
        assert part in str(told.value)


def test_files_of_other_models_and_no_files_are_refused(files: SimpleNamespace, tmp_path: Path) -> None:
    save_file({"decoder.estimator.weight": torch.ones(2)}, tmp_path / "flow.safetensors")
    with pytest.raises(CheckpointError, match=r"not a checkpoint of F5-TTS's DiT.*decoder.estimator.weight"):
        read(tmp_path / "flow.safetensors")
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="holds a list, not named weights"):
        read(tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="there is no file"):
        read(tmp_path / "nothing.pt")
    with pytest.raises(CheckpointError, match="holds no raw weights, only ema ones"):
        read(files.folder / "ema.safetensors", weights="raw")
    with pytest.raises(CheckpointError, match="reads a file by its ending"):
        write_checkpoint(tmp_path / "model.bin", network())


def test_damaged_files_and_pickles_that_run_code_are_refused(files: SimpleNamespace, tmp_path: Path) -> None:
    for name in ("ema.safetensors", "training.pt"):
        data = (files.folder / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) // 2])
        with pytest.raises(DamagedModelError, match=name):
            read(tmp_path / name)
    torch.save({"ema_model_state_dict": {}, "code": SimpleNamespace(a=1)}, tmp_path / "code.pt")
    with pytest.raises(DamagedModelError, match="would run code"):
        read(tmp_path / "code.pt")


def test_the_other_layout_is_told_by_its_name_alone(files: SimpleNamespace) -> None:
    path = files.folder / "ema.safetensors"
    found = read_checkpoint(path, "F5TTS_Base", **SIZE)
    assert found.config == BASE
    c = condition((23,), (9,), (7,))
    z, t = states(c)
    with torch.no_grad():
        assert torch.equal(found(z, t, None, c), network(BASE)(z, t, None, c))
        assert not torch.allclose(found(z, t, None, c), read(path)(z, t, None, c), atol=1e-2)
