"""Word error rate by speech recognition: corpus-level, mean over utterances, share of utterances above one half.

A WER means little without its protocol: recogniser, decoding, text rule, aggregation (``imfbench.metrics.protocols``). Ours
decodes with temperature 0, no conditioning on previous text and no timestamps: with faster-whisper's default temperature
fallback, which samples, the same audio can score differently twice. In silence Whisper hears "you": a recording without sound is
noted as silent in its row, and is not an empty transcript.

For Chinese the same columns hold characters instead of words (CER).

``score_transcripts`` does the text side alone, for transcripts that somebody has already.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import field_validator, model_validator

from imfbench.metrics.base import (
    Metric,
    MetricConfig,
    ScoreError,
    ScoreItem,
    at_rate,
    by_utterance,
    clip,
    clusters_of,
    interval_columns,
)
from imfbench.metrics.protocols import PROTOCOLS, Protocol, protocol_of
from imfbench.metrics.recognisers import RECOGNISERS, Decoding
from imfbench.metrics.signature import Signature
from imfbench.metrics.text_rules import Language
from imfbench.registry import nearest
from imfbench.weights import MissingModelError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PROTOCOLS", "Protocol", "WordErrorRate", "count_edits", "protocol_of", "score_transcripts"]

SAMPLE_RATE = 16000
DEFAULT_ASR = "whisper-base"
VERSION = 1
"""The scorer's revision, of all protocols: raise it when the same audio or the same texts would get another figure."""
COUNTS = ("substitutions", "deletions", "insertions", "reference_words")
TEXTS = ("reference_normalised", "hypothesis_normalised")
COLUMNS = ("wer", *COUNTS, *TEXTS)
"""What a pair of texts gets."""


def count_edits(reference: str, hypothesis: str, protocol: str | Protocol, language: str) -> dict[str, Any]:
    """The edits that turn what was to be said into what was heard: the columns ``COLUMNS``.

    Args:
        reference: What was to be said.
        hypothesis: What was heard; empty counts as deletions.
        protocol: Its text rule and denominator are used.
        language: "en" or "zh".

    Returns:
        ``wer`` is over the words that are compared; ``reference_words`` is what the reference counts for in the corpus figure,
        which with the denominator "spaces" can be more. Characters instead of words for Chinese.

    Raises:
        ScoreError: The reference normalises to nothing, or a side is not a text.
        imfbench.metrics.protocols.LanguageError: The protocol does not know the language.
        imfbench.weights.MissingModelError: It needs a package that is not installed.
    """
    import jiwer

    protocol = protocol_of(protocol)
    rule = protocol.rule(language)
    for side, text in (("reference", reference), ("hypothesis", hypothesis)):
        if not isinstance(text, str):
            raise ScoreError(f"the {side} is no text but {text!r}")
    said, heard = rule.normalise(reference, "reference"), rule.normalise(hypothesis, "hypothesis")
    if not said.strip():
        raise ScoreError(f"the reference text {reference!r} normalises to nothing")
    edits = jiwer.process_words(said, heard)
    words = edits.hits + edits.substitutions + edits.deletions
    return {
        "wer": (edits.substitutions + edits.deletions + edits.insertions) / words,
        "substitutions": edits.substitutions,
        "deletions": edits.deletions,
        "insertions": edits.insertions,
        "reference_words": words if protocol.denominator == "words" else len(said.split(" ")),
        "reference_normalised": said,
        "hypothesis_normalised": heard,
    }


