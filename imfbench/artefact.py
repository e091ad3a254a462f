"""Trained networks on disk: safetensors with all that is needed to build them again, and a card. Never pickle.

The file's metadata holds the backbone's and the method's names and configurations, so that a network of another shape is
refused with words instead of a trace.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from imfbench.method import Method
from imfbench.plugins import left_out
from imfbench.registry import BACKBONES, METHODS, Registry, UnknownNameError, nearest
from imfbench.store import file_sha256, write_bytes, write_text
from imfbench.weights import misfits

ASSETS = Path(__file__).parent / "assets"
EMBEDDED = "embedded:"
WEIGHTS = "model.safetensors"
CARD = "card.json"
VOCABULARY = "vocab.txt"
"""The characters of a network that reads texts so (F5-TTS's), beside its weights; a student gets its teacher's."""
VOCABULARY_SHA256 = "vocabulary_sha256"
"""Of that file, in cards and recipes."""
METADATA = "imfbench"
FORMAT = "imfbench-1"


class ArtefactError(ValueError):
    """An artefact that is missing, damaged, or of another shape; the message says what to do."""


def embedded() -> list[str]:
    """Names of the artefacts that ship with imfbench."""
    return sorted(EMBEDDED + path.parent.name for path in ASSETS.glob(f"*/{WEIGHTS}"))


def save_artefact(folder: Path, method_name: str, method: Method, card: dict[str, Any], half: bool = False) -> str:
    """Write ``model.safetensors`` and ``card.json`` into ``folder``; returns the weights' sha256.

    Args:
        folder: Made if it is not there.
        method_name: The registry's name of the method.
        method: Its network is stored.
        card: How it was made; ``sha256`` is added.
        half: Store fp16 (for what ships).

    Raises:
        ArtefactError: The network's class is not registered.
    """
    network = method.network
    backbone = BACKBONES.name_of(type(network))
    if backbone is None:
        told = f"{type(network).__name__} is no registered backbone, so its weights could not be read again"
        raise ArtefactError(f"{told}: register it under a name")
    state = {
        name: (value.half() if half and value.is_floating_point() else value).contiguous().cpu()
        for name, value in network.state_dict().items()
    }
    metadata = {
        "format": FORMAT,
        "backbone": backbone,
        "backbone_config": network.config.model_dump(mode="json"),  # type: ignore[operator, union-attr]
        "second_time": bool(network.has_second_time),
        "method": method_name,
        "method_config": method.config.model_dump(mode="json"),
    }
    # One entry of sorted JSON: safetensors writes several in no fixed order, and equal networks must have equal hashes.
    data = save(state, {METADATA: json.dumps(metadata, sort_keys=True)})
    digest = hashlib.sha256(data).hexdigest()
    write_bytes(folder / WEIGHTS, data)
    write_text(folder / CARD, json.dumps(card | {"sha256": digest}, indent=1) + "\n")
    return digest


def locate(reference: str | Path) -> Path:
    """The folder of an artefact: ``embedded:NAME``, or a path.

    Raises:
        ArtefactError: There is none; the message names those that ship.
    """
    text = str(reference)
    folder = ASSETS / text.removeprefix(EMBEDDED) if text.startswith(EMBEDDED) else Path(text)
    if not (folder / WEIGHTS).is_file():
        pickled = sorted(path.name for kind in ("*.pt", "*.pth", "*.ckpt", "*.bin") for path in folder.glob(kind))
        hint = nearest(text, embedded())
        if pickled:
            hint = f"{pickled[0]} lies there, but pickled checkpoints are not read, since reading one can run code"
        elif (folder / CARD).is_file():
            hint = "its card is there without its weights, as in a copy of results for readers; move it away to train it again"
        raise ArtefactError(f"no artefact {text!r} ({folder / WEIGHTS} is missing); {hint}")
    return folder


def read_card(reference: str | Path) -> dict[str, Any]:
    """The card of an artefact; where a ``vocab.txt`` lies beside the weights, with the file's ``vocabulary_sha256``.

    Raises:
        ArtefactError: There is no artefact, its card cannot be read, or its ``vocab.txt`` is not the one that the card tells of.
    """
    path = locate(reference) / CARD
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtefactError(
            f"{path}, the card of {WEIGHTS}, cannot be read ({error}): fetch the artefact again, or remove its folder and "
            "train it again"
        ) from None
    if not isinstance(card, dict):
        raise ArtefactError(f"{path} holds no card: fetch the artefact again, or remove its folder and train it again")
    return card | _vocabulary(path.parent, card.get(VOCABULARY_SHA256))


def vocabulary_sha256(reference: str | Path) -> str | None:
    """sha256 of the ``vocab.txt`` beside an artefact's weights; None: its contents are no characters.

    Raises:
        ArtefactError: There is no artefact, or the file cannot be read.
    """
    path = locate(reference) / VOCABULARY
    try:
        return file_sha256(path) if path.exists() else None
    except OSError as error:
        raise ArtefactError(
            f"{path} cannot be read ({error.strerror}): lay the network's own vocab.txt there"
        ) from None


def identity(card: Mapping[str, Any]) -> str:
    """What an artefact is known by in cells, searches and tables: 64 hexadecimal digits.

    The weights' sha256; of a network of characters that of its weights and its characters. Two vocabularies of one size give the
    same weights other meanings, and what they say must never stand for one another.

    Args:
        card: As ``read_card`` and ``load_artefact`` give it.
    """
    weights, characters = str(card["sha256"]), card.get(VOCABULARY_SHA256)
    return weights if characters is None else hashlib.sha256(f"{weights}/{characters}".encode()).hexdigest()


def _vocabulary(folder: Path, wanted: Any) -> dict[str, str]:
    """The characters' sha256 as a card has it; nothing where there are none."""
    found = vocabulary_sha256(folder)
    if wanted is not None and found != wanted:
        state = (
            "is missing" if found is None else f"has sha256 {found[:12]}…, but the card beside it says {wanted[:12]}…"
        )
        raise ArtefactError(
            f"{folder / VOCABULARY} {state}: the weights mean nothing without the characters that they were trained on. Lay the "
            "network's own vocab.txt there, or fetch, import or train the artefact again"
        )
    return {} if found is None else {VOCABULARY_SHA256: found}


def read_settings(reference: str | Path) -> tuple[str, dict[str, Any]]:
    """Method and hyper-parameters of an artefact, without reading its weights.

    Raises:
        ArtefactError: There is none, imfbench did not write it, or its method is not known here.
    """
    path = locate(reference) / WEIGHTS
    name, config = _described(path, "method")
    _part(METHODS, name, path)
    return name, config


def read_network(reference: str | Path) -> tuple[str, dict[str, Any]]:
    """Backbone and settings of an artefact's network, without reading its weights; raises as ``read_settings`` does."""
    path = locate(reference) / WEIGHTS
    name, config = _described(path, "backbone")
    _part(BACKBONES, name, path)
    return name, config


def _described(path: Path, what: str) -> tuple[str, dict[str, Any]]:
    try:
        with safe_open(path, "pt") as file:
            found = json.loads((file.metadata() or {})[METADATA])
        return str(found[what]), dict(found[f"{what}_config"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise ArtefactError(
            f"{path} does not say which {what} it is of ({error!r}): fetch the artefact again"
        ) from None


def load_artefact(reference: str | Path, device: torch.device | str = "cpu") -> tuple[Method, dict[str, Any]]:
    """Read an artefact, verify its sha256 against its card, and build the method with its network in eval mode.

    Raises:
        ArtefactError: Missing, damaged, of a method or backbone that is not known here, or its weights do not fit the network
            that its metadata describe.
    """
    path, card = locate(reference) / WEIGHTS, read_card(reference)
    found = file_sha256(path)
    if found != card.get("sha256"):
        raise ArtefactError(
            f"{path} has sha256 {found[:12]}…, but its card says {str(card.get('sha256'))[:12]}…: the file was changed or "
            "cut short; fetch it again, or remove its folder and train it again"
        )
    try:
        with safe_open(path, "pt") as file:
            metadata = json.loads((file.metadata() or {}).get(METADATA, "{}"))
            state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ArtefactError(
            f"{path} is not a safetensors file ({error}); pickled checkpoints are not read, since reading one can run "
            "code: give an artefact that imfbench wrote"
        ) from None
    if metadata.get("format") != FORMAT:
        raise ArtefactError(
            f"{path} was not written by imfbench, or by another version of it: its metadata lack {FORMAT!r}"
        )
    try:
        cls = _part(METHODS, metadata["method"], path)
        _part(BACKBONES, metadata["backbone"], path)
        network = build_network(metadata["backbone"], metadata["backbone_config"])
        config = cls.Config(**metadata["method_config"])
    except ValidationError as error:
        raise ArtefactError(
            f"{path} describes a network or method that this version of imfbench does not know: "
            f"{error.errors()[0]['loc']}: {error.errors()[0]['msg']}; use the version that wrote it, or train it again"
        ) from None
    if metadata["second_time"]:
        network.attach_second_time()  # type: ignore[operator]
    if told := misfits(network.state_dict(), state):
        raise ArtefactError(
            f"{path} does not fit the network its metadata describe: {told}. Fetch it again, or remove its folder and train "
            "it again"
        )
    network.load_state_dict(state)
    method: Method = cls(config, network.eval().to(device))
    return method, card


def _part(registry: Registry[Any], name: str, path: Path) -> Any:
    """The method or backbone that an artefact was made with."""
    try:
        return registry.get(name)
    except UnknownNameError:
        remedy = left_out(name, "give its --plugin FILE, or install its package")
        raise ArtefactError(
            f"{path} was made with the {registry.kind} {name!r}, which is not known here: {remedy}"
        ) from None


def build_network(backbone: str, config: dict[str, Any] | None = None) -> nn.Module:
    """A new network of the registry with random weights: for training only."""
    cls = BACKBONES.get(backbone)
    network: nn.Module = cls(cls.Config(**(config or {})))
    return network
