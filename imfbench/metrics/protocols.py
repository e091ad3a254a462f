"""Protocols: all that fixes a figure beside the audio and its text, and the presets of other people's scripts.

A protocol says for each language who listens, how it searches and how audio gets to 16 kHz (``Recognition``), what becomes of
the texts (``TextRule``), how utterances make a figure, and which models judge voice and quality. ``PROTOCOLS`` holds ours and
four presets. The presets give the figures of the scripts named in ``source``, as read at those revisions; what the scripts do
with missing files, stereo or audio of more than 30 s is not part of a preset (``docs/protocols.md`` lists it).

Figures of two protocols never stand in one ranking: their signatures differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from imfbench.metrics.recognisers import Decoding
from imfbench.metrics.text_rules import Language, TextRule
from imfbench.registry import UnknownNameError, nearest


@dataclass(frozen=True)
class Recognition:
    """Who listens to a language, and how.

    Attributes:
        recogniser: A key of ``recognisers.RECOGNISERS``; what it names may need an extra of this package.
        model: Its weights: a model of ``imfbench.weights``, or a name or repository that the recogniser takes from the hub.
        decoding: How it searches; None for one that does not (CTC, Paraformer).
        precision: What it computes in; "auto" is int8 on a CPU and float16 on an accelerator (CTranslate2).
        resampler: A key of ``resamplers.RESAMPLERS``: how audio gets to the recogniser's 16 kHz.
    """

    recogniser: str = "faster-whisper"
    model: str = "whisper-base"
    decoding: Decoding | None = field(default_factory=Decoding)
    precision: str = "auto"
    resampler: str = "soxr-hq"


@dataclass(frozen=True)
class Judge:
    """A model that judges the voice (SIM) or the quality (MOS).

    Attributes:
        model: Its name.
        weights: The published file, where there is one.
        resampler: A key of ``resamplers.RESAMPLERS``: how audio gets to 16 kHz.
    """

    model: str
    weights: str = ""
    resampler: str = "soxr-hq"


@dataclass(frozen=True)
class Protocol:
    """All that fixes a figure beside the audio and its text.

    Attributes:
        name: Its name in ``PROTOCOLS``.
        about: One line.
        recognition: Language → who listens.
        text: Language → the text rule; the same languages as ``recognition``.
        aggregate: What ``wer`` is in a summary: the mean of the utterances' WER, or all edits over all words.
        denominator: What a reference counts for in the corpus figure: the words that are compared, or the parts between its
            spaces, of which some may be empty. The WER of an utterance is over the words that are compared in any case.
        decimals: Places that the script prints of a percentage; figures are stored as they are.
        similarity: Who judges the voice, if anybody.
        opinion: Who predicts the MOS, if anybody.
        source: The script, with the revision that was read.
    """

    name: str
    about: str
    recognition: Mapping[Language, Recognition]
    text: Mapping[Language, TextRule]
    aggregate: Literal["corpus", "mean"] = "corpus"
    denominator: Literal["words", "spaces"] = "words"
    decimals: int = 2
    similarity: Judge | None = None
    opinion: Judge | None = None
    source: str = ""

    @property
    def languages(self) -> tuple[Language, ...]:
        """The languages that it knows."""
        return tuple(self.text)

    def rule(self, language: str) -> TextRule:
        """The text rule of a language.

        Raises:
            LanguageError: The protocol does not know the language.
        """
        return self._of(self.text, language)

    def listener(self, language: str) -> Recognition:
        """Who listens to a language; raises as ``rule`` does."""
        return self._of(self.recognition, language)

    @property
    def predictor(self) -> str | None:
        """The registered metric that predicts its MOS, if it has one."""
        return None if self.opinion is None else PREDICTORS.get(self.opinion.model, self.opinion.model)

    def metric_settings(self) -> dict[str, dict[str, Any]]:
        """What it decides: registered metric → its settings."""
        found: dict[str, dict[str, Any]] = {"wer": {"protocol": self.name}}
        if self.similarity is not None:
            found["sim"] = {"backend": self.similarity.model, "resampler": self.similarity.resampler}
        if self.opinion is not None and self.predictor is not None:
            found[self.predictor] = {"resampler": self.opinion.resampler}
        return found

    def text_parts(self, language: str) -> dict[str, Any]:
        """What the text side adds to a signature, ahead of jiwer's version and the aggregate."""
        parts = self.rule(language).parts()
        # Our own signatures are older than this part; what a part does not say holds as it did before there was one.
        return parts if self.denominator == "words" else {**parts, "per": self.denominator}

    def _of(self, known: Mapping[Language, Any], language: str) -> Any:
        for name, found in known.items():
            if name == language:
                return found
        raise LanguageError(
            f"protocol {self.name!r} has no rule for language {language!r}, only for {' and '.join(map(repr, known))}"
        )


