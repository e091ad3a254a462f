"""F5-TTS's network in a small size, its original on the same weights, and conditions: for several test modules."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from imfbench.backbones.f5tts import F5Config, F5DiT, original_module
from imfbench.backbones.originals import original
from imfbench.contracts.batches import fill
from imfbench.method import Condition

CHARACTERS = 30
V1 = F5Config(
    dim=64, depth=2, heads=2, dim_head=32, text_dim=16, text_num_embeds=CHARACTERS, conv_layers=2, mel_dim=100
)
BASE = V1.model_copy(update={"text_mask_padding": False, "pe_attn_head": 1})
"""As F5TTS_Base and the older Small have it."""


def network(config: F5Config = V1, seed: int = 0) -> F5DiT:
    """Random in every weight: the original's last layers start at zero, which would hide everything."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        found = F5DiT(config)
    fill(found)
    return found.eval()


def original_of(ours: F5DiT, **settings: Any) -> nn.Module:
    """The original class with the same weights, and with the original's own setting for padding."""
    arch = {**ours.config.model_dump(), "attn_mask_enabled": False, **settings}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the memory that its mask takes
        theirs: nn.Module = original_module("backbones.dit").DiT(**arch)
    theirs.load_state_dict({k: v for k, v in ours.transformer.state_dict().items() if "mixer" not in k})
    return theirs.eval()


def condition(
    lengths: tuple[int, ...] = (23, 23),
    texts: tuple[int, ...] = (9, 14),
    prompts: tuple[int, ...] = (7, 5),
    seed: int = 3,
) -> Condition:
    """Rows of these frames, characters and prompt frames; what is not valid is zero."""
    g = torch.Generator().manual_seed(seed)
    at = torch.arange(max(lengths))

    def below(ends: tuple[int, ...]) -> Tensor:
        return at < torch.tensor(ends)[:, None]

    valid, prompt = below(lengths), below(prompts)
    tokens = torch.randint(1, CHARACTERS + 1, valid.shape, generator=g) * below(texts)
    mel = torch.randn(*valid.shape, 100, generator=g) * prompt[..., None]
    return Condition(tokens, mel, prompt, valid, torch.zeros(len(valid), dtype=torch.bool))


def states(c: Condition, seed: int = 4) -> tuple[Tensor, Tensor]:
    """z and t for a condition."""
    g = torch.Generator().manual_seed(seed)
    return torch.randn(c.prompt_mel.shape, generator=g), torch.rand(len(c.valid), generator=g)


def inference() -> Any:
    """The original's ``f5_tts.infer.utils_infer``, without what it opens files, transcribes and draws with."""
    return original(
        "f5_tts.infer.utils_infer",
        extra="f5",
        without=["f5_tts.model"],
        unused={
            "f5_tts.model": {"CFM": original_module("cfm").CFM},
            "pydub": {"AudioSegment": None, "silence": None},
            "encodec": {"EncodecModel": None},
        },
    )
