"""Paired tests over a run's utterances: each student against the teacher, systems of equal NFE, ties with the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any, Literal

import numpy as np
import pandas as pd

from imfbench.metrics import clustered, rare_losses, stats
from imfbench.reports.columns import Quality, qualities
from imfbench.reports.columns import quality as quality_of
from imfbench.reports.grouping import Entry, Group, entries, some, teacher_at_full_nfe
from imfbench.reports.results import Cell

ALPHA = 0.05
MARGIN_ALPHA = 0.025
TOO_FEW = "too few to tell"
_NO_SEED = -1
"""In place of a noise seed: that of speech of which nobody tells where it came from."""
Family = Literal["teacher", "equal-nfe", "best", "recordings", "compare"]

SMALLEST_P = 0.01
"""What Holm's correction must leave of the least p-value that can be drawn, or a large family could show nothing at all."""

MARGINS = {"wer": 0.02, "sim": 0.03, "mos": 0.15}
"""Losses that would be accepted in "not worse than": a convention set before any run; MOS for every predictor."""


@dataclass(frozen=True)
class Comparison:
    """One paired test of ``a`` against ``b``; a key is null where the test could not be made, and ``verdict`` says why.

    Attributes:
        family: Which table it belongs to; p-values are corrected over all tests of one family in one group.
        group: Title of the group.
        column: The figure compared.
        a: Name of the first system with its NFE.
        b: Name of the second.
        a_keys: Its cells (several where noise seeds were averaged).
        b_keys: Cells of the second.
        difference: a − b, in the column's stored unit.
        low: Lower end of the 95 % interval of this difference alone.
        high: Upper end.
        p: Uncorrected.
        p_holm: After Holm's correction over the family.
        n: Utterances that both sides have.
        cluster: What was resampled and flipped whole ("speaker"), if not utterances.
        n_clusters: How many of them both sides have.
        minimum_detectable: 2.8·sd(d)/√n, of WER at least the words that a test could show (``rare_losses.fewest``); null
            where so few utterances can show no difference, however large, or where all differences are equal.
        same_noise: Whether both sides started from the same noise; null where a side's is not known, as of recordings.
        margin: The accepted loss of the non-inferiority test.
        not_worse_p: Its p-value, uncorrected.
        not_worse_p_holm: The same after Holm's correction over the family's non-inferiority tests.
        not_worse: Whether a loss as large as the margin is ruled out at .025; never where there are too few to tell.
        equivalent_p: P-value of the equivalence test (two one-sided tests), uncorrected.
        equivalent_p_holm: The same after Holm's correction over the family's equivalence tests.
        equivalent: Whether "differs by less than the margin either way" is shown at .05; never where there are too few to tell.
        verdict: better, worse, higher, lower, no difference shown, too few to tell, or not tested with the reason.
    """

    family: Family
    group: str
    column: str
    a: str
    b: str
    a_keys: list[str]
    b_keys: list[str]
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    n: int = 0
    cluster: str | None = None
    n_clusters: int | None = None
    minimum_detectable: float | None = None
    same_noise: bool | None = None
    margin: float | None = None
    not_worse_p: float | None = None
    not_worse_p_holm: float | None = None
    not_worse: bool | None = None
    equivalent_p: float | None = None
    equivalent_p_holm: float | None = None
    equivalent: bool | None = None
    verdict: str = ""

    @property
    def tested(self) -> bool:
        """Whether the test could be made."""
        return self.p_holm is not None

    @property
    def different(self) -> bool:
        """Whether a difference was shown."""
        return self.p_holm is not None and self.p_holm < ALPHA

    def record(self) -> dict[str, Any]:
        """The comparison as it stands in ``leaderboard.json``."""
        return asdict(self)


@dataclass(frozen=True)
class Ranking:
    """The best row of one figure and the rows from which it was not told apart.

    Attributes:
        column: The figure.
        best: Keys of the best entry's cells; none where a paired test shows another one better (``contested``).
        tied: Keys of cells without a shown difference from the best.
        untested: Keys of cells that have the figure but could not be tested.
        comparisons: The tests behind it.
    """

    column: str
    best: list[str]
    tied: list[str]
    untested: list[str]
    comparisons: list[Comparison]

    @property
    def contested(self) -> str:
        """A sentence that tells why no row is the best, though there are figures; empty if one is."""
        better = list(dict.fromkeys(t.a for t in self.comparisons if t.different and t.verdict == "better"))
        if self.best or not better:
            return ""
        return (
            f"No row is the best in {quality_of(self.column).title}: {self.comparisons[0].b} has the best figure over what it "
            f"could score, and is worse than {some(better)} over the utterances that both have."
        )

    def mark(self, key: str) -> Literal["best", "tie", "untested", ""]:
        """What a row is in this ranking."""
        if key in self.best:
            return "best"
        return "tie" if key in self.tied else "untested" if key in self.untested else ""


