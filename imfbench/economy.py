"""What makes a training step smaller or faster: recomputed activations, compiled blocks, a teacher held in bf16.

It is the backbone that knows its transformer blocks: ``network.repeated`` names them. They are changed for the length of a step
and not for good, so that averages, artefacts and sampling never see it.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

from imfbench.devices import out_of_memory
from imfbench.method import Method
from imfbench.train_settings import TrainConfig

log = logging.getLogger("imfbench")
HELD_IN_BF16 = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.Embedding)
"""Layers whose matrices are nearly all of a network's weights; norms and tables stay as they are."""


def blocks_of(network: nn.Module) -> tuple[nn.Module, ...]:
    """A backbone's transformer blocks, one after another; empty where it names none."""
    return tuple(getattr(network, "repeated", ()))


class Economy:
    """The settings of a training that are about memory and speed, for the length of each step.

    Args:
        config: ``checkpoint_activations`` and ``compile`` count.

    Attributes:
        compiles: Whether blocks are compiled; False from the first one on that could not be.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.recomputes, self.compiles = config.checkpoint_activations, config.compile
        self._compiled: dict[nn.Module, Callable[..., Any]] = {}
        self._told: set[str] = set()

    @contextlib.contextmanager
    def applied(self, method: Method) -> Iterator[None]:
        """Within it the blocks of the method's networks work as the settings say."""
        networks = [method.network] + ([method.teacher.network] if method.teacher is not None else [])
        before: list[tuple[nn.Module, Any]] = []
        try:
            if self.recomputes or self.compiles:
                for network in networks:
                    if not blocks_of(network):
                        self._tell(
                            f"{type(network).__name__} names no transformer blocks (`repeated`): checkpoint_activations and "
                            "compile change nothing"
                        )
                    for block in blocks_of(network):
                        before.append((block, block.__dict__.get("forward")))
                        block.forward = self._forward(block, block.forward)  # type: ignore[method-assign]
            yield
        finally:
            for block, forward in before:
                del block.forward  # the class's own again
                if forward is not None:
                    block.forward = forward  # type: ignore[method-assign]

    def _forward(self, block: nn.Module, own: Callable[..., Any]) -> Callable[..., Any]:
        def forward(*arguments: Any, **named: Any) -> Any:
            if _in_a_transform():
                return self._within(own, *arguments, **named)
            run = self._fast(block, own) if self.compiles else own
            if self.recomputes and torch.is_grad_enabled():
                return checkpoint(run, *arguments, use_reentrant=False, **named)
            return run(*arguments, **named)

        return forward

    def _within(self, own: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """A block inside a JVP: forward-mode values can be neither recomputed later nor compiled."""
        if self.compiles:
            self._tell("compile: blocks run as they are inside a JVP")
        if self.recomputes and torch.is_grad_enabled():
            self._tell(
                "checkpoint_activations: activations inside a JVP with gradient are kept; MeanFlow's jvp: split has a pass "
                "without JVP, which recomputes them"
            )
        return own(*arguments, **named)

    def _fast(self, block: nn.Module, own: Callable[..., Any]) -> Callable[..., Any]:
        if block not in self._compiled:
            self._compiled[block] = torch.compile(own)

        def run(*arguments: Any, **named: Any) -> Any:
            if self.compiles:
                try:
                    return self._compiled[block](*arguments, **named)
                except Exception as error:  # dynamo's, inductor's, a compiler's that is not there
                    if out_of_memory(error):
                        raise
                    told = str(error).strip().partition("\n")[0][:200]
                    self._tell(
                        f"compile: torch.compile fails here ({type(error).__name__}: {told}); blocks run as they are"
                    )
                    self.compiles = False
            return own(*arguments, **named)

        return run

    def _tell(self, what: str) -> None:
        if what not in self._told:
            self._told.add(what)
            log.warning("%s", what)


def _in_a_transform() -> bool:
    return bool(torch._C._functorch.peek_interpreter_stack() is not None)


class _Rounded(nn.Module):
    """A weight that is held in bf16: as it is for layers that autocast runs in bf16, else in float32."""

    def __init__(self, castable: bool) -> None:
        super().__init__()
        self.castable = castable

    def forward(self, held: Tensor) -> Tensor:
        return held if self.castable and torch.is_autocast_enabled(held.device.type) else held.float()


def hold_in_bf16(network: nn.Module) -> None:
    """Hold the matrices of a frozen network in bf16, for good; done a second time it changes nothing.

    Its passes compute as they did, with weights that were rounded: in float32, or under autocast in bf16 without another
    rounding. What ``frozen`` names, the encoders whose output student and teacher share, stays in float32, for the student has
    its own to sample with.
    """
    shared = {id(layer) for part in getattr(network, "frozen", ()) for layer in part.modules()}
    for layer in list(network.modules()):
        if not isinstance(layer, HELD_IN_BF16) or id(layer) in shared or parametrize.is_parametrized(layer):
            continue
        layer.weight = nn.Parameter(layer.weight.detach().bfloat16(), requires_grad=False)
        # Unsafe: its checks refuse a weight that is of another type than what is held.
        parametrize.register_parametrization(
            layer, "weight", _Rounded(not isinstance(layer, nn.Embedding)), unsafe=True
        )
