"""imfbench: the laboratory and the measuring stick of few-step text-to-speech."""

from pathlib import Path as _Path

_here = _Path(__file__).parent
# In a clone `methods`, `datasets` and `reports` lie beside this folder, not in it: `python -m imfbench` finds them there.
if not (_here / "methods").exists() and (_here.parent / "methods" / "__init__.py").is_file():
    __path__.append(str(_here.parent))
