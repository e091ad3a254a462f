"""What the time embedding's scale does to MeanFlow: its derivative in time, its gradients, and where it ends.

    .venv/bin/python benchmarks/time_scale.py --out docs/results/options/time_scale.csv

F5-TTS, Matcha and CosyVoice multiply t by 1000 before its sinusoids, which makes ∂u/∂t enormous: of no consequence where a
teacher is integrated, and a likely cause of the exploding JVPs that are told of MeanFlow on speech. Teacher and student of the
task `points` (two moons in a plane, as `imfbench other-tasks` has them) are trained with other scales of the time embedding, all
else equal; the student by MeanFlow, and by IntMeanFlow, which knows no derivative.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from imfbench.devices import describe
from imfbench.other_tasks.run import CPU, sample, trained
from imfbench.other_tasks.tasks import task_of

FIRST = 0.2
"""Share of the training whose gradients are left out: every student begins with large ones."""


def main(words: Sequence[str] | None = None) -> pd.DataFrame:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scales", default="30,300,1000")
    parser.add_argument("--methods", default="meanflow,intmeanflow")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="of each training; the task's own without it")
    parser.add_argument("--run", type=Path, default=Path("runs/time_scale"), help="folder of the trainings")
    parser.add_argument("--out", type=Path, help="CSV file")
    arguments = parser.parse_args(words)
    task = task_of("points")
    task = replace(task, student=task.student.model_copy(update={"log_every": 5}))
    if arguments.steps:
        less = {"steps": arguments.steps}
        task = replace(task, teacher=task.teacher.model_copy(update=less), student=task.student.model_copy(update=less))
    rows: list[dict[str, Any]] = []
    for scale in map(float, arguments.scales.split(",")):
        scaled = replace(task, network={**task.network, "time_scale": scale})
        for seed in range(arguments.seeds):
            folder = arguments.run / f"{scale:g}" / f"seed{seed}"
            teacher, _ = trained(scaled, "teacher", None, seed, folder / "teacher")
            for name in arguments.methods.split(","):
                student, result = trained(scaled, name, teacher, seed, folder / name)
                log = pd.read_csv(folder / name / "log.csv")
                late = log[log["step"] > FIRST * result.steps]
                row = {"scale": scale, "method": name, "seed": seed, "status": result.status, "steps": result.steps}
                row |= {"grad_norm_median": late["grad_norm"].median(), "grad_norm_largest": late["grad_norm"].max()}
                row["tangent_rms_median"] = late["tangent_rms"].median() if "tangent_rms" in late else None
                if result.status == "ok":
                    _, content = scaled.held_out()
                    row["distance_1_nfe"] = scaled.figures(sample(scaled, student, content, 1, seed))[scaled.distance]
                    row["teacher_distance_32_nfe"] = scaled.figures(sample(scaled, teacher, content, 32, seed))[
                        scaled.distance
                    ]
                rows.append({**row, **describe(CPU)})
                print(
                    {key: f"{value:.4g}" if isinstance(value, float) else value for key, value in row.items()},
                    flush=True,
                )
    found = pd.DataFrame(rows)
    print(
        found.groupby(["method", "scale"]).mean(numeric_only=True).drop(columns="seed").to_string(float_format="%.4g")
    )
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        found.to_csv(arguments.out, index=False)
    return found


if __name__ == "__main__":
    main()
