"""One's own text in a prompt's voice, by several methods and step counts side by side."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from imfbench import interruption
from imfbench.artefact import ArtefactError, embedded, load_artefact, locate, read_network
from imfbench.data import DatasetError
from imfbench.devices import Precision, resolve_device, synchronize
from imfbench.disk import unwritable
from imfbench.features.audio import load_audio, notes_of_file, save_audio
from imfbench.features.audio_check import REMEDY
from imfbench.features.f5_condition import character_condition
from imfbench.features.f5_pieces import cross_faded, most_bytes, pieces_of
from imfbench.features.mel import HIFIGAN, SAMPLE_RATE, MelFormat
from imfbench.features.phones import PromptError
from imfbench.flow.grids import make_grid
from imfbench.inputs import EMBEDDED, Inputs, common_inputs, inputs_of, open_vocoder
from imfbench.method import Condition
from imfbench.metrics import ScoreItem
from imfbench.metrics.base import Metric
from imfbench.pipeline.context import told
from imfbench.pipeline.networks import with_characters
from imfbench.registry import BACKBONES, DATASETS, METHODS, METRICS, VOCODERS, UnknownNameError, nearest
from imfbench.sampling import LengthError, as_loud, check_length, synthesize_mel
from imfbench.sets import open_dataset
from imfbench.store import write_text
from imfbench.weights import MissingModelError, find

TASK = "text2mel"
SCORES = ("wer", "sim", "mos")


class SpeakError(ValueError):
    """A request that cannot be met; the message says why and what can."""


@dataclass(frozen=True)
class Request:
    """What to say, and how.

    Attributes:
        text: English; Chinese too for networks of characters, which say a long text in pieces.
        prompt: Recording whose voice is to say it.
        prompt_text: What the recording says; None lets the recogniser listen.
        methods: Names of methods that ship for text2mel, ``embedded:NAME``, or folders of artefacts.
        nfe: Velocity evaluations per sample.
        grid: Time grid.
        seed: Of the initial noise.
        speed: 1.2 is a fifth faster than the prompt.
        british: Whether words are said the British way.
        vocoder: A registered one; None is HiFi-GAN, and Griffin-Lim for networks of other mels.
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
    vocoder: str | None = None


