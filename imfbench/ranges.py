"""Ranges of numbers as a configuration writes them: ``{range: [first, last, count]}``, with ``log: true`` geometric."""

from __future__ import annotations

import math
from typing import Any

LONGEST = 10_000
HOW = "write {range: [first, last]} for all whole numbers from first to last, or {range: [first, last, count]}"


class RangeError(ValueError):
    """A range that holds nothing, too much, or other things than numbers."""


def is_range(value: Any) -> bool:
    """Whether a value is meant as a range."""
    return isinstance(value, dict) and "range" in value and set(value) <= {"range", "log"}


def written_out(value: Any, whole: bool, splice: bool) -> Any:
    """The numbers of a range; of a list that holds ranges, with them in their places; other values as they are.

    Args:
        value: As written.
        whole: Where whole numbers are expected: the numbers are rounded, and equal ones are one.
        splice: Whether a list is one of numbers, in which ranges may stand.

    Raises:
        RangeError: The range is empty, longer than ``LONGEST``, or not made of numbers.
    """
    if is_range(value):
        return numbers(value["range"], value.get("log", False), whole)
    if splice and isinstance(value, list) and any(map(is_range, value)):
        parts = [numbers(e["range"], e.get("log", False), whole) if is_range(e) else [e] for e in value]
        return [number for part in parts for number in part]
    return value


def numbers(ends: Any, log: Any, whole: bool) -> list[float]:
    """The numbers of a range, both ends included, descending if the last is the smaller one.

    Args:
        ends: [first, last] or [first, last, count].
        log: Whether neighbours have equal ratios instead of equal differences.
        whole: Round to whole numbers and leave out repeated ones.

    Raises:
        RangeError: As for ``written_out``.
    """
    if isinstance(ends, list):  # YAML takes 1e-4, without a point, for a text
        ends = [_number(end) for end in ends]
    real = isinstance(ends, list) and all(isinstance(end, int | float) and not isinstance(end, bool) for end in ends)
    if not real or len(ends) not in (2, 3) or not isinstance(log, bool):
        empty = "an empty range: " if ends == [] else ""
        raise RangeError(f"{empty}{HOW}, with log: true for equal ratios (found {ends!r})")
    first, last = ends[:2]
    if len(ends) == 2:
        if not (isinstance(first, int) and isinstance(last, int)):
            raise RangeError(f"between {first} and {last} there is no telling which numbers: {HOW}")
        if log:
            raise RangeError(f"a range of equal ratios needs a count: {HOW}")
        if last < first:
            raise RangeError(f"an empty range: no whole number is from {first} to {last}; {HOW}")
        count: Any = last - first + 1
    else:
        count = ends[2]
    if not isinstance(count, int) or count < 1:
        raise RangeError(f"an empty range: its count is {count!r}; {HOW}")
    if not (math.isfinite(first) and math.isfinite(last)):
        raise RangeError(f"a range needs finite ends (found {first} and {last}): {HOW}")
    if count > LONGEST:
        raise RangeError(f"a range of {count} values; {LONGEST} are the most")
    if log and not (first > 0 and last > 0):
        raise RangeError(f"equal ratios need ends above 0 (found {first} and {last})")
    found = [_between(first, last, i / max(1, count - 1), log) for i in range(count)]
    if count > 1:
        found[-1] = last
    if whole or len(ends) == 2:
        return list(dict.fromkeys(round(value) for value in found))
    return found


def _number(end: Any) -> Any:
    try:
        return float(end) if isinstance(end, str) else end
    except ValueError:
        return end


def _between(first: float, last: float, share: float, log: bool) -> float:
    value = first * (last / first) ** share if log else first + (last - first) * share
    return first if share == 0 else float(f"{value:.12g}")  # .3, not .30000000000000004
