"""F5-TTS in an environment of its own: its checkpoint, imported, samples its mels here; a student's export plays there.

``pytest -m slow -s tests/isolated`` prints the differences and the versions.
"""

from __future__ import annotations

import importlib.resources
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from environments import Environment
from students import save_student
from torch import Tensor

pytest.importorskip("f5_tts", reason="needs `pip install 'imfbench[f5]'`")
pytest.importorskip("torchdiffeq", reason="needs `pip install 'imfbench[f5]'`")

from imfbench.artefact import load_artefact
from imfbench.backbones.f5_sampling import condition_of, whole
from imfbench.cli import main
from imfbench.features import f5_text
from imfbench.features.mel import VOCOS
from imfbench.flow.grids import EPSS_POINTS, make_grid
from imfbench.flow.guidance import guided_velocity
from imfbench.flow.solvers import euler
from imfbench.method import encoded

pytestmark = [pytest.mark.slow, pytest.mark.timeout(5400)]

SMALL = {"dim": 64, "depth": 2, "heads": 2, "text_dim": 16, "conv_layers": 2}
ALL = [(steps, w, sway) for steps in (1, 2, 3, 16, 32) for w in (0.0, 2.0) for sway in (-1.0, None)]
GRIDS = [[0.0, 1.0], [0.0, 0.65, 1.0], [0.0, 0.2, 0.7, 1.0]]
PROMPT_TEXT, TEXT, FRAMES = "The morning air.", "Good evening; 你好, world.", 120
TOLERANCE = 1e-4
"""Of mels whose values are of size 1. The network multiplies times by 1000, and upstream's grid is rounded to float32."""


@dataclass
class Taught:
    """A checkpoint that the package wrote, and what the package samples of it."""

    folder: Path
    model: str
    size: dict[str, int]
    there: Environment
    asked: dict[str, Any]
    answered: dict[str, Tensor]

    def imported(self, out: Path) -> Any:
        """Our network, by our command."""
        sizes = [word for name, value in self.size.items() for word in ("--set", f"{name}={value}")]
        command = ["import", self.folder / "model_7.safetensors", "--format", "f5", "--model", self.model]
        command += ["--vocab", self.folder / "vocab.txt", "--out", out, *sizes]
        result = CliRunner().invoke(main, list(map(str, command)))
        assert result.exit_code == 0, result.output
        return load_artefact(out)[0].network

    def ours(self, network: Any, grid: Any, w: float) -> Tensor:
        """Our mel of the same text, prompt and noise."""
        texts = f5_text.characters([f5_text.ended(PROMPT_TEXT) + TEXT])
        text = f5_text.numbers(texts, f5_text.read_vocabulary(self.folder / "vocab.txt"))
        condition = condition_of([self.answered["prompt"]], text, [FRAMES])
        noise = torch.randn(FRAMES, 100, generator=torch.Generator().manual_seed(5))[None]
        with torch.no_grad():
            known = encoded(network, condition)
            z = euler(
                lambda z, t, r: guided_velocity(network, z, t, known, w, r), noise, torch.as_tensor(grid).double()
            )
        return whole(z, condition)[0]


def taught(
    folder: Path, there: Environment, answer: Callable[..., dict[str, Tensor]], model: str, size: dict[str, int],
    vocabulary: str, samplings: list[Any],
) -> Taught:  # fmt: skip
    (folder / "vocab.txt").write_text(vocabulary, encoding="utf-8")
    asked = {
        "model": model, "size": size, "seed": 3, "samples": 8000, "frames": FRAMES, "prompt_text": f5_text.ended(PROMPT_TEXT),
        "text": TEXT,
    }  # fmt: skip
    answered = answer(there, "f5_reference.py", folder, do="teach", samplings=samplings, **asked)
    return Taught(folder, model, size, there, asked, answered)


@pytest.fixture(scope="module")
def there(original: Callable[[str], Environment]) -> Environment:
    return original("f5-tts")


