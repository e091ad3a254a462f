"""A plan's figures are of this machine, of these settings and of this network, and finished work is no cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from imfbench.artefact import save_artefact
from imfbench.building import build_method
from imfbench.config import load
from imfbench.pipeline.content import cells_of
from imfbench.pipeline.context import Context
from imfbench.pipeline.cost import costs_of
from imfbench.pipeline.measurements import MEASURED, RECORDED, Figure, Measurements, first_cell, step_key
from imfbench.pipeline.overview import everything_of, measure_first, plan_of
from imfbench.pipeline.planning import plan_experiment
from imfbench.ranges import RangeError, numbers
from imfbench.store import RunFolder, read_json, write_json

SHAPE = {"dim": 32, "depth": 1, "heads": 2}
OTHER = {"device": "cpu", "cpu": "Another 9000", "cores": 64}


def finished(tiny: Any, name: str = "own", out: Path | None = None, **status: Any) -> Path:
    """A training of ``tiny.trained`` that has ended, by its files."""
    folder = RunFolder(out or tiny.out).artefact(name)
    save_artefact(
        folder, "teacher", build_method("teacher", backbone_config=SHAPE), {"name": name, "task": "token2mel"}
    )
    write_json(
        folder / "status.json", {"status": "ok", "steps": 4, "seconds_per_step": 1000.0, "peak_memory": 7, **status}
    )
    return folder


@pytest.mark.parametrize(
    ("hardware", "known"),
    [
        ({}, True),
        ({**OTHER, "threads": 1}, False),
        ({"device": "accelerator", "gpu": "H900"}, False),
        ("threads", False),
        ("here", True),
    ],
)
def test_steps_of_another_machine_are_no_figures_of_this_one(tiny, hardware: Any, known: bool) -> None:  # type: ignore[no-untyped-def]
    config = load(str(tiny.config(systems=[{**tiny.trained[0], "seeds": [0, 1]}], references=[])))
    context = Context(config, RunFolder(tiny.out))
    if isinstance(hardware, str):
        from imfbench.devices import describe

        hardware = {**describe(context.device), "threads": 1 if hardware == "here" else 7}
    finished(tiny, "own-seed0", hardware=hardware)
    _, found = plan_of(config, tiny.out)
    key = ("step", step_key(context, context.plan.artefacts["own-seed0"]))
    assert found.figures.get(key) == (Figure(1000.0, RECORDED) if known else None)


def test_rows_and_scores_of_another_machine_are_no_figures_of_this_one(tiny) -> None:  # type: ignore[no-untyped-def]
    path = tiny.config(references=[], metrics=["f0cv"])
    assert tiny.invoke(path).exit_code == 0
    costs = read_json(tiny.out / "costs.json")
    assert {"device", "machine", "threads", "options"} <= set(costs["f0cv"])

    def known() -> set[str]:
        return {
            key[0] for key, figure in plan_of(load(str(path)), tiny.out)[1].figures.items() if figure.source == RECORDED
        }

    assert {"call", "vocoder", "score"} <= known()
    write_json(tiny.out / "costs.json", {"f0cv": {**costs["f0cv"], "machine": "Another 9000, 64 cores"}})
    (journal,) = tiny.out.glob("cells/*/utterances.jsonl")
    rows = [json.loads(line) for line in journal.read_text().splitlines()]
    journal.write_text("".join(json.dumps({**row, "hardware": "Another 9000, 64 cores"}) + "\n" for row in rows))
    assert not {"call", "vocoder", "score"} & known()


def test_what_is_on_record_of_one_vocoder_or_scorer_is_not_said_of_another(tiny) -> None:  # type: ignore[no-untyped-def]
    path = tiny.config(references=[], metrics={"f0cv": {}})
    assert tiny.invoke(path).exit_code == 0
    (left,), found = plan_of(load(str(path), ("vocoder=hifigan-auto", "dataset.limit=3")), tiny.out)
    (cost,) = costs_of(left, found, ("synthesise",))
    assert "estimated" in cost.sources
    (left,), found = plan_of(load(str(path), ("precision=bf16", "dataset.limit=3")), tiny.out)
    assert "estimated" in costs_of(left, found, ("synthesise",))[0].sources
    (left,), found = plan_of(load(str(path), ("dataset.limit=3",)), tiny.out)
    assert costs_of(left, found, ("synthesise",))[0].sources == {RECORDED}


def test_a_scorers_figures_are_of_its_settings(tiny) -> None:  # type: ignore[no-untyped-def]
    options = {"asr": "small.en"}
    context = Context(load(str(tiny.config(metrics={"wer": options}))), RunFolder(tiny.out))
    here = {"utterances": 3, "seconds": 6.0, "load_seconds": 1.0, "memory": 5, "workers": 1}
    write_json(tiny.out / "costs.json", {"wer": {**here, "options": {}}})
    _, found = plan_of(context.config, tiny.out)
    assert not [key for key in found.figures if key[0] == "score"]
    write_json(tiny.out / "costs.json", {"wer": {**here, "options": options}})
    _, found = plan_of(context.config, tiny.out)
    assert [figure for key, figure in found.figures.items() if key[0] == "score"] == [Figure(2.0, RECORDED)]


def test_a_training_that_is_done_is_no_cost_of_another_experiment(tiny) -> None:  # type: ignore[no-untyped-def]
    path = tiny.config(systems=tiny.trained, vocoder=["griffin-lim", "hifigan-auto"], references=[], metrics=["f0cv"])
    lefts, _ = plan_of(load(str(path)), tiny.out)
    assert [len(left.trainings) for left in lefts] == [1, 0]
    finished(tiny)
    lefts, _ = plan_of(load(str(path)), tiny.out)
    assert [len(left.trainings) for left in lefts] == [0, 0]
    assert lefts[1].taken["train:own"].endswith("/own")


def test_a_network_that_is_trained_and_not_sampled_is_measured(tiny) -> None:  # type: ignore[no-untyped-def]
    path = tiny.config(systems=tiny.trained, references=[], metrics=["f0cv"])
    assert tiny.invoke(path, command="train").exit_code == 0
    (left,), found = plan_of(load(str(path)), tiny.out)
    measure_first(left, found, ("synthesise",))
    (cost,) = costs_of(left, found, ("synthesise",))
    assert cost.sources == {MEASURED}
    assert cost.seconds


def test_a_step_that_is_cut_to_a_budget_of_memory_is_not_run_whole(tiny, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    systems = [{**tiny.trained[0], "train": {"memory": "900MB"}}]
    context = Context(load(str(tiny.config(systems=systems))), RunFolder(tiny.out))
    monkeypatch.setattr("imfbench.pipeline.measurements.method_to_train", lambda *_: pytest.fail("it was run"))
    found = Measurements()
    first_cell(context, found, [], context.plan.artefacts.values(), [], vocoded=False)
    assert list(found.unmeasured) == ["training own"]
    assert "training.memory cuts its batches by measurement when it begins" in found.unmeasured["training own"]


def test_students_of_two_teachers_of_one_name_are_two(tiny) -> None:  # type: ignore[no-untyped-def]
    student = {"method": "intmeanflow", "nfe": [1]}
    deeper = {**tiny.trained[0], "network": {"name": "dit", "config": {**SHAPE, "depth": 2}}}
    teacher = {"artefact": "own", "nfe": [1]}
    then = [{"name": "more", "systems": [deeper, student], "teacher": teacher}]
    path = tiny.config(systems=[tiny.trained[0], student], teacher=teacher, then=then, references=[], metrics=["f0cv"])
    config = load(str(path))
    lefts, _ = plan_of(config, tiny.out)
    assert [[artefact.name for artefact in left.trainings] for left in lefts] == [["own", "intmeanflow"]] * 2
    rows, cells = cells_of(config)
    assert rows == cells
    keys = [step_key(left.context, left.context.plan.artefacts["intmeanflow"]) for left in lefts]
    assert keys[0] != keys[1]


def test_each_process_that_scores_has_the_model(tiny) -> None:  # type: ignore[no-untyped-def]
    path = tiny.config(references=["ground-truth"], systems=[], metrics=["f0cv"], workers=2)
    cost = {"utterances": 3, "seconds": 6.0, "load_seconds": 1.0, "memory": 500, "workers": 1}
    write_json(tiny.out / "costs.json", {"f0cv": cost})
    lefts, found = plan_of(load(str(path)), tiny.out)
    everything = everything_of(lefts, [costs_of(lefts[0], found, ("score",))])
    assert everything.memory == 2 * 500
    # An older record of several processes looked at the one that has no model.
    write_json(tiny.out / "costs.json", {"f0cv": {**cost, "workers": 2}})
    _, found = plan_of(load(str(path)), tiny.out)
    assert found.get("score memory", "f0cv") is None


def test_what_processes_took_to_score_is_on_record(tiny) -> None:  # type: ignore[no-untyped-def]
    path = tiny.config(references=["ground-truth"], systems=[], metrics=["sim"], workers=2)
    assert tiny.invoke(path).exit_code == 0
    cost = read_json(tiny.out / "costs.json")["sim"]
    assert cost["workers"] == 2
    assert cost["memory"] > 10e6, "the model's network alone has that"
    assert cost["load_seconds"] > 0


def test_a_plan_for_another_machine_has_no_second_of_this_one(tiny, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    path = tiny.config(systems=tiny.trained, references=[], metrics=["f0cv"])
    assert tiny.invoke(path).exit_code == 0
    monkeypatch.setattr("imfbench.pipeline.planning.measure_first", lambda *_: pytest.fail("measured here"))
    plan = plan_experiment(load(str(path), ("dataset.limit=3",)), tiny.out, flops_per_second=1e12)
    assert plan.everything is not None
    assert plan.everything.seconds is None
    assert any("vocoders and scorers" in note for note in plan.notes)


def test_a_systems_own_minutes_are_not_swept_away_by_steps(tiny) -> None:  # type: ignore[no-untyped-def]
    timed = {**tiny.trained[0], "name": "timed", "train": {"minutes": 5}}
    path = tiny.config(systems=[timed, tiny.trained[0]], training={"steps": [4, 5], "frames_per_batch": 400})
    systems = load(str(path)).systems
    assert [system.label for system in systems] == ["timed", "own-steps=4", "own-steps=5"]
    assert systems[0].train == {"minutes": 5}


@pytest.mark.parametrize("end", [float("inf"), float("-inf"), float("nan")])
def test_a_range_without_an_end_is_refused(end: float) -> None:
    with pytest.raises(RangeError, match="finite ends"):
        numbers([1, end, 3], False, True)
