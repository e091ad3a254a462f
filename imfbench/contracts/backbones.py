"""The contract of backbones: networks ``u(z, t, r, condition)``.

A backbone is asked about its ``task``. One that names none is asked about token2mel if its ``bands`` are the mel's, and about
text2mel if it has a band more, the alignment. Its ``prompt_frames`` say what becomes of the prompt's frames of z: ``given``, the
default, hides them from the network and gives them no velocity; ``evolve`` has them seen and generated as the others are. The
sampler cuts them off in either case.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from imfbench.artefact import build_network, load_artefact, save_artefact
from imfbench.contracts.batches import batch_for, fill, query, row_alone
from imfbench.contracts.clauses import Clause, about, expect, expect_error, expect_same
from imfbench.flow.derivative import along_path
from imfbench.inputs import inputs_of
from imfbench.method import Batch, Condition
from imfbench.registry import BACKBONES, METHODS


@dataclass(frozen=True)
class Network:
    """A registered backbone with settings."""

    name: str
    options: dict[str, Any]

    def build(self) -> Any:
        """A network whose weights are all random; the same each time."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = build_network(self.name, self.options)
        fill(network)
        return network.eval()

    def batch(self, network: nn.Module) -> Batch:
        """A batch of the task that the network is for."""
        return batch_for(inputs_of(network), task_of(network))


def task_of(network: Any) -> str:
    """The task that a network is for: what it says, or what its bands do."""
    mel = inputs_of(network).mel.bands
    return str(getattr(network, "task", "token2mel" if getattr(network, "bands", mel) == mel else "text2mel"))


def prompt_frames(network: Any) -> str:
    """What becomes of the prompt's frames of z."""
    return str(getattr(network, "prompt_frames", "given"))


def contract(name: str, options: dict[str, Any]) -> list[Clause]:
    """The clauses of a backbone."""
    return about(Network(name, options), name, CLAUSES)


def settings_build_it_and_stand_in_its_file(part: Network) -> None:
    """`Config` builds the network, `network.config` is what built it, and an unknown setting is an error."""
    cls = BACKBONES.get(part.name)
    config = getattr(cls, "Config", None)
    good = hasattr(config, "model_validate")
    expect(good, "`Config`, a pydantic model (model_config = ConfigDict(frozen=True, extra='forbid'))", config)
    assert config is not None
    expect_error(lambda: config(no_such_setting=1), ValueError, "an unknown setting to be an error (extra='forbid')")
    wanted, network = config(**part.options), part.build()
    found = getattr(network, "config", None)
    expect(found == wanted, "network.config, the settings that built it", found)
    again = config.model_validate_json(wanted.model_dump_json())
    expect(again == wanted, "settings that JSON gives back as they were", again)


def velocity_is_float32_of_the_mels_shape_and_zero_where_nothing_is_generated(part: Network) -> None:
    """The velocity is finite float32 of z's shape, zero on padding, and on prompt frames unless its `prompt_frames` evolve."""
    network = part.build()
    batch = part.batch(network)
    v = _velocity(network, batch)
    like = f"{v.dtype} of shape {tuple(v.shape)}"
    expect(v.dtype == torch.float32 and v.shape == batch.x1.shape, f"float32 of shape {tuple(batch.x1.shape)}", like)
    expect(bool(v.isfinite().all()), "finite values", "others")
    kind = prompt_frames(network)
    expect(kind in ("given", "evolve"), "prompt_frames, 'given' or 'evolve'", repr(kind))
    made = batch.condition.valid if kind == "evolve" else batch.target
    where = "padding frames" if kind == "evolve" else "prompt and padding frames"
    outside = int((v[~made] != 0).any(-1).sum())
    expect(outside == 0, f"zero on {where}", f"something else on {outside} of them")
    lacking = int((v[made] == 0).all(-1).sum())
    expect(lacking == 0, "a velocity on the other frames", f"zero on {lacking} of them")


def a_second_time_changes_nothing_at_first(part: Network) -> None:
    """`attach_second_time()` gives a network of (t, r) that is at first the one of t, for every r, and can learn of r."""
    network = part.build()
    batch = part.batch(network)
    for name in ("has_second_time", "attach_second_time"):
        expect(hasattr(network, name), f"`{name}`, for methods of average velocities", "none")
    expect(not network.has_second_time, "a new network of one time", "has_second_time is true")
    z, t, r = query(batch)
    before = _velocity(network, batch)
    for times in (1, 2):
        network.attach_second_time()
        expect(bool(network.has_second_time), "has_second_time to be true once it is attached", "false")
        for end in (None, t, r):
            with torch.no_grad():
                after = network(z, t, end, batch.condition)
            what = f"the network of one time (r = {'None' if end is None else f'{end[0]:g}'}, attached {times}×)"
            expect_same(after, before, f"the velocity of {what}")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
        near, far = (network(z, t, end, batch.condition) for end in (t, r))
    expect(not torch.allclose(near, far), "another velocity for another r when the weights have changed", "the same")


