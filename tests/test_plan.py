"""How an experiment is unrolled into artefacts, rows and jobs."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from imfbench.config import ExperimentConfig
from imfbench.config_file import ConfigError
from imfbench.data import Utterance
from imfbench.flow.grids import GridError
from imfbench.pipeline.context import select
from imfbench.pipeline.plan import grid_for, make_plan
from imfbench.pipeline.train_task import check_processes
from imfbench.registry import METHODS
from imfbench.train_settings import TrainConfig


def plan_of(**settings: Any):  # type: ignore[no-untyped-def]
    return make_plan(ExperimentConfig.model_validate({"name": "x", "training": {"steps": 1}, **settings}))


def test_grids_of_equal_values_are_one_row() -> None:
    plan = plan_of(
        systems=[{"method": "teacher", "name": "a", "nfe": [1, 2], "grid": ["uniform", "sway", "epss", "shift"]}]
    )
    sampled = [row.label for row in plan.rows.values() if row.kind == "sampled"]
    assert sampled == ["a 1 NFE uniform", "a 2 NFE uniform", "a 2 NFE sway", "a 2 NFE shift(0.5)"]


def test_every_noise_seed_and_training_seed_is_a_row_and_seeds_are_artefacts() -> None:
    plan = plan_of(noise_seeds=[0, 1], systems=[{"method": "teacher", "name": "a", "seeds": [3, 4], "nfe": 2}])
    assert list(plan.artefacts) == ["a-seed3", "a-seed4"]
    assert [(r.artefact, r.noise_seed) for r in plan.rows.values() if r.kind == "sampled"] == [
        ("a-seed3", 0),
        ("a-seed4", 0),
        ("a-seed3", 1),
        ("a-seed4", 1),
    ]


def test_a_name_that_a_training_seed_has_already_is_refused() -> None:
    one = {"method": "teacher", "nfe": 2}
    with pytest.raises(
        ConfigError, match="two networks of this experiment are called 'a-seed4', one of them after a training"
    ):
        plan_of(systems=[{**one, "name": "a", "seeds": [3, 4]}, {**one, "name": "a-seed4"}])


def test_a_search_is_a_system_of_its_own_and_waits_for_its_artefact() -> None:
    plan = plan_of(
        teacher="embedded:token2mel",
        systems=[{"method": "intmeanflow", "nfe": [1], "search": {"method": "o3s", "nfe": [2, 3]}}],
    )
    found = [row for row in plan.rows.values() if row.search]
    assert [(row.system, row.search, row.nfe) for row in found] == [
        ("intmeanflow+o3s", "intmeanflow+o3s-2", 2),
        ("intmeanflow+o3s", "intmeanflow+o3s-3", 3),
    ]
    assert "train:intmeanflow" in plan.jobs["search:intmeanflow+o3s-2"].needs
    assert "search:intmeanflow+o3s-3" in plan.jobs[f"synthesise:{found[1].label}"].needs


def test_several_searches_of_one_system_have_rows_and_grids_of_their_own() -> None:
    searches = [
        {"method": "o3s", "nfe": 2},
        {"method": "o3s", "name": "o3s-sim", "nfe": [2, 3], "score": "sim"},
    ]
    plan = plan_of(teacher="embedded:token2mel", systems=[{"method": "intmeanflow", "nfe": [1], "search": searches}])
    assert {name: search.search.score for name, search in plan.searches.items()} == {
        "intmeanflow+o3s-2": {"teacher-distance": 1.0},
        "intmeanflow+o3s-sim-2": {"sim": 1.0},
        "intmeanflow+o3s-sim-3": {"sim": 1.0},
    }
    assert [row.system for row in plan.rows.values() if row.search] == [
        "intmeanflow+o3s",
        "intmeanflow+o3s-sim",
        "intmeanflow+o3s-sim",
    ]
    assert len({row.label for row in plan.rows.values()}) == len(plan.rows)


def test_jobs_come_after_what_they_need() -> None:
    plan = plan_of(
        teacher="own",
        systems=[
            {"method": "intmeanflow", "nfe": [1], "search": {"method": "o3s", "nfe": 2}},
            {"method": "teacher", "name": "own", "nfe": [4]},
        ],
    )
    seen: set[str] = set()
    for job in plan.ordered():
        assert set(job.needs) <= seen, job.name
        seen.add(job.name)
    assert seen == set(plan.jobs)
    assert "train:own" in plan.jobs["train:intmeanflow"].needs
    assert {job.subject for job in plan.of_stage("score")} == {"wer", "sim", "mos", "f0cv"}


def test_the_teacher_at_full_nfe_and_both_recordings_are_rows() -> None:
    plan = plan_of(teacher={"artefact": "embedded:token2mel", "nfe": [32, 1]})
    assert list(plan.rows) == ["ground-truth", "vocoded-ground-truth", "teacher 32 NFE sway", "teacher 1 NFE uniform"]


def test_trainings_in_a_circle_are_refused() -> None:
    with pytest.raises(ConfigError, match="in a circle"):
        plan_of(teacher="a", systems=[{"method": "intmeanflow", "name": "a", "nfe": 1}])


def test_midpoint_takes_two_evaluations_a_step_and_no_average_velocity() -> None:
    plan = plan_of(systems=[{"method": "teacher", "name": "a", "nfe": [4], "solver": "midpoint"}])
    assert "a 4 NFE uniform midpoint" in plan.rows
    with pytest.raises(ValueError, match="use euler"):
        plan_of(teacher="embedded:x", systems=[{"method": "intmeanflow", "nfe": [2], "solver": "midpoint"}])
    with pytest.raises(ConfigError, match="3 evaluations are no whole number of midpoint steps"):
        plan_of(systems=[{"method": "teacher", "name": "a", "nfe": [3], "solver": "midpoint"}])


def utterance(id: str, speaker: str, seconds: float) -> Utterance:
    from pathlib import Path

    return Utterance(id, "text", "en", speaker, "p", "prompt", Path("p.flac"), None, seconds)


def test_a_limit_takes_speakers_in_turn_and_larger_limits_keep_smaller_ones() -> None:
    rows = [utterance(f"{s}{i}", s, 10 - i) for s in "abc" for i in range(4)]
    assert [u.id for u in select(rows, 4, False)] == ["a0", "a1", "b0", "c0"]
    assert [u.id for u in select(rows, 3, True)] == ["a3", "b3", "c3"]
    assert select(rows, None, True) == rows
    for limit in range(1, 12):
        small, large = ({u.id for u in select(rows, n, True)} for n in (limit, limit + 1))
        assert len(small) == limit
        assert small < large
    assert len(select(rows, 99, False)) == 12


def test_methods_say_which_guidance_their_training_bakes_in() -> None:
    def baked(name: str, **config: object) -> float | None:
        method = METHODS.get(name)
        return getattr(method(method.Config(**config), nn.Identity()), "baked_guidance", 0.0)

    assert baked("teacher") is None
    assert baked("intmeanflow", guidance=1.5) == 1.5
    assert baked("meanflow", omega=3.0) == 2.0
    assert baked("meanflow", omega=1.5, kappa=0.5, guidance_from="self", condition_dropout=0.1) == 2.0
    assert baked("meanflow", guidance_from="none") == 0.0


def test_a_searched_grid_is_taken_from_its_file(tmp_path: Path) -> None:
    """Two rows by one file would be of two step counts: a file is of one."""
    file = tmp_path / "searched.json"
    file.write_text('{"values": [0, 0.37, 1], "score": 1.5}')
    plan = plan_of(systems=[{"method": "teacher", "name": "a", "nfe": [2], "grid": ["uniform", str(file)]}])
    rows = [row for row in plan.rows.values() if row.kind == "sampled"]
    assert [row.grid for row in rows] == ["uniform", str(file)]
    assert grid_for(str(file), 2, "euler").tolist() == pytest.approx([0, 0.37, 1])
    assert grid_for(str(file), 4, "midpoint").tolist() == pytest.approx([0, 0.37, 1])
    with pytest.raises(GridError, match="2 steps, but 3 were asked for"):
        grid_for(str(file), 3, "euler")
    with pytest.raises(
        ConfigError, match=f"no grid file {tmp_path}/other.json; searched grids lie under runs/NAME/grids/"
    ):
        grid_for(f"{tmp_path}/other.json", 2, "euler")


@pytest.mark.parametrize(
    ("asked", "workers", "told"), [(2, 1, ""), (3, 1, "there are 2 accelerators"), (2, 2, "set one of them to 1")]
)
def test_processes_of_a_training_are_as_many_as_there_are_accelerators(
    asked: int, workers: int, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    config = ExperimentConfig.model_validate({"name": "x", "workers": workers})
    settings = TrainConfig(steps=1, accumulate=6, processes=asked)
    with pytest.raises(ConfigError, match=told) if told else contextlib.nullcontext():
        check_processes(config, settings, torch.device("xpu"))
    if workers == 1:
        check_processes(config, settings, torch.device("cpu"))  # which any number may share
