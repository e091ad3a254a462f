"""Runs the contract over the registry: a method that is registered is tested."""

from __future__ import annotations

from typing import Any

import pytest

from imfbench.contracts import Clause, clauses
from imfbench.registry import METHODS

OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("intmeanflow", {"reuse": 2, "on_trajectory": 0.5, "equal_share": 0.3, "start_at_zero": 0.3}),
    ("meanflow", {"guidance_from": "self", "omega": 2.0, "kappa": 0.3, "condition_dropout": 0.3}),
    ("meanflow", {"tangent_normalisation": 0.1, "jvp": "split"}),
    ("shortcut", {"consistency_share": 0.5}),
    ("shortcut", {"consistency_share": 0.5, "finest": 4, "guidance_from": "self", "condition_dropout": 0.3}),
    ("split-meanflow", {"equal_share": 0.5, "times": "logit-normal"}),
    ("reflow", {"start_at_zero": 0.5}),
]
"""What is not a default and makes a loss take other ways."""


@pytest.mark.parametrize("clause", [clause for name in METHODS for clause in clauses("method", name)], ids=str)
def test_the_contract(clause: Clause) -> None:
    clause()


@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_the_contract_off_the_defaults(name: str, options: dict[str, Any]) -> None:
    for clause in clauses("method", name, options):
        clause()


def test_the_registry_holds_what_the_project_promises() -> None:
    trained = {name for name in METHODS if METHODS.get(name).needs.training}
    assert {"teacher", "meanflow", "intmeanflow", "split-meanflow", "shortcut", "reflow"} <= trained
    assert {"o3s"} <= {*METHODS} - trained
