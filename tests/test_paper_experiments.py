"""The paper's two experiments as they ship, and with other sizes, paths and limits on small networks and the embedded corpus."""

from __future__ import annotations

import importlib.util
import itertools
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from imfbench import model_hub
from imfbench.artefact import read_network, save_artefact
from imfbench.building import build_method
from imfbench.cli import main
from imfbench.config import load
from imfbench.config_file import CONFIGS
from imfbench.contracts.layouts import write_layout
from imfbench.contracts.manifests import heard_in_set, heard_of, write_features, write_manifests
from imfbench.features.audio import load_audio
from imfbench.sets import open_set, options_problem
from imfbench.store import read_json, write_json

PAGE = (Path(__file__).parent.parent / "docs" / "paper_experiments.md").read_text(encoding="utf-8")
NEEDS = {"paper_text2mel": ("f5_tts", "rjieba", "pypinyin"), "paper_token2mel": ("cosyvoice",)}
CHARACTERS = tuple(" !\"',-.:?" + "abcdefghijklmnopqrstuvwxyz" + "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
TEACHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "paper_text2mel": (
        "f5tts",
        {
            "dim": 32, "depth": 1, "heads": 2, "dim_head": 16, "text_dim": 16, "conv_layers": 1,
            "text_num_embeds": len(CHARACTERS),
        },
    ),
    "paper_token2mel": (
        "cosyvoice2",
        {
            "vocab_size": 107, "speaker_dims": 256, "input_size": 32, "encoder_heads": 2, "encoder_units": 32,
            "encoder_blocks": 1, "channels": 32, "attention_head_dim": 8, "heads": 2, "n_blocks": 1, "num_mid_blocks": 1,
        },
    ),
}  # fmt: skip
STUDENTS = ("intmeanflow-k2", "intmeanflow-k4", "intmeanflow-k8", "intmeanflow-k16", "meanflow")


@pytest.mark.parametrize("name", NEEDS)
def test_they_hold_what_is_known_of_the_paper(name: str) -> None:
    config = load(name)
    students = {system.label: system for system in config.systems}
    assert [students[f"intmeanflow-k{k}"].config["teacher_nfe"] for k in (2, 4, 8, 16)] == [2, 4, 8, 16]
    assert config.teacher is not None
    assert config.teacher.nfe[0] == 32
    assert all({1, 2, 3} <= set(system.nfe) for system in config.systems)
    (search,) = students["intmeanflow-k16"].search
    assert (search.method, search.nfe, search.score) == ("o3s", [2, 3], {"sim": 1.0})
    assert [(data.name, data.split) for data in config.dataset] == [("librispeech-pc", "test"), ("seed-tts-eval", "en")]
    assert config.dev.split not in {data.split for data in config.dataset}
    assert list(config.metrics) == ["wer", "sim", "utmos", "f0cv"]


