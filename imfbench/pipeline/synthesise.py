"""The synthesise stage: one row's audio, timed utterance by utterance, its memory measured in a pass of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imfbench.data import NO_RECORDING, Utterance, length_of
from imfbench.devices import free_memory, out_of_memory
from imfbench.features.audio import load_audio, notes_of_file, save_audio
from imfbench.features.audio_check import AudioError, audio_notes
from imfbench.features.phones import TextError
from imfbench.flow.counting import CountMismatchError, Counts
from imfbench.inputs import prepare_vocoder
from imfbench.method import Condition
from imfbench.metrics.memory import peak_memory
from imfbench.metrics.speed import TIMING, time_passes
from imfbench.pipeline.cells import Cell, cell_of, row_grid, write_about
from imfbench.pipeline.context import Context, recording_of, told
from imfbench.pipeline.recordings import take_recordings
from imfbench.pipeline.reuse import MEMORY_KEYS, take_audio
from imfbench.pipeline.sources import MADE_FROM, made_from, of_other_recordings
from imfbench.progress import log
from imfbench.sampling import LengthError, as_loud, synthesize_mel, warm_up
from imfbench.store import StoreError, file_sha256, read_json, write_json

_SHOWN = 80
"""Characters of a text that a message names."""


@dataclass(frozen=True)
class Maker:
    """How a row's mels are made.

    Attributes:
        prepare: What the network is given, or the recording's mel: reading files is nobody's speed.
        mel: From there to the log-mel (frames, bands), under the clock, with the measured counts of a network.
        warm: What the first pass at a length pays for, before the clock; None where there is no network.
    """

    prepare: Callable[[Utterance], Any]
    mel: Callable[[Utterance, Any], tuple[Tensor, Counts | None]]
    warm: Callable[[Any], None] | None = None


def synthesise(context: Context, label: str) -> None:
    """Make the audio of one row, as far as it is not there; an utterance that fails becomes a row with its reason."""
    cell = cell_of(context, context.plan.rows[label])
    test_set = context.test_set(cell.row)
    utterances, dataset = context.utterances(test_set), context.dataset(test_set)
    if cell.status != "ok":
        write_about(cell, None)
        log.warning("%s: nothing to synthesise: %s", label, cell.status)
        return
    if context.config.overwrite == "always":
        cell.folder.journal.path.unlink(missing_ok=True)
        _forget_memory(cell)
    made = done(cell)
    replaced = replaced_in(context, made, utterances)
    if replaced and context.config.overwrite != "only-cache":
        log.warning("%s: %d utterances have other recordings than before and are made again", label, len(replaced))
    missing = [utterance for utterance in utterances if utterance.id not in made or utterance.id in replaced]
    if context.config.overwrite == "only-cache":
        missing = []
    row = cell.row
    if context.config.overwrite == "only-missing" and row.kind != "recordings":
        take_audio(context, cell, missing)
    if row.kind == "ground-truth":
        write_about(cell, None)
        with context.reporting.bar(label, len(utterances)) as bar:
            bar.reach(len(utterances) - len(missing))
            for utterance in missing:
                _journal(context, cell, utterance, lambda u=utterance: _copy(cell, u))  # type: ignore[misc]
                bar.advance()
        return
    if row.kind == "recordings":
        write_about(cell, None)
        take_recordings(context, cell, utterances)
        return
    if row.kind == "vocoded-ground-truth":
        write_about(cell, None)
        _sample(context, cell, utterances, missing, Maker(dataset.target_mel, lambda _, mel: (mel, None)))
        return
    if not missing and _memory_known(cell) and "row" in read_json(cell.folder.identity):
        return
    method, _ = context.sampler(row)
    write_about(cell, method)
    grid, _ = row_grid(context, row)
    solver, seed = row.solver or "euler", row.noise_seed or 0

    def mel(utterance: Utterance, condition: Condition) -> tuple[Tensor, Counts | None]:
        return synthesize_mel(
            method, condition, utterance.id, grid, solver, seed, context.device, context.config.precision
        )

    def warm(condition: Condition) -> None:  # each time: the library forgets lengths when it has met many
        warm_up(method, condition, context.device, context.config.precision)

    maker = Maker(dataset.condition, mel, warm)
    if not _memory_known(cell):
        _measure_memory(context, cell, utterances, maker)
    _sample(context, cell, utterances, missing, maker)


def done(cell: Cell) -> dict[str, dict[str, Any]]:
    """The utterances that have their audio. Failed ones are tried again."""
    rows = cell.folder.journal.rows()
    return {
        id: row for id, row in rows.items() if row["status"] == "ok" and (cell.folder.path / row["audio"]).is_file()
    }


def replaced_in(context: Context, made: Mapping[str, Mapping[str, Any]], utterances: Iterable[Utterance]) -> set[str]:
    """Utterances whose audio was made from recordings that have been replaced since; they are made again.

    Args:
        context: The experiment.
        made: A cell's rows by id, as ``done`` has them.
        utterances: Its test set.
    """
    return {u.id for u in utterances if u.id in made and of_other_recordings(context, made[u.id], u)}


def _sample(context: Context, cell: Cell, utterances: list[Utterance], missing: list[Utterance], maker: Maker) -> None:
    with context.reporting.bar(cell.row.label, len(utterances)) as bar:
        bar.reach(len(utterances) - len(missing))
        if not missing:
            return
        vocoder = context.vocoder()
        _warm_up(context, missing, maker, vocoder)
        for utterance in missing:
            make = lambda u=utterance: _make(context, cell, u, maker, vocoder)  # type: ignore[misc]  # noqa: E731
            _journal(context, cell, utterance, make)
            bar.advance()


def _warm_up(context: Context, utterances: list[Utterance], maker: Maker, vocoder: Any) -> None:
    """One utterance without a clock: through the network for every row, through the vocoder once in this process."""
    for utterance in utterances:
        try:
            mel = maker.mel(utterance, maker.prepare(utterance))[0]
            context.once("vocoder warm-up", lambda mel=mel: vocoder(mel))  # type: ignore[misc]
            return
        except CountMismatchError:
            raise
        except Exception as error:  # the same utterance will fail again where it is counted
            log.debug("warm-up on %s failed: %s", utterance.id, error)


def _journal(context: Context, cell: Cell, utterance: Utterance, make: Callable[[], dict[str, Any]]) -> None:
    """Append the utterance's row, whole or failed.

    Interruptions, wrong counts and a run folder that cannot be written are no failures of an utterance.
    """
    row: dict[str, Any] = {
        "id": utterance.id,
        "text": utterance.text,
        "language": utterance.language,
        "speaker": utterance.speaker,
        "prompt_id": utterance.prompt_id,
        "reference_seconds": length_of(utterance),
        MADE_FROM: made_from(context, utterance),
    }
    no_memory = False
    try:
        made = make()
        notes = [*_file_notes(context, cell, utterance), *made.pop("notes", ())]
        row |= {"status": "ok", "reason": None, "notes": "; ".join(notes) or None, **made}
    except (CountMismatchError, StoreError):
        raise
    except Exception as error:
        no_memory = out_of_memory(error)
        sampled = cell.row.kind == "sampled"
        what, path = ("prompt", utterance.prompt_audio) if sampled else ("recording", utterance.target_audio)
        about = _text_of(error, context.dataset(context.test_set(cell.row)), utterance) or recording_of(
            error, what, path
        )
        row |= {"status": "failed", "reason": told(error) + about}
        log.warning("%s, %s: %s", cell.row.label, utterance.id, row["reason"])
    if no_memory:  # only now nothing refers to the tensors of the attempt
        free_memory()
    cell.folder.journal.append(row)


def _text_of(error: Exception, dataset: Any, utterance: Utterance) -> str:
    """The text that an utterance's error is about and where it stands, in brackets; empty where it is about something else."""
    if not isinstance(error, TextError) and (not isinstance(error, LengthError) or error.of_prompt):
        return ""
    said = str(error).lower()  # a text of capitals is said in small letters
    named = any(text and repr(text).lower() in said for text in (utterance.text, utterance.prompt_text))
    text = utterance.text if len(utterance.text) <= _SHOWN else f"{utterance.text[:_SHOWN]}…"
    place = dataset.place_of(utterance) if hasattr(dataset, "place_of") else ""
    found = ", ".join(filter(None, ["" if named else f"text {text!r}", place]))
    return f" ({found})" if found else ""


