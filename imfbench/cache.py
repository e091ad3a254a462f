"""Where things that can be made again are kept: assembled model files, features, scores."""

from __future__ import annotations

import os
from pathlib import Path


class CacheError(OSError):
    """The cache folder cannot be made; the message says how to name another."""


def cache_folder() -> Path:
    """``$IMFBENCH_CACHE``, by default ``~/.cache/imfbench``; made if it is not there.

    Raises:
        CacheError: It cannot be made.
    """
    folder = Path(os.environ.get("IMFBENCH_CACHE") or Path.home() / ".cache" / "imfbench")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CacheError(
            f"the cache folder {folder} cannot be made ({error.strerror}): set the environment variable IMFBENCH_CACHE to a "
            "folder that can be written"
        ) from None
    return folder
