"""The environments' own rules: found again, made anew when what they are made of changes, skipped only without a registry."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import environments
import pytest
from environments import ORIGINALS, UnreachableError, environment


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """No pip is run: the names of what would have been made."""
    made: list[str] = []

    def make(original: Any, folder: Path) -> None:
        made.append(original.name)
        (folder / "bin").mkdir(parents=True)
        (folder / "bin" / "python").touch()

    monkeypatch.setattr(environments, "FOLDER", tmp_path / "originals")
    monkeypatch.setattr(environments, "_make", make)
    monkeypatch.setattr(environments, "_run", lambda *_: json.dumps([{"name": "X_Y", "version": "1"}]))
    return made


def test_an_environment_is_found_again_and_made_anew_of_other_requirements(
    pip: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = environment("f5-tts")
    assert first.versions == {"x-y": "1"}
    assert environment("f5-tts") == first
    assert pip == ["f5-tts"]
    (first.folder / "old").touch()
    monkeypatch.setattr(environments.platform, "python_version", lambda: "3.99.0")
    assert environment("f5-tts").folder == first.folder
    assert pip == ["f5-tts", "f5-tts"]
    assert not (first.folder / "old").exists()
    assert [path.name for path in first.folder.parent.iterdir()] == [first.folder.name], "nothing half-made is left"


def test_what_could_not_be_made_leaves_nothing(pip: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Any, folder: Path) -> None:
        (folder / "bin").mkdir(parents=True)
        raise RuntimeError("no such release")

    monkeypatch.setattr(environments, "_make", fail)
    with pytest.raises(RuntimeError, match="no such release"):
        environment("f5-tts")
    assert list(environments.FOLDER.iterdir()) == []


@pytest.mark.parametrize(
    ("told", "error"),
    [
        ("ERROR: Could not find a version that satisfies f5-tts (from versions: none)", UnreachableError),
        ("ERROR: Could not find a version that satisfies f5-tts (from versions: 1.0, 1.1)", RuntimeError),
    ],
)
def test_only_a_registry_that_does_not_answer_is_a_reason_to_skip(
    told: str, error: type[Exception], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run(*_: Any) -> str:
        raise RuntimeError(told)

    monkeypatch.setattr(environments, "_run", run)
    with pytest.raises(RuntimeError) as caught:
        environments._ask_registry(tmp_path, "f5-tts==1.1.22")
    assert type(caught.value) is error


def test_a_script_there_sees_neither_our_folders_nor_our_packages(tmp_path: Path) -> None:
    """By an environment without any package, which takes a second."""
    environments.subprocess.run(
        [environments.sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "env")], check=True
    )
    pins: Callable[[Path], dict[str, str]] = environments._share_torch
    assert pins(tmp_path / "env").keys() >= {"torch", "torchaudio"}
    script = tmp_path / "sees.py"
    names = ("torch", "torchaudio", "imfbench", "numpy", "safetensors", "pytest")
    script.write_text(f"import importlib.util as u\nprint(*[n for n in {names} if u.find_spec(n)])\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(environments.ROOT))
        assert environments.Environment(tmp_path / "env", {}).run(script).split() == ["torch", "torchaudio"]


def test_the_versions_are_those_that_the_other_tests_know() -> None:
    pinned = (environments.ROOT / "requirements-backbones.txt").read_text(encoding="utf-8").splitlines()
    assert {f"{original.name}=={original.version}" for original in ORIGINALS.values()} <= set(pinned)
