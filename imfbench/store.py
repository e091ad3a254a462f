"""Run folders: atomic writes, journals, a lock, and content hashes.

Every write goes to a temporary name in the same folder and is renamed, so a killed run leaves whole files or none. What
cannot be renamed into place, a table that grows row by row, is a journal: one JSON object a line, flushed to the disk, whose
torn last line is cut off when it is opened again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from imfbench.disk import StoreError, unwritable, write_fault

APART = Path("cells", ".apart")
"""In a run folder: the rows that its last command did not ask for."""

_TEMPORARY = ".imfbench-"
_LEFT_BY_A_KILL = re.compile(re.escape(_TEMPORARY) + r"[a-z0-9_]{8}(\.[\w-]+)?")


# --- content hashes ---------------------------------------------------------------------------------------------------


def content_hash(*values: Any) -> str:
    """sha256 (hex) over the contents of nested values: the key of everything that is addressed by content.

    Types and shapes are part of the hash: 1, 1.0, "1" and [1] all differ. Accepts None, bool, int, float, str, bytes, arrays,
    sequences and mappings (in any order of keys).

    Raises:
        TypeError: A value whose content cannot be known from the value, such as a path or an open file.
    """
    digest = hashlib.sha256()
    _feed(digest, list(values))
    return digest.hexdigest()


def _feed(digest: Any, value: Any) -> None:
    if isinstance(value, np.generic):
        _feed(digest, value.item())
    elif value is None or isinstance(value, bool | int | float | str):
        text = repr(float(value)) if isinstance(value, float) else str(value)
        data = text.encode()
        digest.update(f"{type(value).__name__}:{len(data)}:".encode() + data)
    elif isinstance(value, bytes):
        digest.update(f"bytes:{len(value)}:".encode() + value)
    elif isinstance(value, np.ndarray):
        digest.update(f"array:{value.dtype.str}:{value.shape}:".encode() + np.ascontiguousarray(value).tobytes())
    elif isinstance(value, Mapping):
        digest.update(f"mapping:{len(value)}:".encode())
        for key in sorted(value, key=str):
            _feed(digest, str(key))
            _feed(digest, value[key])
    elif isinstance(value, Sequence):
        digest.update(f"sequence:{len(value)}:".encode())
        for entry in value:
            _feed(digest, entry)
    else:
        raise TypeError(f"cannot hash the content of a {type(value).__name__}: {value!r}")


def natural(name: str) -> list[tuple[int, int | str]]:
    """A sorting key that takes digits as numbers: k2 before k16."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.findall(r"\d+|\D+", name)]


def file_sha256(path: Path) -> str:
    """sha256 (hex) of a file's bytes."""
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


# --- atomic writes ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` with the same ending; renamed to ``path`` when the block ends well.

    Raises:
        StoreError: The disk is full, the folder cannot be written, and the like; ``path`` is as it was before.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=_TEMPORARY, suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        # mkstemp makes files for their owner alone; results are for everyone whom the user's umask allows.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        os.replace(temporary, path)
    except Exception as error:
        if fault := write_fault(error):
            raise unwritable(path, fault) from error
        raise
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all; NaN and infinities become null, as JSON has no words for them."""
    write_text(path, json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """What ``write_json`` wrote, or None where there is no file.

    Raises:
        StoreError: The file holds something else.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    except ValueError as error:
        raise StoreError(
            f"{path} is damaged ({error}): remove it, and the same command makes it again from what lies beside it"
        ) from None


def write_parquet(path: Path, frame: pd.DataFrame) -> None:
    """Write a table whole or not at all."""
    with atomic(path) as temporary:
        frame.to_parquet(temporary, index=False)


def plain(value: Any) -> Any:
    """``value`` in JSON's own types: arrays become lists, paths strings, NaN null."""
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(entry) for entry in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)


# --- journals ---------------------------------------------------------------------------------------------------------


