"""Chatterbox's own flow in a small size, of one time or of two, and its file: for several test modules."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from small_cosyvoice import EXTRA, SMALL, fill, numbers

from imfbench.backbones.originals import original


def chatterbox_part(name: str) -> Any:
    s3gen = "chatterbox.models.s3gen"
    if importlib.util.find_spec("chatterbox") is None:
        pytest.skip("chatterbox-tts is not installed: pip install --no-deps chatterbox-tts")
    return original(f"{s3gen}.{name}", extra=EXTRA, without=["chatterbox", "chatterbox.models", s3gen])


def chatterbox_flow(meanflow: bool) -> Any:
    """Its ``flow`` as ``s3gen.S3Token2Mel`` builds it, but for the sizes."""
    torch.manual_seed(5)
    encoder = chatterbox_part("transformer.upsample_encoder").UpsampleConformerEncoder(
        output_size=512, attention_heads=SMALL.encoder_heads, linear_units=SMALL.encoder_units, num_blocks=SMALL.encoder_blocks,
        dropout_rate=0.1, positional_dropout_rate=0.1, attention_dropout_rate=0.1, normalize_before=True, input_layer="linear",
        pos_enc_layer_type="rel_pos_espnet", selfattention_layer_type="rel_selfattn", input_size=512, use_cnn_module=False,
        macaron_style=False,
    )  # fmt: skip
    estimator = chatterbox_part("decoder").ConditionalDecoder(
        in_channels=320, out_channels=80, causal=True, channels=[SMALL.channels], dropout=0.0,
        attention_head_dim=SMALL.attention_head_dim, n_blocks=SMALL.n_blocks, num_mid_blocks=SMALL.num_mid_blocks,
        num_heads=SMALL.heads, act_fn="gelu", meanflow=meanflow,
    )  # fmt: skip
    decoder = chatterbox_part("flow_matching").CausalConditionalCFM(spk_emb_dim=80, estimator=estimator)
    flow = fill(
        chatterbox_part("flow").CausalMaskedDiffWithXvec(encoder=encoder, decoder=decoder, vocab_size=SMALL.vocab_size)
    )
    if meanflow:
        with torch.no_grad():
            estimator.time_embed_mixer.weight.add_(0.1 * numbers(128, 256, seed=9))
    return flow


def published(flow: Any, path: Path) -> Path:
    """A file as Chatterbox publishes it, with what stands beside the flow."""
    state = {"flow." + name: value.clone() for name, value in flow.state_dict().items()}
    save_file(state | {"mel2wav.conv_pre.bias": torch.zeros(3), "tokenizer.window": torch.zeros(3)}, path)
    return path
