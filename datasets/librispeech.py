"""LibriSpeech (openslr 12): every utterance of 4 to 10 s, said in the voice of another utterance of the same speaker."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from imfbench.data import DatasetCard, DatasetError, SetCard, Utterance, seconds_of
from imfbench.datasets.listed import ListedSet, Task
from imfbench.datasets.lists import Complaints, lines, text_problem

LICENCE = "CC-BY-4.0"
NAME = r"\d+-\d+-\d+"


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording of the tree with its text and length, and the line of its chapter's transcript."""

    id: str
    text: str
    seconds: float
    line: int = 0


class LibriSpeech(ListedSet):
    """LibriSpeech: utterances of 4 to 10 s, each prompted by one of 2 to 5 s of the same speaker, chosen by a seeded rule.

    The rule: an utterance whose length is within ``target_seconds`` is in the set. Its prompt is, of the speaker's other
    utterances within ``prompt_seconds``, the one for which the sha256 of ``SEED/ID/PROMPT`` is the smallest. So a choice
    depends on nothing but the names, and does not change with the order of files or with other utterances' choices. An
    utterance whose speaker has no such other one is left out (in test-clean none is). Bounds belong to the range.

    Args:
        root: LibriSpeech's folder (a set such as ``test-clean`` itself, or one or two above it).
        seed: Another seed, other prompts.
        target_seconds: Shortest and longest utterance of the set.
        prompt_seconds: Shortest and longest prompt.
        task: Whose conditions are asked for.
        features: token2mel: a folder of S3 tokens and speaker vectors by id; see ``ListedSet``.
    """

    name: ClassVar[str] = "librispeech"
    card: ClassVar[DatasetCard] = DatasetCard(
        # 1237 of 2620 recordings; how many the rule takes of the other sets is not known.
        sets={
            "test-clean": SetCard(1237, "en", speakers=40),
            "test-other": SetCard(None, "en"),
            "dev-clean": SetCard(None, "en"),
            "dev-other": SetCard(None, "en"),
        },
        licence=LICENCE,
        source="https://www.openslr.org/12, such as test-clean.tar.gz",
        layout="LibriSpeech/SET/SPEAKER/CHAPTER/*.flac and *.trans.txt",
    )
    sample_rate: ClassVar[int | None] = 16_000

    def __init__(
        self, root: str | Path, seed: int = 0, target_seconds: Sequence[float] = (4.0, 10.0),
        prompt_seconds: Sequence[float] = (2.0, 5.0), task: Task = "token2mel", features: str | Path | None = None,
    ) -> None:  # fmt: skip
        super().__init__(root, task, features)
        self.seed = int(seed)
        self.target_seconds = _range("target_seconds", target_seconds)
        self.prompt_seconds = _range("prompt_seconds", prompt_seconds)

    @property
    def sets(self) -> list[str]:
        """Those whose folders are there."""
        found = []
        for name in self.card.sets:
            try:
                tree(self.root, name)
            except DatasetError:
                continue
            found.append(name)
        return found

    def read(self, split: str) -> list[Utterance]:
        """The utterances of a set of LibriSpeech, such as "test-clean".

        Raises:
            DatasetError: The folder is not there, a text has no recording or cannot be read, or nobody has two utterances. A
                missing recording is no failed row here, since other prompts would be chosen without it.
        """
        folder = tree(self.root, split)
        speakers: dict[str, list[Recording]] = {}
        for found in recordings(folder):
            speakers.setdefault(found.id.partition("-")[0], []).append(found)
        chosen = []
        for speaker, spoken in speakers.items():
            prompts = [r for r in spoken if self.prompt_seconds[0] <= r.seconds <= self.prompt_seconds[1]]
            for target in spoken:
                if not self.target_seconds[0] <= target.seconds <= self.target_seconds[1]:
                    continue
                prompt = self.prompt_for(target, prompts)
                if prompt is not None:
                    chosen.append(self._utterance(folder, speaker, target, prompt))
        if not chosen:
            raise DatasetError(
                f"{folder} has no utterance within {self.target_seconds} s with another of its speaker within "
                f"{self.prompt_seconds} s: widen the options `target_seconds` and `prompt_seconds`"
            )
        return sorted(chosen, key=lambda u: _numbers(u.id))

    def prompt_for(self, target: Recording, prompts: list[Recording]) -> Recording | None:
        """The prompt of an utterance by the rule above; None if there is none."""
        others = [prompt for prompt in prompts if prompt.id != target.id]
        return min(
            others, key=lambda p: hashlib.sha256(f"{self.seed}/{target.id}/{p.id}".encode()).digest(), default=None
        )

    def _utterance(self, folder: Path, speaker: str, target: Recording, prompt: Recording) -> Utterance:
        utterance = Utterance(
            id=target.id,
            text=target.text,
            language="en",
            speaker=speaker,
            prompt_id=prompt.id,
            prompt_text=prompt.text,
            prompt_audio=recording(folder, prompt.id),
            target_audio=recording(folder, target.id),
            seconds=target.seconds,
        )
        return self.listed(utterance, transcript(folder, target.id), target.line)


