"""What a verdict says of its scale: the machines that made its evidence, not the one that judges; students, not their teacher."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from imfbench.claims import measurements, render, scale
from imfbench.claims.definition import Claims, load_experiment
from imfbench.claims.machines import in_words, machines_of
from imfbench.claims.run import Request, measure, run_claims
from imfbench.claims.verdicts import Verdict
from imfbench.config import ExperimentConfig
from imfbench.config_file import ConfigError
from imfbench.devices import available_threads

GPU = {"device": "cuda", "cpu": "Some CPU", "cores": 64, "threads": 16, "bf16": True, "gpu": "NVIDIA H100 80GB HBM3"}
CPU = {"device": "cpu", "cpu": "Some CPU", "cores": 2, "threads": 1, "bf16": True}
SIZES = {"frames": 250, "batch": 2, "width": 256}
STEPS = {
    "kind": "training-step",
    "methods": {"k4": {"method": "teacher"}, "jvp": {"method": "teacher"}},
    "sizes": [SIZES],
}


@pytest.fixture
def request_on_cpu(folder: Any) -> Request:
    """Claims 1 and 2 about one measurement each, in the budget full on a CPU; only the first measurement is there."""
    part = {"name": "m", "test": "less-memory", "margin": 1.05, "a": {"system": "k4"}, "b": {"system": "jvp"}}
    claims = Claims.model_validate({
        "budgets": {"full": {"about": "one GPU.", "estimate": "-", "needs": "accelerator",
                             "measurements": {"memory": STEPS, "other": STEPS}}},
        "claims": [{"number": i, "title": name, "sentence": "s", "published": "p", "budgets": ["full"],
                    "parts": [{**part, "measurement": name}]} for i, name in enumerate(("memory", "other"), 1)],
    })  # fmt: skip
    rows = [
        {**SIZES, "method": name, "peak_memory": size, "seconds": 1.0} for name, size in (("k4", 100), ("jvp", 150))
    ]
    folder.measurement("memory", STEPS, rows)
    path = folder.path / "measurements" / "memory.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "hardware": GPU}))
    return Request(claims, claims.claims, "full", folder.path, ("device=cpu",))


def verdicts(outcome: Any) -> list[Verdict]:
    return [node.standing.verdict for _, node in outcome.nodes]


@pytest.mark.parametrize("work", [False, True])
def test_what_another_machine_has_run_is_judged_where_it_could_not_be_run(request_on_cpu: Request, work: bool) -> None:
    outcome = run_claims(request_on_cpu, work=work)
    assert verdicts(outcome) == ["supported", "not testable here"]
    assert "the chosen device is none" in outcome.nodes[1][1].reason
    assert [path.name for path in request_on_cpu.out.rglob("*.json")] == ["memory.json"]  # nothing was measured


def test_verdicts_without_their_runs_are_not_replaced(request_on_cpu: Request, tmp_path: Path) -> None:
    made = [{"number": 1, "verdict": "supported"}, {"number": 2, "verdict": "not supported"}]
    file = request_on_cpu.out / "claims.json"
    file.write_text(json.dumps(made))
    outcome = run_claims(request_on_cpu, work=False)
    with pytest.raises(ConfigError, match="has verdicts of claim 2, whose runs are not here"):
        render.write(request_on_cpu, outcome, "imfbench claims")
    assert json.loads(file.read_text()) == made
    file.write_text(json.dumps([{"number": 1, "verdict": "supported"}, {"number": 2, "verdict": "not testable here"}]))
    assert render.write(request_on_cpu, outcome, "imfbench claims")[0] == file


def test_the_machine_that_is_named_made_the_evidence(request_on_cpu: Request) -> None:
    page = render.write(request_on_cpu, run_claims(request_on_cpu, work=False), "imfbench claims")
    first, other = json.loads(page[0].read_text())
    assert first["scale"]["text"].endswith("on NVIDIA H100 80GB HBM3 (cuda)")
    assert first["scale"]["hardware"] == [{**GPU, "on": ["memory"]}]
    assert other["scale"]["hardware"] == []
    assert "sizes" not in other["scale"]
    assert "by what was run on NVIDIA H100 80GB HBM3 (cuda). What" in page[1].read_text()


def test_trainings_cells_and_measurements_tell_of_their_machines(folder: Any) -> None:
    folder.training("student", *[torch.ones(3).numpy()] * 2, run="speech", hardware=GPU)
    folder.training("second", *[torch.ones(3).numpy()] * 2, run="speech", hardware=GPU)
    here = {**CPU, "threads": 2}  # of the process that began the run; its workers had a thread each
    (folder.path / "speech" / "manifest.json").write_text(json.dumps({"hardware": here}))
    for system, made_on in (("teacher", None), ("student", {**CPU, "cpu": "Another CPU"}), ("lost", GPU)):
        cell = folder.cell(system, 1, sim=torch.ones(3).numpy())
        summary = json.loads((cell / "summary.json").read_text())
        (cell / "summary.json").write_text(json.dumps({**summary, "device": "cpu", "threads": 1}))
        if made_on is not None:
            (cell / "cell.json").write_text(json.dumps({"hardware": made_on}))
    folder.measurement("speed", {}, [])
    found = machines_of(folder.evidence(), ["speech"], ["speed", "none"])
    assert [in_words(one) for one in found] == [
        "NVIDIA H100 80GB HBM3 (cuda)",
        "an unknown machine (cpu, 1 thread)",  # what cannot be of the machine on record is not said to be
        "Another CPU (cpu, 2 cores, 1 thread)",
        "Some CPU (cpu, 2 cores, 1 thread)",
    ]
    assert all(one["on"] == ["speech"] for one in found)


def test_the_teacher_on_further_grids_is_no_student(folder: Any) -> None:
    config = load_experiment("text2mel", "small")
    assert config is not None
    assert any(system.label == "teacher-grids" for system in config.systems)
    found = scale._experiment(config, folder.evidence(), "text2mel")
    assert list(found["students"]) == ["intmeanflow"]
    assert found["teacher_training"]["parameters"] > 1e6


def test_a_teacher_trained_in_the_run_is_no_student(folder: Any) -> None:
    config = load_experiment("held-out", "full")
    assert isinstance(config, ExperimentConfig)
    for name, seconds in (("own-teacher", 6000), ("intmeanflow-seed0", 600), ("intmeanflow-seed1", 660)):
        folder.training(name, *[torch.ones(3).numpy()] * 2, run="held-out", seconds=seconds)
    found = scale._experiment(config, folder.evidence(), "held-out")
    assert {name: one["minutes"] for name, one in found["students"].items()} == {
        "intmeanflow-seed0": 10, "intmeanflow-seed1": 11
    }  # fmt: skip
    assert found["teacher_training"]["minutes"] == 100


def test_the_chosen_device_is_that_of_measurements(
    request_on_cpu: Request, folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    used: list[Any] = []
    threads = torch.get_num_threads()
    monkeypatch.setattr(torch, "set_num_threads", lambda count: used.append(count))
    monkeypatch.setattr(measurements, "measure_steps", lambda settings, record, device, note: used.append(device.type))
    request = Request(request_on_cpu.claims, request_on_cpu.chosen, "full", folder.path, ("device=cpu", "threads=1"))
    measure(request, "other", request.measurements()["other"], {}, folder.evidence())
    assert used == [1, "cpu"]
    assert json.loads((folder.path / "measurements" / "other.json").read_text())["hardware"]["threads"] == threads
    assert request.stopped() is not None
    free = Request(request_on_cpu.claims, request_on_cpu.chosen, "full", folder.path)
    assert (free.device.type, free.stopped()) == ("cuda", None)
    (folder.path / "measurements" / "other.json").unlink()
    many = Request(request_on_cpu.claims, request_on_cpu.chosen, "full", folder.path, ("device=cpu",))
    measure(many, "other", many.measurements()["other"], {}, folder.evidence())
    assert used[2:] == [available_threads(), "cpu"]  # an experiment's single thread does not stay
    with pytest.raises(ConfigError, match="unknown device"):
        _ = Request(free.claims, free.chosen, "full", folder.path, ("device=nothing",)).device


def test_a_step_that_runs_out_of_memory_leaves_what_it_had_in_use(
    request_on_cpu: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Training:
        def advance(self, *_: Any) -> None:
            kept = torch.zeros(1000)
            if self.large:
                raise MemoryError(kept.sum())

        def __init__(self, large: bool) -> None:
            self.large = large

    monkeypatch.setattr(measurements, "_training", lambda trained, *_: (Training(trained.method == "meanflow"), None))
    settings = measurements.StepMeasurement.model_validate(
        {**STEPS, "methods": {"fits": {"method": "teacher"}, "large": {"method": "meanflow"}}, "repeats": 2}
    )
    record = measurements.Record(tmp_path / "memory.json", settings, {}, CPU)
    measurements.measure_steps(settings, record, torch.device("cpu"), lambda _: None)
    fits, large = record.rows()
    assert (fits["peak_memory"], large["peak_memory"], large["seconds"]) == (4000, None, None)
    assert large["at_least"] >= 4000
    assert large["reason"] == "memory ran out"
