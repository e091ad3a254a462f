"""What leaderboard.md, .csv and .json say of runs whose answers are known."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from imfbench.registry import REPORTS
from imfbench.reports.columns import COLUMNS, schema_table
from imfbench.reports.comparison import MARGINS, Comparison
from imfbench.reports.leaderboard import SCHEMA, Leaderboard
from imfbench.reports.results import RunFolderError, read_run

N = 24
EVEN = np.tile([0.0, 0.02], N // 2)
SCORES = {"wer": np.full(N, 0.1), "sim": 0.8 + EVEN, "mos_distillmos": 3.5 + EVEN}
SPEED = {"rtf_network": 0.1, "rtf_vocoder": 0.2, "rtf_total": 0.3}


def write(run: Any) -> str:
    files = Leaderboard(pictures=False).write(run.path)
    assert [path.suffix for path in files] == [".md", ".csv", ".json"]
    return (run.path / "leaderboard" / "leaderboard.md").read_text()


def record(run: Any) -> dict[str, Any]:
    return json.loads((run.path / "leaderboard" / "leaderboard.json").read_text())


def lines_with(text: str, start: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(start)]


def test_an_empty_run_folder_says_what_is_missing_and_what_to_do(run: Any, tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"trial: nothing to report: no cells/.*repeat the `imfbench run` command"):
        Leaderboard().write(run.path)
    assert not (run.path / "leaderboard").exists()
    (run.path / "cells" / "abc").mkdir(parents=True)
    with pytest.raises(RunFolderError, match="1 cells are begun, none is scored"):
        Leaderboard().write(run.path)
    with pytest.raises(RunFolderError, match="no such run folder"):
        Leaderboard().write(tmp_path / "nowhere")


def test_it_is_registered() -> None:
    assert REPORTS.get("leaderboard") is Leaderboard


def test_a_damaged_result_is_named(run: Any) -> None:
    key = run.cell("teacher", 2, SCORES)
    summary = run.path / "cells" / key / "summary.json"
    row = json.loads(summary.read_text())
    summary.write_text(json.dumps({**row, "dataset": None}))
    with pytest.raises(RunFolderError, match=r"summary.json: no value for dataset"):
        Leaderboard().write(run.path)
    summary.write_text("{")
    with pytest.raises(RunFolderError, match=r"summary.json: not readable as JSON"):
        Leaderboard().write(run.path)


def test_recordings_and_teacher_come_first(run: Any) -> None:
    for system, nfe in (("meanflow", 1), ("teacher", 2), ("intmeanflow", 1), ("teacher", 32)):
        run.cell(system, nfe, SCORES)
    run.cell("vocoded-ground-truth", scores=SCORES)
    run.cell("ground-truth", scores=SCORES)
    write(run)
    assert [(r["system"], r["nfe"]) for r in record(run)["rows"]] == [
        ("ground-truth", None),
        ("vocoded-ground-truth", None),
        ("teacher", 32),
        ("teacher", 2),
        ("intmeanflow", 1),
        ("meanflow", 1),
    ]


def test_digits_of_names_stand_in_the_order_of_their_numbers(run: Any) -> None:
    for k in (16, 2, 1):
        run.cell(f"k{k}", 1, SCORES)
        run.training(f"k{k}-seed0", [1.0, 0.5], [1.0, 1.0])
    write(run)
    assert [r["system"] for r in record(run)["rows"]] == ["k1", "k2", "k16"]
    assert [t.name for t in read_run(run.path).trainings] == ["k1-seed0", "k2-seed0", "k16-seed0"]


def test_tables_show_percent_and_files_hold_fractions(run: Any) -> None:
    run.cell("teacher", 2, {"wer": np.full(N, 0.25)}, **SPEED, peak_memory=61_500_000)
    text = write(run)
    assert "| teacher | 2 | 4 | **25.0** [25.0, 25.0] | 0.300 | 24 | ok |" in text
    with open(run.path / "leaderboard" / "leaderboard.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["wer"], row["nfe"], row["rtf_total"], row["peak_memory"]) == ("0.25", "2", "0.3", "61500000")
    assert json.loads(row["grid_values"]) == [0.0, 0.5, 1.0]
    assert json.loads(row["signatures"])["wer"].startswith("wer-v1|")
    assert list(row)[: len(COLUMNS)] == [c.name for c in COLUMNS]
    assert "61500000" in json.dumps(record(run)["rows"])


def test_what_was_not_measured_has_a_footnote_with_the_reason(run: Any) -> None:
    run.cell("ground-truth", scores=SCORES)
    run.cell("teacher", 2, SCORES, **SPEED)
    run.cell("meanflow", 2, SCORES, not_measured={"rtf_total": "speed pass was switched off"})
    text = write(run)
    (row,) = lines_with(text, "| meanflow | 2 | 2 | 10.0")
    (note,) = [line for line in text.splitlines() if line.endswith("speed pass was switched off  ")]
    assert f"–{note[0]} | 24 | ok |" in row
    truth = lines_with(text, "| ground-truth |")[0]
    assert truth.startswith("| ground-truth | –¹ | –¹ |")
    assert "¹ does not apply: a recording, not a model's output  " in text
    reasons = record(run)["rows"][2]["not_measured"]
    assert reasons["rtf_total"] == "speed pass was switched off"
    assert reasons["mos_utmos"] == "the metric utmos was not scored"


def test_every_null_of_every_row_has_a_reason(run: Any) -> None:
    run.cell("ground-truth", scores=SCORES)
    run.cell("meanflow", 2, status="diverged", n_expected=N, key="m")
    write(run)
    for row in record(run)["rows"]:
        assert {name for name, value in row.items() if value is None} == set(row["not_measured"])
        assert all(row["not_measured"].values())


def test_diverged_and_failed_rows_stand_in_the_table(run: Any) -> None:
    run.cell("teacher", 32, SCORES)
    run.cell("meanflow", 2, status="diverged", n_expected=N, key="m2")
    run.cell("meanflow", 1, status="failed: out of memory", n_expected=N, key="m1")
    run.training("meanflow", [1.0, 2.0, np.nan], [1.0, 1e4, np.nan], status="diverged", reason="not finite")
    text = write(run)
    assert lines_with(text, "| meanflow | 2 | 2 | –")[0].endswith("| 0/24 | diverged |")
    assert lines_with(text, "| meanflow | 1 | 1 | –")[0].endswith("| 0/24 | failed² |")
    assert "² failed: out of memory  " in text
    assert "**meanflow diverged** at step 3 and was stopped (not finite)" in text
    assert "No comparison with the teacher: no student has a figure to compare." in text
    assert [t["status"] for t in record(run)["trainings"]] == ["diverged"]


def test_ties_are_marked_and_explained(run: Any) -> None:
    noise = np.random.default_rng(3).normal(0, 0.02, (3, N))
    for i, (system, sim) in enumerate((("teacher", 0.803), ("intmeanflow", 0.8), ("meanflow", 0.6))):
        run.cell(system, 2, {"sim": sim + noise[i]})
    text = write(run)
    assert "| **0." in lines_with(text, "| teacher | 2 |")[0]
    assert " ≈ [" in lines_with(text, "| intmeanflow | 2 |")[0]
    assert "≈" not in lines_with(text, "| meanflow | 2 |")[0]
    assert "no proof of equality" in text


def test_statements_say_no_more_than_the_tests(run: Any) -> None:
    run.cell("teacher", 32, {"sim": 0.8 + EVEN, "mos_distillmos": 3.5 + EVEN})
    run.cell("intmeanflow", 1, {"sim": 0.7 + EVEN, "mos_distillmos": 3.5 + EVEN[::-1]})
    text = write(run)
    assert "Fewer than 3 training seeds stand behind intmeanflow" in text
    assert "about the two checkpoints compared, not about the methods" in text
    (sentence,) = lines_with(text, "- **intmeanflow at NFE 1**")
    assert "SIM-o worse by 0.100" in sentence
    assert "no difference shown in MOS (DistillMOS) (could have seen 0.0" in sentence
    assert "a loss of the margin is ruled out for MOS (DistillMOS) (0.15)" in sentence


def test_with_three_training_seeds_the_remark_changes(run: Any) -> None:
    run.cell("teacher", 32, {"sim": 0.8 + EVEN})
    for seed in range(3):
        run.cell("meanflow", 1, {"sim": 0.7 + EVEN}, train_seed=seed, key=f"s{seed}")
    text = write(run)
    assert "Fewer than" not in text
    assert "Each test is between two checkpoints." in text
    assert "**meanflow, training seed 2 at NFE 1**" in text


def test_utterances_that_failed_are_counted_and_named(run: Any) -> None:
    key = run.cell("teacher", 2, SCORES, n_expected=N + 1, n_scored=N - 1)
    path = run.path / "cells" / key / "utterances.parquet"
    frame = pd.read_parquet(path)
    lost = pd.DataFrame({"id": ["u999"], "status": ["failed"], "reason": ["ValueError: the audio is empty"]})
    frame["wer_error"] = None
    frame.loc[3, "wer_error"] = "ScoreError: no reference words"
    pd.concat([frame, lost]).to_parquet(path)
    text = write(run)
    assert "| 23/25² |" in text
    assert (
        "² 2 without every score: u003: ScoreError: no reference words, u999: ValueError: the audio is empty  " in text
    )


def test_other_signatures_stand_apart_with_a_sentence(run: Any) -> None:
    run.cell("teacher", 2, {"sim": EVEN})
    run.cell("meanflow", 2, {"sim": EVEN}, signatures={"sim": "sim-v1|model:wespeaker"})
    text = write(run)
    assert "## token2mel on demo/test, scoring 1 of 2" in text
    assert "## token2mel on demo/test, scoring 2 of 2" in text
    assert (
        "These rows carry other signatures than scoring 1 (sim: model is wespeaker here and resemblyzer there)" in text
    )


def test_unfinished_cells_are_told(run: Any) -> None:
    run.cell("teacher", 2, SCORES)
    (run.path / "cells" / "begun").mkdir()
    assert "Not finished, hence in no table: 1 cells (`begun`)." in write(run)
    assert record(run)["unfinished"] == ["begun"]


def test_training_alone_gives_its_curves(run: Any) -> None:
    run.training("teacher", [1.0, 0.5], [1.0, 1.0])
    Leaderboard().write(run.path)
    text = (run.path / "leaderboard" / "leaderboard.md").read_text()
    assert "No cell has been scored yet" in text
    assert "![Training curves](training.png)" in text
    assert (run.path / "leaderboard" / "training.svg").exists()
    assert not (run.path / "leaderboard" / "pareto.png").exists()


def test_the_same_results_give_the_same_bytes(run: Any) -> None:
    run.cell("teacher", 2, {"sim": EVEN}, **SPEED)
    run.training("teacher", [1.0, 0.5, 0.4], [1.0, 1.0, 0.9])
    first = {path: path.read_bytes() for path in Leaderboard().write(run.path)}
    assert len(first) == 9
    assert {path: path.read_bytes() for path in Leaderboard().write(run.path)} == first


def test_columns_that_plug_ins_add_are_kept(run: Any) -> None:
    run.cell("teacher", 2, SCORES, loudness=-23.5)
    write(run)
    assert record(run)["rows"][0]["loudness"] == -23.5
    with open(run.path / "leaderboard" / "leaderboard.csv", newline="") as file:
        assert next(csv.DictReader(file))["loudness"] == "-23.5"


def test_the_documented_schema_is_the_schema(run: Any) -> None:
    docs = Path(__file__).parents[2] / "docs"
    text = (docs / "results.md").read_text()
    assert schema_table() in text
    run.cell("teacher", 32, SCORES)
    run.cell("meanflow", 1, SCORES)
    write(run)
    found = record(run)
    assert found["schema"] == SCHEMA
    keys = [*found, *found["groups"][0], *found["groups"][0]["rankings"][0], *Comparison.__dataclass_fields__]
    assert [key for key in keys if f"`{key}`" not in text] == []
    assert [m for m in MARGINS.values() if f"{m:g}" not in (docs / "leaderboard.md").read_text()] == []
