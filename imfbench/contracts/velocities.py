"""The clauses of a method's velocity, which is what is sampled."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from imfbench.contracts.batches import query, row_alone
from imfbench.contracts.clauses import expect, expect_same, fundamental
from imfbench.contracts.trained import Trained, like, other_tokens
from imfbench.flow.counting import CountMismatchError, count_network, declared_counts
from imfbench.flow.grids import GRIDS, make_grid
from imfbench.flow.solvers import SOLVERS

GRID_CASES: list[tuple[Any, int]] = [(name, steps) for name in GRIDS for steps in (1, 3)]
GRID_CASES += [("epss", 7), ([0, 0.65, 1], 2)]


@fundamental
def velocity_has_the_mels_shape(part: Trained) -> None:
    """The velocity is finite float32 of the mel's shape."""
    method, (z, t, r) = part.build(), query(part.batch)
    with torch.no_grad():
        v = method.velocity(z, t, r, part.batch.condition)
    good = v.shape == z.shape and v.dtype == torch.float32 and bool(v.isfinite().all())
    expect(good, f"finite float32 of shape {tuple(z.shape)}", like(v))


def velocity_listens_to_its_condition(part: Trained) -> None:
    """Other tokens, and another prompt, make another velocity."""
    method, (z, t, r) = part.build(), query(part.batch)
    condition, target = part.batch.condition, part.batch.target
    others = {
        "tokens": replace(condition, tokens=other_tokens(condition)),
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
