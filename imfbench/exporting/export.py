"""An export: weights or graphs, the patch or sampler that goes with them, a vocabulary, a card, and a README that says how."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from imfbench.artefact import VOCABULARY, identity, load_artefact, locate, read_network
from imfbench.disk import whole_folder
from imfbench.exporting.card import ExportError, grids_of, make_card, read_run, run_of
from imfbench.exporting.readme import readme
from imfbench.method import Method
from imfbench.store import atomic, file_sha256, write_bytes, write_json, write_text

CARD, README = "card.json", "README.md"
FORMATS = ("f5", "cosyvoice2", "chatterbox", "onnx", "torch")
NETWORKS = {"f5": "f5tts", "cosyvoice2": "cosyvoice2", "chatterbox": "cosyvoice2"}
"""Whose weights an original's format holds; graphs are made of several."""
PATCHES = {"f5": "imfbench_f5.py", "cosyvoice2": "imfbench_cosyvoice2.py"}
"""For a network of two times; the original plays one of one time as it is."""
SAMPLERS = {"onnx": "sample_onnx.py", "torch": "sample_torch.py"}
ONE_FILE = 1_900_000_000
"""Bytes of weights beyond which they lie beside an ONNX file, which holds two gigabytes at most."""
ONNX_PACKAGES = ("onnx", "onnxscript")
_PATCHES = "imfbench.exporting.patches"


