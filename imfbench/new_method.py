"""``imfbench new-method``: a method to begin with, and its test, in files of one's own."""

from __future__ import annotations

import contextlib
import importlib.util
import keyword
import re
import sys
from pathlib import Path

from imfbench.registry import METHODS

TEMPLATES = Path(__file__).parent / "templates"


class NewMethodError(ValueError):
    """A method that cannot be begun as asked; the message says why and what to do."""


def write(name: str, folder: Path) -> tuple[Path, Path]:
    """Write the method's file and its test.

    Args:
        name: What experiments and tables will call it: "my-method".
        folder: Where to; made if it is not there.

    Returns:
        ``my_method.py`` and ``test_my_method.py``.

    Raises:
        NewMethodError: A name that is not allowed or is taken, or a file that is there already.
        StoreError: The folder cannot be written. In either case nothing is written.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise NewMethodError(
            f"{name!r} cannot name a method: use small letters and digits, beginning with a letter, with single hyphens "
            "between words, such as my-method"
        )
    if name in METHODS:
        raise NewMethodError(f"there is a method {name!r} already (imfbench list methods); choose another name")
    module = name.replace("-", "_")
    if keyword.iskeyword(module) or module in sys.stdlib_module_names or importlib.util.find_spec(module) is not None:
        raise NewMethodError(f"{module}.py would hide Python's own {module!r} from its neighbours; choose another name")
    files = folder / f"{module}.py", folder / f"test_{module}.py"
    for file in files:
        if file.exists():
            raise NewMethodError(
                f"{file} is there already: remove it, choose another name, or another folder with --out"
            )
    if folder.exists() and not folder.is_dir():
        raise NewMethodError(f"{folder} is no folder: name another with --out")
    words = {"new-method": name, "new_method": module, "NewMethod": "".join(map(str.capitalize, name.split("-")))}
    from imfbench.store import StoreError, write_text  # brings pandas, for which a refusal need not wait

    try:
        for file, template in zip(files, ("new_method.py", "test_new_method.py"), strict=True):
            text = (TEMPLATES / template).read_text(encoding="utf-8")
            for word, own in words.items():
                text = text.replace(word, own)
            write_text(file, text)
    except StoreError:  # one without the other would be in the way of the same command
        for file in files:
            with contextlib.suppress(OSError):
                file.unlink()
        raise
    return files
