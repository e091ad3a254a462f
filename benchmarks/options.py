"""Settings of a method against its first one: several training seeds, and the distance to the teacher's own speech.

    .venv/bin/python benchmarks/options.py options_intmeanflow --out docs/results/options
    .venv/bin/python benchmarks/options.py options_meanflow --out docs/results/options

The experiment's systems are trained as ``imfbench train`` trains them (in its run folder; a second call goes on). Each network
then samples the test set from the noise that the teacher starts from, and its distance is the mean absolute difference of the two
log-mels. That needs neither vocoder nor recogniser: good enough to choose among many settings, no statement about speech.

Systems with a budget in minutes are compared with each other, and so are those with steps; the first of each is the plain one. A
difference is tested with utterances and training seeds both drawn by chance (``imfbench.claims.means.mean_of``), and Holm's
correction runs over all that are compared with one plain system.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from imfbench.claims.means import Mean, mean_of
from imfbench.config import load
from imfbench.devices import describe
from imfbench.experiment import default_folder, run
from imfbench.flow.grids import make_grid
from imfbench.metrics.stats import MINIMUM_TRAINING_SEEDS, holm
from imfbench.pipeline.context import Context
from imfbench.pipeline.search import sampled_mels, teacher_mels
from imfbench.pipeline.teacher_distance import mel_distance
from imfbench.store import RunFolder, read_json

ALPHA = 0.05


def main(words: Sequence[str] | None = None) -> pd.DataFrame:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", help="one that ships, or a YAML file; it needs a teacher")
    parser.add_argument("--nfe", default="1,2", help="of the students, on the uniform grid")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of imfbench run")
    parser.add_argument("--run", type=Path, help="run folder; runs/NAME without it")
    parser.add_argument("--out", type=Path, help="folder of NAME.csv and NAME.md")
    arguments = parser.parse_args(words)
    config = load(arguments.experiment, tuple(arguments.set))
    folder = arguments.run or default_folder(config)
    run(config, folder, ("train",))
    context = Context(config, RunFolder(folder))  # as recorded: minutes have become steps
    rows = measured(context, [int(nfe) for nfe in arguments.nfe.split(",")])
    text = as_markdown(rows, context)
    print(text)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        rows.to_csv(arguments.out / f"{config.name}.csv", index=False)
        (arguments.out / f"{config.name}.md").write_text(text + "\n", encoding="utf-8")
    return rows


def measured(context: Context, nfes: list[int]) -> pd.DataFrame:
    """A row for each trained network, step count and utterance; a training that gave no network has one without a distance."""
    selection = context.config.dataset[0]
    utterances = context.utterances(selection)
    conditions = {u.id: context.dataset(selection).condition(u) for u in utterances}
    if context.config.teacher is None:
        raise SystemExit(f"{context.config.name} has no teacher to be compared with")
    references = teacher_mels(context, utterances, conditions)
    rows: list[dict[str, Any]] = []
    for artefact in context.plan.artefacts.values():
        if artefact.system is None:
            continue
        status = read_json(context.folder.artefact(artefact.name) / "status.json") or {"status": "not trained"}
        system = context.config.systems[artefact.system]
        about = {"system": system.label, "budget": "steps" if system.timed_minutes is None else "time"}
        about |= {key: status.get(key) for key in ("seed", "status", "steps", "seconds_per_step")}
        if status["status"] != "ok":
            rows.append(about)
            continue
        student, _ = context.load(artefact.name)
        for nfe in nfes:
            found = sampled_mels(context, student, utterances, conditions, make_grid("uniform", nfe), "euler")
            rows += [
                {**about, "nfe": nfe, "id": id, "distance": mel_distance(found[id], references[id])} for id in found
            ]
    return pd.DataFrame(rows)


def differences(rows: pd.DataFrame, system: str, plain: str, nfe: int) -> Mean | None:
    """The mean of distance − the plain system's, over the seeds that both have; None if there is none."""
    at = rows[rows["nfe"] == nfe].pivot_table(index="seed", columns=["system", "id"], values="distance")
    if system not in at or plain not in at:
        return None
    found = (at[system] - at[plain]).dropna()
    return mean_of(found.to_numpy()) if len(found) else None


def as_markdown(rows: pd.DataFrame, context: Context) -> str:
    """A table for each budget."""
    config, hardware = context.config, describe(context.device)
    used = context.utterances(config.dataset[0])
    lines = [
        f"{config.name}: {len(used)} utterances, distance to the teacher's own mel "
        f"({', '.join(str(value) for value in hardware.values() if value)}). "
        "Brackets: 95 % intervals of the difference to the first row, over training seeds and utterances; bold: different after "
        f"Holm's correction (p < {ALPHA}); † fewer than {MINIMUM_TRAINING_SEEDS} seeds, hence about these networks alone."
    ]
    for budget, of_budget in rows.groupby("budget", sort=False):
        nfes = sorted(int(nfe) for nfe in of_budget["nfe"].dropna().unique())
        systems = list(dict.fromkeys(of_budget["system"]))
        lines += ["", f"Equal {budget}:", "", "| System | Seeds | Steps | s a step | " + " | ".join(
            f"{nfe} NFE | against {systems[0]}" for nfe in nfes) + " |", "| --- " * (4 + 2 * len(nfes)) + "|"]  # fmt: skip
        tests = {(s, n): differences(of_budget, s, systems[0], n) for s in systems[1:] for n in nfes}
        ps = {key: min(1.0, 2 * min(m.above(0), m.below(0))) for key, m in tests.items() if m is not None}
        corrected = dict(zip(ps, holm(list(ps.values())), strict=True)) if ps else {}
        for system in systems:
            own = of_budget[of_budget["system"] == system]
            seeds = own.drop_duplicates("seed")
            lost = int((seeds["status"] != "ok").sum())
            told = f"{len(seeds) - lost}{f' ({lost} without a network)' if lost else ''}"
            cells = [system, told, f"{seeds['steps'].mean():.0f}", f"{seeds['seconds_per_step'].mean():.2f}"]
            for nfe in nfes:
                distance, test = own[own["nfe"] == nfe]["distance"].mean(), tests.get((system, nfe))
                cells += ["–" if pd.isna(distance) else f"{distance:.4f}", "–"]
                if test is not None:
                    low, high = test.interval
                    text = f"{test.value:+.4f} [{low:+.4f}, {high:+.4f}]"
                    few = "†" if test.seeds < MINIMUM_TRAINING_SEEDS else ""
                    cells[-1] = (f"**{text}**" if corrected[system, nfe] < ALPHA else text) + few
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
