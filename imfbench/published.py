"""Scorers' models that no package carries: where each is looked for, how it is had, and what is known of it.

A model is taken from the first of these places that holds it:

1. the path that the metric's own settings give;
2. the environment variable of the model (``IMFBENCH_WAVLM_LARGE_ECAPA``), a file or folder;
3. the folder of models: ``--model-dir``, the experiment's ``model_dir``, or ``IMFBENCH_MODEL_DIR``, by any of the model's
   ``names``, among them those of ZipVoice's ``TTS_eval_models``;
4. the hub's cache on this machine, then the hub.

What is found is named by its sha256 in signatures; where the published file's sha256 is known, another one is refused.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imfbench import model_hub, weights
from imfbench.backbones.originals import how_to_install

MODEL_DIR = "IMFBENCH_MODEL_DIR"
_looked_in: list[Path] = []
_fetching = [True]
_found: dict[tuple[Any, ...], Path] = {}
"""Where models were found, by all that decides it: a signature is asked for with every row."""


@dataclass(frozen=True)
class Published:
    """A model as it was published.

    Attributes:
        name: Its name here, in signatures, and (in capitals) in its environment variable.
        used_by: Who uses it, for tables.
        repository: On the hub.
        files: The file of weights, under the names that it may have; the first that is there counts.
        needed: What else a folder must hold.
        names: What it may be called below the folder of models.
        licence: Of the weights.
        size: Bytes of the file of weights, about.
        sha256: Of the file of weights, where it is known.
        module: Python package that runs it, and
        extra: the extra of this package that brings that one; empty if it is a requirement.
        folder: Whether the model is a folder.
        aliases: Other names that settings may give it.
    """

    name: str
    used_by: str
    repository: str
    files: tuple[str, ...]
    names: tuple[str, ...]
    licence: str
    size: int
    needed: tuple[str, ...] = ()
    sha256: str = ""
    module: str = ""
    extra: str = ""
    folder: bool = True
    aliases: tuple[str, ...] = ()

    @property
    def variable(self) -> str:
        """The environment variable that holds its place."""
        return "IMFBENCH_" + "".join(sign if sign.isalnum() else "_" for sign in self.name).upper()

    @property
    def gigabytes(self) -> str:
        """Its size in words."""
        return f"{self.size / 1e9:.1f} GB" if self.size >= 1e8 else f"{self.size / 1e6:.0f} MB"

    def weights_in(self, place: Path) -> Path | None:
        """The file of weights in a place, or None if the place does not hold the model."""
        if not self.folder:
            return place if place.is_file() else None
        if not all((place / name).is_file() for name in self.needed):
            return None
        return next((place / name for name in self.files if (place / name).is_file()), None)


PUBLISHED: dict[str, Published] = {
    model.name: model
    for model in (
        Published(
            "whisper-large-v3",
            "WER of seed-tts-eval and zipvoice, English",
            "openai/whisper-large-v3",
            model_hub.WEIGHTS,
            ("whisper-large-v3", "wer/whisper-large-v3", "openai/whisper-large-v3"),
            "Apache-2.0",
            3_090_000_000,
            needed=("config.json", "generation_config.json", "preprocessor_config.json"),
            module="transformers",
            extra="transformers",
        ),
        Published(
            "faster-whisper-large-v3",
            "WER of f5-tts, English",
            "Systran/faster-whisper-large-v3",
            ("model.bin",),
            ("faster-whisper-large-v3", "Systran/faster-whisper-large-v3"),
            "MIT",
            3_090_000_000,
            needed=("config.json", "tokenizer.json"),
            module="faster_whisper",
            aliases=("large-v3",),
        ),
        Published(
            "paraformer-zh",
            "WER of seed-tts-eval, f5-tts and zipvoice, Chinese",
            "funasr/paraformer-zh",
            ("model.pt",),
            ("paraformer-zh", "wer/paraformer-zh", "funasr/paraformer-zh"),
            "FunASR model licence",
            880_000_000,
            needed=("config.yaml", "tokens.json", "am.mvn"),
            module="funasr",
            extra="funasr",
        ),
        Published(
            "hubert-large-ls960-ft",
            "WER of zipvoice-librispeech",
            "facebook/hubert-large-ls960-ft",
            model_hub.WEIGHTS,
            ("hubert-large-ls960-ft", "wer/hubert-large-ls960-ft", "facebook/hubert-large-ls960-ft"),
            "Apache-2.0",
            1_260_000_000,
            needed=("config.json", "preprocessor_config.json", "vocab.json"),
            module="transformers",
            extra="transformers",
        ),
        Published(
            "wavlm-large-ecapa",
            "SIM of seed-tts-eval, f5-tts, zipvoice and zipvoice-librispeech",
            "bezzam/wavlm_large_finetune_seed_tts_eval",
            ("wavlm_large_finetune.pth",),
            ("wavlm_large_finetune.pth", "speaker_similarity/wavlm_large_finetune.pth"),
            "CC-BY-SA-3.0",
            1_301_926_579,
            sha256="51f07e3b94d9e0262a6a675ef5a087be3dd09e8c62e9d886827f44f82fe7f94b",
            module="transformers",
            extra="transformers",
            folder=False,
        ),
        Published(
            "wespeaker-resnet34",
            "SIM, backend wespeaker-onnx",
            "Wespeaker/wespeaker-voxceleb-resnet34-LM",
            ("voxceleb_resnet34_LM.onnx",),
            ("voxceleb_resnet34_LM.onnx", "wespeaker/voxceleb_resnet34_LM.onnx"),
            "CC-BY-4.0",
            26_500_000,
            folder=False,
        ),
        Published(
            "utmos22-strong",
            "MOS of f5-tts, zipvoice and zipvoice-librispeech (metric utmos)",
            "Blinorot/UTMOS-PyTorch",
            ("utmos_state_dict.pt",),
            ("utmos_state_dict.pt", "mos/utmos_state_dict.pt"),
            "MIT",
            400_000_000,
            module="utmos_pytorch",
            extra="utmos",
            folder=False,
        ),
    )
}
"""By name. Sizes are of the published files; a sum stands where several people have printed the same one."""


def look_in(folder: str | Path | None) -> None:
    """Make this the folder of models (``--model-dir``); None leaves the environment variable alone."""
    _looked_in[:] = [] if folder is None else [Path(folder).expanduser()]


def published(name: str) -> Published | None:
    """The model of a name, a repository or an alias; None if there is none."""
    for model in PUBLISHED.values():
        if name in (model.name, model.repository, *model.aliases):
            return model
    return None


def locate(model: Published, path: Path | None = None) -> Path | None:
    """Where the model lies on this machine; None if it does not. Nothing is fetched, nothing is verified.

    Raises:
        imfbench.weights.MissingModelError: A place that was given outright does not hold it; the message says what lacks.
    """
    for place, given_by in _given(model, path):
        if model.weights_in(place) is None:
            raise weights.MissingModelError(
                f"the model {model.name!r} is not in {place}, which {given_by} names: {_lacking(model, place)}"
            )
        return place
    for folder in folders():
        for name in model.names:
            if model.weights_in(folder / name) is not None:
                return folder / name
    return _hub(model, local=True)


def obtain(model: Published, path: Path | None = None) -> Path:
    """The model's file or folder, fetched from the hub if it is not on this machine, and verified if its sum is known.

    Raises:
        imfbench.weights.MissingModelError: It cannot be had, or the package that runs it is not installed; the message holds
            all that is to be done.
        imfbench.weights.DamagedModelError: The file is another one than the published one.
    """
    lacking = [require(model, ask=True)]
    asked = (model, path, os.environ.get(model.variable), *folders())
    place = _found.get(asked)
    if place is None or not place.exists():
        place = locate(model, path)
    if place is None and not _fetching[0]:
        lacking.append(f"{remedy(model)}; a run fetches it from the hub, where there is one")
    elif place is None:
        try:
            place = _hub(model, local=False)
        except Exception as error:  # the hub's client raises many kinds
            lacking.append(f"{remedy(model)} (the hub could not be reached: {type(error).__name__})")
    if told := "; ".join(filter(None, lacking)):
        raise weights.MissingModelError(
            f"the model {model.name!r} ({model.used_by}; {model.gigabytes}, {model.licence}) is not here: {told}"
        )
    if place is None:
        raise weights.MissingModelError(
            f"{model.repository} on the hub is not whole, {_lacking(model, Path())}: {remedy(model)}"
        )
    if path is None:  # a file that somebody gives on purpose is another model, and the signature says so
        verify(model, place)
    _found[asked] = place
    return place


@contextlib.contextmanager
def nothing_fetched() -> Iterator[None]:
    """Within it ``obtain`` finds what is on this machine, and fetches nothing."""
    before, _fetching[0] = _fetching[0], False
    try:
        yield
    finally:
        _fetching[0] = before


def verify(model: Published, place: Path) -> None:
    """Compare the file of weights with the published sum.

    Raises:
        imfbench.weights.DamagedModelError: They differ.
    """
    file = model.weights_in(place)
    if file is None or not model.sha256:
        return
    if (found := weights.sha256(file)) != model.sha256:
        raise weights.DamagedModelError(
            f"{file} is not the published {model.files[0]}: its sha256 is {found[:16]}…, not {model.sha256[:16]}…. "
            "Replace it, or give it as the metric's `path` if another model is meant"
        )


def remedy(model: Published) -> str:
    """Where to put the model, in words."""
    return (
        f"put {'the folder' if model.folder else 'the file'} {model.names[0]} of {model.repository} into the folder that "
        f"--model-dir or {MODEL_DIR} names, or name it in {model.variable}"
    )


def require(model: Published, ask: bool = False) -> str:
    """Check that the package is there that runs the model.

    Args:
        model: The model.
        ask: Give the remedy back, empty if nothing lacks, instead of raising.

    Raises:
        imfbench.weights.MissingModelError: It is not installed.
    """
    if not model.module or installed(model.module):
        return ""
    told = f"`{how_to_install(model.extra)}`"
    if ask:
        return told
    raise weights.MissingModelError(f"the model {model.name!r} needs the package {model.module}: {told}")


def label(name: str, place: Path, model: Published | None = None) -> str:
    """A model in signatures: its name, and the first digits of the sha256 of its weights."""
    file = model.weights_in(place) if model is not None else model_hub.weights_in(place)
    if file is None:
        raise weights.MissingModelError(f"{place} holds no weights: expected one of {', '.join(model_hub.WEIGHTS)}")
    return f"{'_'.join(name.split())}@{model_hub.digest(file)}"


def from_hub(repository: str) -> Path:
    """The folder of a model that is not in ``PUBLISHED``, by its repository.

    Raises:
        imfbench.weights.MissingModelError: It cannot be had.
    """
    return model_hub.any_model(repository, [name for m in PUBLISHED.values() for name in (m.name, *m.aliases)])


def folders() -> list[Path]:
    """The folders of models, the one that was given before the environment's."""
    named = os.environ.get(MODEL_DIR)
    return [*_looked_in, *([Path(named).expanduser()] if named else [])]


