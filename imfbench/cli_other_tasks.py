"""``imfbench other-tasks``: the methods on points and digits."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imfbench.cli_base import UserError, user_errors

if TYPE_CHECKING:
    from imfbench.other_tasks.tasks import Task
    from imfbench.progress import Bar


@click.command("other-tasks")
@click.option("--task", "tasks", multiple=True, help="points or digits; may be repeated [both].")
@click.option("--method", "methods", multiple=True, help="One of the methods; may be repeated [all that learn].")
@click.option(
    "--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Teachers, students and noises."
)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="CPU threads.")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), default=Path("runs/other_tasks"), show_default=True
)
def other_tasks(tasks: tuple[str, ...], methods: tuple[str, ...], seeds: int, threads: int, out: Path) -> None:
    """Train every method on points in a plane and on small images: no speech, the same code.

    Writes table.md, figures.csv and picture.png. What is trained already is not trained again.

    \b
    Example:
      imfbench other-tasks
      imfbench other-tasks --task points --method reflow --seeds 1 --out runs/moons
    """
    with user_errors():
        from imfbench.other_tasks.run import students
        from imfbench.other_tasks.tasks import TASKS, OtherTaskError, task_of
        from imfbench.registry import nearest

        known = students()
        for name in methods:
            if name not in known:
                raise UserError(f"no method that learns from a teacher is called {name!r}: {nearest(name, known)}")
        try:
            chosen = [task_of(name) for name in dict.fromkeys(tasks or TASKS)]
            paths = _run(chosen, list(dict.fromkeys(methods)) or known, seeds, threads, out)
        except OtherTaskError as error:
            raise UserError(str(error)) from None
    click.echo((out / "table.md").read_text(encoding="utf-8"))
    click.echo(f"written: {', '.join(map(str, paths))}")


def _run(tasks: list[Task], methods: list[str], seeds: int, threads: int, out: Path) -> list[Path]:
    import torch

    from imfbench.devices import describe
    from imfbench.other_tasks import report
    from imfbench.other_tasks.run import measured
    from imfbench.progress import Reporting

    torch.set_num_threads(threads)
    reporting, found = Reporting(), {}
    reporting.set_up_logging()
    for task in tasks:
        task.held_out()  # what is not installed is said before anything is trained
    for task in tasks:
        steps = (task.teacher.steps or 0) + len(methods) * (task.student.steps or 0)
        with reporting.bar(task.name, seeds * steps) as bar:

            def step(name: str, done: int, total: int, bar: Bar = bar) -> None:
                bar.advance(1, f"{name} {done} of {total}")

            frame, samples = measured(task, range(seeds), methods, out, step)
        found[task.name] = (task, frame, samples)
    day = datetime.now(timezone.utc).date().isoformat()
    about = f"{day}, {threads} thread{'s' * (threads > 1)} of {describe(torch.device('cpu'))['cpu']}, torch {torch.__version__}."
    return report.write(found, out, about)
