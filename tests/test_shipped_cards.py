"""The page of a network that ships: its scores of a run, each beside the set that it is of."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from imfbench.artefact import ASSETS
from imfbench.assets.ship import write_card

NAME = "token2mel-meanflow"


@pytest.fixture
def shipped(tmp_path):
    folder = tmp_path / NAME
    folder.mkdir()
    for file in ("card.json", "log.csv"):
        shutil.copy(ASSETS / NAME / file, folder / file)
    return folder


def _run(folder: Path, rows: list[dict]) -> Path:
    (folder / "leaderboard").mkdir(parents=True)
    pd.DataFrame(rows).to_csv(folder / "leaderboard" / "leaderboard.csv", index=False)
    return folder


def _row(shipped, **about):
    sha256 = json.loads((shipped / "card.json").read_text())["sha256"]
    return {"dataset": "demo/test@1", "system": "meanflow", "nfe": 1, "wer": 0.02, "artefact_sha256": sha256, **about}


def _scores(shipped):
    lines = (shipped / "CARD.md").read_text().partition("## Scores")[2].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_rows_of_several_sets_name_theirs(shipped, tmp_path):
    rows = [_row(shipped), _row(shipped, dataset="demo/hard@1", wer=0.4)]
    write_card(shipped, _run(tmp_path / "run", rows))
    head, _, *found = _scores(shipped)
    assert head == ["dataset", "system", "nfe", "wer"]
    assert [row[::3] for row in found] == [["demo/test@1", "0.02"], ["demo/hard@1", "0.4"]]


def test_one_set_stands_in_the_heading(shipped, tmp_path):
    other = _row(shipped, system="other", artefact_sha256="0" * 64)
    write_card(shipped, _run(tmp_path / "run", [_row(shipped), other]))
    head, _, *found = _scores(shipped)
    assert head == ["system", "nfe", "wer"]
    assert found == [["meanflow", "1", "0.02"]]  # only the rows of these weights
    assert "dataset demo/test@1" in (shipped / "CARD.md").read_text()
