"""The main table in LaTeX, for papers: ``booktabs``, the best row bold, ties marked, intervals, and how it was scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from imfbench.reports.columns import qualities
from imfbench.reports.comparison import Ranking
from imfbench.reports.grouping import Group, labels
from imfbench.reports.main_table import contested, resampled
from imfbench.reports.results import Cell

_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
}  # fmt: skip

_MARKS = {"tie": r"$\approx$", "untested": "?"}


def escaped(text: str) -> str:
    """Plain text as LaTeX."""
    return "".join(_SPECIAL.get(character, character) for character in text)


def latex(
    groups: Sequence[Group], rankings: Mapping[str, Sequence[Ranking]], told: Mapping[str, Sequence[str]] | None = None
) -> str:  # fmt: skip
    """A ``table`` for each group.

    Args:
        groups: Rows that may stand in one table.
        rankings: Group title → the ranking of each of its figures.
        told: Group title → what must be said of the table besides, in its caption.
    """
    return "\n".join(_table(g, rankings.get(g.title, ()), (told or {}).get(g.title, ())) for g in groups)


def _table(group: Group, rankings: Sequence[Ranking], told: Sequence[str]) -> str:
    shown = [
        q for q in qualities([c.row for c in group.cells]) if any(c.value(q.name) is not None for c in group.cells)
    ]
    sampled = any(c.row.get("nfe") is not None for c in group.cells)
    names = labels(group.cells)
    lines = []
    sources: dict[str, int] = {}
    for cell in group.cells:
        row = [escaped(names[str(cell.row["key"])])]
        if cell.reported:
            row[0] += _mark(sources.setdefault(cell.reported, len(sources) + 1))
        row += [str(cell.row.get("nfe") or "--")] if sampled else []
        for q in shown:
            mark = next((r.mark(str(cell.row["key"])) for r in rankings if r.column == q.name), "")
            row.append(_figure(cell, q.name, q.scale, q.decimals, mark))
        known = not cell.reported or cell.row["n_expected"]
        lines.append(" & ".join([*row, _scored(cell) if known else "--"]) + r" \\")
    header = ["System", *(["NFE"] if sampled else []), *(_directed(q.label, q.better) for q in shown), "$n$"]
    signatures = "; ".join(f"{metric}: {text}" for metric, text in sorted(group.signatures.items()))
    return "\n".join(
        [
            r"\begin{table}",
            r"  \centering",
            f"  \\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
            r"    \toprule",
            f"    {' & '.join(header)} \\\\",
            r"    \midrule",
            *(f"    {line}" for line in lines),
            r"    \bottomrule",
            r"  \end{tabular}",
            *(_note(number, source) for source, number in sources.items()),
            f"  \\caption{{{escaped(group.title)}. Brackets: 95\\,\\% bootstrap intervals over {resampled(group)}. "
            + (
                escaped(group.unlike)
                or r"Bold: best generated row; $\approx$: not told apart from it (paired test, Holm-corrected)."
                + (" ?: could not be tested against it." if any(r.untested for r in rankings) else "")
            )
            + "".join(f" {escaped(line)}" for line in (*contested(rankings), *told))
            + "}",
            r"\end{table}",
            f"% {signatures}",
            "",
        ]
    )


def _scored(cell: Cell) -> str:
    scored, expected = int(cell.row["n_scored"]), int(cell.row["n_expected"])
    return str(scored) if scored == expected else f"{scored}/{expected}"


def _mark(number: int) -> str:
    return rf"\textsuperscript{{{number}}}"


def _note(number: int, source: str) -> str:
    """A line beneath the table on a row that was not measured."""
    return rf"  \par{{\footnotesize{_mark(number)} As reported, not measured: {escaped(source)}\par}}"


def _directed(label: str, better: str) -> str:
    return escaped(label) + {"lower": r" $\downarrow$", "higher": r" $\uparrow$"}.get(better, "")


def _figure(cell: Cell, name: str, scale: float, decimals: int, mark: str) -> str:
    value, low, high = (cell.value(f"{name}{end}") for end in ("", "_low", "_high"))
    if value is None:
        return "--"
    text = f"{value * scale:.{decimals}f}"
    text = rf"\textbf{{{text}}}" if mark == "best" else text + _MARKS.get(mark, "")
    return text if low is None or high is None else f"{text} [{low * scale:.{decimals}f}, {high * scale:.{decimals}f}]"
