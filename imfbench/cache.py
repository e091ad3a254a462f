"""Where things that can be made again are kept: assembled model files, features, scores."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """``$IMFBENCH_CACHE``, by default ``~/.cache/imfbench``; made if it is not there."""
    folder = Path(os.environ.get("IMFBENCH_CACHE") or Path.home() / ".cache" / "imfbench")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
