"""The speaker verification model behind the published SIM figures: WavLM-large with an ECAPA-TDNN on top.

The network reads the published checkpoint ``wavlm_large_finetune.pth``: ``{"model": tensors, …}`` with the names of Microsoft's
own WavLM below ``feature_extract.model`` and those of the head beside it. WavLM itself is that of ``transformers``; ``renamed``
says what each tensor is called there. The one tensor that only training uses is left out by its name; any other that is
missing, left over or of another shape is an error.

Sources: WavLM: Chen et al. 2022, arXiv 2110.13900. ECAPA-TDNN: Desplanques et al. 2020, arXiv 2005.07143. Their combination
and its checkpoint: microsoft/UniSpeech, downstreams/speaker_verification, run by way of S3PRL's upstream ``wavlm_large``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from imfbench import weights

LARGE: dict[str, Any] = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "conv_dim": (512,) * 7,
    "num_conv_pos_embeddings": 128,
    "num_conv_pos_embedding_groups": 16,
    "num_buckets": 320,
    "max_bucket_distance": 800,
}
"""What WavLM-large has beside what every WavLM of its kind has, in the names of ``transformers``."""

TRAINING_ONLY = ("loss_calculator.projection.weight",)
"""Tensors of the checkpoint that only training uses: the speakers' weights of the loss."""

BACKBONE = "feature_extract.model."
_SIMPLE = (
    (r"mask_emb", "masked_spec_embed"),
    (r"layer_norm\.(weight|bias)", r"feature_projection.layer_norm.\1"),
    (r"post_extract_proj\.(weight|bias)", r"feature_projection.projection.\1"),
    (r"feature_extractor\.conv_layers\.(\d+)\.0\.(weight|bias)", r"feature_extractor.conv_layers.\1.conv.\2"),
    (r"feature_extractor\.conv_layers\.(\d+)\.2\.1\.(weight|bias)", r"feature_extractor.conv_layers.\1.layer_norm.\2"),
    (r"encoder\.pos_conv\.0\.bias", "encoder.pos_conv_embed.conv.bias"),
    # Weight normalisation of older torch: g is the length, v the direction.
    (r"encoder\.pos_conv\.0\.weight_g", "encoder.pos_conv_embed.conv.parametrizations.weight.original0"),
    (r"encoder\.pos_conv\.0\.weight_v", "encoder.pos_conv_embed.conv.parametrizations.weight.original1"),
    (r"encoder\.layer_norm\.(weight|bias)", r"encoder.layer_norm.\1"),
)
_IN_LAYERS = (
    (r"self_attn\.([kqv]|out)_proj\.(weight|bias)", r"attention.\1_proj.\2"),
    (r"self_attn\.relative_attention_bias\.weight", "attention.rel_attn_embed.weight"),
    (r"self_attn\.grep_linear\.(weight|bias)", r"attention.gru_rel_pos_linear.\1"),
    (r"self_attn\.grep_a", "attention.gru_rel_pos_const"),
    (r"self_attn_layer_norm\.(weight|bias)", r"layer_norm.\1"),
    (r"fc1\.(weight|bias)", r"feed_forward.intermediate_dense.\1"),
    (r"fc2\.(weight|bias)", r"feed_forward.output_dense.\1"),
    (r"final_layer_norm\.(weight|bias)", r"final_layer_norm.\1"),
)
_NAMES = [(re.compile(old), new) for old, new in _SIMPLE] + [
    (re.compile(r"encoder\.layers\.(?P<layer>\d+)\." + old), new) for old, new in _IN_LAYERS
]


def renamed(name: str) -> str | None:
    """What a tensor of the checkpoint is called in ``WavLMECAPA``; None for one that only training uses.

    Raises:
        KeyError: No such tensor is known.
    """
    if name in TRAINING_ONLY:
        return None
    if not name.startswith(BACKBONE):
        return name
    inside = name.removeprefix(BACKBONE)
    for pattern, new in _NAMES:
        if found := pattern.fullmatch(inside):
            groups = found.groups()
            if "layer" in found.groupdict():
                layer, *groups = groups  # type: ignore[assignment]
                new = f"encoder.layers.{layer}.{new}"
            for i, group in enumerate(groups, 1):
                new = new.replace(f"\\{i}", group)
            return f"wavlm.{new}"
    raise KeyError(name)


class _Conv(nn.Module):
    """Convolution, ReLU, batch normalisation, in this order."""

    def __init__(self, before: int, after: int, width: int = 1, padding: int = 0) -> None:
        super().__init__()
        self.conv = nn.Conv1d(before, after, width, padding=padding)
        self.bn = nn.BatchNorm1d(after)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(torch.relu(self.conv(x)))


class _Res2(nn.Module):
    """Res2Net's split: each part is convolved together with what came of the one before; the last is handed on."""

    def __init__(self, channels: int, dilation: int, parts: int) -> None:
        super().__init__()
        self.width = channels // parts
        self.convs = nn.ModuleList(
            nn.Conv1d(self.width, self.width, 3, padding=dilation, dilation=dilation) for _ in range(parts - 1)
        )
        self.bns = nn.ModuleList(nn.BatchNorm1d(self.width) for _ in range(parts - 1))

    def forward(self, x: Tensor) -> Tensor:
        *parts, last = x.split(self.width, 1)
        done: list[Tensor] = []
        for part, conv, norm in zip(parts, self.convs, self.bns, strict=True):
            done.append(norm(torch.relu(conv(part + done[-1] if done else part))))
        return torch.cat([*done, last], 1)


