"""What a disk may have against a write, in words for the user: full, read-only, somebody else's."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_UNWRITABLE = (*FULL_DISK, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOTDIR, errno.EEXIST, errno.ENOENT)


class StoreError(RuntimeError):
    """A run folder that cannot be used as asked; the message says what to do."""


def write_fault(error: BaseException | None, kinds: Sequence[int] = _UNWRITABLE) -> OSError | None:
    """The full disk, or whatever else the system had against a write, behind an error; None if there is none behind it.

    Libraries hide it: torch raises a RuntimeError that was raised while the OSError was handled.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in kinds:
            return error
        error = error.__cause__ or error.__context__
    return None


def unwritable(path: Path, error: OSError) -> StoreError:
    """What to tell of a file or folder that cannot be written."""
    remedy = "Make room there, or choose another folder" if error.errno in FULL_DISK else "Choose another folder"
    reason = os.strerror(error.errno or 0)
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        reason = "a file stands where a folder has to be"
    return StoreError(
        f"{path} cannot be written: {reason}. {remedy} (--out, IMFBENCH_CACHE in the environment); what was done before "
        "is kept, and the same command goes on from there"
    )


@contextlib.contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A folder of the same name that takes the place of ``out`` when the block ends well; otherwise nothing is left of it.

    Raises:
        StoreError: The disk is full, the folder cannot be written, and the like.
    """
    made = None
    try:
        # Beside it, so that it can be renamed; inside where it is there, since what is above may be somebody else's.
        near = out if out.is_dir() else out.parent
        near.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=near))
        folder = made / out.resolve().name  # tables have the name of their folder
        folder.mkdir()
        yield folder
        if out.is_dir():
            for path in folder.iterdir():
                path.rename(out / path.name)
        else:
            folder.rename(out)
    except (OSError, StoreError) as error:
        if fault := write_fault(error):
            raise unwritable(out, fault) from error
        raise
    finally:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
