"""Rows of several runs in one table: what is ranked, tested and refused."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from imfbench.cli import main
from imfbench.reports.across import compare, gather
from imfbench.reports.leaderboard import Leaderboard
from imfbench.reports.merged import merged
from imfbench.reports.page.board import board
from imfbench.reports.page.curves import _colours
from imfbench.reports.plots import INK, _styles, quality_against_nfe
from imfbench.reports.results import RunFolderError

N = 40
EVEN = np.tile([0.0, 0.02], N // 2)
OTHER = {"wer": "wer-v1|asr:large|beam:1", "sim": "sim-v1|model:resemblyzer"}


def scores(wer: float = 0.1, sim: float = 0.8) -> dict[str, np.ndarray]:
    return {"wer": wer + 5 * EVEN - 0.05, "sim": sim + EVEN - 0.01}


@pytest.fixture
def runs(run: Any, tmp_path: Path) -> tuple[Any, Any]:
    return type(run)(tmp_path / "monday"), type(run)(tmp_path / "tuesday")


def recordings(run: Any, system: str, found: dict[str, np.ndarray], **changes: Any) -> str:
    return run.cell(system, None, found, kind="recordings", task="speech", vocoder=None, **changes)


def imfbench(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["compare", *map(str, arguments)])


def plain(result: Result) -> str:
    return " ".join(result.output.split())


def test_variants_of_a_task_on_one_set_are_not_ranked_together(runs: Any) -> None:
    """That the length is told makes a task easier; recordings beside the rows stand in each table."""
    for run, rule, sim in zip(runs, ("true length", "prompt's rate"), (0.9, 0.7), strict=True):
        of = {"task": "text2mel", "dataset": f"demo/test@7d1210e3, {rule}"}
        run.cell("teacher", 3, scores(sim=sim), **of)
        run.cell("ground-truth", scores=scores(wer=0.0, sim=0.9), **of)
    found = compare([run.path for run in runs])
    assert [table.group.dataset for table in found] == [
        "demo/test@7d1210e3, true length",
        "demo/test@7d1210e3, prompt's rate",
    ]
    assert [[cell.system for cell in table.group.cells] for table in found] == [["ground-truth", "teacher"]] * 2
    together = merged([run.path for run in runs])
    assert [[cell.system for cell in table.group.cells] for table in together.tables] == [
        ["ground-truth", "teacher"]
    ] * 2


def test_a_check_is_shown_and_not_ranked(run: Any) -> None:
    for system, mos in (("mine", 3.0), ("theirs", 4.0)):
        recordings(run, system, {"sim": scores()["sim"], "mos_dnsmos": mos + EVEN})
    (table,) = compare([run.path])
    assert [ranking.column for ranking in table.rankings] == ["sim"]
    assert {test.verdict for test in table.comparisons if test.column == "mos_dnsmos"} == {"higher"}
    assert "3.01" in imfbench(run.path, "--format", "md").output


def test_the_same_system_of_two_runs_is_two_rows_that_are_tested(runs: Any) -> None:
    for run, sim in zip(runs, (0.8, 0.7), strict=True):
        recordings(run, "mine", scores(sim=sim))
        run.cell("ground-truth", scores=scores(wer=0.0, sim=0.9), task="speech")
    (table,) = compare([run.path for run in runs])
    assert [cell.system for cell in table.group.cells] == ["ground-truth", "mine (monday)", "mine (tuesday)"]
    found = {test.column: test for test in table.comparisons}
    assert (found["sim"].a, found["sim"].b, found["sim"].verdict) == ("mine (tuesday)", "mine (monday)", "worse")
    assert found["sim"].difference == pytest.approx(-0.1)
    assert found["wer"].verdict == "no difference shown"
    assert {r.column: r.best for r in table.rankings}["sim"] == [table.group.cells[1].row["key"]]
    assert table.group.cells[1].row["run"] == "monday"
    assert table.unranked == {}


def test_other_signatures_are_neither_ranked_nor_tested_and_the_field_is_told(runs: Any) -> None:
    recordings(runs[0], "mine", scores(wer=0.1))
    recordings(runs[1], "theirs", scores(wer=0.4, sim=0.6), signatures=OTHER)
    (table,) = compare([run.path for run in runs])
    assert [r.column for r in table.rankings] == ["sim"]
    assert [test.column for test in table.comparisons] == ["sim"]
    assert "asr: base (mine), large (theirs); beam: 5 (mine), 1 (theirs)" in table.unranked["wer"]
    assert "wer" not in table.group.signatures
    shown = imfbench(*(run.path for run in runs), "--format", "md")
    assert shown.exit_code == 0, shown.output
    rows = {line.split("|")[1].strip(): line for line in shown.output.splitlines() if line.startswith("| ")}
    assert "| 10.0 [" in rows["mine"]
    assert "| **0.800** [" in rows["mine"]
    assert "asr: base (mine), large (theirs)" in shown.output


def test_rows_of_an_experiment_and_of_recordings_stand_in_one_table(runs: Any) -> None:
    runs[0].cell("teacher", 8, scores())
    recordings(runs[1], "theirs", scores(sim=0.5))
    (table,) = compare([run.path for run in runs])
    assert [(test.a, test.b) for test in table.comparisons] == [("theirs", "teacher at NFE 8")] * 2


def test_teachers_of_several_runs_stay_teachers_and_each_student_meets_its_own(runs: Any) -> None:
    draw = np.random.default_rng(3)
    for number, (run, student) in enumerate(zip(runs, ("mine", "theirs"), strict=True)):
        run.cell("ground-truth", None, scores(wer=0.01 * number, sim=0.9))
        run.cell("teacher", 32, scores(sim=0.8 - 0.1 * number), artefact_sha256=f"{number}" * 64)
        run.cell(student, 1, {"sim": 0.75 - 0.1 * number + draw.normal(0, 0.01, N)})
    (table,) = merged([run.path for run in runs]).tables
    names = [
        "ground-truth (monday)",
        "ground-truth (tuesday)",
        "teacher (monday)",
        "teacher (tuesday)",
        "mine",
        "theirs",
    ]
    assert [cell.system for cell in table.group.cells] == names
    assert [(cell.reference, cell.teacher) for cell in table.group.cells[1:4]] == [(True, False), *[(False, True)] * 2]
    tested = [(test.a, test.b) for test in table.tests if test.family == "teacher"]
    assert tested == [
        ("mine at NFE 1", "teacher (monday) at NFE 32"),
        ("theirs at NFE 1", "teacher (tuesday) at NFE 32"),
    ]
    made = board(table)
    assert [[row.name for row in block.rows] for block in made.blocks] == [names[:4], names[4:]]
    assert made.findings[0].text.startswith("mine at 1 NFE is worse than the teacher (monday) at 32 NFE on SIM-o")
    styles = _styles(table.group)
    assert {styles[name]["color"] for name in names[2:4]} == {INK}
    assert styles[names[2]] != styles[names[3]]
    assert {_colours(table)[name] for name in names[:2]} == {"#777777"}
    assert _draw_of(quality_against_nfe([table.group]), "ground truth (monday)")


def _draw_of(figure: Any, label: str) -> bool:
    return any(label in axis.get_legend_handles_labels()[1] for block in figure.subfigs for axis in block.axes)


def test_one_teacher_that_two_runs_sampled_is_not_tested_against_itself(runs: Any) -> None:
    for run in runs:
        run.cell("teacher", 2, scores(), artefact_sha256="a" * 64)
    runs[0].cell("mine", 2, scores(), artefact_sha256="b" * 64)
    runs[1].cell("mine", 2, scores(sim=0.7), artefact_sha256="c" * 64)
    (table,) = merged([run.path for run in runs]).tables
    pairs = {(test.a, test.b) for test in table.tests if test.family == "equal-nfe"}
    assert len(pairs) == 5
    assert ("teacher (tuesday) at NFE 2", "teacher (monday) at NFE 2") not in pairs
    assert ("mine (tuesday) at NFE 2", "mine (monday) at NFE 2") in pairs


def test_what_a_paper_or_a_folder_calls_teacher_is_none(runs: Any, tmp_path: Path) -> None:
    runs[0].cell("teacher", 32, scores())
    runs[0].cell("mine", 1, scores(sim=0.7))
    recordings(runs[1], "teacher", scores(sim=0.6))
    file = tmp_path / "papers.yaml"
    file.write_text("- {system: teacher, task: token2mel, dataset: demo/test, nfe: 64, wer: 0.01, source: a paper}\n")
    (table, _) = merged([run.path for run in runs], [file]).tables
    made = board(table)
    assert [[row.nfe for row in block.rows] for block in made.blocks] == [["32"], ["1", "64"]]
    (table,) = compare([run.path for run in runs])
    assert [cell.teacher for cell in table.group.cells] == [True, False, False]


def test_other_test_sets_are_other_tables(runs: Any) -> None:
    recordings(runs[0], "mine", scores())
    recordings(runs[1], "mine", scores(), dataset="demo/dev")
    tables = compare([run.path for run in runs])
    assert [table.group.dataset for table in tables] == ["demo/test", "demo/dev"]
    assert [table.comparisons for table in tables] == [[], []]
    assert [cell.system for table in tables for cell in table.group.cells] == ["mine", "mine"]


def test_only_shared_utterances_are_paired(runs: Any) -> None:
    key = recordings(runs[0], "mine", scores())
    recordings(runs[1], "theirs", scores(sim=0.7))
    path = runs[0].path / "cells" / key / "utterances.parquet"
    pd.read_parquet(path).iloc[:30].to_parquet(path)
    (table,) = compare([run.path for run in runs])
    assert {test.n for test in table.comparisons} == {30}


def test_rows_over_other_utterances_are_tested_over_the_shared_and_not_ranked(runs: Any) -> None:
    recordings(runs[0], "mine", scores())
    key = recordings(runs[1], "theirs", scores(sim=0.7))
    folder = runs[1].path / "cells" / key
    places = [run.path for run in runs]
    (table,) = compare(places)
    assert [ranking.column for ranking in table.rankings] == ["wer", "sim"]
    assert table.group.unlike == ""
    # As many, but others: a count would not tell.
    path = folder / "utterances.parquet"
    found = pd.read_parquet(path)
    found.loc[30:, "id"] += "-other"
    found.to_parquet(path)
    (table,) = compare(places)
    assert table.rankings == []
    assert {test.n for test in table.comparisons} == {30}
    assert "different utterances: 40 (mine), 40 (theirs); 30 are common to all" in table.group.unlike
    printed = plain(imfbench(*places))
    assert "Nothing is ranked here" in printed
    assert "Bold: best" not in imfbench(*places, "--format", "latex").output
    told = {form: imfbench(*places, "--format", form).output for form in ("md", "latex", "json")}
    assert all("different utterances: 40 (mine), 40 (theirs)" in text for text in told.values())
    assert "**0.8" not in told["md"]
    assert merged(places).tables[0].rankings == []
    assert any("Nothing is ranked here" in line for line in board(merged(places).tables[0]).told)


def test_where_a_row_tells_no_utterances_their_number_counts(runs: Any) -> None:
    recordings(runs[0], "mine", scores())
    key = recordings(runs[1], "theirs", scores(sim=0.7))
    folder = runs[1].path / "cells" / key
    (folder / "utterances.parquet").unlink()
    places = [run.path for run in runs]
    assert compare(places)[0].group.unlike == ""
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps({**summary, "n_expected": 48}))
    assert "40 (mine), 48 (theirs)." in compare(places)[0].group.unlike


def test_many_rows_are_tested_against_the_best_or_a_baseline(runs: Any) -> None:
    for nfe in range(1, 8):
        runs[0].cell("meanflow", nfe, scores(sim=0.7 + nfe / 100))
    recordings(runs[1], "theirs", scores(sim=0.9))
    (table,) = compare([run.path for run in runs])
    assert table.comparisons == []
    assert "--baseline" in table.untested
    for name in ("theirs", str(runs[1].path)):
        (table,) = compare([run.path for run in runs], baseline=name)
        assert {test.b for test in table.comparisons} == {"theirs"}
        assert len(table.comparisons) == 14
    with pytest.raises(RunFolderError, match=r"several rows are called so; name one of 'meanflow at NFE 1', "):
        compare([run.path for run in runs], baseline="meanflow")
    (table,) = compare([run.path for run in runs], baseline="meanflow at NFE 3")
    assert {test.b for test in table.comparisons} == {"meanflow at NFE 3"}
    with pytest.raises(RunFolderError, match="no row is called so"):
        compare([run.path for run in runs], baseline="their")


def test_noise_seeds_are_averaged_but_never_over_runs(runs: Any) -> None:
    for seed in (0, 1):
        runs[0].cell("meanflow", 1, scores(sim=0.8 + seed / 100), noise_seed=seed)
    runs[1].cell("meanflow", 1, scores(sim=0.7), noise_seed=2)
    (table,) = compare([run.path for run in runs])
    assert [(len(t.a_keys), len(t.b_keys)) for t in table.comparisons] == [(1, 2)] * 2


def test_a_folder_of_results_alone_is_shown_and_not_tested(runs: Any, tmp_path: Path) -> None:
    for run, sim in zip(runs, (0.8, 0.7), strict=True):
        recordings(run, "mine", scores(sim=sim))
    Leaderboard(pictures=False).write(runs[1].path)
    kept = tmp_path / "kept"
    kept.mkdir()
    (runs[1].path / "leaderboard" / "leaderboard.json").rename(kept / "leaderboard.json")
    (table,) = compare([runs[0].path, kept])
    assert [cell.system for cell in table.group.cells] == ["mine (monday)", "mine (kept)"]
    assert all(test.verdict.startswith("not tested") for test in table.comparisons)


@pytest.mark.parametrize("where", ["summary", "board", "table"])
def test_results_of_a_newer_schema_are_refused(runs: Any, tmp_path: Path, where: str) -> None:
    key = recordings(runs[0], "mine", scores())
    folder = runs[0].path / "cells" / key
    if where == "table":
        frame = pd.read_parquet(folder / "utterances.parquet")
        frame.attrs["schema_version"] = 2
        frame.to_parquet(folder / "utterances.parquet")
    elif where == "summary":
        row = json.loads((folder / "summary.json").read_text())
        (folder / "summary.json").write_text(json.dumps({**row, "schema_version": 2}))
    else:
        folder = tmp_path / "kept"
        folder.mkdir()
        (folder / "leaderboard.json").write_text(json.dumps({"schema_version": 2, "rows": []}))
    result = imfbench(folder if where == "board" else runs[0].path)
    assert result.exit_code == 2
    assert "was written by a newer imfbench: its schema_version is 2" in plain(result)


def test_formats(runs: Any) -> None:
    for run, sim in zip(runs, (0.8, 0.7), strict=True):
        recordings(run, "mine", scores(sim=sim))
    places = [run.path for run in runs]
    table = imfbench(*places)
    assert "mine (tuesday): SIM-o worse by 0.100; no difference shown in WER (could have seen" in plain(table)
    found = json.loads(imfbench(*places, "--format", "json").output)
    assert [row["run"] for row in found["rows"]] == ["monday", "tuesday"]
    assert {test["column"] for test in found["comparisons"]} == {"wer", "sim"}
    rows = list(csv.DictReader(io.StringIO(imfbench(*places, "--format", "csv").output)))
    assert [row["system"] for row in rows] == ["mine (monday)", "mine (tuesday)"]
    assert r"\textbf{0.800}" in imfbench(*places, "--format", "latex").output


def test_speakers_are_resampled_on_request(runs: Any) -> None:
    noise = np.random.default_rng(0).normal(0, 0.02, (2, N))
    for run, own in zip(runs, noise, strict=True):
        key = recordings(run, "mine", {"sim": 0.8 + own})
        path = run.path / "cells" / key / "utterances.parquet"
        pd.read_parquet(path).assign(speaker=[f"voice{i // 2}" for i in range(N)]).to_parquet(path)
    places = [run.path for run in runs]
    (table,) = compare(places, cluster="speaker")
    assert [(t.cluster, t.n_clusters, t.n) for t in table.comparisons] == [("speaker", 20, N)]
    few = pd.read_parquet(path).assign(speaker=[f"voice{i // 4}" for i in range(N)])
    for run in runs:
        few.to_parquet(next(run.path.glob("cells/*/utterances.parquet")))
    (table,) = compare(places, cluster="speaker")
    assert "there are 10 speakers" in table.comparisons[0].verdict


def test_names_of_folders_are_as_long_as_they_must_be(run: Any, tmp_path: Path) -> None:
    for name in ("a/run", "b/run", "c"):
        type(run)(tmp_path / name).cell("mine", None, scores())
    found = gather([tmp_path / name for name in ("a/run", "b/run", "c")])
    assert [cell.row["run"] for cell in found] == ["a/run", "b/run", "c"]


def test_a_folder_without_results_is_named(tmp_path: Path) -> None:
    result = imfbench(tmp_path)
    assert result.exit_code == 2
    assert "nothing to report" in plain(result)
    (tmp_path / "leaderboard.json").write_text("[]")
    result = imfbench(tmp_path)
    assert result.exit_code == 2
    assert "leaderboard.json holds no rows" in plain(result)


def test_rows_that_are_not_scored_yet_are_told(runs: Any, caplog: pytest.LogCaptureFixture) -> None:
    for run in runs:
        recordings(run, "mine", scores())
    begun = runs[1].path / "cells" / "begun"
    begun.mkdir()
    (begun / "cell.json").write_text(json.dumps({"system": "theirs"}))
    with caplog.at_level("WARNING", logger="imfbench"):
        compare([run.path for run in runs])
    assert f"{runs[1].path}: 1 cells are begun and not scored: they are in no table" in caplog.text


def test_latex_says_what_the_table_says(runs: Any) -> None:
    """How many were scored of how many, what could not be tested, and what is not comparable, in the caption."""
    recordings(runs[0], "mine", scores(), n_scored=24)
    recordings(runs[1], "theirs", scores(sim=0.7), parquet=False, signatures=OTHER)
    text = imfbench(*(run.path for run in runs), "--format", "latex").output
    assert " & 24/40 " in text
    assert " 0.700? [" in text
    caption = next(line for line in text.splitlines() if r"\caption" in line)
    assert "?: could not be tested against it." in caption
    assert (
        "wer is not ranked and not tested, its rows carry different signatures. asr: base (mine), large (theirs)"
        in caption
    )


@pytest.mark.parametrize(
    ("margin", "told"),
    [
        ("sim=0", "sim=0 is no loss that could be accepted: a positive number, such as sim=0.01"),
        ("sim=nan", "a positive number"),
        ("mos_typo=0.1", "no figure 'mos_typo' to have a margin"),
    ],
)
def test_a_margin_that_is_none_is_refused(runs: Any, margin: str, told: str) -> None:
    recordings(runs[0], "mine", scores())
    result = imfbench(runs[0].path, "--margin", margin)
    assert result.exit_code == 2
    assert told in plain(result)


def test_a_merged_leaderboard_resamples_what_its_runs_resampled(runs: Any) -> None:
    """Two of each voice differ in one direction: twenty voices, not forty utterances, are what a test has."""
    noise = np.random.default_rng(0).normal(0, 0.02, (2, N))
    for run, own in zip(runs, noise, strict=True):
        key = recordings(run, "mine", {"sim": 0.8 + own}, cluster="speaker")
        path = run.path / "cells" / key / "utterances.parquet"
        pd.read_parquet(path).assign(speaker=[f"voice{i // 2}" for i in range(N)]).to_parquet(path)
    (table,) = merged([run.path for run in runs]).tables
    assert [(t.family, t.cluster, t.n_clusters) for t in table.tests] == [("recordings", "speaker", 20)]
