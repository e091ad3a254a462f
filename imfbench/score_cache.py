"""The score cache: what models said about audio, addressed by the content of all that was read.

``scores/<metric>/<model>/<key>``: a folder for each metric, in it one for each model (by the hash of its signature), so that
what lies there can be counted and cleared without being opened. An entry is a small file of two lines, a header that names key,
model and the sha256 of the second line, and the observation. What does not fit its header is damaged: it is told, and made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from imfbench.cache import cache_folder
from imfbench.disk import StoreError
from imfbench.store import content_hash, write_bytes

log = logging.getLogger("imfbench")
EARLIER = "earlier"
"""What entries of the layout before this one are counted under; they are never read."""
_MOST_TOLD = 5
_ENTRY = re.compile(r"[0-9a-f]{64}\.jsonl")
_EARLIER_ENTRY = re.compile(r"[0-9a-f]{64}\.json")
_METRIC = re.compile(r"[a-z][a-z0-9_.-]*?(?=-v\d)")


@dataclass(frozen=True)
class Section:
    """The entries of one model of one metric.

    Attributes:
        metric: Its name in signatures.
        model: The signature of its model; empty where no entry could be read.
        entries: How many there are.
        bytes: Their size.
    """

    metric: str
    model: str
    entries: int
    bytes: int


class ScoreCache:
    """What models said about audio, addressed by the content of everything that was read, never by a file's name.

    Keys are a metric's ``cache_key``: its model's signature and the sha256 of every input. Entries are written atomically, so
    that runs side by side may share the folder. Failures are not kept.

    Args:
        folder: Where the entries lie; ``cache_folder() / "scores"`` by default.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cache_folder() / "scores"
        self._unwritable_told = False
        self._damage_told: set[Path] = set()

    def get(self, key: str, model: str) -> dict[str, Any] | None:
        """The entry, or None; one that is damaged or cannot be read counts as absent, and a warning names it.

        Args:
            key: The metric's ``cache_key``.
            model: Signature of the metric's model.
        """
        path = self._path(key, model)
        try:
            header, _, body = path.read_bytes().partition(b"\n")
            about = json.loads(header)
            if (about["key"], about["model"]) != (key, model):
                raise ValueError("it is another entry")
            if hashlib.sha256(body).hexdigest() != about["sha256"]:
                raise ValueError("it does not have the sha256 that it was written with")
            found: dict[str, Any] = json.loads(body)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._tell(path, f"cannot be read ({error.strerror})")
            return None
        except (ValueError, KeyError, TypeError) as error:
            known = str(error) if type(error) is ValueError else "it is cut short, or another program's file"
            self._tell(path, f"is damaged ({known})")
            return None
        return found

    def put(self, key: str, entry: Mapping[str, Any], model: str) -> dict[str, Any]:
        """Keep an entry; returns it as ``get`` will, so that a fresh and a cached one lead to the same figures.

        A cache that cannot be written costs time later, nothing else: it is told once.
        """
        body = json.dumps(_listed(entry), ensure_ascii=False).encode()
        header = {"key": key, "model": model, "sha256": hashlib.sha256(body).hexdigest()}
        try:
            write_bytes(self._path(key, model), json.dumps(header, ensure_ascii=False).encode() + b"\n" + body)
        except (StoreError, OSError) as error:
            if not self._unwritable_told:
                log.warning("scores are not cached: %s", error)
            self._unwritable_told = True
        found: dict[str, Any] = json.loads(body)
        return found

    def sections(self) -> list[Section]:
        """What lies here, by metric and model; entries of an earlier layout come last."""
        counted: dict[tuple[str, str], list[int]] = {}
        models: dict[tuple[str, str], str] = {}
        for metric, model, path in self._entries():
            with contextlib.suppress(FileNotFoundError):  # another process may clear it meanwhile
                sizes = counted.setdefault((metric, model), [])
                sizes.append(path.stat().st_size)
            if not models.get((metric, model)):
                models[metric, model] = _model_of(path)
        found = [Section(m, models[m, model], len(sizes), sum(sizes)) for (m, model), sizes in counted.items()]
        return sorted(found, key=lambda s: (s.metric == EARLIER, s.metric, s.model))

    def clear(self, metrics: Collection[str] | None = None) -> Section:
        """Remove entries, and nothing else that may lie in the folder.

        Args:
            metrics: Names as in ``sections``; None removes all.

        Returns:
            How many were removed, and how many bytes.

        Raises:
            StoreError: One cannot be removed.
        """
        removed = size = 0
        for metric, _, path in list(self._entries()):
            if metrics is not None and metric not in metrics:
                continue
            try:
                bytes_ = path.stat().st_size
                path.unlink()
            except FileNotFoundError:
                continue
            except OSError as error:
                raise StoreError(f"{path} cannot be removed: {error.strerror}") from None
            removed, size = removed + 1, size + bytes_
        for where, _, _ in os.walk(self.folder, topdown=False):
            with contextlib.suppress(OSError):  # what is not empty stays
                os.rmdir(where)
        return Section(", ".join(sorted(metrics)) if metrics is not None else "", "", removed, size)

    def _entries(self) -> Iterator[tuple[str, str, Path]]:
        """Metric, folder of the model and file of each entry."""
        for where, _, files in os.walk(self.folder):
            parts = Path(where).relative_to(self.folder).parts
            for name in files:
                if len(parts) == 3 and _ENTRY.fullmatch(name):
                    yield parts[0], parts[1], Path(where, name)
                elif len(parts) == 1 and parts[0] == name[:2] and _EARLIER_ENTRY.fullmatch(name):
                    yield EARLIER, "", Path(where, name)

    def _path(self, key: str, model: str) -> Path:
        metric = _METRIC.match(model)
        return self.folder / (metric[0] if metric else "other") / content_hash(model)[:12] / key[:2] / f"{key}.jsonl"

    def _tell(self, path: Path, what: str) -> None:
        if path in self._damage_told:
            return
        self._damage_told.add(path)
        if len(self._damage_told) <= _MOST_TOLD:
            log.warning("the entry %s of the score cache %s: its score is made again", path, what)
        elif len(self._damage_told) == _MOST_TOLD + 1:
            log.warning("more entries of the score cache are damaged, and are not named; their scores are made again")


def _model_of(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return str(json.loads(file.readline())["model"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _listed(value: Any) -> Any:
    """JSON types as in ``store.plain``, but with NaN kept: an observation must come back from the cache as it went in."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _listed(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_listed(entry) for entry in value]
    return value
