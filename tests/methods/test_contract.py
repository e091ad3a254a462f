"""Runs the contract over the registry: a method that is registered is tested."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from imfbench.method import Batch
from imfbench.registry import METHODS


def _contract() -> ModuleType:
    # tests are no package, so that nothing of the clone's top level shadows an installed one
    spec = importlib.util.spec_from_file_location("method_contract", Path(__file__).with_name("contract.py"))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


contract = _contract()
TRAINED = [name for name in METHODS if METHODS.get(name).needs.training]
SEARCHES = [name for name in METHODS if not METHODS.get(name).needs.training]


@pytest.mark.parametrize("name", list(METHODS))
class TestDeclaration(contract.DeclarationContract):  # type: ignore[name-defined,misc]
    pass


@pytest.mark.parametrize("name", TRAINED)
class TestTrained(contract.TrainedContract):  # type: ignore[name-defined,misc]
    pass


@pytest.mark.parametrize("name", TRAINED)
class TestTrainedOnText(contract.TrainedContract):  # type: ignore[name-defined,misc]
    """The same on text2mel's network and conditions."""

    backbone = "aligning-dit"

    @pytest.fixture
    def batch(self, text_batch: Batch) -> Batch:
        return text_batch


@pytest.mark.parametrize("name", SEARCHES)
class TestSearch(contract.SearchContract):  # type: ignore[name-defined,misc]
    pass


def test_the_registry_holds_what_the_project_promises() -> None:
    assert {"teacher", "meanflow", "intmeanflow"} <= set(TRAINED)
    assert "o3s" in SEARCHES
