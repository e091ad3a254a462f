"""The mapped packages import from anywhere, and never shadow other packages called `datasets` or `methods`."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

CLONE = Path(__file__).parent.parent


def run(code: str, cwd: Path, **environment: str) -> str:
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert found.returncode == 0, found.stderr
    return found.stdout.strip()


def test_the_other_datasets_is_found_with_the_clone_as_working_directory(tmp_path: Path) -> None:
    """Hugging Face's `datasets`, which f5-tts needs, has the name of a folder of ours."""
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "__init__.py").write_text("whose = 'theirs'\n")
    code = "import datasets, imfbench.datasets as ours; print(datasets.whose, ours.__name__)"
    if sys.version_info >= (3, 11):
        assert run(code, CLONE, PYTHONPATH=str(tmp_path), PYTHONSAFEPATH="1") == "theirs imfbench.datasets"
    assert run(code, tmp_path, PYTHONPATH=str(tmp_path)) == "theirs imfbench.datasets"


def test_the_import_package_works_outside_the_clone(tmp_path: Path) -> None:
    code = (
        "from imfbench.registry import METHODS, DATASETS; import imfbench.reports.leaderboard\n"
        "print(len(METHODS.names()), DATASETS.get('demo')().revision)"
    )
    methods, revision = run(code, tmp_path).split()
    assert int(methods) >= 4
    assert len(revision) == 8


def test_the_clone_alone_runs_as_a_module(tmp_path: Path) -> None:
    """`python -m imfbench` in a clone, where `methods` lies beside the package and not in it."""
    (tmp_path / "clone").mkdir()
    for folder in ("imfbench", "methods", "datasets", "reports"):
        (tmp_path / "clone" / folder).symlink_to(CLONE / folder)
    code = f"import sys; sys.path.insert(0, '.'); import imfbench; assert imfbench.__file__.startswith({str(tmp_path)!r})\n"
    code += "from imfbench.registry import METHODS; print(METHODS.get('o3s').__module__)"
    assert run(code, tmp_path / "clone") == "imfbench.methods.o3s"


def test_types_are_checked_in_every_folder_that_is_part_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the clone, ``mypy -p imfbench`` would look at imfbench/ alone and take the other folders for packages not installed."""
    if not list(CLONE.glob("build/__editable__*")):
        pytest.skip("the strict editable install of `make install` is not there")
    from mypy.main import process_options

    monkeypatch.chdir(CLONE)
    sources, _ = process_options(["--config-file", "pyproject.toml"])
    checked = {source.module.removeprefix("imfbench.").split(".")[0] for source in sources}
    assert checked > {"methods", "datasets", "reports", "flow"}
    written = [
        path for folder in ("imfbench", "methods", "datasets", "reports") for path in CLONE.glob(f"{folder}/**/*.py")
    ]
    assert len(sources) == len(written)


def test_nothing_names_an_accelerator_outside_one_module() -> None:
    for path in [*CLONE.glob("imfbench/**/*.py"), *CLONE.glob("methods/*.py"), *CLONE.glob("reports/*.py")]:
        if path.name == "devices.py":
            continue
        assert "cuda" not in path.read_text(encoding="utf-8"), path


def test_methods_and_flow_import_neither_files_nor_devices_nor_logging() -> None:
    """Arrows point one way: a method sees mathematics and the types of `method.py`, flow sees nothing of ours but flow."""
    allowed = {
        "methods": ("imfbench.flow", "imfbench.method", "imfbench.registry"),
        "imfbench/flow": ("imfbench.flow",),
    }
    for folder, ours in allowed.items():
        for path in (CLONE / folder).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                for name in names:
                    assert name.split(".")[0] not in {"pathlib", "os", "io", "logging", "soundfile"}, f"{path}: {name}"
                    assert not name.startswith("imfbench") or name.startswith(ours), f"{path}: {name}"


def test_modules_stay_short() -> None:
    for folder in ("imfbench", "methods", "datasets", "reports", "tests"):
        for path in (CLONE / folder).rglob("*.py"):
            assert path.read_text(encoding="utf-8").count("\n") <= 400, f"{path} is long: where is its seam?"


def test_every_folder_of_code_is_a_package_and_the_pages_parts_go_into_wheels() -> None:
    from setuptools.config.pyprojecttoml import read_configuration

    settings = read_configuration(str(CLONE / "pyproject.toml"))["tool"]["setuptools"]
    written = {
        ".".join(path.parent.relative_to(CLONE).parts) for top in ("imfbench", "methods", "datasets", "reports")
        for path in (CLONE / top).rglob("*.py") if (path.parent / "__init__.py").exists()
    }  # fmt: skip
    assert {name if name.split(".")[0] == "imfbench" else f"imfbench.{name}" for name in written} == {
        *settings["packages"]
    }
    patterns = settings["package-data"]["imfbench.reports.page"]
    page = CLONE / "reports" / "page"
    shipped = {file for pattern in patterns for file in page.glob(pattern)}
    assert {
        file for folder in ("templates", "static") for file in (page / folder).rglob("*") if file.is_file()
    } == shipped
