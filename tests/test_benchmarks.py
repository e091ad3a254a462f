"""The benchmarks of cost run at tiny sizes, and compare what they say they compare."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
import torch
import yaml

from imfbench.artefact import save_artefact
from imfbench.building import build_method

CLONE = Path(__file__).parent.parent


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, CLONE / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("ready")
    method = build_method("teacher", backbone_config={"dim": 32, "depth": 1, "heads": 2, "content_layers": 1})
    save_artefact(folder, "teacher", method, {"name": "ready", "task": "token2mel", "training": {"steps": 1}})
    return str(folder)


@pytest.fixture(autouse=True)
def threads() -> Any:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_sampling_is_compared_with_the_calls_it_makes(artefact: str, tmp_path: Path) -> None:
    words = ["--nfe", "1,3", "--utterances", "1", "--repeats", "1", "--device", "cpu", "--threads", "1"]
    script("sampling").main([*words, "--teacher", artefact, "--out", str(tmp_path / "rows.csv")])
    rows = pd.read_csv(tmp_path / "rows.csv").set_index(["method", "nfe"])
    # Guidance sends two rows an evaluation; the script itself refuses sides that differ.
    assert rows["network_calls"].to_dict() == {
        ("teacher", 1): 2, ("teacher", 3): 6, ("intmeanflow", 1): 1, ("intmeanflow", 3): 3
    }  # fmt: skip
    assert (rows["n"] == 1).all()
    assert (rows["ratio"] > 0).all()
    assert (rows["ratio"] * (rows["seconds"] - rows["difference_seconds"]) - rows["seconds"]).abs().max() < 1e-9


def test_sides_that_ask_for_different_things_are_refused(artefact: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = script("sampling")
    monkeypatch.setattr(module, "bare", lambda method, *_: lambda: None)
    with pytest.raises(AssertionError, match="ask the network for the same"):
        module.main(["--nfe", "1", "--utterances", "1", "--repeats", "1", "--device", "cpu", "--teacher", artefact])


@pytest.mark.slow
def test_a_step_of_intmeanflow_is_compared_with_2k_rows_of_the_teacher(artefact: str) -> None:
    words = ["--teacher-nfe", "1,3", "--frames", "700", "--repeats", "1", "--device", "cpu", "--threads", "1"]
    one, three = script("intmeanflow_step").main([*words, "--teacher", artefact])
    assert three["teacher_rows"] == 3 * one["teacher_rows"] > 0
    assert one["teacher_rows"] % 2 == 0
    assert three["seconds"] > 0


@pytest.mark.slow
def test_the_loaders_share_is_a_share(artefact: str) -> None:
    (row,) = script("loader").main(
        ["--methods", "teacher", "--frames", "700", "--steps", "2", "--device", "cpu", "--teacher", artefact]
    )
    assert 0 < row["share"] < 1
    assert row["longest_wait"] > 0


@pytest.mark.slow
def test_an_evaluation_of_a_search_samples_every_utterance_once(artefact: str) -> None:
    (row,) = script("search_cost").main(
        ["--scores", "teacher-distance", "--nfe", "3", "--utterances", "2", "--repeats", "1", "--threads", "1",
         "--device", "cpu", "--vocoder", "griffin-lim", "--artefact", artefact]
    )  # fmt: skip
    assert (row["utterances"], row["network_calls"]) == (2, 6)
    assert row["ratio"] > 0


def test_options_are_compared_with_the_first_of_their_budget(artefact: str, tmp_path: Path) -> None:
    systems = [
        {"name": name, "method": "intmeanflow", "config": {"teacher_nfe": 1}, "seeds": [0, 1, 2], "train": train}
        for name, train in (
            ("plain", {}), ("same", {}), ("quick", {"learning_rate": 1e-2}), ("timed", {"minutes": 1e-6, "steps": None}),
        )
    ]  # fmt: skip
    values = {
        "dataset": {"limit": 3, "prefer_short": True}, "teacher": {"artefact": artefact, "nfe": [2]}, "systems": systems,
        "training": {"steps": 2, "frames_per_batch": 400, "warmup": 1}, "metrics": [], "reports": [], "references": [],
        "threads": 1,
    }  # fmt: skip
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(values))
    module = script("options")
    rows = module.main(
        [str(tmp_path / "own.yaml"), "--nfe", "1", "--run", str(tmp_path / "run"), "--out", str(tmp_path)]
    )
    assert len(rows) == 4 * 3 * 3
    assert rows.groupby("system")["budget"].first().to_dict() == {
        "plain": "steps", "same": "steps", "quick": "steps", "timed": "time",
    }  # fmt: skip
    assert (rows["distance"] >= 0).all()
    assert module.differences(rows, "same", "plain", 1).value == 0, "the same training gives the same network"
    quick = (
        rows[rows["system"] == "quick"]["distance"].to_numpy() - rows[rows["system"] == "plain"]["distance"].to_numpy()
    )
    assert module.differences(rows, "quick", "plain", 1).value == pytest.approx(quick.mean())
    assert module.differences(rows, "timed", "nobody", 1) is None
    table = (tmp_path / "own.md").read_text()
    assert table.index("Equal steps:") < table.index("| same |") < table.index("Equal time:") < table.index("| timed |")


@pytest.mark.slow
def test_the_time_scale_is_what_makes_the_derivative_large(tmp_path: Path) -> None:
    words = ["--scales", "30,1000", "--methods", "meanflow", "--seeds", "1", "--steps", "30"]
    rows = script("time_scale").main([*words, "--run", str(tmp_path), "--out", str(tmp_path / "rows.csv")])
    assert rows["scale"].tolist() == [30, 1000]
    assert rows["status"].tolist() == ["ok", "ok"]
    assert rows["tangent_rms_median"][1] > 3 * rows["tangent_rms_median"][0]
