"""Text side of the protocols: digits worked out by hand, facts that the presets state, the public function."""

from __future__ import annotations

import random
import re
import string
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from imfbench.metrics import text_rules
from imfbench.metrics.protocols import PROTOCOLS, LanguageError, Protocol, UnknownProtocolError, protocol_of
from imfbench.metrics.text_rules import CHINESE_PUNCTUATION, TextRule
from imfbench.metrics.wer import COLUMNS, score_transcripts
from imfbench.weights import MissingModelError

PAIRS: list[dict[str, Any]] = yaml.safe_load(
    Path(__file__).with_name("transcript_pairs.yaml").read_text(encoding="utf-8")
)
COVERED = {
    "straight apostrophe", "curly apostrophe", "hyphens", "digits", "symbols", "CJK punctuation", "traditional characters",
    "mixed scripts", "double space", "leading space", "tabs", "empty hypothesis", "insertions > length",
    "reference normalises to nothing",
}  # fmt: skip


def expected(pair: dict[str, Any]) -> dict[str, Any]:
    """Protocol → what it must make of the pair."""
    known = [name for name, protocol in PROTOCOLS.items() if pair["language"] in protocol.languages]
    return {
        name: what
        for names, what in pair["expect"].items()
        for name in (known if names == "all" else names.split())
        if name in known
    }


def least_edits(said: list[str], heard: list[str]) -> set[tuple[int, int, int]]:
    """All (substitutions, deletions, insertions) with the least sum, by their definition."""

    @cache
    def ways(i: int, j: int) -> frozenset[tuple[int, int, int]]:
        if i == 0 or j == 0:
            return frozenset({(0, i, j)})
        found = {(s + (said[i - 1] != heard[j - 1]), d, n) for s, d, n in ways(i - 1, j - 1)}
        found |= {(s, d + 1, n) for s, d, n in ways(i - 1, j)} | {(s, d, n + 1) for s, d, n in ways(i, j - 1)}
        least = min(map(sum, found))
        return frozenset(way for way in found if sum(way) == least)

    return set(ways(len(said), len(heard)))


# ---- the table of pairs ----


def test_the_table_covers_what_it_should() -> None:
    assert len(PAIRS) >= 60
    assert len({pair["id"] for pair in PAIRS}) == len(PAIRS)
    for language in ("en", "zh"):
        of_language = [pair for pair in PAIRS if pair["language"] == language]
        assert len(of_language) >= 30
        missing = COVERED - {case for pair in of_language for case in pair["covers"]}
        assert missing == ({"traditional characters"} if language == "en" else set())
    for pair in PAIRS:
        known = {name for name, protocol in PROTOCOLS.items() if pair["language"] in protocol.languages}
        assert set(expected(pair)) == known, pair["id"]
        assert pair["work"]


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair["id"])
def test_counts_of_the_table_follow_from_its_texts(pair: dict[str, Any]) -> None:
    """The hand's arithmetic, checked without jiwer: a space parts words, and so do two white characters or more."""
    for name, what in expected(pair).items():
        if what == "failed":
            continue
        said, heard, *counts, words = what[:6]
        parts = [[part for part in re.split(r"\s{2,}| ", text.strip()) if part] for text in (said, heard)]
        assert least_edits(*parts) == {tuple(counts)}, name
        assert len(parts[0]) == words, name
        assert len(said.split(" ")) == (what[6] if len(what) > 6 else words), name


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair["id"])
def test_every_protocol_gives_the_digits_of_the_table(pair: dict[str, Any]) -> None:
    for name, what in expected(pair).items():
        frame = score_transcripts([pair["said"]], [pair["heard"]], name, pair["language"])
        row = frame.iloc[0]
        if what == "failed":
            assert frame.attrs["n_scored"] == 0, name
            assert "normalises to nothing" in frame.attrs["failed"][0], name
            assert row.isna().all(), name
            continue
        said, heard, substitutions, deletions, insertions, words = what[:6]
        found = [row["reference_normalised"], row["hypothesis_normalised"]]
        assert found == [said, heard], name
        counts = [row["substitutions"], row["deletions"], row["insertions"]]
        assert counts == [substitutions, deletions, insertions], name
        assert row["wer"] == pytest.approx(sum(counts) / words, abs=1e-12), name
        parts = what[6] if len(what) > 6 and PROTOCOLS[name].denominator == "spaces" else words
        assert row["reference_words"] == parts, name
        assert frame.attrs["corpus"] == pytest.approx(sum(counts) / parts, abs=1e-12), name
        assert frame.attrs["mean"] == row["wer"], name


