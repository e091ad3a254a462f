"""How a student may begin: as its teacher, with random second-time weights, or from scratch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from imfbench.building import build_method
from imfbench.contracts.batches import TOKENS, make_batch
from imfbench.method import encoded
from imfbench.registry import METHODS

SHAPE = {"bands": 8, "tokens": 4, "dim": 32, "depth": 1, "heads": 2}


@pytest.fixture(scope="module")
def teacher():
    found = build_method("teacher", backbone_config=SHAPE, seed=3)
    torch.nn.init.normal_(found.network.outlet.weight, std=0.1)
    return found


def state(method) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in method.network.state_dict().items()}


def test_the_usual_start_is_the_teacher_and_w_the_identity(teacher) -> None:
    found = state(build_method("intmeanflow", {}, teacher))
    mixer = found.pop("time.mixer.weight")
    assert torch.equal(mixer, torch.eye(32, 64))
    assert all(torch.equal(found[name], value) for name, value in state(teacher).items())


def test_random_second_time_weights_change_them_alone(teacher) -> None:
    one, again, other = (
        state(build_method("intmeanflow", {}, teacher, seed=seed, second_time="random")) for seed in (0, 0, 1)
    )
    mixer = one.pop("time.mixer.weight")
    assert torch.equal(mixer, again["time.mixer.weight"])
    assert not torch.equal(mixer, other["time.mixer.weight"])
    assert mixer.std() == pytest.approx(64**-0.5 / 3**0.5, rel=0.1)  # a linear layer's own start: U(±1/√inputs)
    assert all(torch.equal(one[name], value) for name, value in state(teacher).items())


def test_from_scratch_has_the_teachers_shape_and_none_of_its_weights(teacher) -> None:
    before = state(teacher)
    method = build_method("intmeanflow", {}, teacher, seed=5, scratch=True)
    found = state(method)
    assert method.network.config == teacher.network.config
    assert torch.equal(found["time.mixer.weight"], torch.eye(32, 64))
    assert not torch.equal(found["inlet.weight"], before["inlet.weight"])
    assert torch.equal(
        found["inlet.weight"], state(build_method("intmeanflow", {}, teacher, seed=5, scratch=True))["inlet.weight"]
    )
    assert all(p.requires_grad for p in method.network.parameters())
    assert all(torch.equal(before[name], value) for name, value in state(teacher).items())


class Encoding(nn.Module):
    """A network with an encoder of its own, as F5-TTS's and CosyVoice 2's have one."""

    def __init__(self, config: Any = None) -> None:
        super().__init__()
        self.config = config
        self.heard, self.body = nn.Embedding(TOKENS, 3), nn.Linear(3, 3)

    @property
    def frozen(self) -> tuple[nn.Module, ...]:
        return (self.heard,)

    def encode(self, condition: Any) -> Tensor:
        found: Tensor = self.heard(condition.tokens)
        return found

    def attach_second_time(self) -> None:
        """It has none of its own to attach."""


def test_from_scratch_hears_what_its_teacher_hears() -> None:
    """Training takes what the teacher's encoder makes of a condition, sampling what the student's makes."""
    cls = METHODS.get("teacher")
    first = cls(cls.Config(), Encoding())
    network: Any = build_method("intmeanflow", {}, first, seed=5, scratch=True).network
    condition = make_batch().condition
    assert torch.equal(encoded(network, condition).encoded, encoded(first.network, condition).encoded)
    assert not torch.equal(network.body.weight, first.network.body.weight)
    assert not any(p.requires_grad for p in network.heard.parameters())
    assert all(p.requires_grad for p in network.body.parameters())
    usual: Any = build_method("intmeanflow", {}, first).network
    assert [p.requires_grad for p in usual.parameters()] == [p.requires_grad for p in network.parameters()]


def test_other_beginnings_are_other_trainings(tiny) -> None:
    """And the usual one has the recipe it always had, so that nothing is trained again."""
    from imfbench.config import load
    from imfbench.pipeline.context import Context
    from imfbench.pipeline.train import recipe_of_training, settings_of
    from imfbench.store import RunFolder

    systems = [
        {"name": name, "method": "intmeanflow", "nfe": [1], **changes}
        for name, changes in (("usual", {}), ("random", {"second_time": "random"}), ("scratch", {"start": "scratch"}))
    ]
    path = tiny.config(systems=systems, teacher={"artefact": str(tiny.artefact()), "nfe": [1]})
    context = Context(load(str(path)), RunFolder(tiny.out))
    recipes = {
        name: recipe_of_training(
            context, context.plan.artefacts[name], settings_of(context.config, context.plan.artefacts[name])
        )
        for name in ("usual", "random", "scratch")
    }
    assert not {"start", "second_time"} & set(recipes["usual"])
    assert recipes["random"] == {**recipes["usual"], "second_time": "random"}
    assert recipes["scratch"] == {**recipes["usual"], "start": "scratch"}
