"""CosyVoice 2 in an environment of its own: its ``flow.pt``, imported, samples its mels here; a student's export plays there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from environments import Environment
from flows import GRIDS, GUIDANCE, INPUTS, MANY, NOTICED, SMALL, TOLERANCE, apart, command, imported, ours
from students import save_student
from torch import Tensor

from imfbench.artefact import load_artefact
from imfbench.backbones.cosyvoice2_sampling import fixed_noise
from imfbench.flow.grids import sway

pytestmark = [pytest.mark.slow, pytest.mark.timeout(5400)]

Answer = Callable[..., dict[str, Tensor]]
SCRIPT, ASKED = "cosyvoice2_reference.py", {"seed": 3, "size": SMALL, **INPUTS}
STEPS = [1, 2, 3, 16, 32]
SET = {"attention_head_dim": 16, "chunk": 4}
FRAMES, HEARD = 28, 10


@pytest.fixture(scope="module")
def there(original: Callable[[str], Environment]) -> Environment:
    return original("cosyvoice2-eu")


@pytest.fixture(scope="module")
def small(
    there: Environment, answer: Answer, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Tensor]]:
    """The folder of a flow of one block each that the package wrote, and what it makes of it."""
    folder = tmp_path_factory.mktemp("cosyvoice2")
    return folder, answer(there, SCRIPT, folder, do="teach", steps=STEPS, **ASKED)


def test_ours_is_not_there_and_the_package_is_whole(there: Environment) -> None:
    assert "imfbench" not in there.versions
    assert there.versions["cosyvoice2-eu"] == "0.2.8"
    assert there.versions["transformers"] == "4.40.1", "what it asks for, and nothing newer"
    told = ("torch", "transformers", "numpy", "diffusers", "einops", "conformer", "lightning", "omegaconf")
    print({name: there.versions[name] for name in told})


@pytest.mark.parametrize("streaming", [False, True])
def test_a_flow_of_the_package_imported_makes_its_mels(
    streaming: bool, small: tuple[Path, dict[str, Tensor]], tmp_path: Path
) -> None:
    folder, answered = small
    network = imported(folder / "flow.pt", "cosyvoice2", tmp_path / "teacher", streaming=streaming, **SET)
    noise = fixed_noise(FRAMES)
    assert torch.equal(noise, answered["noise"][:FRAMES]), "its buffer"
    for steps in STEPS:
        found = ours(network, ASKED, answered, sway(steps, -1.0), noise, GUIDANCE)
        wanted = answered[f"{steps} {streaming}"]
        assert apart(f"cosyvoice2, streaming {streaming}, {steps}", found, wanted) < TOLERANCE
        assert (answered[f"{steps} {not streaming}"] - wanted).abs().max() > 1e-3, "the mask must matter"
    found = ours(network, ASKED, answered, sway(10, -1.0), noise, GUIDANCE)[HEARD:]
    assert apart(f"inference, streaming {streaming}", found, answered[f"inference {streaming}"]) < TOLERANCE
    for grid, w in ((sway(9, -1.0), GUIDANCE), (sway(10, -1.0), 0.6)):
        other = ours(network, ASKED, answered, grid, noise, w)[HEARD:]
        assert (other - answered[f"inference {streaming}"]).abs().max() > NOTICED


@pytest.mark.parametrize("streaming", [False, True])
def test_an_exported_student_plays_there(
    streaming: bool, small: tuple[Path, dict[str, Tensor]], there: Environment, answer: Answer, tmp_path: Path
) -> None:
    folder, answered = small
    teacher = imported(folder / "flow.pt", "cosyvoice2", tmp_path / "teacher", streaming=streaming, **SET)
    student, out = save_student(tmp_path / "student", teacher), tmp_path / "out"
    assert "few_step" in command("export", student, "--format", "cosyvoice2", "--out", out)
    played = play(there, answer, folder, out, streaming, patch="imfbench_cosyvoice2.py", grids=GRIDS)
    network, noise = load_artefact(student)[0].network, fixed_noise(FRAMES)
    for grid in GRIDS:
        steps = len(grid) - 1
        found = ours(network, ASKED, answered, grid, noise, 0.0)[HEARD:]
        assert apart(f"cosyvoice2 student, streaming {streaming}, {steps}", found, played[str(steps)]) < TOLERANCE
    assert (played["1"] - played["2"]).abs().max() > NOTICED
    other = ours(network, ASKED, answered, [0.0, 0.5, 1.0], noise, 0.0)[HEARD:]
    assert (other - played["2"]).abs().max() > NOTICED, "another grid would be noticed"


def test_an_exported_teacher_takes_the_place_of_the_flow_there(
    small: tuple[Path, dict[str, Tensor]], there: Environment, answer: Answer, tmp_path: Path
) -> None:
    folder, answered = small
    imported(folder / "flow.pt", "cosyvoice2", tmp_path / "teacher", **SET)
    command("export", tmp_path / "teacher", "--format", "cosyvoice2", "--out", tmp_path / "out")
    played = play(there, answer, folder, tmp_path / "out", False, patch=None)
    torch.testing.assert_close(played["inference"], answered["inference False"], atol=0, rtol=0)


def play(there: Environment, answer: Answer, folder: Path, out: Path, streaming: bool, **how: Any) -> dict[str, Tensor]:
    return answer(there, SCRIPT, folder, do="play", export=str(out), streaming=streaming, **how, **ASKED)


def test_a_flow_of_the_published_size_makes_its_mels(there: Environment, answer: Answer, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"seed": 4, "size": {}, **MANY}
    answered = answer(there, SCRIPT, tmp_path, do="teach", steps=[1, 2, 3, 16], **asked)
    network = imported(tmp_path / "flow.pt", "cosyvoice2", tmp_path / "teacher")
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 1) == 112.5
    noise = fixed_noise(100)
    for steps in (1, 2, 3, 16):
        found = ours(network, asked, answered, sway(steps, -1.0), noise, GUIDANCE)
        assert apart(f"cosyvoice2 of the published size, {steps}", found, answered[f"{steps} False"]) < TOLERANCE
    found = ours(network, asked, answered, sway(10, -1.0), noise, GUIDANCE)[40:]
    assert apart("its inference", found, answered["inference False"]) < TOLERANCE
