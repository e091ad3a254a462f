"""What a plan counts where a run has been begun: other limits, workers, figures on record, and searches that are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import imfbench.sampling
from imfbench.artefact import save_artefact
from imfbench.building import build_method
from imfbench.cli import main
from imfbench.config import load
from imfbench.pipeline import manifest
from imfbench.pipeline.context import Context
from imfbench.pipeline.cost import Left, costs_of
from imfbench.pipeline.measurements import MEASURED, RECORDED, Figure, Measurements
from imfbench.pipeline.overview import measure_first, plan_of
from imfbench.pipeline.planning import plan_experiment
from imfbench.store import RunFolder, read_json, write_json

SHAPE = {"dim": 32, "depth": 1, "heads": 2}


@pytest.fixture
def two_processes(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A machine of four threads; torch has as many as before afterwards."""
    monkeypatch.setattr("imfbench.pipeline.context.available_threads", lambda: 4)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_lowered_limit_leaves_nothing_to_do_and_no_less_than_that(tiny) -> None:  # type: ignore[no-untyped-def]
    path = tiny.config(dataset={"limit": 4}, references=["ground-truth"])
    assert tiny.invoke(path).exit_code == 0
    for limit, missing in ((2, 0), (5, 1)):
        (left,), _ = plan_of(load(str(path), (f"dataset.limit={limit}",)), tiny.out)
        assert [many for _, many in left.cells] == [missing] * 2
        assert left.scores == {"sim": 2 * missing}


def test_rows_of_several_processes_are_found_by_the_threads_of_each(tiny, two_processes: None) -> None:  # type: ignore[no-untyped-def]
    path = tiny.config(threads=2, references=[])
    assert tiny.invoke(path).exit_code == 0
    config = load(str(tiny.config(threads=None, workers=2, references=[])))
    (left,), found = plan_of(config, tiny.out)
    assert left.context.threads == torch.get_num_threads() == 2
    sources = {key[0]: figure.source for key, figure in found.figures.items()}
    assert (sources["call"], sources["vocoder"]) == (RECORDED, RECORDED)
    context = Context(config, RunFolder(tiny.out))
    assert context.threads == 4, "this process trains and samples nothing"
    manifest.begin(context, ("report",))
    assert read_json(tiny.out / "manifest.json")["threads"] == 2


