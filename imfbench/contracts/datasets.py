"""The contract of datasets: test sets of utterances, and training batches.

A dataset has one of the two at least. Which it has is told by its methods: ``utterances``, ``condition`` and ``target_mel``
for test sets, ``batches`` for training.
"""

from __future__ import annotations

import importlib.util
import inspect
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from imfbench.contracts.clauses import Clause, about, expect, expect_error
from imfbench.data import Utterance, length_of, sets_of
from imfbench.features.alignment import BOUNDARY
from imfbench.features.audio import load_audio
from imfbench.features.f5_text import read_vocabulary
from imfbench.features.mel import COSYVOICE2, HIFIGAN, VOCOS
from imfbench.features.speech_store import Given
from imfbench.features.voice import DIMS
from imfbench.inputs import EMBEDDED, Inputs
from imfbench.method import Batch, Condition
from imfbench.registry import DATASETS
from imfbench.sets import open_dataset

FRAMES = 1200
"""Frames of the training batches that are asked for."""
BANDS = HIFIGAN.bands
F5, COSYVOICE = Inputs(VOCOS, "plain"), Inputs(COSYVOICE2, frames_per_token=2, speaker_dims=DIMS)
"""What networks of F5-TTS's and CosyVoice 2's kind are given; a dataset with an attribute `inputs` serves them as well."""


@dataclass(frozen=True)
class Corpus:
    """A registered dataset with arguments."""

    name: str
    options: dict[str, Any]

    def open(self, task: str = "token2mel", inputs: Inputs = EMBEDDED) -> Any:
        """The dataset as the framework opens it for a task, and for networks that are given this."""
        told = {"task": task} if takes_task(self.name) else {}
        return open_dataset(self.name, {**told, **self.options}, inputs)

    @property
    def trainings(self) -> list[tuple[str, Inputs]]:
        """Tasks, each with what is given, that training batches are asked for: the embedded networks', or those it `serves`."""
        serves = getattr(DATASETS.get(self.name), "serves", ())
        if not serves:
            return [("token2mel", EMBEDDED)]
        texts = ("text2mel", replace(F5, characters=_characters()))
        found = [texts] if "f5tts" in serves and self.options.get("task") != "token2mel" else []
        # S3 tokens and voices that are not given are made by models of half a gigabyte: a contract asks for no such thing.
        if "cosyvoice2" in serves and self.options.get("features") and self.options.get("task") != "text2mel":
            found.append(("token2mel", replace(COSYVOICE, speaker_dims=None)))
        expect(bool(found), "texts, or the option `features`, to make batches of", f"task {self.options.get('task')!r}")
        return found

    def batches(self, task: str, inputs: Inputs, *arguments: int) -> Iterator[Batch]:
        """Training batches of ``FRAMES``; speakers' vectors are of whatever length the data have."""
        if inputs.frames_per_token == COSYVOICE.frames_per_token and inputs.speaker_dims is None:
            inputs = replace(inputs, speaker_dims=Given(Path(self.options["features"]).expanduser()).dims)
        batches: Iterator[Batch] = self.open(task, inputs).batches(FRAMES, *arguments)
        return batches


def takes_task(name: str) -> bool:
    """Whether a dataset is told which task is asked for, and so may be for text2mel."""
    return "task" in inspect.signature(DATASETS.get(name)).parameters


def contract(name: str, options: dict[str, Any]) -> list[Clause]:
    """The clauses of a dataset, as far as it is for testing and for training."""
    cls = DATASETS.get(name)
    found = [says_what_it_is]
    found += TESTING if hasattr(cls, "utterances") else ()
    found += TEXT if hasattr(cls, "utterances") and takes_task(name) and options.get("task") != "token2mel" else ()
    found += TRAINING if hasattr(cls, "batches") else ()
    found += OTHERS if hasattr(cls, "inputs") and hasattr(cls, "utterances") and takes_task(name) else ()
    return about(Corpus(name, options), name, found)


def says_what_it_is(part: Corpus) -> None:
    """It opens, its `revision` is a text that stands for its content, and it is for testing or for training."""
    dataset = part.open()
    first, again = getattr(dataset, "revision", None), getattr(part.open(), "revision", None)
    expect(isinstance(first, str) and bool(first), "`revision`, a text such as eight digits of a sha256", repr(first))
    expect(first == again, "the same revision when it is opened again", f"{first}, then {again}")
    expect(
        hasattr(dataset, "utterances") or hasattr(dataset, "batches"),
        "utterances(split), condition(utterance) and target_mel(utterance) for testing, batches(…) for training",
        "neither",
    )


