"""claims.yaml and its experiments: all that a claim names is there, and what is wrong is told with the nearest right word."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from imfbench.claims.definition import FILE, ON_SPEECH, Claim, Claims, Part, load_claims, load_experiment, of_budget
from imfbench.claims.lattice import convexity_violations, peak_violations
from imfbench.claims.measurements import ScoreMeasurement, SpeedMeasurement, StepMeasurement, lattice
from imfbench.claims.run import Request
from imfbench.claims.shares import share_at_most
from imfbench.claims.statistics import Losses, compare, falls_by_less
from imfbench.claims.verdicts import Standing, decide
from imfbench.claims.verdicts import combine as joint
from imfbench.cli import main
from imfbench.cli_claims import BUDGETS
from imfbench.config import ExperimentConfig
from imfbench.config_file import ConfigError
from imfbench.datasets.demo.corpus import DemoCorpus
from imfbench.experiment import prepare
from imfbench.methods.o3s import O3SConfig
from imfbench.metrics.rare_losses import LOST
from imfbench.pipeline.context import Context
from imfbench.pipeline.plan import Plan, Row, make_plan
from imfbench.store import RunFolder

CLAIMS = load_claims()


@pytest.fixture(scope="module")
def plans() -> dict[tuple[str, str], Plan]:
    return {
        (budget, name): make_plan(config)
        for budget in BUDGETS
        for name, config in Request(CLAIMS, CLAIMS.claims, budget, Path()).experiments().items()  # type: ignore[arg-type]
    }


def _has(rows: list[Row], system: str, nfe: int | None, grid: str | None, on: str | None) -> bool:
    return any(
        row.system == system and nfe in (None, row.nfe) and grid in (None, row.grid)
        and (on is None or row.test_set[1] == f"demo/{on}") for row in rows
    )  # fmt: skip


@pytest.mark.parametrize("budget", BUDGETS)
def test_every_row_that_a_claim_compares_is_made(budget: str, plans: dict[tuple[str, str], Plan]) -> None:
    for claim in CLAIMS.claims:
        for part in claim.parts:
            if not of_budget(claim, part, budget) or part.experiment is None:  # type: ignore[arg-type]
                continue
            plan = plans[budget, part.experiment]
            assert part.b is not None
            places = [(pick, on) for _, pick, on in part.rows()]
            places += [(pick, part.baseline_set) for pick, _ in places if part.baseline_set]
            for pick, on in places:
                for side in (pick, part.b):
                    nfe, grid = next(iter(side.nfe), None), next(iter(side.grid), None)
                    told = (claim.number, part.name, side.system, nfe, grid, on)
                    if part.figures and part.test != "steadier":
                        assert _has(list(plan.rows.values()), side.system[0], nfe, grid, on), told
                    else:
                        names = {name.rpartition("-seed")[0] for name in plan.artefacts}
                        assert side.system[0] in names, told


@cache
def _size(split: str, held_out: tuple[str, ...]) -> int:
    return len(DemoCorpus(held_out=held_out).utterances(split))


def _utterances(config: ExperimentConfig, on: str | None) -> int:
    (chosen,) = [data for data in config.dataset if on in (None, data.split)]
    found = _size(chosen.split, tuple(chosen.options.get("held_out", ())))
    return min(found, chosen.limit or found)


def _networks(plan: Plan, part: Part) -> tuple[int, int]:
    """Of each side: one with a single network stands against each of the other's."""
    assert part.a is not None
    assert part.b is not None
    systems = [pick.system[0].partition("+")[0] for pick in (part.a, part.b)]
    found = [sum(a.name.rpartition("-seed")[0] == name for a in plan.artefacts.values()) for name in systems]
    return max(found[0], 1), max(found[1], 1)


@cache
def _standings(
    test: Any, n: int, plain: int | None, seeds: int, margin: float, higher: bool, lost: Losses | None
) -> tuple[Standing, ...]:
    """Where not one utterance differs, and where all differ by twice the margin: for "better" a gain, else a loss."""
    sign = 1 if higher == (test == "better") else -1
    alike = np.zeros((seeds, n))
    other = sign * margin * (2 + 0.01 * np.cos(np.arange(seeds * n)).reshape(seeds, n))
    if plain is None:
        tested = [compare(d, margin, test, higher, lost) for d in (alike, other)]
    else:
        tested = [falls_by_less(d, np.zeros((seeds, plain)), margin, higher, lost) for d in (alike, other)]
    return tuple(decide(found.p_support, found.p_refute) for found in tested)


