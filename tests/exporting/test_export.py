"""``imfbench export``: card, README, grids and scores of a run, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner, Result

from imfbench.artefact import identity, read_card
from imfbench.backbones.dit import DiT, DiTConfig
from imfbench.cli import main
from imfbench.contracts.batches import fill
from imfbench.exporting.export import FORMATS, PATCHES, SAMPLERS
from imfbench.exporting.readme import readme
from imfbench.store import write_json


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["export", *map(str, arguments)])


def refused(*arguments: object, out: Path) -> str:
    result = run(*arguments, "--out", out)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert not out.exists()
    return result.output


def dit() -> DiT:
    network = DiT(DiTConfig(dim=32, depth=1, heads=2, content_layers=1))
    fill(network)
    return network


@pytest.fixture
def f5(student_of: Callable[..., Path]) -> Path:
    pytest.importorskip("f5_tts", reason="needs `pip install 'imfbench[f5]'`")
    from small_f5 import network

    folder = student_of(network(), teacher_sha256="cd" * 32, licence="CC-BY-NC-4.0")
    (folder / "vocab.txt").write_text(" \na\n")
    return folder


def as_run(student: Path) -> Path:
    """The run folder around a student: two searched grids of its own, one of another artefact, and a leaderboard."""
    run, sha256 = student.parent.parent, identity(read_card(student))
    teacher = run / "teacher"
    experiment = {"name": "r", "teacher": {"artefact": str(teacher)}}
    (run / "experiment.yaml").write_text(yaml.safe_dump(experiment))
    teacher.mkdir()
    (teacher / "model.safetensors").touch()
    write_json(teacher / "card.json", {"name": "the-teacher", "sha256": "cd" * 32, "licence": "MIT"})
    for name, values, score, of in (
        ("a", [0, 0.3, 1], 0.5, sha256), ("b", [0, 0.4, 1], 0.6, sha256), ("c", [0, 0.9, 1], 0.9, "other"),
    ):  # fmt: skip
        recipe = {"artefact_sha256": of, "nfe": 2, "search": "o3s", "score": {"sim": 1.0}}
        write_json(run / "grids" / f"{name}.json", {"name": name, "values": values, "score": score, "recipe": recipe})
    row = {
        "artefact_sha256": sha256, "status": "ok", "nfe": 2, "grid": "[0,0.4,1]", "dataset": "demo/test", "n_scored": 24,
        "wer": 0.0187, "wer_low": 0.01, "wer_high": 0.03, "sim": 0.8, "sim_low": 0.7, "sim_high": 0.9, "signatures": {"wer": "w"},
    }  # fmt: skip
    other = {**row, "artefact_sha256": "other", "wer": 0.9}
    write_json(run / "leaderboard" / "leaderboard.json", {"rows": [row, other, {**row, "status": "diverged"}]})
    return run


def test_the_card_has_teacher_k_guidance_grid_scores_and_licence(f5: Path, tmp_path: Path) -> None:
    as_run(f5)
    result = run(f5, "--format", "f5", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["teacher"] == {"sha256": "cd" * 32, "name": "the-teacher", "licence": "MIT"}
    assert (card["teacher_nfe"], card["guidance"], card["guidance_baked_in"]) == (8, 3.0, True)
    assert card["grids"]["2"]["values"] == [0, 0.4, 1]
    assert (card["grids"]["2"]["from"], card["grids"]["1"]["from"]) == ("o3s", "the default")
    assert [row["wer"] for row in card["scores"]] == [0.0187]
    assert card["licence"] == "CC-BY-NC-4.0"
    assert card["train_data"] == {"name": "demo"}
    files = {"README.md", "card.json", "imfbench_f5.py", "model.safetensors", "vocab.txt"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == files
    assert set(card["files"]) == files - {"README.md", "card.json"}
    told = (tmp_path / "out" / "README.md").read_text()
    for words in (
        "licence: CC-BY-NC-4.0",
        "K, the teacher's steps: 8",
        "1.87 % (1 to 3)",
        "[0.0, 0.4, 1.0]",
        "the-teacher",
    ):
        assert words in told
    patch = (tmp_path / "out" / "imfbench_f5.py").read_text()
    assert patch in result.output
    assert told in result.output


def test_a_grid_that_is_named_wins_over_the_searched_one(f5: Path, tmp_path: Path) -> None:
    folder = as_run(f5)
    result = run(f5, "--format", "f5", "--run", folder, "--grid", "[0, 0.65, 1]", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert {steps: grid["values"] for steps, grid in card["grids"].items()} == {"2": [0, 0.65, 1]}
    result = run(f5, "--format", "f5", "--grid", "sway", "--nfe", "2,4", "--licence", "MIT", "--out", tmp_path / "own")
    assert result.exit_code == 0, result.output
    card = json.loads((tmp_path / "own" / "card.json").read_text())
    assert {steps: grid["name"] for steps, grid in card["grids"].items()} == {"2": "sway", "4": "sway"}
    assert card["licence"] == "MIT"


@pytest.mark.slow
def test_without_a_licence_the_teachers_is_taken(student_of: Callable[..., Path], tmp_path: Path) -> None:
    folder = student_of(dit(), teacher_sha256="cd" * 32, licence=None)
    as_run(folder)
    pytest.importorskip("onnxscript", reason="needs `pip install 'imfbench[onnx]'`")
    result = run(folder, "--format", "torch", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["licence"] == "MIT"
    card |= {"licence": None}
    assert "licence: not known: that of the teacher's weights" in readme(card)


def test_what_cannot_be_exported_is_told(student_of: Callable[..., Path], tmp_path: Path) -> None:
    folder, out = student_of(dit()), tmp_path / "out"
    told = refused(folder, "--format", "f5", out=out)
    assert f"{folder} is a network 'dit', and f5 plays 'f5tts' alone" in told
    assert "belongs to Chatterbox's format" in refused(folder, "--format", "torch", "--beside", folder, out=out)
    assert "no run folder" in refused(folder, "--format", "torch", "--run", tmp_path, out=out)
    (tmp_path / "experiment.yaml").write_text("name: r")
    other = tmp_path / "other"
    other.mkdir()
    (other / "experiment.yaml").write_text("name: other")
    assert f"{other} knows nothing of {folder}" in refused(folder, "--format", "torch", "--run", other, out=out)
    assert "points are written as [0, 0.65, 1]" in refused(folder, "--format", "torch", "--grid", "[0, x", out=out)
    assert "unknown time grid 'swy'" in refused(folder, "--format", "torch", "--grid", "swy", out=out)
    assert "no artefact" in refused(tmp_path / "none", "--format", "torch", out=out)
    assert {path.name for path in tmp_path.iterdir()} == {"artefacts", "experiment.yaml", "other"}


def test_a_network_that_depends_on_its_text_has_no_graph(student_of: Callable[..., Path], tmp_path: Path) -> None:
    told = refused("embedded:text2mel", "--format", "torch", out=tmp_path / "out")
    assert "no graph can be made of the network 'aligning-dit'" in told


def test_an_export_that_fails_leaves_nothing(
    student_of: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from imfbench.exporting import export as module

    def broken(folder: Path, *_: Any) -> None:
        (folder / "half").write_bytes(b"x")
        raise RuntimeError("broken")

    monkeypatch.setitem(module._WRITERS, "torch", broken)
    folder = student_of(dit())
    with pytest.raises(RuntimeError, match="broken"):
        module.export(str(folder), "torch", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["artefacts"]


@pytest.mark.parametrize("name", [*PATCHES.values(), *SAMPLERS.values()])
def test_what_is_laid_beside_needs_no_imfbench_and_is_short(name: str) -> None:
    from importlib import resources

    text = resources.files("imfbench.exporting.patches").joinpath(name).read_text(encoding="utf-8")
    assert len(text.splitlines()) < 65
    assert "import imfbench" not in text
    assert "from imfbench." not in text
    compile(text, name, "exec")


def test_every_format_has_a_writer() -> None:
    from imfbench.exporting.export import _WRITERS

    assert set(_WRITERS) == set(FORMATS)
    assert torch.__version__
