"""The contracts: what ships keeps them, and each finds what it is there to find."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flaws import FLAWS

from imfbench.contracts import BrokenContract, Clause, clauses
from imfbench.contracts.clauses import CONTRACTS
from imfbench.listing import REGISTRIES

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


EXCUSED = {
    ("dataset", "folder"): "needs a folder of the user's: tests/datasets/test_layouts.py makes some",
    ("dataset", "librispeech"): "the same",
    ("dataset", "librispeech-pc"): "the same",
    ("dataset", "seed-tts-eval"): "the same",
    ("dataset", "zipvoice"): "the same",
    ("dataset", "manifest"): "the same: tests/datasets/test_manifest.py",
    ("metric", "dnsmos"): "its network is no part of the usual installation: tests/metrics/test_dnsmos.py",
    ("metric", "utmos"): "the same: docs/models.md",
    ("vocoder", "auto"): "stands for the others",
    ("vocoder", "hifigan-auto"): "hifigan or hifigan-bf16, by the machine",
    ("vocoder", "vocos"): "its weights are not published with any package: tests/features/test_vocos.py",
    ("vocoder", "bigvgan"): "the same: tests/features/test_bigvgan.py",
    ("vocoder", "hift"): "the same: tests/features/test_hift.py",
    ("report", "page"): "tests/reports/test_page.py",
    ("report", "tensorboard"): "tests/reports/test_tensorboard_log.py",
}
"""What ships and is not asked here, and why."""


def test_every_part_that_ships_is_asked_or_excused() -> None:
    entries = [getattr(entry, "values", entry) for entry in SHIPPED]
    asked = {(kind, name) for kind, name, _ in entries}
    there = {
        (kind, name)
        for kind, registry in REGISTRY.items()
        for name in registry.names()
        if kind != "method"
        and registry.get(name).__module__.startswith("imfbench.")  # methods: tests/methods/test_contract.py
    }
    assert asked | {*EXCUSED} == there
    assert not asked & {*EXCUSED}


def test_every_clause_of_every_contract_is_broken_by_some_flaw() -> None:
    """A clause that a change has emptied would be kept by everything."""
    examples = [
        ("method", "intmeanflow", {}), ("method", "o3s", {}), ("dataset", "demo", {}), ("metric", "sim", {}),
        ("backbone", "dit", SMALL), ("vocoder", "griffin-lim", {}), ("report", "leaderboard", {}),
    ]  # fmt: skip
    every = {(kind, c.check.__name__.replace("_", " ")) for kind, name, o in examples for c in clauses(kind, name, o)}
    broken = {
        (kind, clause) for kind, clause in every for other, _, which, *_ in FLAWS if kind == other and which in clause
    }
    assert every - broken == set()


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
