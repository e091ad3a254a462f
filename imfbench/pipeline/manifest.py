"""The manifest of a run: what ran, on what, with which packages and models, when."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from imfbench.artefact import VOCABULARY_SHA256, WEIGHTS, locate, vocabulary_sha256
from imfbench.devices import describe
from imfbench.pipeline.context import Context
from imfbench.plugins import plugins
from imfbench.progress import log
from imfbench.store import file_sha256, read_json, write_json
from imfbench.weights import KNOWN, installed

PACKAGES = (
    "imfbench",
    "torch",
    "torchaudio",
    "numpy",
    "scipy",
    "pandas",
    "accelerate",
    "safetensors",
    "soundfile",
    "soxr",
    "faster-whisper",
    "ctranslate2",
    "jiwer",
    "whisper-normalizer",
    "onnxruntime",
)


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def begin(context: Context, stages: tuple[str, ...]) -> None:
    """Write the manifest at the start of a run; earlier starts in the same folder stay on record.

    So does why a job failed, until a command does jobs of its kind again: rows that it left have no other reason.
    """
    present = read_json(context.folder.manifest) or {}
    earlier = present.get("plugins", [])
    _tell_changed_plugins(earlier)
    starts = [*present.get("runs", []), {"start": now(), "end": None, "stages": list(stages)}]
    write_json(
        context.folder.manifest,
        {
            "name": context.config.name,
            "parts": [part.name for part in context.config.then],
            "config_hash": context.config.hash,
            "start": present.get("start") or starts[-1]["start"],
            "end": None,
            "runs": starts,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "packages": versions(),
            "git_revision": git_revision(),
            "hardware": describe(context.device),
            "threads": context.threads_of(context.config.workers),  # of each process
            "workers": context.config.workers,
            "noise_seeds": context.config.noise_seeds,
            "models": models(),
            # A file that was changed between two starts stands there twice: the run was made with both.
            "plugins": [*earlier, *(record for plugin in plugins() if (record := plugin.record()) not in earlier)],
            "artefacts": present.get("artefacts", {}),
            "failures": {
                job: reason
                for job, reason in present.get("failures", {}).items()
                if job.partition(":")[0] not in stages
            },
            "status": "running",
        },
    )


def end(context: Context, status: str) -> None:
    """Complete the manifest: the end, the artefacts' hashes, the seeds of trainings, what failed."""
    found = read_json(context.folder.manifest) or {}
    found["end"] = found["runs"][-1]["end"] = now()
    found["status"] = found["runs"][-1]["status"] = status
    found["config_hash"] = context.config.hash
    found["artefacts"] = _artefacts(context)
    found["failures"] = {**found.get("failures", {}), **context.failures}
    write_json(context.folder.manifest, found)


def _tell_changed_plugins(earlier: list[dict[str, Any]]) -> None:
    """Warn of plug-ins whose file is another than at the last start, if what their parts made is kept.

    Test speech is made again where its dataset or vocoder changed, a training of a method or backbone that did is refused.
    """
    last = {record["plugin"]: record["sha256"] for record in earlier}
    for record in (plugin.record() for plugin in plugins()):
        if last.get(record["plugin"], record["sha256"]) == record["sha256"]:
            continue
        for kind, told in _KEPT.items():
            if names := [name.removeprefix(f"{kind} ") for name in record["gives"] if name.startswith(f"{kind} ")]:
                log.warning(
                    "%s has changed since the last start here: %s", record["plugin"], told.format(", ".join(names))
                )


_KEPT = {
    "metric": "figures of {} that are on record are kept unless the version in its signature was raised",
    "dataset": "trainings on {} and grids that were searched on it are kept",
    "vocoder": "grids that were searched through {} are kept",
    "method": "speech of ready networks of {} that is on record is kept; `overwrite: always` makes it again",
    "backbone": "speech of ready networks of {} that is on record is kept; `overwrite: always` makes it again",
}


def versions() -> dict[str, str | None]:
    """Versions of the packages on which figures depend; None where one is not installed."""
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def git_revision() -> str | None:
    """Commit of the source tree, with "+changes" if it was changed since; None outside a git clone of it."""
    folder = Path(__file__).resolve().parent.parent
    try:
        # A package that is installed below somebody's project is no part of what that project's commits hold.
        if Path(_git(folder, "rev-parse", "--show-toplevel").strip()).resolve() != folder.parent:
            return None
        revision = _git(folder, "rev-parse", "HEAD").strip()
        return revision + ("+changes" if _git(folder, "status", "--porcelain", "--untracked-files=no").strip() else "")
    except (OSError, subprocess.SubprocessError):
        return None


def models() -> dict[str, dict[str, str]]:
    """The known model files that are installed: name → the sha256 that is demanded of each of its files when it is loaded."""
    return {name: {file.name: file.sha256 for file in model.files} for name, model in KNOWN.items() if installed(name)}


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=10
    ).stdout


def _artefacts(context: Context) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for artefact in context.plan.artefacts.values():
        reference = context.reference(artefact)
        try:
            weights = locate(reference) / WEIGHTS
        except ValueError:
            continue
        status = read_json(context.folder.artefact(artefact.name) / "status.json") or {}
        found[artefact.name] = {"from": str(artefact.ready or "trained in this run"), "sha256": file_sha256(weights)}
        if (characters := vocabulary_sha256(reference)) is not None:
            found[artefact.name][VOCABULARY_SHA256] = characters
        found[artefact.name] |= {"seed": status["seed"]} if "seed" in status else {}
    return found