def against_teacher(group: Group) -> list[Comparison]:
    """Every student against the teacher at full NFE, on every figure that both have."""
    found = [e for e in entries(group) if not e.cells[0].reference]
    pairs = [(e, full) for e in found if not e.teacher and (full := teacher_at_full_nfe(found, e))]
    # "As good as" is a claim against the teacher; between systems of equal NFE the question is which is better.
    return _family("teacher", group, pairs, MARGINS)


def at_equal_nfe(group: Group) -> list[Comparison]:
    """Systems of equal NFE against each other, the later row against the earlier (the teacher stands first).

    One network that several runs sampled is one system, as it is within a run.
    """
    found = [e for e in entries(group) if not e.cells[0].reference and e.nfe is not None]
    pairs = [(b, a) for a, b in combinations(found, 2) if a.nfe == b.nfe and a.source != b.source]
    return _family("equal-nfe", group, sorted(pairs, key=lambda pair: pair[0].nfe or 0))


def between_recordings(
    group: Group, baseline: str | None = None, margins: Mapping[str, float] | None = None
) -> list[Comparison]:
    """Other programs' speech against the baseline, or each against each where none is named.

    Args:
        group: Rows that may be compared.
        baseline: Name of the recordings that all others are tested against.
        margins: Accepted losses where they differ from ``MARGINS``.
    """
    found = [e for e in entries(group) if not e.cells[0].reference]
    base = next((e for e in found if e.cells[0].recordings and e.system == baseline), None)
    recorded = [e for e in found if e.cells[0].recordings]
    pairs = [(e, base) for e in found if e is not base] if base else [(b, a) for a, b in combinations(recorded, 2)]
    return _family("recordings", group, pairs, {**MARGINS, **(margins or {})})


def between_rows(
    group: Group,
    pairs: Sequence[tuple[Entry, Entry]],
    columns: Sequence[str],
    margins: Mapping[str, float] | None = None,
) -> list[Comparison]:
    """The first of each pair against the second, in these figures alone.

    Args:
        group: Rows on one test set.
        pairs: Of its entries.
        columns: Figures whose signatures are the same in all rows.
        margins: Accepted losses where they differ from ``MARGINS``.
    """
    return _family("compare", group, pairs, {**MARGINS, **(margins or {})}, columns)


def rank(group: Group, quality: Quality) -> Ranking | None:
    """The best generated row of a figure and its ties.

    None where no direction is better, nothing is scored, or the rows are over different utterances (``Group.unlike``): the
    best of an easy half is not better than the worst of a hard one.
    """
    if group.unlike:
        return None
    found = [(e, v) for e in entries(group) if not e.cells[0].reference and (v := _figure(e, quality)) is not None]
    if not quality.better or not found:
        return None
    best = (min if quality.better == "lower" else max)(found, key=lambda pair: pair[1])[0]
    others = [e for e, _ in found if e is not best]
    tests = _correct([_compare("best", group, quality, e, best, None, len(others)) for e in others])
    if any(t.different and t.verdict == "better" for t in tests):
        return Ranking(quality.name, [], [], [], tests)
    tied = [key for e, t in zip(others, tests, strict=True) if t.tested and not t.different for key in e.keys]
    untested = [key for e, t in zip(others, tests, strict=True) if not t.tested for key in e.keys]
    return Ranking(quality.name, best.keys, tied, untested, tests)


def _family(
    family: Family, group: Group, pairs: Sequence[tuple[Entry, Entry]], margins: Mapping[str, float] | None = None,
    columns: Sequence[str] | None = None,
) -> list[Comparison]:  # fmt: skip
    shown = [q for q in qualities([c.row for c in group.cells]) if columns is None or q.name in columns]
    both = [(a, b, q) for a, b in pairs for q in shown if _figure(a, q) is not None and _figure(b, q) is not None]
    tests = []
    for a, b, q in both:
        # By column, by the metric's name, or by what it predicts: the one that says most.
        names = (q.name, q.signature, "mos" if q.name.startswith("mos_") else q.name)
        margin = next((margins[name] for name in names if margins and name in margins), None)
        tests.append(_compare(family, group, q, a, b, margin, len(both)))
    return _correct(tests)


