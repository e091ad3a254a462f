"""Word error rate by speech recognition: corpus-level, mean over utterances, share of utterances above one half.

A WER means little without its protocol: recogniser, decoding, text normalisation, aggregation. ``Protocol`` fixes them
and ``PROTOCOLS`` names those that ship. Ours decodes with temperature 0, no conditioning on previous text and no
timestamps: with faster-whisper's default temperature fallback, which samples, the same audio can score differently
twice, and with timestamps Whisper hears "You" in silence.

For Chinese the same columns hold characters instead of words (CER). Traditional characters are not converted.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import field_validator

from imfbench.features.audio import RESAMPLER
from imfbench.metrics.base import (
    Metric,
    MetricConfig,
    ScoreError,
    ScoreItem,
    by_utterance,
    clip,
    interval_columns,
)
from imfbench.metrics.recognisers import RECOGNISERS, Decoding
from imfbench.metrics.signature import Signature
from imfbench.registry import nearest

if TYPE_CHECKING:
    import pandas as pd

SAMPLE_RATE = 16000
Language = Literal["en", "zh"]


@dataclass(frozen=True)
class Normaliser:
    """Text → the units that are compared, separated by single spaces.

    Attributes:
        name: Its name in signatures, with the version of the package that defines it.
        open: Gives the function; called once, when the first text comes.
    """

    name: Callable[[], str]
    open: Callable[[], Callable[[str], str]]


def _whisper_english() -> Callable[[str], str]:
    from whisper_normalizer.english import EnglishTextNormalizer

    normalise = EnglishTextNormalizer()
    # It leaves a stop of "...", which would count as a word.
    return lambda text: " ".join(word for word in normalise(text).split() if any(map(str.isalnum, word)))


def _whisper_characters() -> Callable[[str], str]:
    from whisper_normalizer.basic import BasicTextNormalizer

    normalise = BasicTextNormalizer()
    return lambda text: " ".join("".join(normalise(text).split()))


def _version(package: str, places: int | None = None) -> str:
    version = importlib.metadata.version(package)
    return version if places is None else ".".join(version.split(".")[:places])


NORMALISERS: dict[str, Normaliser] = {
    "whisper-en": Normaliser(lambda: f"whisper-en@{_version('whisper-normalizer')}", _whisper_english),
    "whisper-characters": Normaliser(
        lambda: f"whisper-characters@{_version('whisper-normalizer')}", _whisper_characters
    ),
}
"""Whisper's English rules (numbers, contractions, spelling); its basic rules, then a split into characters."""


@dataclass(frozen=True)
class Protocol:
    """All that fixes a WER beside the recogniser's weights.

    Attributes:
        recogniser: A key of ``recognisers.RECOGNISERS``.
        decoding: How it searches.
        normalisers: Language → key of ``NORMALISERS``.
        aggregate: What ``wer`` holds in a summary: all edits over all words, or the mean of the utterances' WER.
    """

    recogniser: str = "faster-whisper"
    decoding: Decoding = field(default_factory=Decoding)
    normalisers: Mapping[str, str] = field(default_factory=lambda: {"en": "whisper-en", "zh": "whisper-characters"})
    aggregate: Literal["corpus", "mean"] = "corpus"


PROTOCOLS: dict[str, Protocol] = {"imfbench": Protocol()}


