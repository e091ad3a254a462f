"""The files of CosyVoice2-0.5B that stand around its flow, and where each is looked for.

A path of the user's comes first, a file or the model's folder; then the places of every published model
(:mod:`imfbench.published`): an environment variable, the folder of models, the hub.
"""

from __future__ import annotations

from pathlib import Path

from imfbench import published, weights
from imfbench.published import Published

REPOSITORY = "FunAudioLLM/CosyVoice2-0.5B"


def _file(name: str, file: str, used_by: str, size: int, sha256: str = "") -> Published:
    names = (f"CosyVoice2-0.5B/{file}", f"{REPOSITORY}/{file}", file)
    return Published(name, used_by, REPOSITORY, (file,), names, "Apache-2.0", size, sha256=sha256, folder=False)


TOKENIZER = _file(
    "cosyvoice2-tokenizer", "speech_tokenizer_v2.onnx", "S3 tokens of CosyVoice 2", 496_000_000,
    "d43342aa12163a80bf07bffb94c9de2e120a8df2f9917cd2f642e7f4219c6f71",
)  # fmt: skip
"""The sum is the one that the package ``s3tokenizer`` prints."""
CAMPPLUS = _file("cosyvoice2-campplus", "campplus.onnx", "speaker vectors of CosyVoice 2", 28_300_000)
HIFT = _file("cosyvoice2-hift", "hift.pt", "the vocoder hift", 83_400_000)


def find(model: Published, path: Path | None = None) -> Path:
    """The file of a model.

    Args:
        model: One of this module's.
        path: The user's file, or the folder that holds it under its published name.

    Raises:
        imfbench.weights.MissingModelError: It is not there; the message says where it may be put.
        imfbench.weights.DamagedModelError: It is not the published one, where that one's sum is known and no path was given.
    """
    if path is None:
        return published.obtain(model)
    place = Path(path).expanduser()
    file = place / model.files[0] if place.is_dir() else place
    if not file.is_file():
        raise weights.MissingModelError(
            f"{file}, {model.used_by}, does not exist: give the {model.files[0]} of {model.repository}, or its folder"
        )
    return file
