"""The contract of metrics: a scorer of utterances with a signature."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from imfbench.contracts.clauses import Clause, about, expect, expect_error, fundamental
from imfbench.contracts.speech import items
from imfbench.metrics.base import Metric, MetricConfig, ScoreError
from imfbench.metrics.signature import SignatureError, parse
from imfbench.registry import METRICS


@dataclass(frozen=True)
class Scorer:
    """A registered metric with settings."""

    name: str
    options: dict[str, Any]

    @property
    def cls(self) -> Any:
        """Its class."""
        return METRICS.get(self.name)

    def build(self) -> Metric:
        """The metric as the framework builds it, its model not loaded."""
        found: Metric = self.cls(self.cls.Config(**self.options), "cpu", 1)
        return found

    @contextlib.contextmanager
    def loaded(self) -> Iterator[Metric]:
        """The metric with its model."""
        with self.build().loaded() as metric:
            yield metric


def contract(name: str, options: dict[str, Any]) -> list[Clause]:
    """The clauses of a metric."""
    return about(Scorer(name, options), name, CLAUSES)


def declares_name_columns_direction_and_settings(part: Scorer) -> None:
    """The class is a Metric that says its name, the columns of a row, which are averaged, and which direction is better."""
    cls = part.cls
    expect(isinstance(cls, type) and issubclass(cls, Metric), "a subclass of imfbench.metrics.base.Metric", cls)
    expect(
        getattr(cls, "name", None) == part.name,
        f"name = {part.name!r}, as registered",
        repr(getattr(cls, "name", None)),
    )
    columns, averaged = getattr(cls, "columns", ()), cls.summary_columns
    expect(
        bool(columns) and bool(averaged),
        "`columns` and `summary_columns`, each a tuple with a name in it",
        (columns, averaged),
    )
    taken = [c for c in columns if c in _TAKEN or c.endswith(("_low", "_high", "_n", "_error", "_signature"))]
    expect(not taken, "columns of its own (the framework adds _low, _high, _n, _error, _signature)", taken)
    expect(cls.higher_is_better in (True, False, None), "higher_is_better True, False or None", cls.higher_is_better)
    config = cls.Config
    expect(
        isinstance(config, type) and issubclass(config, MetricConfig), "`Config`, a subclass of MetricConfig", config
    )
    expect_error(lambda: config(no_such_setting=1), ValueError, "an unknown setting to be an error")


def signature_says_how_the_figure_is_made(part: Scorer) -> None:
    """The signature begins with the name and a revision, is known without the model, and is always the same."""
    first, again = (str(part.build().signature) for _ in range(2))
    expect(first == again, "the same signature twice", f"{first} and {again}")
    try:
        head = parse(first)[0]
        parse(str(part.build().model_signature))
    except SignatureError as error:
        expect(False, "a signature: imfbench.metrics.signature.Signature(name, revision, …)", error)
    expect(head == part.name, f"a signature that begins with {part.name}-v", first)


def settings_that_change_figures_change_the_signature(part: Scorer) -> None:
    """Every number among the settings stands in the signature: other settings, another signature."""
    usual = part.build()
    for name, value in usual.config.model_dump().items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        for other in (value * 1.1 if isinstance(value, float) else value + 1, value * 0.9, value - 1):
            try:
                config = part.cls.Config(**{**part.options, name: other})
            except ValueError:  # not allowed, so it changes nothing
                continue
            if config != usual.config:
                found = str(part.cls(config, "cpu", 1).signature)
                expect(found != str(usual.signature), f"another signature for {name} = {other:g}", found)
                break


@fundamental
def a_row_has_its_columns_and_repeats(part: Scorer) -> None:
    """A recording gets a figure in each column, the same twice, from an observation that JSON can hold."""
    with part.loaded() as metric:
        for item in items():
            observed = metric.observe(item)
            try:
                kept = json.loads(json.dumps(observed))
            except (TypeError, ValueError) as error:
                expect(False, "an observation of JSON's types (no arrays, no NumPy numbers)", error)
            row, again = metric.row(item, kept), metric.score(item)
            told = f"{sorted(row)} for a recording of {len(item.audio) / item.sample_rate:.1f} s"
            expect(sorted(row) == sorted(metric.columns), f"the columns {sorted(metric.columns)}", told)
            for column in metric.summary_columns:
                if column in row:
                    value = row[column]
                    good = isinstance(value, int | float) and bool(np.isfinite(value))
                    expect(good, f"a finite number in {column}", f"{value!r} ({type(value).__name__})")
                    same = abs(again[column] - value) <= 1e-6 * max(1, abs(value))
                    expect(same, f"the same {column} twice", f"{value:g}, then {again[column]:g}")


def the_cache_key_covers_what_is_observed(part: Scorer) -> None:
    """Whatever `observe` reads is among `cache_inputs`: two items of one key are observed alike."""
    first, second = items()
    others = {
        "audio": replace(first, audio=first.audio[: len(first.audio) // 2]),
        "text": replace(first, text=second.text),
        "language": replace(first, language="zh"),
        "prompt's recording": replace(first, prompt_audio=second.prompt_audio, prompt_rate=second.prompt_rate),
    }
    with part.loaded() as metric:
        seen, key = metric.observe(first), metric.cache_key(first)
        for what, other in others.items():
            if metric.cache_key(other) != key:
                continue
            with contextlib.suppress(ScoreError):  # what is refused is not cached
                told = f"another observation under the same key: add the {what} to cache_inputs"
                expect(metric.observe(other) == seen, f"the same observation for another {what}, or another key", told)


def what_is_prepared_is_observed_alike(part: Scorer) -> None:
    """`prepare`, which is done ahead of the model, changes no observation."""
    first = items()[0]
    with part.loaded() as metric:
        same = metric.observe(metric.prepare(first)) == metric.observe(first)
        expect(same, "the same observation of a prepared recording", "another")


def speech_that_cannot_be_scored_is_a_score_error(part: Scorer) -> None:
    """Audio without samples, or with values that are not finite, is a ScoreError, never a figure."""
    good = items()[0]
    damaged = good.audio.copy()
    damaged[100] = np.nan
    with part.loaded() as metric:
        for what, audio in {"no samples": good.audio[:0], "a value that is not finite": damaged}.items():
            item = replace(good, audio=audio)
            expect_error(lambda item=item: metric.score(item), ScoreError, f"a ScoreError for audio with {what}")  # type: ignore[misc]


def the_summary_has_intervals(part: Scorer) -> None:
    """`summarise` gives each summary column with its 95 % interval, and leaves failed rows out of it."""
    with part.loaded() as metric:
        rows = [{"id": item.id, **metric.score(item)} for item in items()]
    failed = {"id": "failed", **dict.fromkeys(metric.columns, float("nan"))}
    found = metric.summarise(pd.DataFrame([*rows, failed]))
    for column in metric.summary_columns:
        absent = [f"{column}{end}" for end in ("", "_low", "_high", "_n") if f"{column}{end}" not in found]
        expect(not absent, f"{column} with _low, _high and _n", f"no {', '.join(absent)}")
        low, value, high = (found[f"{column}{end}"] for end in ("_low", "", "_high"))
        expect(low <= value <= high, f"{column}_low ≤ {column} ≤ {column}_high", f"{low:g}, {value:g}, {high:g}")
        expect(found[f"{column}_n"] == 2, "a summary of the 2 rows that were scored", f"{found[f'{column}_n']} rows")


CLAUSES = (
    declares_name_columns_direction_and_settings,
    signature_says_how_the_figure_is_made,
    settings_that_change_figures_change_the_signature,
    a_row_has_its_columns_and_repeats,
    the_cache_key_covers_what_is_observed,
    what_is_prepared_is_observed_alike,
    speech_that_cannot_be_scored_is_a_score_error,
    the_summary_has_intervals,
)
_TAKEN = ("id", "text", "status", "reason", "audio", "seconds", "steps", "nfe", "task", "system", "dataset", "key")
