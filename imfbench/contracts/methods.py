"""The contract of methods: what every one must do that is trained and sampled, whoever wrote it.

The networks are a small DiT and text2mel's AligningDiT whose weights are all random. Searches of time grids have a contract
of their own, :mod:`imfbench.contracts.searches`.
"""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from imfbench.building import build_method
from imfbench.contracts.batches import make_batch, make_text_batch, query
from imfbench.contracts.clauses import Clause, about, expect, expect_error, expect_same
from imfbench.contracts.trained import Trained, few, other_tokens
from imfbench.contracts.velocities import (
    a_row_does_not_depend_on_its_neighbours_or_its_padding,
    a_student_equals_its_teacher_at_initialisation,
    measured_counts_are_the_declared_ones,
    velocity_has_the_mels_shape,
    velocity_listens_to_its_condition,
)
from imfbench.method import Batch, Condition, Method, MethodConfig, Needs, squared_error
from imfbench.registry import METHODS


def contract(name: str, options: dict[str, Any]) -> list[Clause]:
    """The clauses of a method: of both tasks, or of a search."""
    cls = METHODS.get(name)
    declared = about((name, cls), name, (declares_config_needs_and_source,))
    if not isinstance(getattr(cls, "needs", None), Needs):
        return declared
    if not cls.needs.training:
        from imfbench.contracts import searches

        return [*declared, *searches.contract(name, options)]
    tasks = {"token2mel": ("dit", make_batch()), "text2mel": ("aligning-dit", make_text_batch())}
    return [
        *declared,
        *(
            clause
            for task, (backbone, batch) in tasks.items()
            for clause in about(Trained(name, backbone, batch, options), f"{name} on {task}", TRAINED)
        ),
    ]


def declares_config_needs_and_source(part: tuple[str, Any]) -> None:
    """The class says its settings, what it needs, and in its docstring where it is published."""
    _, cls = part
    expect(isinstance(getattr(cls, "needs", None), Needs), "`needs`, a Needs(…)", getattr(cls, "needs", "none"))
    config: Any = getattr(cls, "Config", None)
    good = isinstance(config, type) and issubclass(config, MethodConfig)
    expect(good, "`Config`, a subclass of imfbench.method.MethodConfig", config)
    told = "settings that all have a default, so that `method: NAME` is enough"
    try:
        default = config()
    except ValueError as error:
        expect(False, told, str(error).splitlines()[0])
    expect(default == config(), "equal settings to compare equal", "two that differ")
    expect_error(lambda: config(no_such_setting=1), ValueError, "an unknown setting to be an error (extra='forbid')")
    again = config.model_validate_json(default.model_dump_json())
    expect(again == default, "settings that JSON gives back as they were", again)
    expect("arXiv" in (cls.__doc__ or ""), "a docstring that cites the paper (arXiv …)", repr(cls.__doc__))


def kind_is_declared(part: Trained) -> None:
    """`kind` says whether the velocity is instantaneous or an average over the step."""
    kind = getattr(part.cls, "kind", None)
    expect(kind in ("instantaneous", "average"), "kind = 'instantaneous' or 'average'", repr(kind))
    # The framework's default would do, and be wrong in silence: solvers and the identity at initialisation go by the kind.
    own = any("kind" in vars(cls) for cls in part.cls.__mro__ if cls not in (Method, object))
    expect(
        own, "a class that says its kind: kind = 'instantaneous', or 'average'", "none in it, and nothing is guessed"
    )


def a_teacher_is_needed_for_training_and_not_for_sampling(part: Trained) -> None:
    """A student cannot be trained without its teacher, and samples without it as with it."""
    if not part.cls.needs.teacher:
        return
    expect_error(lambda: build_method(part.name), ValueError, "an error without a teacher")
    trained = part.build()
    loaded = part.cls(trained.config, trained.network, None)
    z, t, r = query(part.batch)
    with torch.no_grad():
        alone, beside = (m.velocity(z, t, r, part.batch.condition) for m in (loaded, trained))
    expect_same(alone, beside, "the same velocity without the teacher")


def loss_reaches_the_network_and_not_the_teacher(part: Trained) -> None:
    """The loss is finite, its gradient reaches the network's weights, and the teacher stays as it is."""
    method = part.build()
    before = copy.deepcopy(method.teacher.network.state_dict()) if method.teacher else {}
    loss = part.loss(method, part.state())
    expect(bool(loss.isfinite()), "a finite loss", loss.item())
    expect(loss.requires_grad, "a loss with a gradient", "one that hangs on no weight (a torch.no_grad too many?)")
    loss.backward()
    named = {key: p.grad for key, p in method.network.named_parameters() if p.requires_grad}
    lacking = [key for key, grad in named.items() if grad is None]
    expect(not lacking, "a gradient for every weight", f"none for {few(lacking)}")
    wild = [key for key, grad in named.items() if grad is not None and not grad.isfinite().all()]
    expect(not wild, "finite gradients", f"others in {few(wild)}")
    idle = [key for key, grad in named.items() if grad is not None and not grad.any()]
    expect(len(idle) < 0.2 * len(named), "a gradient that is not zero in most weights", f"zero in {few(idle)}")
    if method.teacher:
        touched = [key for key, p in method.teacher.network.named_parameters() if p.grad is not None]
        expect(not touched, "no gradient in the teacher (use torch.no_grad)", f"one in {few(touched)}")
        after = method.teacher.network.state_dict()
        changed = [key for key, value in before.items() if not torch.equal(after[key], value)]
        expect(not changed, "a teacher that is left as it was", f"changes in {few(changed)}")


