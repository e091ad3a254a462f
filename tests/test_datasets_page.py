"""docs/datasets.md says what the datasets say of themselves, and its settings and commands are such."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from imfbench.cli import doctor_command, main
from imfbench.config import ExperimentConfig
from imfbench.listing import describe
from imfbench.registry import DATASETS
from imfbench.sets import options_problem

PAGE = (Path(__file__).parent.parent / "docs" / "datasets.md").read_text(encoding="utf-8")
SHIPPED = [name for name in DATASETS.names() if getattr(DATASETS.get(name), "card", None) is not None]


def test_the_table_is_what_the_datasets_say() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    expected = []
    for name in SHIPPED:
        card = DATASETS.get(name).card
        sets = [f"{split}: {describe(found).strip('()')}" for split, found in card.sets.items()]
        expected.append(f"| `{name}` | {'; '.join(sets)} | {card.licence} | {card.source} | {card.layout} |")
    assert sorted(rows) == sorted(expected)


def test_every_dataset_is_listed_with_what_there_is_to_know() -> None:
    told = CliRunner().invoke(main, ["list", "datasets"]).output
    for name in SHIPPED:
        card = DATASETS.get(name).card
        for words in (name, card.licence, card.source, card.layout, *card.sets):
            assert words in told
    assert "en (1088, en), zh (2020, zh), hard (400, zh)" in told


@pytest.mark.parametrize("text", re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
def test_the_settings_are_settings(text: str) -> None:
    (found,) = ExperimentConfig.model_validate({"name": "x", **yaml.safe_load(text)}).dataset
    assert options_problem(found.name, found.options) == ("", "")
    assert found.split in DATASETS.get(found.name).card.sets


def test_the_commands_are_commands() -> None:
    commands = [shlex.split(line) for line in re.findall(r"^imfbench doctor .*$", PAGE, re.MULTILINE)]
    assert {words[words.index("--dataset") + 1].partition("/")[0] for words in commands} == set(SHIPPED)
    known = {option for parameter in doctor_command.params for option in parameter.opts}
    assert all(word in known for words in commands for word in words if word.startswith("--"))


def test_the_copy_to_try_commands_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = re.findall(r'^python -c "(.*)"$', PAGE, re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    exec(line, {})
    result = CliRunner().invoke(main, ["doctor", "--dataset", "seed-tts-eval", "try"])
    bad = [row for row in result.output.splitlines() if row.startswith("bad")]
    assert len(bad) == 3
    assert all("but the published set has" in row for row in bad)
