"""The embedded corpus: synthetic English of 28 voices with exact phone durations, for token2mel and text2mel."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from imfbench.data import (
    DatasetCard,
    DatasetError,
    Example,
    SetCard,
    Utterance,
    make_condition,
    make_text_condition,
    training_batches,
)
from imfbench.datasets.demo.features import Features
from imfbench.datasets.demo.harder import LONG, NOISY, joined, noisy, with_noise
from imfbench.datasets.demo.rows import COPY, lines_of, row_problem
from imfbench.datasets.seed_tts_list import read_list
from imfbench.features.alignment import phone_ends
from imfbench.features.audio import load_audio
from imfbench.features.f5_condition import character_condition, character_tokens
from imfbench.features.units import tokens_of_frames, units
from imfbench.features.voice import DIMS
from imfbench.inputs import EMBEDDED, Inputs
from imfbench.method import Batch, Condition
from imfbench.registry import nearest
from imfbench.store import file_sha256

DATA = Path(__file__).parent / "data"
LISTS = {"test": ("test", "meta.lst"), "hard": ("test", "hardcase.lst"), "dev": ("dev", "meta.lst")}


class DemoCorpus:
    """The corpus of ``datasets/demo`` (see its CARD.md): training speech, and test, dev and hard lists of unseen voices.

    Args:
        root: Folder of the corpus; default is the one that ships.
        extra: A folder written by ``imfbench.datasets.demo.build`` with further training speech.
        speeds: Factors by which training speech is also played faster or slower; pitch and formants move along, so that
            each factor adds speakers that nobody is.
        task: "token2mel": the content is a phone for every 25 ms. "text2mel": the phones without their durations.
        length: Frames to generate in text2mel: "truth", the ground truth's; "prompt-rate", F5-TTS's rule, the prompt's
            frames for each phone times the text's phones.
        held_out: Beginnings of voices' names ("b": British) that training leaves out; the test sets then have only these.
    """

    name = "demo"
    language = "en"
    card: ClassVar[DatasetCard] = DatasetCard(
        sets={
            "test": SetCard(172, "en", speakers=4),
            "dev": SetCard(46, "en", speakers=2),
            "hard": SetCard(34, "en", speakers=4),
            "noisy": SetCard(172, "en", speakers=4),
            "long2": SetCard(84, "en", speakers=4),
            "long4": SetCard(40, "en", speakers=4),
        },
        licence="Apache-2.0 (audio by Kokoro-82M), sentences CC0-1.0",
        source="it is here already, in datasets/demo/data",
        layout="SHA256SUMS, phones.txt and test/, dev/ and train/ with lists, alignments and recordings",
    )
    sample_rate: ClassVar[int] = 24_000
    """Of its recordings; one of another rate is noted."""

    def __init__(
        self, root: Path | None = None, extra: Path | None = None, speeds: tuple[float, ...] = (1.0,),
        task: Literal["token2mel", "text2mel"] = "token2mel", length: Literal["truth", "prompt-rate"] = "truth",
        held_out: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        self.root = Path(root) if root else DATA
        self.extra = Path(extra) if extra else None
        self.speeds = tuple(speeds)
        self.task, self.length, self.held_out = task, length, tuple(held_out)
        self._inputs = EMBEDDED

    @property
    def inputs(self) -> Inputs:
        """What the networks are given; an experiment sets it.

        Raises:
            DatasetError: On setting it: the networks are of other contents or voices, so that nothing they say would be speech.
        """
        return self._inputs

    @inputs.setter
    def inputs(self, inputs: Inputs) -> None:
        takes, dims = inputs.vocabulary, inputs.speaker_dims
        if inputs.characters is None and takes is not None and takes != len(self.vocabulary):
            raise DatasetError(
                f"the network knows {takes} contents and dataset 'demo' has {len(self.vocabulary)} phones: train one of "
                "this size on it (text_num_embeds of f5tts, vocab_size of cosyvoice2), lay the vocab.txt of a network of "
                "characters beside its weights, or name the dataset that the network is for"
            )
        if dims is not None and dims != DIMS:
            raise DatasetError(
                f"the network takes a speaker's vector of {dims} numbers (CAM++'s has 192) and dataset 'demo' gives "
                f"Resemblyzer's, of {DIMS}: train one with speaker_dims: {DIMS} on it, or name the dataset that it is for"
            )
        self._inputs = inputs

    @property
    def variant(self) -> str:
        """What sets figures apart besides the revision: in text2mel whence the total length comes, and the voices of the sets."""
        length = (
            "" if self.task == "token2mel" else {"truth": "true length", "prompt-rate": "prompt's rate"}[self.length]
        )
        voices = f"voices {' '.join(self.held_out)}" if self.held_out else ""
        return ", ".join(filter(None, [length, voices]))

    @cached_property
    def revision(self) -> str:
        """First eight digits of the sha256 of SHA256SUMS, which covers every file; with ``extra``, its digest as well."""
        self._require("SHA256SUMS")
        own = file_sha256(self.root / "SHA256SUMS")[:8]
        return own if self.extra is None else f"{own}+{self._features(EMBEDDED).digest(self._extra_rows())}"

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """Phones → tokens; 0 is padding."""
        self._require("phones.txt")
        path = self.root / "phones.txt"
        found: dict[str, int] = {}
        for number, phone in lines_of(path):
            if not phone or phone in found:  # a line too many would give other numbers to all phones after it
                raise DatasetError(f"{path}, line {number} is {'empty' if not phone else 'a phone again'}: {COPY}")
            found[phone] = number
        return found

    def verify(self) -> list[str]:
        """Compare every file with SHA256SUMS; the problems in words, empty if all is well."""
        self._require("SHA256SUMS")
        problems = []
        for line in (self.root / "SHA256SUMS").read_text(encoding="utf-8").splitlines():
            expected, name = line.split("  ", 1)
            path = self.root / name
            if not path.is_file():
                problems.append(f"{path} is missing")
            elif file_sha256(path) != expected:
                problems.append(f"{path} is not the file that SHA256SUMS lists (sha256 {expected[:12]}… expected)")
        return problems

    def utterances(self, split: str = "test") -> list[Utterance]:
        """The rows of a Seed-TTS list: "test", "dev" or "hard"; or of a set made of "test" (``datasets/demo/harder.py``).

        Raises:
            DatasetError: No such split, or a list or an alignment that cannot be used.
        """
        if split == NOISY:
            return noisy(self.utterances("test"))
        if split in LONG:
            return [utterance for utterance, _ in self._long(split)]
        if split not in LISTS:
            raise DatasetError(f"dataset 'demo' has no split {split!r}: {nearest(split, list(self.card.sets))}")
        folder, name = LISTS[split]
        self._require(f"{folder}/{name}")
        _ = self.vocabulary  # damage there would be every row's
        path = self.root / folder / name
        rows = []
        for row in read_list(path, fields=(5,)):
            where = f"{path}, line {row.line}"
            truth = self._truth(folder, row.id, where)
            self._truth(folder, row.prompt_audio.stem, where)
            rows.append(
                Utterance(
                    id=row.id,
                    text=row.text,
                    language=self.language,
                    speaker=truth["speaker"],
                    prompt_id=row.prompt_audio.stem,
                    prompt_text=row.prompt_text,
                    prompt_audio=row.prompt_audio,
                    target_audio=row.target_audio,
                    seconds=truth["seconds"],
                )
            )
        return [row for row in rows if not self.held_out or row.speaker.startswith(self.held_out)]

    def _truth(self, folder: str, name: str, where: str) -> dict[str, Any]:
        found = self._alignments(folder).get(name)
        if found is None:
            lines = self.root / folder / "alignments.jsonl"
            raise DatasetError(f"{where}: {lines} holds no phones of {name!r}; add its row there, or remove this one")
        return found

    def _require(self, name: str) -> None:
        if not (self.root / name).is_file():
            raise DatasetError(
                f"{self.root} is no folder of the demo corpus, it holds no {name}: correct the option `root`, or leave it out"
            )

    def condition(self, utterance: Utterance) -> Condition:
        """What the network may know of an utterance: its units or phones, and the prompt's, and the prompt's mel and voice."""
        split = utterance.prompt_audio.parent.parent.name
        alignments = self._alignments(split)
        made = utterance.id.partition("-")[0]
        target = self._long_rows(made) if made in LONG else alignments
        row = target[utterance.id.removeprefix(f"{NOISY}-")]
        prompt = self._features(self.inputs).example(
            alignments[utterance.prompt_id], utterance.prompt_audio, noise=made == NOISY
        )
        if self.inputs.characters is not None:
            return self._character_condition(utterance, row, noise=made == NOISY)
        if self.task == "text2mel":
            try:
                return self._text_condition(row, alignments[utterance.prompt_id], prompt.mel)
            except DatasetError:
                raise
            except ValueError as error:
                raise DatasetError(f"{utterance.id}: {error}; {self._longer(utterance)}") from None
        target_units, each = self._units(row), self.inputs.frames_per_token
        frames = self._frames(row) // each * each
        tokens = tokens_of_frames(target_units, frames, mel=self.inputs.mel, frames_per_token=each)
        return make_condition(prompt.mel, prompt.tokens, tokens, prompt.voice)

    def _frames(self, row: dict[str, Any]) -> int:
        """Mel frames of an utterance as long as its phones."""
        mel = self.inputs.mel
        return mel.frame_count(sum(row["frames"]) * mel.sample_rate // 40)  # 40 units a second

    def _text_condition(self, target: dict[str, Any], prompt: dict[str, Any], prompt_mel: torch.Tensor) -> Condition:
        if self.length == "truth":
            frames = self._frames(target)
        else:
            frames = round(len(prompt_mel) / len(prompt["phones"]) * len(target["phones"]))
        return make_text_condition(prompt_mel, self._phones(prompt), self._phones(target), frames, self.inputs.text)

    def _character_condition(self, utterance: Utterance, target: dict[str, Any], noise: bool) -> Condition:
        assert self.inputs.characters is not None
        audio, rate = load_audio(utterance.prompt_audio)
        return character_condition(
            self.inputs.characters, with_noise(audio, utterance.prompt_id) if noise else audio, rate, utterance.prompt_text,
            utterance.text, self.inputs.mel, frames=self._frames(target) if self.length == "truth" else None,
        )  # fmt: skip

    def _longer(self, utterance: Utterance) -> str:
        """What gives more frames to a text that does not fit into those that it has."""
        if self.length == "truth":
            return "mend the `frames` of its row of alignments.jsonl, or take it out of the list"
        prompt = utterance.prompt_audio
        return f"name another prompt than {prompt}, whose rate this length follows, or set the option `length: truth`"

    def own_condition(
        self, prompt: np.ndarray, prompt_text: Callable[[], str], text: str, british: bool = False, speed: float = 1.0
    ) -> Condition:
        """The condition of text2mel for a text of one's own; see :func:`imfbench.datasets.demo.own_text.own_condition`."""
        from imfbench.datasets.demo.own_text import own_condition

        if self.inputs.characters is not None:
            mel = self.inputs.mel
            return character_condition(self.inputs.characters, prompt, mel.sample_rate, prompt_text(), text, mel, speed)
        return own_condition(self.vocabulary, prompt, prompt_text, text, british, speed, self.inputs)

    def target_mel(self, utterance: Utterance) -> torch.Tensor:
        """The ground truth's log-mel (frames, bands): for the vocoded ground truth only, never for a method."""
        assert utterance.target_audio is not None
        audio, _ = load_audio(utterance.target_audio, self.inputs.mel.sample_rate)
        return self.inputs.mel.log_mel(torch.from_numpy(audio))

    def batches(
        self, frames_per_batch: int, seed: int, start_step: int = 0, split: str = "train", stride: int = 1
    ) -> Iterator[Batch]:
        """Endless training batches, every ``stride``-th of them; batch k depends on (seed, k) alone."""
        examples = self.examples(split)
        return training_batches(examples, frames_per_batch, seed, start_step, inputs=self.inputs, stride=stride)

    def examples(self, split: str = "train") -> list[Example]:
        """The training utterances with their features, computed once and kept in the cache folder."""
        features = self._features(self.inputs)
        found: list[Example] = []
        for speed in self.speeds:
            found += features.of(self._training_rows(), speed, f"demo-{split}")
            if self.extra is not None:
                found += features.of(self._extra_rows(), speed, "demo-more")
        if self.task == "text2mel":
            rows = [row for row, _ in self._training_rows() + (self._extra_rows() if self.extra is not None else [])]
            speeds = [speed for speed in self.speeds for _ in rows]
            if self.inputs.characters is not None:
                return [
                    replace(e, tokens=character_tokens(row["text"], self.inputs.characters))
                    for e, row in zip(found, rows * len(self.speeds), strict=True)
                ]
            found = [
                replace(e, tokens=self._phones(row), ends=phone_ends(row["frames"], len(e.mel), speed, self.inputs.mel))
                for e, row, speed in zip(found, rows * len(self.speeds), speeds, strict=True)
            ]
        return found

    def _features(self, inputs: Inputs) -> Features:
        return Features(inputs, self.vocabulary, self._units)

    def _extra_rows(self) -> list[tuple[dict[str, Any], Path]]:
        from imfbench.datasets.demo.build import read_journals, speaker_of

        assert self.extra is not None
        rows = [row for row in read_journals(self.extra).values() if row["split"] == "more"]
        if not rows:
            raise DatasetError(
                f"{self.extra} holds no further training speech: correct the option `extra`, or leave it out"
            )
        audio = self.extra / "more-audio"
        return [(row | {"speaker": speaker_of(row)}, audio / f"{row['id']}.flac") for row in rows]

    def _training_rows(self) -> list[tuple[dict[str, Any], Path]]:
        rows = [row for row in self._alignments("train").values() if not self._left_out(row)]
        return [(row, self.root / "train" / "audio" / f"{row['id']}.opus") for row in rows]

    def _left_out(self, row: dict[str, Any]) -> bool:
        return bool(self.held_out) and str(row["speaker"]).startswith(self.held_out)

    def _alignments(self, folder: str) -> dict[str, dict[str, Any]]:
        if folder not in self._read:
            self._require(f"{folder}/alignments.jsonl")
            path = self.root / folder / "alignments.jsonl"
            found: dict[str, dict[str, Any]] = {}
            for number, line in lines_of(path):
                try:
                    row = json.loads(line)
                except ValueError:
                    row = None
                if told := row_problem(row):
                    raise DatasetError(f"{path}, line {number} {told}: {COPY}")
                found[row["id"]] = row
            self._read[folder] = found
        return self._read[folder]

    @cached_property
    def _read(self) -> dict[str, dict[str, dict[str, Any]]]:
        return {}

    def _phones(self, row: dict[str, Any]) -> torch.Tensor:
        unknown = set(row["phones"]) - set(self.vocabulary)
        if unknown:
            raise DatasetError(
                f"{row['id']} has phones that the networks cannot say, {self.root / 'phones.txt'} lacks them: "
                f"{' '.join(sorted(unknown))}; mend its row of alignments.jsonl, or take it out of the list"
            )
        return torch.tensor([self.vocabulary[phone] for phone in row["phones"]])

    def _units(self, row: dict[str, Any]) -> torch.Tensor:
        return units(self._phones(row).tolist(), row["frames"])

    def _long(self, split: str) -> list[tuple[Utterance, dict[str, Any]]]:
        return joined(self.utterances("test"), self._alignments("test"), split)

    def _long_rows(self, split: str) -> dict[str, dict[str, Any]]:
        if split not in self._read:
            self._read[split] = {utterance.id: row for utterance, row in self._long(split)}
        return self._read[split]
