"""F5-TTS's checkpoints, read into the network and written for the original software.

A released file is a state of the original's EMA: ``ema_model.transformer.…`` beside ``initted`` and ``step``. A training's
``.pt`` holds that under ``ema_model_state_dict`` and the trained weights under ``model_state_dict``. Layouts of one size cannot
be told apart by their tensors, so the user names the model: ``F5TTS_v1_Base`` masks the text's padding and gives positions to
every head, ``F5TTS_Base`` to one and masks nothing.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from torch import Tensor

from imfbench.backbones.f5tts import EXTRA, F5Config, F5DiT
from imfbench.backbones.originals import MissingPackageError, how_to_install
from imfbench.features.f5_text import read_vocabulary
from imfbench.registry import nearest
from imfbench.weights import DamagedModelError, load_tensors

EMA, RAW = "ema_model_state_dict", "model_state_dict"
PREFIX = "ema_model."
COUNTERS = ("initted", "step")
"""Of the original's EMA."""
OLD_BUFFERS = ("mel_spec.mel_stft.mel_scale.fb", "mel_spec.mel_stft.spectrogram.window")
"""Of the mel's transform, in files from before it lost its state; the original leaves them out too."""
MIXER = "transformer.time_embed.mixer.weight"
"""Of a network of two times: the one key that the original has not."""
EMBEDDING = "transformer.text_embed.text_embed.weight"
MEL = "transformer.proj_out.weight"
MELS = {"vocos": "vocos-24k", "bigvgan": "bigvgan-24k"}
"""The original's ``mel_spec_type`` → our format."""
SHOWN = 8

Which = Literal["ema", "raw"]


class CheckpointError(ValueError):
    """A checkpoint that is not one of the network named; the message names the file, what is wrong and the remedy."""


def models() -> list[str]:
    """Names of the published layouts that can be read: those of the original's configurations whose network is its DiT."""
    return sorted(_settings())


@cache
def _settings() -> dict[str, dict[str, Any]]:
    spec = importlib.util.find_spec("f5_tts")
    if spec is None or not spec.submodule_search_locations:
        raise MissingPackageError(f"f5_tts is not installed: {how_to_install(EXTRA)}")
    found = {}
    for path in sorted(Path(next(iter(spec.submodule_search_locations)), "configs").glob("*.yaml")):
        model = yaml.safe_load(path.read_text(encoding="utf-8")).get("model", {})
        if model.get("backbone") == "DiT":
            found[path.stem] = model
    if "F5TTS_Base" in found:  # published under this name, and without a configuration of its own
        base = found["F5TTS_Base"]
        found["F5TTS_Base_bigvgan"] = {**base, "mel_spec": {**base["mel_spec"], "mel_spec_type": "bigvgan"}}
    return found


def settings(model: str, characters: int, **changes: Any) -> F5Config:
    """The network of a published model, by the configuration in the original's package.

    Args:
        model: A name of :func:`models`.
        characters: Of its vocabulary.
        changes: Settings in place of the model's, such as ``checkpoint_activations``.

    Raises:
        CheckpointError: There is no such model.
    """
    if model not in _settings():
        raise CheckpointError(f"unknown F5-TTS model {model!r}: {nearest(model, models())}")
    found = _settings()[model]
    arch = {name: value for name, value in found["arch"].items() if name != "attn_mask_enabled"}
    mel = {"mel_dim": found["mel_spec"]["n_mel_channels"], "mel_format": MELS[found["mel_spec"]["mel_spec_type"]]}
    return F5Config(**{**arch, **mel, "text_num_embeds": characters, **changes})


def read_checkpoint(
    path: Path | str, model: str, vocabulary: Path | str | None = None, weights: Which | None = None, **changes: Any
) -> F5DiT:
    """A network with the weights of a checkpoint, in float32 and eval mode.

    Args:
        path: ``.safetensors``, or a checkpoint of torch (``.pt``), of which nothing but tensors is unpickled.
        model: Name of its layout, such as ``F5TTS_v1_Base``; see :func:`models`.
        vocabulary: Its ``vocab.txt``, whose size must be the checkpoint's; None takes the checkpoint's size.
        weights: ``ema`` or ``raw``; None takes the EMA's where the file has both.
        changes: As for :func:`settings`.

    Returns:
        The network; of two times if the checkpoint has a mixer (see :func:`state_for_original`).

    Raises:
        CheckpointError: The file is missing, is not a checkpoint of this model, or the vocabulary is of another size.
        imfbench.weights.DamagedModelError: It is cut short, or holds other objects than tensors.
        imfbench.features.f5_text.VocabularyError: The vocabulary cannot be used.
    """
    path = Path(path)
    characters = None if vocabulary is None else len(read_vocabulary(vocabulary))
    state = _state(path, weights)
    if EMBEDDING not in state or MEL not in state:
        raise CheckpointError(
            f"{path} is not a checkpoint of F5-TTS's DiT: it has no {EMBEDDING if EMBEDDING not in state else MEL}, but keys "
            f"such as {_some(sorted(state), 3)}; give the file of {model}"
        )
    held = state[EMBEDDING].shape[0] - 1  # number 0 is the filler
    config = settings(model, held if characters is None else characters, **changes)
    if held != config.text_num_embeds:
        raise CheckpointError(
            f"{path} was trained on {held} characters, but {vocabulary} has {config.text_num_embeds}: give the vocab.txt that "
            "belongs to the checkpoint"
        )
    if (bands := state[MEL].shape[0]) != config.mel_dim:
        raise CheckpointError(
            f"{path} makes mels of {bands} bands, but the network is set to {config.mel_dim}: give the checkpoint of {model}, "
            f"or set mel_dim to {bands}"
        )
    network = F5DiT(config)
    if MIXER in state:
        network.attach_second_time()
    if told := _misfits({name: value.shape for name, value in network.state_dict().items()}, state):
        raise CheckpointError(f"{path} does not fit {model}: {_sizes(config, state)}{told}. {_remedy(model, state)}")
    network.load_state_dict(state)  # copies into float32
    return network.eval()