PREDICTORS = {"distillmos": "mos", "utmos22-strong": "utmos", "dnsmos": "dnsmos"}
"""Model of a protocol's ``opinion`` → the registered metric that runs it, where it is called otherwise."""


class LanguageError(ValueError):
    """A language that a protocol does not know."""


class UnknownProtocolError(UnknownNameError, ValueError):
    """A name that is no protocol's; the message holds the nearest."""


def protocol_of(protocol: str | Protocol) -> Protocol:
    """The protocol of a name; a protocol is handed back as it is.

    Raises:
        UnknownProtocolError: No such name.
    """
    if isinstance(protocol, Protocol):
        return protocol
    if protocol not in PROTOCOLS:
        raise UnknownProtocolError(f"unknown protocol {protocol!r}: {nearest(protocol, list(PROTOCOLS))}")
    return PROTOCOLS[protocol]


def facts(protocol: Protocol) -> dict[str, str]:
    """All that a protocol fixes, in words: what → value."""
    found = {"protocol": protocol.name, "about": protocol.about, "source": protocol.source or "this package"}
    for language, rule in protocol.text.items():
        listener = protocol.listener(language)
        own = listener.precision == "auto"
        found |= {
            f"{language}: recogniser": f"{listener.recogniser}, {listener.model}",
            f"{language}: precision": "int8 on a CPU, float16 elsewhere" if own else listener.precision,
            **{f"{language}: {what}": value for what, value in _search(listener.decoding).items()},
            f"{language}: resampler": listener.resampler,
            f"{language}: text rule": rule.normaliser,
            f"{language}: units": rule.units,
            f"{language}: apostrophes": rule.apostrophes,
            f"{language}: numbers": rule.numbers,
            f"{language}: hypothesis converted": rule.convert or "no",
        }
    found["aggregate"] = "mean over utterances" if protocol.aggregate == "mean" else "corpus"
    found["denominator"] = "words" if protocol.denominator == "words" else "parts between spaces"
    found["decimals of a percentage"] = str(protocol.decimals)
    for name, judge in (("speaker similarity", protocol.similarity), ("predicted MOS", protocol.opinion)):
        if judge is None:
            found[name] = "none"
        else:
            weights = f" ({judge.weights})" if judge.weights else ""
            found[name] = f"{judge.model}{weights}, resampled by {judge.resampler}"
    return found


def _search(decoding: Decoding | None) -> dict[str, str]:
    if decoding is None:
        return dict.fromkeys(("beam", "temperature", "previous text", "timestamps"), "–")
    return {
        "beam": str(decoding.beam),
        "temperature": ", ".join(f"{value:g}" for value in decoding.temperatures),
        "previous text": "yes" if decoding.previous_text else "no",
        "timestamps": "yes" if decoding.timestamps else "no",
    }


# The settings below are facts about other people's scripts; docs/protocols.md has them as a table, which a test compares.

# Greedy; Whisper's own checks and fallbacks belong to long audio, which these scripts do not decode.
_GREEDY = Decoding(beam=1)
# What faster-whisper does when told no more than the beam: it samples at rising temperatures until its checks are passed.
_FASTER_WHISPER = Decoding(5, (0.0, 0.2, 0.4, 0.6, 0.8, 1.0), previous_text=True, timestamps=True, join=" ")

