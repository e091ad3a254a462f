"""All utterances of all rows as columns of numbers and an index of texts: what the utterance browser reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from imfbench.reports.columns import qualities
from imfbench.reports.grouping import labels
from imfbench.reports.page.sources import Table

_DECIMALS = 4


class Texts:
    """Each text once."""

    def __init__(self) -> None:
        self.all: list[str] = []
        self._at: dict[str, int] = {}

    def add(self, value: Any) -> int:
        """The index of a text; −1 for none."""
        if not isinstance(value, str) or not value:
            return -1
        if value not in self._at:
            self._at[value] = len(self.all)
            self.all.append(value)
        return self._at[value]


def browser(tables: Sequence[Table]) -> dict[str, Any]:
    """The data of the browser.

    Returns:
        ``figures``: name, label, scale, decimals and direction of each score; ``texts``: every text once; ``rows``: the cells,
        with their name, table and columns: ``id``, ``text``, ``said`` (the transcript), ``why`` (status, if not ok, or notes) as
        indices of texts, ``s`` seconds, and a list for each figure.
    """
    texts = Texts()
    shown = {q.name: q for t in tables for q in qualities([c.row for c in t.group.cells])}
    cells = [(i, t, c, c.utterances) for i, t in enumerate(tables) for c in t.group.cells if c.utterances is not None]
    kept = [q for q in shown.values() if any(q.per_utterance in frame for *_, frame in cells)]
    rows = []
    for i, table, cell, frame in cells:
        nfe = cell.value("nfe")
        name = labels(table.group.cells)[str(cell.row["key"])]
        rows.append(
            {
                "name": name + ("" if nfe is None else f", {nfe:g} NFE"),
                "table": i,
                "key": str(cell.row["key"]),
                "id": _indices(frame, "id", texts),
                "text": _indices(frame, "text", texts),
                "speaker": _indices(frame, "speaker", texts),
                "said": _indices(frame, "hypothesis", texts),
                "why": [texts.add(why) for why in _reasons(frame)],
                "s": _numbers(frame, "seconds", 2),
                "figures": [_numbers(frame, q.per_utterance, _DECIMALS) for q in kept],
            }
        )
    figures = [[q.name, q.label, q.scale, q.decimals, q.better] for q in kept]
    return {"figures": figures, "tables": [t.group.title for t in tables], "texts": texts.all, "rows": rows}


def _indices(frame: pd.DataFrame, name: str, texts: Texts) -> list[int]:
    return [texts.add(value) for value in frame[name]] if name in frame else [-1] * len(frame)


def _numbers(frame: pd.DataFrame, name: str, decimals: int) -> list[float | int | None]:
    if name not in frame:
        return [None] * len(frame)
    found: list[float | int | None] = []
    for value in pd.to_numeric(frame[name], errors="coerce").astype(float):
        rounded = round(value, decimals) if math.isfinite(value) else None
        found.append(int(rounded) if rounded is not None and rounded == int(rounded) else rounded)
    return found


def _reasons(frame: pd.DataFrame) -> list[str]:
    status = frame["status"] if "status" in frame else pd.Series("ok", frame.index)
    reason = frame["reason"] if "reason" in frame else pd.Series(None, frame.index)
    notes = frame["notes"] if "notes" in frame else pd.Series(None, frame.index)
    found = []
    for s, r, n in zip(status, reason, notes, strict=True):
        found.append(
            n if s == "ok" and isinstance(n, str) else "" if s == "ok" else r if isinstance(r, str) else str(s)
        )
    return found
