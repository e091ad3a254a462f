"""Harder sets made of the test set: noisy prompts, and texts of twice and four times the training length."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np

from imfbench.data import Utterance

NOISY = "noisy"
SNR = 10.0
"""Decibels of a noisy prompt: its mean power over the noise's."""
LONG = {"long2": 2, "long4": 4}
"""Set → sentences of one voice in a row: 8.9 and 17.8 s on average, training utterances have 4.2 s."""

Row = dict[str, Any]


def noisy(utterances: list[Utterance]) -> list[Utterance]:
    """The test set under other ids; the noise comes with the condition, similarity is to the clean prompt."""
    return [replace(u, id=f"{NOISY}-{u.id}") for u in utterances]


def with_noise(audio: np.ndarray, prompt_id: str) -> np.ndarray:
    """Speech (samples,) in white noise at ``SNR``, the same for a prompt at every time."""
    seed = int.from_bytes(hashlib.sha256(prompt_id.encode()).digest()[:8], "big")
    noise = np.random.default_rng(seed).standard_normal(len(audio))
    power = float((audio.astype(np.float64) ** 2).mean())
    return (audio + noise * np.sqrt(power / 10 ** (SNR / 10))).astype(np.float32)


def joined(utterances: list[Utterance], alignments: dict[str, Row], name: str) -> list[tuple[Utterance, Row]]:
    """Sentences of each voice in a row, by the first one's prompt, and the phones of the whole.

    What is left over at a voice's end is left out. There is no recording of the whole.
    """
    found = []
    for speaker in dict.fromkeys(u.speaker for u in utterances):
        own = [u for u in utterances if u.speaker == speaker]
        for i in range(0, len(own) - LONG[name] + 1, LONG[name]):
            several = own[i : i + LONG[name]]
            row = _joined_row([alignments[u.id] for u in several])
            text = " ".join(u.text for u in several)
            changes = {"id": f"{name}-{several[0].id}", "text": text, "target_audio": None, "seconds": row["seconds"]}
            found.append((replace(several[0], **changes), row | {"id": changes["id"]}))
    return found


def _joined_row(rows: list[Row]) -> Row:
    """One alignment of several: where two sentences meet, their two silences are one."""
    phones, frames = list(rows[0]["phones"]), list(rows[0]["frames"])
    for row in rows[1:]:
        both = phones[-1] == row["phones"][0]
        frames[-1] += row["frames"][0] if both else 0
        phones += row["phones"][both:]
        frames += row["frames"][both:]
    return {
        "speaker": rows[0]["speaker"],
        "phones": phones,
        "frames": frames,
        "seconds": sum(row["seconds"] for row in rows),
    }