_LARGE = Recognition("transformers-whisper", "openai/whisper-large-v3", _GREEDY, "float32", "scipy-fft")
_PARAFORMER = Recognition("paraformer", "funasr/paraformer-zh", None, "float32", "torchaudio-sinc")
_HUBERT = Recognition("hubert-ctc", "facebook/hubert-large-ls960-ft", None, "float32", "soxr-hq")

_SEED_EN = TextRule("seed-tts", "words", apostrophes="kept")
_SEED_ZH = TextRule("seed-tts", "characters", apostrophes="kept", convert="zh-cn")

_WAVLM = ("wavlm-large-ecapa", "wavlm_large_finetune.pth")
_UTMOS = ("utmos22-strong", "utmos22_strong_step7459_v1.pt")

PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "imfbench",
            "Ours: reproducible decoding, numbers and contractions alike on both sides, corpus figure.",
            recognition={"en": Recognition(), "zh": Recognition()},
            text={
                "en": TextRule("whisper-en", "words", apostrophes="written out", numbers="digits"),
                "zh": TextRule("whisper-characters", "characters", apostrophes="deleted"),
            },
            similarity=Judge("resemblyzer"),
            opinion=Judge("distillmos"),
        ),
        Protocol(
            "seed-tts-eval",
            "BytedanceSpeech/seed-tts-eval: Whisper large-v3 greedy, apostrophes kept, mean over utterances.",
            recognition={"en": _LARGE, "zh": _PARAFORMER},
            text={"en": _SEED_EN, "zh": _SEED_ZH},
            aggregate="mean",
            decimals=3,
            similarity=Judge(*_WAVLM, "torchaudio-sinc"),
            source="https://github.com/BytedanceSpeech/seed-tts-eval (752f429)",
        ),
        Protocol(
            "f5-tts",
            "SWivid/F5-TTS: faster-whisper large-v3 at beam 5, apostrophes deleted, mean over utterances.",
            recognition={
                "en": Recognition("faster-whisper", "large-v3", _FASTER_WHISPER, "auto", "swresample-s16"),
                "zh": _PARAFORMER,
            },
            text={
                "en": TextRule("seed-tts", "words", apostrophes="deleted"),
                "zh": TextRule("seed-tts", "characters", apostrophes="deleted", convert="zh-cn"),
            },
            aggregate="mean",
            decimals=3,
            similarity=Judge(*_WAVLM, "torchaudio-sinc"),
            opinion=Judge(*_UTMOS, "torchaudio-sinc"),
            source="https://github.com/SWivid/F5-TTS (2ae2c9b)",
        ),
        Protocol(
            "zipvoice",
            "k2-fsa/ZipVoice on Seed-TTS: as seed-tts-eval, and a corpus figure over the parts between spaces.",
            recognition={"en": _LARGE, "zh": _PARAFORMER},
            text={"en": _SEED_EN, "zh": _SEED_ZH},
            aggregate="mean",
            denominator="spaces",
            similarity=Judge(*_WAVLM, "soxr-hq"),
            opinion=Judge(*_UTMOS, "soxr-hq"),
            source="https://github.com/k2-fsa/ZipVoice (2f7326f)",
        ),
        Protocol(
            "zipvoice-librispeech",
            "k2-fsa/ZipVoice on LibriSpeech-PC: HuBERT large, ASCII words, corpus figure; English only.",
            recognition={"en": _HUBERT},
            text={"en": TextRule("ascii-words", "words", apostrophes="kept")},
            denominator="spaces",
            similarity=Judge(*_WAVLM, "soxr-hq"),
            opinion=Judge(*_UTMOS, "soxr-hq"),
            source="https://github.com/k2-fsa/ZipVoice (2f7326f)",
        ),
    )
}
"""Ours and the presets, by name; a plug-in may add its own."""
