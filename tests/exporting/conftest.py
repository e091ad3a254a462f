"""Students whose second time matters, as artefacts; files that an export lays down, as modules."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from students import save_student


@pytest.fixture
def student_of(tmp_path: Path) -> Callable[..., Path]:
    """``student_of(network)``: an IntMeanFlow around it, K = 8, w = 3, saved; ``method="teacher"`` leaves it of one time."""
    return functools.partial(save_student, tmp_path / "artefacts" / "student")


@pytest.fixture
def module_of() -> Callable[[Path], Any]:
    """A Python file as it lies in an export."""

    def load(path: Path) -> Any:
        spec = importlib.util.spec_from_file_location(f"exported_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load
