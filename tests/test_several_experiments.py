"""Several test sets in one experiment, and several experiments in one run: real sampling and scoring, of a tiny network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from click.testing import CliRunner

from imfbench import experiment
from imfbench.artefact import WEIGHTS, ArtefactError, read_card
from imfbench.cli import main
from imfbench.config import load
from imfbench.config_file import ConfigError
from imfbench.datasets.demo.corpus import DemoCorpus
from imfbench.pipeline import other_runs, reuse, sources
from imfbench.pipeline.context import Context
from imfbench.progress import Reporting
from imfbench.registry import BACKBONES
from imfbench.store import RunFolder
from imfbench.training import CHECKPOINT

pytestmark = pytest.mark.usefixtures("plain_runs")
SHAPES: dict[str, dict[str, Any]] = {
    "dit": {"dim": 32, "depth": 1, "heads": 2, "content_layers": 1},
    "aligning-dit": {"dim": 32, "depth": 1, "alignment_depth": 1, "heads": 2, "content_layers": 1},
}


def teacher(backbone: str) -> dict[str, Any]:
    return {"method": "teacher", "name": "own", "network": {"name": backbone, "config": SHAPES[backbone]}, "nfe": [2]}


def write(folder: Path, **changes: Any) -> Path:
    values: dict[str, Any] = {
        "dataset": [{"split": "test", "limit": 2, "prefer_short": True}, {"split": "hard", "limit": 1}],
        "training": {"steps": 2, "frames_per_batch": 400},
        "systems": [teacher("dit")],
        "metrics": ["sim"],
        "vocoder": "griffin-lim",
        "threads": 1,
        "device": "cpu",
        "score_cache": str(folder / "scores"),
        "then": [
            {
                "task": "text2mel",
                "dataset": {"limit": 1, "prefer_short": True},
                "references": [],
                "systems": [teacher("aligning-dit")],
            }
        ],
        **changes,
    }
    path = folder / "both.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def out(plain_runs: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("several")
    contexts = experiment.run_all(load(str(write(folder))), folder / "out", reporting=Reporting(terminal=False))
    assert [context.failures for context in contexts] == [{}, {}]
    return folder / "out"


def rows(out: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((out / "leaderboard" / "leaderboard.json").read_text())["rows"]
    return found


def test_one_leaderboard_holds_every_task_and_set(out: Path) -> None:
    seen = {(r["task"], r["dataset"].partition("@")[0], r["system"], r["n_scored"]) for r in rows(out)}
    references = {
        ("token2mel", f"demo/{split}", system, n)
        for split, n in (("test", 2), ("hard", 1))
        for system in ("ground-truth", "vocoded-ground-truth", "own")
    }
    assert seen == {*references, ("text2mel", "demo/test", "own", 1)}
    assert all(r["status"] == "ok" for r in rows(out))


def test_text2mel_names_where_its_length_comes_from(out: Path) -> None:
    assert {r["dataset"].partition(", ")[2] for r in rows(out) if r["task"] == "text2mel"} == {"true length"}
    assert {r["dataset"].partition(", ")[2] for r in rows(out) if r["task"] == "token2mel"} == {""}


def test_every_experiment_has_its_folder_and_its_training(out: Path) -> None:
    assert (out / "artefacts" / "own" / "model.safetensors").is_file()
    assert (out / "text2mel" / "artefacts" / "own" / "model.safetensors").is_file()
    page = (out / "leaderboard" / "leaderboard.md").read_text()
    assert "token2mel on demo/hard" in page
    assert "text2mel on demo/test" in page


def test_a_second_run_makes_nothing_anew(out: Path) -> None:
    made = {p: p.stat().st_mtime_ns for p in out.rglob("cells/*/audio/*")}
    assert len(made) == 10
    # the recorded experiment is the whole of it
    experiment.run_all(load(str(out)), out, reporting=Reporting(terminal=False))
    assert {p: p.stat().st_mtime_ns for p in out.rglob("cells/*/audio/*")} == made
    assert len(rows(out)) == 7


def test_another_run_takes_over_what_is_the_same(out: Path, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    same = write(tmp_path, score_cache=str(out.parent / "scores"))
    changed = tmp_path / "changed"
    refused = CliRunner().invoke(main, ["run", str(same), "--reuse", str(out), "--dry-run"])
    assert refused.exit_code == 2, refused.output
    assert "--reuse copies into the run folder" in refused.output
    (first, *_) = sorted(path for path in out.glob("cells/*/utterances.jsonl") if '"nfe": 2' in path.read_text())
    as_made = first.read_text()
    named = [json.loads(line) for line in as_made.splitlines()]
    first.write_text("".join(json.dumps({**row, "hardware": None}) + "\n" for row in named))  # of before they did
    command = ["run", str(same), "--reuse", str(tmp_path / "nothing"), "--reuse", str(out), "--out", str(changed)]
    again = CliRunner().invoke(main, [*command, "--set", "then.0.training.steps=3"])
    assert again.exit_code == 0, again.output
    taken = changed / first.relative_to(out)
    assert [json.loads(line)["hardware"] for line in taken.read_text().splitlines()] == [r["hardware"] for r in named]
    first.write_text(as_made)
    audio = {path.name for path in out.glob("cells/*/audio/*")}
    assert {path.name for path in changed.glob("cells/*/audio/*")} == audio
    assert all((changed / path.relative_to(out)).samefile(path) for path in out.glob("cells/*/audio/*"))
    weights = Path("artefacts/own/model.safetensors")
    assert (changed / weights).read_bytes() == (out / weights).read_bytes()
    assert json.loads((changed / "text2mel/artefacts/own/status.json").read_text())["steps"] == 3  # trained anew
    assert {(r["task"], r["system"]) for r in rows(changed)} == {(r["task"], r["system"]) for r in rows(out)}
    machines = [{r["hardware"] for r in rows(folder)} for folder in (out, changed)]
    assert machines[0] == machines[1]
    assert all(machine is None or isinstance(machine, str) for machine in machines[0])
    assert any(machines[0])
    assert other_runs.take_over(load(str(same)), out, (tmp_path / "nothing", out)) == 0


def test_a_copy_without_weights_holds_no_training(out: Path, tmp_path: Path) -> None:
    """As results are published: who took the training over would have nothing to sample with."""
    copy, fresh = tmp_path / "published", tmp_path / "fresh"
    shutil.copytree(out, copy)
    for path in [*copy.rglob(WEIGHTS), *copy.rglob(CHECKPOINT)]:
        path.unlink()
    assert {path.name for path, *_ in reuse.trainings(RunFolder(out))} == {"own"}
    assert list(reuse.trainings(RunFolder(copy))) == []
    other_runs.take_over(load(str(write(tmp_path))), fresh, (copy,))
    assert list(fresh.glob("artefacts/*")) == []
    with pytest.raises(ArtefactError, match="its card is there without its weights"):
        read_card(copy / "artefacts" / "own")


def test_further_experiments_inherit_and_are_checked(tmp_path: Path) -> None:
    found = load(str(write(tmp_path)), ("training.steps=3", "then.0.dataset.limit=5"))
    (part,) = found.then
    assert (part.name, part.task, part.training["steps"], part.vocoder) == ("text2mel", "text2mel", 3, "griffin-lim")
    assert [d.limit for d in part.dataset] == [5]
    assert part.systems[0].network.name in BACKBONES
    with pytest.raises(ConfigError, match=r"both.yaml, line \d+: systems\[0\].nfe.*"):
        load(str(write(tmp_path, then=[{"task": "text2mel", "systems": [{**teacher("dit"), "nfe": [0]}]}])))
    with pytest.raises(ConfigError, match="unknown key 'systms': did you mean 'systems'"):
        load(str(write(tmp_path, then=[{"systms": []}])))


def test_one_set_with_two_options_is_two_sets(tmp_path: Path) -> None:
    """Both rules for the length of text2mel on one leaderboard; the second one's rows were left out, and nobody was told."""
    one = {"limit": 1, "prefer_short": True}
    lengths = [{**one, "options": {"length": length}} for length in ("truth", "prompt-rate")]
    path = write(tmp_path, task="text2mel", dataset=lengths, systems=[teacher("aligning-dit")], then=[], references=[])
    (context,) = experiment.run_all(load(str(path)), tmp_path / "out", reporting=Reporting(terminal=False))
    assert context.failures == {}
    made = rows(tmp_path / "out")
    assert {row["dataset"].partition(", ")[2] for row in made} == {"true length", "prompt's rate"}
    assert len({row["key"] for row in made}) == len(made) == 2
    with pytest.raises(ConfigError, match=r"the set demo/test stands twice, with the same options"):
        load(str(write(tmp_path, dataset=[one, {**one, "limit": 2}])))


