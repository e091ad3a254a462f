"""Weights of rows in a loss; constants for the gradient."""

from __future__ import annotations

from torch import Tensor


def adaptive(error: Tensor, p: float, epsilon: float) -> Tensor:
    """``1/(‖Δ‖² + ε)^p`` of each row (MeanFlow, arXiv 2505.13447, section 4.3), without gradient.

    The stop-gradient is essential: ``‖Δ‖²/(‖Δ‖² + ε)`` itself has a vanishing gradient where the error is large.

    Args:
        error: ‖Δ‖² of each row, (batch,).
        p: 0 is no weight.
        epsilon: ε.
    """
    return (error.detach() + epsilon) ** -p


def normalising(error: Tensor, elements: Tensor, c: float) -> Tensor:
    """``1/(rms(Δ) + c)`` of each row: sCM's tangent normalisation (arXiv 2410.11081, section 4.1), without gradient.

    Args:
        error: ‖Δ‖² of each row, (batch,).
        elements: The number of squares that each row's error sums, (batch,).
        c: Keeps rows of small error small; the paper .1.
    """
    return 1 / ((error.detach() / elements.clamp(min=1)).sqrt() + c)
