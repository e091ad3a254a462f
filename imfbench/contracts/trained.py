"""What the contract of methods is about: a registered method on a task's small network and batch."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from imfbench.building import build_method
from imfbench.contracts.batches import TOKENS, fill, make_state
from imfbench.contracts.clauses import expect
from imfbench.features.alignment import BOUNDARY
from imfbench.method import Batch, Condition, Method, State
from imfbench.registry import METHODS


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
        expect(loss.shape == () and loss.dtype == torch.float32, "a loss that is one float32 number", like(loss))
        wrong = {key: value for key, value in logs.items() if not isinstance(key, str) or not isinstance(value, float)}
        expect(not wrong, "figures to log that are words with floats", wrong)
        return loss


def other_tokens(condition: Condition) -> Tensor:
    """Other contents in the place of each, (batch, frames); what stands for none or for a boundary stays."""
    fixed = (condition.tokens == 0) | (condition.tokens == BOUNDARY)
    return torch.where(fixed, condition.tokens, 1 + condition.tokens % (TOKENS - 1))


def like(x: Tensor) -> str:
    """A tensor in words."""
    return f"{'' if bool(x.isfinite().all()) else 'not finite '}{str(x.dtype).removeprefix('torch.')} of shape {tuple(x.shape)}"


def few(names: list[str]) -> str:
    """The first of several names."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