def _file_notes(context: Context, cell: Cell, utterance: Utterance) -> list[str]:
    """What is worth a note of the utterance's recordings; each file is looked at once in a run, and logged once."""
    dataset = context.dataset(context.test_set(cell.row))
    expected = getattr(dataset, "sample_rate", context.inputs.mel.sample_rate)

    def note(what: str, path: Path) -> str:
        try:
            found = notes_of_file(path, expected)
        except AudioError:  # a recording that this row needs not; where it is needed, it is a reason
            return ""
        if found:
            log.warning("%s of %s: %s (%s)", what, utterance.id, ", ".join(found), path)
        return f"{what} {', '.join(found)}" if found else ""

    def noted(what: str, path: Path) -> str:
        found: str = context.once(f"notes:{what}:{path}", lambda: note(what, path))
        return found

    found = [noted("prompt", utterance.prompt_audio)]
    if cell.row.kind != "sampled" and utterance.target_audio is not None:
        found.append(noted("recording", utterance.target_audio))
    return list(filter(None, found))


def _make(context: Context, cell: Cell, utterance: Utterance, maker: Maker, vocoder: Any) -> dict[str, Any]:
    """Network, then vocoder, each under the clock (batch 1, the device synchronised), then the file."""
    mels: list[tuple[Tensor, Counts | None]] = []
    made: list[np.ndarray] = []
    given = maker.prepare(utterance)
    if maker.warm is not None:
        maker.warm(given)
    network = time_passes(lambda: mels.append(maker.mel(utterance, given)), 0, 1, context.device)[0]
    mel, counts = mels[0]
    prepare_vocoder(vocoder, len(mel))
    vocoding = time_passes(lambda: made.append(vocoder(mel)), 0, 1, context.device)[0]
    audio = made[0] if counts is None else as_loud(made[0], given)
    return {
        **_saved(cell, utterance, audio, vocoder.sample_rate),
        "notes": [f"output {note}" for note in audio_notes(audio, vocoder.sample_rate)],
        "network_seconds": None if counts is None else network,
        "vocoder_seconds": vocoding,
        "counts": None if counts is None else asdict(counts),
        "device": context.device.type,
        "hardware": context.machine,
        "threads": context.threads,
        "workers": context.config.workers,
        "timing": TIMING,
    }


