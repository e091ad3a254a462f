"""A cheap score for searches: how far a sampler's mels are from the teacher's own, from the same noise."""

from __future__ import annotations

import torch
from torch import Tensor


def mel_distance(mel: Tensor, other: Tensor) -> float:
    """Mean absolute difference of two log-mels (frames, bands), in natural-log units.

    Raises:
        ValueError: They differ in shape: the same condition gives the same frames.
    """
    if mel.shape != other.shape:
        raise ValueError(f"mels of shapes {tuple(mel.shape)} and {tuple(other.shape)} are not of the same utterance")
    return float((mel.double() - other.double()).abs().mean())


class TeacherDistance:
    """Minus the mean distance to the teacher's mels over the development set; higher is better, 0 is the teacher itself.

    Args:
        references: Utterance id → the teacher's log-mel at its full number of evaluations, (frames, bands), from the same
            initial noise that candidates get.
    """

    def __init__(self, references: dict[str, Tensor]) -> None:
        self.references = references

    def __call__(self, mels: dict[str, Tensor]) -> float:
        """Score of a candidate's mels, one for each reference.

        Raises:
            KeyError: An utterance is missing: a mean over fewer would be another score.
        """
        distances = torch.tensor([mel_distance(mels[id], mel) for id, mel in self.references.items()])
        return -float(distances.double().mean())