def the_test_set_is_a_list_of_utterances(part: Corpus) -> None:
    """utterances("test"), or the first set of its `card`, has utterances of unique ids with text, speaker and recordings."""
    dataset = part.open()
    name = sets_of(dataset)[0]
    found = dataset.utterances(name)
    expect(isinstance(found, list) and bool(found), f"a list of utterances in the set {name!r}", repr(found)[:80])
    wrong = [u for u in found if not isinstance(u, Utterance)]
    expect(not wrong, "imfbench.data.Utterance objects", [type(u).__name__ for u in wrong[:1]])
    ids = [u.id for u in found]
    twice = sorted({id for id in ids if ids.count(id) > 1}) if len(set(ids)) < len(ids) else []
    expect(not twice, "unique ids", f"{twice[0] if twice else ''!r} more than once")
    for u in found:
        empty = [name for name in ("id", "text", "language", "speaker", "prompt_id") if not getattr(u, name)]
        expect(
            not empty, "an id, text, language, speaker and prompt_id for each", f"no {', '.join(empty)} for {u.id!r}"
        )
        expect("/" not in u.id and "\\" not in u.id, "ids that can name a file", repr(u.id))
        known = u.seconds is None or u.seconds > 0
        expect(known, "a length in seconds above 0, or None where the list tells none", f"{u.seconds} for {u.id!r}")
    for u in found[:2]:
        for what, path in (("prompt_audio", u.prompt_audio), ("target_audio", u.target_audio)):
            if path is not None:
                expect(path.is_file(), f"a file for {what} of {u.id!r}", f"none at {path}")
                load_audio(path)
    again = part.open().utterances(name)
    expect(again == found, "the same utterances in the same order when it is opened again", "others")
    error = expect_error(
        lambda: dataset.utterances("no-such-split"), ValueError, "a ValueError for a set that is not there"
    )
    expect("no-such-split" in str(error), "an error that names the set", error)


def _conditions(dataset: Any) -> Iterator[tuple[Utterance, Condition]]:
    """The first two utterances, each with its condition; none where ``lacking`` says why, which ``condition`` must refuse."""
    name = sets_of(dataset)[0]
    lacking = dataset.lacking(name) if hasattr(dataset, "lacking") else ""
    for u in dataset.utterances(name)[:2]:
        if lacking:
            expect_error(lambda u=u: dataset.condition(u), ValueError, f"a ValueError, since {lacking}")  # type: ignore[misc]
        else:
            yield u, dataset.condition(u)


def the_condition_is_prompt_then_target_and_never_the_target_mel(part: Corpus) -> None:
    """A condition is a batch of 1: the prompt's frames with its mel, then those to generate; or `lacking` says why not."""
    dataset = part.open()
    for u, c in _conditions(dataset):
        expect(
            isinstance(c, Condition),
            "an imfbench.method.Condition (see imfbench.data.make_condition)",
            type(c).__name__,
        )
        _expect_condition(c, f"for {u.id!r}")
        rows, frames = c.valid.shape
        expect(rows == 1, "a batch of 1", f"{rows} rows for {u.id!r}")
        prompt = int(c.prompt.sum())
        expect(0 < prompt < frames, "prompt frames and frames to generate", f"{prompt} of {frames} for {u.id!r}")
        first = bool(c.prompt[0, :prompt].all())
        expect(first, "the prompt's frames first", f"them elsewhere for {u.id!r}")
        seconds = (frames - prompt) * HIFIGAN.seconds_per_frame
        known = length_of(u)
        if known is not None:
            near = abs(seconds - known) < 0.1 + 0.5 * known
            told = f"frames for the {known:.2f} s of {u.id!r}, 256 samples at 22.05 kHz each"
            expect(near, told, f"for {seconds:.2f} s")


def in_text2mel_nothing_tells_when_a_phone_is_said(part: Corpus) -> None:
    """For text2mel a condition is both texts' phones, one after another, and a length, and needs no recording of the target."""
    dataset = part.open("text2mel")
    for u, c in _conditions(dataset):
        _expect_condition(c, f"for {u.id!r}", BANDS + 1)
        tokens, frames = c.tokens[0], c.tokens.shape[1]
        phones = int((tokens > 0).sum())
        packed = phones < frames and bool((tokens[:phones] > 0).all())
        expect(packed, "phones from the first frame on, then zeros", f"{phones} in {frames} frames for {u.id!r}")
        border = int((tokens == BOUNDARY).sum())
        between = border == 1 and BOUNDARY not in (int(tokens[0]), int(tokens[phones - 1]))
        told = "imfbench.features.alignment.BOUNDARY once, between the prompt's phones and the text's"
        expect(between, told, f"{border} of them for {u.id!r}")
        known = not bool(c.prompt_mel[..., BANDS:].any())
        expect(known, "an alignment band of zeros (see imfbench.data.make_text_condition)", f"times in it for {u.id!r}")
        other = dataset.condition(replace(u, target_audio=None, seconds=length_of(u)))
        fields = {**c.tensors, **other.tensors}
        differ = [name for name in fields if not _equal(getattr(c, name), getattr(other, name))]
        expect(
            not differ, "the same condition without the target's recording", f"other {', '.join(differ)} for {u.id!r}"
        )