def _copy(cell: Cell, utterance: Utterance) -> dict[str, Any]:
    if utterance.target_audio is None:
        raise AudioError(NO_RECORDING)
    audio, rate = load_audio(utterance.target_audio)
    return _saved(cell, utterance, audio, rate)


def _saved(cell: Cell, utterance: Utterance, audio: np.ndarray, rate: int) -> dict[str, Any]:
    if len(audio) == 0 or not bool(np.isfinite(audio).all()):
        raise ValueError("the audio is empty or holds values that are not finite")
    path = cell.folder.audio(utterance.id)
    save_audio(path, audio, rate)
    return {
        "audio": str(path.relative_to(cell.folder.path)),
        "audio_sha256": file_sha256(path),
        "seconds": len(audio) / rate,
    }


def _memory_known(cell: Cell) -> bool:
    return (read_json(cell.folder.identity) or {}).get("peak_memory") is not None


def _forget_memory(cell: Cell) -> None:
    present = read_json(cell.folder.identity)
    if present is not None:
        write_json(cell.folder.identity, {key: value for key, value in present.items() if key not in MEMORY_KEYS})


def _measure_memory(context: Context, cell: Cell, utterances: list[Utterance], maker: Maker) -> None:
    """Peak memory of sampling one utterance: the network's. An accelerator counts all that lies on it, so the rest goes.

    It is the first utterance that can be sampled at all: one that cannot is told where it is counted.
    """
    if context.device.type != "cpu":
        context.forget("vocoder")
        context.forget("vocoder warm-up")  # a vocoder that is loaded anew is cold
    for utterance in utterances:
        try:
            given = maker.prepare(utterance)
            with torch.no_grad(), peak_memory(context.device) as peak:
                mel, _ = maker.mel(utterance, given)
        except CountMismatchError:
            raise
        except Exception as error:
            log.debug("no memory can be measured on %s: %s", utterance.id, error)
            continue
        measured = {
            "peak_memory": peak.bytes,
            "peak_memory_kind": peak.kind,
            "peak_memory_of": f"{utterance.id}, {len(mel)} frames and its prompt",
        }
        write_json(cell.folder.identity, {**(read_json(cell.folder.identity) or {}), **measured})
        return