def tree(root: Path, name: str) -> Path:
    """The folder of a set of LibriSpeech that ``root`` is or holds.

    Raises:
        DatasetError: It is not there.
    """
    places = [root / name, root / "LibriSpeech" / name, *([root] if root.absolute().name == name else [])]
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        raise DatasetError(
            f"{root} holds no LibriSpeech folder {name} (looked for {', '.join(map(str, places))}): correct `root` (or --data). "
            f"Get https://www.openslr.org/12, {name}.tar.gz"
        )
    return found


def recording(folder: Path, name: str) -> Path:
    """Where the recording of this name lies in a set's folder."""
    speaker, chapter, _ = name.split("-")
    return folder / speaker / chapter / f"{name}.flac"


def transcript(folder: Path, name: str) -> Path:
    """The list of texts in which the one of this recording stands."""
    speaker, chapter, _ = name.split("-")
    return folder / speaker / chapter / f"{speaker}-{chapter}.trans.txt"


def recordings(folder: Path) -> Iterator[Recording]:
    """Every recording that a set's transcripts name.

    Raises:
        DatasetError: There are no transcripts, rows of them are wrong, or recordings are missing or cannot be read.
    """
    transcripts = sorted(folder.glob("*/*/*.trans.txt"))
    if not transcripts:
        raise DatasetError(
            f"{folder} holds no transcripts SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt: unpack the archive again"
        )
    missing: list[Path] = []
    for path in transcripts:
        wrong = Complaints(path)
        chapter = path.name.removesuffix(".trans.txt")
        for number, line in lines(path):
            name, _, text = line.strip().partition(" ")
            if told := _problem(chapter, name, text):
                wrong.add(number, told)
            elif not wrong.twice(number, name):
                seconds = seconds_of(recording(folder, name))
                if seconds is None:
                    missing.append(recording(folder, name))
                else:
                    yield Recording(name, text, seconds, number)
        wrong.end()
    if missing:
        raise DatasetError(
            f"{folder}: {len(missing)} recordings that the transcripts name are missing or cannot be read, and without them "
            f"other prompts would be chosen: unpack the archive again. The first: {', '.join(map(str, missing[:3]))}"
        )


def _problem(chapter: str, name: str, text: str) -> str:
    if not re.fullmatch(NAME, name) or not name.startswith(f"{chapter}-"):
        return f"{name!r} is no name of an utterance of {chapter}, {chapter}-NUMBER"
    return text_problem("text", text)


def _range(option: str, value: Sequence[float]) -> tuple[float, float]:
    try:
        low, high = map(float, value)
    except (TypeError, ValueError):
        raise DatasetError(f"the option `{option}` is two numbers of seconds, such as [2, 5], not {value!r}") from None
    if not 0 < low < high:
        raise DatasetError(f"the option `{option}` is a shorter and a longer length in seconds, not {value!r}")
    return low, high


def _numbers(name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in name.split("-"))