Clear = dict[str | None, dict[str, tuple[Standing, ...]]]


def _clear(claims: Claims, budget: Any, plans: dict[tuple[str, str], Plan]) -> list[tuple[Claim, Part, list[Clear]]]:
    """Of each part about speech its rows: set → figure → where it stands if nothing differs, and if all does."""
    configs = Request(claims, claims.claims, budget, Path()).experiments()
    found = []
    pairs = [(claim, part) for claim in claims.claims for part in claim.parts if of_budget(claim, part, budget)]
    for claim, part in pairs:
        if part.test not in ON_SPEECH:
            continue
        assert part.experiment is not None
        config, sides = configs[part.experiment], _networks(plans[budget, part.experiment], part)
        plain = None if part.baseline_set is None else _utterances(config, part.baseline_set)
        rows: list[Clear] = []
        for _, _, on in part.rows():
            n, row = _utterances(config, on), {}
            for figure, margin in part.margins(budget).items():
                higher = figure != "wer"
                one = LOST / len(config.noise_seeds)
                lost = None if higher else (one / sides[0], one / sides[1])
                row[figure] = _standings(part.test, n, plain, max(sides), margin, higher, lost)
            rows.append({on: row})
        found.append((claim, part, rows))
    return found


def _undecidable(claims: Claims, budget: Any, plans: dict[tuple[str, str], Plan]) -> list[tuple[Any, ...]]:
    """Figures of which one of the two could not be shown, however clear it was."""
    return [
        (claim.number, part.name, on, figure)
        for claim, part, rows in _clear(claims, budget, plans)
        for row in rows
        for on, figures in row.items()
        for figure, found in figures.items()
        if {one.verdict for one in found} != {"supported", "not supported"}
    ]


def _irrefutable(claims: Claims, budget: Any, plans: dict[tuple[str, str], Plan]) -> set[int]:
    """Claims that would stay open although every row of one of their parts says the opposite, and the other parts nothing."""
    found = set()
    for claim, part, rows in _clear(claims, budget, plans):
        if not part.counts:
            continue
        against = [
            joint(part.of_figures, [min(one, key=lambda s: s.p_refute) for one in figures.values()])
            for row in rows
            for figures in row.values()
        ]
        parts = [other for other in claim.parts if other.counts and of_budget(claim, other, budget)]
        others = [decide(0.5, 0.5)] * (len(parts) - 1)
        if joint(claim.rule, [joint(part.each, against), *others]).verdict != "not supported":
            found.add(claim.number)
    return found


@pytest.mark.parametrize("budget", BUDGETS)
def test_every_figure_can_be_decided_both_ways(budget: str, plans: dict[tuple[str, str], Plan]) -> None:
    assert not _undecidable(CLAIMS, budget, plans)


@pytest.mark.parametrize(("budget", "open_claims"), [("small", {2, 3, 8}), ("cpu", set()), ("full", set())])
def test_every_claim_can_be_refuted_by_each_of_its_parts(
    budget: str, open_claims: set[int], plans: dict[tuple[str, str], Plan]
) -> None:
    """By its figures of speech; docs/claims.md says why not in three claims of small."""
    assert _irrefutable(CLAIMS, budget, plans) == open_claims


def test_a_setting_may_be_of_one_task(tmp_path: Path) -> None:
    """Two networks of other learning rates are trained by one command, as the originals of the two tasks would be."""
    settings = ("training.save_every=7", "text2mel/training.learning_rate=0.00001", "token2mel/vocoder=hift")
    found = {name: load_experiment(name, "full", settings) for name in ("token2mel", "text2mel", "k-steps")}
    assert {name: (c.training["learning_rate"], c.vocoder, c.training["save_every"]) for name, c in found.items() if c} == {
        "token2mel": (3e-4, "hift", 7), "text2mel": (1e-5, "auto", 7), "k-steps": (3e-4, "hift", 7),
    }  # fmt: skip
    with pytest.raises(ConfigError, match="'text2mle' is no task: did you mean 'text2mel'"):
        load_experiment("k-steps", "full", ("text2mle/training.steps=3",))


