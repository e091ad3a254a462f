"""What an utterance's speech is made from: recordings may be replaced under the same names, and then it is other speech."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from functools import partial
from typing import Any

from imfbench.data import Utterance
from imfbench.pipeline.context import Context
from imfbench.store import file_sha256

MADE_FROM = "made_from"
"""In a row of a cell's journal: the sha256 of the prompt's and of the text's own recording, null where there was none."""


def made_from(context: Context, utterance: Utterance) -> dict[str, str | None]:
    """The content of an utterance's recordings; each file is read once in a run."""
    files = {"prompt": utterance.prompt_audio, "target": utterance.target_audio}
    found: dict[str, str | None] = {}
    for what, path in files.items():
        found[what] = None
        with contextlib.suppress(OSError):  # one that cannot be read fails where it is needed
            if path is not None and path.is_file():
                found[what] = context.once(f"sha256:{path}", partial(file_sha256, path))
    return found


def of_other_recordings(context: Context, row: Mapping[str, Any], utterance: Utterance) -> bool:
    """Whether a row was made from a recording that has been replaced; rows that do not tell are taken for what they are."""
    then = row.get(MADE_FROM) or {}
    if not then:
        return False
    now = made_from(context, utterance)
    return any(then.get(what) and now[what] and then[what] != now[what] for what in now)
