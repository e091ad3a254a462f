"""F5-TTS's and CosyVoice 2's networks from training to report on the embedded corpus, by the configurations that ship."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml

from imfbench.artefact import build_network, read_card, read_network
from imfbench.config import check, load
from imfbench.config_file import ConfigError, Source
from imfbench.contracts.trial import small_corpus
from imfbench.store import read_json

NEEDS = {"small_f5": "f5_tts", "small_cosyvoice2": "cosyvoice"}
SMALLER = {
    "small_f5": {"dim": 32, "depth": 1, "heads": 2, "dim_head": 16, "text_dim": 16, "conv_layers": 1},
    "small_cosyvoice2": {
        "input_size": 32, "encoder_heads": 2, "encoder_units": 32, "encoder_blocks": 1, "channels": 32,
        "attention_head_dim": 8, "heads": 2, "num_mid_blocks": 1,
    },
}  # fmt: skip
FORMATS = {"small_f5": ("vocos-24k", 256 / 24_000), "small_cosyvoice2": ("cosyvoice2-24k", 480 / 24_000)}


def values_of(name: str) -> dict[str, Any]:
    """A configuration that ships, as it is written."""
    text = resources.files("imfbench.configs").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def needed(name: str) -> None:
    """Skip where the package with the network is not installed."""
    if importlib.util.find_spec(NEEDS[name]) is None:
        pytest.skip(f"{name} needs the package that {NEEDS[name]} comes with")


@pytest.mark.parametrize("name", NEEDS)
def test_a_shipped_network_has_five_million_parameters_at_most(name: str) -> None:
    needed(name)
    network = load(name).systems[0].network
    assert sum(p.numel() for p in build_network(network.name, network.config).parameters()) <= 5_000_000


@pytest.mark.parametrize("name", ["small_f5", pytest.param("small_cosyvoice2", marks=pytest.mark.slow)])
def test_from_training_to_report(name: str, tmp_path: Path, tiny_in: Callable[[Path], Any]) -> None:
    needed(name)
    tiny = tiny_in(tmp_path)
    values = values_of(name)
    teacher, _, student = values["systems"]
    teacher["network"]["config"] |= SMALLER[name]
    for system in values["systems"]:
        system["train"] = {"steps": 3, "warmup": 0}
    student["search"]["config"]["max_evaluations"] = 3
    values |= {
        "dataset": {**values["dataset"], "limit": 2},
        "dev": {**values["dev"], "limit": 1},
        "teacher": {**values["teacher"], "nfe": [2]},
        "train_data": {"options": {"root": str(small_corpus(tmp_path / "speech"))}},
        "training": {"frames_per_batch": 600, "log_every": 1},
        "metrics": ["sim"], "reports": ["leaderboard"], "precision": "fp32",
        "device": "cpu", "threads": 1, "score_cache": str(tmp_path / "scores"),
    }  # fmt: skip
    path = tmp_path / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    result = tiny.invoke(path)
    assert result.exit_code == 0, result.output
    rows = tiny.leaderboard()
    systems = {"ground-truth", "vocoded-ground-truth", "teacher", "meanflow", "intmeanflow", "intmeanflow+o3s"}
    assert {row["system"] for row in rows} == systems
    assert all(row["status"] == "ok" and row["n_scored"] == 2 for row in rows)
    mel, second = FORMATS[name]
    cells = [read_json(file) for file in tiny.out.glob("cells/*/cell.json")]
    assert {cell["vocoder"] for cell in cells if cell["kind"] != "ground-truth"} == {f"griffin-lim-32@{mel}"}
    for table in tiny.tables().values():  # the prompt's frames are cut off: only the text's remain
        assert ((table["seconds"] - table["reference_seconds"]).abs() < 0.1 + second).all()
    for system in ("meanflow", "intmeanflow"):
        folder = tiny.out / "artefacts" / system
        assert read_network(folder)[0] == teacher["network"]["name"]
        assert read_card(folder)["training"]["status"] == "ok"
    grid = read_json(next(tiny.out.glob("grids/*.json")))["values"]
    assert len(grid) == 3


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"vocoder": "hifigan"},
            "makes mels of vocos-24k .24 kHz, 100 bands.*'hifigan' takes hifigan-22k.*griffin-lim",
        ),
        ({"task": "token2mel"}, "'f5tts' is text2mel's, and the task is token2mel: set task: text2mel"),
        ({"bands": 80}, "'f5tts' has 80 bands, and its mels, of vocos-24k"),
    ],
)
def test_what_does_not_fit_is_told_before_anything_runs(change: dict[str, Any], told: str) -> None:
    values = values_of("small_f5")
    bands = change.pop("bands", None)
    if bands:
        values["systems"][0]["network"]["config"]["mel_dim"] = bands
    with pytest.raises(ConfigError, match=told) as caught:
        check(Source("small_f5.yaml", values | change))
    assert "small_f5.yaml" in str(caught.value)


def test_networks_of_two_mels_have_two_experiments(tiny: Any) -> None:
    f5 = {"method": "teacher", "name": "f5", "network": {"name": "f5tts"}, "nfe": [1]}
    aligning = {"method": "teacher", "name": "aligning", "network": {"name": "aligning-dit"}, "nfe": [1]}
    message = tiny.refused(tiny.config(task="text2mel", systems=[f5, aligning]))
    assert "'f5tts' of f5 and 'aligning-dit' of aligning cannot be in one experiment" in message
    assert "mels of vocos-24k" in message


def test_a_ready_network_of_another_mel_is_told_as_well(tiny: Any) -> None:
    message = tiny.refused(tiny.config(vocoder="hifigan", task="text2mel", teacher=None, systems=[
        {"method": "teacher", "name": "own", "network": {"name": "f5tts"}, "nfe": [1]}]))  # fmt: skip
    assert "the vocoder 'hifigan' takes hifigan-22k" in message


def test_the_corpus_refuses_networks_of_other_contents_and_voices(tiny: Any) -> None:
    f5 = {"method": "teacher", "name": "f5", "network": {"name": "f5tts"}, "nfe": [1]}
    message = tiny.refused(tiny.config(task="text2mel", systems=[f5]))
    assert "the network knows 2545 contents and dataset 'demo' has 107 phones" in message
    cosyvoice = {"name": "cosyvoice2", "config": {"vocab_size": 107}}
    message = tiny.refused(tiny.config(systems=[{"method": "teacher", "name": "c", "network": cosyvoice, "nfe": [1]}]))
    assert "a speaker's vector of 192 numbers" in message
