"""Lists in the form of ZipVoice: name, prompt's text, prompt's recording and text, between tabs."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import ClassVar, Literal

from imfbench.data import DatasetCard, DatasetError, SetCard, Utterance
from imfbench.datasets.listed import ListedSet, Task
from imfbench.datasets.lists import (
    Complaints,
    id_problem,
    language_of,
    lines,
    path_problem,
    speaker_of,
    text_problem,
)

FIELDS = ("wav_name", "prompt_transcription", "prompt_wav", "text")
TRANSCRIPTS = "transcript.tsv"
_ABOVE = 4
"""Folders above a list's own that its paths may be relative to: those of the published sets begin at where ZipVoice is run."""
_TRIED = 50


class ZipVoiceList(ListedSet):
    """A list in the form of ZipVoice, ``test.tsv``: its LibriSpeech-PC and Seed-TTS sets, or one's own.

    Paths of prompts are relative to the list's folder or to one above it, or begin with folders that the set was moved out of;
    which, is found out by the first prompt that is there.

    Args:
        root: The folder of ``test.tsv``, or a list of another name.
        audio_root: What the prompts' paths are relative to, where that is neither; absolute paths below it are accepted.
        recordings: Folder of the recordings ``NAME.wav`` of the texts, beside the list, if there are any.
        texts: "transcript" takes the texts from ``transcript.tsv`` beside the list: what ZipVoice scores LibriSpeech-PC against.
        language: Of all rows; without it a row that holds a Chinese character is Chinese.
        task: Whose conditions are asked for.
        features: token2mel: a folder of S3 tokens and speaker vectors by id; see ``ListedSet``.
    """

    name: ClassVar[str] = "zipvoice"
    card: ClassVar[DatasetCard] = DatasetCard(
        sets={"test": SetCard(None, "en, zh")},
        licence="Apache-2.0 by its card; recordings are LibriSpeech's (CC-BY-4.0) and those of Seed-TTS-eval",
        source="https://huggingface.co/datasets/k2-fsa/TTS_eval_datasets",
        layout="test.tsv and prompts at the paths it names; transcript.tsv and wavs/ where there are any",
    )

    def __init__(
        self, root: str | Path, audio_root: str | Path | None = None, recordings: str = "wavs",
        texts: Literal["list", "transcript"] = "list", language: Literal["en", "zh"] | None = None, task: Task = "token2mel",
        features: str | Path | None = None,
    ) -> None:  # fmt: skip
        super().__init__(root, task, features)
        if texts not in ("list", "transcript"):
            raise DatasetError(f"the option `texts` is 'list' or 'transcript', not {texts!r}")
        self.list_file = self.root if self.root.is_file() else self.root / "test.tsv"
        self.folder = self.list_file.absolute().parent
        self.audio_root = Path(audio_root).expanduser() if audio_root else None
        self.recordings = self.folder / recordings
        self.texts, self.language = texts, language

    @property
    def variant(self) -> str:
        """The texts, where they are not those of the list."""
        return ", ".join(filter(None, ["transcript's texts" if self.texts == "transcript" else "", super().variant]))

    def read(self, split: str) -> list[Utterance]:
        """The utterances of the list.

        Raises:
            DatasetError: A list is not there, or rows of it are wrong.
        """
        rows = self._rows()
        spoken = self._transcripts({row[0] for _, row in rows}) if self.texts == "transcript" else {}
        base, dropped = self._place([PurePosixPath(row[2]) for _, row in rows[:_TRIED]])
        recorded = self.recordings.is_dir()
        prompts: dict[str, Path] = {}
        found = []
        for number, (name, prompt_text, prompt, text) in rows:
            path = prompts.setdefault(prompt, base.joinpath(*PurePosixPath(prompt).parts[dropped:]))
            text = spoken.get(name, text)
            utterance = Utterance(
                id=name,
                text=text,
                language=self.language or language_of(text),
                speaker=speaker_of(path.stem),
                prompt_id=path.stem,
                prompt_text=prompt_text,
                prompt_audio=path,
                target_audio=self.recordings / f"{name}.wav" if recorded else None,
                seconds=None,
            )
            found.append(utterance if spoken else self.listed(utterance, self.list_file, number))
        return found

    def _rows(self) -> list[tuple[int, list[str]]]:
        rows: list[tuple[int, list[str]]] = []
        wrong = Complaints(self.list_file)
        for number, line in lines(self.list_file):
            parts = line.strip().split("\t")  # quotation marks are the texts' own
            parts = [part if i in (1, 3) else part.strip() for i, part in enumerate(parts)]
            if told := self._problem(parts):
                wrong.add(number, told)
            elif not wrong.twice(number, parts[0]):
                rows.append((number, parts))
        wrong.end("" if rows else f"a line of {len(FIELDS)} fields between tabs: {', '.join(FIELDS)}")
        return rows

    def _problem(self, parts: list[str]) -> str:
        if len(parts) != len(FIELDS):
            return f"{len(parts)} fields instead of {len(FIELDS)} ({', '.join(FIELDS)}), with a tab between two"
        name, prompt_text, prompt, text = parts
        told = id_problem("wav_name", name) or path_problem("prompt_wav", prompt, self.audio_root)
        return told or text_problem("prompt_transcription", prompt_text, needed=False) or text_problem("text", text)

    def _place(self, prompts: list[PurePosixPath]) -> tuple[Path, int]:
        """The folder that the prompts' paths are relative to, and how many of their first folders were left behind."""
        if self.audio_root is not None:
            return self.audio_root, 0
        folders = [self.folder, *list(self.folder.parents)[:_ABOVE]]
        for prompt in prompts:
            places = [(folder, 0) for folder in folders]
            places += [(self.folder, dropped) for dropped in range(1, len(prompt.parts))]
            for folder, dropped in places:
                if folder.joinpath(*prompt.parts[dropped:]).is_file():
                    return folder, dropped
        return self.folder, 0

    def _transcripts(self, names: set[str]) -> dict[str, str]:
        path = self.folder / TRANSCRIPTS
        wrong = Complaints(path)
        found: dict[str, str] = {}
        for number, line in lines(path):
            parts = line.strip().split("\t")
            told = "one field instead of two (wav_name, text)" if len(parts) < 2 else text_problem("text", parts[-1])
            if told:
                wrong.add(number, told)
            elif not wrong.twice(number, parts[0]):
                found[parts[0]] = parts[-1]
        wrong.end("" if found else "a line wav_name, text, with a tab between the two")
        lacking = sorted(names - set(found))
        if lacking:
            raise DatasetError(
                f"{path} lacks {len(lacking)} utterances of {self.list_file}, the first {lacking[0]!r}: add their texts"
            )
        return found
