"""How a student may begin: as its teacher, with random second-time weights, or from scratch."""

from __future__ import annotations

import pytest
import torch

from imfbench.building import build_method

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
