"""Presets of methods: what an experiment takes by name, and what it says of names that there are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from imfbench.config import ExperimentConfig, check
from imfbench.config_file import ConfigError, Source
from imfbench.listing import listing
from imfbench.registry import METHODS

Load = Callable[..., ExperimentConfig]


@pytest.fixture
def preset(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"far": {"teacher_nfe": 9, "guidance": 1.5}}
    monkeypatch.setattr(METHODS.get("intmeanflow"), "presets", known)


def loaded(**system: Any) -> ExperimentConfig:
    systems = [{"method": "intmeanflow", "nfe": [1], **system}]
    return check(Source("own.yaml", {"name": "own", "teacher": "embedded:token2mel", "systems": systems,
                                     "training": {"steps": 1}}))  # fmt: skip


@pytest.mark.parametrize(
    ("method", "name"),
    [(method, name) for method in METHODS.names() for name in getattr(METHODS.get(method), "presets", {})],
)
def test_the_presets_that_ship_are_settings_of_their_method_and_no_defaults(method: str, name: str) -> None:
    cls = METHODS.get(method)
    default = cls.Config() if not any(f.is_required() for f in cls.Config.model_fields.values()) else None
    assert cls.Config(**cls.presets[name]) != default


@pytest.mark.usefixtures("preset")
def test_a_preset_is_written_out_and_what_stands_beside_it_wins() -> None:
    config = loaded(preset="far", config={"guidance": 2.5})
    assert config.systems[0].config == {"teacher_nfe": 9, "guidance": 2.5}
    again = ExperimentConfig.model_validate(yaml.safe_load(config.dump()))
    assert again.systems[0].config == config.systems[0].config
    assert again.hash == config.hash == loaded(config={"teacher_nfe": 9, "guidance": 2.5}).hash


@pytest.mark.usefixtures("preset")
def test_presets_can_be_swept_over() -> None:
    config = loaded(preset=["far", None])
    assert [system.config for system in config.systems] == [{"teacher_nfe": 9, "guidance": 1.5}, {}]
    assert [system.label for system in config.systems] == ["intmeanflow-preset=far", "intmeanflow-preset=none"]


@pytest.mark.usefixtures("preset")
def test_unknown_presets_are_told_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="'intmeanflow' has no preset 'fair': did you mean 'far'"):
        loaded(preset="fair")
    with pytest.raises(ConfigError, match="'split-meanflow' has no preset 'far': it has none"):
        loaded(method="split-meanflow", preset="far")
    assert "preset far: teacher_nfe 9, guidance 1.5" in listing("methods")["intmeanflow"]