def all_randomness_is_the_states_generator(part: Trained) -> None:
    """Every random draw of the loss comes from `state.generator`, so that a training can be repeated and resumed."""
    method = part.build()
    torch.manual_seed(1)
    first = part.loss(method, part.state(5)).item()
    torch.manual_seed(2)
    again = part.loss(method, part.state(5)).item()
    expect(again == first, "the same loss for the same state.generator", f"{first:g}, then {again:g}")
    other = part.loss(method, part.state(6)).item()
    expect(other != first, "another loss for another state.generator", f"{first:g} both times")


def prompt_and_padding_frames_carry_no_loss(part: Trained) -> None:
    """What the data hold on prompt and padding frames changes neither the loss nor any gradient (`batch.target`)."""
    results: list[list[Tensor]] = []
    for filling in (0.0, 1.0, -30.0):
        x1 = torch.where(part.batch.target[..., None], part.given.x1, torch.tensor(filling))
        method = part.build()
        loss = part.loss(method, part.state(), replace(part.given, x1=x1))
        loss.backward()
        results.append([loss.detach(), *(p.grad for p in method.network.parameters() if p.grad is not None)])
        expect(
            torch.allclose(loss.detach(), results[0][0], rtol=1e-5, atol=1e-5),
            "the same loss whatever stands on prompt and padding frames",
            f"{results[0][0].item():g}, then {loss.item():g} with {filling:g} on them",
        )
    for other in results[1:]:
        same = all(torch.allclose(a, b, rtol=1.3e-6, atol=1e-5) for a, b in zip(results[0], other, strict=True))
        expect(same, "the same gradients whatever stands on prompt and padding frames", "others")


class Offset(nn.Module):
    """Adds a parameter of its own to every frame of a network's velocity, whichever rows of the batch it is asked for."""

    def __init__(self, network: nn.Module, batch: Batch) -> None:
        super().__init__()
        self.network, self.offset = network, nn.Parameter(torch.zeros(batch.x1.shape[:2]))
        self.tokens = batch.condition.tokens  # they differ from row to row

    def forward(self, z: Tensor, t: Tensor, r: Tensor | None, condition: Any) -> Tensor:
        """The network's velocity and the offset."""
        row = (condition.tokens[:, None] == self.tokens).all(-1).int().argmax(1)
        found: Tensor = self.network(z, t, r, condition) + self.offset[row][..., None]
        return found


def prompt_and_padding_frames_carry_no_gradient(part: Trained) -> None:
    """A velocity that is wrong on prompt and padding frames alone costs nothing; one that is wrong elsewhere does."""
    method, target = part.build(), part.batch.target
    method.network = Offset(method.network, part.batch)
    part.loss(method, part.state()).backward()
    gradient = method.network.offset.grad
    expect(gradient is not None, "a loss of the network's velocity", "one on which the velocity has no bearing")
    assert isinstance(gradient, Tensor)
    outside, inside = int((gradient[~target] != 0).sum()), int((gradient[target] == 0).sum())
    expect(outside == 0, "no loss on prompt and padding frames (see batch.target)", f"loss on {outside} of them")
    expect(inside == 0, "a loss on every other frame", f"none on {inside} of {int(target.sum())}")