@pytest.mark.parametrize("name", NEEDS)
def test_every_value_says_whence_it_is(name: str) -> None:
    lines = (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    known = re.compile(r"#.*\b(paper|inferred|ours)\b")
    block, above = "", False
    for line in lines:
        if line and not line.startswith((" ", "#")):
            block, above = line.partition(":")[0], bool(known.search(line)) or above
        if block in ("teacher", "train_data", "training") and re.match(r" +\w+: \S", line):
            if not re.match(r" +(name|seed|save_every):", line):
                assert known.search(line), line
        elif block in ("protocol", "vocoder", "precision", "noise_seeds", "dev", "systems") and line.startswith(block):
            assert known.search(line), line


def test_the_page_gives_commands_that_are_and_hours_that_follow() -> None:
    commands = re.findall(r"^imfbench run (.*)$", PAGE, re.MULTILINE)
    one = re.findall(r"`(--set 'systems=[^`]*)`", PAGE)
    assert len(commands) == 5
    for words in [*map(shlex.split, commands), ["paper_text2mel", *shlex.split(one[0])]]:
        settings = tuple(after for word, after in itertools.pairwise(words) if word == "--set")
        assert load(words[0], settings).name == words[0]
    (data,) = re.findall(r"```yaml\n(train_data:.*?)```", PAGE, re.DOTALL)
    assert options_problem("manifest", yaml.safe_load(data)["train_data"]["options"]) == ("", "")
    rows = re.findall(r"^\| [^|]* \| ([\d.]+) \| ([\d.]+) \| ([\d.–]+) \| ([\d.]*)", PAGE, re.MULTILINE)
    steps = {load(name).training["steps"] for name in NEEDS}
    assert steps == {20_000}
    assert len(rows) == 6
    for row in rows:
        for seconds, hours in (row[:2], row[2:]):
            assert seconds == "–" or round(float(seconds) * 20_000 / 3600, 1) == pytest.approx(float(hours), abs=0.051)
    for k in (0, 2):
        all_hours = sum(float(row[k]) * 20_000 / 3600 for row in rows if row[k] != "–")
        assert f"**{all_hours:.1f}**" in PAGE


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("paper_text2mel", ("teacher.artefact: no artefact 'artefacts/f5tts-v1-base'", "vocoder (vocos)")),
        (
            "paper_token2mel",
            (
                "teacher.artefact: no artefact 'artefacts/cosyvoice2'",
                "vocoder (hift)",
                "cosyvoice2-tokenizer",
                "campplus.onnx",
            ),
        ),
    ],
)
@pytest.mark.parametrize("dry", [["--dry-run"], []])
def test_a_run_and_a_dry_run_say_all_that_is_missing(
    name: str, places: tuple[str, ...], dry: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    download = model_hub.download
    fetched: list[str] = []

    def noted(repository: str, files: Any, folder: bool, local: bool, whole: Any) -> Path | None:
        fetched.extend([] if local else [repository])
        return download(repository, files, folder, True, whole)

    monkeypatch.setattr(model_hub, "download", noted)
    result = CliRunner().invoke(main, ["run", name, "--out", str(tmp_path / "run"), *dry])
    assert result.exit_code == 2, result.output
    told = result.output
    for place in (*places, "imfbench import", "dataset[0] (librispeech-pc/test)", "dataset[1] (seed-tts-eval/en)",
                  "dev (librispeech/dev-clean)", "train_data (manifest)", "there is no manifest data/", "metrics.sim",
                  "metrics.utmos"):  # fmt: skip
        assert place in told, told
    assert "https://www.openslr.org/12" in told
    assert "docs/paper_experiments.md" in told
    assert not (tmp_path / "run").exists()
    assert not fetched


def test_a_vocoder_of_another_mel_is_refused(tmp_path: Path, tiny_in: Callable[[Path], Any]) -> None:
    needed("paper_text2mel")
    tiny = tiny_in(tmp_path)
    settings = _settings("paper_text2mel", tmp_path)
    message = tiny.refused(Path("paper_text2mel"), *settings, "vocoder=hifigan")
    assert "makes mels of vocos-24k" in message
    assert "'hifigan' takes hifigan-22k" in message


def test_models_that_cannot_be_had_are_told_all_at_once_and_no_folder_is_left(
    tmp_path: Path, tiny_in: Callable[[Path], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With data and teacher there: vocoder, tokenizer, speaker encoder and scorers, not one after another."""
    needed("paper_token2mel")

    def unreachable(_repository: str, _files: Any, _folder: bool, local: bool, _whole: Any) -> None:
        if not local:
            raise ConnectionError

    monkeypatch.setattr(model_hub, "download", unreachable)
    tiny = tiny_in(tmp_path)
    settings = [word for word in _settings("paper_token2mel", tmp_path) if ".features=" not in word]
    message = tiny.refused(Path("paper_token2mel"), *settings, "vocoder=hift", "metrics=[sim, utmos]")
    for what in ("vocoder hift", "cosyvoice2-tokenizer", "cosyvoice2-campplus", "utmos"):
        assert f"\n- {what}: the model " in message, message
    assert "or give tokens and speaker vectors by the data's option `features`" in message
    assert not tiny.out.exists()


def test_an_imported_teacher_without_its_characters_is_refused(tmp_path: Path, tiny_in: Callable[[Path], Any]) -> None:
    needed("paper_text2mel")
    tiny = tiny_in(tmp_path)
    settings = _settings("paper_text2mel", tmp_path)
    card = tmp_path / "teacher" / "card.json"
    write_json(card, {**read_json(card), "imported": {"format": "f5"}})
    (tmp_path / "teacher" / "vocab.txt").unlink()
    message = tiny.refused(Path("paper_text2mel"), *settings)
    assert message.startswith(f"imfbench: {tmp_path / 'teacher' / 'vocab.txt'} is missing")
    assert len(message.splitlines()) == 1
    assert not tiny.out.exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", NEEDS)
def test_the_same_experiment_with_other_sizes_runs_to_its_leaderboards(
    name: str, tmp_path: Path, tiny_in: Callable[[Path], Any]
) -> None:
    needed(name)
    tiny = tiny_in(tmp_path)
    result = tiny.invoke(Path(name), *_settings(name, tmp_path))
    assert result.exit_code == 0, result.output
    rows = tiny.leaderboard()
    assert all(row["status"] == "ok" and row["n_scored"] == 1 for row in rows), rows
    systems = {row["system"] for row in rows}
    assert {"ground-truth", "vocoded-ground-truth", "teacher", "intmeanflow-k16+o3s", *STUDENTS} <= systems
    assert len({row["dataset"] for row in rows}) == 2
    for student in STUDENTS:
        assert read_network(tiny.out / "artefacts" / student)[0] == TEACHERS[name][0]
    assert len(read_json(next(tiny.out.glob("grids/*.json")))["values"]) == 3


def needed(name: str) -> None:
    """Skip where the original network's package is not installed."""
    for module in NEEDS[name]:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{name} needs {module}, of the extra {'f5' if 'text' in name else 'cosyvoice'}")


def _settings(name: str, folder: Path) -> list[str]:
    """Sizes, paths and limits alone, and what has no weights here: vocoder and scorers."""
    speech, pc, seed = folder / "speech", write_layout("librispeech-pc", folder / "pc"), folder / "seed"
    write_layout("seed-tts-eval", seed)
    shutil.copytree(pc / "LibriSpeech" / "test-clean", pc / "LibriSpeech" / "dev-clean")
    rows = write_manifests(speech)
    backbone, shape = TEACHERS[name]
    method = build_method("teacher", backbone=backbone, backbone_config=shape)
    task = name.removeprefix("paper_")
    save_artefact(folder / "teacher", "teacher", method, {"name": "teacher", "task": task, "training": {"steps": 1}})
    found = [
        f"teacher.artefact={folder / 'teacher'}", "teacher.nfe=[2]",
        f"train_data.options.manifest={speech / 'plain.jsonl'}", "train_data.options.supervisions=[]",
        "train_data.options.workers=1",
        f"dataset.0.options.root={pc}", f"dataset.1.options.root={seed}", f"dev.options.root={pc}",
        "dataset.0.limit=1", "dataset.1.limit=1", "dev.limit=1",
        "training.steps=2", "training.warmup=0", "training.frames_per_batch=1200", "training.precision=fp32", "precision=fp32",
        *(f"systems.{system.label}.nfe=[1]" for system in load(name).systems),
        "systems.intmeanflow-k16.search.nfe=[2]", "systems.intmeanflow-k16.search.config.max_evaluations=2",
        "vocoder=griffin-lim", "protocol=null", "metrics=[sim]", "reports=[leaderboard]", "device=cpu", "threads=1",
        f"score_cache={folder / 'scores'}",
    ]  # fmt: skip
    if task == "text2mel":
        (folder / "teacher" / "vocab.txt").write_text("\n".join(CHARACTERS) + "\n", encoding="utf-8")
        return found
    heard = {row["id"]: heard_of(row["row"], *load_audio(speech / row["audio"])) for row in rows}
    found.append(f"train_data.options.features={write_features(folder / 'heard', heard)}")
    sets = {
        "dataset.0": ("librispeech-pc/test", pc),
        "dataset.1": ("seed-tts-eval/en", seed),
        "dev": ("librispeech/dev-clean", pc),
    }
    for where, (label, root) in sets.items():
        utterances = list(itertools.chain(open_set(label, root).utterances()))
        features = write_features(folder / f"heard-{where}", heard_in_set(utterances))
        found.append(f"{where}.options.features={features}")
    return found