def state_for_original(network: F5DiT, step: int = 0) -> dict[str, Tensor]:
    """The network's weights by the keys of a released checkpoint, on the CPU: what ``load_checkpoint`` of f5-tts takes.

    A network of two times has ``ema_model.`` + ``MIXER`` besides, which the original refuses: it would not know what r is.

    Args:
        network: Of one time or of two.
        step: Trained so far; the original's trainer reads it, its inference leaves it out.
    """
    state = {PREFIX + name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    return {**state, "initted": torch.tensor(True), "step": torch.tensor(step)}


def write_checkpoint(path: Path, network: F5DiT, step: int = 0) -> None:
    """Write ``state_for_original`` as safetensors, whole or not at all.

    Raises:
        CheckpointError: The name has another ending: the original goes by it.
        imfbench.disk.StoreError: It cannot be written.
    """
    from safetensors.torch import save

    from imfbench.store import write_bytes  # brings pandas, which reading need not wait for

    if path.suffix != ".safetensors":
        raise CheckpointError(f"{path}: F5-TTS reads a file by its ending; name it …/model_{step}.safetensors")
    write_bytes(path, save(state_for_original(network, step)))


def _state(path: Path, weights: Which | None) -> dict[str, Tensor]:
    """The transformer's weights under the names of ``F5DiT``."""
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}: give a checkpoint of F5-TTS (.safetensors or .pt)")
    held: Any = _safetensors(path) if path.suffix == ".safetensors" else load_tensors(path)
    if not isinstance(held, Mapping):
        raise CheckpointError(f"{path} holds a {type(held).__name__}, not named weights: give a checkpoint of F5-TTS")
    has: dict[str, Mapping[str, Tensor]]
    if EMA in held or RAW in held:
        has = {which: held[key] for which, key in (("ema", EMA), ("raw", RAW)) if key in held}
    else:  # weights alone: the EMA's have its prefix, as in released files
        has = {"ema" if any(str(name).startswith(PREFIX) for name in held) else "raw": dict(held)}
    which = weights or ("ema" if "ema" in has else "raw")
    if which not in has:
        raise CheckpointError(
            f"{path} holds no {which} weights, only {' and '.join(has)} ones: leave the choice out, or give the training's own "
            "checkpoint, which holds both"
        )
    state = {str(name).removeprefix(PREFIX): value for name, value in has[which].items()}
    return {name: value for name, value in state.items() if name not in (*COUNTERS, *OLD_BUFFERS)}


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise DamagedModelError(
            f"{path} cannot be read as safetensors ({error}): it was cut short, or is of another form. Fetch it again"
        ) from None


def _misfits(expected: Mapping[str, torch.Size], found: Mapping[str, Tensor]) -> str:
    """In which keys a state differs from what is expected, in words; empty if it fits."""
    told = []
    if missing := [name for name in expected if name not in found]:
        told.append(f"it lacks {_some(missing)}")
    if more := sorted(name for name in found if name not in expected):
        told.append(f"the network does not know {_some(more)}")
    other = [
        f"{name} {tuple(found[name].shape)} instead of {tuple(shape)}"
        for name, shape in expected.items()
        if name in found and found[name].shape != shape
    ]
    if other:
        told.append(f"of other shapes are {_some(other)}")
    return "; ".join(told)


def _some(names: list[str], shown: int = SHOWN) -> str:
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def _size(state: Mapping[str, Tensor]) -> tuple[int, int]:
    """Width and number of blocks."""
    blocks = {name.split(".")[2] for name in state if name.startswith("transformer.transformer_blocks.")}
    return state[MEL].shape[1], len(blocks)


def _sizes(config: F5Config, state: Mapping[str, Tensor]) -> str:
    """That a file is of another size, before the tensors that follow from it; empty if it is not."""
    width, blocks = _size(state)
    if (width, blocks) == (config.dim, config.depth):
        return ""
    return f"it is of {blocks} blocks of width {width}, and that of {config.depth} of width {config.dim}; "


def _remedy(model: str, state: Mapping[str, Tensor]) -> str:
    """What to do with a file that does not fit: the models of its size, if there are some."""
    size = _size(state)
    same = [name for name, of in _settings().items() if (of["arch"]["dim"], of["arch"]["depth"]) == size]
    if same and model not in same:
        return f"It has the size of {' and '.join(same)}: name the one it is"
    return f"Give the checkpoint of {model}, or name the model that it is of: {', '.join(models())}"
