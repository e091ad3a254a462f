"""Files of CosyVoice 2's flow: the official layout, Chatterbox's and its two-step student, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from small_chatterbox import chatterbox_flow, published
from small_cosyvoice import SMALL, condition, numbers, original_flow, pair
from torch import Tensor, nn

from imfbench.backbones.cosyvoice2 import CosyVoice2Config, CosyVoice2Flow
from imfbench.backbones.cosyvoice2_checkpoint import (
    MIXER,
    CheckpointError,
    config_of,
    load_flow,
    read_flow,
    state_for_chatterbox,
    state_for_original,
)
from imfbench.flow.grids import uniform
from imfbench.flow.solvers import euler
from imfbench.method import encoded


@pytest.fixture(scope="module")
def official() -> dict[str, Tensor]:
    return {name: value.clone() for name, value in original_flow().state_dict().items()}


def load(path: Path, **settings: Any) -> CosyVoice2Flow:
    return load_flow(path, chunk=SMALL.chunk, attention_head_dim=SMALL.attention_head_dim, **settings)


def same(network: nn.Module, state: dict[str, Tensor]) -> bool:
    found = network.state_dict()
    return list(found) == list(state) and all(torch.equal(found[name], value) for name, value in state.items())


@pytest.mark.parametrize("kind", ["pt", "safetensors", "training"])
def test_the_official_layout_is_read_with_every_key_and_its_shape(
    kind: str, tmp_path: Path, official: dict[str, Tensor]
) -> None:
    path = tmp_path / ("flow.safetensors" if kind == "safetensors" else "flow.pt")
    if kind == "safetensors":
        save_file(official, path)
    else:
        torch.save(official | ({"epoch": 3, "step": 400} if kind == "training" else {}), path)
    network = load(path)
    assert same(network, official)
    assert network.config == SMALL
    assert not network.training
    assert not network.has_second_time
    assert load(path, streaming=True).config == SMALL.model_copy(update={"streaming": True})


def test_half_precision_is_read_as_float32(tmp_path: Path, official: dict[str, Tensor]) -> None:
    save_file({name: value.half() for name, value in official.items()}, tmp_path / "flow.safetensors")
    assert {value.dtype for value in load(tmp_path / "flow.safetensors").state_dict().values()} == {torch.float32}


def student(seed: int = 9) -> CosyVoice2Flow:
    """A network of two times whose mixer hears both."""
    _, network = pair()
    network.attach_second_time()
    with torch.no_grad():
        network.decoder.estimator.time_mlp.mixer.weight.add_(0.1 * numbers(128, 256, seed=seed))  # type: ignore[union-attr]
    return network


def test_what_is_written_is_what_was_read_with_the_mixer_under_its_name(
    tmp_path: Path, official: dict[str, Tensor]
) -> None:
    _, teacher = pair()
    assert all(torch.equal(state_for_original(teacher)[name], value) for name, value in official.items())
    assert list(state_for_original(teacher)) == list(official)
    network = student()
    state = state_for_original(network)
    assert set(state) - set(official) == {MIXER}
    assert state[MIXER].shape == (128, 256)
    beside = {name: torch.ones(1) for name in ("tokenizer.a", "speaker_encoder.b", "mel2wav.c", "flow.d")}
    chatterbox = state_for_chatterbox(network, beside)
    assert set(chatterbox) == {"flow." + name for name in state} | {"tokenizer.a", "speaker_encoder.b", "mel2wav.c"}
    for layout in (state, chatterbox):
        torch.save(layout, tmp_path / "student.pt")
        assert same(load(tmp_path / "student.pt"), dict(network.state_dict()))


# ---- Chatterbox's own code ----


def test_chatterboxs_two_step_student_gives_the_same_velocity_and_the_same_two_step_sample(tmp_path: Path) -> None:
    flow = chatterbox_flow(meanflow=True)
    ours = load(published(flow, tmp_path / "s3gen_meanflow.safetensors"))
    assert ours.has_second_time
    c = condition()
    z, t, r = numbers(1, 22, 80), torch.tensor([0.2]), torch.tensor([0.9])
    with torch.no_grad():
        mu = ours.encode(c)
        speaker = flow.spk_embed_affine_layer(torch.nn.functional.normalize(c.speaker, dim=1))
        inputs = {
            "mu": mu.transpose(1, 2), "mask": torch.ones(1, 1, 22), "spks": speaker, "cond": c.prompt_mel.transpose(1, 2)
        }  # fmt: skip
        theirs = flow.decoder.estimator(x=z.transpose(1, 2), t=t, r=r, **inputs).transpose(1, 2)
        torch.testing.assert_close(ours(z, t, r, c), theirs, atol=0, rtol=0)
        assert (ours(z, t, t, c) - theirs).abs().max() > 1e-3, "r must matter, or nothing was shown"
        known = encoded(ours, c)
        found = euler(lambda z, t, r: ours(z, t, r, known), z, uniform(2))
        expected = flow.decoder.basic_euler(z.transpose(1, 2), t_span=torch.linspace(0, 1, 3), **inputs).transpose(1, 2)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    h, _ = flow.encoder(flow.input_embedding(c.tokens[:, ::2] - 1), torch.tensor([11]))
    torch.testing.assert_close(mu, flow.encoder_proj(h), atol=0, rtol=0)


@pytest.mark.parametrize("meanflow", [False, True])
def test_chatterbox_reads_what_is_written_for_it(meanflow: bool, tmp_path: Path) -> None:
    flow = chatterbox_flow(meanflow)
    ours = student() if meanflow else pair()[1]
    state = {name.removeprefix("flow."): value for name, value in state_for_chatterbox(ours).items()}
    flow.load_state_dict(state, strict=True)
    again = load(published(flow, tmp_path / "s3gen.safetensors"))
    assert same(again, dict(ours.state_dict()))


# ---- what is refused ----


def test_other_networks_are_named_and_refused(tmp_path: Path, official: dict[str, Tensor]) -> None:
    one = torch.zeros(2, 2)
    others = {
        "CosyVoice 1": official | {"length_regulator.model.0.weight": one},
        "CosyVoice 3": {
            "decoder.estimator.transformer_blocks.0.attn.to_q.weight": one,
            "pre_lookahead_layer.conv1.weight": one,
        },
        "language model": {"llm.model.model.layers.0.mlp.up_proj.weight": one, "llm_decoder.weight": one},
        "HiFT": {"generator.m_source.l_linear.weight": one},
        "F5-TTS": {"ema_model.transformer.proj_out.weight": one},
        r"no flow of CosyVoice 2: among its 1 tensors is no input_embedding.weight; it has conv.weight": {
            "conv.weight": one
        },
    }
    for words, state in others.items():
        torch.save(state, tmp_path / "other.pt")
        with pytest.raises(CheckpointError, match=words) as caught:
            load(tmp_path / "other.pt")
        assert str(tmp_path / "other.pt") in str(caught.value)


def test_missing_unknown_and_misshapen_tensors_are_listed(tmp_path: Path, official: dict[str, Tensor]) -> None:
    state = dict(official)
    del state["encoder_proj.bias"], state["encoder.after_norm.weight"]
    state |= {"encoder.extra.weight": torch.zeros(2), "decoder.estimator.final_proj.bias": torch.zeros(79)}
    torch.save(state, tmp_path / "flow.pt")
    with pytest.raises(CheckpointError) as caught:
        load(tmp_path / "flow.pt")
    for words in (
        "it lacks encoder.after_norm.weight, encoder_proj.bias;",
        "beyond the network's encoder.extra.weight;",
        "decoder.estimator.final_proj.bias of (79,) instead of (80,)",
    ):
        assert words in str(caught.value)


def test_a_mixer_of_another_width_is_told(tmp_path: Path, official: dict[str, Tensor]) -> None:
    torch.save(official | {MIXER: torch.zeros(64, 128)}, tmp_path / "flow.pt")
    with pytest.raises(CheckpointError, match=r"\(64, 128\) instead of \(128, 256\)"):
        load(tmp_path / "flow.pt")


def test_heads_that_do_not_divide_and_other_things_than_weights_are_told(
    tmp_path: Path, official: dict[str, Tensor]
) -> None:
    torch.save(official, tmp_path / "flow.pt")
    with pytest.raises(CheckpointError, match="32 channels in its decoder, which do not divide into heads of 64"):
        load_flow(tmp_path / "flow.pt")
    torch.save({**official, "optimizer": {"lr": 1}}, tmp_path / "flow.pt")
    with pytest.raises(CheckpointError, match="optimizer, which are no tensors"):
        load(tmp_path / "flow.pt")
    torch.save([1, 2], tmp_path / "flow.pt")
    with pytest.raises(CheckpointError, match="holds a list"):
        load(tmp_path / "flow.pt")


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    for name in ("none.pt", "."):
        with pytest.raises(CheckpointError, match=r"does not exist|is a folder: name the file in it"):
            read_flow(tmp_path / name)
    for name in ("flow.pt", "flow.safetensors"):
        (tmp_path / name).write_bytes(b"x" * 100)
        with pytest.raises(CheckpointError, match=name):
            read_flow(tmp_path / name)
    torch.save(nn.Linear(2, 2), tmp_path / "flow.pt")  # a pickle of a class
    with pytest.raises(CheckpointError, match="refused"):
        read_flow(tmp_path / "flow.pt")


@pytest.mark.slow
def test_the_true_shape_is_read_from_the_weights(tmp_path: Path) -> None:
    flow = original_flow(CosyVoice2Config())
    torch.save(flow.state_dict(), tmp_path / "flow.pt")
    assert config_of(read_flow(tmp_path / "flow.pt"), tmp_path / "flow.pt") == CosyVoice2Config()
    assert same(load_flow(tmp_path / "flow.pt"), dict(flow.state_dict()))
