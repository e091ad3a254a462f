"""``imfbench check``: what it says of plug-ins that are right, wrong, and broken."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from imfbench import check as check_module
from imfbench.cli import main
from imfbench.progress import log

pytestmark = pytest.mark.usefixtures("fresh_plugins", "usual_logging")

SEARCH = '''
from imfbench.methods.o3s import O3S
from imfbench.registry import METHODS

@METHODS.register("search-of-mine")
class Mine(O3S):
    """Another O3S (arXiv 2510.07979)."""
'''
BACKBONE = '''
from imfbench.backbones.dit import DiT
from imfbench.registry import BACKBONES

@BACKBONES.register("network-of-mine")
class Mine(DiT):
    """Another DiT."""
'''
REPORT = '''
from imfbench.registry import REPORTS

@REPORTS.register("report-of-mine")
class Mine:
    """Fails half-way."""
    def write(self, run):
        return 1 / 0
'''
DATASET = '''
from imfbench.datasets.demo.corpus import DemoCorpus
from imfbench.registry import DATASETS

@DATASETS.register("corpus-of-mine")
class Mine(DemoCorpus):
    """Must be told where it lies."""
    def __init__(self, where, limit: int = 3):
        super().__init__(where)
'''


@pytest.fixture
def usual_logging() -> Iterator[None]:
    before = log.level, log.propagate, log.handlers[:]
    yield
    log.setLevel(before[0])
    log.propagate, log.handlers[:] = before[1:]


@pytest.fixture
def without_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_module, "_trial", lambda *_: iter(()))


def check(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(main, ["check", *map(str, arguments)])
    assert "Traceback" not in result.output
    return result


def plugin(folder: Path, text: str) -> Path:
    file = folder / "mine.py"
    file.write_text(text)
    return file


@pytest.mark.slow
def test_a_search_that_is_right(tmp_path: Path) -> None:
    file = plugin(tmp_path, SEARCH)
    result = check("--plugin", file)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[-1] == f"{file}: all is well"
    assert all(line.startswith(("ok   ", "note ")) for line in lines[:-1])
    assert "ok   method search-of-mine: Two searches of the same scores find the same grid by the same trace." in lines
    assert any("run with method search-of-mine: tiny trained 3 steps" in line for line in lines)
    assert any("row tiny+search-of-mine at 3 NFE: 2 of 2 utterances, sim" in line for line in lines)


@pytest.mark.slow
def test_a_network_that_is_right_is_trained_with_the_settings_given(tmp_path: Path) -> None:
    settings = [f"network-of-mine.{s}" for s in ("dim=32", "depth=1", "heads=2", "content_layers=1")]
    result = check("--plugin", plugin(tmp_path, BACKBONE), *(part for s in settings for part in ("--set", s)))
    assert result.exit_code == 0, result.output
    assert "run with backbone network-of-mine: row network-of-mine-trial at 2 NFE: 2 of 2 utterances" in result.output


@pytest.mark.slow
def test_what_fails_in_the_run_is_told(tmp_path: Path) -> None:
    result = check("--plugin", plugin(tmp_path, REPORT))
    assert result.exit_code == 1
    assert "bad  run with report report-of-mine: report of report-of-mine failed: ZeroDivisionError" in result.output
    assert "row teacher at 2 NFE: 2 of 2 utterances" in result.output


@pytest.mark.usefixtures("without_runs")
def test_a_broken_clause_says_expected_and_found(tmp_path: Path) -> None:
    text = SEARCH + "    def search(self, evaluate, steps=None, start=None, limits=None):\n        evaluate(start)\n"
    file = plugin(tmp_path, text + "        return super().search(evaluate, steps, start, limits)\n")
    result = check("--plugin", file)
    assert result.exit_code == 1
    told = r"\n     expected: every evaluation told and traced\n     found:    (\d+) told, \1 in the trace, (\d+) made \(2 steps"
    found = re.search(told, result.output)
    assert found, result.output
    assert int(found[2]) == int(found[1]) + 1
    assert result.output.endswith(f"{file}: 1 thing is wrong\n")


@pytest.mark.usefixtures("without_runs")
def test_an_error_within_a_plugin_comes_with_its_line(tmp_path: Path) -> None:
    file = plugin(tmp_path, SEARCH + "    def search(self, *_):\n        return self.no_such_thing\n")
    result = check("--plugin", file)
    assert result.exit_code == 1
    assert "expected: no error\n     found:    line 9: AttributeError: 'Mine' object has no attribute" in result.output


def test_a_plugin_that_gives_nothing_or_is_broken_is_wrong(tmp_path: Path) -> None:
    empty = plugin(tmp_path, "x = 1\n")
    broken = tmp_path / "broken.py"
    broken.write_text("x = \n")
    result = check("--plugin", empty, "--plugin", broken)
    assert result.exit_code == 1
    assert f"bad  {empty}: it registers nothing: put a line such as @METHODS.register" in result.output
    assert f"bad  {broken}: it cannot be imported: line 1: SyntaxError: invalid syntax" in result.output
    assert "2 things are wrong" in result.output


def test_a_class_that_is_no_method_is_told_so(tmp_path: Path) -> None:
    file = plugin(tmp_path, "from imfbench.registry import METHODS\nMETHODS.add('mine', dict)\n")
    result = check("--plugin", file)
    assert result.exit_code == 1
    assert "expected: `needs`, a Needs(…)\n     found:    none" in result.output
    assert "bad  run with method mine: it did not begin: AttributeError" in result.output


def test_what_a_dataset_needs_is_asked_for(tmp_path: Path) -> None:
    file = plugin(tmp_path, DATASET)
    result = check("--plugin", file)
    assert result.exit_code == 1
    assert "it needs where: give it a default, or say it here, --set corpus-of-mine.where=…" in result.output


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("corpus.where=x", "registers 'corpus': did you mean 'corpus-of-mine'?"),
        ("where=x", "write it as NAME.KEY=VALUE"),
        ("corpus-of-mine.where", "write it as NAME.KEY=VALUE"),
        ("corpus-of-mine.where=[", "--set corpus-of-mine.where=[: '[' is not a YAML value; quote it"),
        ("corpus-of-mine.where=2026-13-01", "'2026-13-01' is not a YAML value; quote it"),
    ],
)
def test_a_setting_that_fits_nothing_is_refused(setting: str, told: str, tmp_path: Path) -> None:
    result = check("--plugin", plugin(tmp_path, DATASET), "--set", setting)
    assert result.exit_code == 2
    assert told in result.output


def test_without_any_plugin_there_is_nothing_to_check() -> None:
    result = check()
    assert result.exit_code == 2
    assert "nothing to check" in result.output
