"""Runs with plug-ins: a method, a metric and a report of one's own, a file that changes, and a broken one that nobody uses."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from click.testing import CliRunner, Result
from safetensors import safe_open

from imfbench import plugins
from imfbench.artefact import METADATA, WEIGHTS
from imfbench.cli import main
from imfbench.config import load
from imfbench.listing import REGISTRIES
from imfbench.reports.columns import qualities, quality
from imfbench.store import file_sha256, read_json

pytestmark = pytest.mark.usefixtures("fresh_plugins")

MINE = '''
from imfbench.backbones.dit import DiT
from imfbench.datasets.demo.corpus import DemoCorpus
from imfbench.features.griffin_lim import GriffinLim
from imfbench.methods.teacher import Teacher
from imfbench.metrics.prosody import PitchVariation
from imfbench.metrics.signature import Signature
from imfbench.registry import BACKBONES, DATASETS, METHODS, METRICS, REPORTS, VOCODERS

@BACKBONES.register("network-of-mine")
class Network(DiT):
    """Another network."""

@DATASETS.register("corpus-of-mine")
class Corpus(DemoCorpus):
    """Another corpus."""

@VOCODERS.register("vocoder-of-mine")
class Vocoder(GriffinLim):
    """Another vocoder."""
    name = "vocoder-of-mine"
    def __init__(self):
        super().__init__(2)

@METHODS.register("flow-of-mine")
class Flow(Teacher):
    """Another flow matching."""

@METRICS.register("seconds-of-mine")
class Seconds(PitchVariation):
    """How long it is."""
    name = "seconds-of-mine"
    columns = summary_columns = ("length",)
    higher_is_better = False
    signature = model_signature = Signature("seconds-of-mine", 1, unit="s")
    def open_model(self):
        return self
    def observe(self, item):
        return {"seconds": len(item.audio) / item.sample_rate}
    def row(self, item, observation):
        return {"length": observation["seconds"]}

@REPORTS.register("systems-of-mine")
class Systems:
    """The systems' names."""
    def write(self, run):
        from imfbench.reports.results import read_run
        file = run / "systems.txt"
        file.write_text("\\n".join(cell.system for cell in read_run(run).cells))
        return [file]