def test_two_parts_need_two_names(tmp_path: Path) -> None:
    part = {"task": "text2mel", "systems": [teacher("aligning-dit")]}
    with pytest.raises(ConfigError, match="'text2mel' is taken"):
        load(str(write(tmp_path, then=[part, part])))
    with pytest.raises(ConfigError, match="'cells' is taken"):
        load(str(write(tmp_path, then=[{"name": "cells"}])))
    with pytest.raises(ConfigError, match="a list of mappings"):
        load(str(write(tmp_path, then={"task": "text2mel"})))


def folder_set(folder: Path, sentence: int) -> dict[str, Any]:
    """A set of one's own with one text and one prompt's name; what they sound like is another corpus's sentence."""
    folder.mkdir()
    u = DemoCorpus().utterances("test")[sentence]
    for name, source in (("prompt.flac", u.prompt_audio), ("one.flac", u.target_audio)):
        assert source is not None
        shutil.copy(source, folder / name)
    (folder / "test.csv").write_text("id,text,prompt_audio,target_audio\none,the same words,prompt.flac,one.flac\n")
    return {"name": "folder", "split": "test", "options": {"root": str(folder)}}


def test_sets_that_only_their_recordings_tell_apart(tmp_path: Path) -> None:
    """Of one list: refused side by side, and in one folder, or from another run's, the second is made anew."""
    one, other = (folder_set(tmp_path / name, i) for i, name in enumerate(("a", "b")))
    plain: dict[str, Any] = {"systems": [], "training": {}, "then": [], "metrics": ["f0cv"]}
    references = {**plain, "references": ["ground-truth"]}

    def run(dataset: Any, out: str, *more: str) -> Any:
        path = write(tmp_path, dataset=dataset, **references)
        return CliRunner().invoke(main, ["run", str(path), "--out", str(tmp_path / out), *more])

    def sounds(out: str) -> str:
        (table,) = (tmp_path / out).glob("cells/*/utterances.parquet")
        return str(pd.read_parquet(table)["audio_sha256"].iloc[0])

    refused = run([one, other], "both")
    assert refused.exit_code == 2
    assert "have the same ids, texts and prompts' names" in " ".join(refused.output.split())
    assert run(one, "one").exit_code == run(other, "other").exit_code == 0
    assert sounds("one") != sounds("other")
    taken = run(other, "taken", "--reuse", str(tmp_path / "one"))
    assert taken.exit_code == 0, taken.output
    assert "other recordings than before and are made again" in taken.output
    assert sounds("taken") == sounds("other")
    assert "1 of 1 cells have their audio" in run(one, "one", "--dry-run").output
    assert "0 of 1 cells have their audio" in run(other, "one", "--dry-run").output
    assert "0 of 1 cells have their audio" in run(one, "one", "--dry-run", "--set", "overwrite=always").output
    assert "nothing is left" in run(other, "one", "--dry-run", "--set", "overwrite=only-cache").output
    assert run(other, "one").exit_code == 0
    assert sounds("one") == sounds("other")