def test_a_first_cell_is_timed_with_the_threads_of_its_experiment(  # type: ignore[no-untyped-def]
    tiny, two_processes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    monkeypatch.setattr("imfbench.pipeline.overview.first_cell", lambda *_: seen.append(torch.get_num_threads()))
    config = load(str(tiny.config(threads=None, workers=2, then=[{"name": "more", "workers": 4}])))
    lefts, found = plan_of(config, tiny.out)
    for left in lefts:
        measure_first(left, found, ("synthesise",))
    assert seen == [2, 1]


def test_scoring_takes_its_processes_a_share_of_what_one_takes(tiny, two_processes: None) -> None:  # type: ignore[no-untyped-def]
    path = tiny.config(threads=None, workers=2, references=["ground-truth"], systems=[])
    write_json(
        tiny.out / "costs.json",
        {"sim": {"utterances": 3, "seconds": 6.0, "load_seconds": 1.0, "memory": 0, "workers": 2, "options": {}}},
    )
    (left,), found = plan_of(load(str(path)), tiny.out)
    assert found.get("score", "sim") == Figure(4.0, RECORDED), "of one of two processes"
    (cost,) = costs_of(left, found, ("score",))
    assert cost.seconds == 2 * 4.0 / 2 + 1.0


def test_sampling_counts_the_evaluation_before_each_clock(tiny, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    """As many network calls as the samplers make: counted at the network."""
    path = tiny.config(references=[], metrics=["f0cv"], dataset={"limit": 3})
    (left,), found = plan_of(load(str(path)), tiny.out)
    monkeypatch.setattr("imfbench.pipeline.cost.call_figure", lambda *_: Figure(1.0, MEASURED))
    found.figures = {("vocoder", ""): Figure(0.0, MEASURED)}
    (planned,) = costs_of(left, found, ("synthesise",))
    made: list[int] = []
    sample = imfbench.sampling.synthesize_mel

    def counted(*args: Any, **settings: Any) -> Any:
        mel, counts = sample(*args, **settings)
        made.append(counts.network_calls)
        return mel, counts

    for module in ("sampling", "pipeline.synthesise"):
        monkeypatch.setattr(f"imfbench.{module}.synthesize_mel", counted)
    assert tiny.invoke(path).exit_code == 0
    assert len(left.cells) > 0
    assert planned.seconds == sum(made)


def test_only_what_is_on_record_takes_the_place_of_a_figure() -> None:
    def kept(*sources: str, elsewhere: bool = False) -> Figure:
        found = Measurements(elsewhere=elsewhere)
        for number, source in enumerate(sources):
            found.keep(("step", "x"), number, source)
        return found.figures["step", "x"]

    assert kept("estimated", MEASURED) == Figure(0, "estimated")
    assert kept("estimated", RECORDED, RECORDED, MEASURED) == Figure(1, RECORDED)
    assert kept("estimated", RECORDED, elsewhere=True) == Figure(0, "estimated")


def test_a_partly_finished_run_is_planned_by_its_own_seconds_unless_for_another_machine(tiny) -> None:  # type: ignore[no-untyped-def]
    path = tiny.config(systems=[{**tiny.trained[0], "seeds": [0, 1]}], references=[])
    config, folder = load(str(path)), RunFolder(tiny.out).artefact("own-seed0")
    save_artefact(
        folder, "teacher", build_method("teacher", backbone_config=SHAPE), {"name": "own", "task": "token2mel"}
    )
    write_json(folder / "status.json", {"status": "ok", "steps": 4, "seconds_per_step": 1000.0, "peak_memory": 7})
    here = plan_experiment(config, tiny.out, measure=False)
    elsewhere = plan_experiment(config, tiny.out, measure=False, flops_per_second=1e9)
    train, there = here.stages[0], elsewhere.stages[0]
    assert (train.left, train.seconds, train.sources) == ("1 training", 4 * 1000.0, {RECORDED}), here.notes
    assert there.seconds == pytest.approx(elsewhere.trainings[1].seconds)
    assert there.sources == {"estimated"}


def searching(tiny: Any, **changes: Any) -> dict[str, Any]:
    search = {"method": "o3s", "nfe": [2], "score": "sim", "config": {"max_evaluations": 2}, **changes}
    return {"method": "teacher", "name": "own", "artefact": str(tiny.artefact()), "nfe": [1], "search": search}


def searches(lefts: list[Left]) -> list[list[str]]:
    return [[search.name for search in left.searches] for left in lefts]


def test_a_search_of_two_experiments_is_counted_once(tiny) -> None:  # type: ignore[no-untyped-def]
    other = {**searching(tiny, config={"max_evaluations": 3}), "name": "other"}
    same = {**searching(tiny), "name": "same"}
    then = [{"name": "more", "dataset": {"limit": 1}, "systems": [same, other], "metrics": ["f0cv"]}]
    path = tiny.config(systems=[searching(tiny)], then=then)
    lefts, found = plan_of(load(str(path)), tiny.out)
    assert searches(lefts) == [["own+o3s-2"], ["other+o3s-2"]]
    assert lefts[1].taken["search:same+o3s-2"] == "out/own+o3s-2"
    assert costs_of(lefts[1], found, ("search",))[0].left == "1 search, at most 3 grids"
    told = CliRunner().invoke(main, ["run", str(path), "--dry-run", "--no-measuring", "--out", str(tiny.out)])
    assert "as out/own+o3s-2" in " ".join(told.output.split()), told.output


def test_a_grid_of_another_recipe_is_to_be_found_anew(tiny) -> None:  # type: ignore[no-untyped-def]
    path = tiny.config(systems=[searching(tiny)], references=[], metrics=["f0cv"])
    assert tiny.invoke(path, command="search").exit_code == 0

    def left(*changes: str) -> list[str]:
        (found,) = searches(plan_of(load(str(path), changes), tiny.out)[0])
        words = [word for change in changes for word in ("--set", change)]
        told = CliRunner().invoke(
            main, ["search", str(path), "--dry-run", "--no-measuring", "--out", str(tiny.out), *words]
        )
        assert ("done, 2 evaluations" in told.output) == (not found), told.output
        return found

    assert left() == left("metrics=[sim]") == []
    assert left("dev.limit=2") == left("precision=bf16") == ["own+o3s-2"]


def test_a_grid_of_a_network_that_is_trained_further_or_diverged(tiny) -> None:  # type: ignore[no-untyped-def]
    system = {**tiny.trained[0], "search": searching(tiny)["search"]}
    path = tiny.config(systems=[system], references=[], metrics=["f0cv"])
    for command in ("train", "search"):
        assert tiny.invoke(path, command=command).exit_code == 0
    assert searches(plan_of(load(str(path)), tiny.out)[0]) == [[]]
    assert searches(plan_of(load(str(path), ("training.steps=5",)), tiny.out)[0]) == [["own+o3s-2"]]
    Path(tiny.out / "grids" / "own+o3s-2.json").unlink()
    assert searches(plan_of(load(str(path)), tiny.out)[0]) == [["own+o3s-2"]]
    status = tiny.out / "artefacts" / "own" / "status.json"
    write_json(status, {**read_json(status), "status": "diverged"})
    assert searches(plan_of(load(str(path)), tiny.out)[0]) == [[]], "a network that diverged is not searched for"
