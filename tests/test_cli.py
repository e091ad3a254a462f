"""The command line: help, lists, wrong names, dry runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from imfbench.cli import main
from imfbench.config import ExperimentConfig
from imfbench.devices import resolve_device
from imfbench.registry import METHODS, nearest

STAGES = ["train", "search", "synthesize", "score", "report"]
COMMANDS = ["run", *STAGES, "list", "doctor", "check", "new-method", "import", "export"]


def imfbench(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command: str) -> None:
    result = imfbench(command, "--help")
    assert result.exit_code == 0
    assert f"Example:\n    imfbench {command}" in result.output


def test_help_lists_every_command() -> None:
    result = imfbench("--help")
    assert all(command in result.output for command in COMMANDS)


@pytest.mark.parametrize("command", ["run", *STAGES])
def test_run_and_stages_take_the_same_options(command: str) -> None:
    output = imfbench(command, "--help").output
    assert all(option in output for option in ["--set", "--out", "--limit", "--device", "--threads", "--dry-run"])


@pytest.mark.parametrize(
    ("what", "name"),
    [
        ("methods", "intmeanflow"),
        ("datasets", "demo"),
        ("metrics", "wer"),
        ("grids", "sway"),
        ("solvers", "midpoint"),
        ("configs", "quickstart"),
        ("artefacts", "embedded:token2mel-meanflow"),
        ("vocoders", "hifigan"),
        ("backbones", "dit"),
        ("reports", "leaderboard"),
    ],
)
def test_lists_say_what_each_is(what: str, name: str) -> None:
    result = imfbench("list", what)
    assert result.exit_code == 0
    lines = [line.split(maxsplit=1) for line in result.output.splitlines()]
    assert name in [line[0] for line in lines]
    assert all(len(line) == 2 and "cannot be imported" not in line[1] for line in lines)


def test_an_unknown_experiment_is_the_users_mistake() -> None:
    result = imfbench("run", "quikstart")
    assert result.exit_code == 2
    assert "did you mean 'quickstart'?" in result.output
    assert "Traceback" not in result.output


def test_a_wrong_file_says_line_and_remedy(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("dataset:\n  limt: 2\n")
    result = imfbench("run", str(path))
    assert result.exit_code == 2
    assert f"{path}, line 2: dataset.limt: unknown key 'limt': did you mean 'limit'" in result.output


@pytest.mark.parametrize("arguments", [("list", "method"), ("run",), ("run", "quickstart", "--limit", "0"), ("rum",)])
def test_wrong_usage_has_exit_code_2(arguments: tuple[str, ...]) -> None:
    assert imfbench(*arguments).exit_code == 2


def test_a_device_that_is_not_there_is_refused(tmp_path: Path) -> None:
    result = imfbench("run", "quickstart", "--device", "abacus", "--out", str(tmp_path / "run"), "--dry-run")
    assert result.exit_code == 2
    assert "abacus" in result.output


def test_a_dry_run_shows_every_job_and_writes_nothing(tmp_path: Path) -> None:
    result = imfbench(
        "run", "quickstart", "--limit", "2", "--out", str(tmp_path / "run"), "--dry-run", "--no-measuring"
    )
    assert result.exit_code == 0, result.output
    for word in [
        "meanflow",
        "intmeanflow+o3s-2",
        "teacher 32 NFE sway",
        "0 of 2 utterances",
        "leaderboard",
        "ground-truth",
    ]:
        assert word in result.output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("limit", "expected"), [(2, 2), (500, 8)])
def test_a_limit_never_raises_that_of_the_development_set(
    limit: int, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[ExperimentConfig] = []
    monkeypatch.setattr("imfbench.pipeline.overview.describe", lambda config, *_: seen.append(config))
    path = tmp_path / "mine.yaml"
    path.write_text("dev: {split: dev, limit: 8}\n")
    assert imfbench("run", str(path), "--limit", str(limit), "--dry-run").exit_code == 0
    assert (seen[0].dataset[0].limit, seen[0].dev.limit) == (limit, expected)


def test_every_registered_method_is_known_to_nearest() -> None:
    for name in METHODS.names():
        assert repr(name) in nearest(name[:-1], METHODS.names())


@pytest.mark.parametrize("device", ["mps", "xpu", "meta", "cuda:7"])
def test_an_accelerator_that_is_not_there_is_told(device: str) -> None:
    if torch.accelerator.is_available():
        pytest.skip("there is an accelerator here")
    with pytest.raises(ValueError, match=f"device '{device.partition(':')[0]}.* was asked for, but torch finds no"):
        resolve_device(device)
    result = CliRunner().invoke(main, ["profile", "teacher", "--frames", "100", "--device", device])
    assert result.exit_code == 2
    assert "use --device cpu or auto" in " ".join(result.output.split())
