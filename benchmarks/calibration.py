"""How often the comparisons of a leaderboard are wrong: A/A comparisons of one system, and planted differences.

    .venv/bin/python benchmarks/calibration.py docs/results/calibration/utterances.csv --out docs/results/calibration

The table has the scores of one real system from two noise seeds (``--collect RUN`` makes it of a run with two ``noise_seeds``).
Each comparison is of a new test set: as many utterances as the table has are drawn with replacement, and for each of them a coin
decides which seed is system A and which is B. So A and B are the same system, and every difference that is shown is a false
alarm. The comparison is the leaderboard's own, Holm's correction over its figures included.

Then a true difference of ``--planted`` times the minimum detectable one is given to one figure of A, each figure in its turn: a
constant for SIM, MOS and F0 CV; for WER further words of the reference that are lost at random, so that edits stay whole numbers
and the spread grows with them. For the constants the minimum detectable difference is that of the table itself, one seed against
the other. For WER it is that of a comparison with the lost words in it, which is larger: the size is where both agree, and so it
is more than ``--planted`` times what the table itself detects.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from imfbench.metrics import stats
from imfbench.reports.comparison import ALPHA, Comparison, between_rows
from imfbench.reports.grouping import Group, entries
from imfbench.reports.results import Cell

EDITS = ["substitutions", "deletions", "insertions"]
KEPT = ["id", "speaker", "noise_seed", *EDITS, "reference_words", "wer", "sim", "mos_distillmos", "f0cv"]
SIGNATURES = {"wer": "wer-v1|agg:corpus", "sim": "sim-v1", "mos": "mos-v1", "f0cv": "f0cv-v1"}
FIGURES = {"wer": "WER", "sim": "SIM-o", "mos_distillmos": "MOS", "f0cv": "F0 CV"}
MOST_FALSE = 0.064
"""What 1,000 comparisons of a test that is wrong in 5 % of them stay below with a probability of 97.5 %."""
LEAST_FOUND = 0.90


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="CSV file of scores: a row for each utterance and noise seed")
    parser.add_argument("--collect", type=Path, metavar="RUN", help="write the table from this run folder first")
    parser.add_argument("--comparisons", type=int, default=1000)
    parser.add_argument("--planted", type=float, default=2.0, help="in minimum detectable differences")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder of calibration.md and calibration.json")
    arguments = parser.parse_args()
    if arguments.collect:
        collect(arguments.collect).to_csv(arguments.table, index=False)
    rows = pd.read_csv(arguments.table)
    found = calibrate(rows, arguments.comparisons, arguments.planted, arguments.seed)
    text = as_markdown(found)
    print(text)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "calibration.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        (arguments.out / "calibration.md").write_text(text + "\n", encoding="utf-8")
    sys.exit(0 if passed(found) else 1)


def collect(run: Path) -> pd.DataFrame:
    """The scores of a run whose rows differ in the noise seed alone."""
    tables = []
    for summary in sorted(run.glob("cells/*/summary.json")):
        seed = json.loads(summary.read_text(encoding="utf-8"))["noise_seed"]
        tables.append(pd.read_parquet(summary.parent / "utterances.parquet").assign(noise_seed=seed)[KEPT])
    return pd.concat(tables).sort_values(["id", "noise_seed"], ignore_index=True)


def calibrate(rows: pd.DataFrame, comparisons: int, planted: float, seed: int) -> dict[str, Any]:
    """False alarms of A/A comparisons, and the share of planted differences that are found.

    Args:
        rows: Two noise seeds of each utterance.
        comparisons: How many test sets are drawn, of each kind.
        planted: The true difference, in minimum detectable ones.
        seed: Of all that is drawn.
    """
    sides = [side.set_index("id").dropna() for _, side in rows.groupby("noise_seed")]
    if len(sides) != 2:
        raise SystemExit(f"the table has {len(sides)} noise seeds, two are needed")
    both = sides[0].index.intersection(sides[1].index)
    first, second = (side.loc[both] for side in sides)
    n, generator = len(both), np.random.default_rng(seed)
    sizes = {figure: planted_size(first, second, figure, planted, generator) for figure in FIGURES}
    alarms = {kind: dict.fromkeys(FIGURES, 0) for kind in ("verdict", "p", "interval")}
    any_alarm, hits, tries = 0, dict.fromkeys(FIGURES, 0), dict.fromkeys(FIGURES, 0)
    for i in range(comparisons):
        a, b = draw(first, second, n, generator)
        tests = compare(a, b)
        any_alarm += any(test.different for test in tests.values())
        for figure, test in tests.items():
            alarms["verdict"][figure] += test.different
            alarms["p"][figure] += number(test.p) < ALPHA
            alarms["interval"][figure] += not number(test.low) <= 0 <= number(test.high)
        figure = list(FIGURES)[i % len(FIGURES)]
        # The other figures are as before, and so are their tests: only this one is made anew, and Holm's correction.
        test = compare(plant(a, figure, sizes[figure], generator), b, [figure])[figure]
        others = [number(tests[other].p) for other in FIGURES if other != figure]
        hits[figure] += bool(stats.holm([number(test.p), *others])[0] < ALPHA and number(test.difference) > 0)
        tries[figure] += 1
    return {
        "utterances": n,
        "comparisons": comparisons,
        "seed": seed,
        "planted_in_minimum_detectable": planted,
        "false_alarms_any_figure": any_alarm / comparisons,
        "figures": {
            figure: {
                **{f"false_alarms_{kind}": counts[figure] / comparisons for kind, counts in alarms.items()},
                "planted": sizes[figure],
                "found": hits[figure] / tries[figure],
            }
            for figure in FIGURES
        },
        "found": sum(hits.values()) / comparisons,
    }


def number(value: float | None) -> float:
    """A figure of a test that could be made."""
    assert value is not None
    return value


def detectable(first: pd.DataFrame, second: pd.DataFrame, figure: str) -> float:
    """The minimum detectable difference of a comparison of the two sides, by its spread alone."""
    if figure != "wer":
        return number(stats.minimum_detectable(first[figure] - second[figure]))
    difference = first[EDITS].sum(axis=1) - second[EDITS].sum(axis=1)
    return number(stats.minimum_detectable(difference / first["reference_words"].mean()))


def planted_size(
    first: pd.DataFrame, second: pd.DataFrame, figure: str, planted: float, generator: np.random.Generator
) -> float:
    """A difference that is ``planted`` times the minimum detectable one *of the comparison in which it stands*.

    Words that get lost at random bring a spread of their own, so that the comparison with them detects less than the one without:
    the size is where both agree. A shift of all scores brings none.
    """
    size = planted * detectable(first, second, figure)
    for _ in range(20 if figure == "wer" else 0):
        trials = [detectable(plant(first, figure, size, generator), second, figure) for _ in range(50)]
        size = planted * float(np.mean(trials))
    return size


def draw(
    first: pd.DataFrame, second: pd.DataFrame, n: int, generator: np.random.Generator
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Another test set of ``n`` utterances, and a coin for each that says which side is A."""
    chosen, coins = generator.integers(0, n, n), generator.integers(0, 2, n).astype(bool)
    ids = pd.Index([f"drawn{i:04d}" for i in range(n)], name="id")
    both = pd.concat([first, second])
    a, b = (np.where(coins == side, chosen, chosen + len(first)) for side in (True, False))
    return both.iloc[a].set_index(ids), both.iloc[b].set_index(ids)