# ---- the rules once more, the way the scripts write them: character by character ----


def one_by_one(text: str, keep: str, language: str) -> str:
    zhon = pytest.importorskip("zhon.hanzi")
    for mark in zhon.punctuation + string.punctuation:
        if mark != keep:
            text = text.replace(mark, "")
    text = text.replace("  ", " ")
    return " ".join(list(text)) if language == "zh" else text.lower()


@pytest.mark.parametrize(("name", "keep"), [("seed-tts-eval", "'"), ("zipvoice", "'"), ("f5-tts", "")])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_random_texts_are_normalised_as_by_replacing_one_mark_after_the_other(
    name: str, keep: str, language: str
) -> None:
    rng = random.Random(0)
    marks = [*CHINESE_PUNCTUATION, *string.punctuation, *"   \t\n\u00a0‐−‚°€éÄİ１今天學", "Don't", "well-known"]
    for _ in range(300):
        text = "".join(rng.choices(marks, k=rng.randrange(20)))
        assert PROTOCOLS[name].rule(language).normalise(text) == one_by_one(text, keep, language)


def test_chinese_punctuation_is_that_of_zhon() -> None:
    zhon = pytest.importorskip("zhon.hanzi")
    assert sorted(CHINESE_PUNCTUATION) == sorted(zhon.punctuation)
    assert len(CHINESE_PUNCTUATION) == 82


def test_the_conversion_is_of_what_was_heard_alone_and_names_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = TextRule("seed-tts", "characters", convert="zh-cn")
    assert rule.normalise("軟體", "reference") == "軟 體"
    assert rule.normalise("軟體", "hypothesis") == "软 件"
    monkeypatch.setitem(sys.modules, "zhconv", None)
    text_rules._converter.cache_clear()
    with pytest.raises(MissingModelError, match=r"pip install 'imfbench\[zh\]'"):
        score_transcripts(["你好"], ["你好"], "f5-tts", "zh")
    assert score_transcripts(["hi"], ["hi"], "f5-tts", "en").attrs["corpus"] == 0, "English needs no such package"
    text_rules._converter.cache_clear()


# ---- what the presets state holds ----


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=list(PROTOCOLS))
def test_what_a_rule_says_of_apostrophes_numbers_and_script_is_what_it_does(protocol: Protocol) -> None:
    for language, rule in protocol.text.items():
        said = rule.normalise("don't").replace(" ", "") if rule.units == "characters" else rule.normalise("don't")
        assert said == {"kept": "don't", "deleted": "dont", "written out": "do not"}[rule.apostrophes]
        digits = rule.normalise("twenty one") == "21"
        assert digits == (rule.numbers == "digits")
        assert (rule.normalise("學", "hypothesis") != rule.normalise("學", "reference")) == (rule.convert == "zh-cn")
        assert (rule.normalise("ab") == "a b") == (rule.units == "characters")
        assert language in protocol.recognition


def test_presets_hold_the_settings_of_the_scripts() -> None:
    english = {name: protocol.recognition["en"] for name, protocol in PROTOCOLS.items()}
    assert {name: (r.recogniser, r.decoding and r.decoding.beam) for name, r in english.items()} == {
        "imfbench": ("faster-whisper", 5),
        "seed-tts-eval": ("transformers-whisper", 1),
        "f5-tts": ("faster-whisper", 5),
        "zipvoice": ("transformers-whisper", 1),
        "zipvoice-librispeech": ("hubert-ctc", None),
    }
    assert english["f5-tts"].decoding.temperatures == (0, 0.2, 0.4, 0.6, 0.8, 1)
    assert all(r.decoding is None or r.decoding.temperatures == (0,) for n, r in english.items() if n != "f5-tts")
    chinese = {name: p.recognition["zh"].recogniser for name, p in PROTOCOLS.items() if "zh" in p.languages}
    assert set(chinese) == {"imfbench", "seed-tts-eval", "f5-tts", "zipvoice"}
    assert {who for name, who in chinese.items() if name != "imfbench"} == {"paraformer"}
    assert {name: (p.aggregate, p.denominator) for name, p in PROTOCOLS.items()} == {
        "imfbench": ("corpus", "words"),
        "seed-tts-eval": ("mean", "words"),
        "f5-tts": ("mean", "words"),
        "zipvoice": ("mean", "spaces"),
        "zipvoice-librispeech": ("corpus", "spaces"),
    }
    judges = {p.similarity.model for name, p in PROTOCOLS.items() if name != "imfbench" and p.similarity}
    assert judges == {"wavlm-large-ecapa"}


