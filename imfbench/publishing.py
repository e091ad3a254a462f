"""Results that another person can submit: a folder of figures, settings and sample audio without weights, and its checks.

The folder is a run folder itself, so every report can be made of it; ``SHA256SUMS`` lists what is in it.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from imfbench.disk import StoreError
from imfbench.doctor import Finding
from imfbench.metrics.base import Metric
from imfbench.registry import METRICS, BrokenEntryError
from imfbench.reports.leaderboard import Leaderboard
from imfbench.reports.page.choose import choose
from imfbench.reports.page.words import edits
from imfbench.reports.results import Cell, RunFolderError, read_run
from imfbench.schema import UTTERANCE
from imfbench.store import file_sha256, read_json, write_json, write_text

SUMS = "SHA256SUMS"
KEPT = (
    "grids/*.json", "artefacts/*/card.json", "artefacts/*/log.csv", "artefacts/*/status.json",
    "cells/*/cell.json", "cells/*/summary.json", "cells/*/utterances.parquet",
)  # fmt: skip
"""What is copied as it is."""
WEIGHTS = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".onnx")
_CLOSE = 1e-9


class PublishError(StoreError):
    """A run that cannot be published as asked; the message says what to do."""


def publish(run: Path, out: Path, samples: int = 2) -> list[Path]:
    """Make a results folder of a run.

    Args:
        run: The run folder.
        out: The folder to make; it must be empty or absent.
        samples: Utterances of each test set whose audio goes along, as it was scored.

    Returns:
        The files, ``SHA256SUMS`` last.

    Raises:
        PublishError: ``out`` holds something.
        RunFolderError: The run is no run folder, or has unfinished rows.
    """
    results = read_run(run)
    if results.unfinished:
        raise RunFolderError(
            f"{run}: {len(results.unfinished)} rows are not scored yet; repeat the command that made the folder, then publish it"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise PublishError(f"{out} holds something already: name a folder that is empty or not there")
    runs = [run, *sorted(p.parent for p in run.glob("*/experiment.yaml"))]
    for one in runs:
        there = out / one.relative_to(run)
        for pattern in KEPT:
            for file in sorted(one.glob(pattern)):
                target = there / file.relative_to(one)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
        _settings(one, there)
    for cell in results.cells:
        if cell.folder is not None:
            _samples(cell, out / cell.folder.relative_to(run), _chosen(results.cells, cell, samples))
    Leaderboard().write(out)
    files = sorted(file for file in out.rglob("*") if file.is_file())
    write_text(out / SUMS, "".join(f"{file_sha256(file)}  {file.relative_to(out).as_posix()}\n" for file in files))
    return [*files, out / SUMS]


def _chosen(cells: list[Cell], cell: Cell, samples: int) -> set[str]:
    """The same utterances for all rows of a task and test set."""
    same = [c for c in cells if (c.row["task"], c.row["dataset"]) == (cell.row["task"], cell.row["dataset"])]
    return set(choose(same, samples, seed=0))


def _settings(run: Path, there: Path) -> None:
    """Experiment and manifest without folders of this machine."""
    experiment = run / "experiment.yaml"
    if experiment.is_file():
        values = yaml.safe_load(experiment.read_text(encoding="utf-8"))
        for part in (values, *(values.get("then") or [])):
            part.update({key: None for key in ("score_cache", "model_dir") if part.get(key) is not None})
        write_text(there / "experiment.yaml", yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120))
    manifest = read_json(run / "manifest.json")
    if manifest is not None:
        write_json(there / "manifest.json", manifest)


def _samples(cell: Cell, there: Path, chosen: set[str]) -> None:
    rows = [] if cell.utterances is None else cell.utterances.to_dict("records")
    for row in rows:
        audio = row.get("audio")
        if str(row["id"]) not in chosen or not isinstance(audio, str) or cell.folder is None:
            continue
        source = cell.folder / audio
        if Path(audio).parts[0] == ".." or not source.is_file():
            continue  # recordings of other programs stay where they are
        (there / audio).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, there / audio)


def verify(folder: Path) -> Iterator[Finding]:
    """Check a results folder: hashes, no weights, schema, and every aggregate made again from the utterances.

    Yields:
        A finding for each thing that was looked at, "bad" where something is wrong.
    """
    yield from _sums(folder)
    weights = [file for file in folder.rglob("*") if file.suffix in WEIGHTS]
    if weights:
        names = ", ".join(file.relative_to(folder).as_posix() for file in weights[:3])
        yield Finding("bad", "weights", f"{names}: a results folder holds none; remove them and publish again")
    try:
        results = read_run(folder)
    except (RunFolderError, StoreError) as error:
        yield Finding("bad", "schema", str(error))
        return
    found = 0
    for cell in results.cells:
        for problem in (*_schema(cell), *_counts(cell), *_edits(cell), *_audio(cell)):
            found += 1
            yield Finding("bad", _name(cell), problem)
    if not found:
        yield Finding("ok", "rows", f"{len(results.cells)} rows are of the schema, with their counts, edits and audio")
    for cell in results.cells:
        yield from _aggregates(folder, cell)
    yield from _board(folder, results.cells)


def _sums(folder: Path) -> Iterator[Finding]:
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    except OSError:
        yield Finding("bad", SUMS, f"{folder / SUMS} is not there: `imfbench publish RUN` makes such a folder")
        return
    listed = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    present = {f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file()} - {SUMS}
    wrong = [f"{name} is missing" for name in sorted({*listed} - present)]
    wrong += [f"{name} is not listed" for name in sorted(present - {*listed})]
    wrong += [
        f"{name} is not what was published" for name in sorted(present & {*listed})
        if file_sha256(folder / name) != listed[name]
    ]  # fmt: skip
    for problem in wrong:
        yield Finding("bad", SUMS, problem)
    if not wrong:
        yield Finding("ok", SUMS, f"{len(listed)} files are what was published")


def _schema(cell: Cell) -> Iterator[str]:
    if not cell.ok:
        return
    if cell.utterances is None:
        yield "there is no utterances.parquet"
        return
    wanted = [key.name for key in UTTERANCE if key.present == "always"]
    if absent := [name for name in wanted if name not in cell.utterances]:
        yield f"utterances.parquet has no column {', '.join(absent)}"


def _counts(cell: Cell) -> Iterator[str]:
    frame = cell.utterances
    if frame is None:
        return
    if len(frame) != cell.row["n_expected"]:
        yield f"n_expected is {cell.row['n_expected']}, and utterances.parquet has {len(frame)} rows"
    made = int((frame["status"] == "ok").sum()) if "status" in frame else len(frame)
    if cell.ok and cell.row["n_scored"] > made:
        yield f"n_scored is {cell.row['n_scored']}, and {made} utterances were made"


def _edits(cell: Cell) -> Iterator[str]:
    """The edits of each utterance, from the texts that were compared."""
    frame = cell.utterances
    columns = ("reference_normalised", "hypothesis_normalised", "substitutions", "deletions", "insertions")
    if frame is None or any(name not in frame for name in columns):
        return
    wrong = []
    for row in frame.dropna(subset=list(columns)).to_dict("records"):
        made = [kind for kind, _, _ in edits(row["reference_normalised"], row["hypothesis_normalised"])]
        if len(made) - made.count("ok") != row["substitutions"] + row["deletions"] + row["insertions"]:
            wrong.append(str(row["id"]))
    if wrong:
        yield f"the edits of {len(wrong)} utterances are not those of their texts ({', '.join(wrong[:3])})"


def _audio(cell: Cell) -> Iterator[str]:
    if cell.folder is None or cell.utterances is None or "audio_sha256" not in cell.utterances:
        return
    for row in cell.utterances.dropna(subset=["audio", "audio_sha256"]).to_dict("records"):
        file = cell.folder / str(row["audio"])
        if file.is_file() and file_sha256(file) != row["audio_sha256"]:
            yield f"{row['audio']} is not the audio that was scored"


def _aggregates(folder: Path, cell: Cell) -> Iterator[Finding]:
    """Every figure of every metric, with its interval, made again from the utterances."""
    frame = cell.utterances
    if frame is None or not cell.ok:
        return
    options = _options(folder, cell)
    count = 0
    for name in cell.signatures:
        if name not in METRICS:
            yield Finding("note", _name(cell), f"the metric {name} is not known here: its figures were not made again")
            continue
        try:
            cls = METRICS.get(name)
            metric: Metric = cls(cls.Config(**options.get(name, {})))
            cluster = cell.row.get("cluster")
            made = metric.summarise(frame) if cluster is None else metric.summarise(frame, cluster=cluster)
        except (BrokenEntryError, ValueError, KeyError) as error:
            yield Finding("bad", _name(cell), f"{name} cannot be made again ({type(error).__name__}: {error})")
            continue
        for column, value in made.items():
            count += 1
            if not _same(cell.row.get(column), value):
                yield Finding(
                    "bad",
                    _name(cell),
                    f"{column} is {cell.row.get(column)} in summary.json, and {value} by its utterances",
                )
    if count:
        yield Finding("ok", _name(cell), f"{count} figures made again from {len(frame)} utterances")


def _same(told: Any, made: Any) -> bool:
    if told is None or made is None or pd.isna(made):
        return told is None and (made is None or bool(pd.isna(made)))
    return isinstance(told, (int, float)) and math.isclose(float(told), float(made), rel_tol=_CLOSE, abs_tol=_CLOSE)


def _options(folder: Path, cell: Cell) -> Mapping[str, dict[str, Any]]:
    """The settings of the metrics in the experiment that made the cell."""
    run = cell.folder.parent.parent if cell.folder is not None else folder
    try:
        experiment = yaml.safe_load((run / "experiment.yaml").read_text(encoding="utf-8"))
        return dict(experiment.get("metrics") or {})
    except (OSError, yaml.YAMLError, AttributeError):
        return {}


def _board(folder: Path, cells: list[Cell]) -> Iterator[Finding]:
    """The leaderboard's rows against the summaries."""
    file = folder / "leaderboard" / "leaderboard.json"
    try:
        rows = {row["key"]: row for row in json.loads(file.read_text(encoding="utf-8"))["rows"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        yield Finding("bad", "leaderboard", f"{file} cannot be read ({type(error).__name__})")
        return
    wrong = []
    for cell in cells:
        row = rows.get(cell.row["key"])
        told = {k: v for k, v in cell.row.items() if k != "not_measured"}
        if row is None or any(row.get(k) != v for k, v in told.items()):
            wrong.append(_name(cell))
    if wrong or len(rows) != len(cells):
        yield Finding(
            "bad",
            "leaderboard",
            f"leaderboard.json does not show the summaries ({', '.join(wrong[:3]) or 'more rows'})",
        )
    else:
        yield Finding("ok", "leaderboard", f"{len(rows)} rows as in the summaries")


def _name(cell: Cell) -> str:
    nfe = cell.value("nfe")
    return f"{cell.row['task']}: {cell.system}" + ("" if nfe is None else f" at {nfe:g} NFE")