def plant(side: pd.DataFrame, figure: str, size: float, generator: np.random.Generator) -> pd.DataFrame:
    """The side with a true difference in one figure: ``size``, on average."""
    if figure != "wer":
        return side.assign(**{figure: side[figure] + size})
    lost = generator.binomial(side["reference_words"].astype(int), size)
    return side.assign(deletions=side["deletions"] + lost)


def compare(a: pd.DataFrame, b: pd.DataFrame, figures: Sequence[str] = tuple(FIGURES)) -> dict[str, Comparison]:
    """The leaderboard's comparison of A with B, by figure."""
    cells = []
    for name, side in (("A", a), ("B", b)):
        row = {"key": name, "system": name, "kind": "recordings", "task": "speech", "dataset": "drawn", "status": "ok"}
        table = side.reset_index().drop(columns="noise_seed")
        cells.append(Cell({**row, **dict.fromkeys(FIGURES, 0.0), "signatures": SIGNATURES}, table))
    group = Group("speech", "drawn", cells, signatures=SIGNATURES)
    first, second = entries(group)
    return {test.column: test for test in between_rows(group, [(first, second)], figures)}


def passed(found: dict[str, Any]) -> bool:
    """Whether false alarms and planted differences are as they should be."""
    least = min([found["found"], *(figure["found"] for figure in found["figures"].values())])
    return bool(found["false_alarms_any_figure"] <= MOST_FALSE and least >= LEAST_FOUND)


def as_markdown(found: dict[str, Any]) -> str:
    """The table of the page."""
    lines = [
        "| figure | false alarms: verdict | p < .05 | interval without 0 | planted difference | found |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, title in FIGURES.items():
        row = found["figures"][name]
        shares = [f"{100 * row[f'false_alarms_{kind}']:.1f} %" for kind in ("verdict", "p", "interval")]
        size = f"{100 * row['planted']:.1f} points" if name == "wer" else f"{row['planted']:.3f}"
        lines.append(f"| {title} | {' | '.join(shares)} | {size} | {100 * row['found']:.1f} % |")
    lines.append(f"| any of the four | **{100 * found['false_alarms_any_figure']:.1f} %** | – | – | – | – |")
    each = found["comparisons"] // len(FIGURES)
    lines.append(f"| mean of the four, {each} draws of each | – | – | – | – | **{100 * found['found']:.1f} %** |")
    lines += [
        "",
        f"{found['comparisons']} comparisons of {found['utterances']} utterances, seed {found['seed']}; planted: "
        f"{found['planted_in_minimum_detectable']:g} times the minimum detectable difference, of WER with the words lost that "
        "are planted. Asked for: at most "
        f"{100 * MOST_FALSE:.1f} % false alarms of any figure, at least {100 * LEAST_FOUND:.0f} % found of each: "
        + ("**kept**." if passed(found) else "**not kept**."),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