def artefact_of(method: str) -> str:
    """The artefact that is meant: a method's that ships for text2mel, or one by its reference.

    Raises:
        SpeakError: No such artefact ships.
    """
    if method not in METHODS and (":" in method or Path(method).exists()):
        return method
    ready = speakers()
    if method not in ready:
        hint = nearest(method, sorted(ready)) if ready else f"none of {TASK} ships with this version"
        hint += "" if hint.endswith("?") else ";"
        raise SpeakError(
            f"no {TASK} network of {method!r} ships: {hint} train one by `imfbench train teacher_text2mel`, and name it by its "
            "folder, --method runs/teacher_text2mel/artefacts/SYSTEM"
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
        out: A ``.wav`` file for a single combination, else a folder, which also gets ``comparison.csv``, anew with each file.
        device: Where the networks run.
        precision: Of their matrix products.
        scored: Whether to listen with the scorers.

    Returns:
        A row for every file: method, nfe, network_calls, seconds, rtf_network, ``pieces`` if the text is said in several, and the
        scores, ``not_scored`` saying why one is missing. Its ``attrs`` hold ``prompt_text`` and ``prompt_notes``.

    Raises:
        SpeakError, TextError, ArtefactError and others: Text, prompt or method cannot be used; the message says why.
    """
    names = list(dict.fromkeys(request.methods))
    single = bool(out.suffix) and not out.is_dir()
    _check_request(request, names, out, single)
    references = {name: artefact_of(name) for name in names}
    prompt, notes = _prompt(request.prompt)
    try:
        where = resolve_device(device)
    except ValueError as error:
        raise SpeakError(str(error)) from None
    scorers = [METRICS.get(name)(device=str(where)) for name in SCORES] if scored else []
    # All models' files are found and verified before any work; a scorer's signature holds its model's sha256.
    if request.vocoder is not None and request.vocoder not in VOCODERS:
        raise SpeakError(VOCODERS.unknown(request.vocoder))
    given = {name: _inputs(reference) for name, reference in references.items()}
    vocoders = {name: _vocoder(request, name, inputs) for name, inputs in given.items()}
    if "hifigan" in vocoders.values():
        with _missing():
            find("hifigan")
    if not request.prompt_text:
        with _missing("say what the prompt holds with --prompt-text"):
            str(METRICS.get("wer")(device=str(where)).signature)
    with _missing("leave the scorers out with --no-score"):
        for metric in scorers:
            str(metric.signature)

    @cache
    def prompt_text() -> str:
        return request.prompt_text or heard(prompt, str(where))

    loaded = {name: load_artefact(reference, where) for name, reference in references.items()}
    grids = {
        (name, nfe): make_grid(request.grid if method.kind == "instantaneous" else "uniform", nfe)
        for name, (method, _) in loaded.items()
        for nfe in request.nfe
    }
    rates = {inputs.mel.sample_rate for inputs in given.values()} - {SAMPLE_RATE}
    prompts = {SAMPLE_RATE: prompt} | {rate: load_audio(request.prompt, rate)[0] for rate in rates}
    conditions = {
        name: _conditions(
            request, references[name], card, prompts[given[name].mel.sample_rate], prompt_text, given[name]
        )
        for name, (_, card) in loaded.items()
    }
    for name, (method, _) in loaded.items():
        _check_lengths(conditions[name], method.network, given[name].mel)
    in_pieces = any(len(pieces) > 1 for pieces in conditions.values())

    @cache
    def loaded_vocoder(name: str, mel: MelFormat) -> Any:
        with _missing():
            return open_vocoder(name, mel, where)

    frame = pd.DataFrame()
    items: list[ScoreItem] = []
    for name, label in zip(names, _labels(names), strict=True):
        method, vocoder = loaded[name][0], loaded_vocoder(vocoders[name], given[name].mel)
        for nfe in request.nfe:
            grid, pieces = grids[name, nfe], conditions[name]
            synthesize_mel(method, pieces[0], "warm-up", make_grid("uniform", 1), "euler", 0, where, precision)
            synchronize(where)
            start = time.perf_counter()
            made = [
                synthesize_mel(method, piece, noise, grid, "euler", request.seed, where, precision)
                for noise, piece in zip(_noises(len(pieces)), pieces, strict=True)
            ]
            synchronize(where)
            taken = time.perf_counter() - start
            audios = [as_loud(vocoder(mel), piece) for (mel, _), piece in zip(made, pieces, strict=True)]
            audio = cross_faded(audios, vocoder.sample_rate)
            path = out if single else out / f"{label}-{nfe}.wav"
            save_audio(path, audio, vocoder.sample_rate)
            seconds = len(audio) / vocoder.sample_rate
            row = {
                "file": path.name, "method": name, "nfe": nfe, "network_calls": sum(counts.network_calls for _, counts in made),
                "seconds": seconds, "rtf_network": taken / seconds, **({"pieces": len(pieces)} if in_pieces else {}),
            }  # fmt: skip
            frame = pd.concat([frame, pd.DataFrame([row])], ignore_index=True)
            items.append(ScoreItem(path.name, audio, vocoder.sample_rate, request.text, "en", prompt, SAMPLE_RATE))
            if not single:
                _write(out, frame, prompt_text(), notes)
            interruption.check()  # of one that a callback from C swallowed
    if scored:
        frame = frame.join(_scores(items, scorers))
        if not single:
            _write(out, frame, prompt_text(), notes)
    frame.attrs = {"prompt_text": prompt_text(), "prompt_notes": notes}
    return frame


def heard(audio: Any, device: str) -> str:
    """What the default recogniser hears in 22.05 kHz audio."""
    metric = METRICS.get("wer")(device=device)
    with metric.loaded():
        found = str(metric.observe(ScoreItem("prompt", audio, SAMPLE_RATE, ""))["hypothesis"]).strip()
    if not found:
        raise SpeakError("no speech was recognised in the prompt; say what it holds with --prompt-text")
    return found


@contextmanager
def _missing(remedy: str = "") -> Iterator[None]:
    """Say of a model that is not installed what can be done here, where there is no experiment to change."""
    try:
        yield
    except MissingModelError as error:
        raise SpeakError(f"{error.told}{f', or {remedy}' if remedy else ''}") from None


def _check_request(request: Request, names: Sequence[str], out: Path, single: bool) -> None:
    files = len(names) * len(request.nfe)
    if not files:
        raise SpeakError(
            f"no method is named: give --method, known: {', '.join(sorted(speakers())) or 'a folder of a network of your own'}"
        )
    if single and out.suffix != ".wav":
        raise SpeakError(f"--out {out}: give a .wav file or a folder")
    if single and files > 1:
        raise SpeakError(f"--out {out}: {files} files are asked for; give a folder")
    for target in [out] if single else [out / f"{label}-{nfe}.wav" for label in _labels(names) for nfe in request.nfe]:
        if target.exists() and request.prompt.exists() and target.samefile(request.prompt):
            raise SpeakError(
                f"--out {out}: {target} is the prompt itself and would be overwritten; give another file or folder"
            )
    folder = out.parent if single else out
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from None


def _labels(names: Sequence[str]) -> list[str]:
    """What files of each method are called: the last part of its path, or as many as tell the methods apart."""
    parts = [[part for part in Path(name.replace(":", "-")).parts if part not in ("/", "..")] for name in names]
    for depth in range(1, max(map(len, parts)) + 1):
        labels = ["-".join(own[-depth:]) for own in parts]
        if len({*labels}) == len(labels):
            return labels
    return [f"{number}-{own[-1]}" for number, own in enumerate(parts, 1)]


def _prompt(path: Path) -> tuple[np.ndarray, list[str]]:
    try:
        return load_audio(path, SAMPLE_RATE)[0], notes_of_file(path, SAMPLE_RATE)
    except (OSError, ValueError) as error:
        told = str(error).removesuffix(REMEDY) + "give a whole recording, such as wav, FLAC, Ogg or mp3"
        raise SpeakError(f"the prompt cannot be used: {told}") from None


def _inputs(reference: str) -> Inputs:
    """What an artefact's network is given, without reading its weights."""
    backbone, settings = read_network(reference)
    cls = BACKBONES.get(backbone)
    return with_characters(inputs_of(cls, cls.Config(**settings)), locate(reference))


def _vocoder(request: Request, name: str, inputs: Inputs) -> str:
    """The vocoder of a network.

    Raises:
        ConfigError: The one that was asked for takes another mel.
    """
    found = request.vocoder or ("hifigan" if inputs.mel == HIFIGAN else "griffin-lim")
    common_inputs({f"the network {name}": inputs}, found)
    return found


def _noises(pieces: int) -> list[str]:
    """What seeds each piece's noise: a text of one piece is said as it was before there were several."""
    return ["own", *(f"own-{i}" for i in range(1, pieces))]


def _check_lengths(pieces: Sequence[Condition], network: Any, mel: MelFormat) -> None:
    """Refuse a piece that is longer than the network takes, before anything is written.

    Raises:
        SpeakError: There is one.
    """
    for number, piece in enumerate(pieces, 1):
        try:
            check_length(piece, getattr(network, "longest", None), mel)
        except LengthError as error:
            where = f"piece {number} of {len(pieces)}, cut at marks (.,;:!?): " if len(pieces) > 1 else ""
            raise SpeakError(f"the text cannot be said: {where}{error}") from None


def _conditions(
    request: Request, reference: str, card: dict[str, Any], prompt: np.ndarray, prompt_text: Callable[[], str],
    inputs: Inputs = EMBEDDED,
) -> list[Condition]:  # fmt: skip
    """What the network is given, of each piece of the text; networks of phones take it whole."""
    if card.get("task") != TASK:
        raise ArtefactError(
            f"this network's task is {card.get('task')}, which takes speech tokens with their timing; a text needs one of {TASK}"
        )
    if inputs.characters is not None:  # its own rules, whatever it was trained on
        return _character_conditions(request, prompt_text(), inputs)
    data = card.get("train_data") or {}
    name, options = data.get("name", "demo"), data.get("options") or {}
    trained = f"the network {reference} was trained on the dataset {name!r}"
    try:
        cls = DATASETS.get(name)
        if not hasattr(cls, "own_condition"):
            raise SpeakError(
                f"{trained}, which has no way from a text to its phones (`own_condition`): name another network"
            )
        task = {"task": TASK} if "task" in inspect.signature(cls).parameters else {}
        # Its own options: another copy may have other phones.
        dataset = open_dataset(name, {**task, **options}, inputs)
        return [dataset.own_condition(prompt, prompt_text, request.text, request.british, request.speed)]
    except PromptError as error:
        raise SpeakError(f"the prompt {request.prompt} cannot be used: {error}") from None
    except UnknownNameError as error:
        raise SpeakError(
            f"{trained}, which is not known here ({error}): give its --plugin FILE, or install its package"
        ) from None
    except DatasetError as error:
        raise SpeakError(f"{trained}, as its card says, which cannot be used here: {error}") from None


def _character_conditions(request: Request, prompt_text: str, inputs: Inputs) -> list[Condition]:
    """F5-TTS's: a text that is too long for one piece at the prompt's rate of speech is cut as upstream's inference cuts it.

    Raises:
        SpeakError: The text is empty, or the prompt silent, too short or without words.
    """
    assert inputs.characters is not None
    audio, rate = load_audio(request.prompt)
    try:
        pieces = pieces_of(request.text, most_bytes(prompt_text, len(audio) / rate, request.speed))
        found = [
            character_condition(inputs.characters, audio, rate, prompt_text, piece, inputs.mel, request.speed)
            for piece in pieces
        ]
    except ValueError as error:
        raise SpeakError(f"the prompt {request.prompt} cannot be used: {error}") from None
    if not found:
        raise SpeakError("the text is empty: there is nothing to say")
    return found


def _write(out: Path, frame: pd.DataFrame, prompt_text: str, notes: Sequence[str]) -> None:
    told = frame.assign(prompt_text=prompt_text, prompt_notes="; ".join(notes))
    write_text(out / "comparison.csv", told.to_csv(index=False))


def _scores(items: Sequence[ScoreItem], scorers: Sequence[Metric]) -> pd.DataFrame:
    """The scorers' figures of each item; what one cannot score has the reason, and the others' figures."""
    found: list[dict[str, Any]] = [{} for _ in items]
    reasons: list[list[str]] = [[] for _ in items]
    for metric in scorers:
        try:
            with metric.loaded():
                for row, why, item in zip(found, reasons, items, strict=True):
                    try:
                        scores = metric.score(item)
                    except Exception as error:
                        why.append(f"{metric.name}: {told(error)}")
                        continue
                    interruption.check()
                    row |= {key: scores[key] for key in metric.summary_columns if key in scores}
                    if metric.name == "wer":
                        row["heard"] = scores["hypothesis"]
        except Exception as error:  # its model cannot be loaded
            for why in reasons:
                why.append(f"{metric.name}: {told(error)}")
    if any(reasons):
        for row, why in zip(found, reasons, strict=True):
            row["not_scored"] = "; ".join(why)
    return pd.DataFrame(found)


__all__ = ["Request", "SpeakError", "artefact_of", "heard", "speak", "speakers"]
