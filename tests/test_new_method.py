"""``imfbench new-method``: what it writes is a method, and what it refuses; docs/adding_a_method.md is followed elsewhere."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from imfbench import store
from imfbench.cli import main
from imfbench.disk import unwritable
from imfbench.registry import METHODS

pytestmark = pytest.mark.usefixtures("fresh_plugins")
CLONE = Path(__file__).parent.parent


def new_method(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["new-method", *map(str, arguments)])


def test_it_writes_a_method_and_its_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = new_method("half-step-3")
    assert result.exit_code == 0, result.output
    assert sorted(file.name for file in tmp_path.iterdir()) == ["half_step_3.py", "test_half_step_3.py"]
    for command in (
        "imfbench check --plugin half_step_3.py",
        "pytest test_half_step_3.py",
        "imfbench run quickstart --plugin",
    ):
        assert f"  {command}" in result.output
    listed = CliRunner().invoke(main, ["list", "methods", "--plugin", "half_step_3.py"]).output
    assert "half-step-3              Interval splitting, after SplitMeanFlow (arXiv 2507.16884)." in listed
    cls = METHODS.get("half-step-3")
    assert (cls.__name__, cls.Config.__name__) == ("HalfStep3", "HalfStep3Config")
    for file in tmp_path.glob("*.py"):
        text = file.read_text(encoding="utf-8")
        assert "new-method" not in text.lower().replace("new_method", "new-method")
        assert "NewMethod" not in text


@pytest.mark.parametrize("name", ["m", "a-method-with-a-rather-long-name"])
def test_what_it_writes_passes_the_projects_linter(name: str, tmp_path: Path) -> None:
    assert new_method(name, "--out", tmp_path / "made" / "here").exit_code == 0
    for command in (["check", "--extend-per-file-ignores", "test_*.py:D"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--no-cache", "--config", str(CLONE / "pyproject.toml")]
        found = subprocess.run([*ruff, str(tmp_path)], capture_output=True, text=True)
        assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("MyMethod", "small letters and digits"),
        ("my_method", "such as my-method"),
        ("3steps", "beginning with a letter"),
        ("my--method", "single hyphens"),
        ("../mine", "cannot name a method"),
        ("meanflow", "there is a method 'meanflow' already"),
        ("torch", "would hide Python's own 'torch'"),
        ("json", "would hide Python's own 'json'"),
        ("class", "would hide Python's own 'class'"),
    ],
)
def test_names_that_cannot_be_or_are_taken_are_refused(name: str, told: str, tmp_path: Path) -> None:
    result = new_method(name, "--out", tmp_path)
    assert result.exit_code == 2
    assert result.output.startswith("imfbench: ")
    assert told in result.output
    assert not [*tmp_path.iterdir()]


def test_a_name_of_a_plugin_is_taken(tmp_path: Path) -> None:
    assert new_method("mine", "--out", tmp_path).exit_code == 0
    result = new_method("mine", "--out", tmp_path / "other", "--plugin", tmp_path / "mine.py")
    assert result.exit_code == 2
    assert "there is a method 'mine' already" in result.output


@pytest.mark.parametrize("present", ["mine.py", "test_mine.py"])
def test_no_file_is_overwritten(present: str, tmp_path: Path) -> None:
    (tmp_path / present).write_text("precious")
    result = new_method("mine", "--out", tmp_path)
    assert result.exit_code == 2
    assert f"{tmp_path / present} is there already" in result.output
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(present, "precious")]


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    result = new_method("mine", "--out", tmp_path / "file" / "sub")
    assert result.exit_code == 2
    assert (
        "mine.py cannot be written: a file stands where a folder has to be. Choose another folder (--out"
        in result.output
    )
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.skipif(sys.platform != "linux", reason="no /proc")
def test_a_folder_that_cannot_be_made_is_refused() -> None:
    result = new_method("mine", "--out", "/proc/nosuch")
    assert result.exit_code == 2
    assert "/proc/nosuch/mine.py cannot be written: No such file or directory" in result.output


def test_a_disk_that_fills_up_leaves_no_file_of_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = store.write_text

    def full(path: Path, text: str) -> None:
        if path.name.startswith("test_"):
            raise unwritable(path, OSError(errno.ENOSPC, "full"))
        write(path, text)

    monkeypatch.setattr(store, "write_text", full)
    result = new_method("mine", "--out", tmp_path)
    assert result.exit_code == 2
    assert f"{tmp_path / 'test_mine.py'} cannot be written: No space left on device. Make room there" in result.output
    assert [*tmp_path.iterdir()] == []
    monkeypatch.undo()
    assert new_method("mine", "--out", tmp_path).exit_code == 0


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = new_method("mine", "--out", tmp_path / "file")
    assert result.exit_code == 2
    assert "is no folder" in result.output
