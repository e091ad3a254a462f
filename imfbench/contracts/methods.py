"""The contract of methods: what every one must do that is trained and sampled, whoever wrote it.

The networks are a small DiT and text2mel's AligningDiT whose weights are all random. Searches of time grids have a contract
of their own, :mod:`imfbench.contracts.searches`.
"""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from imfbench.building import build_method
from imfbench.contracts.batches import TOKENS, fill, make_batch, make_state, make_text_batch, query, row_alone
from imfbench.contracts.clauses import Clause, about, expect, expect_error, expect_same, fundamental
from imfbench.features.alignment import BOUNDARY
from imfbench.flow.counting import CountMismatchError, count_network, declared_counts
from imfbench.flow.grids import GRIDS, make_grid
from imfbench.flow.solvers import SOLVERS
from imfbench.method import Batch, Condition, Method, MethodConfig, Needs, State, squared_error
from imfbench.registry import METHODS

GRID_CASES: list[tuple[Any, int]] = [(name, steps) for name in GRIDS for steps in (1, 3)]
GRID_CASES += [("epss", 7), ([0, 0.65, 1], 2)]


@dataclass(frozen=True)
class Trained:
    """A registered method on one task's network and batch."""

    name: str
    backbone: str
    batch: Batch
    options: dict[str, Any]

    @property
    def cls(self) -> Any:
        """Its class."""
        return METHODS.get(self.name)

    def build(self) -> Method:
        """The method as the framework builds it: a student starts from its teacher's weights."""
        bands = self.batch.x1.shape[-1]
        shape = {"dim": 32, "depth": 2, "heads": 2, "bands": bands, "tokens": 24, "content_layers": 1}
        if self.backbone == "aligning-dit":
            shape |= {"bands": bands - 1, "tokens": 128, "alignment_depth": 1}
        if not self.cls.needs.teacher:
            method = build_method(self.name, self.options, backbone=self.backbone, backbone_config=shape)
            fill(method.network)
            return method
        teacher = build_method("teacher", backbone=self.backbone, backbone_config=shape)
        fill(teacher.network)
        return build_method(self.name, self.options, teacher=teacher)

    @functools.cached_property
    def given(self) -> Batch:
        """The batch as training gives it to the loss: prepared, where the method prepares batches."""
        wanted = self.build().batches_to_prepare(1) > 0
        return self.build().prepare(self.batch, torch.Generator().manual_seed(0)) if wanted else self.batch

    def state(self, seed: int = 0) -> State:
        """The state of a step."""
        return make_state(self.batch, seed)

    def loss(self, method: Method, state: State, batch: Batch | None = None) -> Tensor:
        """One loss, with what the method's needs declare."""
        ema = copy.deepcopy(method.network) if method.needs.ema_target else None
        loss, logs = method.loss(batch or self.given, replace(state, ema=ema))
        expect(loss.shape == () and loss.dtype == torch.float32, "a loss that is one float32 number", _like(loss))
        wrong = {key: value for key, value in logs.items() if not isinstance(key, str) or not isinstance(value, float)}
        expect(not wrong, "figures to log that are words with floats", wrong)
        return loss


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
    expect(not lacking, "a gradient for every weight", f"none for {_few(lacking)}")
    wild = [key for key, grad in named.items() if grad is not None and not grad.isfinite().all()]
    expect(not wild, "finite gradients", f"others in {_few(wild)}")
    idle = [key for key, grad in named.items() if grad is not None and not grad.any()]
    expect(len(idle) < 0.2 * len(named), "a gradient that is not zero in most weights", f"zero in {_few(idle)}")
    if method.teacher:
        touched = [key for key, p in method.teacher.network.named_parameters() if p.grad is not None]
        expect(not touched, "no gradient in the teacher (use torch.no_grad)", f"one in {_few(touched)}")
        after = method.teacher.network.state_dict()
        changed = [key for key, value in before.items() if not torch.equal(after[key], value)]
        expect(not changed, "a teacher that is left as it was", f"changes in {_few(changed)}")


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
    expect(not lost, "gradients for the same weights in bf16 as in fp32", f"a difference in {_few(lost)}")


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