def test_reuse_with_a_dry_run_is_refused(tmp_path: Path) -> None:
    found = CliRunner().invoke(main, ["claims", "--dry-run", "--reuse", str(tmp_path), "--out", str(tmp_path / "out")])
    assert found.exit_code == 2
    assert "--dry-run does nothing: give one of them" in " ".join(found.output.split())
    assert not (tmp_path / "out").exists()


def test_an_experiment_that_only_trains_is_one(tmp_path: Path) -> None:
    """Claim 5's has no row, and its trainings."""
    context = Context(load_experiment("stability", "cpu"), RunFolder(tmp_path))
    assert not context.plan.rows
    prepare(context)


def test_too_few_recordings_would_be_noticed(plans: dict[tuple[str, str], Plan]) -> None:
    """With two points of WER, as in the other budgets, the 56 recordings of small could decide none of its figures of WER."""
    text = FILE.read_text(encoding="utf-8")
    assert "small: {wer: 0.07}" in text
    narrow = Claims.model_validate(yaml.safe_load(text.replace("small: {wer: 0.07}", "small: {wer: 0.02}")))
    found = _undecidable(narrow, "small", plans)
    assert {number for number, *_ in found} == {1, 2, 3, 8}
    assert {figure for *_, figure in found} == {"wer"}


@pytest.mark.parametrize("budget", BUDGETS)
def test_every_lattice_can_be_decided_both_ways(budget: str) -> None:
    counts = {"convex": convexity_violations, "unimodal": peak_violations}
    for part in (part for claim in CLAIMS.claims for part in claim.parts if part.test in counts):
        assert part.measurement is not None
        assert part.margin is not None
        settings = CLAIMS.budgets[budget].measurements[part.measurement]  # type: ignore[index]
        assert isinstance(settings, ScoreMeasurement)
        points = lattice(settings.points, settings.nfe)
        checked, *_ = counts[part.test]({point: np.zeros(2) for point in points})
        for hits, expected in ((0, "supported"), (checked, "not supported")):
            tested = share_at_most(hits, checked, part.margin)
            assert decide(tested.p_support, tested.p_refute).verdict == expected, (part.name, checked)


@pytest.mark.parametrize("budget", BUDGETS)
def test_no_search_is_cut_off_in_its_first_sweep(budget: str, plans: dict[tuple[str, str], Plan]) -> None:
    searches = [search for (name, _), plan in plans.items() if name == budget for search in plan.searches.values()]
    assert searches
    for search in searches:
        settings = O3SConfig(**search.search.config)
        widest = 1 - 2 * settings.minimum_gap
        for_a_point = 2 * math.ceil(math.log(widest / settings.tolerance) / math.log(1.5))
        assert settings.max_evaluations > (search.nfe - 1) * for_a_point, search.name


@pytest.mark.parametrize("budget", BUDGETS)
def test_every_measurement_has_its_rows(budget: str, plans: dict[tuple[str, str], Plan]) -> None:
    settings = CLAIMS.budgets[budget].measurements  # type: ignore[index]
    for part in (part for claim in CLAIMS.claims for part in claim.parts if of_budget(claim, part, budget)):  # type: ignore[arg-type]
        if part.measurement is None:
            continue
        found = settings[part.measurement]
        sides = [pick.system[0] for pick in (part.a, part.b) if pick is not None]
        if isinstance(found, SpeedMeasurement):
            assert set(sides) <= set(found.rows)
            assert set(found.rows.values()) <= set(plans[budget, found.experiment].rows)
        elif isinstance(found, ScoreMeasurement):
            assert found.artefact in plans[budget, found.experiment].artefacts
        else:
            assert isinstance(found, StepMeasurement)
            assert set(sides) <= set(found.methods)


