"""What is to be known of an export, its ``card.json``: teacher, data, K, guidance, grids, scores, licence."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from imfbench.artefact import ArtefactError, read_card
from imfbench.flow.grids import grid_name, make_grid
from imfbench.inputs import inputs_of
from imfbench.method import Method
from imfbench.store import read_json

FORMAT = "imfbench-export-1"
_OF_ROWS = ("system", "dataset", "nfe", "grid", "grid_values", "noise_seed", "n_scored", "vocoder", "dtype", "device")


class ExportError(ValueError):
    """An export that cannot be made as asked; the message says why and what can."""


@dataclass(frozen=True)
class Run:
    """What a run folder tells of one artefact.

    Attributes:
        folder: The run's.
        grids: Evaluations → the record of the grid that was searched for it.
        scores: Its rows of the leaderboard: what was sampled, and every figure with its interval.
        teacher: How the experiment names its teacher.
    """

    folder: Path
    grids: Mapping[int, Mapping[str, Any]]
    scores: Sequence[Mapping[str, Any]]
    teacher: str | None


def run_of(artefact: Path, given: Path | None) -> Path | None:
    """The run folder that an artefact belongs to: the one that was given, or the one in which it lies."""
    if given is None:
        above = artefact.resolve().parent.parent
        return (
            above if artefact.resolve().parent.name == "artefacts" and (above / "experiment.yaml").is_file() else None
        )
    if not (given / "experiment.yaml").is_file():
        raise ExportError(
            f"{given} is no run folder: experiment.yaml is not there; name one such as runs/NAME with --run"
        )
    return given


def read_run(folder: Path, sha256: str) -> Run:
    """What a run tells of the artefact of this identity; nothing where it has not searched or scored yet."""
    searched: dict[int, Mapping[str, Any]] = {}
    for path in sorted((folder / "grids").glob("*.json")):
        found = read_json(path) or {}
        recipe = found.get("recipe") or {}
        if recipe.get("artefact_sha256") != sha256 or not found.get("values"):
            continue
        nfe = int(recipe["nfe"])
        if nfe not in searched or float(found["score"]) > float(searched[nfe]["score"]):
            searched[nfe] = found
    board = read_json(folder / "leaderboard" / "leaderboard.json") or {}
    rows = [
        row for row in board.get("rows") or [] if row.get("artefact_sha256") == sha256 and row.get("status") == "ok"
    ]
    experiment = yaml.safe_load((folder / "experiment.yaml").read_text(encoding="utf-8")) or {}
    teacher = (experiment.get("teacher") or {}).get("artefact")
    return Run(folder, searched, [_scores(row) for row in rows], teacher)


def _scores(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row's figures: what has an interval, with the interval, and how it was made."""
    figures = [name for name in row if f"{name}_low" in row and row[name] is not None]
    found = {key: row.get(key) for key in _OF_ROWS}
    for name in figures:
        found |= {key: row.get(key) for key in (name, f"{name}_low", f"{name}_high")}
    return {**found, "rtf_network": row.get("rtf_network"), "signatures": row.get("signatures")}


def grids_of(method: Method, nfe: Sequence[int], spec: str | None, run: Run | None) -> dict[int, dict[str, Any]]:
    """Steps → the grid to sample them with, and where it is from.

    Args:
        method: A few-step one is sampled on uniform grids without further word, a teacher on sway's.
        nfe: Numbers of steps.
        spec: A grid's name, or points as JSON, in place of all others.
        run: Whose searched grids are taken where ``spec`` is None.

    Raises:
        ExportError: ``spec`` is a list of points of another number of steps than the one that is asked for.
        imfbench.flow.grids.GridError: There is no such grid.
    """
    if spec is not None and spec.lstrip().startswith("["):
        try:
            points = json.loads(spec)
        except ValueError:
            raise ExportError(f"--grid {spec}: points are written as [0, 0.65, 1]") from None
        grid = make_grid(points)
        return {len(grid) - 1: {"values": grid.tolist(), "name": grid_name(grid), "from": "--grid"}}
    found: dict[int, dict[str, Any]] = {}
    searched = {} if run is None or spec is not None else run.grids
    named = spec or ("uniform" if method.kind == "average" else "sway")
    for steps in sorted({*nfe, *searched}):
        if steps in searched:
            one = searched[steps]
            found[steps] = {
                "values": list(one["values"]), "name": one["name"], "from": one["recipe"]["search"],
                "score": one["recipe"]["score"], "evaluations": one.get("evaluations"),
            }  # fmt: skip
        else:
            grid = make_grid(named, steps)
            name = grid_name(named, steps)
            found[steps] = {"values": grid.tolist(), "name": name, "from": "--grid" if spec else "the default"}
    return found


def make_card(
    form: str, reference: str, method: Method, backbone: str, card: Mapping[str, Any], grids: Mapping[int, Mapping[str, Any]],
    run: Run | None, licence: str | None,
) -> dict[str, Any]:  # fmt: skip
    """The card of an export; files and graphs are added as they are written.

    Args:
        form: The export's format.
        reference: How the student was named.
        method: The student, or a teacher.
        backbone: Registered name of its network.
        card: The artefact's own.
        grids: As :func:`grids_of` gives them.
        run: What is known from its run.
        licence: In place of the teacher's.
    """
    known = dict(card.get("method_config") or {})
    unknown = list(card.get("unknown") or [])
    known = {key: None if key in unknown else value for key, value in known.items()}
    teacher = _teacher(card, run)
    mel = inputs_of(method.network).mel
    return {
        "schema": FORMAT,
        "format": form,
        "name": card.get("name") or Path(reference).name,
        "artefact_sha256": card["sha256"],
        "method": card.get("method", "teacher"),
        "method_config": known,
        "task": card.get("task"),
        "backbone": backbone,
        "backbone_config": method.network.config.model_dump(mode="json"),  # type: ignore[operator, union-attr]
        "two_times": bool(method.network.has_second_time),
        "mel": {
            "format": mel.name,
            "bands": mel.bands,
            "sample_rate": mel.sample_rate,
            "hop": mel.hop,
            "mean": mel.mean,
            "deviation": mel.deviation,
        },
        "teacher": teacher,
        "train_data": card.get("train_data"),
        "training": _training(card),
        "imported": card.get("imported"),
        "teacher_nfe": known.get("teacher_nfe"),
        "guidance": known.get("guidance"),
        "guidance_baked_in": getattr(method, "baked_guidance", None) is not None,
        "unknown": unknown,
        "grids": {str(steps): grid for steps, grid in grids.items()},
        "scores": [] if run is None else list(run.scores),
        "run": None if run is None else run.folder.name,
        "licence": licence or card.get("licence") or teacher.get("licence"),
    }


def _training(card: Mapping[str, Any]) -> dict[str, Any]:
    told = card.get("training") or {}
    return {key: told[key] for key in ("steps", "seconds", "seed", "parameters", "precision") if key in told}


def _teacher(card: Mapping[str, Any], run: Run | None) -> dict[str, Any]:
    """What is known of the teacher: its weights' hash, and by its own card, where that can be had, name, licence and source."""
    sha256 = card.get("teacher_sha256")
    if sha256 is None:
        return {}
    found: dict[str, Any] = {"sha256": sha256}
    places = [run.folder / "artefacts" / str(run.teacher), run.teacher] if run is not None and run.teacher else []
    for place in places:
        try:
            own = read_card(str(place))
        except ArtefactError:
            continue
        if own.get("sha256") == sha256:
            keys = ("name", "licence", "imported", "train_data")
            return {**found, **{key: own[key] for key in keys if own.get(key) is not None}}
    return found
