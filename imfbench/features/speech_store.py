"""S3 tokens and speaker vectors of recordings: given in files, or made once by CosyVoice 2's own networks and kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from imfbench.cache import cache_folder
from imfbench.data import DatasetError
from imfbench.features.audio import load_audio, resample
from imfbench.features.cosyvoice_files import CAMPPLUS, TOKENIZER, find
from imfbench.features.s3_tokens import SAMPLE_RATE, CamPlus, S3Tokenizer
from imfbench.store import file_sha256, write_bytes
from imfbench.weights import load_tensors

TOKENS = ("tokens.safetensors", "utt2speech_token.pt")
VOICES = ("voices.safetensors", "utt2embedding.pt")
"""Ours, a tensor for each id, and what CosyVoice's ``tools/extract_*.py`` write."""
REVISION = 1  # raise it when the same recording would get other tokens or another vector
SHARD = 256


@dataclass(frozen=True)
class Heard:
    """What CosyVoice 2's flow is given of a recording beside its mel.

    Attributes:
        tokens: S3 tokens from 0, 25 a second, (tokens,), int64.
        voice: The speaker's vector, (dims,), float32.
    """

    tokens: Tensor
    voice: Tensor


class Listener:
    """CosyVoice 2's tokenizer and CAM++, loaded when they are first needed.

    Args:
        device: Where the tokenizer runs.
    """

    def __init__(self, device: str = "cpu") -> None:
        self._device = device

    @cached_property
    def _parts(self) -> tuple[S3Tokenizer, CamPlus]:
        return S3Tokenizer().load(self._device), CamPlus().load()

    @cached_property
    def signature(self) -> str:
        """Of the two files and this code, twelve hexadecimal digits.

        Raises:
            imfbench.weights.MissingModelError: A file is not there.
        """
        sums = [file_sha256(find(model)) for model in (TOKENIZER, CAMPPLUS)]
        return hashlib.sha256(json.dumps([*sums, REVISION]).encode()).hexdigest()[:12]

    def __call__(self, audio: np.ndarray, rate: int) -> Heard:
        """Of a recording, (samples,), at its own rate in Hz.

        Raises:
            ValueError: It is longer than 30 s, or too short for a voice.
            imfbench.weights.MissingModelError: A file of CosyVoice2-0.5B is not there.
        """
        tokenizer, speaker = self._parts
        heard = resample(audio, rate, SAMPLE_RATE)
        return Heard(tokenizer(heard), speaker(heard))


class Given:
    """Tokens and vectors that somebody made before, by id.

    Args:
        folder: Holds ``tokens.safetensors`` and ``voices.safetensors``, a tensor for each id, or CosyVoice's own
            ``utt2speech_token.pt`` and ``utt2embedding.pt``.

    Raises:
        DatasetError: One of the two is not there, or cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._tokens, self._tokens_file = _mapping(folder, TOKENS)
        self._voices, self._voices_file = _mapping(folder, VOICES)

    def __contains__(self, id: str) -> bool:
        return id in self._tokens and id in self._voices

    @property
    def revision(self) -> str:
        """First eight digits of the sha256 of both files' content: speech of other tokens is other speech."""
        sums = [file_sha256(file) for file in (self._tokens_file, self._voices_file)]
        return hashlib.sha256(json.dumps(sums).encode()).hexdigest()[:8]

    @property
    def dims(self) -> int:
        """Numbers of a speaker's vector.

        Raises:
            DatasetError: There is not one vector.
        """
        for id in self._voices:
            return len(self.voice(id))
        raise DatasetError(f"{self._voices_file} holds no vector of a speaker: make it anew")

    def __call__(self, id: str) -> Heard:
        """Those of an id; raises DatasetError where there are none."""
        return Heard(self.tokens(id), self.voice(id))

    def tokens(self, id: str) -> Tensor:
        """S3 tokens of an id, from 0, (tokens,), int64.

        Raises:
            DatasetError: There are none, or they are no row of whole numbers.
        """
        found = torch.as_tensor(self._of(id, self._tokens, self._tokens_file))
        if found.ndim != 1 or not len(found) or found.is_floating_point() or int(found.min()) < 0:
            raise DatasetError(
                f"{self._tokens_file} has for {id!r} a {tuple(found.shape)} tensor of {found.dtype}, and tokens are a row of "
                "whole numbers from 0: make the file again"
            )
        return found.long()

    def voice(self, id: str) -> Tensor:
        """The speaker's vector of an id, (dims,), float32; raises DatasetError where there is none."""
        return torch.as_tensor(self._of(id, self._voices, self._voices_file)).float().reshape(-1)

    def _of(self, id: str, held: Mapping[str, Any], file: Path) -> Any:
        if id not in held:
            some = ", ".join(map(repr, list(held)[:3]))
            raise DatasetError(
                f"{file} has nothing of {id!r}, but {len(held)} others such as {some}: add it, by the list's ids"
            )
        return held[id]


