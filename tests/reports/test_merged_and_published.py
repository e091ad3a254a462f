"""One leaderboard of many runs with figures of papers beside it, a page of two runs, and folders of results that are checked."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner

from imfbench import publishing
from imfbench.cli import main
from imfbench.disk import unwritable
from imfbench.publishing import publish
from imfbench.reports.merged import merged, read_reported
from imfbench.reports.page import render
from imfbench.reports.results import RunFolderError
from imfbench.verification import verify

REAL = Path(__file__).parent.parent.parent / "docs" / "results" / "hour_token2mel"
TEACHER = "787f2f1e8f785c5e"
"""The cell of the teacher at 32 NFE."""
PAPER = (
    "- {system: Somebody's (paper), task: token2mel, dataset: demo/test, nfe: 1, wer: 0.001, "
    "source: 'a paper, table 1'}\n"
)


@pytest.fixture
def two(run: Any, tmp_path: Path) -> tuple[Path, Path]:
    scores = {"wer": np.r_[np.zeros(20), 0.1, 0.2, 0.1, 0.1], "sim": np.linspace(0.7, 0.9, 24)}
    run.cell("teacher", 32, scores)
    run.speech(run.cell("mine", 1, scores), ["a text"] * 24)
    other = type(run)(tmp_path / "other")
    other.cell("theirs", 1, {**scores, "sim": scores["sim"] - 0.1})
    return run.path, other.path


def invoke(*arguments: Any, code: int = 0) -> str:
    result = CliRunner().invoke(main, [str(one) for one in arguments])
    assert result.exit_code == code, result.output
    return result.output


def test_runs_scored_alike_make_one_leaderboard_with_tests_between_them(two: tuple[Path, Path]) -> None:
    (table,) = merged(two).tables
    assert [cell.system for cell in table.group.cells] == ["teacher", "mine", "theirs"]
    verdicts = {(test.a, test.column): test.verdict for test in table.tests if test.family == "teacher"}
    assert verdicts["theirs at NFE 1", "sim"] == "worse"
    assert verdicts["mine at NFE 1", "sim"] == "no difference shown"


def test_runs_scored_otherwise_are_refused_with_what_differs(two: tuple[Path, Path]) -> None:
    for summary in two[1].glob("cells/*/summary.json"):
        row = json.loads(summary.read_text())
        row["signatures"]["wer"] = "wer-v1|asr:large|beam:5"
        summary.write_text(json.dumps(row))
    told = invoke("leaderboard", *two, code=2)
    assert "these runs make no one leaderboard" in told
    assert "wer: asr is" in told
    assert "Traceback" not in told


def test_figures_of_papers_are_marked_and_never_ranked(
    two: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render, "sections", lambda _: [])
    file = tmp_path / "papers.yaml"
    file.write_text(
        PAPER + "- {system: other, task: text2mel, dataset: seed-tts-eval/en, wer: 0.002, source: 'another paper'}\n"
    )
    source = merged(two, [file])
    assert [table.group.task for table in source.tables] == ["token2mel", "text2mel"]
    for table in source.tables:
        reported = [cell for cell in table.group.cells if cell.row["kind"] == "reported"]
        assert [cell.ok for cell in reported] == [False]
        keys = {reported[0].row["key"]}
        assert not any(keys & {*r.best, *r.tied, *r.untested} for r in table.rankings)
    best = next(r for r in source.tables[0].rankings if r.column == "wer").best
    assert best != [], "the paper's lower WER takes no row's place"
    told = invoke("leaderboard", *two, "--reported", file, "--out", tmp_path / "board", "--format", "md")
    row = next(line for line in told.splitlines() if line.startswith("| Somebody's (paper)"))
    mark = row.removeprefix("| Somebody's (paper)")[0]
    assert f"{mark} reported, not measured: a paper, table 1" in told
    assert " | 0 | " not in row  # of how many utterances, a paper may not tell
    assert "reported, not measured: a paper, table 1" in " ".join(
        invoke("leaderboard", *two, "--reported", file).split()
    )
    told = invoke("leaderboard", *two, "--reported", file, "--format", "latex")
    assert r"Somebody's (paper)\textsuperscript{1} & 1 & 0.1" in told
    assert r"\par{\footnotesize\textsuperscript{1} As reported, not measured: a paper, table 1\par}" in told
    assert told.count("As reported, not measured") == 2  # a table each
    page = (tmp_path / "board" / "index.html").read_text(encoding="utf-8")
    assert "reported, not measured: a paper, table 1" in page


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- {system: x, task: t, dataset: d, wer: 0.02}\n", "entry 1 has no source"),
        ("- {system: x, task: t, dataset: d, source: s, wer: 2.1}\n", "write it as a fraction, 0.021 for 2.1 %"),
        ("- {system: x, task: t, dataset: d, source: s, werr: 0.1}\n", "'werr' is no column"),
        ("- {system: x, task: t, dataset: d, source: s, nfe: 1}\n", "no figure of quality"),
        (
            '- {system: x, task: t, dataset: d, source: s, wer: "2.18 %"}\n',
            "wer is '2.18 %', which is no figure: write a number",
        ),
        ("- {system: x, task: t, dataset: d, source: s, wer: true}\n", "wer is True, which is no figure"),
        ("- {system: x, task: t, dataset: d, source: s, sim: .nan}\n", "sim is nan, which is no figure"),
        ("- {system: x, task: t, dataset: d, source: s, sim: .7, n_expected: many}\n", "it takes a whole number"),
        ("just words\n", "holds no figures"),
        ("- {", "cannot be read"),
    ],
)
def test_papers_files_that_cannot_be_used_say_why(text: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "papers.yaml"
    file.write_text(text)
    with pytest.raises(RunFolderError, match=told):
        read_reported(file)


def test_only_shares_are_to_be_fractions(tmp_path: Path) -> None:
    file = tmp_path / "papers.yaml"
    entry = "- {system: x, task: t, dataset: d, source: s, wer: 0.02, wer_n: 1127, mos_utmos: 4.1, nfe: 32}\n"
    file.write_text(entry)
    (cell,) = read_reported(file)
    assert cell.row["wer_n"] == 1127
    file.write_text(entry.replace("wer_n: 1127", "wer_mean_high: 1.5"))
    with pytest.raises(RunFolderError, match=r"wer_mean_high is 1\.5; write it as a fraction"):
        read_reported(file)


def test_compare_writes_a_page_of_both_runs_and_report_one_of_a_folder(
    two: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render, "sections", lambda _: [])
    told = invoke("compare", *two, "--report", tmp_path / "both")
    assert f"wrote {tmp_path / 'both' / 'index.html'}" in told
    page = (tmp_path / "both" / "index.html").read_text(encoding="utf-8")
    assert ">mine<" in page
    assert ">theirs<" in page
    assert "data:audio/ogg;base64," in page
    monkeypatch.setattr("imfbench.reports.leaderboard.Leaderboard._draw", lambda *_: ([], {}))
    told = invoke("report", two[0], "--utterances", 0)
    assert str(two[0] / "report" / "index.html") in told
    assert "Partial" not in (two[0] / "report" / "index.html").read_text(encoding="utf-8")
    from filelock import FileLock

    with FileLock(two[0] / ".lock"):
        invoke("report", two[0], "--utterances", 0)
    assert "The run is still going." in (two[0] / "report" / "index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three real rows, and its published folder beside it."""
    folder = tmp_path_factory.mktemp("published")
    run = folder / "run"
    for key in ("4d66e92bc0a2c463", "2bbfc8eb8705dd67", TEACHER):
        shutil.copytree(REAL / "cells" / key, run / "cells" / key)
    for name in ("experiment.yaml", "manifest.json"):
        shutil.copyfile(REAL / name, run / name)
    (run / "artefacts" / "student").mkdir(parents=True)
    (run / "artefacts" / "student" / "model.safetensors").write_bytes(b"weights")
    (run / "artefacts" / "student" / "card.json").write_text("{}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("imfbench.reports.leaderboard.Leaderboard._draw", lambda *_: ([], {}))
        publish(run, folder / "results")
    return folder


@pytest.fixture
def results(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the published folder, to be changed; its run lies beside it."""
    monkeypatch.setattr("imfbench.reports.leaderboard.Leaderboard._draw", lambda *_: ([], {}))
    for name in ("run", "results"):
        shutil.copytree(published / name, tmp_path / name)
    return tmp_path / "results"


def test_a_folder_that_cannot_be_written_is_refused_and_nothing_is_left_of_it(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where the disk fills up halfway, by one of the copies or one of what is written anew."""
    (tmp_path / "file").write_text("kept")
    told = invoke("publish", tmp_path / "run", "--out", tmp_path / "file" / "pub", code=2)
    assert f"{tmp_path / 'file' / 'pub'} cannot be written: a file stands where a folder has to be" in told
    before, copy = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}, shutil.copyfile

    def full(source: Path, target: Path) -> None:
        if source.name == "utterances.parquet":
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        copy(source, target)

    def full_too(path: Path, _: str) -> None:
        raise unwritable(path, OSError(errno.ENOSPC, "full")) from OSError(errno.ENOSPC, "full")

    for module, name, fails in ((shutil, "copyfile", full), (publishing, "write_text", full_too)):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, fails)
            told = invoke("publish", tmp_path / "run", "--out", tmp_path / "pub", code=2)
        assert f"imfbench: {tmp_path / 'pub'} cannot be written: No space left on device. Make room there" in told
        assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    (tmp_path / "empty" / "results").mkdir(parents=True)
    for out in (tmp_path / "pub", tmp_path / "empty" / "results"):
        invoke("publish", tmp_path / "run", "--out", out)
        assert f"# Leaderboard of {out.name}\n" in (out / "leaderboard" / "leaderboard.md").read_text(encoding="utf-8")
        assert sorted(path.relative_to(out) for path in out.rglob("*")) == sorted(
            path.relative_to(results) for path in results.rglob("*")
        )
    assert "holds something already" in invoke("publish", tmp_path / "run", "--out", tmp_path / "pub", code=2)
    assert not list(tmp_path.rglob(".unfinished-*"))


