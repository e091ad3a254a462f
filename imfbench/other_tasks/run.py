"""A teacher and every method that can be trained, on a task that is no speech: trained, sampled, measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from imfbench.artefact import load_artefact
from imfbench.building import build_method
from imfbench.config_file import ConfigError
from imfbench.flow.counting import count_network, declared_counts
from imfbench.flow.grids import make_grid
from imfbench.flow.solvers import SOLVERS
from imfbench.method import Method
from imfbench.other_tasks.tasks import Task
from imfbench.registry import METHODS
from imfbench.sampling import sampling_guidance
from imfbench.store import read_json, write_json
from imfbench.training import TrainResult, train

CPU = torch.device("cpu")
NFES = (1, 2, 4, 32)
SETTINGS = "settings.json"
Progress = Callable[[str, int, int], None]


def students() -> list[str]:
    """Names of the methods that learn from a teacher, those of plug-ins too."""
    found = []
    for name in METHODS.names():
        needs = METHODS.get(name).needs
        if needs.training and needs.teacher:
            found.append(name)
    return found


def with_guidance(name: str, w: float) -> dict[str, Any]:
    """A method's configuration: its defaults, but for the guidance that it is to bake in."""
    known = METHODS.get(name).Config.model_fields
    return {"guidance": w} if "guidance" in known else {"omega": 1 + w} if "omega" in known else {}


def trained(
    task: Task, name: str, teacher: Method | None, seed: int, folder: Path, progress: Progress | None = None
) -> tuple[Method, TrainResult]:
    """A method of the registry, trained on a task by the training loop of speech; at once if it was trained before.

    Args:
        task: What to learn.
        name: Of the method.
        teacher: Of a student.
        seed: Of weights, data and all draws of the training.
        folder: Gets the artefact.
        progress: Called after each step with (name, steps done, steps in all).

    Raises:
        ConfigError: The folder holds a training with other settings.
    """
    cls, of_teacher = METHODS.get(name), task.teacher.model_copy(update={"seed": seed})
    settings = task.student.model_copy(update={"seed": seed}) if cls.needs.teacher else of_teacher
    config = with_guidance(name, task.guidance)
    told = {"task": task.name, "method": name, "config": cls.Config(**config).model_dump(mode="json")}
    told |= {"training": settings.model_dump(mode="json"), "network": task.network}
    if cls.needs.teacher:
        told |= {"teacher": of_teacher.model_dump(mode="json")}  # another one teaches something else
    present = read_json(folder / SETTINGS)
    if present is not None and present != told:
        raise ConfigError(
            f"{folder} holds a training with other settings; give this run another --out, or remove that folder"
        )
    write_json(folder / SETTINGS, told)
    method = build_method(name, config, teacher, backbone_config=task.network, seed=seed)
    step = None if progress is None else lambda done, steps, _: progress(name, done, steps)
    result = train(method, name, task, settings, folder, CPU, progress=step)
    if result.status == "ok":
        method = load_artefact(folder)[0]
    return method, result


@torch.no_grad()
def sample(task: Task, method: Method, content: Tensor, nfe: int, seed: int) -> Tensor:
    """Samples for ``content`` (rows,) by uniform Euler steps, (rows, frames, bands); the same noise for every method.

    Raises:
        CountMismatchError: The network was not run as often as declared.
    """
    z = torch.randn(len(content), *task.shape, generator=torch.Generator().manual_seed(1_000 + seed))
    grid, condition = make_grid("uniform", nfe), task.condition(content)
    with count_network(method.network) as count:
        z = SOLVERS["euler"](count.wrap(lambda z, t, r: method.velocity(z, t, r, condition)), z, grid)
    count.check(declared_counts(grid, "euler", sampling_guidance(method)), len(content))
    return z


def measured(
    task: Task, seeds: Iterable[int], names: list[str], folder: Path, progress: Progress | None = None
) -> tuple[pd.DataFrame, dict[str, Tensor]]:
    """Figures of the teacher and of methods at every NFE, for each seed (a teacher, students and noise of its own).

    Returns:
        A row for each seed, method and NFE: ``distance``, further figures, and the training's ``seconds_per_step``. And samples
        of the first seed for pictures, by "method at NFE".
    """
    _, content = task.held_out()
    rows: list[dict[str, Any]] = []
    pictures: dict[str, Tensor] = {}
    for seed in seeds:
        teacher: Method | None = None
        for name in ["teacher", *names]:
            method, result = trained(task, name, teacher, seed, folder / task.name / f"seed{seed}" / name, progress)
            if name == "teacher":
                teacher = method
            for nfe in NFES:
                row = {"task": task.name, "seed": seed, "method": name, "nfe": nfe, "status": result.status}
                row |= {"steps": result.steps, "seconds_per_step": result.seconds_per_step}
                if result.status == "ok":
                    samples = sample(task, method, content, nfe, seed)
                    figures = task.figures(samples)
                    row |= {"distance": figures[task.distance], **figures}
                    pictures.setdefault(f"{name} at {nfe}", samples)
                rows.append(row)
        # What another draw of the data comes to: no method can be expected to do better.
        other = _another_draw(task, content, seed)
        figures = task.figures(other)
        rows.append({"task": task.name, "seed": seed, "method": "data", "status": "ok", "distance": figures[task.distance],
                     **figures})  # fmt: skip
        pictures.setdefault("data", other)
    return pd.DataFrame(rows), pictures


def _another_draw(task: Task, content: Tensor, seed: int) -> Tensor:
    """Training rows with the contents ``content``."""
    x1, found = task.draw(20 * len(content), torch.Generator().manual_seed(2_000 + seed))
    chosen = torch.empty(len(content), dtype=torch.long)
    for value in content.unique():
        wanted = content == value
        chosen[wanted] = (found == value).nonzero()[: int(wanted.sum()), 0]
    return x1[chosen]
