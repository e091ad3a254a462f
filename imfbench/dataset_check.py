"""What ``imfbench doctor --dataset`` looks at: whether a dataset is all there, and what of its recordings is unusual.

Recordings are opened one after another by their headers, and nothing is kept of them but counts, so that the check of a set of
10⁵ takes no more memory than its list.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import soundfile

from imfbench.data import DatasetError, SetCard, Utterance, sets_of
from imfbench.doctor import Finding
from imfbench.features.audio_check import missing_bytes
from imfbench.sets import FOLDER, TestSet, open_set

LOWEST_RATE = 16_000
"""What recognisers and speaker embeddings work at: a recording of a lower rate lacks what they listen to."""
PROMPT_SECONDS = (1.0, 15.0)
TARGET_SECONDS = (0.5, 40.0)
APART = 0.05
"""Seconds by which a list and a recording may differ: rounding, not another recording."""
_MARKUP = re.compile(r"<[A-Za-z/!][^<>]*>|&#?\w+;|\{[^{}]*\}|\[[^\[\]]*\]")
_NAMED = 3


def examine_dataset(name: str, folder: Path | None, options: Mapping[str, Any] | None = None) -> Iterator[Finding]:
    """Look at a dataset's sets: size, recordings, sampling rates, lengths, texts.

    Args:
        name: ``NAME``, for all sets that are there, or ``NAME/SET``.
        folder: Where it lies; None for one that ships.
        options: Further arguments of its class.

    Raises:
        UnknownNameError: No such dataset.
        DatasetError: It cannot be opened at all.
    """
    opened = open_set(name, folder, options)
    dataset, card = opened.dataset, getattr(opened.dataset, "card", None)
    subject = f"dataset {opened.name}"
    if card is not None:
        yield Finding("ok", subject, f"licence: {card.licence}; from: {card.source}")
    if hasattr(dataset, "verify"):
        problems = dataset.verify()
        for problem in problems[:_NAMED]:
            yield Finding("bad", subject, problem)
        if not problems:
            yield Finding("ok", subject, "every file as listed")
    if "/" in name:
        there = [opened.split]
    else:
        there = list(getattr(dataset, "sets", sets_of(dataset)))
        for absent in [split for split in sets_of(dataset) if split not in there]:
            yield Finding("note", f"{subject}/{absent}", "not there, and not looked at")
    if not there:
        wanted = f": {card.layout}. {card.source}" if card is not None else ""
        yield Finding("bad", subject, f"{getattr(dataset, FOLDER, folder)} holds none of its sets{wanted}")
    for split in there:
        yield from examine_set(TestSet(opened.name, split, dataset), card.sets.get(split) if card is not None else None)


def examine_set(found: TestSet, card: SetCard | None) -> Iterator[Finding]:
    """Look at one set; a list that cannot be used is told line by line."""
    subject = f"dataset {found.name}/{found.split}"
    try:
        utterances = found.utterances()
    except DatasetError as error:
        for told in str(error).splitlines():
            yield Finding("bad", subject, told)
        return
    yield from _size(subject, found, utterances, card)
    prompts = {u.prompt_audio: None for u in utterances}
    rate = getattr(found.dataset, "sample_rate", None)
    yield from _recordings(subject, "prompt", ((path, None) for path in prompts), rate, PROMPT_SECONDS)
    recorded = sum(u.target_audio is not None for u in utterances)
    if recorded:
        targets = ((u.target_audio, u.seconds) for u in utterances if u.target_audio is not None)
        yield from _recordings(subject, "recording", targets, rate, TARGET_SECONDS)
    if recorded < len(utterances):
        told = f"{len(utterances) - recorded} of {len(utterances)} texts have none; their ground truth cannot be a row"
        yield Finding("note", f"{subject}, recordings", told)
    yield from _texts(subject, utterances)


def _size(subject: str, found: TestSet, utterances: list[Utterance], card: SetCard | None) -> Iterator[Finding]:
    revision = found.label.partition("@")[2]
    counts = {
        "utterances": (len(utterances), card.size if card else None),
        "speakers": (len({u.speaker for u in utterances}), card.speakers if card else None),
        "prompts": (len({u.prompt_id for u in utterances}), card.prompts if card else None),
    }
    told = ", ".join(f"{count} {what}" for what, (count, _) in counts.items())
    languages = ", ".join(f"{count} {name}" for name, count in sorted(Counter(u.language for u in utterances).items()))
    wrong = [f"{number} {what}" for what, (count, number) in counts.items() if number is not None and count != number]
    if wrong:
        message = f"{told} ({languages}), but the published set has {', '.join(wrong)}: figures on it do not compare"
        yield Finding("bad", subject, message)
    else:
        yield Finding("ok", subject, f"{told} ({languages}), revision {revision}")


@dataclass
class _Seen:
    """What is kept of recordings: counts, and the first few of what is wrong."""

    count: int = 0
    seconds: float = 0.0
    shortest: float = float("inf")
    longest: float = 0.0
    rates: Counter[int] = field(default_factory=Counter)
    channels: int = 0
    faults: dict[str, list[str]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def fault(self, kind: str, what: str) -> None:
        """Count a fault, and keep the first few."""
        self.counts[kind] += 1
        named = self.faults.setdefault(kind, [])
        if len(named) < _NAMED:
            named.append(what)


_BAD = ("missing", "not to be read", "of another length than the list tells")


def _recordings(
    subject: str, what: str, paths: Iterator[tuple[Path, float | None]], rate: int | None, lengths: tuple[float, float]
) -> Iterator[Finding]:
    seen = _Seen()
    for path, listed in paths:
        _look(seen, path, listed, lengths)
    subject = f"{subject}, {what}s"
    total = seen.count + sum(seen.counts[kind] for kind in ("missing", "not to be read"))
    for kind, named in seen.faults.items():
        message = f"{seen.counts[kind]} of {total} {what}s {kind}: {', '.join(named)}"
        more = seen.counts[kind] - len(named)
        yield Finding("bad" if kind in _BAD else "note", subject, message + (f" and {more} more" if more else ""))
    if not seen.count:
        return
    rates = ", ".join(f"{count} at {found} Hz" for found, count in sorted(seen.rates.items()))
    hours = f"{seen.seconds / 3600:.2f} h" if seen.seconds >= 3600 else f"{seen.seconds / 60:.1f} min"
    yield Finding("ok", subject, f"{seen.count} of {seen.shortest:.1f} to {seen.longest:.1f} s, {hours}; {rates}")
    low = sum(count for found, count in seen.rates.items() if found < LOWEST_RATE)
    if low:
        yield Finding("note", subject, f"{low} below {LOWEST_RATE} Hz: scorers miss what is above half the rate")
    if rate is not None and (other := seen.count - seen.rates[rate]):
        yield Finding(
            "note", subject, f"{other} of another rate than the {rate} Hz of what was published: were they converted?"
        )
    elif len(seen.rates) > 1:
        yield Finding("note", subject, f"{len(seen.rates)} sampling rates; each recording is resampled from its own")
    if seen.channels:
        yield Finding("note", subject, f"{seen.channels} of several channels, which are mixed down")


def _look(seen: _Seen, path: Path, listed: float | None, lengths: tuple[float, float]) -> None:
    """One recording, by its header."""
    if not path.is_file():
        seen.fault("missing", str(path))
        return
    try:
        head = soundfile.info(path)
        short = missing_bytes(path)
    except (OSError, soundfile.SoundFileError):
        seen.fault("not to be read", str(path))
        return
    if short or not head.frames:
        seen.fault("not to be read", f"{path} ({f'its last {short} bytes are missing' if short else 'no samples'})")
        return
    seconds = head.frames / head.samplerate
    seen.count += 1
    seen.seconds += seconds
    seen.shortest, seen.longest = min(seen.shortest, seconds), max(seen.longest, seconds)
    seen.rates[head.samplerate] += 1
    seen.channels += head.channels > 1
    if listed is not None and abs(listed - seconds) > APART:
        seen.fault("of another length than the list tells", f"{path} ({seconds:.2f} s, listed {listed:.2f} s)")
    if not lengths[0] <= seconds <= lengths[1]:
        seen.fault(f"shorter than {lengths[0]:g} s or longer than {lengths[1]:g} s", f"{path} ({seconds:.2f} s)")


def _texts(subject: str, utterances: list[Utterance]) -> Iterator[Finding]:
    from imfbench.datasets.lists import language_of

    notes = {
        "are not in the language of the set, by their signs": lambda u: u.language != language_of(u.text),
        "hold what looks like markup, which is scored as text": lambda u: _MARKUP.search(u.text) is not None,
        "hold invisible signs, which change words": lambda u: any(_invisible(sign) for sign in u.text),
        "hold no letter or digit: nothing is left of them to be scored": lambda u: not any(map(str.isalnum, u.text)),
        "have a prompt without its text, which text2mel needs": lambda u: not u.prompt_text.strip(),
    }
    for told, test in notes.items():
        found = [u.id for u in utterances if test(u)]
        if found:
            named = ", ".join(map(repr, found[:_NAMED]))
            more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
            yield Finding("note", f"{subject}, texts", f"{len(found)} of {len(utterances)} {told}: {named}{more}")


def _invisible(sign: str) -> bool:
    import unicodedata

    return unicodedata.category(sign) in ("Cf", "Co", "Cn", "Zl", "Zp") or sign == "�"
