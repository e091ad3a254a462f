"""Text rules of word error rates: a text → the units that are compared, separated by spaces.

A rule is a normaliser and what it is told about apostrophes and script. The four that ship:

- ``whisper-en``, ``whisper-characters``: Whisper's English rules (numbers to digits, contractions, spelling), and its basic
  rules followed by a split into characters. Ours.
- ``seed-tts``: punctuation is deleted, not replaced by a space, so that "well-known" becomes one word. Numbers stay as they are.
  Of BytedanceSpeech/seed-tts-eval; F5-TTS and ZipVoice took it over, each with its own view of the apostrophe.
- ``ascii-words``: all but ASCII letters, digits and apostrophes becomes a space. Of ZipVoice's LibriSpeech path.

What a rule leaves of white space is kept in its result, since the originals hand it on as it is; ``jiwer``, which counts the
edits, then joins runs of it and strips the ends, but takes a single tab for a part of a word.
"""

from __future__ import annotations

import importlib.metadata
import re
import string
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from imfbench.weights import MissingModelError

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")
Side = Literal["reference", "hypothesis"]


def _spans(*spans: tuple[int, int]) -> str:
    return "".join(chr(code) for first, last in spans for code in range(first, last + 1))


CHINESE_PUNCTUATION = _spans(
    (0x00B7, 0x00B7),  # middle dot
    (0x2013, 0x2014),  # en and em dash; neither the hyphen U+2010 nor the minus sign
    (0x2018, 0x2019),  # curly single quotes, of which the second is also the curly apostrophe
    (0x201B, 0x201F),  # reversed and double quotes; the low single quote U+201A is left out
    (0x2026, 0x2027),  # ellipsis, hyphenation point
    (0x3000, 0x3003),  # ideographic space, comma, full stop, ditto mark
    (0x3008, 0x3011),
    (0x3014, 0x301F),  # brackets, wave dash, primes
    (0x3030, 0x3030),
    (0x303E, 0x303F),
    (0xFE4F, 0xFE4F),
    (0xFE51, 0xFE51),
    (0xFE54, 0xFE54),
    (0xFF01, 0xFF0F),  # full-width forms of ASCII's punctuation, the apostrophe among them
    (0xFF1A, 0xFF20),
    (0xFF3B, 0xFF40),
    (0xFF5B, 0xFF64),
)
"""The 82 characters that the package zhon (2.x) calls Chinese punctuation, which the originals delete in English texts too.
They stand here by code point, so that English needs no package for them; a test compares them with zhon's. zhon 1.1.5 lacked
one of them, the full-width full stop U+FF0E."""


@dataclass(frozen=True)
class TextRule:
    """How a text becomes the units that are compared.

    Attributes:
        normaliser: A key of ``NORMALISERS``.
        units: What is counted.
        apostrophes: Whether they are kept, deleted ("don't" → "dont") or written out with their contraction ("do not").
            For the rules that keep or delete them this is the straight one; of the curly one see ``docs/protocols.md``.
        numbers: Whether "twenty one" becomes "21".
        convert: The script that the **hypothesis alone** is converted to, in zhconv's words; None leaves both sides alone.
    """

    normaliser: str
    units: Literal["words", "characters"] = "words"
    apostrophes: Literal["kept", "deleted", "written out"] = "kept"
    numbers: Literal["as written", "digits"] = "as written"
    convert: str | None = None

    def normalise(self, text: str, side: Side = "reference") -> str:
        """The units of a text, separated by spaces.

        Args:
            text: As it was to be said, or as it was heard.
            side: Which of both; the script of a reference is never converted.

        Raises:
            imfbench.weights.MissingModelError: The package that converts scripts is not installed.
        """
        if self.convert is not None and side == "hypothesis":
            text = _converter()(text, self.convert)
        return _opened(self)(text)

    def parts(self) -> dict[str, Any]:
        """The rule's parts of a signature.

        Raises:
            imfbench.weights.MissingModelError: The package that converts scripts is not installed.
        """
        normaliser = NORMALISERS[self.normaliser]
        parts: dict[str, Any] = {"norm": normaliser.name()}
        if normaliser.reads_apostrophes:
            parts["apostrophes"] = self.apostrophes
        if self.convert is not None:
            _converter()  # no figure can be made without it, so it gets no signature either
            parts["convert"] = f"{self.convert}@zhconv{_version('zhconv')}"
        return parts


@dataclass(frozen=True)
class Normaliser:
    """A text rule's function.

    Attributes:
        name: Its name in signatures, with the version of the package that defines it.
        open: Gives the function for a rule; called once, when the first text comes.
        reads_apostrophes: Whether it does as ``TextRule.apostrophes`` says; with others the word only describes.
    """

    name: Callable[[], str]
    open: Callable[[TextRule], Callable[[str], str]]
    reads_apostrophes: bool = False


def _whisper_english(_rule: TextRule) -> Callable[[str], str]:
    from whisper_normalizer.english import EnglishTextNormalizer

    normalise = EnglishTextNormalizer()
    # It leaves a stop of "...", which would count as a word.
    return lambda text: " ".join(word for word in normalise(text).split() if any(map(str.isalnum, word)))


def _whisper_characters(_rule: TextRule) -> Callable[[str], str]:
    from whisper_normalizer.basic import BasicTextNormalizer

    normalise = BasicTextNormalizer()
    return lambda text: " ".join("".join(normalise(text).split()))


def _seed_tts(rule: TextRule) -> Callable[[str], str]:
    deleted = set(CHINESE_PUNCTUATION + string.punctuation)
    if rule.apostrophes == "kept":
        deleted.remove("'")
    table = dict.fromkeys(map(ord, deleted))

    def normalise(text: str) -> str:
        # One pass, as in the original: of three spaces two are left.
        text = text.translate(table).replace("  ", " ")
        return " ".join(text) if rule.units == "characters" else text.lower()

    return normalise


def _ascii_words(_rule: TextRule) -> Callable[[str], str]:
    straight = str.maketrans("‘’", "''")
    return lambda text: re.sub(r"[^a-z0-9']+", " ", text.translate(straight).lower()).strip()


def _version(package: str) -> str:
    return importlib.metadata.version(package)


@lru_cache(maxsize=1)
def _converter() -> Callable[[str, str], str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pkg_resources, which it asks for when it is there
            import zhconv
    except ImportError:
        raise MissingModelError(
            "this protocol converts what was heard to simplified characters, by a package that is not installed: "
            "`pip install 'imfbench[zh]'` (zhconv; its table is under the GPL, version 2 or later)"
        ) from None
    convert: Callable[[str, str], str] = zhconv.convert
    return convert


@lru_cache(maxsize=64)
def _opened(rule: TextRule) -> Callable[[str], str]:
    return NORMALISERS[rule.normaliser].open(rule)


NORMALISERS: dict[str, Normaliser] = {
    "whisper-en": Normaliser(lambda: f"whisper-en@{_version('whisper-normalizer')}", _whisper_english),
    "whisper-characters": Normaliser(
        lambda: f"whisper-characters@{_version('whisper-normalizer')}", _whisper_characters
    ),
    "seed-tts": Normaliser(lambda: "seed-tts@zhon2", _seed_tts, reads_apostrophes=True),
    "ascii-words": Normaliser(lambda: "ascii-words", _ascii_words),
}
