"""Training speech of a manifest, Emilia's or LibriTTS's kind, for networks of F5-TTS's and CosyVoice 2's kind."""

from __future__ import annotations

import hashlib
import itertools
import logging
import random
import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from imfbench.bucketing import batches_of_rows, infilling_span, prompt_frames
from imfbench.data import DatasetError, collate, seconds_of
from imfbench.features.audio import resample
from imfbench.features.audio_check import AudioError
from imfbench.features.speech_store import Given, Heard, Listener, Shards
from imfbench.inputs import EMBEDDED, Inputs
from imfbench.manifest_audio import read_audio, state_of
from imfbench.manifest_checks import kind_of, pair_of, paths_of, told_of, unknown_characters
from imfbench.manifest_rows import Row, read_rows
from imfbench.method import Batch
from imfbench.store import file_sha256

log = logging.getLogger("imfbench")
Task = Literal["token2mel", "text2mel"]
APART = 0.1
"""Seconds by which a manifest and a recording may differ: rounding, not another recording."""
FIRST = 50
"""Recordings after which a manifest of which none can be used is given up."""


class Manifest:
    """Speech of one's own to train on, from a manifest (:mod:`imfbench.manifest_rows` says which); no test set.

    What is given of an utterance is drawn anew each time, as the networks' own trainings do: in text2mel all but a span of 70 to
    100 % of the frames (``frac_lengths_mask`` of F5-TTS), in token2mel nothing in half of the rows, in the others up to 30 % at
    the beginning (``flow.py`` of CosyVoice 2). A recording that cannot be used is left out, counted and logged with its reason.

    Args:
        manifest: A file or folder, or several.
        supervisions: lhotse's texts, where ``manifest`` holds its recordings.
        audio_root: What paths are relative to; the manifest's own folder without it.
        seconds: Shortest and longest utterance; F5-TTS's are .3 and 30.
        max_samples: Rows of a batch at most; F5-TTS's 64.
        filled: Least and largest share of the frames that text2mel fills in.
        prompts: token2mel's share of rows with a prompt, and the largest share of the frames that it is.
        unknown: What becomes of texts with characters that the network's vocab.txt has not: an error, left out, or read as
            spaces, which is what F5-TTS does without a word.
        features: Folder of S3 tokens and speaker vectors by id (``speech_store.Given``); without it they are made of the
            recordings and kept beside the manifest.
        device: Where the S3 tokenizer runs.
        workers: Threads that read recordings ahead; 0 reads them when they are asked for.
        task: Whose conditions are asked for.

    Attributes:
        skipped: Reason → how many utterances were left out for it so far.
    """

    name: ClassVar[str] = "manifest"
    serves: ClassVar[tuple[str, ...]] = ("f5tts", "cosyvoice2")
    """Backbones whose kind its batches are for; a dataset without this serves the embedded networks' kind."""

    def __init__(
        self, manifest: str | Path | Sequence[str | Path], supervisions: str | Path | Sequence[str | Path] = (),
        audio_root: str | Path | None = None, seconds: Sequence[float] = (0.3, 30.0), max_samples: int = 64,
        filled: Sequence[float] = (0.7, 1.0), prompts: Sequence[float] = (0.5, 0.3),
        unknown: Literal["refuse", "skip", "space"] = "refuse", features: str | Path | None = None, device: str = "cpu",
        workers: int = 0, task: Task = "text2mel",
    ) -> None:  # fmt: skip
        self.paths, self.supervisions = paths_of(manifest), paths_of(supervisions)
        self.audio_root = Path(audio_root).expanduser() if audio_root else None
        self.seconds = pair_of("seconds", seconds, 0.0, float("inf"))
        self.filled = pair_of("filled", filled, 0.0, 1.0)
        self.prompts = _shares(prompts)
        self.max_samples, self.workers, self.task, self.device = int(max_samples), int(workers), task, device
        if self.max_samples < 1 or self.workers < 0:
            raise DatasetError(f"max_samples is 1 at least and workers 0, not {max_samples} and {workers}")
        if unknown not in ("refuse", "skip", "space"):
            raise DatasetError(f"the option `unknown` is 'refuse', 'skip' or 'space', not {unknown!r}")
        self.unknown = unknown
        self.given = None if features is None else Given(Path(features).expanduser())
        self.skipped: Counter[str] = Counter()
        self._inputs, self._read = EMBEDDED, 0
        self._failed: set[int] = set()
        self._lock = threading.Lock()
        lacking = [path for path in (*self.paths, *self.supervisions) if not path.exists()]
        if lacking:
            read_rows(lacking[:1])  # raises

    @property
    def inputs(self) -> Inputs:
        """What the networks are given; an experiment sets it.

        Raises:
            DatasetError: On setting it: they read something else than a manifest has.
        """
        return self._inputs

    @inputs.setter
    def inputs(self, inputs: Inputs) -> None:
        if self.task == "text2mel" and inputs != EMBEDDED and inputs.characters is None:
            raise DatasetError(
                f"dataset 'manifest' ({self.paths[0]}) has texts, and the network reads no characters: name one that has a "
                "vocab.txt beside its weights (`imfbench import` puts F5-TTS's there), or train on dataset 'demo', whose phones "
                "the embedded networks know"
            )
        if self.task == "token2mel" and inputs != EMBEDDED and inputs.speaker_dims is None:
            raise DatasetError(
                f"dataset 'manifest' ({self.paths[0]}) gives S3 tokens and speaker vectors, and the network takes no vector: "
                "name one of CosyVoice 2's kind, or train on dataset 'demo'"
            )
        self._inputs = inputs
        for name in ("rows", "_frames", "_heard", "_numbers"):
            self.__dict__.pop(name, None)

    @cached_property
    def revision(self) -> str:
        """First eight digits of the sha256 of the manifests' own."""
        files = [file for path in (*self.paths, *self.supervisions) for file in _files(path)]
        return hashlib.sha256("".join(file_sha256(file) for file in files).encode()).hexdigest()[:8]

    @cached_property
    def rows(self) -> list[Row]:
        """The rows that may be used by what the manifest says, with their lengths; the others are counted in ``skipped``."""
        found = []
        low, high = self.seconds
        for row in read_rows(self.paths, self.supervisions, self.audio_root):
            seconds = row.seconds
            if seconds is None and row.audio is not None:
                seconds = seconds_of(row.audio)
            if seconds is None:
                self._skip(row, "its length is neither in the manifest nor to be read from the file")
            elif not low <= seconds <= high:
                self._skip(row, "too short or too long")
            elif not "".join(row.text).strip() and self.task == "text2mel":
                self._skip(row, "no text")
            else:
                found.append(replace(row, seconds=seconds))
        if not found:
            told = "; ".join(f"{reason}: {count}" for reason, count in self.skipped.most_common())
            raise DatasetError(
                f"{self.paths[0]} holds no utterance to train on ({told}): see the option `seconds`, or mend it"
            )
        return self._known(found) if self.task == "text2mel" and self.inputs.characters is not None else found

    def _known(self, rows: list[Row]) -> list[Row]:
        """Rows whose characters the network knows."""
        strange = {} if self.unknown == "space" else unknown_characters(rows, set(self.inputs.characters or ()))
        if strange and (self.unknown == "refuse" or len(strange) == len(rows)):
            raise DatasetError(told_of(self.paths[0], rows, strange))
        for i in strange:
            self._skip(rows[i], "characters that vocab.txt has not")
        return [row for i, row in enumerate(rows) if i not in strange]

    @cached_property
    def _frames(self) -> list[int]:
        mel = self.inputs.mel
        each = self.inputs.frames_per_token
        samples = (round((row.seconds or 0) * mel.sample_rate) for row in self.rows)
        return [max(each, mel.frame_count(count) // each * each) for count in samples]

    @cached_property
    def _heard(self) -> dict[int, Heard]:
        """Tokens and vectors of all rows."""
        if self.given is not None:
            found = {}
            for i, row in enumerate(self.rows):
                if row.id in self.given:
                    found[i] = self.given(row.id)
            if not found:
                self.given(self.rows[0].id)  # raises
            for i in range(len(self.rows)):
                if i not in found:
                    self._leave_out(i, f"no tokens or no vector of it in {self.given.folder}", read=False)
        else:
            log.info("S3 tokens and speaker vectors of %s: made once, kept in %s", self.paths[0], self._beside)
            shards = Shards(self._beside, Listener(self.device))
            found, failed = shards.of(
                [row.id for row in self.rows],
                lambda i: read_audio(self.rows[i]),
                lambda done, of: log.info("tokens and vectors of %d of %d utterances", done, of),
                lambda i: state_of(self.rows[i]),
            )
            for i, reason in failed.items():
                self._leave_out(i, reason, read=False)
        if found and self.inputs.speaker_dims not in (None, len(next(iter(found.values())).voice)):
            dims = len(next(iter(found.values())).voice)
            raise DatasetError(
                f"the speaker vectors of {self.paths[0]} have {dims} numbers and the network takes {self.inputs.speaker_dims}: "
                "give vectors of the embedder that it was trained with (CAM++'s have 192)"
            )
        return found

    @property
    def _beside(self) -> Path:
        """Where what is made of a manifest is kept."""
        return self.paths[0].parent / f"{self.paths[0].name}.cosyvoice2"

    def batches(self, frames_per_batch: int, seed: int, start_step: int = 0, stride: int = 1) -> Iterator[Batch]:
        """Endless batches; batch k depends on (seed, k) alone, in whatever process.

        Args:
            frames_per_batch: Frames of a batch, padding included; an utterance that is longer is a batch of its own.
            seed: Of the order, and of what is given of each utterance.
            start_step: Batches to skip.
            stride: Give every so many-th batch from there on: what one of several processes takes. Others are not read.

        Raises:
            DatasetError: The manifest cannot be used, or none of the first recordings can be, or tokens are of another rate.
        """
        if self.inputs == EMBEDDED:
            raise DatasetError(
                f"dataset 'manifest' ({self.paths[0]}) is for networks of F5-TTS's and CosyVoice 2's kind alone"
            )
        if self.task == "token2mel":
            _ = self._heard
        every = batches_of_rows(self._frames, frames_per_batch, self.max_samples, seed, start_step)
        plan = itertools.islice(every, 0, None, stride)
        if not self.workers:
            for number, rows in plan:
                yield self._made(number, rows, seed, [self._example(i) for i in rows])
        with ThreadPoolExecutor(self.workers) as pool:
            waiting: deque[tuple[int, list[int], list[Future[Any]]]] = deque()
            for number, rows in plan:
                waiting.append((number, rows, [pool.submit(self._example, i) for i in rows]))
                if len(waiting) > 2:
                    first, those, futures = waiting.popleft()
                    yield self._made(first, those, seed, [future.result() for future in futures])

    def _made(
        self, number: int, rows: list[int], seed: int, examples: list[tuple[Tensor, Tensor, Tensor | None] | None]
    ) -> Batch:
        usable = [(i, example) for i, example in zip(rows, examples, strict=True) if example is not None]
        if not usable:  # the batch's place is kept: another takes it, which its number alone decides
            usable = self._instead(number, max(self._frames[i] for i in rows), seed)
        given, masks = [], []
        for i, (mel, tokens, _) in usable:
            masks.append(self._prompt(len(mel), random.Random(f"{seed}/{number}/{i}")))
            given.append((mel, tokens, 0))
        found = collate(given, tuple(self.rows[i].id for i, _ in usable), [voice for _, (*_, voice) in usable])
        prompt = torch.zeros_like(found.condition.prompt)
        for row, mask in enumerate(masks):
            prompt[row, : len(mask)] = mask
        return replace(
            found, condition=replace(found.condition, prompt=prompt, prompt_mel=found.x1 * prompt[..., None])
        )

    def _instead(self, number: int, longest: int, seed: int) -> list[tuple[int, Any]]:
        """A row for a batch of which none can be used: the first that can, in an order of its own; long ones come last."""
        order = list(range(len(self.rows)))
        random.Random(f"{seed}/{number}/instead").shuffle(order)
        for i in sorted(order, key=lambda i: self._frames[i] > longest):
            if (example := self._example(i)) is not None:
                return [(i, example)]
        raise DatasetError(f"{self.paths[0]}: no recording can be used: {self._reasons()}")

    def _prompt(self, frames: int, draw: random.Random) -> Tensor:
        """What is given of an utterance, (frames,), bool."""
        at = torch.arange(frames)
        if self.task == "text2mel":
            start, length = infilling_span(frames, self.filled, draw)
            return (at < start) | (at >= start + length)
        given = prompt_frames(frames, *self.prompts, draw)
        return at < given // self.inputs.frames_per_token * self.inputs.frames_per_token

    def _example(self, i: int) -> tuple[Tensor, Tensor, Tensor | None] | None:
        """Mel, tokens and voice of a row; None for one that cannot be used, which is counted."""
        row = self.rows[i]
        if i in self._failed:
            return None
        try:
            audio, rate = read_audio(row)
            self._check_length(row, audio, rate)
            mel = self._mel(audio, rate)[: self._frames[i]]
            text = self.task == "text2mel"
            found = (mel, self._characters(row, len(mel)), None) if text else self._tokens(i, mel)
        except AudioError as error:
            self._leave_out(i, str(error))
            return None
        with self._lock:
            self._read += 1
        return found

    def _mel(self, audio: np.ndarray, rate: int) -> Tensor:
        mel = self.inputs.mel
        return mel.normalise(mel.log_mel(torch.from_numpy(resample(audio, rate, mel.sample_rate))))

    def _check_length(self, row: Row, audio: np.ndarray, rate: int) -> None:
        seconds = len(audio) / rate
        if abs(seconds - (row.seconds or 0)) > APART:
            raise AudioError(
                f"{row.audio or row.id} is not as long as the manifest says: {seconds:.2f} s were read, not "
                f"{row.seconds:.2f}"
            )
        if not np.abs(audio).max() > 1e-4:
            raise AudioError(f"{row.audio or row.id} is silent")

    def _characters(self, row: Row, frames: int) -> Tensor:
        from imfbench.features.f5_text import characters, numbers

        text = row.text if isinstance(row.text, tuple) else characters([row.text])[0]
        tokens = numbers([text], self._numbers)[0] + 1
        if len(tokens) > frames:
            raise AudioError(
                f"{row.audio or row.id} has more characters than frames: {len(tokens)} and {frames}, so that it cannot be "
                "what is said"
            )
        return torch.cat([tokens, tokens.new_zeros(frames - len(tokens))])

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {character: number for number, character in enumerate(self.inputs.characters or ())}

    def _tokens(self, i: int, mel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        from imfbench.features.s3_tokens import TokenRateError, check_token_rate, foreign_token

        heard, each = self._heard[i], self.inputs.frames_per_token
        try:
            check_token_rate(len(mel), len(heard.tokens), f"{self.rows[i].audio or self.rows[i].id}")
        except TokenRateError as error:
            raise DatasetError(f"{self.paths[0]}: {error}") from None
        if told := foreign_token(heard.tokens, self.inputs.vocabulary):
            raise DatasetError(f"{self.rows[i].id!r} of {self.paths[0]} has {told}")
        count = min(len(mel) // each, len(heard.tokens))
        return mel[: count * each], (heard.tokens[:count] + 1).repeat_interleave(each), heard.voice

    def _leave_out(self, i: int, reason: str, read: bool = True) -> None:
        with self._lock:
            if i in self._failed:
                return
            self._failed.add(i)
        self._skip(self.rows[i], reason)
        if (read and self._read == 0 and len(self._failed) >= FIRST) or len(self._failed) == len(self.rows):
            raise DatasetError(
                f"none of the first {len(self._failed)} recordings of {self.paths[0]} can be used: {self._reasons()}. Correct "
                "the option `audio_root`, or the paths in the manifest"
            )

    def _skip(self, row: Row, reason: str) -> None:
        with self._lock:
            self.skipped[kind_of(reason, row)] += 1
            count = self.skipped.total()
        if count <= 5 or count in (10, 100, 1000, 10_000, 100_000):  # of millions, not each a line
            log.warning("%s: %s is left out, %d so far: %s", self.paths[0], row.id, count, reason)

    def _reasons(self) -> str:
        return "; ".join(f"{reason} ({count})" for reason, count in self.skipped.most_common(3))


def _shares(value: Sequence[float]) -> tuple[float, float]:
    """Two shares, in whatever order."""
    pair_of("prompts", sorted(value), 0.0, 1.0)
    share, longest = map(float, value)
    return share, longest


def _files(path: Path) -> list[Path]:
    return sorted(path.rglob("*.arrow")) if path.is_dir() else [path]