@fundamental
def velocity_has_the_mels_shape(part: Trained) -> None:
    """The velocity is finite float32 of the mel's shape."""
    method, (z, t, r) = part.build(), query(part.batch)
    with torch.no_grad():
        v = method.velocity(z, t, r, part.batch.condition)
    good = v.shape == z.shape and v.dtype == torch.float32 and bool(v.isfinite().all())
    expect(good, f"finite float32 of shape {tuple(z.shape)}", _like(v))


def velocity_listens_to_its_condition(part: Trained) -> None:
    """Other tokens, and another prompt, make another velocity."""
    method, (z, t, r) = part.build(), query(part.batch)
    condition, target = part.batch.condition, part.batch.target
    fixed = (condition.tokens == 0) | (condition.tokens == BOUNDARY)
    others = {
        "tokens": replace(condition, tokens=torch.where(fixed, condition.tokens, 1 + condition.tokens % (TOKENS - 1))),
        "prompt": replace(condition, prompt_mel=condition.prompt_mel.neg()),
    }
    with torch.no_grad():
        usual = method.velocity(z, t, r, condition)[target]
        for what, other in others.items():
            changed = (method.velocity(z, t, r, other)[target] - usual).abs().max().item()
            told = "the same; is `condition` given to the network, and not dropped?"
            expect(
                changed > 1e-6, f"another velocity for {'other tokens' if what == 'tokens' else 'another prompt'}", told
            )


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


def a_student_equals_its_teacher_at_initialisation(part: Trained) -> None:
    """Before training, a student of average velocities is its unguided teacher, for every r and not for r = t alone."""
    method, (z, t, _) = part.build(), query(part.batch)
    if method.kind != "average" or method.teacher is None:
        return
    with torch.no_grad():
        expected = method.teacher.network(z, t, None, part.batch.condition)
        assert expected.abs().max() > 0.01  # zeros would agree with anything
        for r in (t, t + 0.3, torch.ones_like(t)):
            found = method.velocity(z, t, r, part.batch.condition)
            expect_same(found, expected, f"the teacher's velocity at t = {t[0]:g}, r = {r[0]:g}")


def measured_counts_are_the_declared_ones(part: Trained) -> None:
    """On every solver and grid the network runs as often as the method declares (`sampling_guidance` makes it two rows)."""
    method, z = part.build(), query(part.batch)[0]
    guidance = float(getattr(method, "sampling_guidance", 0.0))
    for solver in SOLVERS:
        if method.kind == "average" and solver != "euler":  # the framework refuses it
            continue
        for spec, steps in GRID_CASES:
            grid = make_grid(spec, steps)
            with torch.no_grad(), count_network(method.network) as count:
                velocity = count.wrap(lambda z, t, r: method.velocity(z, t, r, part.batch.condition))
                sample = SOLVERS[solver](velocity, z, grid)
            expect(bool(sample.isfinite().all()), "a finite sample", f"another by {solver} on {steps} steps of {spec}")
            try:
                count.check(declared_counts(grid, solver, guidance), len(z))
            except CountMismatchError as error:
                expect(False, "as many network calls as declared", f"{error} ({solver}, {steps} steps of {spec})")


def a_row_does_not_depend_on_its_neighbours_or_its_padding(part: Trained) -> None:
    """An utterance's velocity is the same alone as in a batch with longer ones."""
    method, (z, t, r) = part.build(), query(part.batch)
    row = 1
    condition, frames = row_alone(part.batch, row)
    with torch.no_grad():
        together = method.velocity(z, t, r, part.batch.condition)[row, :frames]
        single = method.velocity(z[row : row + 1, :frames], t[:1], r[:1], condition)[0]
    expect_same(together, single, "the velocity of the utterance alone", rtol=1e-4)


TRAINED = (
    kind_is_declared,
    velocity_has_the_mels_shape,
    velocity_listens_to_its_condition,
    training_shows_the_network_its_condition,
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


def _like(x: Tensor) -> str:
    return f"{'' if bool(x.isfinite().all()) else 'not finite '}{str(x.dtype).removeprefix('torch.')} of shape {tuple(x.shape)}"


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
