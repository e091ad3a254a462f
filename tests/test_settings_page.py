"""docs/settings.md is what the code says, tells what every setting means, and has an example that is an experiment."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from imfbench import config
from imfbench.settings_page import MARK, PARTS, Section, page, sections

FILE = Path(__file__).parent.parent / "docs" / "settings.md"
PAGE = FILE.read_text(encoding="utf-8")
WRITTEN = PAGE.partition(MARK)[0]


@pytest.fixture(scope="module")
def found() -> list[Section]:
    return sections()


def test_the_page_is_what_the_code_says() -> None:
    lines = page(PAGE).splitlines()
    apart = next((line for line, there in zip(lines, PAGE.splitlines(), strict=False) if line != there), "its end")
    assert lines == PAGE.splitlines(), f"""
        docs/settings.md is not what the settings are, first at: {apart}
        Make it anew with `python -m imfbench.settings_page docs/settings.md`, after `make install` if a module is new."""


def test_every_setting_has_a_meaning(found: list[Section]) -> None:
    without = [f"{section.title}: {s.key}" for section in found for s in section.settings if not s.meaning]
    assert without == [], "write a string below the field, or an entry under Args in the docstring of a dataset's class"


def test_every_model_of_a_file_is_on_the_page() -> None:
    models = [
        model
        for name, model in vars(config).items()
        if inspect.isclass(model) and issubclass(model, BaseModel) and model.__module__ == config.__name__
        if not name.startswith("_")
    ]
    assert {*models} == {*PARTS}, "name the model in imfbench.settings_page.PARTS"


def test_every_link_leads_somewhere() -> None:
    titles = re.findall(r"^#+ (.*)$", PAGE, re.M)
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    assert len(anchors) == len(titles)
    for link in re.findall(r"\]\(([^)]+)\)", PAGE):
        file, _, anchor = link.partition("#")
        assert (FILE.parent / file).is_file() if file else anchor in anchors, link


def test_both_precisions_are_told_first(found: list[Section]) -> None:
    first = found[0]
    assert [(s.key, s.default) for s in first.settings[:2]] == [("precision", "`fp32`"), ("precision", "`auto`")]
    assert "sampling" in first.sentence
    assert "training" in first.sentence


def test_the_example_is_an_experiment(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", WRITTEN, re.S)
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    loaded = config.load(str(tmp_path / "mine.yaml"), ("training.steps=200", "precision=auto"))
    assert [system.label for system in loaded.systems] == ["meanflow", "ours"]
    assert (loaded.precision, loaded.training["precision"]) == ("auto", "auto")