def test_a_recording_that_cannot_be_read_has_no_sum_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(path: Path) -> str:
        raise PermissionError(path)

    context = Context(load(str(write(tmp_path, then=[]))), RunFolder(tmp_path / "out"))
    monkeypatch.setattr(sources, "file_sha256", unreadable)
    u = DemoCorpus().utterances("test")[0]
    assert sources.made_from(context, u) == {"prompt": None, "target": None}
    assert not sources.of_other_recordings(context, {"made_from": {"prompt": "a", "target": "b"}}, u)
    assert not sources.of_other_recordings(context, {}, u)


def test_a_part_that_is_no_longer_asked_for_is_in_no_table(tmp_path: Path) -> None:
    parts = [
        {"name": name, "dataset": {"split": name, "limit": 1}, "references": ["ground-truth"]}
        for name in ("dev", "hard")
    ]
    plain: dict[str, Any] = {
        "systems": [],
        "references": ["ground-truth"],
        "dataset": {"limit": 1},
        "metrics": ["f0cv"],
    }

    def shown(then: list[dict[str, Any]]) -> set[str]:
        path = write(tmp_path, then=then, **plain)
        assert CliRunner().invoke(main, ["run", str(path), "--out", str(tmp_path / "out")]).exit_code == 0
        return {row["dataset"].partition("@")[0] for row in rows(tmp_path / "out")}

    assert shown(parts) == {"demo/test", "demo/dev", "demo/hard"}
    assert shown(parts[:1]) == {"demo/test", "demo/dev"}
    assert shown([]) == {"demo/test"}
    assert shown(parts) == {"demo/test", "demo/dev", "demo/hard"}


