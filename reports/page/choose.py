"""Which utterances are worth listening to: by chance, those that were heard worst, those that divide the systems."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pandas as pd

from imfbench.reports.results import Cell

RANDOM, WORST, DIVIDED = "at random", "worst by WER", "largest disagreement between systems"


def choose(cells: Sequence[Cell], number: int, seed: int) -> dict[str, list[str]]:
    """Utterances of one table and why each was chosen, in the order of the test set.

    A third each: at random, the largest mean WER over generated rows, the largest spread over them (of WER, then of SIM-o, then
    of MOS, so that ties are broken by what was measured). An utterance may be there for several reasons.

    Args:
        cells: The rows; those without utterances take no part.
        number: At most so many utterances.
        seed: Of the random ones.
    """
    tables = [cell.utterances for cell in cells if cell.utterances is not None]
    ids = list(dict.fromkeys(str(one) for table in tables for one in table["id"]))
    generated = [
        cell.utterances.drop_duplicates("id").set_index("id")
        for cell in cells
        if cell.utterances is not None and not cell.reference
    ]
    scores = {name: _scores(generated, name) for name in ("wer", "sim", *_opinions(generated))}
    spreads = pd.DataFrame({name: s.max(axis=1) - s.min(axis=1) for name, s in scores.items() if s.shape[1] > 1})
    worst = scores["wer"].mean(axis=1)
    orders = {
        RANDOM: random.Random(seed).sample(ids, len(ids)),
        WORST: [str(one) for one in worst[worst > 0].sort_values(ascending=False, kind="stable").index],
        DIVIDED: [str(one) for one in _by_spread(spreads)],
    }
    found: dict[str, list[str]] = {}
    shares = dict.fromkeys(orders, number // 3)
    shares[RANDOM] = number - 2 * (number // 3)
    for why, share in shares.items():
        for one in orders[why][:share]:
            found.setdefault(one, []).append(why)
    for one in orders[RANDOM]:  # what several reasons chose leaves room
        if len(found) >= min(number, len(ids)):
            break
        found.setdefault(one, [RANDOM])
    return {one: found[one] for one in ids if one in found}


def _opinions(tables: Sequence[pd.DataFrame]) -> list[str]:
    names = dict.fromkeys(str(c) for table in tables for c in table.columns if str(c).startswith("mos_"))
    return [name for name in names if name.count("_") == 1]


def _scores(tables: Sequence[pd.DataFrame], name: str) -> pd.DataFrame:
    """Utterances × rows."""
    found = {i: pd.to_numeric(t[name], errors="coerce") for i, t in enumerate(tables) if name in t.columns}
    return pd.DataFrame(found, dtype=float)


def _by_spread(spreads: pd.DataFrame) -> list[str]:
    columns = [name for name in spreads.columns if spreads[name].notna().any()]
    if not columns:
        return []
    return list(spreads.sort_values(columns, ascending=False, kind="stable").index)
