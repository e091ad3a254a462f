"""On which machines the evidence of a claim was made, by what the runs wrote down; that is not the machine that judges it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from imfbench.claims.evidence import Evidence
from imfbench.store import read_json

Machine = dict[str, Any]


def machines_of(evidence: Evidence, experiments: Iterable[str], measurements: Iterable[str]) -> list[Machine]:
    """The machines, each once, with what was made ``on`` it.

    Args:
        evidence: The folders.
        experiments: Names of experiments: their cells and trainings are asked.
        measurements: Names of measurements.

    Returns:
        Hardware as ``imfbench.devices.describe`` tells it, and ``on``: names of experiments and measurements.
    """
    found: list[Machine] = []
    named = [(name, one) for name in experiments for one in _of_experiment(evidence, name)]
    named += [(name, one) for name in measurements for one in _of_measurement(evidence, name)]
    for name, hardware in named:
        same = next((one for one in found if {k: v for k, v in one.items() if k != "on"} == hardware), None)
        if same is None:
            found.append({**hardware, "on": [name]})
        elif name not in same["on"]:
            same["on"].append(name)
    return found


def in_words(machine: Machine) -> str:
    """A machine in a few words, such as "AMD EPYC (cpu, 2 cores, 1 thread)"."""
    told = [str(machine.get("device") or "unknown device")]
    for key, word in (("cores", "core"), ("threads", "thread")):
        if isinstance(machine.get(key), int) and not machine.get("gpu"):
            told.append(f"{machine[key]} {word}{'s' * (machine[key] != 1)}")
    return f"{machine.get('gpu') or machine.get('cpu') or 'an unknown machine'} ({', '.join(told)})"


def _of_experiment(evidence: Evidence, name: str) -> Iterator[Machine]:
    """Of its trainings, which may have been taken over from elsewhere, and of its cells."""
    folder = evidence.out / name
    for path in sorted(folder.glob("artefacts/*/status.json")):
        if hardware := (read_json(path) or {}).get("hardware"):
            yield hardware
    manifest = (read_json(folder / "manifest.json") or {}).get("hardware") or {}
    for path in sorted(folder.glob("cells/*/summary.json")):
        row = read_json(path) or {}
        if row.get("kind") != "sampled" or row.get("device") is None:
            continue
        machine = (read_json(path.parent / "cell.json") or {}).get("hardware") or manifest
        known = machine if machine.get("device") == row["device"] else {}
        yield {**known, "device": row["device"], "threads": row.get("threads")}


def _of_measurement(evidence: Evidence, name: str) -> Iterator[Machine]:
    if hardware := (read_json(evidence.measurement_file(name)) or {}).get("hardware"):
        yield hardware
