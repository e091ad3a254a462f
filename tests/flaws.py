"""Parts that break one clause of a contract each, and what is to be said of them."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from flawed_methods import METHOD_FLAWS
from torch import Tensor, nn

from imfbench.backbones.dit import DiT
from imfbench.datasets.demo.corpus import DemoCorpus
from imfbench.features.griffin_lim import GriffinLim
from imfbench.inputs import EMBEDDED, Inputs
from imfbench.method import Batch, Condition
from imfbench.metrics.base import ScoreItem
from imfbench.metrics.prosody import PitchVariation
from imfbench.metrics.signature import Signature
from imfbench.reports.leaderboard import Leaderboard


class LeakyCorpus(DemoCorpus):
    def condition(self, utterance: Any) -> Condition:
        found = super().condition(utterance)
        return replace(found, prompt_mel=found.prompt_mel + 1)


class AlignedText(DemoCorpus):
    """Lays the phones over the frames, as if their times were known."""

    def condition(self, utterance: Any) -> Condition:
        found = super().condition(utterance)
        return replace(found, tokens=found.tokens.clamp(min=1))


class TimedText(DemoCorpus):
    def condition(self, utterance: Any) -> Condition:
        found = super().condition(utterance)
        if self.task == "token2mel":
            return found
        return replace(found, prompt_mel=torch.cat([found.prompt_mel[..., :80], found.prompt[..., None].float()], 2))


class ReadsTheRecording(DemoCorpus):
    def condition(self, utterance: Any) -> Condition:
        found = super().condition(utterance)
        if self.task == "token2mel" or utterance.target_audio is None:
            return found
        return replace(found, tokens=found.tokens + (found.tokens == 1))


class ForgetfulCorpus(DemoCorpus):
    def batches(self, frames_per_batch: int, seed: int, start_step: int = 0, split: str = "train") -> Iterator[Batch]:
        return super().batches(frames_per_batch, seed, 0, split)


class RawCorpus(DemoCorpus):
    def batches(self, frames_per_batch: int, seed: int, start_step: int = 0, split: str = "train") -> Iterator[Batch]:
        for batch in itertools.islice(super().batches(frames_per_batch, seed, start_step, split), 8):
            mel = 3.1 * batch.x1 - 6.3
            yield replace(
                batch, x1=mel, condition=replace(batch.condition, prompt_mel=mel * batch.condition.prompt[..., None])
            )


class OneMelForAll(DemoCorpus):
    def _features(self, inputs: Inputs) -> Any:
        return super()._features(EMBEDDED)


class ReadsTheText(PitchVariation):
    def observe(self, item: ScoreItem) -> dict[str, Any]:
        return {**super().observe(item), "words": len(item.text.split()) + len(item.text)}


class SilentSetting(PitchVariation):
    @property
    def signature(self) -> Signature:
        return self.model_signature


class PreparesTooMuch(PitchVariation):
    """Throws half of the recording away before the model hears it."""

    def prepare(self, item: ScoreItem) -> ScoreItem:
        return replace(item, audio=item.audio[: len(item.audio) // 2])


class ScoresAnything(PitchVariation):
    def observe(self, item: ScoreItem) -> dict[str, Any]:
        return {"f0": [100.0, 110.0, 120.0] * 10}


class PromptUnseen(DiT):
    """Says that the prompt's frames evolve, and neither sees them nor moves them."""

    prompt_frames = "evolve"


class MovesThePrompt(DiT):
    def forward(self, z: Tensor, t: Tensor, r: Tensor | None, condition: Condition) -> Tensor:
        return super().forward(z, t, r, condition) + condition.prompt[..., None]


class CannotBeDropped(DiT):
    def forward(self, z: Tensor, t: Tensor, r: Tensor | None, condition: Condition) -> Tensor:
        return super().forward(z, t, r, replace(condition, dropped=torch.zeros_like(condition.dropped)))


class RandomPhases(GriffinLim):
    def __call__(self, mel: Tensor) -> np.ndarray:
        return super().__call__(mel) + 0.01 * torch.randn(len(mel) * 256).numpy()


class HalfAsLong(GriffinLim):
    def __call__(self, mel: Tensor) -> np.ndarray:
        return super().__call__(mel[::2])


class Untidy(Leaderboard):
    def __init__(self) -> None:
        super().__init__(pictures=False)

    def write(self, run: Path) -> list[Path]:
        next(run.glob("cells/*/summary.json")).write_text("{}")
        return []


class NewEveryDay(DemoCorpus):
    @property
    def revision(self) -> str:  # type: ignore[override]
        return str(random.random())


class Twins(DemoCorpus):
    def utterances(self, split: str) -> Any:
        found = super().utterances(split)
        return [*found, found[0]]


class PowerMel(DemoCorpus):
    def target_mel(self, utterance: Any) -> Tensor:
        return super().target_mel(utterance).exp()


class NoDirection(PitchVariation):
    higher_is_better = "up"  # type: ignore[assignment]


class OtherSignatureEachTime(PitchVariation):
    @property
    def signature(self) -> Signature:
        return Signature("f0cv", random.randrange(1, 10**9))


class OneColumnMore(PitchVariation):
    def row(self, item: ScoreItem, observation: Any) -> dict[str, Any]:
        return {**super().row(item, observation), "surprise": 1.0}


