"""The contracts: what ships keeps them, and each finds what it is there to find."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from imfbench.backbones.dit import DiT
from imfbench.contracts import BrokenContract, Clause, clauses
from imfbench.contracts.clauses import CONTRACTS
from imfbench.datasets.demo.corpus import DemoCorpus
from imfbench.features.griffin_lim import GriffinLim
from imfbench.flow.search import SearchLimits, SearchResult
from imfbench.inputs import EMBEDDED, Inputs
from imfbench.listing import REGISTRIES
from imfbench.method import Batch, Condition, Method, State, squared_error
from imfbench.methods.intmeanflow import IntMeanFlow
from imfbench.methods.o3s import O3S
from imfbench.methods.teacher import Teacher
from imfbench.metrics.base import ScoreItem
from imfbench.metrics.prosody import PitchVariation
from imfbench.metrics.signature import Signature
from imfbench.registry import BACKBONES
from imfbench.reports.leaderboard import Leaderboard

REGISTRY = {registry.kind: registry for registry in REGISTRIES.values()}
SMALL = {"dim": 32, "depth": 1, "heads": 2, "content_layers": 1}
SMALL_F5 = {
    "dim": 32, "depth": 1, "heads": 2, "dim_head": 16, "text_dim": 16, "text_num_embeds": 107, "conv_layers": 1,
}  # fmt: skip
SMALL_COSYVOICE2 = {
    "vocab_size": 107, "speaker_dims": 16, "input_size": 32, "encoder_heads": 2, "encoder_units": 32, "encoder_blocks": 1,
    "channels": 32, "attention_head_dim": 8, "heads": 2, "n_blocks": 1, "num_mid_blocks": 1,
}  # fmt: skip
PACKAGES = {"f5tts": "f5_tts", "cosyvoice2": "cosyvoice"}
"""Those that hold the networks of backbones."""
SLOW = [
    ("metric", "wer"),
    ("metric", "mos"),
    ("vocoder", "hifigan"),
    ("vocoder", "hifigan-bf16"),
    ("report", "leaderboard"),
]
SHIPPED = [
    ("dataset", "demo", {}),
    ("metric", "sim", {}),
    ("metric", "f0cv", {}),
    ("backbone", "dit", SMALL),
    ("backbone", "aligning-dit", {**SMALL, "alignment_depth": 1}),
    ("backbone", "f5tts", SMALL_F5),
    ("backbone", "cosyvoice2", SMALL_COSYVOICE2),
    ("vocoder", "griffin-lim", {}),
    *(pytest.param(kind, name, {}, marks=pytest.mark.slow) for kind, name in SLOW),
]


def test_every_backbone_that_ships_is_asked() -> None:
    asked = {entry[1] for entry in SHIPPED if isinstance(entry, tuple) and entry[0] == "backbone"}
    assert asked == {name for name in BACKBONES.names() if BACKBONES.get(name).__module__.startswith("imfbench.")}


@pytest.mark.parametrize(("kind", "name", "options"), SHIPPED)
def test_what_ships_keeps_its_contract(kind: str, name: str, options: dict[str, Any]) -> None:
    if name in PACKAGES:
        pytest.importorskip(PACKAGES[name], reason=f"the package that holds the network of {name} is not installed")
    for clause in clauses(kind, name, options):
        clause()


def test_every_kind_has_a_contract_of_sentences() -> None:
    assert set(CONTRACTS) == set(REGISTRY)
    for kind, name in (
        ("method", "teacher"),
        ("method", "o3s"),
        ("dataset", "demo"),
        ("metric", "sim"),
        ("vocoder", "griffin-lim"),
    ):
        found = clauses(kind, name)
        assert len({str(clause) for clause in found}) == len(found)
        assert all(clause.sentence.endswith(".") and " " in clause.sentence for clause in found)


class OwnRandomness(Teacher):
    def loss(self, batch: Batch, state: State) -> tuple[Tensor, dict[str, float]]:
        return super().loss(
            batch, replace(state, generator=torch.Generator().manual_seed(torch.randint(9999, ()).item()))
        )  # type: ignore[arg-type]


class LossEverywhere(Teacher):
    def loss(self, batch: Batch, state: State) -> tuple[Tensor, dict[str, float]]:
        everything = replace(batch, condition=replace(batch.condition, prompt=batch.condition.prompt & False))
        v = self.network(batch.x1, torch.rand(len(batch.x1), generator=state.generator), None, batch.condition)
        return squared_error(v - batch.x1, everything, state), {}


class OwnMean(Teacher):
    def loss(self, batch: Batch, state: State) -> tuple[Tensor, dict[str, float]]:
        return super().loss(batch, replace(state, frames=float(batch.target.sum())))


class LogsTensors(Teacher):
    def loss(self, batch: Batch, state: State) -> tuple[Tensor, dict[str, float]]:
        loss, _ = super().loss(batch, state)
        return loss, {"loss": loss}  # type: ignore[dict-item]


class NoKind(Method):
    Config, sampling_guidance = Teacher.Config, Teacher.sampling_guidance
    loss, velocity = Teacher.loss, Teacher.velocity  # type: ignore[assignment]


class DeafVelocity(Teacher):
    def velocity(self, z: Tensor, t: Tensor, r: Tensor, condition: Condition) -> Tensor:
        return super().velocity(z, t, r, condition.drop())


class DeafTraining(Teacher):
    def loss(self, batch: Batch, state: State) -> tuple[Tensor, dict[str, float]]:
        return super().loss(replace(batch, condition=batch.condition.drop()), state)


class AnothersTokens(Teacher):
    """Each row learns from the tokens of its neighbour."""

    def loss(self, batch: Batch, state: State) -> tuple[Tensor, dict[str, float]]:
        c = batch.condition
        return super().loss(replace(batch, condition=replace(c, tokens=c.tokens.roll(1, 0))), state)


class NoPaper(Teacher):
    """A docstring without a source."""


class OneMorePass(IntMeanFlow):
    def velocity(self, z: Tensor, t: Tensor, r: Tensor, condition: Condition) -> Tensor:
        return (self.network(z, t, r, condition) + self.network(z, t, r, condition)) / 2


class OverTheLimit(O3S):
    def search(
        self, evaluate: Any, steps: Any = None, start: Any = None, limits: SearchLimits | None = None
    ) -> SearchResult:
        return super().search(evaluate, steps, start, None)


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


FLAWS: list[tuple[str, type, str, str, str]] = [
    ("method", OwnRandomness, "all randomness", "the same loss for the same state.generator", "then"),
    ("method", LossEverywhere, "carry no gradient", "no loss on prompt and padding frames", "loss on"),
    ("method", OwnMean, "global batch", "half the loss when twice the frames", "of"),
    ("method", LogsTensors, "loss reaches", "figures to log that are words with floats", "tensor"),
    ("method", NoKind, "kind is declared", "a class that says its kind", "none in it"),
    ("method", DeafVelocity, "velocity listens", "another velocity for other tokens", "and not dropped?"),
    ("method", DeafTraining, "training shows", "rows with their condition", "none"),
    ("method", AnothersTokens, "no other rows condition", "a row whose loss hangs on its own condition", "in the other rows"),
    ("method", NoPaper, "declares", "a docstring that cites the paper", "A docstring without a source."),
    ("method", OneMorePass, "measured counts", "as many network calls as declared", "euler"),
    ("method", OverTheLimit, "result is valid", "no more evaluations than the limit of 40", "steps from"),
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
]  # fmt: skip


@pytest.fixture
def registered(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    kind, cls = request.param
    name = getattr(cls, "name", "flawed") if kind == "metric" else "flawed"
    registry = REGISTRY[kind]
    before = registry._entries.get(name)
    registry._entries[name] = cls
    yield kind, name
    registry._entries.pop(name)
    if before is not None:
        registry._entries[name] = before


@pytest.mark.parametrize(
    ("registered", "which", "expected", "found"),
    [((kind, cls), *rest) for kind, cls, *rest in FLAWS],
    indirect=["registered"],
    ids=[f"{cls.__name__}-{which}" for _, cls, which, *_ in FLAWS],
)
def test_each_flaw_breaks_its_clause(registered: tuple[str, str], which: str, expected: str, found: str) -> None:
    kind, name = registered
    options = SMALL if kind == "backbone" else {}
    chosen: list[Clause] = [clause for clause in clauses(kind, name, options) if which in str(clause)]
    assert chosen
    with pytest.raises(BrokenContract) as caught:
        chosen[0]()
    assert expected in caught.value.expected
    assert found in caught.value.found
    assert str(caught.value).startswith("expected ")