def what_is_prepared_can_be_made_again(part: Trained) -> None:
    """A batch that is made before training depends on its generator alone, and keeps its rows' conditions."""
    method = part.build()
    if not method.batches_to_prepare(1):
        return
    one, again, other = (method.prepare(part.batch, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    expect_same(again.x1, one.x1, "the same batch for the same generator")
    expect(not torch.equal(other.x1, one.x1), "another batch for another generator", "the same")
    expect_same(one.condition.tokens, part.batch.condition.tokens, "the conditions of its rows")


def loss_is_over_the_global_batch(part: Trained) -> None:
    """The loss is divided by the global batch's frames or rows (`state.frames`, `state.samples`), not by this process's."""
    method = part.build()
    state = part.state()
    alone = part.loss(method, state).item()
    state = part.state()
    shared = part.loss(method, replace(state, frames=2 * state.frames, samples=2 * state.samples)).item()
    good = abs(shared - alone / 2) <= 1e-5 * abs(alone)
    expect(good, "half the loss when twice the frames and rows are in the global batch", f"{shared:g} of {alone:g}")


def autocast_keeps_every_gradient(part: Trained) -> None:
    """In bf16 the same weights get a gradient as in fp32.

    Autocast reuses a weight's cast; one made without gradient must not be reused by the pass with gradient.
    """
    reached = []
    for enabled in (False, True):
        method = part.build()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = part.loss(method, part.state())
        loss.backward()
        expect(bool(loss.isfinite()), "a finite loss", f"{loss.item()} in {'bf16' if enabled else 'fp32'}")
        reached.append({key for key, p in method.network.named_parameters() if p.grad is not None and p.grad.any()})
    lost = sorted(reached[0] ^ reached[1])
    expect(not lost, "gradients for the same weights in bf16 as in fp32", f"a difference in {few(lost)}")


def training_steps_stay_finite_and_move_the_velocity(part: Trained) -> None:
    """Ten training steps have finite losses and change what is sampled."""
    method, batch = part.build(), part.batch
    z, t, r = query(batch)
    before = method.velocity(z, t, r, batch.condition).detach()
    optimizer = torch.optim.AdamW([p for p in method.network.parameters() if p.requires_grad], 3e-3)
    for step in range(10):
        optimizer.zero_grad()
        loss = part.loss(method, replace(part.state(step), step=step, progress=step / 10))
        expect(bool(loss.isfinite()), "finite losses", f"{loss.item()} at step {step}")
        loss.backward()
        optimizer.step()
    moved = squared_error(method.velocity(z, t, r, batch.condition).detach() - before, batch, part.state()).item()
    expect(moved > 1e-6, "another velocity after ten steps", f"a mean square change of {moved:.1g}")


def a_rows_loss_hangs_on_no_other_rows_condition(part: Trained) -> None:
    """Other tokens in a row change its own share of the loss, and no other row's."""
    method, condition, heard = part.build(), part.given.condition, False
    changed = other_tokens(condition)

    def loss(alone: Condition, tokens: Tensor, seed: int) -> float:
        return part.loss(method, part.state(seed), replace(part.given, condition=replace(alone, tokens=tokens))).item()

    for seed in range(2):
        for row in range(len(changed)):
            others = (torch.arange(len(changed)) != row)[:, None]
            # What is all prompt carries no loss: it is of this row alone.
            alone = replace(condition, prompt=condition.prompt | (others & condition.valid))
            usual = loss(alone, alone.tokens, seed)
            if not math.isfinite(usual):  # means over the frames of each row: of rows without any nothing can be told
                return
            elsewhere = loss(alone, torch.where(others, changed, alone.tokens), seed)
            told = f"{usual:g}, then {elsewhere:g} with other tokens in the other rows"
            same = abs(elsewhere - usual) <= 1e-5 * max(1.0, abs(usual))
            expect(same, "a row whose loss hangs on its own condition", told)
            heard = heard or loss(alone, torch.where(others, alone.tokens, changed), seed) != usual
    expect(heard, "rows whose loss hangs on their tokens", "none; all conditions may be dropped for guidance")


class Listener(nn.Module):
    """A network that remembers in how many rows it was shown the condition."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.shown = network, 0

    def forward(self, z: Tensor, t: Tensor, r: Tensor | None, condition: Condition) -> Tensor:
        """The network's velocity."""
        self.shown += int((~condition.dropped & (condition.tokens > 0).any(1)).sum())
        found: Tensor = self.network(z, t, r, condition)
        return found


def training_shows_the_network_its_condition(part: Trained) -> None:
    """In training the network is shown the tokens: dropping them (for guidance) is for some rows, not for all."""
    method = part.build()
    method.network = listener = Listener(method.network)
    for seed in range(5):
        part.loss(method, part.state(seed))
    expect(listener.shown > 0, "rows with their condition", "none: is it dropped before the network sees it?")


TRAINED = (
    kind_is_declared,
    velocity_has_the_mels_shape,
    velocity_listens_to_its_condition,
    training_shows_the_network_its_condition,
    a_rows_loss_hangs_on_no_other_rows_condition,
    a_teacher_is_needed_for_training_and_not_for_sampling,
    loss_reaches_the_network_and_not_the_teacher,
    all_randomness_is_the_states_generator,
    prompt_and_padding_frames_carry_no_loss,
    prompt_and_padding_frames_carry_no_gradient,
    what_is_prepared_can_be_made_again,
    loss_is_over_the_global_batch,
    autocast_keeps_every_gradient,
    training_steps_stay_finite_and_move_the_velocity,
    a_student_equals_its_teacher_at_initialisation,
    measured_counts_are_the_declared_ones,
    a_row_does_not_depend_on_its_neighbours_or_its_padding,
)
