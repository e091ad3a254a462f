"""The contract of vocoders: from a log-mel to audio, of the format that `mel_format` names, or of every one if that is None."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from imfbench.contracts.clauses import Clause, about, expect
from imfbench.contracts.speech import corpus
from imfbench.data import Utterance
from imfbench.features.audio import resample
from imfbench.features.mel import HIFIGAN, MEL_FORMATS, MelFormat
from imfbench.inputs import Inputs, open_vocoder, vocoder_mel
from imfbench.registry import VOCODERS

LARGEST_DISTANCE = 1.0
"""Between a mel and that of its audio, in natural-log units. HiFi-GAN .23, another text 1.7, noise 3.8, silence 5.3."""


@dataclass(frozen=True)
class Vocoder:
    """A registered vocoder, with a mel format that it takes."""

    name: str
    mel: MelFormat

    def load(self) -> Any:
        """The vocoder on the CPU."""
        return open_vocoder(self.name, self.mel, torch.device("cpu"))

    def speech(self) -> tuple[Any, list[Utterance]]:
        """The embedded corpus with mels of the format, and two utterances."""
        demo, utterances = corpus()
        demo.inputs = Inputs(self.mel)
        return demo, utterances


def contract(name: str, options: dict[str, Any]) -> list[Clause]:
    """The clauses of a vocoder."""
    takes = vocoder_mel(name)
    return [
        clause
        for mel in ([takes] if takes is not None else MEL_FORMATS.values())
        for clause in about(Vocoder(name, mel), name if mel == HIFIGAN else f"{name}, {mel.name}", CLAUSES)
    ]


def says_what_it_is(part: Vocoder) -> None:
    """The class has a `name` for the tables, with its weights in it, and a `sample_rate`; it is built of nothing."""
    cls = VOCODERS.get(part.name)
    name, rate = getattr(cls, "name", None), getattr(part.load(), "sample_rate", None)
    expect(isinstance(name, str) and bool(name), "`name`, a text", repr(name))
    expect(isinstance(rate, int) and 8000 <= rate <= 192_000, "`sample_rate`, samples a second", repr(rate))
    expect(callable(part.load()), "a vocoder that load() returns, which takes a mel", "one that cannot be called")


def audio_is_float32_within_one_and_as_long_as_the_mel(part: Vocoder) -> None:
    """A log-mel (frames, bands) gives finite mono float32 audio within −1 to 1, a hop's time for each frame."""
    vocoder = part.load()
    demo, utterances = part.speech()
    mel = demo.target_mel(utterances[0])
    audio = vocoder(mel)
    good = isinstance(audio, np.ndarray) and audio.dtype == np.float32 and audio.ndim == 1
    like = f"{audio.dtype} of shape {tuple(audio.shape)}" if hasattr(audio, "dtype") else type(audio).__name__
    expect(good, "a numpy array of float32 and shape (samples,)", like)
    expect(bool(np.isfinite(audio).all()), "finite samples", "others")
    expect(float(np.abs(audio).max()) <= 1.2, "samples within −1 to 1", f"up to {np.abs(audio).max():.2f}")
    wanted, seconds = len(mel) * part.mel.seconds_per_frame, len(audio) / vocoder.sample_rate
    expect(abs(seconds - wanted) < 0.05, f"{wanted:.2f} s of audio for {len(mel)} frames", f"{seconds:.2f} s")


def the_same_mel_gives_the_same_audio(part: Vocoder) -> None:
    """Two passes over one mel give the same samples, and leave torch's random state as they found it."""
    vocoder = part.load()
    demo, utterances = part.speech()
    mel = demo.target_mel(utterances[0])
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = vocoder(mel)
    expect(
        torch.equal(torch.get_rng_state(), state), "torch's random state untouched (torch.random.fork_rng)", "a change"
    )
    torch.manual_seed(2)
    distance = float(np.abs(first - vocoder(mel)).max())
    expect(distance < 1e-5, "the same samples twice", f"a difference of up to {distance:.2g}")


def the_audio_has_the_mel_it_was_made_of(part: Vocoder) -> None:
    """The log-mel of the audio is near the one that it was made of, and nearer than to another utterance's."""
    vocoder = part.load()
    demo, utterances = part.speech()
    mels = [demo.target_mel(utterance) for utterance in utterances]
    audio = torch.from_numpy(resample(vocoder(mels[0]), vocoder.sample_rate, part.mel.sample_rate))
    found = part.mel.log_mel(audio)
    distances = []
    for mel in mels:
        n = min(len(mel), len(found))
        distances.append(float((found[:n] - mel[:n]).abs().mean()))
    told = f"a mean difference of {distances[0]:.2f} in natural-log units; from another utterance {distances[1]:.2f}"
    expect(distances[0] < min(LARGEST_DISTANCE, distances[1]), f"a mean difference below {LARGEST_DISTANCE:g}", told)


CLAUSES = (
    says_what_it_is,
    audio_is_float32_within_one_and_as_long_as_the_mel,
    the_same_mel_gives_the_same_audio,
    the_audio_has_the_mel_it_was_made_of,
)
