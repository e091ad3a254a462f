"""What the runs left behind, as claims ask for it: paired differences, trainings, measurements; or why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

from imfbench.claims.definition import Pick
from imfbench.metrics.rare_losses import LOST
from imfbench.metrics.stats import average_seeds
from imfbench.reports.columns import Quality, quality
from imfbench.reports.comparison import is_corpus, utterance_scores
from imfbench.reports.grouping import Entry, Group, apart, group_cells
from imfbench.reports.results import Cell, Results, RunFolderError, Training, read_run
from imfbench.store import read_json

MISSING = 0.05
"""Largest share of expected utterances without a score; beyond it a comparison is of other sets."""


class NoEvidenceError(Exception):
    """There is nothing to decide by; the message is the reason."""


@dataclass(frozen=True)
class Differences:
    """A figure of two rows over the same utterances.

    Attributes:
        values: a − b, (training seeds, utterances), in the figure's unit.
        quality: The figure.
        a: Its mean in a.
        b: Its mean in b.
        missing: Utterances that are expected and have no score on one side.
        cells: Those that were compared.
        seeds: Training seeds, in the order of ``values``.
        words: Reference words of each utterance, (utterances,), of a figure that is all edits over all words; else None.
        ids: The utterances, in the order of ``values``.
        networks: Of a and of b: one that stands against each of the other side's is one.
        against: Of WER the same with what one side lacks counted against a, and against b, (training seeds, ``against_ids``): a
            recording that only one of them lacks is lost by the one it is counted against, and without an error by the other.
            One that both lack is no difference. Else ``values`` twice.
        against_ids: Of those.
    """

    values: NDArray[np.float64]
    quality: Quality
    a: float
    b: float
    missing: int
    cells: list[Cell]
    seeds: list[Any]
    words: NDArray[np.float64] | None = None
    ids: tuple[str, ...] = ()
    networks: tuple[int, int] = (1, 1)
    against: tuple[NDArray[np.float64], NDArray[np.float64]] = (np.zeros((1, 0)), np.zeros((1, 0)))
    against_ids: tuple[str, ...] = ()


class Evidence:
    """The folders of one budget's runs.

    Args:
        out: Folder with one run folder for each experiment, and ``measurements``.
        failures: Experiment or measurement → why it was not run.
        jobs: Experiment → the jobs of it that failed, with the reason of each.
    """

    def __init__(
        self, out: Path, failures: Mapping[str, str] | None = None, jobs: Mapping[str, Mapping[str, str]] | None = None
    ) -> None:
        self.out, self.failures, self.jobs = out, dict(failures or {}), dict(jobs or {})

    @cached_property
    def _read(self) -> dict[str, Results]:
        return {}

    @cached_property
    def _experiments(self) -> dict[str, dict[str, Any]]:
        return {}

    def results(self, experiment: str) -> Results:
        """An experiment's cells and trainings.

        Raises:
            NoEvidenceError: It was not run, or left nothing.
        """
        if experiment not in self._read:
            try:
                self._read[experiment] = read_run(self.out / experiment)
            except RunFolderError as error:
                absent = not (self.out / experiment).exists()
                told = f"the experiment {experiment} has not been run" if absent else str(error)
                raise NoEvidenceError(self.failures.get(experiment, told)) from None
        return self._read[experiment]

    def cells(self, experiment: str, pick: Pick, on: str | None = None) -> list[Cell]:
        """The cells of one row, over all its training and noise seeds.

        Raises:
            NoEvidenceError: There are none, or one of them failed or diverged.
        """
        found = [cell for cell in self.results(experiment).cells if _fits(cell, pick, on)]
        told = _told(pick, on)
        if not found:
            raise NoEvidenceError(self.failures.get(experiment, f"{experiment} has no row {told} yet"))
        for cell in found:
            if not cell.ok:
                raise NoEvidenceError(f"{told}, cell {cell.row['key']}: {cell.row['status']}")
        grids = {str(cell.row.get("grid_values")) for cell in found if "+" not in cell.system}
        sets = {str(cell.row["dataset"]) for cell in found}
        if len(grids) > 1 or len(sets) > 1:
            raise NoEvidenceError(f"{told} is more than one row: name its grid, and `sets` which set")
        trained = {cell.row.get("train_seed") for cell in found}
        self._complete(experiment, pick.system[0], trained, told)
        noise_seeds = self._planned(experiment).get("noise_seeds", [])
        for seed in trained:
            made = [cell.row.get("noise_seed") for cell in found if cell.row.get("train_seed") == seed]
            if lacking := noise_seeds[len(made) :] if None not in made else []:
                raise NoEvidenceError(f"{told}: {len(lacking)} of its noise seeds have no row yet")
        return found

    def _planned(self, experiment: str) -> dict[str, Any]:
        """The experiment as it was run, read once; empty where the folder does not tell."""
        if experiment not in self._experiments:
            try:
                found = yaml.safe_load((self.out / experiment / "experiment.yaml").read_text(encoding="utf-8"))
            except (OSError, yaml.YAMLError):
                found = None
            self._experiments[experiment] = found if isinstance(found, dict) else {}
        return self._experiments[experiment]

    def _complete(self, experiment: str, system: str, seeds: set[Any], told: str) -> None:
        """Refuse a row, or trainings, without all of its training seeds: what failed early would not be missed.

        Raises:
            NoEvidenceError: Which are missing, and the reason where it is known.
        """
        own = system.partition("+")[0]
        for planned in self._planned(experiment).get("systems") or []:
            if (planned.get("name") or planned["method"]) != own or planned.get("artefact"):
                continue
            missing = [seed for seed in planned.get("seeds") or [] if seed not in seeds]
            if missing:
                jobs = self.jobs.get(experiment, {})
                why = [why for job, why in jobs.items() if any(job.endswith(f"{own}-seed{seed}") for seed in missing)]
                seeds_told = ", ".join(map(str, missing))
                raise NoEvidenceError(
                    f"{told}: nothing of training seed {seeds_told}" + (f" ({why[0]})" if why else "")
                )

    def differences(self, experiment: str, a: Pick, b: Pick, figure: str, on: str | None = None) -> Differences:
        """A figure of row a minus that of row b, utterance by utterance from the same noise.

        Training seeds that both have are paired; a side with one network stands against each of the other's.

        Raises:
            NoEvidenceError: A cell failed, was scored in another way, or has no scores.
        """
        sides = [self.cells(experiment, pick, on) for pick in (a, b)]
        groups = group_cells([*sides[0], *sides[1]])
        if len(groups) > 1:
            raise NoEvidenceError(apart(groups[0], groups[1]))
        found = quality(figure)
        noise = [{int(seed) for cell in cells if (seed := cell.row.get("noise_seed")) is not None} for cells in sides]
        if all(noise) and noise[0] != noise[1]:
            told = " against ".join(", ".join(map(str, sorted(seeds))) for seeds in noise)
            raise NoEvidenceError(f"the two sides have other noise seeds: {told}")
        tables = [_by_seed(cells, found, groups[0]) for cells in sides]
        expected = max(int(cell.row["n_expected"]) for cells in sides for cell in cells)
        seeds = _paired_seeds(*tables)
        pairs = [(_of_network(tables[0], seed), _of_network(tables[1], seed)) for seed in seeds]
        frames = [
            average_seeds(one).join(average_seeds(other), how="inner", lsuffix="_a", rsuffix="_b").dropna()
            for one, other in pairs
        ]
        common = sorted(set.intersection(*(set(frame.index) for frame in frames)))
        missing = expected - len(common)
        if len(common) < 2 or missing > MISSING * expected:
            raise NoEvidenceError(f"{figure}: only {len(common)} of {expected} utterances have a score on both sides")
        frames = [frame.loc[common] for frame in frames]
        words = frames[0]["words_a"].to_numpy(np.float64) if is_corpus(found, groups[0]) else None
        scale = 1.0 if words is None else words.mean()
        first, second = (np.stack([frame[f"score_{side}"] for frame in frames]) / scale for side in "ab")
        values, ids = first - second, tuple(map(str, common))
        against, against_ids = (values, values), ids
        if found.name == "wer" and missing:
            of_a, of_b = (
                pd.DataFrame({i: _against(one, other, side) for i, (one, other) in enumerate(pairs)}) for side in "ab"
            )
            of_a, of_b = of_a.dropna(how="all"), of_b.dropna(how="all")
            against = of_a.fillna(0.0).to_numpy().T / scale, of_b.fillna(0.0).to_numpy().T / scale
            against_ids = tuple(map(str, of_a.index))
        return Differences(
            values,
            found,
            float(first.mean()),
            float(second.mean()),
            missing,
            [*sides[0], *sides[1]],
            seeds,
            words,
            ids,
            (min(len(tables[0]), len(seeds)), min(len(tables[1]), len(seeds))),
            against,
            against_ids,
        )

    def searches(self, experiment: str, cells: list[Cell]) -> dict[str, str]:
        """How the searches of these cells' grids ended, in the searches' own words; a grid that was not searched is left out.

        Returns:
            Path of the grid below the folder → why its search stopped.
        """
        found = {}
        for name in dict.fromkeys(str(cell.row.get("grid")).partition(" (")[0] for cell in cells):
            path = Path(experiment) / "grids" / f"{name}.json"  # "x+o3s-2 (uniform)" ended at a grid that has a name
            grid = read_json(self.out / path) or {}
            if "stopped" in grid:
                found[path.as_posix()] = str(grid["stopped"])
        return found

    def trainings(self, experiment: str, system: str) -> list[Training]:
        """The training records of a system, one for each seed.

        Raises:
            NoEvidenceError: There are none, or one has not ended.
        """
        found = [
            training for training in self.results(experiment).trainings
            if training.name == system or training.name.rpartition("-seed")[0] == system
        ]  # fmt: skip
        if not found:
            raise NoEvidenceError(self.failures.get(experiment, f"no training of {system} in {experiment}"))
        for training in found:
            if training.status.get("status") not in ("ok", "diverged"):
                raise NoEvidenceError(f"the training {training.name} of {experiment} has not ended")
        seeds = {_seed(training.name, system) for training in found} - {None}
        self._complete(experiment, system, seeds, f"trainings of {system} in {experiment}")
        return found

    def measurement(self, name: str) -> dict[str, Any]:
        """What was measured.

        Raises:
            NoEvidenceError: It was not, or not all of it.
        """
        found: dict[str, Any] = read_json(self.measurement_file(name)) or {}
        if not found.get("complete"):
            raise NoEvidenceError(self.failures.get(name, f"the measurement {name} has not been made"))
        return found

    def measurement_file(self, name: str) -> Path:
        """Where a measurement lies."""
        return measurement_file(self.out, name)


def measurement_file(out: Path, name: str) -> Path:
    """Where a measurement lies in a folder of runs."""
    return out / "measurements" / f"{name}.json"


def _fits(cell: Cell, pick: Pick, on: str | None) -> bool:
    row = cell.row
    if cell.system not in pick.system:
        return False
    asked = row.get("nfe")
    if pick.nfe and asked is not None and int(asked) not in pick.nfe:
        return False
    if on is not None and str(row["dataset"]).partition("@")[0].rpartition("/")[2] != on:
        return False
    # A row that failed may not know its grid.
    return not pick.grid or row.get("grid") in pick.grid or (not cell.ok and row.get("grid") is None)


def _seed(training: str, system: str) -> int | None:
    """The seed in a training's name, if it has one."""
    number = training.removeprefix(f"{system}-seed")
    return int(number) if number.isdigit() else None


