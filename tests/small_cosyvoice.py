"""What the tests of CosyVoice 2's parts share: the original flow, small or of its true shape, ours with its weights, and inputs.

The original's sampler imports Matcha-TTS's trainer for a logger; a placeholder stands in its place (see ``originals``).
"""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from imfbench.backbones.cosyvoice2 import CosyVoice2Config, CosyVoice2Flow, _encoder
from imfbench.backbones.originals import original
from imfbench.method import Condition

for package in ("omegaconf", "einops", "conformer", "diffusers", "matcha", "cosyvoice"):
    pytest.importorskip(package, reason="the original CosyVoice 2 is not installed: pip install 'imfbench[cosyvoice]'")

EXTRA = "cosyvoice"
SMALL = CosyVoice2Config(
    vocab_size=40, encoder_heads=2, encoder_units=32, encoder_blocks=1, channels=32, attention_head_dim=16, heads=2, n_blocks=1,
    num_mid_blocks=1, chunk=4,
)  # fmt: skip
"""All but 0.2 M of its 10.7 M parameters are the encoder's layers of fixed width."""
CFM = {
    "sigma_min": 1e-06, "solver": "euler", "t_scheduler": "cosine", "training_cfg_rate": 0.2, "inference_cfg_rate": 0.7,
    "reg_loss_type": "l1",
}  # fmt: skip
"""``cosyvoice2.yaml``."""


def original_cfm() -> Any:
    """The module of the original's samplers."""
    original(
        "matcha.models.components.flow_matching", extra=EXTRA, without=["matcha.utils"],
        unused={"matcha.utils.pylogger": {"get_pylogger": logging.getLogger}},
    )  # fmt: skip
    return original("cosyvoice.flow.flow_matching", extra=EXTRA)


@cache
def original_flow(config: CosyVoice2Config = SMALL, seed: int = 0) -> nn.Module:
    """``CausalMaskedDiffWithXvec`` as ``cosyvoice2.yaml`` builds it, but for the sizes; weights random, and none of them zero."""
    from omegaconf import DictConfig

    cfm = original_cfm()
    _encoder(SMALL)  # imports it without the language model
    torch.manual_seed(seed)
    encoder = original("cosyvoice.transformer.upsample_encoder", extra=EXTRA).UpsampleConformerEncoder(
        output_size=512, attention_heads=config.encoder_heads, linear_units=config.encoder_units,
        num_blocks=config.encoder_blocks, dropout_rate=0.1, positional_dropout_rate=0.1, attention_dropout_rate=0.1,
        normalize_before=True, input_layer="linear",
        pos_enc_layer_type="rel_pos_espnet", selfattention_layer_type="rel_selfattn", input_size=512, use_cnn_module=False,
        macaron_style=False, static_chunk_size=config.chunk,
    )  # fmt: skip
    estimator = original("cosyvoice.flow.decoder", extra=EXTRA).CausalConditionalDecoder(
        in_channels=320, out_channels=80, channels=[config.channels], dropout=0.0, attention_head_dim=config.attention_head_dim,
        n_blocks=config.n_blocks, num_mid_blocks=config.num_mid_blocks, num_heads=config.heads, act_fn="gelu",
        static_chunk_size=2 * config.chunk, num_decoding_left_chunks=-1,
    )  # fmt: skip
    flow: nn.Module = original("cosyvoice.flow.flow", extra=EXTRA).CausalMaskedDiffWithXvec(
        input_size=512, output_size=80, spk_embed_dim=192, output_type="mel", vocab_size=config.vocab_size, input_frame_rate=25,
        only_mask_loss=True, token_mel_ratio=2, pre_lookahead_len=3, encoder=encoder,
        decoder=cfm.CausalConditionalCFM(
            in_channels=240, n_spks=1, spk_emb_dim=80, cfm_params=DictConfig(content=CFM), estimator=estimator
        ),
    )  # fmt: skip
    return fill(flow, seed)


def fill(module: nn.Module, seed: int = 0) -> nn.Module:
    """Random values for what is zero or one at the start, since a bias of zero would hide that it is not used."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim < 2:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=g))
    return module.eval()


def pair(config: CosyVoice2Config = SMALL, **changes: Any) -> tuple[Any, CosyVoice2Flow]:
    """The original, and ours with the same weights."""
    flow = original_flow(config)
    ours = CosyVoice2Flow(config.model_copy(update=changes)).eval()
    ours.load_state_dict(flow.state_dict())
    return flow, ours


def numbers(*shape: int, seed: int = 1) -> Tensor:
    """Normal random numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def condition(
    tokens: int = 11, rows: int = 1, lengths: list[int] | None = None, prompt: int = 3, vocabulary: int = 40
) -> Condition:
    """Of rows with so many tokens (or ``lengths``), the first ``prompt`` of which are the prompt's."""
    lengths = [tokens] * rows if lengths is None else lengths
    rows, tokens = len(lengths), max(lengths)
    valid = torch.arange(tokens) < torch.tensor(lengths)[:, None]
    content = torch.randint(vocabulary, (rows, tokens), generator=torch.Generator().manual_seed(3)) + 1
    frames = (content * valid).repeat_interleave(2, 1)
    is_prompt = (torch.arange(2 * tokens) < 2 * prompt).repeat(rows, 1)
    mel = numbers(rows, 2 * tokens, 80, seed=4) * is_prompt[..., None]
    return Condition(
        frames,
        mel,
        is_prompt,
        valid.repeat_interleave(2, 1),
        torch.zeros(rows, dtype=torch.bool),
        numbers(rows, 192, seed=5),
    )
