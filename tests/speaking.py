"""What the tests of ``imfbench synthesize --text`` share: a prompt, networks that say noise, the command and its refusal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner, Result

from imfbench import speak as speak_module
from imfbench.artefact import save_artefact
from imfbench.building import build_method
from imfbench.cli import main
from imfbench.datasets.demo.corpus import DATA
from imfbench.features.audio import load_audio
from imfbench.features.griffin_lim import GriffinLim

PROMPT_TEXT = "The morning air was crisp, and the streets were quiet."
AUDIO, RATE = load_audio(DATA / "test" / "prompts" / "prompt-af_sarah-000.flac")
PAUSE = np.zeros(3 * RATE, np.float32)
SHAPE = {"dim": 32, "depth": 1, "alignment_depth": 1, "heads": 2, "content_layers": 1}


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A teacher and a student as trainings leave them; what they say is noise."""
    teacher = build_method("teacher", {"guidance": 2.0}, backbone="aligning-dit", backbone_config=SHAPE)
    generator = torch.Generator().manual_seed(0)
    for weight in teacher.network.parameters():  # one that was never trained has a velocity of 0
        weight.data += 0.05 * torch.randn(weight.shape, generator=generator)
    folders = tmp_path_factory.mktemp("a") / "own", tmp_path_factory.mktemp("b") / "own"
    card = {"task": "text2mel", "train_data": {"name": "demo"}}
    save_artefact(folders[0], "teacher", teacher, card)
    save_artefact(folders[1], "intmeanflow", build_method("intmeanflow", teacher=teacher), card)
    return folders


@pytest.fixture
def quick_vocoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speak_module, "VOCODERS", SimpleNamespace(get=lambda _: lambda: GriffinLim(2)))


@pytest.fixture
def recording(tmp_path: Path) -> Callable[..., Path]:
    def _recording(audio: np.ndarray = AUDIO, rate: int = RATE, name: str = "me.wav", subtype: str = "PCM_16") -> Path:
        soundfile.write(tmp_path / name, audio, rate, subtype=subtype)
        return tmp_path / name

    return _recording


def say(prompt: Path, method: object, out: Path, *more: str, text: str = "Good evening.") -> Result:
    """``imfbench synthesize --text``, with what it takes to be quick unless ``more`` says otherwise."""
    arguments = ["synthesize", "--text", text, "--prompt", str(prompt), "--method", str(method), "--out", str(out)]
    result = CliRunner().invoke(main, [*arguments, "--device", "cpu", *more], env={"COLUMNS": "300"})
    assert "Traceback" not in result.output
    return result


def refused(result: Result) -> str:
    """The one paragraph of a request that cannot be met: exit code 2."""
    assert result.exit_code == 2, (result.output, result.exception)
    told = result.output.strip()
    assert told.startswith("imfbench: ")
    assert len(told.splitlines()) == 1
    return told
