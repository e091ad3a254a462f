"""The table of claims: on the terminal, as claims.md with links to the evidence, and as claims.json."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from imfbench.claims.machines import in_words
from imfbench.claims.node import Node
from imfbench.claims.run import Outcome, Request
from imfbench.claims.scale import scale_of
from imfbench.claims.verdicts import NOT_SUPPORTED, NOT_TESTABLE, SUPPORTED, UNDERPOWERED
from imfbench.config_file import ConfigError
from imfbench.pipeline.manifest import git_revision, now
from imfbench.store import plain, read_json, write_json, write_text

Record = dict[str, Any]


def records(request: Request, outcome: Outcome, command: str) -> list[Record]:
    """claims.json: a list of claims, each with ``verdict``."""
    measured = request.measurements()
    made = {"command": command, "date": now(), "judged_on": outcome.hardware, "revision": git_revision()}
    found = []
    for claim, node in outcome.nodes:
        scale = scale_of(claim, node, request.budget, outcome.experiments, outcome.evidence, measured)
        decisive = node.deciding()
        tested = decisive.tested
        parts = [child.record() for child in node.children]
        evidence = list(dict.fromkeys(path for leaf in node.leaves() for path in leaf.evidence))
        found.append({
            "number": claim.number, "title": claim.title, "sentence": claim.sentence, "published": claim.published,
            "verdict": node.standing.verdict, "reason": node.reason,
            "statistic": sorted({part.test for part in claim.parts}),
            "decided_by": None if tested is None else _path_of(node, decisive),
            "figure": decisive.about.get("figure"),
            "estimate": getattr(tested, "estimate", None),
            "interval": None if tested is None else [tested.low, tested.high],
            "n": getattr(tested, "n", None),
            "training_seeds": node.training_seeds,
            "margin": getattr(tested, "margin", None),
            "minimum_detectable": getattr(tested, "minimum_detectable", None),
            "p_support": node.standing.p_support, "p_refute": node.standing.p_refute,
            "scale": {**scale, **made}, "evidence": evidence, "note": claim.note or None, "parts": parts,
        })  # fmt: skip
    return [dict(plain(record)) for record in found]


def _path_of(node: Node, leaf: Node) -> str:
    """The names from a claim's part down to a test."""
    for child in node.children:
        if child is leaf:
            return child.name
        if leaf in child.leaves():
            return " · ".join(filter(None, (child.name, _path_of(child, leaf))))
    return ""


def write(request: Request, outcome: Outcome, command: str, into: Path | None = None) -> list[Path]:
    """Write claims.json and claims.md into the folder of the runs; claims that were not chosen stay there as they were judged.

    Args:
        request: What was asked for.
        outcome: What came of it.
        command: As it was typed.
        into: Another folder; links lead to the runs all the same.

    Raises:
        ConfigError: The folder has verdicts made from evidence of claims for which this machine has none and can make none.
    """
    folder = into or request.out
    found = records(request, outcome, command)
    if request.stopped() and (lost := _decided(folder / "claims.json") & _not_testable(found)):
        raise ConfigError(
            f"{folder / 'claims.json'} has verdicts of claim {', '.join(map(str, sorted(lost)))}, whose runs are not here and "
            f"cannot be made here: {request.stopped()} The file is left as it is; write elsewhere with --out"
        )
    others = {claim.number for claim in request.claims.claims} - {record["number"] for record in found}
    present: list[Record] = read_json(folder / "claims.json") or []
    kept = [one for one in present if one["number"] in others and one["scale"]["budget"] == request.budget]
    found = sorted((*found, *kept), key=lambda one: one["number"])
    below = Path(os.path.relpath(request.out, folder))
    write_json(folder / "claims.json", found)
    write_text(folder / "claims.md", markdown(found, below, request.out, [one["number"] for one in kept]))
    return [folder / "claims.json", folder / "claims.md"]


def _decided(path: Path) -> set[int]:
    """Numbers of the claims that a file has a verdict of which was made from evidence."""
    present = read_json(path) or []
    return {one["number"] for one in present if one.get("verdict") in (SUPPORTED, NOT_SUPPORTED, UNDERPOWERED)}


def _not_testable(found: list[Record]) -> set[int]:
    return {record["number"] for record in found if record["verdict"] == NOT_TESTABLE}


