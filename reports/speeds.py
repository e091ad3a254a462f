"""Where a row was timed: seconds of other hardware, or beside other work, do not compare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from imfbench.reports.results import Cell


def speed_setting(cell: Cell) -> str:
    """Device with its model, threads, processes side by side and batch size of a cell, in words."""
    threads, batch, workers = (cell.row.get(name) for name in ("threads", "batch", "workers"))
    words = [str(cell.row.get("device") or "unknown device")]
    # What is not known of two runs need not be the same.
    hardware = cell.row.get("hardware") or ("run" in cell.row and f"that of {cell.row['run']}")
    words[0] += f" ({hardware})" if hardware else ""
    words += [f"{threads} thread{'s' * (threads != 1)}"] if threads else []
    words += [f"{workers} processes at once"] if (workers or 1) > 1 else []
    words += [f"batch {batch}"] if batch else []
    return ", ".join(words)


def timed(cell: Cell) -> bool:
    """Whether the row has a real-time factor."""
    return cell.value("rtf_total") is not None


def pinned(cell: Cell) -> bool:
    """Whether the row keeps its place at the top of a table."""
    return cell.reference or cell.teacher


def usual_setting(cells: Sequence[Cell]) -> str:
    """The setting of most rows that were timed and may be sorted; "" if none was timed."""
    found = [c for c in cells if timed(c)]
    counted = Counter(speed_setting(c) for c in [c for c in found if not pinned(c)] or found)
    return counted.most_common(1)[0][0] if counted else ""


def unlike_most(setting: str, usual: str) -> str:
    """A footnote for a row that was timed otherwise than most."""
    return f"timed on {setting}, unlike most rows ({usual}): the speeds do not compare"
