"""LibriSpeech-PC test-clean, cross-sentence: F5-TTS's list of pairs over a plain LibriSpeech tree."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

from imfbench.data import DatasetCard, DatasetError, SetCard, Utterance
from imfbench.datasets.librispeech import LICENCE, NAME, recording, tree
from imfbench.datasets.listed import ListedSet, Task
from imfbench.datasets.lists import Complaints, lines, text_problem

LIST = "librispeech_pc_test_clean_cross_sentence.lst"
FIELDS = ("ref_utt", "ref_dur", "ref_txt", "gen_utt", "gen_dur", "gen_txt")


class LibriSpeechPC(ListedSet):
    """LibriSpeech-PC test-clean, cross-sentence: 4 to 10 s, prompts of 2.4 to 4.5 s by the same speaker, F5-TTS's list.

    The list has six fields between tabs, Windows line ends and quotation marks that belong to the texts.

    Args:
        root: LibriSpeech's folder (``test-clean`` itself, or one or two above it).
        list_file: The list; without it the file of F5-TTS's name in ``root`` or one or two folders above it.
        task: Whose conditions are asked for.
        features: token2mel: a folder of S3 tokens and speaker vectors by id; see ``ListedSet``.
    """

    name: ClassVar[str] = "librispeech-pc"
    card: ClassVar[DatasetCard] = DatasetCard(
        sets={"test": SetCard(1127, "en", speakers=39, prompts=448)},
        licence=LICENCE,
        source=f"the list: https://github.com/SWivid/F5-TTS, data/{LIST}; recordings: https://www.openslr.org/12, test-clean",
        layout=f"{LIST} and LibriSpeech/test-clean/SPEAKER/CHAPTER/*.flac",
    )
    sample_rate: ClassVar[int | None] = 16_000

    def __init__(
        self,
        root: str | Path,
        list_file: str | Path | None = None,
        task: Task = "token2mel",
        features: str | Path | None = None,
    ) -> None:
        super().__init__(root, task, features)
        self.list_file = Path(list_file).expanduser() if list_file else self._nearest()

    def _nearest(self) -> Path:
        folder = self.root.absolute()
        places = [folder, *list(folder.parents)[:2]]
        found = next((place / LIST for place in places if (place / LIST).is_file()), None)
        if found is None:
            raise DatasetError(
                f"there is no {LIST} in {self.root} or the two folders above it: copy it there, or set the option `list_file`. "
                f"Get {self.card.source}"
            )
        return found

    def read(self, split: str) -> list[Utterance]:
        """The utterances of "test".

        Raises:
            DatasetError: The list or the tree is not there, or rows are wrong.
        """
        recordings = tree(self.root, "test-clean")
        rows: list[Utterance] = []
        wrong = Complaints(self.list_file)
        prompts: dict[str, Path] = {}
        for number, line in lines(self.list_file):
            parts = [part.strip() for part in line.strip("\r\n").split("\t")]
            if told := _problem(parts):
                wrong.add(number, told)
                continue
            prompt, _, prompt_text, target, seconds, text = parts
            if wrong.twice(number, target):
                continue
            utterance = Utterance(
                id=target,
                text=text,
                language="en",
                speaker=target.partition("-")[0],
                prompt_id=prompt,
                prompt_text=prompt_text,
                prompt_audio=prompts.setdefault(prompt, recording(recordings, prompt)),
                target_audio=recording(recordings, target),
                seconds=float(seconds),
            )
            rows.append(self.listed(utterance, self.list_file, number))
        wrong.end("" if rows else f"a line of {len(FIELDS)} fields between tabs: {', '.join(FIELDS)}")
        return rows


def _problem(parts: list[str]) -> str:
    """What is wrong with a row's fields, in words; empty if nothing is."""
    if len(parts) != len(FIELDS):
        return f"{len(parts)} fields instead of {len(FIELDS)} ({', '.join(FIELDS)}), with a tab between two"
    prompt, prompt_seconds, prompt_text, target, seconds, text = parts
    for field, value in (("ref_utt", prompt), ("gen_utt", target)):
        if not re.fullmatch(NAME, value):
            return f"{field} {value!r} is no name of LibriSpeech, SPEAKER-CHAPTER-NUMBER"
    for field, value in (("ref_dur", prompt_seconds), ("gen_dur", seconds)):
        if not re.fullmatch(r"\d+(\.\d+)?", value) or float(value) == 0:
            return f"{field} {value!r} is no length in seconds"
    if prompt.partition("-")[0] != target.partition("-")[0]:
        return f"the prompt {prompt} and the text {target} are of two speakers; the list pairs utterances of one"
    return text_problem("ref_txt", prompt_text) or text_problem("gen_txt", text)