def markdown(found: list[Record], below: Path, out: Path, before: Collection[int] = ()) -> str:
    """claims.md.

    Args:
        found: The records.
        below: From the file to the folder of the runs, for links.
        out: That folder: a link is made to what is there.
        before: Numbers of claims that were not judged with the others.
    """
    scale: Record = next((record["scale"] for record in found if record["number"] not in before), {})
    kept = [str(record["number"]) for record in found if record["number"] in before]
    machines = " and ".join(dict.fromkeys(in_words(one) for record in found for one in record["scale"]["hardware"]))
    lines = [
        "# Claims", "",
        f"Made by `{scale.get('command')}` on {str(scale.get('date'))[:10]}, revision "
        f"{str(scale.get('revision') or 'unknown')[:12]}, by what was run on {machines or 'no machine yet'}. What each verdict "
        "means and how it is reached: docs/claims.md."
        + (f" Claims {', '.join(kept)} stand as they were judged before (`claims.json` has when)." if kept else ""), "",
        "| # | claim | verdict | decided by | estimate [95 %] | margin | could be seen | n | seeds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    lines += [_row(record) for record in found]
    for record in found:
        lines += ["", f"## {record['number']}. {record['title']}: {record['verdict']}", "", record["reason"] + ".", ""]
        lines += [f"- **The paper** (in our words): {record['sentence']}", f"- **Published**: {record['published']}"]
        lines += [f"- **Scale**: {record['scale']['text']}"]
        lines += [f"- **Note**: {record['note']}"] if record["note"] else []
        if record["parts"]:
            lines += ["", "| part | verdict | estimate [95 %] | margin | could be seen | n | why | evidence |"]
            lines += ["| --- | --- | --- | --- | --- | --- | --- | --- |"]
            for part in record["parts"]:
                lines += _part_rows(part, "", below, out)
    return "\n".join(lines) + "\n"


def _row(record: Record) -> str:
    cells = [
        record["number"],
        record["title"],
        f"**{record['verdict']}**",
        record["decided_by"] or "–",
        _estimate(record),
    ]
    cells += [_number(record["margin"]), _number(record["minimum_detectable"]), record["n"] or "–"]
    return "| " + " | ".join(_cell(c) for c in (*cells, record["training_seeds"] or "–")) + " |"


def _part_rows(part: Record, above: str, below: Path, out: Path) -> list[str]:
    name = " · ".join(filter(None, (above, part["name"])))
    told = name if part["counts"] else f"{name} (beside the claim)"
    tested = "estimate" in part
    cells = [told, part["verdict"], _estimate(part) if tested else "–", _number(part.get("margin")) if tested else "–"]
    cells += [_number(part.get("minimum_detectable")) if tested else "–", part.get("n", "–"), part["reason"]]
    links = [
        f"[{i}]({(below / path).as_posix()})"
        for i, path in enumerate(part.get("evidence", ()), 1)
        if (out / path).exists()
    ]
    rows = ["| " + " | ".join(_cell(c) for c in (*cells, " ".join(links) or "–")) + " |"]
    for child in part.get("parts", ()):
        rows += _part_rows(child, name, below, out)
    return rows


def _estimate(record: Record) -> str:
    low, high = record["interval"] if record.get("interval") else (record.get("low"), record.get("high"))
    if record.get("estimate") is None:
        return "–"
    return _number(record["estimate"]) + ("" if low is None or high is None else f" [{_number(low)}, {_number(high)}]")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def show(request: Request, outcome: Outcome) -> None:
    """Print the table."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    colours = {"supported": "green", "not supported": "red", "underpowered": "yellow", "no evidence": "magenta"}
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("#", "claim", "verdict", "why"):
        table.add_column(title, overflow="fold")
    for claim, node in outcome.nodes:
        verdict = node.standing.verdict
        colour = colours.get(verdict)
        table.add_row(
            str(claim.number),
            escape(claim.title),
            f"[{colour}]{verdict}[/{colour}]" if colour else verdict,
            escape(node.reason),
        )
    Console().print(table, highlight=False)


def plot_lattice(rows: list[Record], settings: Any, path: Path) -> None:
    """A picture of the score on the lattice: over both inner points at three steps, else along each."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    from imfbench.store import atomic

    points = np.array([row["grid"] for row in rows]) / settings.points
    costs = np.array([np.mean(list(row["costs"].values())) for row in rows])
    figure, axes = plt.subplots(figsize=(5, 4))
    if points.shape[1] == 2:
        shown = axes.tricontourf(points[:, 0], points[:, 1], costs, levels=12, cmap="viridis_r")
        axes.plot(points[:, 0], points[:, 1], "k.", markersize=3)
        axes.plot(*points[costs.argmin()], "r*", markersize=12, label="lowest")
        axes.set(xlabel="first inner point", ylabel="second inner point")
        figure.colorbar(shown, label=f"cost ({settings.score}), lower is better")
        axes.legend()
    else:
        for i in range(points.shape[1]):
            axes.plot(points[:, i], costs, "o", label=f"inner point {i + 1}")
        axes.set(xlabel="time", ylabel=f"cost ({settings.score}), lower is better")
        axes.legend()
    figure.tight_layout()
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=120)
    plt.close(figure)