def _told(pick: Pick, on: str | None) -> str:
    parts = ["/".join(pick.system), *(f"{nfe} NFE" for nfe in pick.nfe), *pick.grid, *([f"on {on}"] if on else [])]
    return " ".join(parts)


def _by_seed(cells: list[Cell], figure: Quality, group: Group) -> dict[Any, pd.DataFrame]:
    """Training seed → score and words of each recording."""
    found: dict[Any, pd.DataFrame] = {}
    seeds = list(dict.fromkeys(cell.row.get("train_seed") for cell in cells))
    for seed in seeds:
        own = tuple(cell for cell in cells if cell.row.get("train_seed") == seed)
        if len({cell.row.get("artefact_sha256") for cell in own}) > 1:
            raise NoEvidenceError(f"{own[0].system}: two networks have the training seed {seed}")
        scores = utterance_scores(Entry(own[0].system, own), figure, group)
        if isinstance(scores, str):
            raise NoEvidenceError(f"{figure.name}: {scores}")
        found[seed] = scores
    return found


def _against(first: pd.DataFrame, second: pd.DataFrame, side: str) -> pd.Series:
    """WER of a − b of each utterance, noise seeds averaged, as ``Differences.against`` counts what "a" or "b" lacks.

    Args:
        first: Scores and words of each recording of a.
        second: The same of b.
        side: Whom it is counted against.

    Returns:
        By utterance; not a number where there is no recording of either side.
    """
    words = pd.concat([first, second]).groupby("id")["words"].max()
    a, b = (
        table.pivot(index="id", columns="noise_seed", values="score").reindex(words.index) for table in (first, second)
    )
    # A recording, which has no noise seed, stands against each of the other side's.
    seeds = max(a.columns, b.columns, key=max)
    a, b = (t if set(t.columns) == set(seeds) else pd.DataFrame(dict.fromkeys(seeds, t.iloc[:, 0])) for t in (a, b))
    neither = a.isna() & b.isna()
    lost = pd.DataFrame(dict.fromkeys(a.columns, words * LOST))
    a, b = (a.fillna(lost), b.fillna(0.0)) if side == "a" else (a.fillna(0.0), b.fillna(lost))
    return (a - b).mask(neither, 0.0).mean(axis=1).mask(neither.all(axis=1))


def _of_network(table: dict[Any, pd.DataFrame], seed: Any) -> pd.DataFrame:
    """The recordings of a training seed's network, or of the side's only one."""
    return table.get(seed, next(iter(table.values())))


def _paired_seeds(a: dict[Any, pd.DataFrame], b: dict[Any, pd.DataFrame]) -> list[Any]:
    """The seeds that both have; all of one side's where the other has a single network."""
    if len(b) == 1:
        return list(a)
    if len(a) == 1:
        return list(b)
    common = [seed for seed in a if seed in b]
    if not common:
        raise NoEvidenceError("the two sides have no training seed in common")
    return common
