"""The pages docs/adding_a_….md, followed: their files and commands, in order, in an empty folder outside the repository."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from imfbench.cli import main
from imfbench.store import file_sha256, read_json

DOCS = Path(__file__).parent.parent / "docs"
BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PAGES = {  # the page, its plug-in, its run, and a system that must have a row there
    "method": ("my_method.py", "runs/small", "my-method"),
    "dataset": ("recordings.py", "runs/mine", "teacher"),
    "metric": ("longest_pause.py", "runs/pauses", "teacher"),
    "report": ("latex_table.py", "runs/table", "teacher"),
}


def follow(kind: str, folder: Path) -> str:
    """Do what a page says in ``folder``; what its commands printed."""
    bin = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{bin}{os.pathsep}{os.environ['PATH']}", "PYTHONSAFEPATH": "1"}
    printed = ""
    for language, name, text in BLOCK.findall((DOCS / f"adding_a_{kind}.md").read_text(encoding="utf-8")):
        if language == "sh":
            for command in text.splitlines():
                words = re.sub(r"^pytest\b", f"{sys.executable} -m pytest", command)  # where pytest is no script
                done = subprocess.run(
                    words, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=600
                )
                printed += done.stdout + done.stderr
                assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        else:
            assert name, f"adding_a_{kind}.md: a block of {language} without a file's name"
            (folder / name).write_text(text, encoding="utf-8")
    return printed


def rows(run: Path) -> list[dict[str, Any]]:
    with open(run / "leaderboard" / "leaderboard.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def check_rows(kind: str, folder: Path) -> None:
    plugin, run, system = PAGES[kind]
    found = [row for row in rows(folder / run) if row["system"] == system]
    assert found
    for row in found:
        assert row["status"] == "ok"
        assert -1 < float(row["sim"]) <= 1
        assert (row["n_expected"], row["n_scored"]) == ("2", "2")
    assert system in (folder / run / "leaderboard" / "leaderboard.md").read_text(encoding="utf-8")
    (recorded,) = read_json(folder / run / "manifest.json")["plugins"]
    assert (recorded["plugin"], recorded["sha256"]) == (plugin, file_sha256(folder / plugin))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", list(PAGES))
def test_every_page_can_be_followed_to_its_end(kind: str, tmp_path: Path) -> None:
    printed = follow(kind, tmp_path)
    assert f"{PAGES[kind][0]}: all is well" in printed
    assert kind != "method" or " passed" in printed, "the test that new-method writes"
    check_rows(kind, tmp_path)
    run = tmp_path / PAGES[kind][1]
    if kind == "method":
        mine = {row["nfe"]: row for row in rows(run) if row["system"] == "my-method"}
        assert sorted(mine) == ["1", "2"]
        assert all((row["network_calls"], row["trained_guidance"]) == (nfe, "1.5") for nfe, row in mine.items())
    elif kind == "dataset":
        assert all(row["dataset"].startswith("recordings/test@") for row in rows(run))
    elif kind == "metric":
        assert all(0 <= float(row["longest_pause"]) < 2 for row in rows(run))
        assert "| longest_pause |" in (run / "leaderboard" / "leaderboard.md").read_text(encoding="utf-8")
        assert "longest-pause-v1|frame:10ms|resample:soxr-hq|silent:35dB" in rows(run)[0]["signatures"]
    elif kind == "report":
        table = (run / "leaderboard" / "table.tex").read_text(encoding="utf-8")
        assert table.count(r"\\") == 1 + len(rows(run))
        assert "teacher & 1 & 0." in table


@pytest.mark.parametrize("kind", list(PAGES))
def test_the_pages_are_linked_and_their_experiments_are_yaml(kind: str) -> None:
    for page in (DOCS.parent / "README.md", DOCS.parent / "CONTRIBUTING.md"):
        assert f"(docs/adding_a_{kind}.md)" in page.read_text(encoding="utf-8")
    blocks = BLOCK.findall((DOCS / f"adding_a_{kind}.md").read_text(encoding="utf-8"))
    assert all(yaml.safe_load(text) for language, _, text in blocks if language == "yaml")


@pytest.mark.usefixtures("fresh_plugins")
@pytest.mark.parametrize(
    ("setting", "damage", "words"),
    [
        ("dataset.split=tets", "", "the set 'tets' of dataset 'recordings' (options {'root': 'recordings'}) cannot be used: rec"),
        ("dataset.options.root=nowhere", "", "'recordings' cannot be opened with {'root': 'nowhere'}: [Errno 2] No such file"),
        ("dataset.split=test", "alone", "(options {'root': 'recordings'}) cannot be used: am_eric has one recording in 'test'"),
        ("dataset.split=test", "no JSON", "'recordings' cannot be opened with {'root': 'recordings'}: "),
        ("dataset.split=test", "ff", "cannot be opened with {'root': 'recordings'}: 'utf-8' codec can't decode byte 0xff"),
    ],
)  # fmt: skip
def test_a_dataset_of_the_page_that_is_named_wrongly_or_damaged_is_refused(
    setting: str, damage: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It raises what its page and contract ask for, which a run tells as it tells the faults of its own datasets."""
    monkeypatch.chdir(tmp_path)
    for language, name, text in BLOCK.findall((DOCS / "adding_a_dataset.md").read_text(encoding="utf-8")):
        if language != "sh":
            Path(name).write_text(text, encoding="utf-8")
    exec(compile(Path("borrow.py").read_text(encoding="utf-8"), "borrow.py", "exec"), {})
    rows = Path("recordings/utterances.jsonl")
    if damage == "alone":
        rows.write_text("\n".join(rows.read_text(encoding="utf-8").splitlines()[:-1]), encoding="utf-8")
    elif damage:
        rows.write_bytes(b"\xff" if damage == "ff" else damage.encode())
    command = ["run", "mine.yaml", "--plugin", "recordings.py", "--out", "out", "--set", setting]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2, result.output
    (told,) = [line for line in result.output.splitlines() if line.startswith("imfbench: ")]
    assert words in told
    assert "correct " in told
    assert "or mend" in told
