"""Profiles: what is asked for, what is run, what is only estimated, and how it is told."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from typing import Any

import psutil
import pytest
import torch
from click.testing import CliRunner

from imfbench.cli import main
from imfbench.cli_profile import PRINTED
from imfbench.config_file import ConfigError
from imfbench.devices import available_memory
from imfbench.profiling import Size, profile, profile_step, rows, systems_of

TINY = {"width": 64, "depth": 1}


def test_a_width_keeps_the_channels_of_a_head() -> None:
    network = Size(10, 1, "f5-base", width=256, depth=3).network()
    assert (network.dim, network.heads, network.depth, network.bands) == (256, 4, 3, 100)
    assert Size(10, 1, "f5-base").network().dim == 1024


@pytest.mark.parametrize(
    ("size", "told"),
    [
        (Size(10, 1, width=100), "multiple of 64, such as 128"),
        (Size(10, 1, "f5-bse"), "did you mean 'f5-base'"),
        (Size(1, 1), "frames 1: it must be at least 2"),
        (Size(10, 0), "batch 0"),
        (Size(10**6, 10**4), "masks alone"),
    ],
)
def test_a_size_that_no_network_has_is_refused(size: Size, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        size.network()


def test_methods_are_rows_by_what_costs_differ() -> None:
    training = systems_of(["teacher", "meanflow", "intmeanflow"])
    assert [system.name for system in training] == [
        "teacher",
        "meanflow, jvp = one_pass", "meanflow, jvp = split",
        *(f"intmeanflow, teacher_nfe = {k}" for k in (2, 4, 8, 16)),
    ]  # fmt: skip
    assert len(systems_of(["meanflow", "intmeanflow"], stage="sampling")) == 2
    set_by_hand = systems_of(["meanflow", "intmeanflow"], {"teacher_nfe": 1, "meanflow": {"p": 0}})
    assert [system.config for system in set_by_hand] == [
        {"jvp": "one_pass", "p": 0}, {"jvp": "split", "p": 0}, {"teacher_nfe": 1}
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("methods", "settings", "told"),
    [
        (["o3s"], {}, "o3s trains no network"),
        (["intmeanflow"], {"teacher_nf": 2}, "did you mean 'teacher_nfe'"),
        (["intmeanflow"], {"intmeanflow": {"teacher_nf": 2}}, "did you mean 'teacher_nfe'"),
        (["meanflow"], {"jvp": "both"}, "'one_pass' or 'split'"),
    ],
)
def test_a_setting_that_no_method_takes_is_refused(methods: list[str], settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        systems_of(methods, settings)


def test_what_does_not_fit_is_estimated_and_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "available_memory", lambda _: 3_000_000)
    ran: list[int] = []
    ready = rows.ready_step

    def watched(method: str, config: Any, size: Size, *rest: Any, masks: Any = None) -> Any:
        if masks is None:
            ran.append(size.batch)
        return ready(method, config, size, *rest, masks=masks)

    monkeypatch.setattr(rows, "ready_step", watched)
    sizes = [Size(40, 2, **TINY), Size(40, 40, **TINY)]
    small, large = profile(systems_of(["teacher"]), sizes, "sampling", device="cpu", warmup=0, repeats=2)
    assert small["measured"]
    assert small["peak_memory_kind"] == "cpu-live-tensors"
    assert small["estimated_memory"] == pytest.approx(small["peak_memory"], rel=0.02)
    assert len(small["seconds_each"]) == 2
    assert not large["measured"]
    assert set(ran) == {2}, "the large one must not be built"
    assert large["peak_memory_kind"] == "estimate"
    assert large["peak_memory"] > 3_000_000
    assert "0.003 GB are free" in large["note"]
    assert large["seconds"] == pytest.approx(small["seconds"] * large["flops"] / small["flops"])
    assert large["seconds_kind"] == "scaled by operations from 40 frames × 2"


def test_what_cannot_be_followed_is_run_only_where_there_is_plenty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an estimate, "needs nothing" would run it at any size."""
    ready, built = rows.ready_step, []

    def with_values(method: str, config: Any, size: Size, *rest: Any, masks: Any = None) -> Any:
        step = ready(method, config, size, *rest, masks=masks)
        if masks is None:
            built.append(method)
        if method != "meanflow":
            return step
        values = torch.zeros(10**5)
        return replace(step, run=lambda: (step.run(), values[values > 0].sum()))

    monkeypatch.setattr(rows, "ready_step", with_values)
    options: dict[str, Any] = {"device": "cpu", "warmup": 0, "repeats": 1}
    plain = profile_step("teacher", {}, Size(20, 1, **TINY), "sampling", estimates="only", device="cpu")[
        "estimated_memory"
    ]
    monkeypatch.setattr(rows, "available_memory", lambda _: rows.UNKNOWN * plain - 1)
    refused = profile_step("meanflow", {}, Size(20, 1, **TINY), "sampling", **options)
    assert not built
    assert (refused["measured"], refused["estimated_memory"], refused["peak_memory"]) == (False, None, None)
    assert "cannot follow this step" in refused["note"]
    assert "not run: what it needs is unknown, and of 8 times a flow-matching step's" in refused["note"]
    monkeypatch.setattr(rows, "available_memory", lambda _: rows.UNKNOWN * plain + 1)
    assert profile_step("meanflow", {}, Size(20, 1, **TINY), "sampling", **options)["measured"]
    assert set(built) == {"meanflow"}