@pytest.fixture(scope="module", params=["F5TTS_v1_Base", "F5TTS_Base"])
def small(
    request: pytest.FixtureRequest, there: Environment, answer: Callable[..., dict[str, Tensor]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Taught:  # fmt: skip
    """A network of two blocks that knows letters, signs and two syllables of pinyin."""
    vocabulary = "".join(f"{c}\n" for c in (*" abcdefghijklmnopqrstuvwxyzGTw.,!", "ni3", "hao3"))
    vocabulary = "".join(dict.fromkeys(vocabulary.splitlines(keepends=True)))
    return taught(tmp_path_factory.mktemp("f5"), there, answer, request.param, SMALL, vocabulary, ALL)


def grid_as_upstream(steps: int, sway: float | None) -> Tensor:
    if sway is not None:
        return make_grid("epss", steps)
    return make_grid([p / 32 for p in EPSS_POINTS[steps]] if steps in EPSS_POINTS else "uniform", steps)


def agreement(case: Taught, network: Any, samplings: list[Any]) -> dict[str, float]:
    """Sampling → the largest difference from the package's mel."""
    apart = {}
    for steps, w, sway in samplings:
        wanted = case.answered[f"{steps} {w} {sway}"]
        found = case.ours(network, grid_as_upstream(steps, sway), w)
        assert found.shape == wanted.shape == (FRAMES, 100)
        assert 0.5 < wanted.std() < 50
        apart[f"{steps} {w} {sway}"] = float((found - wanted).abs().max())
        print(f"{case.model} {steps} {w} {sway}: {apart[f'{steps} {w} {sway}']:.1e} of {float(wanted.std()):.2f}")
    return apart


def test_ours_is_not_there_and_the_package_is_whole(there: Environment) -> None:
    assert "imfbench" not in there.versions
    assert there.versions["f5-tts"] == "1.1.22"
    told = {
        "torch",
        "transformers",
        "x-transformers",
        "torchdiffeq",
        "ema-pytorch",
        "numpy",
        "wandb",
        "datasets",
        "hydra-core",
    }
    assert told <= there.versions.keys()
    print({name: there.versions[name] for name in sorted(told)})


def test_a_checkpoint_of_the_package_imported_makes_its_mels(small: Taught, tmp_path: Path) -> None:
    network = small.imported(tmp_path / "teacher")
    apart = agreement(small, network, ALL)
    assert max(apart.values()) < TOLERANCE
    other = {name: value for name, value in small.answered.items() if name[0].isdigit()}
    assert (other["16 2.0 -1.0"] - small.ours(network, make_grid("sway", 32), 2.0)).abs().max() > 50 * TOLERANCE
    assert (other["16 2.0 -1.0"] - small.ours(network, make_grid("epss", 16), 1.9)).abs().max() > 50 * TOLERANCE


def test_under_the_other_layouts_name_it_makes_other_mels(small: Taught, tmp_path: Path) -> None:
    """The two have the same tensors, so that only the mel can tell that settings reach the network."""
    wrong = Taught(**{**vars(small), "model": "F5TTS_Base" if "v1" in small.model else "F5TTS_v1_Base"})
    found = small.ours(wrong.imported(tmp_path / "teacher"), make_grid("epss", 16), 2.0)
    assert (found - small.answered["16 2.0 -1.0"]).abs().max() > 50 * TOLERANCE


def test_our_mel_of_a_wave_is_the_packages(small: Taught) -> None:
    found = VOCOS.normalise(VOCOS.log_mel(small.answered["wave"]))
    assert found.shape == small.answered["prompt"].shape
    assert (found - small.answered["prompt"]).abs().max() < TOLERANCE


def test_an_exported_student_plays_there(
    small: Taught, tmp_path: Path, answer: Callable[..., dict[str, Tensor]]
) -> None:
    network = small.imported(tmp_path / "teacher")
    student = save_student(tmp_path / "student", network)
    shutil.copy(small.folder / "vocab.txt", student)
    result = CliRunner().invoke(main, ["export", str(student), "--format", "f5", "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "few_step" in result.output
    given = {"export": str(tmp_path / "out"), "patch": "imfbench_f5.py", "grids": GRIDS}
    played = answer(small.there, "f5_reference.py", small.folder, do="play", **small.asked, **given)
    loaded = load_artefact(student)[0].network
    for grid in GRIDS:
        steps = len(grid) - 1
        apart = float((small.ours(loaded, grid, 0.0) - played[str(steps)]).abs().max())
        print(f"{small.model} student, {steps}: {apart:.1e} of {float(played[str(steps)].std()):.2f}")
        assert apart < TOLERANCE
    assert (played["1"] - played["2"]).abs().max() > 50 * TOLERANCE
    assert (small.ours(loaded, [0.0, 0.5, 1.0], 0.0) - played["2"]).abs().max() > 50 * TOLERANCE


def test_an_exported_teacher_plays_there_without_a_patch(
    small: Taught, tmp_path: Path, answer: Callable[..., dict[str, Tensor]]
) -> None:
    small.imported(tmp_path / "teacher")
    out = tmp_path / "out"
    result = CliRunner().invoke(main, ["export", str(tmp_path / "teacher"), "--format", "f5", "--out", str(out)])
    assert result.exit_code == 0, result.output
    given = {"export": str(out), "patch": None, "steps": [3, 16]}
    played = answer(small.there, "f5_reference.py", small.folder, do="play", **small.asked, **given)
    for steps in given["steps"]:
        torch.testing.assert_close(played[str(steps)], small.answered[f"{steps} 2.0 -1.0"], atol=0, rtol=0)


def test_a_checkpoint_of_the_published_size_makes_its_mels(
    there: Environment, answer: Callable[..., dict[str, Tensor]], tmp_path: Path
) -> None:
    """337 M parameters and the package's own vocabulary; the files, 2.7 GB, are removed at once."""
    vocabulary = importlib.resources.files("f5_tts").joinpath("infer/examples/vocab.txt")
    samplings = [(1, 2.0, -1.0), (2, 0.0, -1.0), (3, 2.0, -1.0), (16, 2.0, -1.0)]
    try:
        case = taught(tmp_path, there, answer, "F5TTS_v1_Base", {}, vocabulary.read_text(encoding="utf-8"), samplings)
        network = case.imported(tmp_path / "teacher")
        assert round(sum(p.numel() for p in network.parameters()) / 1e6, 1) == 337.1
        assert max(agreement(case, network, samplings).values()) < TOLERANCE
    finally:
        shutil.rmtree(tmp_path, ignore_errors=True)
