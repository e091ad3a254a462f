"""What ``imfbench check`` says of a plug-in: its contracts, clause by clause, and a run on two utterances."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from imfbench.config_file import ConfigError, value_of
from imfbench.doctor import Finding
from imfbench.plugins import Plugin, place_of, went_through
from imfbench.registry import DATASETS, nearest
from imfbench.store import read_json

Settings = dict[str, dict[str, Any]]
"""Name of a part → its settings."""


def settings_of(texts: tuple[str, ...], plugins: list[Plugin]) -> Settings:
    """``NAME.KEY=VALUE`` settings of what is checked.

    Raises:
        ConfigError: Written otherwise, of a name that no plug-in registers, or a value that is not YAML.
    """
    known = [name for plugin in plugins for _, name in plugin.gives]
    found: Settings = {}
    for text in texts:
        path, equals, value = text.partition("=")
        name, _, key = path.partition(".")
        if not equals or not key:
            raise ConfigError(f"--set {text}: write it as NAME.KEY=VALUE, for instance --set my-corpus.root=recordings")
        if name not in known:
            raise ConfigError(f"--set {text}: no plug-in that is checked registers {name!r}: {nearest(name, known)}")
        found.setdefault(name, {})[key] = value_of(text, value)
    return found


def check(plugin: Plugin, settings: Settings) -> Iterator[Finding]:
    """All that is right and wrong with a plug-in, part by part."""
    if plugin.error:
        yield Finding("bad", plugin.name, f"it cannot be imported: {plugin.error}")
    elif not plugin.gives:
        yield Finding(
            "bad", plugin.name, 'it registers nothing: put a line such as @METHODS.register("name") over a class'
        )
    for registry, name in plugin.gives:
        options = settings.get(name, {})
        lacking = _lacking(name, options) if registry.kind == "dataset" else []
        if lacking:
            told = f"it needs {', '.join(lacking)}: give it a default, or say it here, --set {name}.{lacking[0]}=…"
            yield Finding("bad", f"dataset {name}", told)
            continue
        yield from _clauses(plugin, registry.kind, name, options)
        yield from _trial(plugin, registry.kind, name, options)


def _clauses(plugin: Plugin, kind: str, name: str, options: dict[str, Any]) -> Iterator[Finding]:
    from imfbench.contracts import BrokenContract, clauses

    try:
        contract = clauses(kind, name, options)
    except Exception as error:
        yield Finding("bad", f"{kind} {name}", place_of(error, plugin.path))
        return
    hopeless: set[str] = set()
    for clause in contract:
        subject = f"{kind} {clause.name}"
        if clause.name in hopeless:
            continue
        try:
            clause()
        except Exception as error:  # whatever it is, it is the part's
            wanted, found = "no error", place_of(error, plugin.path)
            if isinstance(error, BrokenContract):
                wanted, found = error.expected, error.found
            yield Finding("bad", subject, f"{clause.sentence}\n     expected: {wanted}\n     found:    {found}")
            if clause.fundamental:
                hopeless.add(clause.name)
                yield Finding("note", subject, "its other promises were not looked at: they would only say this again")
        else:
            yield Finding("ok", subject, clause.sentence)


def _trial(plugin: Plugin, kind: str, name: str, options: dict[str, Any]) -> Iterator[Finding]:
    from imfbench.contracts.trial import run_trial

    subject = f"run with {kind} {name}"
    if kind == "dataset" and (serves := getattr(DATASETS.get(name), "serves", ())):
        told = f"not tried: its batches are for networks of the kind of {' and '.join(serves)}, of which none ships"
        yield Finding("note", subject, told)
        return
    yield Finding(
        "note", subject, "begins now: a few steps of training or sampling, two utterances, a scorer, a report"
    )
    with tempfile.TemporaryDirectory(prefix="imfbench-") as temporary:
        folder = Path(temporary)
        try:
            context = run_trial(kind, name, options, folder)
        except Exception as error:
            told = str(error) if isinstance(error, ConfigError) else place_of(error, plugin.path)
            if not isinstance(error, ConfigError) and not went_through(error, plugin.path):
                told += ". No line of the plug-in was at work then: what it gave may be wrong, or imfbench itself is"
            yield Finding("bad", subject, f"it did not begin: {told}")
            return
        for job, reason in context.failures.items():
            yield Finding("bad", subject, f"{job.replace(':', ' of ')} failed: {reason}")
        yield from _trained(subject, folder / "run")
        for path in sorted(folder.glob("run/cells/*/summary.json"), key=lambda path: _place(read_json(path))):
            yield _row(subject, read_json(path), context.config)
        if not context.failures:
            yield Finding("ok", subject, f"reports written: {', '.join(context.config.reports)}")


def _trained(subject: str, run: Path) -> Iterator[Finding]:
    """The trainings of the trial."""
    import pandas as pd

    for path in sorted(run.glob("artefacts/*/status.json")):
        status, name = read_json(path), path.parent.name
        if status["status"] != "ok":
            yield Finding(
                "bad", subject, f"{name} {status['status']} after {status['steps']} steps: {status['reason']}"
            )
            continue
        loss = pd.read_csv(path.with_name("log.csv"))["loss"]
        told = f"{name} trained {status['steps']} steps, {status['seconds_per_step']:.2g} s each"
        yield Finding("ok", subject, f"{told}, loss {loss.iloc[0]:.3g} → {loss.iloc[-1]:.3g}")


def _row(subject: str, row: dict[str, Any], config: Any) -> Finding:
    """A row of the trial's leaderboard: scored, or why not."""
    name = f"row {row['system']}" + (f" at {row['nfe']} NFE" if row.get("nfe") else "")
    if row["status"] != "ok":
        return Finding("bad", subject, f"{name}: {row['status']}")
    figures = {metric: value for metric in row["signatures"] if (value := _figure(row, metric)) is not None}
    lacking = {column: reason for column, reason in row["not_measured"].items() if column in _figures(config)}
    if lacking:
        column, reason = next(iter(lacking.items()))
        return Finding("bad", subject, f"{name} has no {column}: {reason}")
    if row["n_scored"] < row["n_expected"]:
        return Finding("bad", subject, f"{name}: {row['n_scored']} of {row['n_expected']} utterances could be scored")
    told = ", ".join(f"{metric} {value:.3g}" for metric, value in figures.items())
    return Finding("ok", subject, f"{name}: {row['n_scored']} of {row['n_expected']} utterances, {told}")


def _figure(row: dict[str, Any], metric: str) -> float | None:
    from imfbench.registry import METRICS

    value = row.get(METRICS.get(metric).summary_columns[0])
    return None if value is None else float(value)


def _figures(config: Any) -> list[str]:
    from imfbench.registry import METRICS

    return [column for metric in config.metrics for column in METRICS.get(metric).summary_columns]


def _place(row: dict[str, Any]) -> tuple[Any, ...]:
    return (row["system"], row.get("nfe") or 0)


def _lacking(name: str, options: dict[str, Any]) -> list[str]:
    """Arguments of a dataset that have no default and were not given."""
    parameters = inspect.signature(DATASETS.get(name)).parameters.values()
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return [argument for argument in needed if argument not in options]
