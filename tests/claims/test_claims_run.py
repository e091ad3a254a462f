"""Claims from nothing to their table, on networks of dim 32: run, shared, resumed, taken over, judged."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from imfbench.claims import measurements as measuring
from imfbench.claims import render
from imfbench.claims.cost import cost_of
from imfbench.claims.definition import load_claims
from imfbench.claims.measurements import Record, StepMeasurement, measure_steps
from imfbench.claims.run import Outcome, Request, describe_plan, run_claims
from imfbench.config_file import ConfigError
from imfbench.pipeline.measurements import Measurements
from imfbench.store import file_sha256

SPEED = {
    "kind": "speed",
    "experiment": "first",
    "rows": {"fast": "own 1 NFE uniform", "slow": "own 2 NFE uniform"},
    "utterances": 2,
}
SCORES = {"kind": "grid-scores", "experiment": "first", "artefact": "own", "nfe": 2, "points": 4}
STEPS = {
    "kind": "training-step", "repeats": 1, "sizes": [{"frames": 16, "batch": 1, "width": 32}],
    "methods": {"plain": {"method": "teacher"}, "one": {"method": "meanflow", "config": {"jvp": "one_pass"}}},
}  # fmt: skip
PARTS = [
    {"name": "speech", "test": "non-inferior", "experiment": "first", "a": {"system": "own", "nfe": 1},
     "b": {"system": "own", "nfe": 2}, "figures": {"sim": 1.9}},
    {"name": "again", "test": "equivalent", "experiment": "second", "a": {"system": "mine", "nfe": 1},
     "b": {"system": "teacher", "nfe": 1}, "figures": {"sim": 1.9}},
    {"name": "speed", "test": "faster", "measurement": "speed", "margin": 1.1, "a": {"system": "fast"}, "b": {"system": "slow"}},
    {"name": "curve", "test": "convex", "measurement": "scores", "margin": 0.5},
    {"name": "lost", "test": "better", "experiment": "broken", "a": {"system": "own", "nfe": 1},
     "b": {"system": "teacher", "nfe": 1}, "figures": {"sim": 0.1}},
]  # fmt: skip


@pytest.fixture(scope="module")
def ask(tiny_in: Callable[[Path], Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Request]:
    """``ask(out, reuse=…)``: two experiments that share a training, one that cannot be run, three measurements."""
    folder = tmp_path_factory.mktemp("claims")
    tiny = tiny_in(folder)
    (folder / "small").mkdir()
    ready = {"artefact": str(tiny.artefact()), "nfe": [1], "grid": "uniform"}

    def experiment(name: str, system: str, **changes: Any) -> None:
        systems = [{"method": "intmeanflow", "config": {"teacher_nfe": 1}, "name": system, "nfe": [1, 2]}]
        tiny.config(
            f"small/{name}.yaml",
            **{"name": name, "systems": systems, "teacher": ready, "references": [], "dev": {"limit": 2}, **changes},
        )

    experiment("first", "own")
    experiment("second", "mine")
    experiment("broken", "own", teacher={"artefact": "embedded:nothing", "nfe": [1]})
    budget = {"about": "a test", "estimate": "seconds", "measurements": {"speed": SPEED, "scores": SCORES}}
    claims = [{"number": i, "title": part["name"], "sentence": "s", "published": "p", "budgets": ["small"], "parts": [part]}
              for i, part in enumerate(PARTS, 1)]  # fmt: skip
    (folder / "claims.yaml").write_text(
        yaml.safe_dump({"budgets": {"small": budget}, "claims": claims}, sort_keys=False)
    )
    found = load_claims(folder / "claims.yaml")

    def make(out: Path, *numbers: int, reuse: tuple[Path, ...] = ()) -> Request:
        return Request(found, found.chosen(numbers), "small", out, reuse=reuse, folder=folder)

    return make


@pytest.fixture(scope="module")
def done(ask: Callable[..., Request], tmp_path_factory: pytest.TempPathFactory) -> tuple[Request, Outcome]:
    request = ask(tmp_path_factory.mktemp("out"))
    return request, run_claims(request)


def verdicts(outcome: Outcome) -> list[str]:
    return [node.standing.verdict for _, node in outcome.nodes]


def state(out: Path) -> dict[str, str]:
    wanted = (
        "*/artefacts/*/model.safetensors",
        "*/cells/*/utterances.jsonl",
        "measurements/*.json",
        "*/artefacts/*/log.csv",
    )
    return {str(path.relative_to(out)): file_sha256(path) for glob in wanted for path in sorted(out.glob(glob))}


def test_every_claim_has_its_verdict_and_a_broken_experiment_stops_none_but_its_own(
    done: tuple[Request, Outcome],
) -> None:
    request, outcome = done
    found = verdicts(outcome)
    assert not {"no evidence", "not testable here"} & set(
        found[:4]
    )  # two utterances of an untrained network: what, is chance
    assert found[4] == "no evidence"
    assert "no artefact 'embedded:nothing'" in outcome.nodes[4][1].reason
    speed = json.loads((request.out / "measurements" / "speed.json").read_text())
    assert {(row["row"], row["network_calls"]) for row in speed["rows"]} == {("fast", 1), ("slow", 2)}
    scores = json.loads((request.out / "measurements" / "scores.json").read_text())
    assert [row["grid"] for row in scores["rows"]] == [[1], [2], [3]]
    assert speed["of"]["vocoder"].startswith("griffin-lim")  # another vocoder, another measurement
    assert "vocoder" not in scores["of"]  # a distance of mels hears nothing
    assert (request.out / "measurements" / "scores.png").stat().st_size > 1000


def test_a_training_that_two_experiments_share_is_made_once(done: tuple[Request, Outcome]) -> None:
    out = done[0].out
    one, other = (out / "first" / "artefacts" / "own", out / "second" / "artefacts" / "mine")
    assert file_sha256(one / "model.safetensors") == file_sha256(other / "model.safetensors")
    statuses = [json.loads((folder / "status.json").read_text()) for folder in (one, other)]
    assert statuses[0] == statuses[1]  # seconds and all: it was copied
    assert any(json.loads(path.read_text())["system"] == "mine" for path in out.glob("second/cells/*/cell.json"))


def test_a_measurement_that_fails_loses_no_other_verdict(
    done: tuple[Request, Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_finite(*_: Any) -> None:
        raise FloatingPointError("the sampled mel of a holds values that are not finite")

    request, outcome = done
    kept = (request.out / "measurements" / "speed.json").read_text()
    (request.out / "measurements" / "speed.json").unlink()
    monkeypatch.setattr(measuring, "measure_speed", not_finite)
    again = run_claims(request)
    (request.out / "measurements" / "speed.json").write_text(kept)
    assert verdicts(again)[2] == "no evidence"
    assert "values that are not finite" in again.nodes[2][1].reason
    assert [*verdicts(again)[:2], *verdicts(again)[3:]] == [*verdicts(outcome)[:2], *verdicts(outcome)[3:]]


def test_a_claim_that_is_judged_alone_leaves_the_others_in_the_table(
    done: tuple[Request, Outcome], ask: Callable[..., Request], tmp_path: Path
) -> None:
    request, outcome = done
    render.write(request, outcome, "imfbench claims", tmp_path)
    before = json.loads((tmp_path / "claims.json").read_text())
    alone = ask(request.out, 3)
    files = render.write(alone, run_claims(alone, work=False), "imfbench claims --only 3", tmp_path)
    after = json.loads(files[0].read_text())
    assert [record["number"] for record in after] == [1, 2, 3, 4, 5]
    assert [one["scale"]["command"].endswith("3") for one in after] == [False, False, True, False, False]
    assert [one for one in after if one["number"] != 3] == [one for one in before if one["number"] != 3]
    page = files[1].read_text()
    assert "Made by `imfbench claims --only 3`" in page
    assert "Claims 1, 2, 4, 5 stand as they were judged before" in page


def test_a_sweep_is_no_experiment_of_a_claim(ask: Callable[..., Request], tmp_path: Path) -> None:
    asked = ask(tmp_path, 1)
    for setting in (
        "training.learning_rate=[1e-3, 3e-4]",
        "systems.own.config.teacher_nfe=[1, 2]",
        "vocoder=[griffin-lim, hifigan]",
    ):
        with pytest.raises(ConfigError, match="a list or a range is a sweep, which `imfbench run` makes"):
            dataclasses.replace(asked, settings=(setting,)).experiments()
    assert dataclasses.replace(asked, settings=("training.learning_rate=1e-3",)).experiments()


def test_settings_are_checked_where_no_experiment_would(tmp_path: Path) -> None:
    """Claim 4 measures steps and has no experiment of its own."""
    known = load_claims()

    def asked(*settings: str) -> Request:
        return Request(known, known.chosen((4,)), "small", tmp_path, settings=settings)

    assert asked("threads=1", "text2mel/training.steps=9").experiments() == {}
    # Each by itself: no experiment has both of these systems.
    assert asked("systems.scratch.train.steps=9", "systems.teacher-grids.nfe=[2]").experiments() == {}
    for setting in ("nosuch=1", "text2mel/nosuch=1", "token2mel/nosuch=1"):
        with pytest.raises(ConfigError, match="unknown key 'nosuch'"):
            asked("threads=1", setting).experiments()


def test_what_another_machine_has_begun_is_begun_anew(tmp_path: Path) -> None:
    here, there = ({"device": "cpu", "cpu": name} for name in ("this", "that"))
    settings, path = StepMeasurement.model_validate(STEPS), tmp_path / "memory.json"
    record = Record(path, settings, {}, there)
    record.add({"seconds": 1.0})
    assert Record(path, settings, {}, there).rows()
    assert not Record(path, settings, {}, here).rows()
    record.finish()
    assert Record(path, settings, {}, here).rows()  # what it has finished is evidence


@pytest.mark.slow
def test_a_second_run_does_nothing_and_another_takes_everything_over(
    done: tuple[Request, Outcome], ask: Callable[..., Request], tmp_path: Path
) -> None:
    request, outcome = done
    before = state(request.out)
    assert len(before) > 6
    assert verdicts(run_claims(request)) == verdicts(outcome)
    assert state(request.out) == before
    # Had it been another machine, the verdicts taken over would be of that one.
    manifest = request.out / "first" / "manifest.json"
    as_run = manifest.read_text()
    manifest.write_text(json.dumps({**json.loads(as_run), "hardware": {"device": "cpu", "cpu": "Another CPU"}}))
    again = ask(tmp_path, 1, reuse=(request.out,))
    elsewhere = run_claims(again)
    manifest.write_text(as_run)
    assert verdicts(elsewhere) == verdicts(outcome)[:1]
    assert "Another CPU (cpu" in render.records(again, elsewhere, "imfbench claims")[0]["scale"]["text"]
    assert elsewhere.nodes[0][1].reason == outcome.nodes[0][1].reason
    taken = {name: digest for name, digest in before.items() if name.startswith("first/")}
    assert state(tmp_path) == taken


def test_the_record_and_the_page(done: tuple[Request, Outcome], capsys: pytest.CaptureFixture[str]) -> None:
    request, outcome = done
    files = render.write(request, outcome, "imfbench claims")
    found = json.loads(files[0].read_text())
    assert [record["verdict"] for record in found] == verdicts(outcome)
    first = found[0]
    assert {
        "statistic",
        "estimate",
        "interval",
        "n",
        "training_seeds",
        "margin",
        "minimum_detectable",
        "scale",
        "evidence",
    } <= set(first)
    assert (first["n"], first["training_seeds"], first["margin"]) == (2, 1, 1.9)
    assert first["scale"]["about"] == "these checkpoints"
    assert "1 training seed: a statement about these checkpoints" in first["scale"]["text"]
    assert first["scale"]["experiments"]["first"]["students"]["own"]["steps"] == 4
    (machine,) = first["scale"]["hardware"]
    assert (machine["device"], machine["on"]) == ("cpu", ["first"])
    assert machine["threads"] == json.loads((request.out / "first" / "manifest.json").read_text())["threads"]
    assert all((request.out / path).exists() for record in found for path in record["evidence"])
    page = files[1].read_text()
    assert "| 5 | lost | **no evidence** |" in page
    assert f"]({first['evidence'][0]})" in page
    assert str(request.out) not in page
    render.show(request, outcome)
    describe_plan(request)
    told = capsys.readouterr().out
    assert "no evidence" in told
    assert "cannot be run: no artefact 'embedded:nothing'" in told
    assert "4 steps" in told


def test_steps_that_are_left_are_priced_by_those_on_record(tmp_path: Path) -> None:
    sizes = [{"frames": 16, "batch": 1, "width": 32}, {"frames": 32, "batch": 1, "width": 64}]
    settings = StepMeasurement.model_validate({**STEPS, "repeats": 2, "sizes": sizes})
    record = Record(tmp_path / "memory.json", settings, {}, {"device": "cpu"})
    for name, seconds in (("plain", 1.0), ("one", 3.0)):
        record.add({**sizes[0], "method": name, "peak_memory": 1, "seconds": seconds})
    record.add({**sizes[1], "method": "plain", "peak_memory": 1, "seconds": 8.0})
    cost = cost_of(settings, record.rows(), None, Measurements(), torch.device("cpu"))
    # Two turns are five steps, of twice the frames and twice the width.
    assert (cost.left, cost.seconds, cost.sources) == ("1 kind of training step", 5 * 3.0 * 8, {"on record"})
    record.add({**sizes[1], "method": "one", "peak_memory": None, "seconds": None})
    assert cost_of(settings, record.rows(), None, Measurements(), torch.device("cpu")).left == ""


def test_the_plan_costs_everything_once(
    done: tuple[Request, Outcome], ask: Callable[..., Request], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("COLUMNS", "200")
    request = ask(tmp_path / "one")
    describe_plan(request)
    told = capsys.readouterr().out
    first, second = told.split("for claim 2:")
    costs = [[line.split() for line in part.splitlines()] for part in (first, second)]
    left = [{line[0]: line[1:3] for line in part if line and line[0] in ("train", "score")} for part in costs]
    assert [found["train"][:1] for found in left] == [["1"], ["nothing"]]  # the second takes the first's training over
    assert "as first/own" in second
    assert left[0]["score"] == ["6", "scores"]
    assert "measurement speed (speed): 4 utterances to be timed, about" in told
    assert "measurement scores (grid-scores): 3 grids, about" in told
    assert "all experiments and measurements, one after another: about" in told
    describe_plan(done[0])
    finished = capsys.readouterr().out
    assert "measurement speed (speed): done" in finished
    assert "measurement scores (grid-scores): done" in finished
    path = done[0].out / "measurements" / "speed.json"
    whole = path.read_text()
    path.write_text(json.dumps({**json.loads(whole), "hash": "of other networks"}))
    describe_plan(done[0])
    path.write_text(whole)
    assert "measurement speed (speed): 4 utterances to be timed" in capsys.readouterr().out, "they begin anew"

    def fails(*_: Any) -> None:
        raise RuntimeError("no clock")

    monkeypatch.setattr("imfbench.pipeline.measurements._time_vocoder", fails)
    describe_plan(ask(tmp_path / "other"))
    unknown = capsys.readouterr().out
    assert unknown.count("not measured: vocoder") == 1
    assert "4 utterances to be timed, an unknown time" in unknown
    assert "one after another: an unknown time" in unknown


@pytest.mark.slow
def test_a_killed_measurement_goes_on(done: tuple[Request, Outcome]) -> None:
    request, _ = done
    path = request.out / "measurements" / "scores.json"
    whole = json.loads(path.read_text())
    path.write_text(json.dumps({**whole, "rows": whole["rows"][:1], "complete": False}))
    run_claims(Request(request.claims, request.claims.chosen((4,)), "small", request.out, folder=request.folder))
    again = json.loads(path.read_text())
    assert again["complete"]
    assert again["rows"] == whole["rows"]


@pytest.mark.slow
def test_memory_of_steps_is_measured(tmp_path: Path) -> None:
    settings = StepMeasurement.model_validate(STEPS)
    record = Record(tmp_path / "memory.json", settings, {}, {"device": "cpu", "threads": 1})
    measure_steps(settings, record, torch.device("cpu"), lambda _: None)
    bytes_of = {row["method"]: row["peak_memory"] for row in record.rows()}
    assert bytes_of["one"] > bytes_of["plain"] > 0
    assert all(row["seconds"] > 0 for row in record.rows())
    record.finish()
    assert Record(
        record.path, settings, {}, {"device": "cpu", "threads": 2}
    ).complete  # bytes are those of any thread count
    other = settings.model_copy(update={"sizes": [settings.sizes[0].model_copy(update={"frames": 20})]})
    assert not Record(record.path, other, {}, {"device": "cpu"}).rows()
