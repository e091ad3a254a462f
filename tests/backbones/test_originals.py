"""Modules of other people's packages, imported whenever a network first needs them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from imfbench.backbones.originals import original


def test_what_a_module_makes_once_is_real_though_an_estimate_imports_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As CosyVoice's encoder does, whose default argument is an empty tensor: a fake one could not be exported later."""
    (tmp_path / "foreign_encoder.py").write_text(
        "import torch\n\ndef forward(x, context=torch.zeros(0)):\n    return context\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with FakeTensorMode(), torch.device("meta"):
        module = original("foreign_encoder", extra="cosyvoice")
        assert isinstance(torch.zeros(1), FakeTensor)  # the mode is on again
    monkeypatch.delitem(sys.modules, "foreign_encoder")
    made = module.forward(None)
    assert not isinstance(made, FakeTensor)
    assert made.device.type == "cpu"