class Journal:
    """A table that grows row by row and survives a kill at any moment; a later row of the same id replaces an earlier one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self) -> dict[str, dict[str, Any]]:
        """The rows by id, in the order of their first writing; a torn last line is ignored.

        Raises:
            StoreError: A line is no row.
        """
        found: dict[str, dict[str, Any]] = {}
        if self.path.exists():
            for number, line in enumerate(self._whole().split(b"\n")[:-1], 1):
                try:
                    row = json.loads(line)
                    found[row["id"]] = row
                except (ValueError, TypeError, KeyError):
                    raise StoreError(
                        f"{self.path}, line {number} is damaged: remove that line, and the same command makes its utterance "
                        "again"
                    ) from None
        return found

    def replace(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write these rows in place of all others, whole or not at all."""
        write_text(
            self.path, "".join(json.dumps(plain(row), ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
        )

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row and have it on the disk before going on.

        Raises:
            StoreError: The disk is full, and the like; the rows before are whole.
        """
        line = json.dumps(plain(row), ensure_ascii=False, allow_nan=False) + "\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.exists():
                whole = self._whole()
                if len(whole) != self.path.stat().st_size:
                    os.truncate(self.path, len(whole))
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise unwritable(self.path, error) from error

    def _whole(self) -> bytes:
        data = self.path.read_bytes()
        return data[: data.rfind(b"\n") + 1]


# --- run folders ------------------------------------------------------------------------------------------------------


class RunFolder:
    """``runs/<name>/``: where one experiment leaves everything.

    experiment.yaml, manifest.json, ``artefacts/<name>/``, ``grids/<name>.json``, ``cells/<key>/`` (cell.json,
    utterances.jsonl, utterances.parquet, summary.json, audio/), and the reports: ``leaderboard/``, ``report/``,
    ``tensorboard/``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.experiment = path / "experiment.yaml"
        self.manifest = path / "manifest.json"
        self.leaderboard = path / "leaderboard"

    def artefact(self, name: str) -> Path:
        """Folder of a trained network."""
        return self.path / "artefacts" / name

    def grid(self, name: str) -> Path:
        """File of a searched time grid."""
        return self.path / "grids" / f"{name}.json"

    def cell(self, key: str) -> CellFolder:
        """Folder of one cell of the leaderboard."""
        return CellFolder(self.path / "cells" / key)

    def show_only(self, keys: Iterable[str]) -> list[str]:
        """Set cells apart (``cells/.apart/``) that the experiment no longer asks for, and bring back those it asks for again.

        Nothing is lost when an experiment is changed and changed back, and no report shows a row that was not asked for.

        Returns:
            Keys of the cells that were set apart now.
        """
        shown, apart, wanted = self.path / "cells", self.path / APART, set(keys)
        moved = []
        for here, there, move in ((shown, apart, lambda k: k not in wanted), (apart, shown, lambda k: k in wanted)):
            for path in sorted(here.glob("*")):
                if (
                    path.is_dir()
                    and not path.name.startswith(".")
                    and move(path.name)
                    and not (there / path.name).exists()
                ):
                    there.mkdir(parents=True, exist_ok=True)
                    path.rename(there / path.name)
                    if there == apart:
                        moved.append(path.name)
        return moved

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder: two runs in one folder would write over each other.

        Raises:
            StoreError: Another process holds it, or it cannot be made or written.
        """
        owner, made = self.path / ".owner", False
        lock = FileLock(self.path / ".lock")
        try:
            made = not self.path.exists()
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            who = owner.read_text().strip() if owner.exists() else "another process"
            raise StoreError(
                f"the run folder {self.path} is in use by {who}: wait until it ends, or give this run another folder "
                "with --out"
            ) from None
        except OSError as error:
            raise unwritable(self.path, error) from None
        try:
            write_text(owner, f"process {os.getpid()}\n")
            self._sweep()
            yield
        finally:
            with contextlib.suppress(OSError):
                owner.unlink(missing_ok=True)
            if made:  # and nothing was written: a run that was refused leaves no folder
                self._remove_if_empty()
            lock.release()

    def _remove_if_empty(self) -> None:
        with contextlib.suppress(OSError):
            if [path.name for path in self.path.iterdir()] == [".lock"]:
                (self.path / ".lock").unlink()
                self.path.rmdir()

    def _sweep(self) -> None:
        """Remove temporary files that a killed process left: whoever holds the lock is the only one who writes here."""
        parts = ("artefacts", "cells", "grids", "leaderboard", "report", "tensorboard")
        below = (path for part in parts for path in (self.path / part).rglob(".*"))
        for path in [
            *self.path.glob(".*"),
            *below,
        ]:  # not the folders of further experiments, which have locks of their own
            if path.is_file() and _LEFT_BY_A_KILL.fullmatch(path.name):
                path.unlink(missing_ok=True)


def parts_of(run: Path) -> list[Path]:
    """The folders of the experiments that a run has besides its own: those that its manifest names, and all that are there where
    it does not say (runs of before it did, and folders that hold several runs)."""
    found = sorted(path.parent for path in run.glob("*/experiment.yaml"))
    try:
        named = json.loads((run / "manifest.json").read_text(encoding="utf-8"))["parts"]
    except (OSError, ValueError, KeyError, TypeError):
        return found
    return [path for path in found if path.name in named]


class CellFolder:
    """``cells/<key>/``: one system, sampled one way, on one set."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.key = path.name
        self.identity = path / "cell.json"
        self.summary = path / "summary.json"
        self.table = path / "utterances.parquet"
        self.journal = Journal(path / "utterances.jsonl")

    def audio(self, utterance_id: str) -> Path:
        """The audio file of an utterance. Ids are made safe for file names; the hash keeps different ids apart."""
        safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in utterance_id)
        name = safe if safe == utterance_id else f"{safe}-{content_hash(utterance_id)[:8]}"
        return self.path / "audio" / f"{name}.flac"
