"""Sweeps: what a list or a range becomes, what is refused, and which cells are the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from imfbench.config import ExperimentConfig, load
from imfbench.config_file import ConfigError
from imfbench.pipeline.content import cells_of, check_size, row_content
from imfbench.pipeline.plan import make_plan, training_content
from imfbench.ranges import RangeError, numbers, written_out
from imfbench.sweep import _written

BASE = """\
teacher: {artefact: "embedded:token2mel", nfe: [4], guidance: 2.0}
training: {steps: 3, learning_rate: 3.0e-4}
references: []
systems:
  - method: intmeanflow
    config: {teacher_nfe: 4}
    nfe: [1, 2]
"""
Load = Callable[..., ExperimentConfig]


@pytest.fixture
def loaded(tmp_path: Path) -> Load:
    def _load(*settings: str, text: str = BASE) -> ExperimentConfig:
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        return load(str(path), settings)

    return _load


def names(config: ExperimentConfig) -> list[str]:
    return [system.label for system in config.systems]


@pytest.mark.parametrize(
    ("ends", "log", "whole", "expected"),
    [
        ([1, 16, 5], True, True, [1, 2, 4, 8, 16]),
        ([1, 16, 4], False, False, [1, 6, 11, 16]),
        ([1, 2, 3], False, False, [1, 1.5, 2]),
        ([1, 3, 9], False, True, [1, 2, 3]),
        ([0, 0.3, 4], False, False, [0, 0.1, 0.2, 0.3]),
        (["1e-4", "1e-2", 3], True, False, [1e-4, 1e-3, 1e-2]),
        ([4, 1, 4], False, True, [4, 3, 2, 1]),
        ([2, 5], False, False, [2, 3, 4, 5]),
        ([7, 7, 1], False, True, [7]),
    ],
)
def test_a_range_holds_its_ends_and_what_lies_evenly_between(
    ends: list[Any], log: bool, whole: bool, expected: list[float]
) -> None:
    assert numbers(ends, log, whole) == expected


@pytest.mark.parametrize(
    ("ends", "log", "words"),
    [
        ([4, 1], False, "an empty range: no whole number is from 4 to 1"),
        ([1, 4, 0], False, "an empty range: its count is 0"),
        ([], False, "an empty range"),
        ([1, 2, 2.5], False, "its count is 2.5"),
        ([0.1, 1], False, "no telling which numbers"),
        ([0, 8, 3], True, "ends above 0"),
        ([1, 8], True, "needs a count"),
        ([0, 10**9], False, "a range of 1000000001 values"),
        (["a", 2, 3], False, "write {range: [first, last]}"),
    ],
)
def test_a_range_of_nothing_or_too_much_is_refused(ends: list[Any], log: bool, words: str) -> None:
    with pytest.raises(RangeError) as error:
        numbers(ends, log, False)
    assert words in str(error.value)


def test_ranges_stand_among_the_numbers_of_a_list() -> None:
    assert written_out([32, {"range": [1, 3]}], whole=True, splice=True) == [32, 1, 2, 3]
    assert written_out({"ranges": [1, 3]}, whole=True, splice=True) == {"ranges": [1, 3]}


def test_a_sweep_of_a_system_is_a_system_for_each_combination(loaded: Load) -> None:
    config = loaded(
        "systems.0.config.teacher_nfe={range: [2, 8, 3], log: true}", "systems.0.config.guidance=[1.0, 2.0]"
    )
    assert [(s.config["teacher_nfe"], s.config["guidance"]) for s in config.systems] == [
        (k, w) for k in (2, 4, 8) for w in (1.0, 2.0)
    ]
    assert names(config)[:2] == ["intmeanflow-teacher_nfe=2-guidance=1", "intmeanflow-teacher_nfe=2-guidance=2"]
    assert all(system.nfe == [1, 2] for system in config.systems), "what is a list already is no sweep"
    assert config.then == []


def test_the_sign_of_a_number_is_in_the_name(loaded: Load) -> None:
    text = BASE.replace("method: intmeanflow", "method: meanflow").replace("teacher_nfe: 4", "")
    swept = names(loaded("systems.0.config.time_mean=[-0.4, 0.4, -4e-1, '-1e-3']", text=text))
    assert swept == [f"meanflow-time_mean={mean}" for mean in ("-0.4", "0.4", "-1e-3")]
    at = ("key",)
    assert [_written(at, {at: value}, {}) for value in ("-/a b/-", float("-inf"), -3)] == ["a-b", "-inf", "-3"]


def test_lists_stay_lists_where_the_key_takes_one_and_may_be_ranges(loaded: Load) -> None:
    config = loaded(
        "systems.0.nfe={range: [1, 4]}", "noise_seeds={range: [0, 2]}", "training.betas=[0.9, 0.95]",
        "systems.0.grid=[[0, 1], uniform]", "systems.0.nfe=1", "train_data.options.speeds=[1.0, 0.9]", "metrics=[sim, wer]",
        "systems.0.config.grids=[[0, 0.5, 1]]",
    )  # fmt: skip
    assert names(config) == ["intmeanflow"]
    assert config.noise_seeds == [0, 1, 2]
    assert loaded("systems.0.nfe={range: [1, 4]}").systems[0].nfe == [1, 2, 3, 4]


def test_training_settings_are_swept_in_every_system_that_is_trained(loaded: Load) -> None:
    ready = BASE + "  - {method: meanflow, artefact: 'embedded:text2mel-meanflow', nfe: [1]}\n"
    own = "  - {name: mine, method: meanflow, train: {learning_rate: 1.0e-5}, nfe: [1]}\n"
    config = loaded("training.learning_rate=[1e-4, 3e-4]", text=ready + own)
    assert names(config) == ["intmeanflow-learning_rate=1e-4", "intmeanflow-learning_rate=3e-4", "meanflow", "mine"]
    assert [float(s.train["learning_rate"]) for s in config.systems if s.train] == [1e-4, 3e-4, 1e-5]


@pytest.mark.parametrize("where", ["training.seed", "systems.0.train.seed"])
def test_swept_seeds_are_repetitions_of_one_system(loaded: Load, where: str) -> None:
    (system,) = loaded(f"{where}={{range: [0, 2]}}").systems
    assert (system.label, system.seeds, system.train) == ("intmeanflow", [0, 1, 2], {})


def test_a_sweep_below_a_search_trains_nothing_twice(loaded: Load) -> None:
    config = loaded("systems.0.search={method: o3s, nfe: [2, 3], config: {max_evaluations: [5, 9]}}")
    (system,) = config.systems
    assert [(s.label, s.config, s.nfe) for s in system.search] == [
        ("o3s-max_evaluations=5", {"max_evaluations": 5}, [2, 3]),
        ("o3s-max_evaluations=9", {"max_evaluations": 9}, [2, 3]),
    ]
    assert len([a for a in make_plan(config).artefacts.values() if a.ready is None]) == 1


def test_methods_are_swept_before_their_settings(loaded: Load) -> None:
    text = BASE.replace("method: intmeanflow", "method: [meanflow, intmeanflow]").replace("teacher_nfe: 4", "")
    assert names(loaded("systems.0.config.equal_share=[0.0, 0.5]", text=text)) == [
        f"{method}-equal_share={share}" for method in ("meanflow", "intmeanflow") for share in ("0", "0.5")
    ]


def test_a_sweep_over_the_experiment_is_several_in_folders_of_their_own(loaded: Load) -> None:
    text = BASE + "then:\n  - {task: text2mel, teacher: {artefact: 'embedded:text2mel', guidance: [1, 2]}}\n"
    config = loaded("vocoder=[hifigan, griffin-lim]", text=text)
    assert [(p.name, p.task, p.vocoder, p.teacher and p.teacher.guidance) for p in (config, *config.then)] == [
        ("mine", "token2mel", "hifigan", 2.0),
        ("vocoder=griffin-lim", "token2mel", "griffin-lim", 2.0),
        *((f"text2mel-guidance={w}-vocoder={v}", "text2mel", v, w) for w in (1, 2) for v in ("hifigan", "griffin-lim")),
    ]


def test_what_is_recorded_is_the_written_out_form(loaded: Load, tmp_path: Path) -> None:
    config = loaded("systems.0.config.teacher_nfe=[1, 2]", "teacher.guidance=[1, 2]", "training.minutes=[1, 2]")
    again = ExperimentConfig.model_validate(yaml.safe_load(config.dump()))
    assert again == config
    (tmp_path / "experiment.yaml").write_text(config.dump())
    assert load(str(tmp_path)) == config


@pytest.mark.parametrize(
    ("settings", "left", "words"),
    [
        (["systems.0.config.teacher_nfe=[4, 2, 4]"], 2, "1 of 3 variants is the same as another"),
        (["systems.0.config.teacher_nfe=[2, 2.0, 4]"], 2, "1 of 3 variants is the same"),
        (["systems.0.config.guidance=[1, 1.0, 2]", "training.ema=[0.99, 0.9]"], 4, "2 of 6 variants are the same as others"),
    ],
)  # fmt: skip
def test_equal_variants_are_one_and_said_once(
    loaded: Load, monkeypatch: pytest.MonkeyPatch, settings: list[str], left: int, words: str
) -> None:
    said: list[str] = []
    monkeypatch.setattr("imfbench.config.log.info", lambda text, *values: said.append(text % values))
    config = loaded(*settings, text=BASE + "then: [{task: text2mel, teacher: 'embedded:text2mel'}]\n")
    assert len(config.systems) == left
    assert len([text for text in said if words in text]) == 1, said


def test_equal_experiments_are_one(loaded: Load) -> None:
    assert loaded("dataset.limit=[2, 2]", "precision=[fp32, fp32]").then == []
    assert len(loaded("teacher.nfe=8", "dataset.limit=[2, 4]").then) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("teacher_nfe: 4", "teacher_nffe: [1, 2]"), "line 6: systems[0].config.teacher_nffe: unknown key 'teacher_nffe': did"),
        (("teacher_nfe: 4", "teacher_nfe: {range: [4, 1]}"), "line 6: systems[0].config.teacher_nfe: an empty range"),
        (("teacher_nfe: 4", "teacher_nfe: []"), "line 6: systems[0].config.teacher_nfe: an empty list"),
        (("teacher_nfe: 4", "teacher_nfe: [4, 0]"), "line 6: systems[1].config.teacher_nfe: Input should be greater"),
        (("3.0e-4", "{range: [1, 2, 0]}"), "line 2: training.learning_rate: an empty range"),
        (("3.0e-4", "[1.0e-4, fast]"), "line 2: systems[1].train.learning_rate: Input should be a valid number"),
        (("guidance: 2.0", "guidence: [1, 2]"), "line 1: teacher.guidence: unknown key 'guidence': did you mean 'guidance'"),
    ],
)  # fmt: skip
def test_a_wrong_sweep_is_told_with_its_line(loaded: Load, change: tuple[str, str], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        loaded(text=BASE.replace(*change))
    assert words in str(error.value)


def test_a_slip_is_refused_before_it_fills_the_memory(loaded: Load) -> None:
    sweeps = [f"systems.0.config.{key}={{range: [0.1, 0.9, 1000]}}" for key in ("guidance", "on_trajectory")]
    with pytest.raises(ConfigError, match=r"a sweep of 1000000 variants \(systems\[0\]\.config\.guidance \(1000\)"):
        loaded(*sweeps)


def test_a_teacher_that_is_swept_away_is_missed(loaded: Load) -> None:
    own = BASE + "  - {name: own, method: teacher, config: {guidance: [1, 2]}, nfe: [2]}\n"
    with pytest.raises(ConfigError, match=r"teacher\.artefact.*'own' is swept.*own-guidance=1, own-guidance=2"):
        loaded("teacher.artefact=own", text=own)
    assert len(loaded("teacher.artefact=[own-guidance=1, own-guidance=2]", text=own).then) == 1


def test_cells_are_counted_once_and_too_many_are_refused_with_the_count(loaded: Load) -> None:
    config = loaded("systems.0.config.teacher_nfe=[1, 2, 4]", "teacher.guidance=[1, 2]")
    assert cells_of(config) == (14, 8)  # the students' six rows are the same in both experiments, the teacher's is not
    check_size(config, 8)
    with pytest.raises(ConfigError, match=r"mine has 8 cells, with 3 trainings, and --max-cells allows 7"):
        check_size(config, 7)


@pytest.mark.parametrize(
    ("change", "trained", "changed"),
    [
        ("systems.intmeanflow.config.teacher_nfe=8", {"intmeanflow"}, {"intmeanflow 1", "intmeanflow 2"}),
        ("systems.meanflow.train.learning_rate=1", {"meanflow"}, {"meanflow 1"}),
        ("systems.intmeanflow.second_time=random", {"intmeanflow"}, {"intmeanflow 1", "intmeanflow 2"}),
        ("systems.intmeanflow.start=scratch", {"intmeanflow"}, {"intmeanflow 1", "intmeanflow 2"}),
        ("training.save_every=7", set(), set()),
        ("teacher.guidance=1", set(), {"teacher 4"}),
        ("systems.meanflow.solver=midpoint", set(), {"meanflow 2"}),
        ("vocoder=griffin-lim", set(), {"teacher 4", "intmeanflow 1", "intmeanflow 2", "meanflow 1"}),
        ("train_data.options.speeds=[0.9]", {"intmeanflow", "meanflow"}, {"intmeanflow 1", "intmeanflow 2", "meanflow 1"}),
        ("metrics=[f0cv]", set(), set()),
    ],
)  # fmt: skip
def test_a_changed_value_changes_what_depends_on_it_and_nothing_else(
    loaded: Load, change: str, trained: set[str], changed: set[str]
) -> None:
    text = BASE + "  - {method: teacher, name: meanflow, nfe: [1]}\n"
    settings = (change, "systems.meanflow.nfe=2") if "midpoint" in change else (change,)

    def contents(config: ExperimentConfig) -> tuple[dict[str, str], dict[str, str]]:
        plan = make_plan(config)
        rows = {f"{row.system} {row.nfe}": row_content(config, plan, row) for row in plan.rows.values()}
        return {n: training_content(config, a) for n, a in plan.artefacts.items() if a.ready is None}, rows

    before, after = contents(loaded(text=text)), contents(loaded(*settings, text=text))
    assert {name for name in after[0] if after[0][name] != before[0][name]} == trained
    assert {name for name in after[1] if after[1][name] != before[1].get(name)} == changed


def test_the_pages_example_is_what_it_says(loaded: Load) -> None:
    page = (Path(__file__).parent.parent / "docs" / "sweeps.md").read_text(encoding="utf-8")
    example = page[page.index("    name: k_sweep") : page.index("    imfbench run k_sweep.yaml")]
    config = loaded(text="\n".join(line[4:] for line in example.splitlines()))
    assert names(config) == [f"intmeanflow-teacher_nfe={k}" for k in (1, 2, 4)]
    assert cells_of(config) == (10, 10)
    for written, expected in (([0, 4], [0, 1, 2, 3, 4]), ([1, 2, 5], [1, 1.25, 1.5, 1.75, 2])):
        assert f"`{{range: {written}}}`" in page
        assert numbers(written, False, False) == expected
