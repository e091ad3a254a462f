"""What a network is given of an utterance: which mel, which content, whose voice; and the vocoder that takes what it makes.

A backbone says it by class attributes, each with a default, so that one which says nothing is an embedded network's like:
``mel_format``, ``text``, ``frames_per_token``; its ``Config`` by ``vocabulary`` and ``speaker_dims`` (and ``mel_format``, where a
network can be had for several).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from imfbench.config_file import ConfigError
from imfbench.features.mel import HIFIGAN, MEL_FORMATS, MelFormat, mel_format
from imfbench.registry import VOCODERS


@dataclass(frozen=True)
class Inputs:
    """What a dataset is to give to a network.

    Attributes:
        mel: The format of prompt and output.
        text: How text2mel's content is written: ``aligned``, phones with ``BOUNDARY`` between prompt and target and the alignment
            as one more band; ``plain``, prompt and target one after the other and no band more (F5-TTS).
        frames_per_token: Mel frames that share one content in token2mel; prompt and target are whole numbers of them.
        vocabulary: How many contents the network knows, from 1 on, where it matters that the dataset has as many.
        speaker_dims: Size of the speaker's vector; None: it takes none.
        characters: The lines of the ``vocab.txt`` that lies beside a network of characters (F5-TTS's); None: its contents are the
            dataset's own, such as the embedded corpus' phones.
    """

    mel: MelFormat = HIFIGAN
    text: Literal["aligned", "plain"] = "aligned"
    frames_per_token: int = 1
    vocabulary: int | None = None
    speaker_dims: int | None = None
    characters: tuple[str, ...] | None = None

    def bands(self, task: str) -> int:
        """Bands of what the network generates for a task."""
        return self.mel.bands + (task == "text2mel" and self.text == "aligned")


EMBEDDED = Inputs()
"""What the embedded networks are given."""


def inputs_of(backbone: Any, config: Any = None) -> Inputs:
    """What a backbone is given.

    Args:
        backbone: Its class, or a network.
        config: Its settings; a network's own without them.

    Raises:
        ValueError: It names a mel format that there is not.
    """
    config = getattr(backbone, "config", None) if config is None else config
    name: Any = getattr(config, "mel_format", None) or getattr(backbone, "mel_format", HIFIGAN.name)
    return Inputs(
        mel_format(name),
        getattr(backbone, "text", "aligned"),
        getattr(backbone, "frames_per_token", 1),
        getattr(config, "vocabulary", None),
        getattr(config, "speaker_dims", None),
    )


def common_inputs(networks: Mapping[str, Inputs], vocoder: str) -> Inputs:
    """What all networks of an experiment are given; without a network, the mel that its vocoder takes.

    Args:
        networks: What each is called in messages → what it is given.
        vocoder: A registered vocoder's name.

    Raises:
        ConfigError: They differ, or the vocoder takes another mel.
    """
    if not networks:
        return Inputs(vocoder_mel(vocoder) or HIFIGAN)
    (name, inputs), *others = networks.items()
    for other, theirs in others:
        if theirs != inputs:
            raise ConfigError(
                f"{name} and {other} cannot be in one experiment, they are given different things: "
                f"{_difference(inputs, theirs)}. Give them an experiment each (`then` puts both on one leaderboard)"
            )
    takes = vocoder_mel(vocoder)
    if takes is not None and takes != inputs.mel:
        fitting = [entry for entry in VOCODERS.names() if vocoder_mel(entry) in (None, inputs.mel)]
        raise ConfigError(
            f"{name} makes mels of {inputs.mel}, but the vocoder {vocoder!r} takes {takes}: set vocoder to one that takes the "
            f"network's: {', '.join(fitting)}"
        )
    return inputs


def _difference(one: Inputs, other: Inputs) -> str:
    if one.mel != other.mel:
        return f"mels of {one.mel} and of {other.mel}"
    keys = [key for key in one.__dataclass_fields__ if getattr(one, key) != getattr(other, key)]
    if "characters" in keys:
        return "the characters of one vocab.txt and those of another, or the dataset's phones"
    return ", ".join(f"{key} {getattr(one, key)} and {getattr(other, key)}" for key in keys)


def vocoder_mel(name: str) -> MelFormat | None:
    """The mel format that a registered vocoder takes, its class's ``mel_format``; None: every one. The default is hifigan-22k."""
    found = getattr(VOCODERS.get(name), "mel_format", HIFIGAN.name)
    return None if found is None else MEL_FORMATS[found]


def vocoder_name(name: str, mel: MelFormat) -> str:
    """What tables call a vocoder: its full name, and the format where it takes every one and this is not hifigan-22k.

    One that stands for another by the format (``auto``) is called as that one.
    """
    cls = VOCODERS.get(name)
    if hasattr(cls, "stands_for"):
        return vocoder_name(cls.stands_for(mel), mel)
    told = str(cls.name)
    return told if vocoder_mel(name) is not None or mel == HIFIGAN else f"{told}@{mel.name}"


def open_vocoder(name: str, mel: MelFormat, device: Any = "cpu") -> Any:
    """A vocoder for mels of a format, loaded on a device; one of every format is told which by ``mel``, if not hifigan-22k."""
    cls = VOCODERS.get(name)
    vocoder = cls() if vocoder_mel(name) is not None or mel == HIFIGAN else cls(mel=mel)
    return vocoder.load(device)


def prepare_vocoder(vocoder: Any, frames: int) -> None:
    """Let a vocoder make ready what the first mel of so many frames else pays for, if it has a ``prepare(frames)``."""
    if hasattr(vocoder, "prepare"):
        vocoder.prepare(frames)