def export(
    reference: str, form: str, out: Path, *, run: Path | None = None, grid: str | None = None, nfe: Sequence[int] | None = None,
    beside: Path | None = None, licence: str | None = None,
) -> tuple[dict[str, Any], str]:  # fmt: skip
    """Write what other software can run of an artefact.

    Args:
        reference: The artefact: a folder, or ``embedded:NAME``.
        form: One of ``FORMATS``.
        out: The folder to make; it must be empty or absent.
        run: The run folder that has its searched grids and scores; the one in which it lies otherwise.
        grid: Name or points of a time grid, in place of the run's searched ones.
        nfe: Numbers of steps that the card is to have grids for; 1, 2, 3 of a student and 16, 32 of a teacher otherwise.
        beside: Chatterbox: a published ``s3gen`` file, whose tokenizer, speaker encoder and vocoder are taken over.
        licence: Of the weights, in place of the teacher's.

    Returns:
        The card, and what the README says.

    Raises:
        ExportError: The artefact cannot be had in this format, or the folder holds something.
        imfbench.artefact.ArtefactError: There is no such artefact.
        imfbench.disk.StoreError: The folder cannot be written; nothing is left of it.
    """
    if form not in FORMATS:
        raise ExportError(f"unknown format {form!r}: known are {', '.join(FORMATS)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ExportError(f"{out} holds something already: name a folder that is empty or not there")
    if beside is not None and form != "chatterbox":
        raise ExportError(
            f"--beside {beside} belongs to Chatterbox's format, which has one file for all its parts: leave it out"
        )
    place = locate(reference)
    backbone = read_network(place)[0]
    if backbone != NETWORKS.get(form, backbone):
        raise ExportError(
            f"{reference} is a network {backbone!r}, and {form} plays {NETWORKS[form]!r} alone: export it with --format onnx or "
            "torch"
        )
    if form == "onnx" and (missing := [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]):
        raise ExportError(f"{missing[0]} is not installed, which writes ONNX: pip install 'imfbench[onnx]'")
    method, artefact = load_artefact(place)
    folder_of_run = run_of(place, run)
    known = None if folder_of_run is None else read_run(folder_of_run, identity(artefact))
    if (
        run is not None
        and known is not None
        and not (known.grids or known.scores or run.resolve() in place.resolve().parents)
    ):
        raise ExportError(
            f"{run} knows nothing of {reference}: it has neither a row nor a searched grid of its weights (sha256 "
            f"{str(artefact['sha256'])[:12]}…); name the run in which it was trained or scored"
        )
    steps = nfe or ((1, 2, 3) if method.kind == "average" else (16, 32))
    grids = grids_of(method, steps, grid, known)
    card = make_card(form, str(reference), method, backbone, artefact, grids, known, licence)
    with whole_folder(out) as folder:
        _WRITERS[form](folder, method, backbone, card, beside)
        if (place / VOCABULARY).is_file():
            write_bytes(folder / VOCABULARY, (place / VOCABULARY).read_bytes())
        patch = SAMPLERS.get(form) or (PATCHES.get(form) if card["two_times"] else None)
        if patch is not None:
            write_text(folder / patch, resources.files(_PATCHES).joinpath(patch).read_text(encoding="utf-8"))
        card["patch"] = patch
        card["files"] = {path.name: file_sha256(path) for path in sorted(folder.iterdir())}
        write_json(folder / CARD, card)
        told = readme(card)
        write_text(folder / README, told)
    return card, told


def _f5(folder: Path, method: Method, _: str, card: dict[str, Any], __: Path | None) -> None:
    from imfbench.backbones.f5_checkpoint import write_checkpoint

    write_checkpoint(folder / "model.safetensors", method.network, step=int(card["training"].get("steps") or 0))  # type: ignore[arg-type]


def _cosyvoice2(folder: Path, method: Method, _: str, card: dict[str, Any], __: Path | None) -> None:
    from imfbench.backbones.cosyvoice2_checkpoint import state_for_original

    card["streaming"] = method.network.config.streaming  # type: ignore[union-attr]
    with atomic(folder / "flow.pt") as path:
        torch.save(state_for_original(method.network), path)  # type: ignore[arg-type]


def _chatterbox(folder: Path, method: Method, _: str, card: dict[str, Any], beside: Path | None) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save

    from imfbench.backbones.cosyvoice2_checkpoint import state_for_chatterbox

    parts = {}
    if beside is not None:
        try:
            parts = load_file(beside)
        except (SafetensorError, OSError) as error:
            raise ExportError(
                f"--beside {beside} cannot be read ({error}): give Chatterbox's s3gen.safetensors"
            ) from None
    state = state_for_chatterbox(method.network, parts)  # type: ignore[arg-type]
    taken = sorted({name.partition(".")[0] for name in state} - {"flow"})
    if beside is not None and not taken:
        raise ExportError(
            f"--beside {beside} has no part of Chatterbox beside a flow: give its s3gen.safetensors as published"
        )
    card["parts"] = ["flow", *taken]
    name = "s3gen_meanflow.safetensors" if card["two_times"] else "s3gen.safetensors"
    write_bytes(folder / name, save(state))


def _onnx(folder: Path, method: Method, backbone: str, card: dict[str, Any], _: Path | None) -> None:
    from imfbench.exporting.graphs import graphs

    card["graphs"] = {}
    for graph in _quietly(graphs, method, backbone):
        size = sum(value.numel() * value.element_size() for value in graph.program.state_dict.values())
        _quietly(
            torch.onnx.export, graph.program, (), folder / f"{graph.name}.onnx", input_names=list(graph.inputs),
            output_names=[graph.output], dynamo=True, external_data=size > ONE_FILE, verbose=False,
        )  # fmt: skip
        card["graphs"][graph.name] = list(graph.inputs)


def _torch(folder: Path, method: Method, backbone: str, card: dict[str, Any], _: Path | None) -> None:
    from imfbench.exporting.graphs import graphs

    card["graphs"] = {}
    for graph in _quietly(graphs, method, backbone):
        torch.export.save(graph.program, folder / f"{graph.name}.pt2")
        card["graphs"][graph.name] = list(graph.inputs)
    card["torch"] = torch.__version__


def _quietly(do: Callable[..., Any], *given: Any, **settings: Any) -> Any:
    """Without what torch's exporter says of packages that are not installed, and of what it deprecates."""
    said = logging.getLogger("torch.onnx._internal.exporter._registration")
    before = said.level
    said.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return do(*given, **settings)
    finally:
        said.setLevel(before)


_WRITERS: dict[str, Callable[[Path, Method, str, dict[str, Any], Path | None], None]] = {
    "f5": _f5, "cosyvoice2": _cosyvoice2, "chatterbox": _chatterbox, "onnx": _onnx, "torch": _torch,
}  # fmt: skip


def shown(folder: Path, card: dict[str, Any]) -> str | None:
    """The patch of an export, as it lies there; None where there is none."""
    return None if card["patch"] is None else (folder / card["patch"]).read_text(encoding="utf-8")