def _mapping(folder: Path, names: Sequence[str]) -> tuple[Mapping[str, Any], Path]:
    for name in names:
        path = folder / name
        if not path.is_file():
            continue
        try:
            held = load_file(path) if path.suffix == ".safetensors" else load_tensors(path)
        except SafetensorError as error:
            raise DatasetError(f"{path} cannot be read as safetensors ({error}): make it again") from None
        if not isinstance(held, Mapping) or not held:
            raise DatasetError(f"{path} holds no ids with what belongs to each: make it again")
        return held, path
    raise DatasetError(
        f"{folder} holds no {' and no '.join(names)}: the option `features` names a folder with S3 tokens and speaker vectors by "
        "id; leave it out to have them made from the recordings"
    )


class Shards:
    """Tokens and vectors of a manifest's rows, made once and kept beside it, so many rows a file.

    A shard is written whole or not at all, and made again if its rows or CosyVoice 2's files are others. A row whose recording
    has another ``state``, or could not be read, is heard again where that can be read now.

    Args:
        folder: Where.
        listener: What makes them.
    """

    def __init__(self, folder: Path, listener: Listener) -> None:
        self.folder, self.listener = folder, listener

    def of(
        self,
        ids: Sequence[str],
        load: Callable[[int], tuple[np.ndarray, int]],
        progress: Callable[[int, int], None] | None = None,
        state: Callable[[int], str] = lambda _: "",
    ) -> tuple[dict[int, Heard], dict[int, str]]:
        """Those of all rows, and why there are none of a row.

        Args:
            ids: Of the rows.
            load: A row's number → its audio and rate; a ``ValueError`` or ``OSError`` of it is the row's reason.
            progress: Called after each shard that was made with (rows done, rows in all).
            state: A row's number → what tells its recording from a changed one; "" where nobody can tell now.
        """
        found: dict[int, Heard] = {}
        failed: dict[int, str] = {}
        for start in range(0, len(ids), SHARD):
            numbers = range(start, min(start + SHARD, len(ids)))
            path = self.folder / f"rows-{start // SHARD:06d}.safetensors"
            name = self._name([ids[i] for i in numbers])
            shard = _read(path, name) or Shard()
            if self._complete(shard, numbers, load, state):
                write_bytes(path, shard.dump(name, len(numbers)))
                if progress is not None:
                    progress(numbers.stop, len(ids))
            for i in numbers:
                if (reason := shard.reasons.get(str(i - start))) is not None:
                    failed[i] = reason
                else:
                    found[i] = Heard(shard.tensors[f"tokens/{i - start}"].long(), shard.tensors[f"voice/{i - start}"])
        return found, failed

    def _name(self, ids: Sequence[str]) -> str:
        return hashlib.sha256(json.dumps([self.listener.signature, list(ids)]).encode()).hexdigest()

    def _complete(
        self, shard: Shard, numbers: Sequence[int], load: Callable[[int], tuple[np.ndarray, int]], state: Callable[[int], str]
    ) -> bool:  # fmt: skip
        """Hear what the shard lacks, and what is another recording now; whether anything became other."""
        new = False
        for k, i in enumerate(numbers):
            key, now = str(k), state(i)
            refused = key in shard.reasons and key in shard.states and key not in shard.unread  # heard, and not fit
            if f"tokens/{k}" in shard.tensors or refused:
                if not now or shard.states.get(key) == now:
                    continue
                if not shard.states.get(key):  # nobody could tell then
                    shard.states[key], new = now, True
                    continue
            before = shard.reasons.get(key)
            shard.forget(key)
            try:
                audio, rate = load(i)
            except (ValueError, OSError) as error:  # of another time, it may be
                shard.reasons[key] = str(error)
                shard.unread.append(key)
                new |= str(error) != before
                continue
            try:
                heard = self.listener(audio, rate)
            except ValueError as error:
                shard.reasons[key] = str(error)
            else:
                shard.tensors[f"tokens/{k}"], shard.tensors[f"voice/{k}"] = heard.tokens.to(torch.int16), heard.voice
            shard.states[key], new = now, True
        return new


