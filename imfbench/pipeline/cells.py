"""Cells: what a row of the plan is, by content, and where it lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from imfbench.artefact import identity as identity_of
from imfbench.data import revision_of
from imfbench.flow.grids import grid_name, make_grid
from imfbench.method import Method
from imfbench.pipeline.context import Context, NotReadyError, method_name
from imfbench.pipeline.plan import Row, grid_for, name_of_grid, teacher_nfe
from imfbench.pipeline.reuse import RECIPE
from imfbench.pipeline.staleness import check_grid
from imfbench.pipeline.train import settings_of
from imfbench.plugins import source_of
from imfbench.registry import METHODS
from imfbench.sampling import sampling_guidance
from imfbench.store import CellFolder, content_hash, read_json, write_json

UNTOLD = {"teacher_nfe": "teacher_nfe", "guidance": "trained_guidance"}
"""Setting of a method → column of a row, of those that an imported file does not say."""


@dataclass(frozen=True)
class Cell:
    """A row with its content.

    Attributes:
        row: The row of the plan.
        folder: ``cells/<key>``.
        identity: What the key is a hash of.
        about: What tables say of the cell besides: ``cell.json``.
        status: "ok", or why nothing is to be sampled: "diverged", "failed: …".
        elsewhere: The network came ready: what its training cost is no figure of this run.
        untold: Settings of its training that its card calls unknown: the file that it was imported from does not say them.
    """

    row: Row
    folder: CellFolder
    identity: dict[str, Any]
    about: dict[str, Any]
    status: str = "ok"
    elsewhere: bool = False
    untold: tuple[str, ...] = ()


def cell_of(context: Context, row: Row) -> Cell:
    """The cell of a row. A row whose artefact or grid is not to be had has a cell too, which says so."""
    status, card, grid, name = "ok", None, None, None
    if row.kind == "sampled":
        try:
            assert row.artefact is not None
            card = context.card(row.artefact)
            grid, name = row_grid(context, row)
        except NotReadyError as error:
            status = str(error)
    config = context.config
    test_set = context.test_set(row)
    dataset = context.dataset(test_set)
    variant, revision = getattr(dataset, "variant", ""), revision_of(dataset, test_set.split)
    vocoder = None if row.kind in ("ground-truth", "recordings") else context.vocoder_name
    identity = {
        "task": config.task,
        "artefact_sha256": identity_of(card) if card else None,
        "system": row.system,
        "kind": row.kind,
        "solver": row.solver,
        "guidance": row.guidance,
        "grid": None if grid is None else [round(value, 9) for value in grid.tolist()],
        "dataset": [test_set.name, revision, test_set.split, *([variant] if variant else [])],
        "noise_seed": row.noise_seed,
        "dtype": context.dtype if row.kind == "sampled" else None,
        "vocoder": vocoder,
    }
    # What ships is pinned by the release; the file of a plug-in that makes conditions or audio may be another one tomorrow.
    makers = [source_of("dataset", test_set.name), None if vocoder is None else source_of("vocoder", config.vocoder)]
    if sources := sorted({str(plugin.sha256) for plugin in makers if plugin is not None}):
        identity["plugin_sha256"] = sources
    if status != "ok":
        identity |= {"status": status.partition(":")[0], "row": row.label}
    about = {
        "task": config.task,
        "system": row.system,
        "kind": row.kind,
        "dataset": f"{test_set.name}/{test_set.split}@{revision}" + (f", {variant}" if variant else ""),
        "vocoder": vocoder,
        "solver": row.solver,
        "grid": name,
        "grid_values": None if grid is None else grid.tolist(),
        "nfe": row.nfe,
        "noise_seed": row.noise_seed,
        "dtype": identity["dtype"],
        "artefact_sha256": identity["artefact_sha256"],
        **_method_columns(context, row, card),
        **_training_columns(context, row, card),
    }
    folder, untold = context.folder.cell(content_hash(identity)[:16]), tuple((card or {}).get("unknown") or ())
    return Cell(row, folder, identity, about, status, _is_ready(context, row), untold)


def all_cells(context: Context) -> list[Cell]:
    """The cells of all rows, in the order of the plan."""
    return [cell_of(context, row) for row in context.plan.rows.values()]


def row_grid(context: Context, row: Row) -> tuple[Tensor, str]:
    """The row's time grid and its name in tables.

    Raises:
        NotReadyError: It was to be searched in this run and is not there, or is another search's.
    """
    assert row.nfe is not None
    assert row.solver is not None
    if row.search is None:
        spec = list(row.grid) if isinstance(row.grid, tuple) else row.grid
        assert spec is not None
        return grid_for(spec, row.nfe, row.solver), name_of_grid(spec, row.nfe, row.solver)
    found = read_json(context.folder.grid(row.search))
    if found is None:
        reason = context.failure_of(f"search:{row.search}") or "no grid; `imfbench search` or `run` finds one"
        raise NotReadyError(f"failed: {reason}")
    check_grid(context, context.plan.searches[row.search], found)
    grid = make_grid(found["values"])
    # A search that ends where it began has found the uniform grid, and says so.
    known = grid_name(grid)
    return grid, f"{row.search} ({known})" if not known.startswith("[") else row.search


def write_about(cell: Cell, method: Method | None) -> None:
    """Write ``cell.json``: identity and description, what was measured before is kept."""
    present = read_json(cell.folder.identity) or {}
    described = dict(cell.about)
    if method is not None:
        described |= {
            "method": method_name(method),
            "guidance": sampling_guidance(method),
            "trained_guidance": getattr(method, "baked_guidance", 0.0),
            "teacher_nfe": teacher_nfe(method.config.model_dump()),
        }
        described |= {column: None for setting, column in UNTOLD.items() if setting in cell.untold}
    write_json(cell.folder.identity, {**present, **described, "identity": cell.identity, "row": cell.row.label})


def _method_columns(context: Context, row: Row, card: dict[str, Any] | None) -> dict[str, Any]:
    """What the plan knows of the method before its artefact is loaded, or if it never can be."""
    artefact = None if row.artefact is None else context.plan.artefacts[row.artefact]
    if artefact is None or artefact.system is None:
        return {}
    if artefact.ready is not None:  # trained by settings that are not this experiment's
        held = {
            k: v
            for k, v in ((card or {}).get("method_config") or {}).items()
            if k not in ((card or {}).get("unknown") or ())
        }
        return {} if card is None else {"method": card.get("method"), "teacher_nfe": teacher_nfe(held)}
    system = context.config.systems[artefact.system]
    settings = METHODS.get(system.method).Config(**system.config).model_dump()
    return {"method": system.method, "teacher_nfe": teacher_nfe(settings)}


def _is_ready(context: Context, row: Row) -> bool:
    return row.artefact is not None and context.plan.artefacts[row.artefact].ready is not None


def _training_columns(context: Context, row: Row, card: dict[str, Any] | None) -> dict[str, Any]:
    """What is on record of the training: the card's, or the status of one that diverged."""
    record = (card or {}).get("training")
    frames = _frames_per_batch((card or {}).get("config"))
    ready = _is_ready(context, row)
    if row.artefact is not None and not ready:
        folder = Path(context.folder.artefact(row.artefact))
        record = record or read_json(folder / "status.json")
        # What was asked for is what was used, unless it had to fit into memory: the recipe and the card say what it came to.
        frames = frames or _frames_per_batch((read_json(folder / RECIPE) or {}).get("training"))
        frames = frames or settings_of(context.config, context.plan.artefacts[row.artefact]).frames_per_batch
    record = record if isinstance(record, dict) else {}
    cost = {} if ready else record  # seconds and bytes of other hardware would stand beside this run's
    return {
        "train_steps": record.get("steps"),
        "train_frames_per_batch": frames,
        "train_seconds_per_step": cost.get("seconds_per_step"),
        "train_peak_memory": cost.get("peak_memory"),
        "train_peak_memory_kind": cost.get("peak_memory_kind"),
        "train_seed": record.get("seed"),
    }


def _frames_per_batch(settings: Any) -> Any:
    return settings.get("frames_per_batch") if isinstance(settings, dict) else None