def _given(model: Published, path: Path | None) -> Iterator[tuple[Path, str]]:
    if path is not None:
        yield Path(path).expanduser(), "the metric's setting"
    if named := os.environ.get(model.variable):
        yield Path(named).expanduser(), model.variable


def _lacking(model: Published, place: Path) -> str:
    if not place.exists():
        return "it does not exist"
    if not model.folder:
        return f"expected the file {model.files[0]}"
    if not place.is_dir():
        return "expected its folder"
    absent = [name for name in model.needed if not (place / name).is_file()]
    if model.weights_in(place) is None and not absent:
        absent = [" or ".join(model.files)]
    return f"it lacks {', '.join(absent)}"


def _hub(model: Published, local: bool) -> Path | None:
    """The model in the hub's cache, or (not ``local``) from the hub itself."""
    return model_hub.download(
        model.repository, model.files, model.folder, local, lambda place: model.weights_in(place) is not None
    )


def installed(module: str) -> bool:
    """Whether a package is there; it is not imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def state(model: Published) -> dict[str, Any]:
    """What is known of a model on this machine: ``place`` (or None), ``size``, ``sha256``, ``package``, ``problem``.

    Never fetches anything.
    """
    found: dict[str, Any] = {"place": None, "size": None, "sha256": None, "problem": None}
    found["package"] = require(model, ask=True)
    try:
        found["place"] = locate(model)
        if found["place"] is not None:
            file = model.weights_in(found["place"])
            assert file is not None
            found |= {"size": file.stat().st_size, "sha256": weights.sha256(file)}
            verify(model, found["place"])
    except (weights.MissingModelError, weights.DamagedModelError) as error:
        found["problem"] = error
    return found