@dataclass
class Shard:
    """What is kept of some rows, by their numbers within it.

    Attributes:
        tensors: ``tokens/NUMBER`` and ``voice/NUMBER``.
        reasons: Why there are none of a row.
        unread: Rows whose recording could not be read, which may be another time.
        states: What told a row's recording from a changed one when it was heard.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)
    states: dict[str, str] = field(default_factory=dict)

    def forget(self, key: str) -> None:
        """Take a row out."""
        self.tensors.pop(f"tokens/{key}", None)
        self.tensors.pop(f"voice/{key}", None)
        self.reasons.pop(key, None)
        self.unread = [other for other in self.unread if other != key]

    def dump(self, name: str, rows: int) -> bytes:
        """As a file of safetensors."""
        about = {"failed": self.reasons, "unread": self.unread, "states": self.states}
        # A file of tensors holds one at least.
        return save(
            {**self.tensors, "rows": torch.tensor(rows)},
            {"name": name, **{key: json.dumps(v) for key, v in about.items()}},
        )


def _read(path: Path, name: str) -> Shard | None:
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            if about.get("name") != name:
                return None
            tensors = {key: file.get_tensor(key) for key in file.keys() if key != "rows"}  # noqa: SIM118
            empty = {"failed": "{}", "unread": "[]", "states": "{}"}
            return Shard(tensors, *(json.loads(about.get(key, none)) for key, none in empty.items()))
    except (OSError, SafetensorError, FileNotFoundError):
        return None


class Recordings:
    """Tokens and vectors of single files, kept by their content in the cache folder: for test sets, which many rows share.

    Args:
        listener: What makes them.
    """

    def __init__(self, listener: Listener) -> None:
        self.listener = listener

    def __call__(self, path: Path) -> Heard:
        """Of a file; raises as ``load_audio`` and ``Listener`` do, with the file's name."""
        audio, rate = load_audio(path)
        key = hashlib.sha256(np.ascontiguousarray(audio).tobytes() + f"{rate}".encode()).hexdigest()[:24]
        kept = cache_folder() / "cosyvoice2" / self.listener.signature / f"{key}.safetensors"
        shard = _read(kept, key)
        if shard is None:
            try:
                heard = self.listener(audio, rate)
            except ValueError as error:
                raise DatasetError(f"{path} cannot be used: {error}") from None
            made = {"tokens": heard.tokens.to(torch.int16), "voice": heard.voice}
            write_bytes(kept, save(made, {"name": key, "failed": "{}"}))
            return heard
        return Heard(shard.tensors["tokens"].long(), shard.tensors["voice"])
