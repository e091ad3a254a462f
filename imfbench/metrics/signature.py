"""Signatures: the string beside every figure that pins how the figure was made.

``wer-v1|asr:faster-whisper-base@d01c3014|compute:int8|beam:5|agg:corpus``: the metric, the revision of its scorer (not
the release of this package: a release that changes no figure orphans no result), then what the figure depends on, in
the order in which the metric names it. Figures with different signatures are never ranked together. The idea is
sacrebleu's.
"""

from __future__ import annotations

import re

_HEAD = re.compile(r"(?P<metric>[a-z][a-z0-9_.-]*)-v(?P<version>\d+)")
# "metric" and "version" name the head, so no part may.
_KEY = re.compile(r"(?!(?:metric|version)$)[a-z][a-z0-9_]*")

Part = str | int | float | bool


class SignatureError(ValueError):
    """A signature that cannot be written, or a text that is none."""


class Signature(str):
    """A metric's signature; it is a string, so it compares, hashes and serialises as one.

    Args:
        metric: The metric's name, lower case ("wer").
        version: The scorer's revision; raise it whenever the same input would get another figure.
        parts: What the figure depends on, in order. Truth values are written "yes" and "no". None is not allowed: a
            part that does not apply is left out.

    Raises:
        SignatureError: A name or value that could not be read back.

    Example:
        >>> Signature("wer", 1, asr="faster-whisper-base@d01c3014", beam=5, agg="corpus")
        'wer-v1|asr:faster-whisper-base@d01c3014|beam:5|agg:corpus'
    """

    __slots__ = ()

    def __new__(cls, metric: str, version: int, **parts: Part) -> Signature:
        """Write the signature down."""
        head = f"{metric}-v{version}"
        if not _HEAD.fullmatch(head):
            raise SignatureError(
                f"{head!r} cannot head a signature: the metric is a lower-case word and the version a whole number"
            )
        return super().__new__(cls, "|".join([head, *(f"{key}:{_written(key, part)}" for key, part in parts.items())]))

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        # Copies and pickles are plain strings: they need no import of this module to be read.
        return str, (str(self),)

    @property
    def metric(self) -> str:
        """The metric's name."""
        return parse(self)[0]

    @property
    def version(self) -> int:
        """The scorer's revision."""
        return parse(self)[1]

    @property
    def parts(self) -> dict[str, str]:
        """The parts as written, in order."""
        return parse(self)[2]


def parse(text: str) -> tuple[str, int, dict[str, str]]:
    """Metric, version and parts of a written signature.

    Raises:
        SignatureError: The text is not a signature.
    """
    head, *rest = text.split("|")
    found = _HEAD.fullmatch(head)
    pairs = [part.partition(":") for part in rest]
    parts = {key: value for key, _, value in pairs}
    if found is None or len(parts) < len(pairs) or any(not colon or not _KEY.fullmatch(key) for key, colon, _ in pairs):
        raise SignatureError(f"{text!r} is not a signature; one looks like 'wer-v1|asr:faster-whisper-base|agg:corpus'")
    return found["metric"], int(found["version"]), parts


def differences(first: str, second: str) -> dict[str, tuple[str | None, str | None]]:
    """What keeps two signatures from being compared: part → (first's value, second's), None where a side lacks it.

    The metric and its version count as parts called "metric" and "version". Empty if and only if every part agrees, in
    which case the figures may be ranked together.
    """
    sides: list[dict[str, str]] = []
    for text in (first, second):
        metric, version, parts = parse(text)
        sides.append({"metric": metric, "version": str(version), **parts})
    keys = dict.fromkeys([*sides[0], *sides[1]])
    return {key: (sides[0].get(key), sides[1].get(key)) for key in keys if sides[0].get(key) != sides[1].get(key)}


def _written(key: str, part: Part) -> str:
    if not _KEY.fullmatch(key):
        raise SignatureError(
            f"{key!r} cannot name a part of a signature: use lower-case letters, digits and underscores"
        )
    text = {True: "yes", False: "no"}[part] if isinstance(part, bool) else str(part)
    if part is None or not text or "|" in text or any(character.isspace() for character in text):
        raise SignatureError(
            f"the part {key}:{part!r} cannot stand in a signature: it is empty, or holds '|' or a space"
        )
    return text