def test_all_ten_claims_and_who_speaks_of_methods(plans: dict[tuple[str, str], Plan]) -> None:
    assert [claim.number for claim in CLAIMS.claims] == list(range(1, 11))
    small = [claim.number for claim in CLAIMS.claims if "small" in claim.budgets]
    assert small == [1, 2, 3, 4, 7, 8]
    assert all({"cpu", "full"} <= set(claim.budgets) for claim in CLAIMS.claims)
    for (budget, name), plan in plans.items():
        trained = [a for a in plan.artefacts.values() if a.ready is None and a.name != "own-teacher"]
        seeds = {a.system: [b.seed for b in trained if b.system == a.system] for a in trained}
        least = {"small": 1, "cpu": 3, "full": 5}[budget]
        assert all(len(found) >= least for found in seeds.values()), (budget, name)
    stability = plans["cpu", "stability"]
    assert {len([a for a in stability.artefacts.values() if a.system == i]) for i in (0, 1)} == {5}
    assert not stability.rows


def test_nothing_of_claims_is_listed_as_an_experiment() -> None:
    assert "claims" not in CliRunner().invoke(main, ["list", "configs"]).output


def test_an_unknown_claim_is_refused_with_the_nearest() -> None:
    result = CliRunner().invoke(main, ["claims", "--only", "99"])
    assert result.exit_code == 2
    assert "there is no claim 99: the nearest is 10 (The student keeps" in result.output
    assert "1 to 10" in result.output


def test_an_unknown_budget_and_a_file_as_folder_are_refused(tmp_path: Path) -> None:
    assert CliRunner().invoke(main, ["claims", "--budget", "smal"]).exit_code == 2
    file = tmp_path / "file"
    file.touch()
    result = CliRunner().invoke(main, ["claims", "--out", str(file)])
    assert result.exit_code == 2
    assert "is a file; the runs need a folder" in result.output


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("test: non-inferior", "test: noninferior", r"claims.*line \d+"),
        ("figures: *gains", "figurs: *gains", "unknown key 'figurs': did you mean 'figures'"),
        ("measurement: memory", "measurement: memry", "has no measurement 'memry': did you mean 'memory'"),
        ("number: 2", "number: 1", "stand twice"),
        ("margin: 10", "sets: []", "the test 'faster' needs margin"),
        ("sim: 0.03, mos", "sim: -0.03, mos", "greater than 0"),
        ("{small: {wer: 0.07}}", "{small: {were: 0.06}}", "margins_in has were, which is none of the part's figures"),
        ("sets: [noisy, hard, long2, long4]\n        baseline_set", "baseline_set", "name them in `sets`"),
    ],
)
def test_what_is_wrong_in_the_file_is_told(old: str, new: str, told: str, tmp_path: Path) -> None:
    text = FILE.read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "claims.yaml").write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ConfigError, match=told):
        load_claims(tmp_path / "claims.yaml")


def test_settings_reach_every_experiment_and_wrong_ones_are_refused() -> None:
    config = load_experiment("token2mel", "small", ("training.steps=3",))
    assert config is not None
    assert config.training["steps"] == 3
    assert load_experiment("no-such", "small") is None
    with pytest.raises(ConfigError, match="stepz"):
        load_experiment("token2mel", "small", ("training.stepz=3",))


def test_full_is_not_testable_without_an_accelerator(tmp_path: Path) -> None:
    import torch

    if torch.accelerator.is_available():
        pytest.skip("this machine has an accelerator")
    result = CliRunner().invoke(main, ["claims", "--budget", "full", "--out", str(tmp_path / "out"), "--only", "10"])
    assert result.exit_code == 0, result.output
    (record,) = yaml.safe_load((tmp_path / "out" / "claims.json").read_text())
    assert record["verdict"] == "not testable here"
    assert "needs an accelerator" in record["reason"]
    assert record["scale"]["budget"] == "full"


def test_judging_an_empty_folder_passes_nothing(tmp_path: Path) -> None:
    arguments = ["claims", "--no-run", "--only", "4", "--only", "5", "--only", "8", "--out", str(tmp_path)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1, result.output
    found = yaml.safe_load((tmp_path / "claims.json").read_text())
    assert [record["verdict"] for record in found] == ["no evidence", "not testable here", "no evidence"]
    assert "the measurement memory has not been made" in str(found[0]["parts"])
    assert found[1]["reason"] == "the budget small has no experiment for it, only cpu and full"
    assert {path.name for path in tmp_path.iterdir()} == {"claims.json", "claims.md"}  # nothing was run
