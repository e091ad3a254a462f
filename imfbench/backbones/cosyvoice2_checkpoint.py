"""CosyVoice 2's flow in files of other software: the official ``flow.pt``, Chatterbox's ``s3gen.safetensors`` and its student.

Chatterbox (package ``chatterbox-tts``) carries the same encoder and decoder under the prefix ``flow.``; its two-step student, an
IntMeanFlow, has the mixer of two times as ``time_embed_mixer``. A student of ours is written in either layout with the mixer
under that name; the official software has no place for it and needs a patch, Chatterbox none.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from imfbench.backbones.cosyvoice2 import CosyVoice2Config, CosyVoice2Flow
from imfbench.features.mel import COSYVOICE2
from imfbench.weights import DamagedModelError, MissingModelError, load_tensors

MIXER = "decoder.estimator.time_embed_mixer.weight"
"""W of shape d × 2d, for e = W·[e_t ; e_r] (IntMeanFlow, section 3.3), by the name that Chatterbox gives it."""
CHATTERBOX = "flow."
_OWN_MIXER = "decoder.estimator.time_mlp.mixer.weight"
_BESIDE = ("tokenizer.", "speaker_encoder.", "mel2wav.")
"""What stands beside the flow in Chatterbox's files."""
_OF_TRAINING = ("epoch", "step")
"""Numbers that CosyVoice's own training writes beside the weights."""
_SHOWN = 12

_OTHERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("the flow of CosyVoice 3, a transformer", ("pre_lookahead_layer.", "decoder.estimator.transformer_blocks.")),
    ("the flow of CosyVoice 1, whose decoder is not causal", ("length_regulator.",)),
    ("a language model of CosyVoice (llm.pt), which makes the tokens", ("llm.", "llm_decoder.", "llm_embedding.")),
    ("a HiFT vocoder (hift.pt)", ("generator.m_source.", "m_source.", "mel2wav.")),
    ("Chatterbox's token model (t3)", ("tfmr.", "t3.")),
    ("a speaker encoder of Chatterbox (ve)", ("lstm.",)),
    ("a checkpoint of F5-TTS", ("ema_model.", "transformer.transformer_blocks.")),
)


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged, or of another network; the message says what it is and what to give instead."""


def load_flow(path: Path, streaming: bool = False, chunk: int = 25, attention_head_dim: int = 64) -> CosyVoice2Flow:
    """The network of a checkpoint, in float32 and eval mode; with the second time if the checkpoint has the mixer.

    Args:
        path: ``flow.pt``, a ``.safetensors`` of the same layout, or Chatterbox's ``s3gen.safetensors`` or
            ``s3gen_meanflow.safetensors``.
        streaming: Attention over chunks; no file says it, the official flow was trained for both.
        chunk: Tokens of a chunk.
        attention_head_dim: Of the decoder: the weights say heads × dimensions only.

    Raises:
        CheckpointError: No such file, one that cannot be read, of another network or another mel, or with tensors too many, too
            few or of other shapes.
    """
    path = Path(path)
    state = read_flow(path)
    found = config_of(state, path, attention_head_dim)
    config = CosyVoice2Config(**{**found.model_dump(), "streaming": streaming, "chunk": chunk})  # checks what is given
    if config.mel_dim != COSYVOICE2.bands:
        raise CheckpointError(
            f"{path} makes mels of {config.mel_dim} bands, and CosyVoice 2's, {COSYVOICE2}, have others: prompts, training "
            "data and vocoder would not fit it; give the flow.pt of a CosyVoice2-0.5B"
        )
    network = CosyVoice2Flow(config)
    if _OWN_MIXER in state:
        network.attach_second_time()
    if told := _differences(network.state_dict(), state):
        raise CheckpointError(f"{path} does not fit CosyVoice 2's flow: {told}. Give the flow.pt of a CosyVoice2-0.5B")
    network.load_state_dict(state)
    return network.eval()


def read_flow(path: Path) -> dict[str, Tensor]:
    """The weights of a flow under our names, float32, whatever the layout of the file.

    Raises:
        CheckpointError: As for :func:`load_flow`, but for the shapes.
    """
    held = {name: value for name, value in _read(path).items() if name not in _OF_TRAINING}
    foreign = [name for name, value in held.items() if not isinstance(value, Tensor)]
    if foreign:
        raise CheckpointError(
            f"{path} holds {_few(foreign)}, which are no tensors: give a plain file of weights, such as the official flow.pt"
        )
    inside = {name.removeprefix(CHATTERBOX): value for name, value in held.items() if name.startswith(CHATTERBOX)}
    if inside:
        left = [name for name in held if not name.startswith((CHATTERBOX, *_BESIDE))]
        if left:
            raise CheckpointError(
                f"{path} has Chatterbox's layout, but also {_few(left)}: give its s3gen file as it was published"
            )
    state = inside or held
    for what, prefixes in _OTHERS:
        if any(name.startswith(prefixes) for name in state):
            raise CheckpointError(
                f"{path} is {what}, not the flow of CosyVoice 2: give the flow.pt of a CosyVoice2-0.5B"
            )
    return {_OWN_MIXER if name == MIXER else name: value.float() for name, value in state.items()}


def layout_of(path: Path) -> str:
    """``chatterbox`` or ``cosyvoice2``: whose way of naming a file of a flow has; raises as :func:`read_flow` does."""
    return "chatterbox" if any(str(name).startswith(CHATTERBOX) for name in _read(path)) else "cosyvoice2"


def config_of(state: Mapping[str, Tensor], path: Path, attention_head_dim: int = 64) -> CosyVoice2Config:
    """The shape of a flow, read from its weights.

    Args:
        state: By our names.
        path: For messages.
        attention_head_dim: As for :func:`load_flow`.

    Raises:
        CheckpointError: The weights that say it are not there, or no network has such.
    """
    estimator = "decoder.estimator."
    try:
        vocab_size, width = state["input_embedding.weight"].shape
        mel_dim, speaker_dims = state["spk_embed_affine_layer.weight"].shape
        inner, channels = state[f"{estimator}down_blocks.0.1.0.attn1.to_q.weight"].shape
        if inner % attention_head_dim:
            raise CheckpointError(
                f"{path} has attention of {inner} channels in its decoder, which do not divide into heads of "
                f"{attention_head_dim}: set attention_head_dim to what it was trained with (CosyVoice2-0.5B: 64)"
            )
        return CosyVoice2Config(
            vocab_size=vocab_size,
            input_size=width,
            encoder_heads=state["encoder.encoders.0.self_attn.pos_bias_u"].shape[0],
            encoder_units=state["encoder.encoders.0.feed_forward.w_1.weight"].shape[0],
            encoder_blocks=_count(state, "encoder.encoders."),
            speaker_dims=speaker_dims,
            mel_dim=mel_dim,
            channels=channels,
            attention_head_dim=attention_head_dim,
            heads=inner // attention_head_dim,
            n_blocks=_count(state, f"{estimator}down_blocks.0.1."),
            num_mid_blocks=_count(state, f"{estimator}mid_blocks."),
        )
    except KeyError as error:
        raise CheckpointError(
            f"{path} is no flow of CosyVoice 2: among its {len(state)} tensors is no {error.args[0]}; it has {_few(list(state))}"
        ) from None
    except ValueError as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"{path} is no flow of CosyVoice 2: its tensors have other dimensions ({error})"
        ) from None


def state_for_original(network: CosyVoice2Flow) -> dict[str, Tensor]:
    """The weights as in the official ``flow.pt``; of a network of two times with ``MIXER`` besides."""
    return {
        MIXER if name == _OWN_MIXER else name: value.detach().float().cpu().contiguous()
        for name, value in network.state_dict().items()
    }


def state_for_chatterbox(network: CosyVoice2Flow, beside: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The weights as in Chatterbox's ``s3gen.safetensors``, or, with two times, ``s3gen_meanflow.safetensors``.

    Args:
        network: A flow of ours.
        beside: The tensors of a published file, of which those beside the flow (tokenizer, speaker encoder, vocoder) are taken
            over: Chatterbox reads one file for all of them.
    """
    flow = {CHATTERBOX + name: value for name, value in state_for_original(network).items()}
    return flow | {name: value for name, value in (beside or {}).items() if name.startswith(_BESIDE)}


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        what = "is a folder: name the file in it, such as flow.pt" if path.is_dir() else "does not exist"
        raise CheckpointError(f"the checkpoint {path} {what}")
    try:
        held = load_file(path) if path.suffix == ".safetensors" else load_tensors(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a safetensors file that can be read ({error}): fetch it again") from None
    except (DamagedModelError, MissingModelError) as error:
        raise CheckpointError(str(error)) from None
    if not isinstance(held, dict):
        raise CheckpointError(f"{path} holds a {type(held).__name__}, not named tensors: give the official flow.pt")
    return held


def _count(state: Mapping[str, Any], prefix: str) -> int:
    return len({name[len(prefix) :].partition(".")[0] for name in state if name.startswith(prefix)})


def _differences(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    missing = [name for name in expected if name not in found]
    unknown = [MIXER if name == _OWN_MIXER else name for name in found if name not in expected]
    shapes = [
        f"{name} of {tuple(found[name].shape)} instead of {tuple(value.shape)}"
        for name, value in expected.items()
        if name in found and found[name].shape != value.shape
    ]
    lists = (("it lacks", missing), ("it has beyond the network's", unknown), ("it has in another shape", shapes))
    return "; ".join(f"{what} {_few(names)}" for what, names in lists if names)


def _few(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
