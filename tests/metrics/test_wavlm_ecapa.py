"""WavLM with ECAPA: the published checkpoint's layout, tensor by tensor, and the reference implementation's digits.

The weights cannot be had from a package. What can be shown without them: that a checkpoint with the names, shapes and number of
tensors of the published one is read whole, that anything else is refused, and that the network computes what the reference
computes from the same weights.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from imfbench import published, weights
from imfbench.metrics.base import ScoreItem
from imfbench.metrics.sim import SpeakerSimilarity
from imfbench.metrics.wavlm_ecapa import BACKBONE, LARGE, TRAINING_ONLY, WavLMECAPA, fill, renamed

pytest.importorskip("transformers", reason="needs `pip install 'imfbench[transformers]'`")

TINY: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "num_buckets": 32,
    "max_bucket_distance": 80,
}
KERNELS = (10, 3, 3, 3, 3, 2, 2)
SPEAKERS = 5994  # of VoxCeleb2, which it was fine-tuned on


def layout(sizes: dict[str, Any], channels: int, size: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes as Microsoft's code writes them: WavLM.py below ``feature_extract.model``, ecapa_tdnn.py beside it."""
    found: dict[str, tuple[int, ...]] = {}

    def layer(name: str, *shape: int, bias: bool = True) -> None:
        found[f"{name}.weight"] = shape
        if bias:
            found[f"{name}.bias"] = shape[:1]

    def norm(name: str, width: int) -> None:
        layer(name, width)
        found.update(
            {f"{name}.running_mean": (width,), f"{name}.running_var": (width,), f"{name}.num_batches_tracked": ()}
        )

    width, inner, heads = sizes["hidden_size"], sizes["intermediate_size"], sizes["num_attention_heads"]
    conv, position = sizes["conv_dim"][0], sizes["num_conv_pos_embeddings"]
    found[f"{BACKBONE}mask_emb"] = (width,)
    for i, kernel in enumerate(KERNELS):
        layer(f"{BACKBONE}feature_extractor.conv_layers.{i}.0", conv, conv if i else 1, kernel, bias=False)
        layer(f"{BACKBONE}feature_extractor.conv_layers.{i}.2.1", conv)
    layer(f"{BACKBONE}layer_norm", conv)
    layer(f"{BACKBONE}post_extract_proj", width, conv)
    found[f"{BACKBONE}encoder.pos_conv.0.bias"] = (width,)
    found[f"{BACKBONE}encoder.pos_conv.0.weight_g"] = (1, 1, position)
    found[f"{BACKBONE}encoder.pos_conv.0.weight_v"] = (width, width // sizes["num_conv_pos_embedding_groups"], position)
    layer(f"{BACKBONE}encoder.layer_norm", width)
    for i in range(sizes["num_hidden_layers"]):
        at = f"{BACKBONE}encoder.layers.{i}"
        for part in ("k_proj", "q_proj", "v_proj", "out_proj"):
            layer(f"{at}.self_attn.{part}", width, width)
        layer(f"{at}.self_attn.grep_linear", 8, width // heads)
        found[f"{at}.self_attn.grep_a"] = (1, heads, 1, 1)
        layer(f"{at}.self_attn_layer_norm", width)
        layer(f"{at}.final_layer_norm", width)
        layer(f"{at}.fc1", inner, width)
        layer(f"{at}.fc2", width, inner)
    found[f"{BACKBONE}encoder.layers.0.self_attn.relative_attention_bias.weight"] = (sizes["num_buckets"], heads)
    found["feature_weight"] = (sizes["num_hidden_layers"] + 1,)
    layer("layer1.conv", channels, width, 5)
    norm("layer1.bn", channels)
    for block in ("layer2", "layer3", "layer4"):
        for part in ("Conv1dReluBn1", "Conv1dReluBn2"):
            layer(f"{block}.{part}.conv", channels, channels, 1)
            norm(f"{block}.{part}.bn", channels)
        for i in range(7):
            layer(f"{block}.Res2Conv1dReluBn.convs.{i}", channels // 8, channels // 8, 3)
            norm(f"{block}.Res2Conv1dReluBn.bns.{i}", channels // 8)
        layer(f"{block}.SE_Connect.linear1", 128, channels)
        layer(f"{block}.SE_Connect.linear2", channels, 128)
    layer("conv", 1536, 3 * channels, 1)
    layer("pooling.linear1", 128, 1536, 1)
    layer("pooling.linear2", 1536, 128, 1)
    norm("bn", 3072)
    layer("linear", size, 3072)
    found["loss_calculator.projection.weight"] = (SPEAKERS, size)
    return found


def invented(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Weights that anybody can make again: by NumPy's frozen generator, seeded with the place of the name among all."""
    state = {}
    for i, name in enumerate(sorted(set(shapes) - set(TRAINING_ONLY))):
        shape = shapes[name]
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
            continue
        count = math.prod(shape)
        values = np.random.RandomState(i).uniform(-1, 1, count)
        if name.endswith(("running_var", "weight_g")):
            values = 0.75 + 0.25 * values
        elif count == shape[0] and name.endswith("weight"):
            values = 1 + 0.1 * values
        else:
            values = values * (0.3 if "bias" in name else 2 / np.sqrt(max(1, count / shape[0])))
        state[name] = torch.tensor(values.astype(np.float32)).reshape(shape)
    state["loss_calculator.projection.weight"] = torch.zeros(shapes["loss_calculator.projection.weight"])
    return state


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("wavlm") / "wavlm_large_finetune.pth"
    torch.save({"model": invented(layout(TINY, 16, 12)), "best_valid_eer": 0.0}, file)
    return file


def tiny() -> WavLMECAPA:
    return WavLMECAPA(TINY, channels=16, size=12)


def test_the_layout_is_that_of_the_published_file() -> None:
    shapes = layout(LARGE, 512, 256)
    assert len(shapes) == 711
    assert sum(name.startswith("feature_extract.") for name in shapes) == 488
    size = sum((8 if name.endswith("tracked") else 4) * math.prod(shape) for name, shape in shapes.items())
    model = published.PUBLISHED["wavlm-large-ecapa"]
    assert size == 1_301_657_932  # beside this the file holds names and padding
    assert 0 < model.size - size < 512 * len(shapes)


def test_every_tensor_of_the_published_layout_has_its_place() -> None:
    with torch.device("meta"):
        expected = {name: tuple(tensor.shape) for name, tensor in WavLMECAPA().state_dict().items()}
    found = {renamed(name): shape for name, shape in layout(LARGE, 512, 256).items()}
    assert found.pop(None) == (SPEAKERS, 256), "the one that only training uses"
    assert found == expected
    assert len(found) == 710, "no two of them share a place"


# Computed by the reference itself: S3PRL's WavLM (ec8064b5) under the head of F5-TTS's eval/ecapa_tdnn.py (2ae2c9b), from the
# weights of ``invented`` in its own names.
DIGITS = (
    0.0007608086, -0.2579480112, 1.2042371035, 2.9115159512, 1.4551682472, 0.0521611795,
    -3.9561643600, 2.8792181015, -2.4510495663, -1.8353452682, 4.2231659889, -5.6130208969,
)  # fmt: skip


def test_the_embedding_has_the_references_digits(checkpoint: Path) -> None:
    network = tiny()
    fill(network, checkpoint)
    k = np.arange(24000)
    wave = np.sin(k * 0.05 * (1 + 0.3 * np.sin(k * 3e-4))) * 0.3 + 0.05 * np.random.RandomState(99).uniform(
        -1, 1, 24000
    )
    with torch.no_grad():
        found = network.eval()(torch.tensor(wave, dtype=torch.float32)[None])
    assert found.shape == (1, 12)
    assert found[0].tolist() == pytest.approx(DIGITS, abs=1e-4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("layer2.SE_Connect.linear1.bias"), "it lacks layer2.SE_Connect.linear1.bias"),
        (lambda s: s.pop(f"{BACKBONE}encoder.layers.1.fc1.weight"), "feed_forward.intermediate_dense.weight"),
        (lambda s: s.update({"layer5.conv.weight": torch.zeros(1)}), "layer5.conv.weight, which the network has not"),
        (
            lambda s: s.update({f"{BACKBONE}final_proj.weight": torch.zeros(1)}),
            "it holds feature_extract.model.final_proj.weight, which the network has not",
        ),
        (lambda s: s.update({"linear.bias": torch.zeros(5)}), r"linear.bias has shape \(5,\) instead of \(12,\)"),
    ],
)
def test_another_networks_tensors_are_named_and_refused(
    change: Any, words: str, checkpoint: Path, tmp_path: Path
) -> None:
    state = dict(torch.load(checkpoint, weights_only=True)["model"])
    change(state)
    torch.save({"model": state}, tmp_path / "other.pth")
    with pytest.raises(weights.DamagedModelError, match=words):
        fill(tiny(), tmp_path / "other.pth")


class Runs:
    """A pickle that would run code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("this ran",)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model": {"feature_weight": Runs()}}, tmp_path / "bad.pth")
    with pytest.raises(weights.DamagedModelError, match="would run code"):
        fill(tiny(), tmp_path / "bad.pth")
    assert "this ran" not in capsys.readouterr().out


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The metric with the tiny network, whose file has no published sum."""
    from dataclasses import replace

    from imfbench.metrics import wavlm_ecapa

    model = replace(published.PUBLISHED["wavlm-large-ecapa"], sha256="")
    monkeypatch.setitem(published.PUBLISHED, "wavlm-large-ecapa", model)
    monkeypatch.setattr(wavlm_ecapa.WavLMECAPA.__init__, "__defaults__", (TINY, 16, 1536, 128, 12))


@pytest.mark.usefixtures("small")
def test_the_metric_finds_the_file_and_says_how_it_is_made(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, demo_test_items: Any
) -> None:
    monkeypatch.setenv(published.MODEL_DIR, str(checkpoint.parent))
    metric = SpeakerSimilarity(SpeakerSimilarity.Config(backend="wavlm-large-ecapa", resampler="torchaudio-sinc"))
    digest = weights.sha256(checkpoint)[:8]
    assert metric.signature == (
        f"sim-v1|embedder:wavlm-large-ecapa@{digest}|vad:none|reference:prompt|resample:torchaudio-sinc"
    )
    item: ScoreItem = demo_test_items(1)[0]
    with metric.loaded():
        observed = metric.observe(item)
        itself = ScoreItem("x", item.audio, item.sample_rate, "", "en", item.audio, item.sample_rate)
        assert metric.score(itself)["sim"] == pytest.approx(1)
    assert len(observed["embedding"]) == 12
    assert np.linalg.norm(observed["embedding"]) == pytest.approx(1, abs=1e-5)


def test_a_file_with_another_sum_than_the_published_one_is_refused(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMFBENCH_WAVLM_LARGE_ECAPA", str(checkpoint))
    with pytest.raises(weights.DamagedModelError, match=r"is not the published wavlm_large_finetune\.pth.*51f07e3b"):
        _ = SpeakerSimilarity(SpeakerSimilarity.Config(backend="wavlm-large-ecapa")).signature
