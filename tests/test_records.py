"""What a run's tables and its manifest tell afterwards: why something failed, and which imfbench ran."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from imfbench.metrics.sim import SpeakerSimilarity
from imfbench.pipeline import manifest, train_task
from imfbench.pipeline import search as search_stage
from imfbench.store import read_json

NOT_LOADED = "LoadError: the model of metric 'sim' cannot be loaded: OSError: no such library"


def fails(self: Any) -> None:
    raise OSError("no such library")


def never_finite(*_: Any) -> Any:
    return lambda mels: float("nan")


def reasons(tiny: Any) -> dict[str, str]:
    return {row["system"]: row["status"] for row in tiny.leaderboard()}


@pytest.mark.parametrize("then", [[], [{"name": "more", "systems": [], "references": ["ground-truth"]}]])
def test_why_a_training_or_a_search_failed_stands_in_every_later_table(  # type: ignore[no-untyped-def]
    tiny, monkeypatch: pytest.MonkeyPatch, then: list[dict[str, Any]]
) -> None:
    """Also where the run has several parts, so that one report is made of all."""
    seeker = {
        "method": "teacher",
        "name": "ready",
        "artefact": str(tiny.artefact()),
        "nfe": [1],
        "search": {"method": "o3s", "nfe": [2], "score": "sim"},
    }
    path = tiny.config(systems=[*tiny.trained, seeker], references=[], then=then)

    def train(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("no frames")

    with monkeypatch.context() as patch:
        patch.setattr(train_task, "train", train)
        patch.setattr(search_stage, "_metric_score", never_finite)
        assert tiny.invoke(path).exit_code == 1
    first = reasons(tiny)
    assert first["own"] == "failed: ZeroDivisionError: no frames"
    assert first["ready+o3s"] == "failed: SearchError: ready+o3s-2: no grid could be scored on the development set"
    assert read_json(tiny.out / "manifest.json")["status"] == "failed"
    for command in ("report", "score"):
        assert tiny.invoke(path, command=command).exit_code == 0
    assert tiny.invoke(path, command="report").exit_code == 0
    assert reasons(tiny) == first
    with monkeypatch.context() as patch:
        patch.setattr(search_stage, "_metric_score", never_finite)
        assert tiny.invoke(path).exit_code == 1
    assert tiny.invoke(path, command="report").exit_code == 0
    assert reasons(tiny) == {**first, "own": "ok"}, "until a command does it"


@pytest.mark.parametrize("metrics", [["sim"], ["f0cv", "sim"]])
def test_why_a_metric_failed_stands_in_the_rows_of_all_parts(  # type: ignore[no-untyped-def]
    tiny, monkeypatch: pytest.MonkeyPatch, metrics: list[str]
) -> None:
    monkeypatch.setattr(SpeakerSimilarity, "open_model", fails)
    then = [{"name": "more", "dataset": {"limit": 1}}]
    path = tiny.config(systems=[], references=["ground-truth"], metrics=metrics, then=then)
    for command in ("run", "report"):
        assert tiny.invoke(path, command=command).exit_code == (1 if command == "run" else 0)
        rows = tiny.leaderboard()
        assert sorted(row["n_expected"] for row in rows) == [1, 2]
        assert all(NOT_LOADED in row["not_measured"]["sim"] for row in rows)
        assert [row["status"] for row in rows] == ([f"failed: {NOT_LOADED}"] if len(metrics) == 1 else ["ok"]) * 2


@pytest.mark.skipif(shutil.which("git") is None, reason="no git")
def test_the_revision_is_that_of_imfbench_and_of_no_project_around_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()

    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):  # of a hook that the tests may run in
        monkeypatch.delenv(name, raising=False)
    git("init")
    git("commit", "--allow-empty", "--message", "x")
    places = [tmp_path, tmp_path / ".venv" / "lib" / "site-packages"]
    found = []
    for place in places:
        module = place / "imfbench" / "pipeline" / "manifest.py"
        module.parent.mkdir(parents=True)
        monkeypatch.setattr(manifest, "__file__", str(module))
        found.append(manifest.git_revision())
    assert found == [git("rev-parse", "HEAD"), None]
