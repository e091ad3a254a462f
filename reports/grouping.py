"""Which rows may stand in one table: one task, one dataset, the same signatures; and what each row is called there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from imfbench.metrics.signature import SignatureError, differences
from imfbench.reports.results import Cell

_ASIDE = (
    "vocoder",
    "guidance",
    "trained_guidance",
    "teacher_nfe",
    "train_seed",  # before the grid: a searched one is its network's own, and of every NFE another
    "grid",
    "solver",
    "dtype",
    "device",
    "threads",
    "workers",
    "noise_seed",
)
_TRAINED = ("trained_guidance", "teacher_nfe", "train_seed", "train_steps", "train_frames_per_batch", "nfe")
_WORDS = {
    "nfe": "NFE",
    "train_steps": "training steps",
    "train_frames_per_batch": "frames per batch",
    "teacher_nfe": "K",
    "trained_guidance": "baked-in guidance",
    "train_seed": "training seed",
    "noise_seed": "noise seed",
    "workers": "processes",
}


@dataclass(frozen=True)
class Group:
    """Rows that may be ranked together.

    Attributes:
        task: Their task.
        dataset: Their dataset.
        cells: The rows, in order.
        part: Which of the groups with this task and dataset, from 1.
        parts: How many there are; above 1 where signatures differ.
        signatures: Metric → signature of all the rows that have one.
        cluster: Column of the utterances whose values are resampled whole in intervals and tests; None is utterances.
    """

    task: str
    dataset: str
    cells: list[Cell]
    part: int = 1
    parts: int = 1
    signatures: dict[str, str] = field(default_factory=dict)
    cluster: str | None = None

    @property
    def title(self) -> str:
        """Task and dataset, and the number of the scoring where there is more than one."""
        return f"{self.task} on {self.dataset}" + (f", scoring {self.part} of {self.parts}" if self.parts > 1 else "")

    @cached_property
    def unlike(self) -> str:
        """A sentence that tells which generated rows are over other utterances than others, so that none is ranked; or ""."""
        generated = [cell for cell in self.cells if cell.ok and not cell.reference]
        ids = [_ids(cell) for cell in generated]
        known = [own for own in ids if own is not None]
        all_known = len(known) == len(ids)
        over: dict[Any, list[Cell]] = {}
        for cell, own in zip(generated, ids, strict=True):
            over.setdefault(own if all_known else int(cell.row["n_expected"]), []).append(cell)
        if len(over) < 2:
            return ""
        told = ", ".join(
            f"{len(own) if all_known else own} ({some(cell.system for cell in cells)})" for own, cells in over.items()
        )
        shared = f"; {len(frozenset.intersection(*known))} are common to all" if all_known else ""
        return (
            f"Nothing is ranked here, for the rows are over different utterances: {told}{shared}. "
            "Tests pair those that both sides have; a ranking needs all rows over the same."
        )


@dataclass(frozen=True)
class Entry:
    """Cells that differ in nothing but the noise seed: one contestant of the paired tests."""

    label: str
    cells: tuple[Cell, ...]

    @property
    def system(self) -> str:
        """Name of the system."""
        return self.cells[0].system

    @property
    def teacher(self) -> bool:
        """Whether it is the teacher's."""
        return self.cells[0].teacher

    @property
    def source(self) -> tuple[str, str]:
        """What made the speech: the system, and of one that several runs have, the weights."""
        cell = self.cells[0]
        apart = cell.row.get("artefact_sha256") or self.system
        return cell.own_name, str(apart) if cell.own_name != self.system else ""

    @property
    def nfe(self) -> int | None:
        """Velocity evaluations per sample."""
        found = self.cells[0].value("nfe")
        return None if found is None else int(found)

    @property
    def name(self) -> str:
        """The label with the NFE."""
        return self.label if self.nfe is None else f"{self.label} at NFE {self.nfe}"

    @property
    def keys(self) -> list[str]:
        """Keys of the cells."""
        return [str(c.row["key"]) for c in self.cells]


def group_cells(cells: Sequence[Cell], cluster: str | None = None) -> list[Group]:
    """Split rows by task and dataset, then so that no two rows of a group have different signatures of one metric.

    A row joins the first group that it does not contradict, the rows with most signatures first; a row without any (a
    failed one) therefore stands in the first group.
    """
    found: list[Group] = []
    for task, dataset in dict.fromkeys((str(c.row["task"]), str(c.row["dataset"])) for c in cells):
        here = [c for c in cells if (str(c.row["task"]), str(c.row["dataset"])) == (task, dataset)]
        parts: list[tuple[dict[str, str], list[Cell]]] = []
        for cell in sorted(here, key=lambda c: -len(c.signatures)):
            own = cell.signatures
            for signatures, members in parts:
                if all(signatures.get(metric, text) == text for metric, text in own.items()):
                    signatures.update(own)
                    members.append(cell)
                    break
            else:
                parts.append((own, [cell]))
        for i, (signatures, members) in enumerate(parts, 1):
            members.sort(key=here.index)
            found.append(Group(task, dataset, members, i, len(parts), signatures, cluster))
    return found