def test_a_published_folder_tells_no_places_of_the_machine(results: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    home = tmp_path / "home" / "somebody"
    experiment = yaml.safe_load((run / "experiment.yaml").read_text())
    experiment["dataset"][0] |= {"name": "seed-tts-eval", "options": {"root": f"{home}/corpora/seedtts"}}
    experiment["train_data"] = {"name": "folder", "options": {"root": "corpora/own"}}
    experiment["recordings"] = [{"name": "theirs", "folder": "../elsewhere/theirs"}]
    experiment["teacher"]["artefact"] = f"{home}/teachers/mine"
    experiment["then"] = [{"name": "more", "dataset": {"name": "x", "options": {"path": r"C:\corpora\more"}}}]
    experiment["metrics"]["sim"] = {"path": f"{home}/models/wavlm"}
    (run / "experiment.yaml").write_text(yaml.safe_dump(experiment))
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["artefacts"]["teacher"]["from"] = f"{home}/teachers/mine"
    (run / "manifest.json").write_text(json.dumps(manifest))
    table = run / "cells" / TEACHER / "utterances.parquet"
    frame = pd.read_parquet(table)
    audio = [f"../../../home/somebody/speech/{name}.wav" for name in frame["id"]]
    reasons = [f"{home}/speech/x.wav is cut short, see https://github.com/a/b/c", *[None] * (len(frame) - 1)]
    frame.assign(audio=audio, reason=reasons).to_parquet(table)
    summary = table.with_name("summary.json")
    not_measured = {"utmos": f"no weights in {home}/models"}
    summary.write_text(json.dumps({**json.loads(summary.read_text()), "not_measured": not_measured}))
    publish(run, tmp_path / "again")
    for file in (tmp_path / "again").rglob("*"):
        assert not file.is_file() or b"somebody" not in file.read_bytes(), file
    told = yaml.safe_load((tmp_path / "again" / "experiment.yaml").read_text())
    assert told["dataset"][0]["options"] == {"root": "seedtts"}
    assert told["train_data"]["options"] == {"root": "own"}
    assert told["then"][0]["dataset"]["options"] == {"path": "more"}
    assert told["recordings"] == [{"name": "theirs", "folder": "theirs"}]
    assert told["teacher"]["artefact"] == "mine"
    assert told["metrics"]["wer"] == experiment["metrics"]["wer"]
    shown = pd.read_parquet(tmp_path / "again" / table.relative_to(run))
    assert shown["audio"][0] == f"{frame['id'][0]}.wav"
    assert shown["reason"][0] == "x.wav is cut short, see https://github.com/a/b/c"
    assert wrong(tmp_path / "again") == []


def resummed(folder: Path) -> None:
    """Somebody who changes a file can also change its hash."""
    from imfbench.store import file_sha256

    lines = [line.split("  ") for line in (folder / "SHA256SUMS").read_text().splitlines()]
    (folder / "SHA256SUMS").write_text("".join(f"{file_sha256(folder / name)}  {name}\n" for _, name in lines))


def wrong(folder: Path) -> list[str]:
    return [f"{finding.subject}: {finding.message}" for finding in verify(folder) if finding.level == "bad"]


def test_a_published_folder_holds_no_weights_and_is_verified(results: Path) -> None:
    names = {file.relative_to(results).as_posix() for file in results.rglob("*") if file.is_file()}
    assert "artefacts/student/card.json" in names
    assert not any("safetensors" in name for name in names)
    found = list(verify(results))
    assert [finding for finding in found if finding.level != "ok"] == []
    assert sum("figures made again from 172 utterances" in finding.message for finding in found) == 3
    assert sum("figures of speed made again" in finding.message for finding in found) == 2
    assert sum("tests and all rankings made again" in finding.message for finding in found) == 1


def test_what_was_changed_afterwards_is_found(results: Path) -> None:
    summary = next(iter(sorted(results.glob("cells/*/summary.json"))))
    row = json.loads(summary.read_text())
    summary.write_text(json.dumps({**row, "wer": row["wer"] / 2}))
    (results / "more.txt").write_text("?")
    found = wrong(results)
    assert f"SHA256SUMS: {summary.relative_to(results).as_posix()} is not what was published" in found
    assert "SHA256SUMS: more.txt is not listed" in found
    (results / "more.txt").unlink()
    resummed(results)
    found = wrong(results)
    assert any(f"wer is {row['wer'] / 2} in summary.json, and {row['wer']} by its utterances" in one for one in found)
    assert any("leaderboard.json does not show the summaries" in one for one in found)


def changed(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


def test_figures_of_speed_are_made_again_from_the_seconds(results: Path) -> None:
    summary = results / "cells" / TEACHER / "summary.json"
    row = json.loads(summary.read_text())
    changes = {"rtf_network": row["rtf_network"] / 4, "rtf_total": row["rtf_total"] / 4, "rtf_vocoder_p95": None}
    summary.write_text(json.dumps({**row, **changes, "threads": 8, "nfe": 4}))
    found = " ".join(wrong(results))
    assert "nfe is 4, and 32 in utterances.parquet" in found
    for name in (*changes, "threads"):
        assert f"{name} is {json.dumps(changes.get(name, 8))}, and {json.dumps(row[name])} by the utterances" in found


@pytest.mark.parametrize("signatures", [{}, {"wer": "wer-v1|asr:better"}])
def test_a_figure_without_its_signature_is_found(results: Path, signatures: dict[str, str]) -> None:
    summary = results / "cells" / TEACHER / "summary.json"
    row = json.loads(summary.read_text())
    summary.write_text(json.dumps({**row, "signatures": signatures, "wer": 0.0, "sim": 1.0, "stoi": 1, "stoi_low": 1}))
    found = " ".join(wrong(results))
    told = "the signature of wer is not that of its utterances" if signatures else "wer has no signature"
    for one in (told, "sim has no signature", "mos_distillmos has no signature", "stoi has no signature"):
        assert one in found


def test_tables_that_do_not_say_what_the_tests_say_are_found(results: Path) -> None:
    board = results / "leaderboard"
    row = json.loads((results / "cells" / TEACHER / "summary.json").read_text())
    changed(board / "leaderboard.csv", str(row["sim"]), "0.99")
    changed(board / "leaderboard.md", "worse", "better")
    found = " ".join(wrong(results))
    assert f"leaderboard.csv: sim of {TEACHER} is '0.99', and '{row['sim']}' in leaderboard.json" in found
    assert "it does not say what leaderboard.json says" in found
    (board / "leaderboard.csv").unlink()
    told = json.loads((board / "leaderboard.json").read_text())
    test = next(one for one in told["comparisons"] if one["verdict"] == "worse")
    test["verdict"] = "better"
    (board / "leaderboard.json").write_text(json.dumps(told))
    found = " ".join(wrong(results))
    assert '.verdict is "better", and "worse" by the utterances' in found
    told["rows"][0]["sim_squared"] = 1.0
    (board / "leaderboard.json").write_text(json.dumps(told))
    assert any("leaderboard.json does not show the summaries" in one for one in wrong(results))


@pytest.mark.parametrize("name", ["weights.NPZ", "model.Safetensors", "q4.gguf"])
def test_weights_are_known_by_any_spelling_of_their_ending(results: Path, name: str) -> None:
    (results / name).write_bytes(b"weights")
    told = f"{name}: a results folder holds none; remove them and publish again"
    assert any(told in finding.message for finding in verify(results))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"substitutions": 0, "deletions": 0, "insertions": 0}, "substitutions of "),
        ({"reference_words": 40}, "reference_words of "),
        ({"wer": 0.0}, "wer of "),
        ({"reference_normalised": ""}, "reference_normalised of "),
        ({"hypothesis_normalised": "what was to be said"}, "hypothesis_normalised of "),
        ({"hypothesis": None}, "hypothesis of "),
        ({"sim_error": "the audio is silent", "sim": None}, "utterances have every score"),
    ],
)
def test_what_text_and_transcript_do_not_make_is_found(results: Path, change: dict[str, Any], told: str) -> None:
    """Of an utterance with errors, and with all that is made of it made again, so that nothing else gives it away."""
    table = next(iter(sorted(results.glob("cells/*/utterances.parquet"))))
    frame = pd.read_parquet(table)
    place = frame.index[(frame["substitutions"] > 0) & (frame["wer"] > 0)][0]
    for column, value in change.items():
        if column not in frame:
            frame[column] = None
        frame[column] = frame[column].astype(object)
        frame.loc[place, column] = value
    frame = frame.infer_objects()
    frame.to_parquet(table)
    resummed(results)
    found = wrong(results)
    assert any(told in one and (told.endswith("score") or str(frame.loc[place, "id"]) in one) for one in found), found
    assert "bad " in invoke("verify", results, code=1)


def test_a_page_about_results_may_lie_beside_them(results: Path) -> None:
    (results / "README.md").write_text("# What was found")
    assert wrong(results) == []