# ---- score_transcripts ----


def test_a_frame_of_pairs_with_corpus_mean_and_signature() -> None:
    said = ["Stop.", "One two three four five six seven eight nine", "It's fine."]
    heard = ["go", "one two three four five six seven eight nine", ""]
    frame = score_transcripts(said, heard, "seed-tts-eval", "en")
    assert tuple(frame.columns) == COLUMNS
    assert frame["wer"].tolist() == [1, 0, 1]
    assert frame["deletions"].tolist() == [0, 0, 2]
    assert frame["reference_words"].tolist() == [1, 9, 2]
    assert frame.attrs["corpus"] == pytest.approx(3 / 12)
    assert frame.attrs["mean"] == frame.attrs["wer"] == pytest.approx(2 / 3)
    assert (frame.attrs["n_expected"], frame.attrs["n_scored"], frame.attrs["failed"]) == (3, 3, {})
    ours = score_transcripts(said, heard)
    assert ours.attrs["wer"] == ours.attrs["corpus"]
    assert ours.attrs["protocol"] == "imfbench"


def test_failed_rows_are_counted_and_leave_the_figures() -> None:
    frame = score_transcripts(pd.Series(["a b", "...", "c"], index=list("xyz")), ["a", "hello", None], "f5-tts", "en")
    assert frame.index.tolist() == ["x", "y", "z"]
    assert (frame.attrs["n_expected"], frame.attrs["n_scored"]) == (3, 1)
    assert frame.attrs["failed"].keys() == {"y", "z"}
    assert "'...' normalises to nothing" in frame.attrs["failed"]["y"]
    assert "hypothesis is no text" in frame.attrs["failed"]["z"]
    assert frame.attrs["corpus"] == frame.attrs["mean"] == 0.5
    assert frame.loc[["y", "z"]].isna().all(axis=None)
    nothing = score_transcripts([], [], "f5-tts", "en")
    assert tuple(nothing.columns) == COLUMNS
    assert np.isnan(nothing.attrs["corpus"])


def test_a_frame_survives_a_file(tmp_path: Path) -> None:
    frame = score_transcripts(["a b", ""], ["a", "b"], "zipvoice", "en")
    frame.to_parquet(tmp_path / "scores.parquet")
    read = pd.read_parquet(tmp_path / "scores.parquet")
    assert read.attrs["signature"] == frame.attrs["signature"]
    assert read["wer"].iloc[0] == 0.5


def test_a_protocol_of_ones_own() -> None:
    mine = Protocol("mine", "", {"en": PROTOCOLS["f5-tts"].recognition["en"]}, {"en": TextRule("ascii-words")})
    assert protocol_of(mine) is mine
    assert score_transcripts(["well-known"], ["well known"], mine, "en").attrs["corpus"] == 0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((["a"], ["a"], "seedtts", "en"), UnknownProtocolError, "did you mean 'seed-tts-eval'"),
        ((["a"], ["a"], "zipvoice-librispeech", "zh"), LanguageError, "no rule for language 'zh', only for 'en'"),
        ((["a"], ["a"], "f5-tts", "de"), LanguageError, "'de', only for 'en' and 'zh'"),
        ((["a"], ["a", "b"], "f5-tts", "en"), ValueError, "1 references but 2 hypotheses"),
        (("a", "a", "f5-tts", "en"), ValueError, "lists of texts"),
        ((pd.Series(["a"]), pd.Series(["a"], index=[1]), "f5-tts", "en"), ValueError, "different indices"),
    ],
)
def test_what_cannot_be_scored_is_refused(arguments: tuple, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        score_transcripts(*arguments)


# ---- signatures ----


def test_signatures_tell_the_text_sides_apart() -> None:
    signatures = {name: score_transcripts(["a"], ["a"], name, "en").attrs["signature"] for name in PROTOCOLS}
    assert len(set(signatures.values())) == len(PROTOCOLS)
    assert all("|asr:given|language:en|" in signature for signature in signatures.values())
    assert "|norm:seed-tts@zhon2|apostrophes:kept|jiwer:" in signatures["seed-tts-eval"]
    assert "|apostrophes:deleted|" in signatures["f5-tts"]
    assert "|per:spaces|" in signatures["zipvoice"]
    chinese = score_transcripts(["好"], ["好"], "seed-tts-eval", "zh").attrs["signature"]
    assert "|convert:zh-cn@zhconv" in chinese