def apart(first: Group, other: Group) -> str:
    """A sentence on what keeps ``other`` from being ranked with ``first``."""
    reasons = []
    for metric in sorted(set(first.signatures) & set(other.signatures)):
        one, two = first.signatures[metric], other.signatures[metric]
        if one == two:
            continue
        try:
            pairs = differences(one, two).items()
        except SignatureError:
            pairs = {"signature": (one, two)}.items()
        reasons += [
            f"{metric}: {part} is {theirs or 'absent'} here and {ours or 'absent'} there"
            for part, (ours, theirs) in pairs
        ]
    return (
        f"These rows carry other signatures than scoring {first.part} ({'; '.join(reasons)}): "
        "their figures are not comparable with it and are ranked apart."
    )


def labels(cells: Iterable[Cell], leave: Iterable[str] = ()) -> dict[str, str]:
    """Cell key → the system's name with as much beside it as tells it from the same system's rows of equal NFE.

    Args:
        cells: The rows of one group.
        leave: Columns that need not be told apart ("noise_seed" when seeds are averaged).
    """
    own = tuple(leave)
    columns = (*(a for a in _ASIDE if a not in own), "artefact_sha256", *(() if own else ("key",)))
    return _told_apart(list(cells), ("nfe",), columns)


def networks(cells: Iterable[Cell]) -> dict[str, Cell]:
    """A name for each network → the first of its rows: of a system's networks the name tells what differs in their training.

    Rows without a network's hash are taken for networks of their own, since nothing says that they are one.
    """
    first: dict[str, Cell] = {}
    for cell in cells:
        first.setdefault(str(cell.row.get("artefact_sha256") or f"of {cell.row['key']}"), cell)
    names = _told_apart(list(first.values()), (), (*_TRAINED, "artefact_sha256", "key"))
    return {names[str(cell.row["key"])]: cell for cell in first.values()}


def _told_apart(cells: Sequence[Cell], known: Sequence[str], columns: Sequence[str]) -> dict[str, str]:
    """Cell key → the system's name with the first of ``columns`` that tell its rows apart; ``known`` ones are told elsewhere."""
    found: dict[str, str] = {}
    for system in dict.fromkeys(c.system for c in cells):
        members = [c for c in cells if c.system == system]
        chosen: list[str] = []
        for column in columns:
            if _clashes(members, [*known, *chosen]) == 0:
                break
            if _clashes(members, [*known, *chosen, column]) < _clashes(members, [*known, *chosen]):
                chosen.append(column)
        for cell in members:
            asides = [f"{_WORDS.get(c, c.removesuffix('_sha256'))} {_short(c, cell.row.get(c))}" for c in chosen]
            found[str(cell.row["key"])] = ", ".join([system, *asides])
    return found


def entries(group: Group) -> list[Entry]:
    """The group's rows that may be tested, those that differ in the noise seed alone together, in the group's order."""
    cells = [c for c in group.cells if c.ok]
    names = labels(cells, leave=("noise_seed",))
    found: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in cells:
        same = tuple(
            repr(cell.row.get(c))
            for c in ("system", *_ASIDE, "steps", "nfe", "grid_values", "artefact_sha256")
            if c != "noise_seed"
        )
        # Cells that share the noise seed as well are no repetitions of each other: they stay apart.
        again = 0
        while any(c.row.get("noise_seed") == cell.row.get("noise_seed") for c in found.get((*same, again), [])):
            again += 1
        found.setdefault((*same, again), []).append(cell)
    return [Entry(names[str(members[0].row["key"])], tuple(members)) for members in found.values()]


def teacher_at_full_nfe(found: Sequence[Entry], beside: Entry | None = None) -> Entry | None:
    """The teacher's entry of most NFE, best with the vocoder and number type of ``beside``; None without a teacher.

    Of the teachers of several runs that of ``beside``'s own run counts, if it has one: from it the student has learned, and
    on its machine it was timed.
    """
    teachers = [e for e in found if e.teacher and e.nfe is not None]
    if not teachers:
        return None
    if beside is not None:
        run = beside.cells[0].row.get("run")
        teachers = [e for e in teachers if e.cells[0].row.get("run") == run] or teachers
    most = max(e.nfe or 0 for e in teachers)
    full = [e for e in teachers if e.nfe == most]

    def likeness(entry: Entry) -> int:
        return (
            sum(entry.cells[0].row.get(c) == beside.cells[0].row.get(c) for c in ("vocoder", "dtype")) if beside else 0
        )

    return max(full, key=likeness)


def _ids(cell: Cell) -> frozenset[str] | None:
    return None if cell.utterances is None else frozenset(map(str, cell.utterances["id"]))


def some(names: Iterable[str]) -> str:
    """The first three different names, and how many more there are."""
    every = list(dict.fromkeys(names))
    return ", ".join(every[:3]) + (f" and {len(every) - 3} more" if len(every) > 3 else "")


def _clashes(cells: Sequence[Cell], columns: Sequence[str]) -> int:
    return len(cells) - len({tuple(repr(c.row.get(n)) for n in columns) for c in cells})


def _short(column: str, value: Any) -> str:
    text = "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    # Of a key its hash, not its folder; a name that were cut would no longer tell its row from others.
    return text.rpartition("/")[2][:8] if column in ("artefact_sha256", "key") and len(text) > 24 else text