class CountsTheFailed(PitchVariation):
    def summarise(self, rows: pd.DataFrame, cluster: str | None = None) -> dict[str, float]:
        found = super().summarise(rows, cluster)
        return {**found, "f0cv_n": len(rows)}


class ForgetsItsSettings(DiT):
    @property
    def config(self) -> Any:
        return None

    @config.setter
    def config(self, value: Any) -> None:
        pass


class SecondTimeAtOnce(DiT):
    def forward(self, z: Tensor, t: Tensor, r: Tensor | None, condition: Condition) -> Tensor:
        found = super().forward(z, t, r, condition)
        return found if r is None else found * (1 + r - t)[:, None, None]


class AttendsToPadding(DiT):
    def forward(self, z: Tensor, t: Tensor, r: Tensor | None, condition: Condition) -> Tensor:
        found = super().forward(z, t, r, condition)
        return found + 0.01 * (found != 0) * z.shape[1]


class IdleWeight(DiT):
    def __init__(self, config: Any = None, **settings: Any) -> None:
        super().__init__(config, **settings)
        self.idle = nn.Parameter(torch.ones(3))


class NotInTheFile(DiT):
    """What it draws when it is built is none of its weights."""

    def __init__(self, config: Any = None, **settings: Any) -> None:
        super().__init__(config, **settings)
        self.scale = 1 + random.random()

    def forward(self, z: Tensor, t: Tensor, r: Tensor | None, condition: Condition) -> Tensor:
        return self.scale * super().forward(z, t, r, condition)


class Nameless(GriffinLim):
    name = ""


class Backwards(GriffinLim):
    def __call__(self, mel: Tensor) -> np.ndarray:
        return super().__call__(mel.flip(0, 1))


class Dated(Leaderboard):
    def __init__(self) -> None:
        super().__init__(pictures=False)

    def write(self, run: Path) -> list[Path]:
        file = run / "dated.txt"
        file.write_text(str(random.random()))
        return [file]


FLAWS: list[tuple[str, type, str, str, str]] = [
    *METHOD_FLAWS,
    ("dataset", LeakyCorpus, "never the target mel", "prompt_mel zero beyond the prompt", "something there for 'test-"),
    ("dataset", AlignedText, "in text2mel", "phones from the first frame on, then zeros", " frames for 'test-"),
    ("dataset", TimedText, "in text2mel", "an alignment band of zeros", "times in it for 'test-"),
    ("dataset", ReadsTheRecording, "in text2mel", "the same condition without the target's recording", "other tokens for 'test-"),
    ("dataset", ForgetfulCorpus, "seed and number", "batch 2 of seed 0 after start_step=2 as without it", "another"),
    ("dataset", RawCorpus, "batches are whole", "imfbench.features.mel.normalise", ", "),
    ("dataset", OneMelForAll, "other mels", "a finite prompt_mel of", "float32"),
    ("metric", ReadsTheText, "cache key", "the same observation for another text", "add the text to cache_inputs"),
    ("metric", SilentSetting, "settings that change", "another signature for shortest_run", "f0cv-v1"),
    ("metric", PreparesTooMuch, "prepared is observed alike", "the same observation of a prepared recording", "another"),
    ("metric", ScoresAnything, "score error", "a ScoreError for audio with no samples", "no error"),
    ("backbone", PromptUnseen, "zero where nothing", "a velocity on the other frames", "zero on"),
    ("backbone", MovesThePrompt, "zero where nothing", "zero on prompt and padding frames", "something else on"),
    ("backbone", CannotBeDropped, "can be dropped", "the same velocity whatever the dropped content was", "differs"),
    ("vocoder", RandomPhases, "the same mel", "torch's random state untouched", "a change"),
    ("vocoder", HalfAsLong, "as long as the mel", "s of audio for", " s"),
    ("report", Untidy, "leaves the results", "the run's files as they were", "summary.json"),
    ("report", Untidy, "writes files", "a list of paths", "[]"),
    ("dataset", NewEveryDay, "says what it is", "the same revision when it is opened again", ", then "),
    ("dataset", Twins, "a list of utterances", "unique ids", "more than once"),
    ("dataset", PowerMel, "the target mel is", "a natural-log mel", "values"),
    ("metric", NoDirection, "declares name", "higher_is_better True, False or None", "up"),
    ("metric", OtherSignatureEachTime, "signature says", "the same signature twice", "f0cv-v"),
    ("metric", OneColumnMore, "a row has its columns", "the columns", "surprise"),
    ("metric", CountsTheFailed, "the summary has intervals", "a summary of the 2 rows", "3 rows"),
    ("backbone", ForgetsItsSettings, "settings build it", "network.config, the settings that built it", "None"),
    ("backbone", SecondTimeAtOnce, "a second time changes nothing", "the network of one time", "differs"),
    ("backbone", AttendsToPadding, "a row does not depend", "the velocity of the utterance alone", "differs"),
    ("backbone", IdleWeight, "every weight is trained", "a gradient for every weight", "idle"),
    ("backbone", NotInTheFile, "an artefact gives", "the velocity of the network that was saved", "differs"),
    ("vocoder", Nameless, "says what it is", "`name`, a text", "''"),
    ("vocoder", Backwards, "has the mel it was made of", "a mean difference below", "from another utterance"),
    ("report", Dated, "the same results", "the same bytes", "dated.txt"),
]  # fmt: skip
"""Kind, part, words of the clause's name, of what was expected, and of what was found."""
