"""Networks of other people's packages, without the rest of those packages.

Importing ``f5_tts.model`` runs its trainer (wandb, hydra, datasets …), importing CosyVoice's encoder its language model. A
network needs none of it. So a module is imported as it is, while packages whose own start is not wanted, and modules of which
nothing is called, are held by placeholders, which are gone afterwards: a later import of the whole package works as ever, with
the very same classes.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

APART = {
    "cosyvoice": ("pip install --no-deps", "cosyvoice2-eu==0.2.8", "chatterbox-tts==0.1.7", "s3tokenizer==0.3.0"),
    "bigvgan": ("pip install --no-deps", "bigvgan==2.4.1"),
}
"""Extra → how its original packages are installed: without their requirements, which name versions that nothing else can use."""


class MissingPackageError(ImportError):
    """The package that holds the network is not installed; the message has the line that installs it."""


def how_to_install(extra: str) -> str:
    """The line that installs an extra with its original package."""
    line = f"pip install 'imfbench[{extra}]'"
    return f"{line} && {' '.join(APART[extra])}" if extra in APART else line


def original(
    module: str, *, extra: str, without: Iterable[str] = (), unused: Mapping[str, Mapping[str, Any]] | None = None
) -> ModuleType:
    """A module of an original package.

    Args:
        module: Its full name.
        extra: Of imfbench, that installs it.
        without: Packages on the way whose ``__init__`` is not run.
        unused: Modules to put a placeholder for → what it holds. One that is installed is used as it is, if its package is
            another than the module's own.

    Raises:
        MissingPackageError: It, or something that it needs, is not installed.
    """
    import torch
    from torch._subclasses.fake_tensor import unset_fake_temporarily

    try:
        # What a module makes once, such as the tensor of a default argument, is real wherever it is first asked for: also in an
        # estimate on fake tensors, after which a graph could not be exported.
        with _placeholders(_top(module), tuple(without), unused or {}), unset_fake_temporarily(), torch.device("cpu"):
            return importlib.import_module(module)
    except ImportError as error:
        raise MissingPackageError(
            f"{module} cannot be imported ({error}): its package belongs to an extra, {how_to_install(extra)}"
        ) from None


@contextmanager
def _placeholders(top: str, without: tuple[str, ...], unused: Mapping[str, Mapping[str, Any]]) -> Iterator[None]:
    held = [name for name in unused if name not in sys.modules and (_top(name) == top or not _installed(_top(name)))]
    placed = []
    try:
        folders = {
            name: _folder(name) for name in without if name not in sys.modules
        }  # before one stands for their parent
        placed += [_place(name, {}, folder) for name, folder in folders.items()]
        placed += [_place(name, unused[name], None) for name in held]
        yield
    finally:
        for name in placed:
            sys.modules.pop(name, None)


def _place(name: str, holds: Mapping[str, Any], folder: Path | None) -> str:
    module = ModuleType(name)
    module.__dict__.update(holds)
    module.__path__ = [] if folder is None else [str(folder)]
    sys.modules[name] = module
    return name


def _top(name: str) -> str:
    return name.partition(".")[0]


def _installed(package: str) -> bool:
    return package in sys.modules or importlib.util.find_spec(package) is not None


def _folder(package: str) -> Path:
    top, *rest = package.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"no package {top}")
    return Path(next(iter(spec.submodule_search_locations))).joinpath(*rest)


def not_here(what: str, extra: str) -> Callable[..., Any]:
    """A function to stand where nothing calls one, and which says so if something does."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise MissingPackageError(f"{what} is not installed: {how_to_install(extra)}")

    return refuse
