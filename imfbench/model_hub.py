"""The hub as a source of models: Hugging Face's layout, one file of weights of those that a repository holds."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import getproxies

from imfbench import weights
from imfbench.registry import nearest

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
INDEX = "model.safetensors.index.json"
SMALL = ("*.json", "*.txt", "*.yaml", "*.mvn", "seg_dict")
"""What stands beside the weights."""


def download(
    repository: str, files: Sequence[str], folder: bool, local: bool, holds: Callable[[Path], bool]
) -> Path | None:
    """A model from the hub's cache on this machine or (not ``local``) from the hub.

    Args:
        repository: ``owner/name``.
        files: Files of weights, the first that is there is taken.
        folder: Whether the model is a folder, of which what is small is taken too, or one file.
        local: Whether only the cache is asked.
        holds: Whether a folder holds the model.

    Returns:
        The folder or the file; None if it is not in the cache, or the repository does not hold it.
    """
    from huggingface_hub import hf_hub_download, snapshot_download

    if not local:
        ask()
    try:
        if not folder:
            return Path(hf_hub_download(repository, files[0], local_files_only=local))
        for file in files:
            found = Path(snapshot_download(repository, allow_patterns=[file, *SMALL], local_files_only=local))
            if holds(found):
                return found
    except Exception:  # not in the cache
        if not local:
            raise
    return None


def any_model(repository: str, known: Sequence[str]) -> Path:
    """The folder of any model of Hugging Face's layout, by its repository.

    Args:
        repository: ``owner/name``.
        known: Names that may have been meant by another one.

    Raises:
        imfbench.weights.MissingModelError: It cannot be had.
    """
    if "/" not in repository:
        raise weights.MissingModelError(
            f"unknown model {repository!r}: {nearest(repository, list(known))} Or give a folder, or a hub repository as "
            "'owner/name'"
        )
    wanted = ("model*.safetensors*", "pytorch_model*.bin*")
    try:
        found = download(
            repository, wanted, folder=True, local=False, holds=lambda place: weights_in(place) is not None
        )
    except Exception as error:  # the hub's client raises many kinds
        raise weights.MissingModelError(
            f"{repository!r} could not be fetched from the hub ({type(error).__name__}); without internet, give its folder"
        ) from error
    if found is None:
        raise weights.MissingModelError(f"{repository!r} on the hub holds neither of {', '.join(WEIGHTS)}")
    return found


def weights_in(place: Path) -> Path | None:
    """The file of weights in a folder of whatever layout, or the list of its parts; None if there is none."""
    return next((place / name for name in (*WEIGHTS, INDEX, "model.pt", "model.bin") if (place / name).is_file()), None)


def digest(file: Path) -> str:
    """The first digits of the sha256 of a file of weights; of its parts, where the file is their list."""
    if file.name != INDEX:
        return weights.sha256(file)[:8]
    parts = sorted(file.parent.glob("model-*.safetensors"))
    return hashlib.sha256("".join(map(weights.sha256, parts)).encode()).hexdigest()[:8]


def ask() -> None:
    """Fail at once where the hub's name leads nowhere: its own client tries for half a minute, for every model.

    Raises:
        ConnectionError: There is no way to the hub.
    """
    from huggingface_hub import constants

    host = urlparse(constants.ENDPOINT).hostname
    if host is None or getproxies():  # a proxy knows names that this machine does not
        return
    try:
        socket.getaddrinfo(host, None)
    except OSError as error:
        raise ConnectionError(f"the name {host} leads nowhere") from error
