"""What no network can have is refused where it is written, not by torch in the middle of a run."""

from __future__ import annotations

from typing import get_args

import pytest
from pydantic import ValidationError

from imfbench.registry import BACKBONES


def numbers(name: str) -> list[str]:
    """The settings of a network's shape that are numbers."""
    fields = BACKBONES.get(name).Config.model_fields
    return [key for key, field in fields.items() if {int, float} & {field.annotation, *get_args(field.annotation)}]


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_a_number_below_nothing_is_no_shape(name: str) -> None:
    found = numbers(name)
    assert found
    for key in found:
        with pytest.raises(ValidationError, match=r"greater than"):
            BACKBONES.get(name).Config(**{key: -1})
