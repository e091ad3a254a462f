"""English text to phones, as the embedded corpus writes them: espeak-ng's, in Kokoro's alphabet."""

from __future__ import annotations

import re
from typing import Any

EDGE = "_"
"""The phone before and after every utterance: silence."""

# espeak-ng's IPA (^ is the tie) to Kokoro's alphabet, applied in this order.
_COMMON = [
    ("ʔˌn̩", "tən"), ("ʔn̩", "tən"), ("a^ɪ", "I"), ("a^ʊ", "W"), ("d^ʒ", "ʤ"), ("e^ɪ", "A"), ("t^ʃ", "ʧ"), ("ɔ^ɪ", "Y"),
    ("ə^l", "ᵊl"), ("ɚ", "əɹ"), ("r", "ɹ"), ("x", "k"), ("ç", "k"), ("ɐ", "ə"), ("ɬ", "l"), ("̃", ""),
]  # fmt: skip
_AMERICAN = [("o^ʊ", "O"), ("ɜːɹ", "ɜɹ"), ("ɜː", "ɜɹ"), ("ɪə", "iə"), ("ː", "")]
_BRITISH = [("e^ə", "ɛː"), ("iə", "ɪə"), ("ə^ʊ", "Q"), ("o^ʊ", "Q")]
_LAST = [("^", ""), ("e", "A")]


class TextError(ValueError):
    """A text that cannot be said; the message says why and what to do."""


class PromptError(ValueError):
    """A recording in whose voice nothing can be said; the message says why and what to do."""


class MissingPhonemizerError(RuntimeError):
    """espeak-ng's packages are not installed; the message holds the command that installs them."""


class Phonemizer:
    """English text to phones by espeak-ng (extra ``g2p``; the library comes from ``espeakng-loader``).

    Raises:
        MissingPhonemizerError: The packages are not there.
    """

    def __init__(self) -> None:
        try:
            import espeakng_loader
            from phonemizer.backend import EspeakBackend
            from phonemizer.backend.espeak.wrapper import EspeakWrapper
        except ImportError as error:
            raise MissingPhonemizerError(
                f"text becomes phones by espeak-ng, which is not installed ({error}): pip install 'imfbench[g2p]' "
                "(its licence is GPL-3, which is why it is not installed by itself)"
            ) from None

        EspeakWrapper.set_library(espeakng_loader.get_library_path())
        EspeakWrapper.set_data_path(espeakng_loader.get_data_path())
        options: dict[str, Any] = {
            "preserve_punctuation": True,
            "with_stress": True,
            "tie": "^",
            "words_mismatch": "ignore",
        }
        self._backends = {
            british: EspeakBackend("en-gb" if british else "en-us", **options) for british in (False, True)
        }

    def __call__(self, text: str, british: bool) -> str:
        """Symbols of ``text``, punctuation kept, in the British or American way."""
        ipa = self._backends[british].phonemize([text])[0].strip()
        for source, target in _COMMON + (_BRITISH if british else _AMERICAN) + _LAST:
            ipa = ipa.replace(source, target)
        return re.sub(r"\s+", " ", ipa)

    def phones(self, text: str, british: bool) -> list[str]:
        """The phones of an utterance, silence at its edges included."""
        symbols = list(self(text, british))
        return join_marks([EDGE, *symbols, EDGE], [1] * (len(symbols) + 2))[0]


def join_marks(symbols: list[str], frames: list[int]) -> tuple[list[str], list[int]]:
    """Stress and length marks are symbols with frames of their own; join them to their phone ("ˈ", "ɑ", "ː" → "ˈɑː")."""
    phones: list[str] = []
    counts: list[int] = []
    mark, carried = "", 0
    for symbol, count in zip(symbols, frames, strict=True):
        if symbol in "ˈˌ":
            mark, carried = symbol, carried + count
        elif symbol == "ː" and phones:
            phones[-1] += symbol
            counts[-1] += count
        else:
            phones.append(mark + symbol)
            counts.append(carried + count)
            mark, carried = "", 0
    return phones, counts