def test_a_file_of_settings_beside_run_folders_makes_them_no_run_of_several_parts(tmp_path: Path) -> None:
    for name in ("r1", "r2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "experiment.yaml").write_text("name: x")
    (tmp_path / "experiment.yaml").write_text("name: mine")
    assert [folder.path.name for folder in reuse.folders(RunFolder(tmp_path / "r1"))] == ["r1"]
    (tmp_path / "manifest.json").write_text('{"parts": ["r1"]}')
    assert [folder.path for folder in reuse.folders(RunFolder(tmp_path / "r1"))] == [tmp_path / "r1", tmp_path]


def test_a_run_folder_goes_on_by_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Moved or not, and `report` takes it as it stands, without options of an experiment."""
    monkeypatch.chdir(tmp_path)
    plain: dict[str, Any] = {
        "systems": [],
        "references": ["ground-truth"],
        "dataset": {"limit": 1},
        "metrics": [],
        "then": [],
    }
    path = write(tmp_path, **{**plain, "metrics": ["f0cv"]})
    made = CliRunner().invoke(main, ["synthesize", str(path), "--out", "here"])
    assert made.exit_code == 0, made.output
    told = CliRunner().invoke(main, ["report", str(path), "--out", "here"])
    assert "not scored yet" in json.dumps(rows(Path("here")), ensure_ascii=False), told.output
    Path("here").rename("there")
    result = CliRunner().invoke(main, ["run", "there"])
    assert result.exit_code == 0, result.output
    assert [row["n_scored"] for row in rows(Path("there"))] == [1]
    assert not Path("runs").exists()
    for more in (["--dry-run"], ["--out", "elsewhere"], ["--limit", "1"]):
        refused = CliRunner().invoke(main, ["report", "there", *more])
        assert refused.exit_code == 2
        assert f"there is a run folder, which is reported as it stands: {more[0]} belongs" in " ".join(
            refused.output.split()
        )


def test_a_run_without_a_row_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, systems=[], references=[], then=[])
    result = CliRunner().invoke(main, ["run", str(path), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "has no row: give it `systems`" in " ".join(result.output.split())
