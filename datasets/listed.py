"""Test sets that are a list of texts and prompts: what all published layouts share."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import torch

from imfbench.data import NO_RECORDING, DatasetCard, DatasetError, Utterance, make_condition
from imfbench.datasets.demo.corpus import DemoCorpus
from imfbench.features.audio import load_audio
from imfbench.features.audio_check import AudioError
from imfbench.features.f5_condition import character_condition
from imfbench.features.phones import PromptError, TextError
from imfbench.features.s3_tokens import FRAMES_PER_TOKEN, TokenRateError, check_token_rate, foreign_token
from imfbench.features.speech_store import Given, Listener, Recordings
from imfbench.inputs import EMBEDDED, Inputs
from imfbench.method import Condition
from imfbench.registry import nearest
from imfbench.weights import MissingModelError

Task = Literal["token2mel", "text2mel"]
FIRST = 3
"""Utterances of which given tokens are looked at before anything runs."""


class ForeignFeaturesError(DatasetError):
    """Tokens or speaker vectors that were made for other networks."""


class ListedSet(ABC):
    """Texts, prompts and, for some, recordings of the texts; nothing of what token2mel's networks are given.

    Args:
        root: The folder.
        task: Whose conditions are asked for.
        features: token2mel: a folder with S3 tokens of texts and prompts and speaker vectors of prompts by id
            (``imfbench.features.speech_store.Given``), such as the tokens that CosyVoice 2's language model makes of the texts;
            without it tokens are those of the texts' own recordings.

    Attributes:
        name: Its registered name.
        card: Sizes, language, licence and source of what was published.
        sample_rate: Of its recordings, where that is known: one of another rate is noted.
    """

    name: ClassVar[str]
    card: ClassVar[DatasetCard]
    sample_rate: ClassVar[int | None] = None
    inputs: Inputs = EMBEDDED
    """What the networks are given; an experiment sets it."""

    def __init__(self, root: str | Path, task: Task = "token2mel", features: str | Path | None = None) -> None:
        self.root = Path(root).expanduser()
        self.task: Task = task
        self.features = None if features is None else Path(features).expanduser()
        self._sets: dict[str, list[Utterance]] = {}
        self._places: dict[Utterance, tuple[Path, int]] = {}
        if not self.root.exists():
            raise DatasetError(
                f"dataset {self.name!r}: there is no folder {self.root}; correct `root` (or --data). "
                f"It is to hold {self.card.layout}. {self.card.source}"
            )

    @abstractmethod
    def read(self, split: str) -> list[Utterance]:
        """The utterances of a set, from its list.

        Raises:
            DatasetError: The list cannot be used.
        """

    @property
    def sets(self) -> list[str]:
        """The sets that are there, of those that there are."""
        return list(self.card.sets)

    def utterances(self, split: str = "test") -> list[Utterance]:
        """The utterances of a set, in the order of its list; read once. Recordings may be missing.

        Raises:
            DatasetError: No such set, or its list cannot be used; the message says why, with file and line.
        """
        if split not in self._sets:
            known = list(dict.fromkeys([*self.card.sets, *self.sets]))
            if split not in known:
                raise DatasetError(f"dataset {self.name!r} has no set {split!r}: {nearest(split, known)}")
            found = self.read(split)
            leaks = [u.id for u in found if u.prompt_audio == u.target_audio]
            if leaks:
                raise DatasetError(
                    f"{len(leaks)} utterances of {self.name}/{split} have as their prompt the recording of their own text, so "
                    f"that a system would be given what it is to say, the first {leaks[0]!r}: name other prompts"
                )
            self._sets[split] = found
        return list(self._sets[split])

    def listed(self, utterance: Utterance, path: Path, line: int) -> Utterance:
        """An utterance of which it is now known where its text stands."""
        self._places[utterance] = (path, line)
        return utterance

    def place_of(self, utterance: Utterance) -> str:
        """List and line of an utterance's text, for messages; empty where nobody knows."""
        path, line = self._places.get(utterance, (None, 0))
        return "" if path is None else f"{path}, line {line}"

    @cached_property
    def revision(self) -> str:
        """Of all its sets that are there."""
        return _digest([self.revision_of(split) for split in self.sets])

    def revision_of(self, split: str) -> str:
        """First eight digits of the sha256 of a set's ids, texts, prompts and languages, whatever its files and folders."""
        return _digest([[u.id, u.text, u.prompt_id, u.prompt_text, u.language] for u in self.utterances(split)])

    @property
    def variant(self) -> str:
        """What sets figures apart besides the revision: where length or tokens come from; before networks are known, nothing."""
        if self.task == "text2mel":
            return "prompt's rate"
        if not self._takes_s3_tokens:
            return ""
        return "recordings' tokens" if self._given is None else f"given tokens {self._given.revision}"

    @property
    def _takes_s3_tokens(self) -> bool:
        """Whether the networks are of CosyVoice 2's kind."""
        return self.inputs.speaker_dims is not None and self.inputs.frames_per_token == FRAMES_PER_TOKEN

    def lacking(self, split: str) -> str:
        """What the networks of the task would have to be given of this set and cannot be; empty if nothing."""
        instead = (
            "leave out `teacher` and `systems` (the references need none of it), or score recordings made elsewhere"
        )
        what = f"dataset {self.name!r} has texts and recordings, but"
        if self.task == "token2mel":
            return self._lacking_tokens(split, what, instead)
        language = self.card.sets[split].language if split in self.card.sets else ""
        if language == "zh" and self.inputs.characters is None:
            return (
                f"{what} its set {split!r} is Chinese, and the embedded networks have the phones of English: {instead}"
            )
        if self.inputs.characters is not None:
            return ""
        try:
            _ = self._embedded
        except DatasetError as error:
            return f"{what} phones alone for its English texts: {error}"
        if any(importlib.util.find_spec(module) is None for module in ("phonemizer", "espeakng_loader")):
            return f"{what} its phones come from espeak-ng, which is not installed: pip install 'imfbench[g2p]', or {instead}"
        return ""

    def _lacking_tokens(self, split: str, what: str, instead: str) -> str:
        if not self._takes_s3_tokens:
            return (
                f"{what} networks of token2mel are given semantic tokens, here the phone of every 25 ms, which it does not "
                f"have: set task: text2mel for its English texts, {instead}"
            )
        if self.features is not None:
            return self._foreign_features(split)
        if not any(u.target_audio is not None for u in self.utterances(split)):
            return (
                f"{what} its set {split!r} has no recordings of its texts to take S3 tokens from: give tokens of CosyVoice 2's "
                f"language model by the option `features`, or {instead}"
            )
        try:
            _ = self._recordings.listener.signature
        except MissingModelError as error:
            return (
                f"{what} S3 tokens and speaker vectors are made of these by CosyVoice 2's own files, or given by the option "
                f"`features`: {error}"
            )
        return ""

    def _foreign_features(self, split: str) -> str:
        """What is wrong with given tokens and vectors, if none of the first few utterances' fit: then none do."""
        told = ""
        for utterance in self.utterances(split)[:FIRST]:
            try:
                self.condition(utterance)
            except (TokenRateError, ForeignFeaturesError) as error:
                told = told or f"dataset {self.name!r}, option `features` ({self.features}): {error}"
            except (DatasetError, AudioError, PromptError, TextError, OSError):
                continue  # its own row fails
            else:
                return ""
        return told

    def condition(self, utterance: Utterance) -> Condition:
        """What networks may know: the prompt's mel and both texts' phones by espeak-ng, or characters, or S3 tokens.

        Raises:
            DatasetError: The task is token2mel and the networks are not of CosyVoice 2's kind, or tokens are lacking.
            PromptError: There is too little or too much speech in the prompt.
            TextError: The prompt's or the text's length or signs are none that the networks can say.
        """
        if self.task == "token2mel":
            return self._token_condition(utterance)
        # LibriSpeech's capitals would be spelt out letter by letter.
        said, text = (text.lower() if text.isupper() else text for text in (utterance.prompt_text, utterance.text))
        if self.inputs.characters is not None:
            audio, rate = load_audio(utterance.prompt_audio)
            return character_condition(self.inputs.characters, audio, rate, said, text, self.inputs.mel)
        prompt, _ = load_audio(utterance.prompt_audio, self.inputs.mel.sample_rate)
        try:
            return self._embedded.own_condition(prompt, lambda: said, text)
        except PromptError as error:
            raise PromptError(f"the prompt {utterance.prompt_audio} cannot be used: {error}") from None

    def _token_condition(self, utterance: Utterance) -> Condition:
        """The prompt's tokens, mel and voice, and the tokens to say: a batch of 1, two frames a token."""
        if not self._takes_s3_tokens:
            raise DatasetError(self.lacking(""))
        audio, _ = load_audio(utterance.prompt_audio, self.inputs.mel.sample_rate)
        mel = self.inputs.mel.normalise(self.inputs.mel.log_mel(torch.from_numpy(audio)))
        if self._given is not None:
            prompt, wanted = self._given(utterance.prompt_id), self._given.tokens(utterance.id)
        elif utterance.target_audio is None:
            raise DatasetError(
                f"{utterance.id}: there is no recording of the text to take S3 tokens from: give tokens by the option `features`"
            )
        else:
            try:
                prompt, wanted = (
                    self._recordings(utterance.prompt_audio),
                    self._recordings(utterance.target_audio).tokens,
                )
            except MissingModelError as error:
                raise DatasetError(f"S3 tokens and speaker vectors cannot be made: {error}") from None
        check_token_rate(len(mel), len(prompt.tokens), f"the prompt {utterance.prompt_audio}")
        if len(prompt.voice) != self.inputs.speaker_dims:
            raise ForeignFeaturesError(
                f"{utterance.prompt_id}: a speaker's vector of {len(prompt.voice)} numbers, and the network takes "
                f"{self.inputs.speaker_dims}: give vectors of the embedder that it was trained with"
            )
        for id, tokens in ((utterance.prompt_id, prompt.tokens), (utterance.id, wanted)):
            if told := foreign_token(tokens, self.inputs.vocabulary):
                raise ForeignFeaturesError(f"{id}: {told}")
        # Upstream as well cuts prompts to as many tokens as their mel has frames for.
        count = min(len(mel) // FRAMES_PER_TOKEN, len(prompt.tokens))
        before, after = ((tokens + 1).repeat_interleave(FRAMES_PER_TOKEN) for tokens in (prompt.tokens[:count], wanted))
        return make_condition(mel[: len(before)], before, after, prompt.voice)

    @cached_property
    def _given(self) -> Given | None:
        return None if self.features is None else Given(self.features)

    @cached_property
    def _recordings(self) -> Recordings:
        return Recordings(Listener())

    @cached_property
    def _embedded(self) -> DemoCorpus:
        """The corpus whose phones the embedded networks know."""
        found = DemoCorpus(task="text2mel")
        found.inputs = self.inputs
        return found

    def target_mel(self, utterance: Utterance) -> torch.Tensor:
        """The recording's log-mel (frames, bands): for the vocoded recordings only, never for a method.

        Raises:
            AudioError: There is none, or it cannot be read.
        """
        if utterance.target_audio is None:
            raise AudioError(NO_RECORDING)
        audio, _ = load_audio(utterance.target_audio, self.inputs.mel.sample_rate)
        return self.inputs.mel.log_mel(torch.from_numpy(audio))


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=False).encode()).hexdigest()[:8]