def the_target_mel_is_the_recordings(part: Corpus) -> None:
    """target_mel(utterance) is the recording's log-mel (frames, 80), as long as the recording, for its vocoded row."""
    dataset = part.open()
    for u in dataset.utterances(sets_of(dataset)[0])[:2]:
        known = length_of(u)
        if u.target_audio is None or known is None:
            continue
        mel = dataset.target_mel(u)
        good = mel.ndim == 2 and mel.shape[1] == BANDS and mel.dtype == torch.float32 and bool(mel.isfinite().all())
        expect(good, "finite float32 (frames, 80)", f"{mel.dtype} {tuple(mel.shape)} for {u.id!r}")
        seconds = len(mel) * HIFIGAN.seconds_per_frame
        told = f"the {known:.2f} s that the utterance tells"
        expect(abs(seconds - known) < 0.1, told, f"{seconds:.2f} s for {u.id!r}")
        low, high = float(mel.min()), float(mel.max())
        expect(  # of no speech is the quietest band as loud as that
            -12 <= low <= -2 and high <= 6,
            "a natural-log mel (imfbench.features.mel.log_mel)",
            f"values {low:.1f} to {high:.1f}",
        )


def batches_depend_on_seed_and_number_alone(part: Corpus) -> None:
    """Batch k of a seed is always the same, also when the first k are skipped: a killed training goes on as it would have."""
    for task, inputs in part.trainings:
        first = list(itertools.islice(part.batches(task, inputs, 0), 4))
        again = list(itertools.islice(part.batches(task, inputs, 0, 2), 2))
        for k, (one, other) in enumerate(zip(first[2:], again, strict=True), 2):
            same = one.ids == other.ids and one.x1.shape == other.x1.shape and torch.equal(one.x1, other.x1)
            expect(same, f"batch {k} of seed 0 after start_step={2} as without it", "another")
        others = list(itertools.islice(part.batches(task, inputs, 1), 4))
        differ = any(
            a.x1.shape != b.x1.shape or not torch.equal(a.x1, b.x1) for a, b in zip(first, others, strict=True)
        )
        expect(differ, "other batches for another seed", "the same four")


def batches_are_whole_and_of_the_size_asked_for(part: Corpus) -> None:
    """A batch has normalised mels, conditions that hold the prompt alone, and no more frames than asked for."""
    for task, inputs in part.trainings:
        for k, batch in enumerate(itertools.islice(part.batches(task, inputs, 0), 4)):
            _expect_batch(batch, inputs, f"in batch {k}" + ("" if inputs == EMBEDDED else f" of {task}"))


def _expect_batch(batch: Batch, inputs: Inputs, where: str) -> None:
    expect(isinstance(batch, Batch), "an imfbench.method.Batch (see imfbench.data.collate)", type(batch).__name__)
    _expect_condition(batch.condition, where, inputs.mel.bands)
    x1, c = batch.x1, batch.condition
    same = x1.shape[:2] == c.valid.shape and x1.dtype == torch.float32 and bool(x1.isfinite().all())
    expect(same, "finite float32 mels of the condition's frames", f"{x1.dtype} {tuple(x1.shape)} {where}")
    rows, frames = c.valid.shape
    small = rows == 1 or rows * frames <= FRAMES
    expect(small, f"at most {FRAMES} frames, padding included", f"{rows} × {frames} {where}")
    on_prompt = torch.allclose(c.prompt_mel, x1 * c.prompt[..., None])
    expect(on_prompt, "prompt_mel that is x1 on the prompt's frames and zero elsewhere", f"another {where}")
    every = bool(batch.target.any(1).all())
    expect(every, "frames to learn in every row", f"a row of prompt and padding alone {where}")
    spoken = x1[batch.target]
    mean, deviation = float(spoken.mean()), float(spoken.std())
    usual = abs(mean) < 1.5 and 0.3 < deviation < 2.5
    if (inputs.mel.mean, inputs.mel.deviation) == (0.0, 1.0):  # trained on as they are
        usual = bool((spoken > -12).all()) and bool((spoken < 8).all())
        expect(usual, "natural-log mels between -12 and 8", f"{float(spoken.min()):.2f} to {float(spoken.max()):.2f}")
        return
    expect(
        usual,
        "mels that went through imfbench.features.mel.normalise: mean about 0, deviation about 1",
        f"{mean:.2f}, {deviation:.2f}",
    )


