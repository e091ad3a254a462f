"""What of a training step's memory is there whatever the batch: weights, gradients, optimiser, moving average, teacher."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from imfbench.training import Training

PARTS = ("weights", "gradients", "optimiser", "average", "teacher", "activations")
"""In the order of tables. ``activations`` is what is left of the peak: scratch memory and passes without gradient as well."""


def steady_parts(training: Training) -> dict[str, int]:
    """Bytes on the training's device by part, without the activations, which depend on the batch."""
    method, kind = training.method, training.device.type
    trained = [p for p in method.network.parameters() if p.requires_grad]
    teacher = [] if method.teacher is None else _tensors(method.teacher.network)
    return {
        "weights": _bytes(_tensors(method.network), kind),
        "gradients": _bytes(trained, kind),
        "optimiser": 2 * _bytes(trained, kind),  # AdamW's two moments
        "average": _bytes(_tensors(training.ema), kind),
        "teacher": _bytes(teacher, kind),
    }


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]


def _bytes(tensors: Iterable[Tensor], kind: str) -> int:
    """Each storage once: networks may share weights within themselves."""
    found = {t.data_ptr() if type(t).__name__ != "FakeTensor" else id(t): t for t in tensors if t.device.type == kind}
    return sum(t.numel() * t.element_size() for t in found.values())


def count_parameters(network: nn.Module, trained: bool = False) -> int:
    """Weights of a network, or of what of it is trained."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad or not trained)
