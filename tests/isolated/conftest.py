"""The originals' environments, and the students that they play."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

sys.path.append(str(Path(__file__).parent))

from environments import Environment, UnreachableError, environment

from imfbench.store import write_json


@pytest.fixture(scope="session")
def original() -> Callable[[str], Environment]:
    """``original(name)``: the package's environment, made on first use, which takes minutes."""

    def made(name: str) -> Environment:
        try:
            return environment(name)
        except UnreachableError as error:
            pytest.skip(str(error))

    return made


@pytest.fixture(scope="session")
def answer() -> Callable[..., dict[str, Tensor]]:
    """``answer(environment, script, folder, do=…)``: the tensors that a reference script makes of what it is asked."""

    def asked(environment: Environment, script: str, folder: Path, **what: Any) -> dict[str, Tensor]:
        write_json(folder / "asked.json", what)
        environment.run(Path(__file__).with_name(script), folder)
        return load_file(folder / f"{what['do']}.safetensors")

    return asked
