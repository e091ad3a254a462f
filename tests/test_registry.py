"""The registry: decorators, lazy targets, files of a package, collisions, and names that are nearly right."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from imfbench.registry import METHODS, Registry, UnknownNameError


def test_decorated_and_lazy_entries() -> None:
    registry: Registry = Registry("thing")

    @registry.register("here")
    class Here:
        pass

    registry.add("lazy", "collections:OrderedDict")
    assert registry.names() == ["here", "lazy"]
    assert registry.get("here") is Here
    from collections import OrderedDict

    assert registry.get("lazy") is OrderedDict


def test_a_lazy_target_is_imported_when_it_is_asked_for() -> None:
    registry: Registry = Registry("thing")
    registry.add("broken", "no_such_module_anywhere:Thing")
    assert "broken" in registry
    with pytest.raises(ModuleNotFoundError):
        registry.get("broken")


def test_a_taken_name_is_an_error_unless_it_is_the_same_thing() -> None:
    registry: Registry = Registry("thing")
    registry.add("a", "collections:OrderedDict")
    registry.add("a", "collections:OrderedDict")
    with pytest.raises(ValueError, match="already registered"):
        registry.add("a", "collections:Counter")


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'intmeanflow'") as caught:
        METHODS.get("int-meanflow")
    assert str(caught.value).startswith("unknown method 'int-meanflow'")
    with pytest.raises(UnknownNameError, match="known: intmeanflow, meanflow, o3s, teacher"):
        METHODS.get("zzz")


def test_a_new_file_in_the_package_is_known_by_existing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "house_of_things"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "new_thing.py").write_text(
        "import test_registry_home\n@test_registry_home.THINGS.register('new-thing')\nclass NewThing:\n    pass\n"
    )
    home = type(sys)("test_registry_home")
    home.THINGS = Registry("thing", package="house_of_things")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "test_registry_home", home)
    monkeypatch.syspath_prepend(tmp_path)
    assert home.THINGS.names() == ["new-thing"]
    assert home.THINGS.get("new-thing").__name__ == "NewThing"
