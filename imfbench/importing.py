"""Checkpoints of the original software as artefacts: what an experiment names as its teacher, or samples as a student.

An artefact is the weights with all that is needed to build the network again, and a card that says which file they are from.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from imfbench.artefact import VOCABULARY, VOCABULARY_SHA256, read_card, save_artefact
from imfbench.backbones.originals import MissingPackageError
from imfbench.disk import whole_folder
from imfbench.method import Method
from imfbench.registry import METHODS
from imfbench.store import file_sha256, write_bytes
from imfbench.weights import DamagedModelError, MissingModelError

FORMATS = ("f5", "cosyvoice2", "chatterbox")
LICENCES = {"f5": "CC-BY-NC-4.0", "cosyvoice2": "Apache-2.0", "chatterbox": "MIT"}
"""Of the weights as their authors publish them; another training's may have another."""
GUIDANCE = {"f5": 2.0, "cosyvoice2": 0.7, "chatterbox": 0.7}
"""w with which the original software samples."""
_TASKS = {"f5": "text2mel", "cosyvoice2": "token2mel", "chatterbox": "token2mel"}
_FLOW_SETTINGS = ("streaming", "chunk", "attention_head_dim")
UNKNOWN = ("teacher_nfe", "guidance")
"""What an imported student's file does not say of its distillation."""


class ImportingError(ValueError):
    """A file that cannot be made an artefact; the message names it and says what to give."""


def import_checkpoint(
    path: Path, form: str, out: Path, *, model: str | None = None, vocabulary: Path | None = None,
    weights: Any = None, licence: str | None = None, guidance: float | None = None,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Make an artefact of a checkpoint of the original software.

    A network of one time becomes a ``teacher``; one of two, such as Chatterbox's two-step decoder, an ``intmeanflow``.

    Args:
        path: F5-TTS's checkpoint, CosyVoice 2's ``flow.pt``, or Chatterbox's ``s3gen`` file.
        form: One of ``FORMATS``.
        out: The artefact's folder; it must be empty or absent.
        model: F5-TTS: name of its layout, such as ``F5TTS_v1_Base``.
        vocabulary: F5-TTS: its ``vocab.txt``, which goes along.
        weights: F5-TTS: ``ema`` or ``raw``.
        licence: Of the weights; that of the published ones otherwise.
        guidance: w of a teacher's sampling; the original's own otherwise.
        settings: Of the network, beyond what the file says, such as ``streaming``.

    Returns:
        The card.

    Raises:
        ImportingError: The file is another model's, of another size, damaged or missing, or something that belongs to it is.
        imfbench.disk.StoreError: The folder cannot be written; nothing is left of it.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ImportingError(f"{out} holds something already: name a folder that is empty or not there")
    _check_options(path, form, model, vocabulary, weights)
    try:
        network = _network(path, form, model, vocabulary, weights, dict(settings or {}))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ImportingError(f"--set {where}: {first['msg']}; settings are those of the network") from None
    except (DamagedModelError, MissingModelError, MissingPackageError, ValueError) as error:
        raise ImportingError(str(error)) from None
    name = "intmeanflow" if network.has_second_time else "teacher"
    cls = METHODS.get(name)
    w = GUIDANCE[form] if guidance is None else guidance
    method: Method = cls(cls.Config(guidance=w), network)
    card = {
        "name": out.name,
        "method": name,
        "method_config": method.config.model_dump(mode="json"),
        "task": _TASKS[form],
        "train_data": None,
        "teacher_sha256": None,
        "licence": licence or LICENCES[form],
        "imported": {
            "format": form, "file": path.name, "sha256": file_sha256(path), "layout": model,
            "weights": weights, "settings": dict(settings or {}),
        },
        **({} if vocabulary is None else {VOCABULARY_SHA256: file_sha256(vocabulary)}),
        "parameters": sum(p.numel() for p in network.parameters()),
        **({"unknown": list(UNKNOWN)} if network.has_second_time else {}),
    }  # fmt: skip
    with whole_folder(out) as folder:
        save_artefact(folder, name, method, card)
        if vocabulary is not None:
            write_bytes(folder / VOCABULARY, vocabulary.read_bytes())
    return read_card(out)


def _check_options(path: Path, form: str, model: str | None, vocabulary: Path | None, weights: Any) -> None:
    """That what belongs to the format is given, and nothing else."""
    if form not in FORMATS:
        raise ImportingError(f"unknown format {form!r}: known are {', '.join(FORMATS)}")
    if form != "f5":
        given = {"--model": model, "--vocab": vocabulary, "--weights": weights}
        if alone := [name for name, value in given.items() if value is not None]:
            raise ImportingError(f"{alone[0]} belongs to F5-TTS's checkpoints: leave it out for {path} ({form})")
        return
    if vocabulary is None:
        raise ImportingError(
            f"{path} means nothing without its characters: give the vocab.txt that lies beside it where it was published, with "
            "--vocab (that of the released F5-TTS models is also in the package f5-tts, f5_tts/infer/examples/vocab.txt)"
        )
    if model is None:
        from imfbench.backbones.f5_checkpoint import models

        try:
            known = ", ".join(models())
        except MissingPackageError as error:
            raise ImportingError(str(error)) from None
        raise ImportingError(
            f"{path} does not say which layout it has, and some of one size differ: name it with --model ({known})"
        )


def _network(
    path: Path, form: str, model: str | None, vocabulary: Path | None, weights: Any, settings: dict[str, Any]
) -> Any:
    if form == "f5":
        from imfbench.backbones.f5_checkpoint import read_checkpoint

        return read_checkpoint(path, str(model), vocabulary, weights, **settings)
    from imfbench.backbones.cosyvoice2_checkpoint import layout_of, load_flow

    if unknown := sorted(set(settings) - set(_FLOW_SETTINGS)):
        raise ImportingError(
            f"--set {unknown[0]}: the flow has no such setting beyond what the file says; known: {', '.join(_FLOW_SETTINGS)}"
        )
    network = load_flow(path, **settings)
    if (found := layout_of(path)) != form:
        raise ImportingError(f"{path} has the layout of {found}, not of {form}: import it with --format {found}")
    return network