class WordErrorRate(Metric):
    """Edits that turn what was to be said into what a recogniser hears, over the words that were to be said.

    An empty hypothesis counts as deletions. A reference that normalises to nothing is a failed row.
    """

    class Config(MetricConfig):
        """Settings of ``wer``."""

        protocol: str = "imfbench"
        """A key of ``PROTOCOLS``."""
        asr: str = "whisper-base"
        """A model of ``imfbench.weights``, or a name or repository that faster-whisper takes from the hub."""
        asr_path: Path | None = None
        """Folder of a model in CTranslate2's format; wins over ``asr``."""
        compute: str = "auto"
        """CTranslate2's compute type; auto is int8 on the CPU and float16 on an accelerator."""
        language: Language = "en"
        """The language that is listened for; never guessed from the audio."""

        @field_validator("protocol")
        @classmethod
        def _known(cls, name: str) -> str:
            if name not in PROTOCOLS:
                raise ValueError(f"unknown WER protocol {name!r}: {nearest(name, list(PROTOCOLS))}")
            return name

    name: ClassVar[str] = "wer"
    columns: ClassVar[tuple[str, ...]] = (
        "wer",
        "substitutions",
        "deletions",
        "insertions",
        "reference_words",
        "reference_normalised",
        "hypothesis_normalised",
        "hypothesis",
    )
    reads: ClassVar[tuple[str, ...] | None] = ("audio",)
    summary_columns: ClassVar[tuple[str, ...]] = ("wer", "wer_mean", "wer_above_half")
    higher_is_better: ClassVar[bool | None] = False

    def __init__(self, config: Any = None, device: str = "cpu", threads: int | None = None) -> None:
        super().__init__(config, device, threads)
        self.protocol = PROTOCOLS[self.config.protocol]
        self.normaliser = NORMALISERS[self.protocol.normalisers[self.config.language]]
        self._normalise: Callable[[str], str] | None = None
        self._found: Any = None

    @property
    def recogniser(self) -> Any:
        """The recogniser, its model not yet loaded."""
        if self._found is None or self._found[0] != self.device:
            settings = (self.config.asr, self.config.asr_path, self.config.compute, self.device)
            self._found = self.device, RECOGNISERS[self.protocol.recogniser](self.protocol.decoding, *settings)
        return self._found[1]

    @property
    def model_signature(self) -> Signature:
        """What a transcript depends on."""
        return Signature("wer", 1, **self.recogniser.parts(), language=self.config.language, resample=RESAMPLER)

    @property
    def signature(self) -> Signature:
        """What a figure depends on."""
        return Signature(
            "wer",
            1,
            **self.model_signature.parts,
            norm=self.normaliser.name(),
            jiwer=_version("jiwer", 2),
            agg=self.protocol.aggregate,
        )

    def open_model(self) -> Any:
        """Load the recogniser."""
        self.recogniser.load(self.threads)
        return self.recogniser

    @property
    def workers(self) -> int:
        """The recogniser's."""
        return int(getattr(self.recogniser, "workers", 1))

    def unload(self) -> None:
        """Free the recogniser."""
        self._found = None
        super().unload()

    def normalise(self, text: str) -> str:
        """The units that are compared, separated by single spaces."""
        if self._normalise is None:
            self._normalise = self.normaliser.open()
        return self._normalise(text)

    def observe(self, item: ScoreItem) -> dict[str, Any]:
        """The transcript."""
        if item.language != self.config.language:
            raise ScoreError(
                f"the text's language is {item.language!r}, but metric wer listens for {self.config.language!r}; "
                "set metrics.wer.language"
            )
        audio = clip(item.audio, item.sample_rate, SAMPLE_RATE)
        return {"hypothesis": self.model.transcribe(audio, self.config.language)}

    def row(self, item: ScoreItem, observation: Mapping[str, Any]) -> dict[str, Any]:
        """Edits between text and transcript, both normalised."""
        import jiwer

        reference, hypothesis = self.normalise(item.text), self.normalise(observation["hypothesis"])
        if not reference:
            raise ScoreError(f"the reference text {item.text!r} normalises to nothing")
        edits = jiwer.process_words(reference, hypothesis)
        words = edits.hits + edits.substitutions + edits.deletions
        return {
            "wer": (edits.substitutions + edits.deletions + edits.insertions) / words,
            "substitutions": edits.substitutions,
            "deletions": edits.deletions,
            "insertions": edits.insertions,
            "reference_words": words,
            "reference_normalised": reference,
            "hypothesis_normalised": hypothesis,
            "hypothesis": observation["hypothesis"],
        }

    def unheard(self, item: ScoreItem) -> dict[str, Any] | None:
        """Everything deleted."""
        return self.row(item, {"hypothesis": ""})

    def summarise(self, rows: pd.DataFrame) -> dict[str, float]:
        """``wer`` as the protocol aggregates, ``wer_corpus``, ``wer_mean``, ``wer_above_half``, with intervals."""
        from imfbench.metrics.stats import bootstrap_mean, bootstrap_ratio

        counts = ["substitutions", "deletions", "insertions", "reference_words"]
        if "wer" in rows:
            above = rows["wer"].astype(float)
            rows = rows.assign(above_half=(above > 0.5).astype(float).where(above.notna()))
        scored = by_utterance(rows, ["wer", "above_half", *counts])
        edits = scored["substitutions"] + scored["deletions"] + scored["insertions"]
        figures = {
            "corpus": (bootstrap_ratio, edits, scored["reference_words"]),
            "mean": (bootstrap_mean, scored["wer"]),
        }
        return {
            **interval_columns("wer", *figures[self.protocol.aggregate]),
            **interval_columns("wer_corpus", *figures["corpus"]),
            **interval_columns("wer_mean", *figures["mean"]),
            **interval_columns("wer_above_half", bootstrap_mean, scored["above_half"]),
        }
