"""The alignment band of text2mel: where in the text every mel frame is, as one more band of what the flow generates.

A frame's *position* is a real number in phones: 3.5 is the middle of the fourth phone. The band holds the distance of the
position from an even stretch of the phones over the frames, times ``SCALE``. In training it comes from the synthesiser's
durations; in sampling it starts as noise, like the mel, and comes out of the ODE.
"""

from __future__ import annotations

import torch
from torch import Tensor

from imfbench.features.mel import HIFIGAN, MelFormat
from imfbench.features.units import UNIT_SECONDS

BOUNDARY = 127
"""The token between the prompt's phones and the target's; it takes no time."""
SCALE = 4.0
"""Of the band. The larger, the earlier in the flow the alignment stands above the noise."""


def phone_ends(units: list[int], frames: int, speed: float = 1.0, mel: MelFormat = HIFIGAN) -> Tensor:
    """Where each phone ends, in mel frames: (phones,), float32; the last one ends with the mel.

    Args:
        units: 25 ms units of every phone.
        frames: Mel frames of the utterance.
        speed: Factor by which the audio was played faster than the units say.
        mel: Format of the mel.
    """
    seconds = torch.tensor(units, dtype=torch.float64).cumsum(0) * UNIT_SECONDS / speed
    ends = (seconds * mel.sample_rate / mel.hop).clamp(max=frames)
    ends[-1] = frames
    return ends.float()


def positions(ends: Tensor, frames: int) -> Tensor:
    """The position of each frame's centre in the text, (frames,), between 0 and the number of phones."""
    centres = torch.arange(frames) + 0.5
    phone = torch.searchsorted(ends, centres, right=True).clamp(max=len(ends) - 1)
    begins = torch.cat([ends.new_zeros(1), ends])[phone]
    return phone + ((centres - begins) / (ends[phone] - begins).clamp(min=1e-6)).clamp(0, 1)


def even_positions(phones: int, frames: int) -> Tensor:
    """The same if all phones were equally long: ZipVoice's stretch (arXiv 2506.13053, section 3.2)."""
    return (torch.arange(frames) + 0.5) * phones / frames


def alignment_band(ends: Tensor, frames: int) -> Tensor:
    """The band of an utterance, (frames, 1)."""
    return SCALE * (positions(ends, frames) - even_positions(len(ends), frames))[:, None]


def boundary_error(band: Tensor, ends: Tensor) -> float:
    """Mean distance of the phone boundaries that a band holds from the true ones, in frames.

    Args:
        band: (frames, 1) of one utterance.
        ends: (phones,), in frames.
    """
    frames = len(band)
    found = (band[:, 0] / SCALE + even_positions(len(ends), frames)).cummax(0).values
    wanted = torch.arange(1, len(ends), dtype=found.dtype)
    return float((torch.searchsorted(found, wanted).float() - ends[:-1]).abs().mean())
