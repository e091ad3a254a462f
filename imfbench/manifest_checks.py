"""What can be wrong with a manifest's rows and a dataset's options, in words."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

from imfbench.data import DatasetError
from imfbench.manifest_rows import Row


def kind_of(reason: str, row: Row) -> str:
    """A reason without the file's name and its own numbers, so that it can be counted."""
    reason = reason.replace(f" {row.audio}", "").removeprefix(str(row.audio)).removeprefix(row.id)
    return re.split(r"[(:,\d]", reason.strip(" :"))[0].strip()


def unknown_characters(rows: Sequence[Row], known: Collection[str]) -> dict[int, list[str]]:
    """Number of a row → characters of its text that a vocabulary has not, for the rows that have such.

    Chinese characters are not looked up, since they are read as syllables, and neither are marks that F5-TTS replaces.
    """
    found = {}
    for i, row in enumerate(rows):
        strange = [c for c in dict.fromkeys(row.text) if c not in known and not _replaced(c)]
        if strange:
            found[i] = strange
    return found


def told_of(path: Path, rows: Sequence[Row], strange: dict[int, list[str]]) -> str:
    """Which characters are unknown, and what to do."""
    first, signs = next(iter(strange.items()))
    every = sorted({sign for found in strange.values() for sign in found})
    return (
        f"{path}: {len(strange)} of {len(rows)} texts hold characters that the network's vocab.txt has not "
        f"({' '.join(map(repr, every[:12]))}), the first {rows[first].id!r} with {' '.join(map(repr, signs))}. Write these texts "
        "otherwise, or set train_data.options.unknown to skip (leave them out) or space (read a space there, as F5-TTS does)"
    )


def _replaced(character: str) -> bool:
    return len(character) == 1 and ("\u3100" <= character <= "\u9fff" or character in "“”‘’;")


def paths_of(given: str | Path | Sequence[str | Path]) -> list[Path]:
    """One path or several, as a list."""
    return [Path(path).expanduser() for path in ([given] if isinstance(given, str | Path) else given)]


def pair_of(option: str, value: Sequence[float], low: float, high: float) -> tuple[float, float]:
    """The smaller and the larger number of an option.

    Raises:
        DatasetError: They are not two such numbers within ``low`` to ``high``.
    """
    try:
        least, most = map(float, value)
    except (TypeError, ValueError):
        raise DatasetError(f"the option `{option}` is two numbers, not {value!r}") from None
    if not low <= least <= most <= high:
        raise DatasetError(
            f"the option `{option}` is a smaller and a larger number from {low:g} to {high:g}, not {value!r}"
        )
    return least, most