def the_condition_is_heard_and_can_be_dropped(part: Network) -> None:
    """Content, prompt and voice change the velocity except in dropped rows; z where nothing is generated never does."""
    network = part.build()
    batch = part.batch(network)
    c = batch.condition
    usual, dropped = _velocity(network, batch), _velocity(network, batch, c.drop())
    row = 1  # one with a prompt
    others = {
        "content": replace(c, tokens=torch.where((c.tokens > 0) & (c.tokens < 100), c.tokens % 7 + 1, c.tokens)),
        "prompt": replace(c, prompt_mel=c.prompt_mel * -2),
        **({} if c.speaker is None else {"speaker": replace(c, speaker=c.speaker.roll(1, 0))}),
    }
    for what, other in others.items():
        changed = not torch.allclose(_velocity(network, batch, other)[row], usual[row])
        expect(changed, f"another velocity for another {what}", "the same")
        expect_same(
            _velocity(network, batch, other.drop()), dropped, f"the same velocity whatever the dropped {what} was"
        )
    z = query(batch)[0]
    with torch.no_grad():
        t = torch.full((len(z),), 0.25)
        evolve = prompt_frames(network) == "evolve"
        seen = c.valid if evolve else batch.target
        found = network(torch.where(seen[..., None], z, torch.tensor(5.0)), t, None, c)
        where = "padding" if evolve else "prompt and padding"
        expect_same(found, usual, f"the same velocity whatever z holds on {where} frames")
        if evolve:
            found = network(torch.where(c.prompt[..., None], torch.tensor(5.0), z), t, None, c)
            changed = not torch.allclose(found[row][batch.target[row]], usual[row][batch.target[row]])
            expect(changed, "another velocity for another z on the prompt's frames, which evolve", "the same")


def a_row_does_not_depend_on_its_neighbours_or_its_padding(part: Network) -> None:
    """An utterance's velocity is the same alone as in a batch with longer ones."""
    network = part.build()
    batch = part.batch(network)
    z, t, _ = query(batch)
    condition, frames = row_alone(batch, 1)
    with torch.no_grad():
        alone = network(z[1:2, :frames], t[:1], None, condition)[0]
    expect_same(_velocity(network, batch)[1, :frames], alone, "the velocity of the utterance alone", rtol=1e-4)


def every_weight_is_trained_and_has_a_derivative(part: Network) -> None:
    """Every weight gets a gradient, and the forward-mode derivative that MeanFlow trains with can be taken."""
    network = part.build()
    network.attach_second_time()
    batch = part.batch(network)
    z, t, r = query(batch)
    network(z, t, r, batch.condition).square().sum().backward()
    idle = [key for key, p in network.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    expect(not idle, "a gradient for every weight", f"none for {', '.join(idle[:3])}")
    try:
        with torch.no_grad():
            _, derivative = along_path(lambda z, t, r: network(z, t, r, batch.condition), z, t, r, torch.ones_like(z))
    except (RuntimeError, NotImplementedError) as error:
        expect(False, "a derivative by torch.func.jvp", f"{type(error).__name__}: {str(error).splitlines()[0]}")
    expect(bool(derivative.isfinite().all()), "a finite derivative by torch.func.jvp", "another")


def an_artefact_gives_the_network_back(part: Network) -> None:
    """Written as an artefact and read again, the network gives the same velocity."""
    network = part.build()
    network.attach_second_time()
    batch = part.batch(network)
    teacher = METHODS.get("teacher")
    with tempfile.TemporaryDirectory() as folder:
        save_artefact(Path(folder), "teacher", teacher(teacher.Config(), network), {})
        loaded, _ = load_artefact(Path(folder))
    expect_same(
        _velocity(loaded.network, batch), _velocity(network, batch), "the velocity of the network that was saved"
    )


CLAUSES = (
    settings_build_it_and_stand_in_its_file,
    velocity_is_float32_of_the_mels_shape_and_zero_where_nothing_is_generated,
    a_second_time_changes_nothing_at_first,
    the_condition_is_heard_and_can_be_dropped,
    a_row_does_not_depend_on_its_neighbours_or_its_padding,
    every_weight_is_trained_and_has_a_derivative,
    an_artefact_gives_the_network_back,
)


def _velocity(network: nn.Module, batch: Batch, condition: Condition | None = None) -> Tensor:
    z, t, _ = query(batch)
    with torch.no_grad():
        found: Tensor = network(z, t, None, batch.condition if condition is None else condition)
    return found