def score_transcripts(
    references: Sequence[str] | pd.Series,
    hypotheses: Sequence[str] | pd.Series,
    protocol: str | Protocol = "imfbench",
    language: str = "en",
) -> pd.DataFrame:
    """Score transcripts as a protocol does, whoever heard them.

    Args:
        references: What was to be said, (pairs,).
        hypotheses: What was heard, in the same order; an empty one counts as deletions.
        protocol: A protocol or its name in ``PROTOCOLS``. Its recogniser plays no part here.
        language: "en" or "zh"; characters are counted instead of words for Chinese.

    Returns:
        A row a pair, with the columns ``COLUMNS`` (``wer`` is a fraction) and the index of the series that were given. A pair
        whose reference normalises to nothing, or that has no transcript at all (None), is a failed row: its figures are
        missing. ``attrs`` holds

        - ``corpus``: all edits over all reference words, and ``mean``: the mean of the pairs' WER, both over the rows that did
          not fail and not a number where all did;
        - ``wer``: the one of both that the protocol prints;
        - ``signature``: how all this was made;
        - ``protocol``, ``language``, ``n_expected`` and ``n_scored``: how many pairs there were, and how many did not fail;
        - ``failed``: row → the reason why it has no figure.

    Raises:
        ValueError: The sides are of unequal length or index, or the protocol does not know the language.
        imfbench.metrics.protocols.UnknownProtocolError: No protocol has the name.
        imfbench.weights.MissingModelError: The protocol needs a package that is not installed.

    Example:
        >>> frame = score_transcripts(["The cat sat down."], ["the cat sat"], "seed-tts-eval", "en")
        >>> frame.deletions.tolist(), frame.attrs["mean"]
        ([1], 0.25)
    """
    import pandas as pd

    protocol = protocol_of(protocol)
    signature = transcript_signature(protocol, language)
    if isinstance(references, str) or isinstance(hypotheses, str):
        raise ValueError("references and hypotheses are lists of texts; a single pair is [reference], [hypothesis]")
    if len(references) != len(hypotheses):
        raise ValueError(f"{len(references)} references but {len(hypotheses)} hypotheses; give one for each utterance")
    given = [side for side in (references, hypotheses) if isinstance(side, pd.Series)]
    if len(given) == 2 and not given[0].index.equals(given[1].index):
        raise ValueError("references and hypotheses have different indices; bring them into one order first")
    index = given[0].index if given else pd.RangeIndex(len(references))
    rows: list[dict[str, Any]] = []
    failed: dict[Any, str] = {}
    for label, reference, hypothesis in zip(index.tolist(), references, hypotheses, strict=True):
        try:
            rows.append(count_edits(reference, hypothesis, protocol, language))
        except ScoreError as error:
            rows.append(dict.fromkeys(COLUMNS))
            failed[label] = str(error)
    frame = pd.DataFrame(rows, index=index, columns=list(COLUMNS))
    frame = frame.astype({"wer": "float64", **dict.fromkeys(COUNTS, "Int64"), **dict.fromkeys(TEXTS, "object")})
    scored = frame.dropna(subset=["wer"])
    *edits, words = (int(scored[name].sum()) for name in COUNTS)
    corpus = sum(edits) / words if words else float("nan")
    mean = float(scored["wer"].mean())
    frame.attrs = {
        "corpus": corpus,
        "mean": mean,
        "wer": corpus if protocol.aggregate == "corpus" else mean,
        "signature": str(signature),
        "protocol": protocol.name,
        "language": language,
        "n_expected": len(frame),
        "n_scored": len(scored),
        "failed": failed,
    }
    return frame


def transcript_signature(protocol: Protocol, language: str) -> Signature:
    """The signature of figures whose transcripts came from elsewhere: who listened is not known."""
    return Signature("wer", VERSION, asr="given", language=language, **_text_side(protocol, language))


def _text_side(protocol: Protocol, language: str) -> dict[str, Any]:
    jiwer = ".".join(importlib.metadata.version("jiwer").split(".")[:2])
    return {**protocol.text_parts(language), "jiwer": jiwer, "agg": protocol.aggregate}


def language_note(text: str, heard: str, language: str) -> str | None:
    """Whether text or transcript are in another language than the one that is listened for, by their signs; None if not.

    A recogniser that is told to hear Chinese in English speech often writes English, and the reverse. Its figure stands, as
    the protocol has it.
    """
    told = []
    for side, words in (("text", text), ("transcript", heard)):
        chinese, letters = _CHINESE.search(words) is not None, any(map(str.isalpha, words))
        if language == "zh" and letters and not chinese:
            told.append(f"no Chinese character in the {side}")
        elif language == "en" and chinese:
            told.append(f"Chinese characters in the {side}")
    return f"{' and '.join(told)}, which should be {_LANGUAGES[language]}" if told else None


_CHINESE = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_LANGUAGES = {"en": "English", "zh": "Chinese"}