'''


def experiment(folder: Path) -> Path:
    network = {"name": "network-of-mine", "config": {"dim": 32, "depth": 1, "heads": 2, "content_layers": 1}}
    values = {
        "dataset": {"name": "corpus-of-mine", "limit": 2, "prefer_short": True},
        "train_data": {"name": "corpus-of-mine"},
        "training": {"steps": 2, "frames_per_batch": 400, "save_every": 1},
        "systems": [{"method": "flow-of-mine", "network": network, "nfe": [1]}],
        "metrics": ["seconds-of-mine"],
        "vocoder": "vocoder-of-mine",
        "reports": ["leaderboard", "systems-of-mine"],
        "threads": 1,
        "score_cache": str(folder / "scores"),
    }
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def read_artefact_metadata(folder: Path) -> dict[str, Any]:
    with safe_open(folder / WEIGHTS, "pt") as file:
        found: dict[str, Any] = json.loads(file.metadata()[METADATA])
    return found


def run(folder: Path, *files: Path, out: str = "out") -> Result:
    """A run as a command of its own would do it: with the files as they are now."""
    for plugin in plugins.plugins():
        for registry, name in plugin.gives:
            registry.remove(name)
    plugins._plugins.clear()
    options = [option for file in files for option in ("--plugin", str(file))]
    result = CliRunner().invoke(main, [*options, "run", str(experiment(folder)), "--out", str(folder / out)])
    assert "Traceback" not in result.output
    return result


GIVES = {
    "backbone": "network-of-mine",
    "dataset": "corpus-of-mine",
    "vocoder": "vocoder-of-mine",
    "method": "flow-of-mine",
    "metric": "seconds-of-mine",
    "report": "systems-of-mine",
}


def test_a_run_with_parts_of_ones_own_of_every_kind_and_one_that_is_broken(tmp_path: Path) -> None:
    assert {*GIVES} == {registry.kind for registry in REGISTRIES.values()}
    mine, broken = tmp_path / "mine.py", tmp_path / "broken.py"
    mine.write_text(MINE)
    broken.write_text("no_such_name\n")
    result = run(tmp_path, mine, broken)
    assert result.exit_code == 0, result.output
    assert f"warning: plug-in {broken} was left out" in result.output
    with open(tmp_path / "out/leaderboard/leaderboard.csv", encoding="utf-8") as file:
        rows = {row["system"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["ground-truth", "vocoded-ground-truth", "flow-of-mine"]
    own = rows["flow-of-mine"]
    assert (own["method"], own["status"], own["length_n"]) == ("flow-of-mine", "ok", "2")
    assert float(own["length_low"]) <= float(own["length"]) <= float(own["length_high"])
    table = (tmp_path / "out/leaderboard/leaderboard.md").read_text(encoding="utf-8")
    assert "| System | NFE | Network calls | length | RTF |" in table
    (ranking,) = json.loads((tmp_path / "out/leaderboard/leaderboard.json").read_text())["groups"][0]["rankings"]
    assert (ranking["column"], ranking["best"]) == ("length", [own["key"]])
    assert (tmp_path / "out/systems.txt").read_text().split() == list(rows)
    first, second = read_json(tmp_path / "out/manifest.json")["plugins"]
    assert (first["plugin"], first["sha256"], first["error"]) == (str(mine), file_sha256(mine), None)
    assert first["gives"] == [f"{kind} {name}" for kind, name in GIVES.items()]
    assert {row["dataset"].partition("/")[0] for row in rows.values()} == {"corpus-of-mine"}
    assert own["vocoder"] == "vocoder-of-mine"
    assert read_artefact_metadata(tmp_path / "out/artefacts/flow-of-mine")["backbone"] == "network-of-mine"
    assert second["error"].startswith("line 1: NameError")

    # The same command again changes nothing; another file is another method, and its training is not taken for the old one's.
    weights = (tmp_path / "out/artefacts/flow-of-mine/model.safetensors").read_bytes()
    assert run(tmp_path, mine).exit_code == 0
    assert (tmp_path / "out/artefacts/flow-of-mine/model.safetensors").read_bytes() == weights
    assert len(read_json(tmp_path / "out/manifest.json")["plugins"]) == 2
    mine.write_text(MINE + "\n# changed\n")
    result = run(tmp_path, mine)
    assert result.exit_code == 2
    assert "holds a training with other settings (plugin_sha256 " in result.output
    assert "has changed since the last start here: figures of seconds-of-mine that are on record" in " ".join(
        result.output.split()
    )
    assert "give the system another name, this run another folder" in result.output

    # Without the plug-in its names are unknown, and its figures are shown without a direction.
    result = run(tmp_path)
    assert result.exit_code == 2
    for kind, name in GIVES.items():
        assert f"unknown {kind} '{name}'" in result.output
    row = {"length": 1.0, "length_low": 0.9, "signatures": {"length": "length-v1"}}
    assert [(q.name, q.better) for q in qualities([row])] == [("length", "")]
    assert quality("length").signature == "length"


FAULTY = """
from imfbench.datasets.demo.corpus import DemoCorpus
from imfbench.registry import DATASETS

@DATASETS.register("faulty")
class Faulty(DemoCorpus):
    def __init__(self):
        super().__init__()
        if {opens}:
            {fault}
    def utterances(self, split="test"):
        found = super().utterances(split)[:2]
        {fault}
        return found
"""


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("{}['rows']", "KeyError: 'rows'"),
        ("next(iter(()))", "StopIteration"),
        ("[][3]", "IndexError: list index out of range"),
        ("None.rows", "AttributeError: 'NoneType' object has no attribute 'rows'"),
        ("len(3)", "TypeError: object of type 'int' has no len()"),
        ("assert False, 'no rows'", "AssertionError: no rows"),
        ("raise ValueError('no rows')", "no rows"),
        ("raise ValueError", "ValueError"),
    ],
)
@pytest.mark.parametrize("opens", [True, False])
def test_whatever_a_dataset_of_ones_own_raises_is_one_message(tiny, opens: bool, fault: str, told: str) -> None:  # type: ignore[no-untyped-def]
    result = faulty(tiny, FAULTY.format(opens=opens, fault=fault))
    if opens:
        what = "dataset 'faulty' cannot be opened with {}"
        assert f"{what}: {told}; correct these `options`, or mend what they name" in result
    else:
        what = "the set 'test' of dataset 'faulty' cannot be used"
        assert f"{what}: {told}; correct `split` or `options`, or mend the data" in result


@pytest.mark.parametrize(
    ("listing", "told"),
    [
        ("found = (u for u in found)", ""),  # lists may also be made while they are read
        ("found = (u for u in [*found, *found[:1]])", "the id 'test-af_sarah-000' is that of several utterances; give each"),
        ("found *= 2", "the id 'test-af_sarah-000' is that of several utterances, and 1 more ids stand there so; give each"),
        ("found = [u.id for u in found]", "AttributeError: 'str' object has no attribute 'id'"),
        ("found = (u.no_such for u in found)", "AttributeError: 'Utterance' object has no attribute 'no_such'"),
    ],
)  # fmt: skip
def test_what_a_dataset_of_ones_own_lists_is_looked_at(tiny, listing: str, told: str) -> None:  # type: ignore[no-untyped-def]
    result = faulty(tiny, FAULTY.format(opens=False, fault=listing))
    assert result == "" if not told else f"the set 'test' of dataset 'faulty' cannot be used: {told}" in result


def faulty(tiny: Any, text: str) -> str:
    """What a run on a plug-in's dataset says that ends with exit code 2; nothing if it ends well."""
    file = tiny.folder / "faulty.py"
    file.write_text(text)
    config = tiny.config(dataset={"name": "faulty"}, systems=[], references=["ground-truth"], metrics=[])
    result = CliRunner().invoke(main, ["synthesize", str(config), "--plugin", str(file), "--out", str(tiny.out)])
    assert "Traceback" not in result.output
    assert not isinstance(result.exception, Exception), result.exception
    assert result.exit_code in (0, 2), result.output
    return result.output[result.output.rindex("imfbench: ") :] if result.exit_code else ""


def test_reports_are_no_part_of_what_decides_figures() -> None:
    usual, none = load("quickstart"), load("quickstart", ("reports=[]",))
    assert list(usual.reports) == ["leaderboard", "page"]
    assert usual.hash == none.hash


def test_speech_of_a_vocoder_that_changed_since_is_made_again(tiny: Any) -> None:
    """Under the same name; and that of the same file is kept."""
    file, path = tiny.folder / "vocoder.py", tiny.config(vocoder="vocoder-of-mine", references=[], metrics=["sim"])
    sums = []
    for loudness in (0.5, 0.5, 0.25):
        file.write_text(
            "from imfbench.features.griffin_lim import GriffinLim\n"
            "from imfbench.registry import VOCODERS\n\n"
            "@VOCODERS.register('vocoder-of-mine')\n"
            "class Vocoder(GriffinLim):\n"
            "    name = 'vocoder-of-mine'\n\n"
            "    def __call__(self, mel):\n"
            f"        return {loudness} * super().__call__(mel)\n"
        )
        for plugin in plugins.plugins():
            for registry, name in plugin.gives:
                registry.remove(name)
        plugins._plugins.clear()
        result = CliRunner().invoke(main, ["run", str(path), "--plugin", str(file), "--out", str(tiny.out)])
        assert result.exit_code == 0, result.output
        (row,) = json.loads((tiny.out / "leaderboard" / "leaderboard.json").read_text())["rows"]
        sums.append(pd.read_parquet(tiny.out / "cells" / row["key"] / "utterances.parquet")["audio_sha256"].tolist())
    assert sums[0] == sums[1]
    assert not {*sums[0]} & {*sums[2]}
