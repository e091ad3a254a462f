"""Virtual environments in which other people's packages live alone, with the requirements that they themselves declare.

Ours is not installed there, and nothing is held by a placeholder: what such an environment computes is what the package's own
users hear. Environments lie in ``.cache/originals`` and are found again; ``make clean`` removes them.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".cache" / "originals"
SHARED = ("torch", "torchaudio", "triton")
"""Of our own environment, with NVIDIA's libraries that they load: 5 GB that need not lie on the disk once for each package."""


@dataclass(frozen=True)
class Original:
    """A published package.

    Attributes:
        name: In the registry.
        version: The one that the tests know.
        shares_torch: Whether our torch is used: only where it is a version that the package allows. Otherwise its own is fetched.
    """

    name: str
    version: str
    shares_torch: bool

    @property
    def folder(self) -> Path:
        """Where its environment lies."""
        return FOLDER / f"{self.name}-{self.version}"


ORIGINALS = {
    original.name: original
    for original in (
        Original("f5-tts", "1.1.22", shares_torch=True),
        Original("cosyvoice2-eu", "0.2.8", shares_torch=True),
        Original("chatterbox-tts", "0.1.7", shares_torch=False),
    )
}


class UnreachableError(RuntimeError):
    """No registry answers."""


@dataclass(frozen=True)
class Environment:
    """A ready one; ``versions`` are of all packages in it."""

    folder: Path
    versions: dict[str, str]

    def run(self, script: Path, *arguments: object, timeout: float = 1200) -> str:
        """What a script prints there. It sees neither our folders nor our variables of Python.

        Raises:
            RuntimeError: It fails; the message ends with its own.
        """
        return _run(self.folder, [str(script), *map(str, arguments)], timeout)


def environment(name: str) -> Environment:
    """A package's environment; made if it is not there, or was made of other requirements.

    Raises:
        UnreachableError: It is not there and no registry answers.
        RuntimeError: The package or a requirement cannot be installed; the message is pip's.
    """
    original = ORIGINALS[name]
    wanted = _recipe(original)
    if _recorded(original.folder).get("recipe") != wanted:
        FOLDER.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=FOLDER, prefix=f".{name}-") as made:
            _make(original, Path(made) / "env")
            (Path(made) / "env" / "made.json").write_text(json.dumps({"recipe": wanted}), encoding="utf-8")
            if _recorded(original.folder).get("recipe") != wanted:  # another process may have been faster
                shutil.rmtree(original.folder, ignore_errors=True)
                (Path(made) / "env").rename(original.folder)
    listed = json.loads(_run(original.folder, ["-m", "pip", "list", "--format", "json"], 300))
    return Environment(original.folder, {entry["name"].lower().replace("_", "-"): entry["version"] for entry in listed})


def _recipe(original: Original) -> dict[str, Any]:
    shared = {name: importlib.metadata.version(name) for name in SHARED[:2]} if original.shares_torch else {}
    return {**asdict(original), "python": platform.python_version(), "shared": shared}


def _recorded(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / "made.json").read_text(encoding="utf-8"))
    except OSError:
        return {}
    return found if (folder / "bin" / "python").exists() else {}


def _make(original: Original, folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    exact = f"{original.name}=={original.version}"
    _ask_registry(folder, exact)
    constraints = folder / "constraints.txt"
    constraints.write_text("", encoding="utf-8")
    if original.shares_torch:
        pins = _share_torch(folder)
        constraints.write_text("".join(f"{name}=={version}\n" for name, version in pins.items()), encoding="utf-8")
    # Not compiled: of more than ten thousand modules only what is imported ever need be. A cache would keep gigabytes twice.
    install = ["-m", "pip", "install", "-q", "--no-compile", "--no-cache-dir", "-c", str(constraints)]
    _run(folder, [*install, "setuptools<81", "wheel"], 600)  # old packages import pkg_resources, and build with it
    _run(folder, [*install, exact], 3000)


def _ask_registry(folder: Path, exact: str) -> None:
    """Raises UnreachableError if there is no registry, RuntimeError if there is one that does not have the package."""
    probe = ["-m", "pip", "install", "--dry-run", "--no-deps", "--no-cache-dir", "--retries", "1", exact]
    try:
        _run(folder, probe, 300)
    except RuntimeError as error:
        if "from versions: none" in str(error):  # pip knows of no release at all, of packages that have many
            raise UnreachableError(f"pip reaches no registry that has {exact}") from None
        raise


def _share_torch(folder: Path) -> dict[str, str]:
    """Links to our torch and what it loads, in a folder behind the environment's own, where pip sees and never removes them."""
    (site,) = folder.glob("lib/python*/site-packages")
    shared = folder / "shared"
    shared.mkdir()
    (site / "shared.pth").write_text(f"{os.path.relpath(shared, site)}\n", encoding="utf-8")
    pins = {}
    for distribution in importlib.metadata.distributions():
        name = _canonical(distribution.metadata["Name"])
        if name not in SHARED and not name.startswith(("nvidia-", "cuda-")):
            continue
        pins[name] = distribution.version
        for top in {path.parts[0] for path in distribution.files or () if path.parts[0] not in ("..", "__pycache__")}:
            link = shared / top
            if not link.exists():
                link.symlink_to(Path(str(distribution.locate_file(top))).resolve())
    return pins


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _run(folder: Path, arguments: list[str], timeout: float) -> str:
    # -I: without the caller's PYTHONPATH, user site and current folder, through which ours would be seen.
    command = [str(folder / "bin" / "python"), "-I", *arguments]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=kept, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[2:])} failed:\n{done.stderr[-4000:] or done.stdout[-4000:]}")
    return done.stdout


if __name__ == "__main__":  # python tests/isolated/environments.py [NAME …]: makes them ahead
    for package in sys.argv[1:] or ORIGINALS:
        print(package, environment(package).versions)