class WordErrorRate(Metric):
    """Edits that turn what was to be said into what a recogniser hears, over the words that were to be said.

    An empty hypothesis counts as deletions. A reference that normalises to nothing is a failed row.
    """

    class Config(MetricConfig):
        """Settings of ``wer``."""

        protocol: str = "imfbench"
        """A key of ``PROTOCOLS``."""
        recogniser: str | None = None
        """A key of ``RECOGNISERS``; the protocol's without it. With another one the figure is no longer the protocol's: the
        signature says so."""
        asr: str | None = None
        """A model of ``imfbench.weights``, or a name or repository that the recogniser takes from the hub; the protocol's
        without it."""
        asr_path: Path | None = None
        """Folder of a model in the recogniser's format (CTranslate2's for faster-whisper, Hugging Face's for those of
        transformers, FunASR's for Paraformer); wins over ``asr``."""
        compute: str = "auto"
        """CTranslate2's compute type, or float32, float16 or bfloat16 for the other recognisers; auto is the protocol's, ours
        int8 on the CPU and float16 on an accelerator."""
        language: Language = "en"
        """The language that is listened for; never guessed from the audio."""

        @field_validator("protocol")
        @classmethod
        def _known(cls, name: str) -> str:
            if name not in PROTOCOLS:
                raise ValueError(f"unknown WER protocol {name!r}: {nearest(name, list(PROTOCOLS))}")
            return name

        @field_validator("recogniser")
        @classmethod
        def _there(cls, name: str | None) -> str | None:
            if name is not None and name not in RECOGNISERS:
                raise ValueError(f"unknown recogniser {name!r}: {nearest(name, list(RECOGNISERS))}")
            return name

        @model_validator(mode="after")
        def _spoken(self) -> WordErrorRate.Config:
            listener = protocol_of(self.protocol).listener(self.language)
            name = self.recogniser or listener.recogniser
            spoken = getattr(RECOGNISERS.get(name), "languages", (self.language,))
            if self.language not in spoken:
                raise ValueError(f"the recogniser {name!r} hears {' and '.join(spoken)}, not {self.language!r}")
            return self

    name: ClassVar[str] = "wer"
    columns: ClassVar[tuple[str, ...]] = (*COLUMNS, "hypothesis", "wer_note")
    reads: ClassVar[tuple[str, ...] | None] = ("audio",)
    summary_columns: ClassVar[tuple[str, ...]] = ("wer", "wer_mean", "wer_above_half")
    higher_is_better: ClassVar[bool | None] = False

    def __init__(self, config: Any = None, device: str = "cpu", threads: int | None = None) -> None:
        super().__init__(config, device, threads)
        self.protocol = PROTOCOLS[self.config.protocol]
        self.listener = self.protocol.listener(self.config.language)
        self._found: Any = None

    @property
    def recogniser(self) -> Any:
        """The recogniser, its model not yet loaded.

        Raises:
            imfbench.weights.MissingModelError: There is none of the name that the protocol asks for.
        """
        if self._found is None or self._found[0] != self.device:
            name, own = self.config.recogniser or self.listener.recogniser, self.listener
            if name not in RECOGNISERS:
                raise MissingModelError(
                    f"protocol {self.protocol.name!r} listens with {name!r}, for which there is no recogniser here; "
                    f"there are {', '.join(RECOGNISERS)} (set metrics.wer.recogniser and metrics.wer.asr)"
                )
            asr = self.config.asr or (own.model if name == own.recogniser else DEFAULT_ASR)
            compute = own.precision if self.config.compute == "auto" and name == own.recogniser else self.config.compute
            decoding = own.decoding if name == own.recogniser else own.decoding or Decoding()
            settings = (asr, self.config.asr_path, compute, self.device)
            self._found = self.device, RECOGNISERS[name](decoding, *settings)
        return self._found[1]

    @property
    def model_signature(self) -> Signature:
        """What a transcript depends on."""
        heard = {"language": self.config.language, "resample": self.listener.resampler}
        return Signature("wer", VERSION, **self.recogniser.parts(), **heard)

    @property
    def signature(self) -> Signature:
        """What a figure depends on."""
        text = _text_side(self.protocol, self.config.language)
        return Signature("wer", VERSION, **self.model_signature.parts, **text)

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

    def prepare(self, item: ScoreItem) -> ScoreItem:
        """At the model's rate."""
        return at_rate(item, SAMPLE_RATE, self.listener.resampler)

    def observe(self, item: ScoreItem) -> dict[str, Any]:
        """The transcript."""
        if item.language != self.config.language:
            raise ScoreError(
                f"the text's language is {item.language!r}, but metric wer listens for {self.config.language!r}; "
                "set metrics.wer.language"
            )
        audio = clip(item.audio, item.sample_rate, SAMPLE_RATE, resampler=self.listener.resampler)
        return {"hypothesis": self.model.transcribe(audio, self.config.language)}

    def row(self, item: ScoreItem, observation: Mapping[str, Any]) -> dict[str, Any]:
        """Edits between text and transcript, both normalised."""
        heard, language = observation["hypothesis"], self.config.language
        edits = count_edits(item.text, heard, self.protocol, language)
        return {**edits, "hypothesis": heard, "wer_note": language_note(item.text, heard, language)}

    def unheard(self, item: ScoreItem) -> dict[str, Any] | None:
        """Everything deleted."""
        return self.row(item, {"hypothesis": ""})

    def summarise(self, rows: pd.DataFrame, cluster: str | None = None) -> dict[str, float]:
        """``wer`` as the protocol aggregates, ``wer_corpus``, ``wer_mean``, ``wer_above_half``, with intervals."""
        from imfbench.metrics.clustered import bootstraps

        if "wer" in rows:
            above = rows["wer"].astype(float)
            rows = rows.assign(above_half=(above > 0.5).astype(float).where(above.notna()))
        scored = by_utterance(rows, ["wer", "above_half", *COUNTS])
        bootstrap_mean, bootstrap_ratio = bootstraps(clusters_of(rows, scored, cluster))
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
