"""What ``imfbench doctor`` looks at: everything that a run needs of a machine, each with its remedy."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from imfbench.cache import CacheError, cache_folder

OLDEST_PYTHON = (3, 10)
COMFORTABLE_DISK = 3_000_000_000


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: "ok", a "note" that stops nothing, or "bad"."""

    level: Literal["ok", "note", "bad"]
    subject: str
    message: str


def examine() -> Iterator[Finding]:
    """Look at everything, cheap things first."""
    yield _python()
    yield from _torch()
    yield from _devices()
    yield _disk()
    yield from _models()
    yield from _published()
    yield from _artefacts()
    yield from _plugins()
    yield from _corpus()


def _python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < OLDEST_PYTHON:
        return Finding("bad", "python", f"{found}; imfbench needs {'.'.join(map(str, OLDEST_PYTHON))} or newer")
    return Finding("ok", "python", found)


def _torch() -> Iterator[Finding]:
    """torch and torchaudio come in pairs of one version; other pairs fail when they are imported."""
    found = {}
    for name in ("torch", "torchaudio"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding("bad", name, "not installed; run `pip install -c constraints.txt .`")
            return
    pair = ", ".join(f"{name} {version}" for name, version in found.items())
    numbers = {version.partition("+")[0].rpartition(".")[0] for version in found.values()}
    try:
        import torch  # noqa: F401
        import torchaudio  # noqa: F401
    except (ImportError, OSError) as error:
        yield Finding(
            "bad", "torch", f"{pair} do not import together: {error}; `pip install -c constraints.txt .` brings a pair"
        )
        return
    if len(numbers) > 1:
        yield Finding("note", "torch", f"{pair} are not of one version; the pair in constraints.txt is tested")
    else:
        yield Finding("ok", "torch", pair)


def _devices() -> Iterator[Finding]:
    import torch

    from imfbench.devices import available_cores, describe, resolve_device

    device = resolve_device("auto")
    found = describe(device)
    name = found.get("gpu", found["cpu"])
    yield Finding(
        "ok", "device", f"{device.type}: {name}, bf16 matrix products {'fast' if found['bf16'] else 'not faster'}"
    )
    cores = available_cores()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    threads = f"{cores} cores for this process, torch uses {torch.get_num_threads()} threads"
    if load > 0.5 * cores:
        yield Finding(
            "note",
            "threads",
            f"{threads}, and others keep {load:.1f} cores busy: --threads 1 is often many times faster then",
        )
    else:
        yield Finding("ok", "threads", threads)


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    try:
        told = f"{free / 1e9:.1f} GB free in the working directory, cache in {cache_folder()}"
    except CacheError as error:
        return Finding("bad", "disk", str(error))
    return Finding("ok" if free > COMFORTABLE_DISK else "note", "disk", told)


def _models() -> Iterator[Finding]:
    """The models that packages carry, each verified."""
    from imfbench.weights import KNOWN, DamagedModelError, MissingModelError, find

    for name, model in KNOWN.items():
        about = f"{model.source}, {model.licence}"
        try:
            place = find(name)
        except MissingModelError as error:
            yield Finding("note", f"model {name}", f"{about}, sha256 {model.files[0].sha256}; {error}")
        except DamagedModelError as error:
            yield Finding("bad", f"model {name}", f"{about}; {error}")
        else:
            files = [place / file.name for file in model.files] if place.is_dir() else [place]
            told = f"{sum(file.stat().st_size for file in files) / 1e6:.0f} MB, sha256 {model.files[0].sha256[:12]}… verified"
            yield Finding("ok", f"model {name}", f"{about}, {told}")


def _published() -> Iterator[Finding]:
    """The models of the published scorers; that one is not here stops nothing but its protocols."""
    from imfbench.published import PUBLISHED, remedy, state
    from imfbench.weights import DamagedModelError

    for name, model in PUBLISHED.items():
        subject, about = f"model {name}", f"{model.used_by}: {model.repository}, {model.licence}"
        found = state(model)
        package = f"; to be run it needs {found['package']}" if found["package"] else ""
        problem = found["problem"]
        if problem is not None:
            level: Literal["note", "bad"] = "bad" if isinstance(problem, DamagedModelError) else "note"
            yield Finding(level, subject, f"{about}; {problem}{package}")
        elif found["place"] is None:
            known = f", sha256 {model.sha256}" if model.sha256 else ""
            yield Finding("note", subject, f"{about}; not here ({model.gigabytes}{known}): {remedy(model)}{package}")
        else:
            checked = "verified" if model.sha256 else "no published sum to compare with"
            told = f"{found['size'] / 1e6:.0f} MB, sha256 {found['sha256'][:12]}… ({checked}), in {found['place']}"
            yield Finding("note" if package else "ok", subject, f"{about}, {told}{package}")


def _artefacts() -> Iterator[Finding]:
    from imfbench.artefact import ArtefactError, embedded, load_artefact

    for name in embedded():
        try:
            _, card = load_artefact(name)
        except ArtefactError as error:
            yield Finding("bad", name, str(error))
        else:
            yield Finding("ok", name, f"sha256 {card['sha256'][:12]}… verified")
    if not embedded():
        yield Finding("bad", "embedded artefacts", "none; the installation is incomplete: install imfbench again")


def _plugins() -> Iterator[Finding]:
    from imfbench import plugins

    plugins.load_installed()
    for plugin in plugins.plugins():
        given = ", ".join(f"{registry.kind} {name}" for registry, name in plugin.gives) or "it registers nothing"
        if plugin.error:
            yield Finding("note", f"plug-in {plugin.name}", f"left out, it cannot be imported: {plugin.error}")
        else:
            yield Finding("ok", f"plug-in {plugin.name}", given)


def _corpus() -> Iterator[Finding]:
    from imfbench.plugins import source_of
    from imfbench.registry import DATASETS

    for name in DATASETS.names():
        try:
            dataset = DATASETS.get(name)()
            problems = dataset.verify() if hasattr(dataset, "verify") else []
            revision = dataset.revision
        except TypeError:
            continue  # one that needs to be told where it lies
        except Exception as error:
            ours = source_of("dataset", name) is None  # a run that does not use another's dataset is none the worse
            remedy = "install imfbench again" if ours else "it is a plug-in's"
            yield Finding("bad" if ours else "note", f"dataset {name}", f"{type(error).__name__}: {error}; {remedy}")
            continue
        for problem in problems[:5]:
            yield Finding("bad", f"dataset {name}", problem)
        if not problems:
            yield Finding("ok", f"dataset {name}", f"revision {revision}, every file as listed")