def test_memory_that_runs_out_all_the_same_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(rows, "ready_step", fails)
    row = profile_step("teacher", {}, Size(40, 2, **TINY), device="cpu", estimates="none")
    assert (row["measured"], row["seconds"], row["peak_memory"]) == (False, None, None)
    assert "ran out" in row["note"]


def test_a_guided_sampling_sends_two_rows_an_evaluation_and_a_student_one() -> None:
    def calls(method: str) -> int:
        options: dict[str, Any] = {"nfe": 3, "device": "cpu", "estimates": "none", "warmup": 0, "repeats": 1}
        return int(profile_step(method, {}, Size(20, 2, **TINY), "sampling", **options)["network_calls"])

    assert (calls("teacher"), calls("intmeanflow")) == (6, 3)


def test_free_memory_is_no_more_than_the_machine_has() -> None:
    assert 0 < available_memory(torch.device("cpu")) < psutil.virtual_memory().total


def test_the_command_prints_what_it_estimated() -> None:
    command = ["profile", "teacher", "--frames", "20", "--batch", "1", "--width", "64", "--depth", "1", "--nfe", "2"]
    result = CliRunner().invoke(main, [*command, "--stage", "sampling", "--estimate", "--format", "json"])
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)
    assert row["parameters"] > 100_000
    assert (row["frames"], row["nfe"], row["measured"], row["peak_memory_kind"]) == (20, 2, False, "estimate")
    (line,) = csv.DictReader(io.StringIO(PRINTED["csv"]([row])))
    assert int(line["peak_memory"]) == row["peak_memory"]
    table = PRINTED["table"]([row])
    assert f"{row['peak_memory'] / 1e6:.1f}  estimate" in table
    assert "not of quality" in table


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["techer"], "did you mean 'teacher'"),
        (["teacher", "--frames", "10,x"], "no list of whole numbers"),
        (["teacher", "--frames", ","], "no list of whole numbers"),
        (["teacher", "--set", "guidanc=1"], "did you mean 'guidance'"),
        (["teacher", "--device", "cuda9"], "cuda"),
    ],
)
def test_the_command_refuses_with_words(words: list[str], told: str) -> None:
    result = CliRunner().invoke(main, ["profile", *words])
    assert result.exit_code == 2
    assert told in result.output
    assert "Traceback" not in result.output
