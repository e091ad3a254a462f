"""Files that stand for those around CosyVoice 2's flow: of their form, inputs and outputs, small, and of random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor


def s3tokenizer() -> Any:
    return pytest.importorskip("s3tokenizer.model_v2", reason="s3tokenizer is not installed")


def tokenizer_state(layers: int = 1, bands: int = 80) -> tuple[Any, dict[str, Tensor]]:
    """An S3 tokenizer of width 64 with random weights; the published one hears 128 bands."""
    package = s3tokenizer()
    torch.manual_seed(0)
    network = package.S3TokenizerV2(
        "v2", package.ModelConfig(n_mels=bands, n_audio_state=64, n_audio_head=1, n_audio_layer=layers)
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.3)
    return network.eval(), {name: value.clone() for name, value in network.state_dict().items()}


EXPORTED = {
    "encoder.conv1.weight": "onnx::Conv_2216", "encoder.conv1.bias": "onnx::Conv_2217", "encoder.conv2.weight": "onnx::Conv_2218",
    "encoder.conv2.bias": "onnx::Conv_2219", "quantizer._codebook.project_down.weight": "onnx::MatMul_2536",
    "quantizer._codebook.project_down.bias": "quantizer.project_in.bias",
}  # fmt: skip
"""Names of the published export that say nothing of the layer; the others are known by their nodes."""


def exported(state: dict[str, Tensor], path: Path) -> None:
    """Weights where the package looks for them in ``speech_tokenizer_v2.onnx``: matrices transposed, by the nodes' names."""
    nodes, held = [], []

    def keep(name: str, value: Tensor) -> str:
        held.append(numpy_helper.from_array((value.T if value.ndim == 2 else value).contiguous().numpy(), name))
        return name

    for key, value in state.items():
        place, _, kind = key.removeprefix("encoder.").rpartition(".")
        node = "/" + place.replace(".", "/").replace("blocks/", "blocks.").replace("mlp/", "mlp/mlp.")
        if key in EXPORTED:
            nodes.append(helper.make_node("Conv", ["x", keep(EXPORTED[key], value)], ["y"], name=key))
        elif place.endswith("_ln"):
            if kind == "weight":
                both = [keep(key, value), keep(f"{key}+", state[key.replace("weight", "bias")])]
                nodes.append(
                    helper.make_node("LayerNormalization", ["x", *both], ["y"], name=f"{node}/LayerNormalization")
                )
        else:
            what = {"weight": "Conv" if place.endswith("fsmn_block") else "MatMul", "bias": "Add"}[kind]
            nodes.append(helper.make_node(what, ["x", keep(key, value)], ["y"], name=f"{node}/{what}"))
    onnx.save(helper.make_model(helper.make_graph(nodes, "tokenizer", [], [], held)), path)


def network_file(path: Path, bands: int = 80, dims: int = 192) -> np.ndarray:
    """An ONNX of CAM++'s signature: the deviation over time of each band, times a matrix, which comes back."""
    matrix = np.random.default_rng(0).standard_normal((bands, dims)).astype(np.float32)
    nodes = [
        helper.make_node("Mul", ["fbank", "fbank"], ["square"]),
        helper.make_node("ReduceMean", ["square"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["mean", "matrix"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes, "campplus",
        [helper.make_tensor_value_info("fbank", TensorProto.FLOAT, ["B", "T", bands])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["B", dims])],
        [numpy_helper.from_array(matrix, "matrix")],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return matrix


def write_files(folder: Path) -> Path:
    """``speech_tokenizer_v2.onnx``, ``campplus.onnx`` and ``hift.pt`` in ``CosyVoice2-0.5B`` of a folder of models."""
    from imfbench.features.hift import generator

    place = folder / "CosyVoice2-0.5B"
    place.mkdir(parents=True)
    exported(tokenizer_state(bands=128)[1], place / "speech_tokenizer_v2.onnx")
    network_file(place / "campplus.onnx")
    torch.manual_seed(0)
    torch.save(generator().state_dict(), place / "hift.pt")
    return place