def _figure(entry: Entry, quality: Quality) -> float | None:
    values = [cell.value(quality.name) for cell in entry.cells]
    present = [v for v in values if v is not None]
    return float(np.mean(present)) if present and len(present) == len(values) else None


def _compare(
    family: Family, group: Group, quality: Quality, a: Entry, b: Entry, margin: float | None, tests: int
) -> Comparison:  # fmt: skip
    """One of so many ``tests``, not yet corrected."""
    # Where the usual number leaves a family something to find, its tables stay what they are.
    enough = 2 / (stats.PERMUTATIONS + 1) * tests < ALPHA
    draws = rare_losses.DRAWS if enough else max(stats.PERMUTATIONS, rare_losses.DRAWS, round(2 * tests / SMALLEST_P))
    blank = Comparison(family, group.title, quality.name, a.name, b.name, a.keys, b.keys)
    first, second = utterance_scores(a, quality, group), utterance_scores(b, quality, group)
    if isinstance(first, str) or isinstance(second, str):
        return replace(blank, verdict=f"not tested: {first if isinstance(first, str) else second}")
    both, seeds = _paired(first, second)
    if len(both) < 2:
        told = f"not tested: {len(both)} utterances in common, at least 2 are needed"
        return replace(blank, n=len(both), verdict=told)
    x, y = both["score_a"], both["score_b"]
    corpus, number = is_corpus(quality, group), len(both)
    words = both["words_a"] if corpus else pd.Series(1.0, both.index)
    if group.cluster is not None:
        labels = _labels(a, group.cluster, both.index)
        try:
            test = clustered.paired_ratio(x, y, words, labels, flips=draws)
        except stats.TooFewClustersError as error:
            return replace(blank, n=number, verdict=f"not tested: {error}")
        blank = replace(blank, cluster=group.cluster, n_clusters=test.n)
        x = pd.Series(clustered.linearised(x, y, words, labels))
        y = pd.Series(0.0, x.index)
    elif corpus:
        test = stats.paired_ratio(x, y, words, flips=draws)
        x, y = x / words.mean(), y / words.mean()
    else:
        test = stats.paired_difference(x, y, flips=draws)
    seeded = _NO_SEED not in {*first["noise_seed"], *second["noise_seed"]}
    found = replace(blank, same_noise=seeds > 0 if seeded else None, **{**asdict(test), "n": number})
    if margin is not None and quality.better:
        # One recording, or all of one cluster: a statement about new voices has to reckon with a voice that is not understood.
        # Other figures than WER have no mass of equal differences.
        lost = rare_losses.LOST / max(1, seeds) if quality.name == "wer" else None
        how: dict[str, Any] = {"lost": lost, "draws": draws}
        d, theirs = (x - y).to_list(), list[float]()
        if lost is not None and group.cluster is None:  # of what failed, or could not be scored, no word is understood
            d += [rare_losses.LOST] * _lacking(first, second)
            theirs = [-rare_losses.LOST] * _lacking(second, first)
        higher, every = quality.better == "higher", [*d, *theirs]
        shown = stats.non_inferior(d, np.zeros(len(d)), margin, higher_is_better=higher, alpha=MARGIN_ALPHA, **how)
        alike = stats.equivalent(every, np.zeros(len(every)), margin, alpha=ALPHA, **how)
        found = replace(found, margin=margin, not_worse_p=shown.p, equivalent_p=alike.p)
    return found


