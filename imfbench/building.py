"""What a training begins with: a method around a network that starts from its teacher's weights, or at random."""

from __future__ import annotations

import copy
from typing import Any, Literal

import torch
from torch import nn

from imfbench.artefact import build_network
from imfbench.method import Method
from imfbench.registry import METHODS


def build_method(
    name: str, config: dict[str, Any] | None = None, teacher: Method | None = None,
    backbone: str = "dit", backbone_config: dict[str, Any] | None = None, seed: int = 0, start: nn.Module | None = None,
    *, scratch: bool = False, second_time: Literal["identity", "random"] = "identity",
) -> Method:  # fmt: skip
    """A method ready to train: its network starts from the teacher's weights where there is a teacher, else at random.

    Args:
        name: Of the method.
        config: Its hyper-parameters.
        teacher: What a student starts from and learns from.
        backbone: Network of a method without a teacher.
        backbone_config: Its shape.
        seed: Of its random weights.
        start: A network whose weights it takes over (``start_from`` of the backbone).
        scratch: A student of the teacher's shape with random weights, but for the encoders that no student trains.
        second_time: How the layers that the second time brings begin; "random" as the backbone's own layers begin.

    Raises:
        ValueError: The method needs a teacher and none was given, or the backbone cannot start from that network, or brings no
            layers that could begin at random.
    """
    cls = METHODS.get(name)
    if cls.needs.teacher and teacher is None:
        raise ValueError(f"method {name!r} needs a teacher: name one in the configuration (teacher: embedded:…)")
    if teacher is not None:
        teacher.network.eval().requires_grad_(False)
    if teacher is not None and not scratch:
        network = copy.deepcopy(teacher.network).requires_grad_(True)
    elif teacher is not None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = type(teacher.network)(teacher.network.config)
        for own, its in zip(_encoders(network), _encoders(teacher.network), strict=True):
            own.load_state_dict(its.state_dict())
    else:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = build_network(backbone, backbone_config)
        if start is not None:
            network.start_from(start)  # type: ignore[operator]
    for part in _encoders(network) if teacher is not None else ():
        part.requires_grad_(False)
    if cls.needs.two_times:
        _attach_second_time(network, second_time, seed)
    method: Method = cls(cls.Config(**(config or {})), network, teacher)
    if teacher is not None and (told := guided_twice(teacher, method)):
        raise ValueError(told)
    return method


def guided_twice(teacher: Method, student: Method) -> str:
    """What is wrong with a student's guidance if its teacher has guidance in its weights; empty if nothing is.

    A network that has learnt v(c) + w·(v(c) − v(∅)) was not trained for v(∅): guided again, its velocity is nobody's.
    """
    w, again = (getattr(method, "baked_guidance", None) for method in (teacher, student))
    if not w or not again or getattr(student.config, "guidance_from", "teacher") != "teacher":
        return ""
    return (
        f"the teacher has its guidance (w = {w:g}) in its weights, and this student would guide it again (w = {again:g}): "
        "set the student's guidance to 0 (omega: 1 of meanflow)"
    )


def described(name: str, config: dict[str, Any] | None) -> Method:
    """A method that knows its settings and has no network: for what follows from them, as the guidance that it bakes in."""
    cls = METHODS.get(name)
    return cls(cls.Config(**(config or {})), nn.Identity())  # type: ignore[no-any-return]


def _encoders(network: nn.Module) -> tuple[nn.Module, ...]:
    """What teacher and student have in common: training encodes a condition by the teacher's own, sampling by the student's."""
    found: tuple[nn.Module, ...] = getattr(network, "frozen", ())
    return found


def _attach_second_time(network: nn.Module, start: Literal["identity", "random"], seed: int) -> None:
    before = {id(layer) for layer in network.modules()}
    network.attach_second_time()  # type: ignore[operator]
    if start == "identity":
        return
    new = [layer for layer in network.modules() if id(layer) not in before and hasattr(layer, "reset_parameters")]
    if not new:
        raise ValueError(
            f"second_time: random: {type(network).__name__} has no layer that its second time alone brings"
        )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for layer in new:
            layer.reset_parameters()  # type: ignore[operator]
