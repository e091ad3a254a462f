"""Runs the contract over the registry: a method that is registered is tested."""

from __future__ import annotations

import pytest

from imfbench.contracts import Clause, clauses
from imfbench.registry import METHODS


@pytest.mark.parametrize("clause", [clause for name in METHODS for clause in clauses("method", name)], ids=str)
def test_the_contract(clause: Clause) -> None:
    clause()


def test_the_registry_holds_what_the_project_promises() -> None:
    trained = {name for name in METHODS if METHODS.get(name).needs.training}
    assert {"teacher", "meanflow", "intmeanflow", "split-meanflow", "shortcut", "reflow"} <= trained
    assert {"o3s"} <= {*METHODS} - trained