def _paired(first: pd.DataFrame, second: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """The utterances that both sides have, each a mean over the noise seeds that both have; and how many such seeds there are."""
    # Pairs share the initial noise as well as the utterance, as far as both sides were sampled from the same seeds.
    seeds = set(first["noise_seed"]) & set(second["noise_seed"])
    means = [stats.average_seeds(f[f["noise_seed"].isin(seeds)] if seeds else f) for f in (first, second)]
    return means[0].join(means[1], how="inner", lsuffix="_a", rsuffix="_b").dropna(), len(seeds)


def _lacking(own: pd.DataFrame, other: pd.DataFrame) -> int:
    """Utterances without a score on one side, at whichever noise seed, that have one on the other."""
    return len({*own.loc[own["score"].isna(), "id"]} & {*other.dropna()["id"]})


def utterance_differences(a: Sequence[Cell], b: Sequence[Cell], quality: Quality) -> pd.Series:
    """The difference of each utterance that both sides have, paired as the tests pair them; empty where there are no scores.

    Args:
        a: Cells that differ in the noise seed alone.
        b: The same of the other side.
        quality: The figure; WER is that of each utterance.
    """
    first, second = _scores(a, [quality.per_utterance]), _scores(b, [quality.per_utterance])
    if isinstance(first, str) or isinstance(second, str):
        return pd.Series(dtype=float)
    both, _ = _paired(first, second)
    return both["score_a"] - both["score_b"]


def _labels(entry: Entry, cluster: str, ids: pd.Index) -> list[Any]:
    """The cluster of each utterance; None where the tables do not tell it."""
    found: dict[Any, Any] = {}
    for cell in entry.cells:
        if cell.utterances is not None and cluster in cell.utterances:
            found |= dict(zip(cell.utterances["id"], cell.utterances[cluster], strict=True))
    return [found.get(one) for one in ids]


def is_corpus(quality: Quality, group: Group) -> bool:
    """Whether the figure is all edits over all words, as its signature says; it is compared as it is printed."""
    return quality.name == "wer" and "agg:mean" not in group.signatures.get("wer", "").split("|")


def utterance_scores(entry: Entry, quality: Quality, group: Group) -> pd.DataFrame | str:
    """A row for each utterance and noise seed: id, noise_seed, score, words; or the reason why there are none."""
    wanted = [quality.per_utterance]
    if is_corpus(quality, group):
        wanted = ["substitutions", "deletions", "insertions", "reference_words"]
    return _scores(entry.cells, wanted)


def _scores(cells: Sequence[Cell], wanted: Sequence[str]) -> pd.DataFrame | str:
    frames = []
    for cell in cells:
        if cell.utterances is None:
            return f"cell {cell.row['key']} has no utterances.parquet"
        absent = [name for name in wanted if name not in cell.utterances.columns]
        if absent:
            return f"cell {cell.row['key']} has no {', '.join(absent)} in utterances.parquet"
        numbers = {name: pd.to_numeric(cell.utterances[name], errors="coerce").astype(float) for name in wanted}
        words = numbers.pop("reference_words", 1.0)
        score = pd.DataFrame(numbers).sum(axis=1, skipna=False)
        seed = cell.utterances.get("noise_seed", cell.row.get("noise_seed"))
        frames.append(pd.DataFrame({"id": cell.utterances["id"], "noise_seed": seed, "score": score, "words": words}))
    found = pd.concat(frames, ignore_index=True)
    return found.assign(noise_seed=found["noise_seed"].fillna(_NO_SEED).astype(int))


def _correct(tests: list[Comparison]) -> list[Comparison]:
    """Holm's correction over the family, for the differences and for the margins apart, and the verdicts."""
    differences = _holm([t.p for t in tests])
    margins = _holm([t.not_worse_p for t in tests])
    alike = _holm([t.equivalent_p for t in tests])
    corrected = [
        replace(t, p_holm=p, not_worse_p_holm=q, equivalent_p_holm=e)
        for t, p, q, e in zip(tests, differences, margins, alike, strict=True)
    ]
    made = sum(t.p is not None for t in corrected)
    return [replace(t, **_verdict(t, made)) for t in corrected]


def _holm(pvalues: Sequence[float | None]) -> list[float | None]:
    made = [p for p in pvalues if p is not None]
    corrected = iter(stats.holm(made).tolist() if made else [])
    return [None if p is None else next(corrected) for p in pvalues]


def _verdict(test: Comparison, tests: int) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if test.not_worse_p_holm is not None:
        changes["not_worse"] = test.not_worse_p_holm < MARGIN_ALPHA
    if test.equivalent_p_holm is not None:
        changes["equivalent"] = test.equivalent_p_holm < ALPHA
    if test.difference is None:
        return changes
    better = quality_of(test.column).better
    if not test.different and _least_p(test) * tests >= ALPHA:
        # Equal scores of four utterances have no spread at all, and a t test takes that for certainty.
        changes = dict.fromkeys(changes, False)
        return {**changes, "minimum_detectable": None, "verdict": TOO_FEW}
    if not test.different:
        verdict = "no difference shown"
    elif not better:
        verdict = "higher" if test.difference > 0 else "lower"
    else:
        verdict = "better" if (test.difference > 0) == (better == "higher") else "worse"
    return {**changes, "verdict": verdict}


def _least_p(test: Comparison) -> float:
    """What a sign-flip test of so many pairs gives when all differences have one sign: 2 of 2ⁿ flips are as extreme."""
    return 2.0 ** (1 - (test.n if test.n_clusters is None else test.n_clusters))
