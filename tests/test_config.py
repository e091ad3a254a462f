"""Configurations: defaults, and complaints that name the file, the line and the nearest right word."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from imfbench.config import ExperimentConfig, load
from imfbench.config_file import ConfigError, shipped
from imfbench.devices import available_threads

GOOD = """\
name: small
dataset: {split: test, limit: 3}
training:
  steps: 2
  learning_rate: 1e-4
systems:
  - method: teacher
    name: own
    nfe: 4
    grid: sway
  - method: teacher
    name: other
    nfe: [1, 2]
    grid: [uniform, shift(0.7)]
metrics: [f0cv]
"""


@pytest.fixture
def write(tmp_path: Path):  # type: ignore[no-untyped-def]
    def _write(text: str) -> str:
        path = tmp_path / "mine.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return _write


def complaint(path: str, *settings: str) -> str:
    with pytest.raises(ConfigError) as error:
        load(path, settings)
    return str(error.value)


def test_a_short_file_takes_documented_defaults(write) -> None:  # type: ignore[no-untyped-def]
    config = load(write(GOOD))
    assert config.systems[0].nfe == [4]
    assert config.systems[0].grid == ["sway"]
    assert config.systems[1].grid == ["uniform", "shift(0.7)"]
    assert config.metrics == {"f0cv": {}}
    assert config.references == ["ground-truth", "vocoded-ground-truth"]
    assert config.overwrite == "only-missing"


def test_searches_look_at_the_development_set_unless_told_otherwise(write) -> None:  # type: ignore[no-untyped-def]
    """Also where another of its settings is given."""
    assert load(write(GOOD)).dev.split == "dev"
    assert load(write(GOOD + "dev: {limit: 2}\n")).dev.split == "dev"
    assert load(write(GOOD), ("dev.limit=2",)).dev.split == "dev"
    assert load(write(GOOD + "dev: {split: hard}\n")).dev.split == "hard"


def test_the_name_is_the_files_if_none_is_given(write) -> None:  # type: ignore[no-untyped-def]
    assert load(write("dataset: {limit: 1}\n")).name == "mine"


def test_the_resolved_form_reads_back_equal(write) -> None:  # type: ignore[no-untyped-def]
    config = load(write(GOOD))
    again = ExperimentConfig.model_validate(yaml.safe_load(config.dump()))
    assert again == config
    assert again.hash == config.hash


def test_the_hash_holds_what_decides_figures_and_nothing_else(write) -> None:  # type: ignore[no-untyped-def]
    config = load(write(GOOD))
    assert load(write(GOOD), ("device=cpu", "threads=1", "name=else")).hash == config.hash
    assert load(write(GOOD), ("systems.own.nfe=5",)).hash != config.hash


def test_workers_by_themselves(write, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    """On a CPU as many as there are cores, up to four; on an accelerator, whose work they would share, one."""
    for cores, workers in ((1, 1), (2, 2), (64, 4)):
        monkeypatch.setattr("imfbench.devices.available_cores", lambda cores=cores: cores)
        assert load(write(GOOD), ("workers=auto", "device=cpu")).workers == workers
    monkeypatch.setattr("imfbench.devices.resolve_device", lambda _: torch.device("meta"))
    assert load(write(GOOD), ("workers=auto",)).workers == 1
    with pytest.raises(ConfigError, match="workers"):
        load(write(GOOD), ("workers=many",))


def test_set_reaches_systems_by_name_and_index(write) -> None:  # type: ignore[no-untyped-def]
    settings = (
        "systems.own.nfe=[2, 8]",
        "systems.1.solver=midpoint",
        "systems.1.nfe=4",
        "dev.limit=1",
        "vocoder=griffin-lim",
    )
    config = load(write(GOOD), settings)
    assert config.systems[0].nfe == [2, 8]
    assert config.systems[1].solver == "midpoint"
    assert config.dev.limit == 1
    assert config.vocoder == "griffin-lim"


def test_an_explicit_grid_is_one_grid(write) -> None:  # type: ignore[no-untyped-def]
    text = GOOD.replace("grid: sway", "grid: [0, 0.65, 1]").replace("nfe: 4", "nfe: 2")
    assert load(write(text)).systems[0].grid == [[0.0, 0.65, 1.0]]


@pytest.mark.parametrize(
    ("change", "line", "words"),
    [
        (("training:", "trainng:"), 3, "unknown key 'trainng': did you mean 'training'"),
        (("limit: 3", "limt: 3"), 2, "unknown key 'limt': did you mean 'limit'"),
        (("limit: 3", "limit: 0"), 2, "greater than or equal to 1"),
        (("steps: 2", "stepps: 2"), 4, "unknown key 'stepps': did you mean 'steps'"),
        (("learning_rate: 1e-4", "learning_rate: fast"), 5, "valid number"),
        (("method: teacher", "method: teecher"), 7, "unknown method 'teecher': did you mean 'teacher'"),
        (("name: other", "name: own"), 11, "both called 'own'"),
        (("name: other", "name: a/b"), 12, "names a folder"),
        (("nfe: [1, 2]", "nfe: [1, 0]"), 13, "greater than or equal to 1"),
        (("grid: sway", "grid: swey"), 10, "did you mean 'sway'"),
        (("grid: sway", "grid: [0, 0.5, 1]"), 10, "2 steps, but 4 were asked for"),
        (("grid: sway", "grid: sway\n    solver: eular"), 11, "unknown solver 'eular': did you mean 'euler'"),
        (("grid: sway", "grid: sway\n    config: {guidence: 1}"), 11, "unknown key 'guidence': did you mean 'guidance'"),
        (("grid: sway", "grid: sway\n    network: {name: dit, config: {dpth: 2}}"), 11, "unknown key 'dpth'"),
        (("metrics: [f0cv]", "metrics: [f0cw]"), 15, "unknown metric 'f0cw': did you mean 'f0cv'"),
        (("metrics: [f0cv]", "metrics: {wer: {beem: 1}}"), 15, "unknown key 'beem'"),
        (("metrics: [f0cv]", "vocoder: hifigun"), 15, "unknown vocoder 'hifigun': did you mean 'hifigan'"),
        (("{split: test, limit: 3}", "{name: dmo}"), 2, "unknown dataset 'dmo': did you mean 'demo'"),
        (("{split: test, limit: 3}", "{options: {rot: x}}"), 2, "no option 'rot': did you mean 'root'"),
        (("name: other", "name: other\n    search: {method: o3s, nfe: 2, score: similarity}"), 13, "unknown score"),
        (("name: other", "name: other\n    search: {method: teacher, nfe: 2, score: sim}"), 13, "searches no grid"),
        (("name: other", "name: other\n    search: {method: o3s, nfe: 2, score: wer}"), 13, "write {wer: -1}"),
        (("name: other", "name: other\n    search: {method: o3s, nfe: 2, score: {sim: -2}}"), 13, "write {sim: 2}"),
        (("name: other", "name: other\n    search: {method: o3s, nfe: 2, score: f0cv}"), 13, "neither direction"),
        (("name: other", "name: other\n    search: [{nfe: 2}, {nfe: 3}]"), 13, "two searches of 'other' are called 'o3s'"),
        (("name: other", "name: other\n    search:\n    - {nfe: 2}\n    - {name: x, nef: 3}"), 15, "did you mean 'nfe'"),
        (("name: other", "name: other\n    train: {sted: 1}"), 13, "did you mean 'seed'"),
        (("name: other", "name: other\n    seeds: [0, 99999999999999]"), 13, "less than 4294967296"),
        (("learning_rate: 1e-4", "betas: [0.9, 1.5]"), 5, "less than 1"),
        (("learning_rate: 1e-4", "weight_decay: -1"), 5, "greater than or equal to 0"),
        (("grid: sway", "grid: sway\n    network: {config: {dim: 100, heads: 3}}"), 11, "it must be a multiple of 6"),
        (("grid: sway", "grid: sway\n    network: {config: {convolution: 6}}"), 11, "no middle: an odd number, such as 7"),
        (("grid: sway", "grid: sway\n    network: {config: {depth: -1}}"), 11, "greater than or equal to 1"),
        (("name: other", "name: other\n    artefact: embedded:token2mel\n    train: {seed: 3}"), 14, "nothing beside `artefact`"),
        (("name: other", "name: other\n    artefact: embedded:text2mel-meanflow"), 11, "method 'meanflow', not 'teacher'"),
    ],
)  # fmt: skip
def test_complaints_name_file_line_and_nearest_word(write, change, line, words) -> None:  # type: ignore[no-untyped-def]
    assert change[0] in GOOD
    path = write(GOOD.replace(*change, 1))
    told = complaint(path)
    assert words in told
    assert told.startswith(f"{path}, line {line}: ")


def test_all_complaints_come_at_once(write) -> None:  # type: ignore[no-untyped-def]
    told = complaint(write(GOOD.replace("limit: 3", "limt: 3").replace("metrics:", "metricks:")))
    assert "line 2" in told
    assert "line 15" in told


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("training.stepps=3", "--set training.stepps=3: training.stepps: unknown key 'stepps': did you mean 'steps'"),
        ("systems.onw.nfe=3", "no entry 'onw': did you mean 'own'"),
        ("systems.7.nfe=3", "no entry '7'"),
        ("name.first=x", "below a plain value"),
        ("training.steps", "write it as key=value"),
        ("training.steps=[1", "not a YAML value"),
        ("training.steps=many", "--set training.steps=many: training.steps"),
    ],
)
def test_complaints_about_settings_name_the_setting(write, setting, words) -> None:  # type: ignore[no-untyped-def]
    assert words in complaint(write(GOOD), setting)


def test_yaml_mistakes_have_their_line(write) -> None:  # type: ignore[no-untyped-def]
    assert "mine.yaml, line 3: not valid YAML" in complaint(write("name: a\ndataset: {split: test\nvocoder: b\n"))
    assert "line 3: the key 'name' is given twice" in complaint(write("name: a\ntask: token2mel\nname: b\n"))
    assert "is a mapping of keys to values" in complaint(write("- a\n- b\n"))
    assert "mine.yaml: not valid YAML: month must be in 1..12" in complaint(write("name: 2024-13-45\n"))
    assert "an alias stands within what it stands for" in complaint(write("name: a\nsystems: &a [*a]\n"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("metrics: [f0cv]", "metrics: [3]"), "a list of names, or of names with their options"),
        (("metrics: [f0cv]", "metrics: [[wer]]"), "a list of names, or of names with their options"),
        (("metrics: [f0cv]", "reports: {5: }"), "must be a word"),
        (("nfe: [1, 2]", "nfe: 1000000000000"), "less than or equal to 10000"),
        (("name: other", "name: other\n    seeds: []"), "at least 1 item"),
        (("metrics: [f0cv]", "noise_seeds: []"), "at least 1 item"),
        (("name: other", "name: other\n    search: {nfe: []}"), "at least 1 item"),
        (("name: small", "name: ../../evil"), "it names a folder"),
        (("name: small", "name: ''"), "it names a folder"),
        (("name: small", "name: .hidden"), "it names a folder"),
        (("metrics: [f0cv]", "then: [{name: a/b}]"), "it names a folder"),
        (("metrics: [f0cv]", "then: [{name: report}]"), "'report' is taken: its name is a folder of the run"),
        (("metrics: [f0cv]", "then: [{name: manifest.json}]"), "is taken"),
    ],
)
def test_values_that_no_run_can_have_are_refused(write, change: tuple[str, str], words: str) -> None:  # type: ignore[no-untyped-def]
    assert change[0] in GOOD
    assert words in complaint(write(GOOD.replace(*change, 1)))


def test_what_needs_a_teacher_says_so(write) -> None:  # type: ignore[no-untyped-def]
    told = complaint(write("training: {steps: 1}\nsystems:\n  - {method: intmeanflow, nfe: 1}\n"))
    assert "line 3" in told
    assert "needs a `teacher`, for instance embedded:token2mel" in told
    told = complaint(write("systems:\n  - {method: o3s, nfe: 1}\n"))
    assert "is a search: it stands under a system's `search`" in told


def test_what_a_student_takes_from_its_teacher_is_not_set(write) -> None:  # type: ignore[no-untyped-def]
    begin = "training: {steps: 1}\nteacher: embedded:token2mel\nsystems:\n"
    told = complaint(write(begin + "  - {method: intmeanflow, nfe: 1, network: {config: {dim: 128}}}\n"))
    assert "line 4" in told
    assert "does nothing: 'intmeanflow' takes its teacher's network" in told


def test_a_search_for_the_teachers_output_needs_some_of_it(write) -> None:  # type: ignore[no-untyped-def]
    begin = "training: {steps: 1}\nteacher: {artefact: embedded:token2mel, nfe: []}\nsystems:\n"
    told = complaint(write(begin + "  - {method: intmeanflow, nfe: 1, search: {nfe: 2}}\n"))
    assert "teacher-distance needs the teacher's own output: set teacher.nfe" in told
    assert load(write(begin + "  - {method: intmeanflow, nfe: 1, search: {nfe: 2, score: sim}}\n")).teacher is not None


def test_a_teacher_that_is_guided_already_is_not_guided_again(write) -> None:  # type: ignore[no-untyped-def]
    """Told before anything is trained: of a network that ships, and of one that the experiment trains first."""
    begin = (
        "training: {steps: 1}\ntask: text2mel\nteacher: {artefact: embedded:text2mel-intmeanflow, nfe: 1}\nsystems:\n"
    )
    student = "  - {method: intmeanflow, name: again, nfe: 1, config: {guidance: %s}}\n"
    told = complaint(write(begin + student % 2))
    assert "line 5" in told
    assert "the teacher has its guidance (w = 2) in its weights" in told
    assert load(write(begin + student % 0)).systems[0].label == "again"
    chain = "training: {steps: 1}\nteacher: embedded:token2mel\nsystems:\n  - {method: reflow, nfe: 1}\n"
    own = chain.replace("embedded:token2mel", "reflow") + "  - {method: shortcut, nfe: 1}\n"
    assert "would guide it again" in complaint(write(own))
    ready = "{method: intmeanflow, name: flow, nfe: 1, artefact: %s}"
    taught = "training: {steps: 1}\ntask: text2mel\nteacher: flow\nsystems:\n  - " + ready + "\n" + student % 2
    assert "(w = 2) in its weights" in complaint(write(taught % "embedded:text2mel-intmeanflow"))


def test_an_unknown_experiment_answers_with_the_nearest() -> None:
    assert "did you mean 'quickstart'" in complaint("quikstart")
    assert "no such file" in complaint("missing/mine.yaml")


@pytest.mark.parametrize("name", shipped())
def test_what_ships_is_valid(name: str) -> None:
    assert load(name).name == name


def test_quickstart_has_the_promised_rows_and_an_equal_budget() -> None:
    config = load("quickstart")
    assert config.teacher is not None
    assert config.teacher.nfe == [32, 3, 2, 1]
    assert {s.label: s.nfe for s in config.systems} == {"meanflow": [1, 2], "intmeanflow": [1, 2, 3]}
    (search,) = config.systems[1].search
    assert (search.method, search.nfe, search.score) == ("o3s", [2], {"teacher-distance": 1.0})
    assert search.config["max_evaluations"] <= 25
    assert config.dataset[0].limit is not None
    assert config.dataset[0].limit >= 24
    assert config.dev.limit is not None
    assert config.dev.limit <= 8
    assert config.training["minutes"] > 0
    assert all(system.train == {} for system in config.systems)
    (text,) = config.then
    assert text.task == "text2mel"
    assert {s.label: (s.artefact, s.nfe) for s in text.systems} == {
        name: (f"embedded:text2mel-{name}", [1, 3]) for name in ("meanflow", "intmeanflow")
    }


@pytest.mark.parametrize(("set_to", "threads"), [("", 6), ("3", 3), ("3,1", 3), ("0", 6), ("many", 6)])
def test_the_usual_variable_says_how_many_threads(monkeypatch: pytest.MonkeyPatch, set_to: str, threads: int) -> None:
    monkeypatch.setattr("imfbench.devices.available_cores", lambda: 6)
    monkeypatch.setenv("OMP_NUM_THREADS", set_to)
    assert available_threads() == threads


def test_a_systems_own_minutes_are_not_outdone_by_the_experiments_steps(write) -> None:  # type: ignore[no-untyped-def]
    config = load(write(GOOD.replace("name: other", "name: other\n    train: {minutes: 3}")))
    assert [config.training_of(system).get("steps") for system in config.systems] == [2, None]
    assert config.training_of(config.systems[1])["minutes"] == 3
    timed = config.systems[1].model_copy(update={"train": {"minutes": 3, "steps": 7}})
    assert config.training_of(timed)["steps"] == 7
