"""Seed-TTS-eval (arXiv 2406.02430): Common Voice and DiDiSpeech-2 utterances, each said in the voice of a prompt."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from imfbench.data import DatasetCard, SetCard, Utterance
from imfbench.datasets.listed import ListedSet, Task
from imfbench.datasets.lists import speaker_of
from imfbench.datasets.seed_tts_list import read_list

LISTS = {"en": ("en/meta.lst", "en"), "zh": ("zh/meta.lst", "zh"), "hard": ("zh/hardcase.lst", "zh")}
ARCHIVE = "seedtts_testset"
"""The folder that the published archive unpacks to."""


class SeedTTSEval(ListedSet):
    """Seed-TTS-eval: English, Chinese and hard Chinese, as published, lines of four or five fields.

    The published rows have four fields; their recordings lie in ``wavs/<utt>.wav`` beside ``meta.lst``, where F5-TTS looks for
    them too. Lists name no speakers: DiDiSpeech's are in the names of its files, a Common Voice prompt stands for its own.

    Args:
        root: The folder that holds ``en`` and ``zh``, or the one that holds ``seedtts_testset``.
        task: Whose conditions are asked for.
        features: token2mel: a folder of S3 tokens and speaker vectors by id; see ``ListedSet``.
    """

    name: ClassVar[str] = "seed-tts-eval"
    card: ClassVar[DatasetCard] = DatasetCard(
        sets={"en": SetCard(1088, "en"), "zh": SetCard(2020, "zh"), "hard": SetCard(400, "zh")},
        licence="none stated for the set; recordings are Common Voice's (CC0-1.0) and DiDiSpeech-2's (DiDi's own terms)",
        source="https://github.com/BytedanceSpeech/seed-tts-eval, under Dataset",
        layout="en/meta.lst, zh/meta.lst, zh/hardcase.lst and beside them prompt-wavs/ and wavs/",
    )

    def __init__(self, root: str | Path, task: Task = "token2mel", features: str | Path | None = None) -> None:
        super().__init__(root, task, features)
        if not (self.root / "en").is_dir() and not (self.root / "zh").is_dir() and (self.root / ARCHIVE).is_dir():
            self.root = self.root / ARCHIVE

    @property
    def sets(self) -> list[str]:
        """Those whose lists are there: many have the English half alone."""
        return [name for name, (path, _) in LISTS.items() if (self.root / path).is_file()]

    def read(self, split: str) -> list[Utterance]:
        """The utterances of "en", "zh" or "hard".

        Raises:
            DatasetError: The list is not there, or rows of it are wrong.
        """
        path, language = LISTS[split]
        wavs = self.root / Path(path).parent / "wavs"
        # The hard texts were written for the set: a file of the same name beside them says another text.
        recorded = split != "hard" and wavs.is_dir()
        found = []
        for row in read_list(self.root / path):
            utterance = Utterance(
                id=row.id,
                text=row.text,
                language=language,
                speaker=speaker_of(row.prompt_audio.stem),
                prompt_id=row.prompt_audio.stem,
                prompt_text=row.prompt_text,
                prompt_audio=row.prompt_audio,
                target_audio=row.target_audio or (wavs / f"{row.id}.wav" if recorded else None),
                seconds=None,
            )
            found.append(self.listed(utterance, self.root / path, row.line))
        return found