def _characters() -> tuple[str, ...]:
    """Those that F5-TTS's released models know, from its package; ASCII's without it."""
    spec = importlib.util.find_spec("f5_tts")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        if (path := Path(place, "infer", "examples", "vocab.txt")).is_file():
            return tuple(read_vocabulary(path))
    return tuple(map(chr, range(32, 127)))


def networks_of_other_mels_are_given_theirs(part: Corpus) -> None:
    """With other `inputs` prompts and recordings have that mel, and texts, tokens and voices are as the network takes them."""
    for task, inputs in (("text2mel", F5), ("token2mel", COSYVOICE)):
        if part.options.get("task", task) != task:
            continue
        dataset, mel = part.open(task, inputs), inputs.mel
        for u, c in _conditions(dataset):
            where = f"of {mel.name} for {u.id!r}"
            _expect_condition(c, where, inputs.bands(task))
            tokens, prompt, each = c.tokens[0], int(c.prompt.sum()), inputs.frames_per_token
            if task == "text2mel":
                count = int((tokens > 0).sum())
                plain = (
                    count < len(tokens) and bool((tokens[:count] > 0).all()) and not bool((tokens == BOUNDARY).any())
                )
                expect(plain, "one text from the first frame on, then zeros, and no BOUNDARY", f"another {where}")
            whole = prompt % each == 0 and len(tokens) % each == 0
            expect(
                whole,
                f"prompt and target of whole tokens, {each} frames each",
                f"{prompt} of {len(tokens)} frames {where}",
            )
            if task == "token2mel" and whole:
                alike = bool((tokens.view(-1, each) == tokens[::each, None]).all())
                expect(alike, f"the same token on the {each} frames that are its own", f"others {where}")
            shape = None if c.speaker is None else tuple(c.speaker.shape)
            wanted = None if inputs.speaker_dims is None else (1, inputs.speaker_dims)
            expect(shape == wanted, f"a speaker's vector of shape {wanted}", f"{shape} {where}")
            known = length_of(u)
            seconds = (len(tokens) - prompt) * mel.seconds_per_frame
            near = known is None or abs(seconds - known) < 0.1 + 0.5 * known
            expect(near, f"frames for the {known} s of {u.id!r}", f"for {seconds:.2f} s")
            if u.target_audio is not None:
                found = dataset.target_mel(u)
                expect(found.shape[1] == mel.bands, f"a target mel of {mel.bands} bands", f"{found.shape[1]} {where}")


TESTING = (
    the_test_set_is_a_list_of_utterances,
    the_condition_is_prompt_then_target_and_never_the_target_mel,
    the_target_mel_is_the_recordings,
)
TEXT = (in_text2mel_nothing_tells_when_a_phone_is_said,)
OTHERS = (networks_of_other_mels_are_given_theirs,)
TRAINING = (batches_depend_on_seed_and_number_alone, batches_are_whole_and_of_the_size_asked_for)


def _equal(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    return one is other or (one is not None and other is not None and torch.equal(one, other))


def _expect_condition(c: Condition, where: str, bands: int = BANDS) -> None:
    shape = tuple(c.valid.shape)
    for name, dtype in (("tokens", torch.int64), ("prompt", torch.bool), ("valid", torch.bool)):
        x = getattr(c, name)
        expect(
            x.dtype == dtype and tuple(x.shape) == shape,
            f"{name} of {dtype}, {shape}",
            f"{x.dtype}, {tuple(x.shape)} {where}",
        )
    mel = c.prompt_mel
    good = tuple(mel.shape) == (*shape, bands) and mel.dtype == torch.float32 and bool(mel.isfinite().all())
    expect(good, f"a finite prompt_mel of {(*shape, bands)}", f"{mel.dtype}, {tuple(mel.shape)} {where}")
    beyond = bool(mel[~c.prompt].any())
    expect(not beyond, "prompt_mel zero beyond the prompt: the target's mel is a secret", f"something there {where}")
    low, high = int(c.tokens.min()), int(c.tokens.max())
    expect(low >= 0 and high > 0, "tokens from 1 on, 0 for none", f"{low} to {high} {where}")
    expect(not bool(c.dropped.any()), "no row whose condition is dropped: that is the method's to do", f"some {where}")
