"""The registry: decorators, lazy targets, files of a package, plug-ins, collisions, names that are nearly right."""

from __future__ import annotations

import sys
import warnings
from importlib import metadata
from pathlib import Path

import pytest

from imfbench.plugins import GROUP
from imfbench.registry import METHODS, BrokenEntryError, Registry, UnknownNameError


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
    with pytest.raises(BrokenEntryError, match=r"thing 'broken' \(no_such_module_anywhere:Thing\) cannot be imported"):
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
    few: Registry = Registry("thing")
    few.add("b", "collections:Counter")
    few.add("a", "collections:OrderedDict")
    with pytest.raises(UnknownNameError, match="unknown thing 'zzz': known: a, b"):
        few.get("zzz")


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
    with pytest.raises(ValueError, match=r"already registered as house_of_things\.new_thing"):
        Registry("thing", package="house_of_things").add(
            "new-thing", "collections:Counter"
        )  # its file is not imported yet


def test_a_class_is_found_by_its_name_without_an_import() -> None:
    from collections import Counter, OrderedDict

    registry: Registry = Registry("thing")
    registry.add("broken", "no_such_module_anywhere:Thing")
    registry.add("lazy", "collections:OrderedDict")
    registry.add("here", Counter)
    assert [registry.name_of(cls) for cls in (OrderedDict, Counter, dict)] == ["lazy", "here", None]


@pytest.mark.usefixtures("fresh_plugins")
def test_plugins_are_imported_once_when_needed_and_a_broken_one_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = type(sys)("test_plugin_home")
    home.THINGS, home.imports = Registry("thing"), []  # type: ignore[attr-defined]
    home.THINGS.add("ours", "collections:OrderedDict")
    monkeypatch.setitem(sys.modules, "test_plugin_home", home)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "plugin_that_works.py").write_text(
        "import test_plugin_home as home\nhome.imports.append(home.THINGS.names())\n"
        "@home.THINGS.register('theirs')\nclass Theirs:\n    pass\n"
    )
    (tmp_path / "plugin_that_collides.py").write_text(
        "import test_plugin_home as home\nhome.THINGS.add('ours', 'collections:Counter')\n"
    )
    modules = {"broken": "no_such_module_anywhere", "works": "plugin_that_works", "collides": "plugin_that_collides"}
    points = [metadata.EntryPoint(name, module, GROUP) for name, module in modules.items()]
    monkeypatch.setattr(metadata, "entry_points", lambda *, group: points if group == GROUP else [])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # who asks for what is there hears nothing of plug-ins
            assert "ours" in home.THINGS
            home.THINGS.get("ours")
        assert home.imports == []
        with pytest.warns(RuntimeWarning) as caught:
            assert home.THINGS.get("theirs").__name__ == "Theirs"
        told = sorted(str(warning.message) for warning in caught)
        assert [text.partition(" was left out")[0] for text in told] == [
            "plug-in 'broken' (no_such_module_anywhere)",
            "plug-in 'collides' (plugin_that_collides)",
        ]
        assert "'ours' is already registered" in told[1]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert home.THINGS.names() == ["ours", "theirs"]
        assert len(home.imports) == 1
    finally:
        for module in modules.values():
            sys.modules.pop(module, None)
