"""docs/results.md against what is really written: every key is on the page, and the page names no key that is not."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import soundfile
from click.testing import CliRunner

from imfbench.cli import main
from imfbench.datasets.demo.corpus import DemoCorpus
from imfbench.pipeline.context import select
from imfbench.registry import METRICS
from imfbench.reports.columns import COLUMNS, schema_table
from imfbench.schema import FURTHER, SCHEMA_VERSION, UTTERANCE, SchemaError, check_version, key_table

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "results.md").read_text(encoding="utf-8")
TYPES: dict[str, tuple[type, ...]] = {"string": (str,), "number": (int, float), "integer": (int, float)}
"""Integers with gaps come back from parquet as floats."""
SAMPLED = DOCS / "results" / "hour_token2mel" / "cells"


def section(title: str) -> dict[str, dict[str, str]]:
    """Key → its line, as the tables of a section of the page have it."""
    (text,) = re.findall(rf"^## {re.escape(title)}$(.*?)(?=^## |\Z)", PAGE, re.M | re.S)
    found = re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|", text, re.M)
    return {
        name: {"type": kind.strip(), "unit": unit.strip(), "present": when.strip()} for name, kind, unit, when in found
    }


UTTERANCES = section("utterances.parquet")
SUMMARY = section("summary.json, and a row of leaderboard.json and leaderboard.csv")


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `imfbench score`, with a missing file and two real metrics."""
    place = tmp_path_factory.mktemp("scored")
    utterances = select(DemoCorpus().utterances("test"), 3, False)
    (place / "mine").mkdir()
    for u in utterances[:2]:
        audio, rate = soundfile.read(u.target_audio)
        soundfile.write(place / "mine" / f"{u.id}.wav", audio, rate)
    arguments = ["score", place / "mine", "--dataset", "demo", "--limit", 3, "--metrics", "f0cv,sim", "--threads", 1]
    arguments += ["--allow-missing", "--out", place / "out", "--set", f"score_cache={place / 'cache'}"]
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    return place / "out"


def tables(scored: Path) -> list[Path]:
    return [*sorted(SAMPLED.glob("*/utterances.parquet")), *scored.glob("cells/*/utterances.parquet")]


def test_the_page_has_the_tables_of_the_code() -> None:
    assert key_table(UTTERANCE) in PAGE
    assert key_table(FURTHER) in PAGE
    assert schema_table() in PAGE
    assert len(UTTERANCES) == len(UTTERANCE)
    assert len(SUMMARY) == len(COLUMNS) + len(FURTHER)


def test_every_column_of_the_tables_is_on_the_page_with_its_type(scored: Path) -> None:
    files = tables(scored)
    assert len(files) > 8
    seen: set[str] = set()
    for file in files:
        frame = pd.read_parquet(file)
        assert [name for name in frame.columns if name not in UTTERANCES] == [], file
        seen |= set(frame.columns)
        for name, column in frame.items():
            told = UTTERANCES[str(name)]["type"]
            if column.isna().any():
                assert told.endswith("or null"), f"{name} of {file}"
            wrong = [value for value in column.dropna().tolist() if not isinstance(value, TYPES[told.split()[0]])]
            assert wrong == [], f"{name} of {file}"
    assert {name for name in UTTERANCES if not re.search("utmos|dnsmos|wer_note", name)} <= seen, (
        "the page names a column that nothing has"
    )


def test_columns_that_are_always_there_are(scored: Path) -> None:
    always = {name for name, told in UTTERANCES.items() if told["present"] == "always"}
    for file in tables(scored):
        assert always <= set(pd.read_parquet(file).columns), file


def test_every_metrics_columns_are_on_the_page() -> None:
    for name in METRICS.names():
        for column in (*METRICS.get(name).columns, f"{name}_error", f"{name}_signature"):
            assert UTTERANCES[column]["present"] == f"if `{name}` was scored"


def test_every_key_of_a_summary_is_on_the_page(scored: Path) -> None:
    files = [*SAMPLED.glob("*/summary.json"), *scored.glob("cells/*/summary.json")]
    always = {name for name, told in SUMMARY.items() if told["present"] == "always"}
    for file in files:
        row: dict[str, Any] = json.loads(file.read_text())
        assert [name for name in row if name not in SUMMARY] == [], file
        # The sampled ones are from before there was a version.
        assert {name for name in always if row.get(name) is None} <= (
            {"schema_version"} if file.is_relative_to(DOCS) else set()
        )


def test_all_three_files_have_the_version(scored: Path) -> None:
    (table,), (summary,) = scored.glob("cells/*/utterances.parquet"), scored.glob("cells/*/summary.json")
    board = json.loads((scored / "leaderboard" / "leaderboard.json").read_text())
    assert pd.read_parquet(table).attrs["schema_version"] == SCHEMA_VERSION
    assert json.loads(summary.read_text())["schema_version"] == SCHEMA_VERSION
    assert board["schema_version"] == SCHEMA_VERSION
    assert {row["schema_version"] for row in board["rows"]} == {SCHEMA_VERSION}
    assert f"It is {SCHEMA_VERSION}." in PAGE


def test_the_lines_of_pandas_load_a_run(scored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    (cell,) = (path.name for path in scored.glob("cells/*"))
    lines = [
        ast.unparse(line) for line in ast.parse(code.replace("runs/quickstart", str(scored)).replace("KEY", cell)).body
    ]
    one, every, figures = (eval(line, {"pd": pd, "Path": Path}) for line in lines)
    assert len(one) == 3
    pd.testing.assert_frame_equal(every.loc[cell], one)
    assert figures.loc[cell, "n_scored"] == 2


@pytest.mark.parametrize(
    ("version", "message"), [(SCHEMA_VERSION + 1, "newer imfbench"), ("1", "is no version"), (0, "no version")]
)
def test_another_version_is_refused(version: Any, message: str, tmp_path: Path) -> None:
    check_version(None, tmp_path)
    check_version(SCHEMA_VERSION, tmp_path)
    with pytest.raises(SchemaError, match=message) as told:
        check_version(version, tmp_path / "summary.json")
    assert str(tmp_path / "summary.json") in str(told.value)
