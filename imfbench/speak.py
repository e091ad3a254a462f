"""One's own text in a prompt's voice, by several methods and step counts side by side."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from imfbench.artefact import ArtefactError, embedded, load_artefact
from imfbench.devices import Precision, resolve_device, synchronize
from imfbench.features.audio import load_audio, save_audio
from imfbench.features.mel import SAMPLE_RATE
from imfbench.flow.grids import make_grid
from imfbench.metrics import ScoreItem
from imfbench.registry import DATASETS, METHODS, METRICS, VOCODERS, nearest
from imfbench.sampling import synthesize_mel

TASK = "text2mel"
SCORES = ("wer", "sim", "mos")


class SpeakError(ValueError):
    """A request that cannot be met; the message says why and what can."""


@dataclass(frozen=True)
class Request:
    """What to say, and how.

    Attributes:
        text: English.
        prompt: Recording whose voice is to say it.
        prompt_text: What the recording says; None lets the recogniser listen.
        methods: Names of methods that ship for text2mel, ``embedded:NAME``, or folders of artefacts.
        nfe: Velocity evaluations per sample.
        grid: Time grid.
        seed: Of the initial noise.
        speed: 1.2 is a fifth faster than the prompt.
        british: Whether words are said the British way.
    """

    text: str
    prompt: Path
    prompt_text: str | None
    methods: Sequence[str]
    nfe: Sequence[int]
    grid: str = "sway"
    seed: int = 0
    speed: float = 1.0
    british: bool = False


def artefact_of(method: str) -> str:
    """The artefact that is meant: a method's that ships for text2mel, or one by its reference.

    Raises:
        SpeakError: No such artefact ships.
    """
    if method not in METHODS and (":" in method or Path(method).exists()):
        return method
    ready = speakers()
    if method not in ready:
        raise SpeakError(
            f"no {TASK} network of {method!r} ships: {nearest(method, sorted(ready))} A trained one is named by its folder, "
            "runs/NAME/text2mel/artefacts/SYSTEM"
        )
    return ready[method]


def speakers() -> dict[str, str]:
    """Method → the artefact that ships for text2mel."""
    found = {}
    for reference in embedded():
        name = reference.partition(":")[2]
        if name.startswith(TASK):
            found[name.removeprefix(TASK).removeprefix("-") or "teacher"] = reference
    return found


def speak(
    request: Request, out: Path, device: str = "auto", precision: Precision = "auto", scored: bool = True
) -> pd.DataFrame:
    """Say the text with every method at every step count.

    Args:
        request: What to say.
        out: A ``.wav`` file for a single combination, else a folder, which also gets ``comparison.csv``.
        device: Where the networks run.
        precision: Of their matrix products.
        scored: Whether to listen with the scorers.

    Returns:
        A row for every file: method, nfe, network_calls, seconds, rtf_network, and the scores.

    Raises:
        SpeakError, ArtefactError, ValueError: Text, prompt or method cannot be used; the message says why.
    """
    combinations = [(method, nfe) for method in request.methods for nfe in request.nfe]
    if out.suffix and out.suffix != ".wav":
        raise SpeakError(f"--out {out}: give a .wav file or a folder")
    if out.suffix and len(combinations) > 1:
        raise SpeakError(f"--out {out}: {len(combinations)} files are asked for; give a folder")
    references = {method: artefact_of(method) for method in request.methods}
    try:
        prompt, _ = load_audio(request.prompt, SAMPLE_RATE)
    except (OSError, ValueError) as error:
        raise SpeakError(f"the prompt cannot be used: {error}") from None
    where = resolve_device(device)
    prompt_text = request.prompt_text or heard(prompt, str(where))
    vocoder = VOCODERS.get("hifigan")().load(where)
    rows: list[dict[str, Any]] = []
    items: list[ScoreItem] = []
    for name, reference in references.items():
        method, card = load_artefact(reference, where)
        condition = _condition(request, card, prompt, prompt_text)
        for nfe in request.nfe:
            grid = make_grid(request.grid if method.kind == "instantaneous" else "uniform", nfe)
            synthesize_mel(method, condition, "warm-up", make_grid("uniform", 1), "euler", 0, where, precision)
            synchronize(where)
            start = time.perf_counter()
            mel, counts = synthesize_mel(method, condition, "own", grid, "euler", request.seed, where, precision)
            synchronize(where)
            taken = time.perf_counter() - start
            audio = vocoder(mel)
            path = out if out.suffix else out / f"{Path(name).name.replace(':', '-')}-{nfe}.wav"
            save_audio(path, audio, vocoder.sample_rate)
            seconds = len(audio) / vocoder.sample_rate
            rows.append(
                {
                    "file": path.name, "method": name, "nfe": nfe, "network_calls": counts.network_calls,
                    "seconds": seconds, "rtf_network": taken / seconds,
                }
            )  # fmt: skip
            items.append(ScoreItem(path.name, audio, vocoder.sample_rate, request.text, "en", prompt, SAMPLE_RATE))
    frame = pd.DataFrame(rows)
    if scored:
        frame = frame.join(_scores(items, str(where)))
    if not out.suffix:
        frame.assign(prompt_text=prompt_text).to_csv(out / "comparison.csv", index=False)
    return frame


def heard(audio: Any, device: str) -> str:
    """What the default recogniser hears in 22.05 kHz audio."""
    metric = METRICS.get("wer")(device=device)
    with metric.loaded():
        found = str(metric.observe(ScoreItem("prompt", audio, SAMPLE_RATE, ""))["hypothesis"]).strip()
    if not found:
        raise SpeakError("no speech was recognised in the prompt; say what it holds with --prompt-text")
    return found


def _condition(request: Request, card: dict[str, Any], prompt: Any, prompt_text: str) -> Any:
    if card.get("task") != TASK:
        raise ArtefactError(
            f"this network's task is {card.get('task')}, which takes speech tokens with their timing; a text needs one of {TASK}"
        )
    name = (card.get("train_data") or {}).get("name", "demo")
    dataset = DATASETS.get(name)(task=TASK)
    if not hasattr(dataset, "own_condition"):
        raise SpeakError(
            f"the dataset {name!r}, on which the network was trained, has no way from a text to its phones"
        )
    return dataset.own_condition(prompt, prompt_text, request.text, request.british, request.speed)


def _scores(items: Sequence[ScoreItem], device: str) -> pd.DataFrame:
    found: list[dict[str, Any]] = [{} for _ in items]
    for name in SCORES:
        metric = METRICS.get(name)(device=device)
        with metric.loaded():
            for row, item in zip(found, items, strict=True):
                scores = metric.score(item)
                row |= {key: scores[key] for key in metric.summary_columns if key in scores}
                if name == "wer":
                    row["heard"] = scores["hypothesis"]
    return pd.DataFrame(found)


__all__ = ["Request", "SpeakError", "artefact_of", "heard", "speak", "speakers"]