class _Excitation(nn.Module):
    """Squeeze and excitation: a gain for each channel from its mean over time."""

    def __init__(self, channels: int, bottleneck: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(channels, bottleneck)
        self.linear2 = nn.Linear(bottleneck, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.linear2(torch.relu(self.linear1(x.mean(2))))).unsqueeze(2)


class _Block(nn.Module):
    """A block of ECAPA-TDNN; its parts have the names of the checkpoint."""

    def __init__(self, channels: int, dilation: int, bottleneck: int) -> None:
        super().__init__()
        self.Conv1dReluBn1 = _Conv(channels, channels)
        self.Res2Conv1dReluBn = _Res2(channels, dilation, parts=8)
        self.Conv1dReluBn2 = _Conv(channels, channels)
        self.SE_Connect = _Excitation(channels, bottleneck)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.SE_Connect(self.Conv1dReluBn2(self.Res2Conv1dReluBn(self.Conv1dReluBn1(x))))


class _Pooling(nn.Module):
    """Mean and standard deviation over time, weighted by attention."""

    def __init__(self, channels: int, bottleneck: int) -> None:
        super().__init__()
        self.linear1 = nn.Conv1d(channels, bottleneck, 1)
        self.linear2 = nn.Conv1d(bottleneck, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        share = torch.softmax(self.linear2(torch.tanh(self.linear1(x))), 2)
        mean = (share * x).sum(2)
        variance = (share * x**2).sum(2) - mean**2
        return torch.cat([mean, variance.clamp(min=1e-9).sqrt()], 1)


class WavLMECAPA(nn.Module):
    """WavLM's hidden states, weighted and summed, through ECAPA-TDNN.

    Args:
        wavlm: WavLM's sizes, in the names of ``transformers``.
        channels: Of the head.
        pooled: Channels that are pooled over time.
        bottleneck: Of its attention and its excitation.
        size: Of the embedding.
    """

    def __init__(
        self, wavlm: Mapping[str, Any] = LARGE, channels: int = 512, pooled: int = 1536, bottleneck: int = 128,
        size: int = 256,
    ) -> None:  # fmt: skip
        super().__init__()
        from transformers import WavLMConfig, WavLMModel

        config = WavLMConfig(
            feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=False, layerdrop=0.0, **wavlm
        )
        self.wavlm = WavLMModel(config)
        width, layers = config.hidden_size, config.num_hidden_layers
        self.feature_weight = nn.Parameter(torch.zeros(layers + 1))
        self.instance_norm = nn.InstanceNorm1d(width)
        self.layer1 = _Conv(width, channels, 5, padding=2)
        self.layer2 = _Block(channels, 2, bottleneck)
        self.layer3 = _Block(channels, 3, bottleneck)
        self.layer4 = _Block(channels, 4, bottleneck)
        self.conv = nn.Conv1d(3 * channels, pooled, 1)
        self.pooling = _Pooling(pooled, bottleneck)
        self.bn = nn.BatchNorm1d(2 * pooled)
        self.linear = nn.Linear(2 * pooled, size)

    def features(self, audio: Tensor) -> Tensor:
        """The weighted sum of the inputs of all layers and the last output, (batch, width, frames)."""
        # S3PRL's wrapper brings each recording to mean 0 and variance 1 first.
        wave = nn.functional.layer_norm(audio, audio.shape[1:])
        found = self.wavlm(wave, output_hidden_states=True)
        # The last one is meant after WavLM's last normalisation: transformers 4 lists it so, transformers 5 before it.
        states = torch.stack([*found.hidden_states[:-1], found.last_hidden_state])
        share = torch.softmax(self.feature_weight, 0)
        return (share[:, None, None, None] * states).sum(0).transpose(1, 2) + 1e-6

    def forward(self, audio: Tensor) -> Tensor:
        """Embeddings, (batch, size), of recordings at 16 kHz of one length, (batch, samples)."""
        first = self.layer1(self.instance_norm(self.features(audio)))
        second = self.layer2(first)
        third = self.layer3(second)
        fourth = self.layer4(third)
        x = torch.relu(self.conv(torch.cat([second, third, fourth], 1)))
        return self.linear(self.bn(self.pooling(x)))


def fill(network: WavLMECAPA, path: Path) -> None:
    """Load the published checkpoint; nothing of it is unpickled but tensors.

    Raises:
        imfbench.weights.DamagedModelError: It cannot be read, or it holds another network's tensors; the message names them.
    """
    state: dict[str, Tensor] = {}
    unknown = []
    for name, tensor in weights.load_tensors(path, "model").items():
        try:
            new = renamed(name)
        except KeyError:
            unknown.append(name)
            continue
        if new is not None:
            state[new] = tensor
    if unknown:
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        raise weights.DamagedModelError(
            f"{path} is no wavlm_large_finetune.pth: it holds {', '.join(unknown[:3])}{more}, which the network has not"
        )
    weights.fill(network, state, path)
