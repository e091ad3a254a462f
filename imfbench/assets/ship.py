"""Turn a trained artefact into one that ships: ``python -m imfbench.assets.ship FOLDER NAME --run RUN --note "…"``.

Writes ``assets/NAME/``: the weights in fp16, ``card.json``, ``log.csv`` (the loss curve, thinned) and ``CARD.md`` with the scores
of a run that sampled exactly these weights.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pandas as pd

from imfbench.artefact import ASSETS, load_artefact, save_artefact
from imfbench.training_log import thin

SCORES = [
    "dataset",
    "system",
    "nfe",
    "guidance",
    "grid",
    "n_scored",
    "wer",
    "wer_low",
    "wer_high",
    "sim",
    "mos_distillmos",
    "rtf_network",
]
LARGEST = 30_000_000


def ship(folder: Path, name: str, note: str, hours: float | None) -> Path:
    """Write ``assets/<name>`` without scores; returns the folder."""
    method, card = load_artefact(folder)
    target = ASSETS / name
    card.pop("sha256")
    training: dict[str, Any] = card["training"]
    card |= {"note": note, "precision": "fp16", "hours": hours if hours is not None else training["seconds"] / 3600}
    save_artefact(target, card.get("method", "teacher"), method, card, half=True)
    size = (target / "model.safetensors").stat().st_size
    if size > LARGEST:
        raise ValueError(f"{target} has {size} bytes of weights, more than {LARGEST}")
    thin(pd.read_csv(folder / "log.csv")).to_csv(target / "log.csv", index=False)
    return target


def write_card(target: Path, run: Path | None) -> None:
    """CARD.md from card.json, log.csv and, if given, the leaderboard of ``run``."""
    card = json.loads((target / "card.json").read_text(encoding="utf-8"))
    training, log = card["training"], pd.read_csv(target / "log.csv")
    lines = [
        f"# {target.name}: an embedded {'student' if card.get('teacher_sha256') else 'teacher'}",
        "",
        card["note"],
        "",
        f"- Method `{card.get('method', 'teacher')}`, {training['parameters'] / 1e6:.1f} M parameters, sha256 `{card['sha256']}`",
        *([f"- Teacher: weights of sha256 `{card['teacher_sha256']}`"] if card.get("teacher_sha256") else []),
        f"- Method's settings: {json.dumps(card.get('method_config', {}))}",
        f"- Data: {json.dumps(card.get('train_data'))}",
        f"- {training['steps']} steps of {card['config']['frames_per_batch']} mel frames, {training['precision']}; "
        f"{card['hours']:.1f} hours",
        f"- Hardware: {json.dumps(training['hardware'])}",
        f"- Settings: {json.dumps(card['config'])}",
        "",
        "## Loss (log.csv)",
        "",
        "| step | loss | gradient norm |",
        "| --- | --- | --- |",
    ]
    for _, row in log.iloc[:: max(1, len(log) // 12)].iterrows():
        lines.append(f"| {row['step']:.0f} | {row['loss']:.4f} | {row['grad_norm']:.3f} |")
    if run is not None:
        table = pd.read_csv(run / "leaderboard" / "leaderboard.csv")
        sets = sorted(table["dataset"].astype(str).unique())
        lines += ["", f"## Scores ({run.name}{f', dataset {sets[0]}' if len(sets) == 1 else ''})", ""]
        own = table["artefact_sha256"].eq(card["sha256"]) | table["system"].str.endswith("ground-truth")
        found = table.loc[own, [c for c in SCORES if c in table]]
        if len(sets) == 1:  # the heading names it
            found = found.drop(columns="dataset")
        lines += ["| " + " | ".join(found.columns) + " |", "|" + " --- |" * len(found.columns)]
        for row in found.itertuples(index=False):
            lines.append("| " + " | ".join(_shown(v) for v in row) + " |")
    (target / "CARD.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _shown(value: Any) -> str:
    if pd.isna(value):  # a recording has no steps
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Ship an artefact, or (with --run alone) write its card again with scores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="trained artefact; the shipped one itself to renew its card")
    parser.add_argument("name")
    parser.add_argument("--run", type=Path, help="a finished run with its leaderboard, for the scores")
    parser.add_argument("--note", default="")
    parser.add_argument("--hours", type=float, help="hours of training, if the log does not hold all of them")
    arguments = parser.parse_args()
    target = ASSETS / arguments.name
    if arguments.folder.resolve() != target.resolve():
        ship(arguments.folder, arguments.name, arguments.note, arguments.hours)
    write_card(target, arguments.run)
    print(target)


if __name__ == "__main__":
    main()
