"""Tests of new-method: the contract that every method keeps, and what is its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from imfbench.contracts import Clause, clauses
from imfbench.contracts.batches import make_batch, query
from imfbench.contracts.trained import Trained
from imfbench.plugins import load_file

NAME = "new-method"
PLUGIN = load_file(Path(__file__).with_name("new_method.py"))
assert not PLUGIN.error, PLUGIN.error


@pytest.mark.parametrize("clause", clauses("method", NAME), ids=str)
def test_contract(clause: Clause) -> None:
    clause()


def test_one_network_pass_is_one_step() -> None:
    """A test of your own: know the answer before you ask. Here, that sampling is the network's average and no more."""
    part = Trained(NAME, "dit", make_batch(), {})
    method, (z, t, r) = part.build(), query(part.batch)
    with torch.no_grad():
        found = method.velocity(z, t, r, part.batch.condition)
        assert torch.equal(found, method.network(z, t, r, part.batch.condition))
