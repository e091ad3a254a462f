"""Chatterbox in an environment of its own: its ``s3gen`` files, imported, sample its mels here; a student's export plays there.

It asks for another torch than ours, and gets it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from environments import Environment
from flows import GUIDANCE, INPUTS, MANY, NOTICED, SMALL, TOLERANCE, apart, command, imported, ours
from safetensors import safe_open
from students import save_student
from torch import Tensor

from imfbench.artefact import load_artefact
from imfbench.flow.grids import sway, uniform

pytestmark = [pytest.mark.slow, pytest.mark.timeout(5400)]

Answer = Callable[..., dict[str, Tensor]]
SCRIPT = "chatterbox_reference.py"
STEPS = [1, 2, 3, 10]
SET, HEARD = {"attention_head_dim": 16}, 10


def asked(meanflow: bool) -> dict[str, Any]:
    return {"seed": 5, "whole": False, "meanflow": meanflow, "steps": STEPS, "size": SMALL, **INPUTS}


@pytest.fixture(scope="module")
def there(original: Callable[[str], Environment]) -> Environment:
    return original("chatterbox-tts")


@pytest.fixture(scope="module")
def small(there: Environment, answer: Answer, tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], Any]:
    """``small(meanflow)``: the folder of a flow of one block each that the package wrote, and what it makes of it."""
    made: dict[bool, Any] = {}

    def of(meanflow: bool) -> Any:
        if meanflow not in made:
            folder = tmp_path_factory.mktemp("chatterbox")
            made[meanflow] = folder, answer(there, SCRIPT, folder, do="teach", **asked(meanflow))
        return made[meanflow]

    return of


def test_ours_is_not_there_and_the_package_is_whole(there: Environment) -> None:
    assert "imfbench" not in there.versions
    assert there.versions["chatterbox-tts"] == "0.1.7"
    told = ("torch", "transformers", "numpy", "diffusers", "conformer", "safetensors", "s3tokenizer", "omegaconf")
    print({name: there.versions[name] for name in told})


@pytest.mark.parametrize("meanflow", [False, True])
def test_a_file_of_the_package_imported_makes_its_mels(
    meanflow: bool, small: Callable[[bool], Any], tmp_path: Path
) -> None:
    """A teacher guided on the cosine grid, or the decoder of two times unguided on uniform steps."""
    folder, answered = small(meanflow)
    network = imported(folder / "s3gen.safetensors", "chatterbox", tmp_path / "imported", **SET)
    assert network.has_second_time == meanflow
    for steps in STEPS:
        grid, w = (uniform(steps), 0.0) if meanflow else (sway(steps, -1.0), GUIDANCE)
        found = ours(network, asked(meanflow), answered, grid, answered[f"noise {steps}"], w)[HEARD:]
        assert apart(f"chatterbox, meanflow {meanflow}, {steps}", found, answered[str(steps)]) < TOLERANCE
    other = sway(3, -1.0) if meanflow else uniform(3)
    found = ours(network, asked(meanflow), answered, other, answered["noise 3"], 0.0 if meanflow else GUIDANCE)[HEARD:]
    assert (found - answered["3"]).abs().max() > NOTICED, "another grid would be noticed"


def test_an_exported_student_plays_there_without_a_patch(
    small: Callable[[bool], Any], there: Environment, answer: Answer, tmp_path: Path
) -> None:
    folder, _ = small(False)
    teacher = imported(folder / "s3gen.safetensors", "chatterbox", tmp_path / "teacher", **SET)
    student, out = save_student(tmp_path / "student", teacher), tmp_path / "out"
    told = command("export", student, "--format", "chatterbox", "--grid", "uniform", "--out", out)
    assert "S3Gen(meanflow=True)" in told
    shutil.copy(folder / "teach.safetensors", tmp_path)
    export = str(out / "s3gen_meanflow.safetensors")
    played = answer(there, SCRIPT, tmp_path, do="play", export=export, **asked(True))
    network = load_artefact(student)[0].network
    for steps in (1, 2, 3):
        found = ours(network, asked(True), played, uniform(steps), played[f"noise {steps}"], 0.0)[HEARD:]
        assert apart(f"chatterbox student, {steps}", found, played[str(steps)]) < TOLERANCE
    assert (played["1"] - played["2"]).abs().max() > NOTICED


def test_files_of_the_published_size_go_in_and_out_whole(there: Environment, answer: Answer, tmp_path: Path) -> None:
    """Tokenizer, speaker encoder and vocoder are taken over, and what is exported loads with ``strict=True``; 1 GB a file."""
    question: dict[str, Any] = {"seed": 6, "whole": True, "meanflow": True, "steps": [1, 2], **MANY}
    try:
        answered = answer(there, SCRIPT, tmp_path, do="teach", **question)
        published = tmp_path / "s3gen.safetensors"
        network = imported(published, "chatterbox", tmp_path / "student")
        for steps in (1, 2):
            found = ours(network, question, answered, uniform(steps), answered[f"noise {steps}"], 0.0)[40:]
            assert apart(f"chatterbox of the published size, {steps}", found, answered[str(steps)]) < TOLERANCE
        out = tmp_path / "out"
        given = ("--format", "chatterbox", "--grid", "uniform", "--beside", published)
        command("export", tmp_path / "student", *given, "--out", out)
        export = out / "s3gen_meanflow.safetensors"
        with safe_open(published, "pt") as given, safe_open(export, "pt") as made:
            assert set(given.keys()) == set(made.keys())
        played = answer(there, SCRIPT, tmp_path, do="play", export=str(export), **question)
        for steps in (1, 2):
            torch.testing.assert_close(played[str(steps)], answered[str(steps)], atol=0, rtol=0)
    finally:
        shutil.rmtree(tmp_path, ignore_errors=True)
