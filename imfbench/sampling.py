"""From a condition to a mel: noise, grid, solver, and counts that are measured."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

from imfbench.devices import Precision, autocast
from imfbench.features.mel import HIFIGAN, MelFormat
from imfbench.flow.counting import Counts, count_network, declared_counts
from imfbench.flow.grids import uniform
from imfbench.flow.solvers import SOLVERS, check_solver
from imfbench.inputs import inputs_of
from imfbench.method import Condition, Method, encoded


def initial_noise(utterance_id: str, noise_seed: int, shape: tuple[int, ...]) -> Tensor:
    """Noise from a CPU generator seeded by a hash of (noise seed, utterance id): the same for every method and device."""
    digest = hashlib.sha256(f"{noise_seed}/{utterance_id}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    return torch.randn(shape, generator=generator)


def sampling_guidance(method: Method) -> float:
    """w of a method's sampling; 0 for methods whose guidance is baked in."""
    return float(getattr(method, "sampling_guidance", 0.0))


class LengthError(ValueError):
    """An utterance that is longer than the network takes; the message says how long its prompt may be.

    Args:
        message: That.
        of_prompt: Whether a shorter prompt is enough; otherwise it is the text that is too long.
    """

    def __init__(self, message: str, of_prompt: bool = False) -> None:
        super().__init__(message)
        self.of_prompt = of_prompt


def check_length(condition: Condition, longest: int | None, mel: MelFormat = HIFIGAN) -> None:
    """Refuse an utterance that is longer than a network takes.

    Args:
        condition: A batch of 1.
        longest: The network's ``longest``: frames of prompt and target together; None takes all.
        mel: The network's format.

    Raises:
        LengthError: It is longer.
    """
    prompt, frames = int(condition.prompt.sum()), int(condition.valid.sum())
    if longest is None or frames <= longest:
        return
    second = mel.frames_per_second
    left = longest - (frames - prompt)
    remedy = f"cut the prompt to {left / second:.1f} s" if left > 0 else "split the text"
    raise LengthError(
        f"the prompt of {prompt / second:.1f} s and the {(frames - prompt) / second:.1f} s to generate are {frames} mel frames, "
        f"but the network takes {longest} ({longest / second:.1f} s): {remedy}",
        of_prompt=left > 0,
    )


def as_loud(audio: np.ndarray, condition: Condition) -> np.ndarray:
    """What a vocoder made of a sampled mel, (samples,), as loud as its condition, a batch of 1, wants it (``Condition.gain``)."""
    return audio if condition.gain is None else (audio * float(condition.gain[0])).astype(np.float32)


def warm_up(method: Method, condition: Condition, device: torch.device | str, precision: Precision) -> None:
    """On a CPU one evaluation, so that a pass at this length is timed like any other: there kernels are made for each length.

    In bf16 that is a tenth to two thirds of the first evaluation at a length (8 M weights; docs/measurement.md).

    Raises:
        Exception: What :func:`synthesize_mel` raises.
    """
    if torch.device(device).type == "cpu":
        synthesize_mel(method, condition, "", uniform(1), device=device, precision=precision)


@torch.no_grad()
def synthesize_mel(
    method: Method, condition: Condition, utterance_id: str, grid: Tensor, solver: str = "euler", noise_seed: int = 0,
    device: torch.device | str = "cpu", precision: Precision = "fp32", noise: Tensor | None = None,
) -> tuple[Tensor, Counts]:  # fmt: skip
    """Sample one utterance.

    Args:
        method: What gives the velocity.
        condition: A batch of 1: the prompt's frames first, then the frames to generate.
        utterance_id: With ``noise_seed`` it seeds the noise.
        grid: Times, (steps + 1,).
        solver: A name of ``flow.solvers.SOLVERS``.
        noise_seed: See ``utterance_id``.
        device: Where the network is.
        precision: Of the network's matrix products; the state is float32.
        noise: To start from, (1, frames, bands), instead of what is drawn for the utterance.

    Returns:
        Log-mel of the generated part alone, (frames, bands), on the CPU, and the measured counts.

    Raises:
        CountMismatchError: The network was not run as often as grid, solver and guidance declare.
        SolverError: The solver does not fit the method.
        LengthError: Prompt and target are longer together than the network takes.
        FloatingPointError: The mel holds values that are not finite.
    """
    check_solver(solver, method.kind)
    made = inputs_of(method.network).mel
    check_length(condition, getattr(method.network, "longest", None), made)
    device = torch.device(device)
    z = initial_noise(utterance_id, noise_seed, condition.prompt_mel.shape) if noise is None else noise
    z = z.to(device)
    condition = condition.to(device)
    if any(module.training for module in method.network.modules()):  # asking is quicker than setting each of them again
        method.network.eval()
    with count_network(method.network) as count, autocast(device, precision):
        condition = encoded(method.network, condition)
        velocity = count.wrap(lambda z, t, r: method.velocity(z, t, r, condition))
        z = SOLVERS[solver](velocity, z, grid)
    counts = count.check(declared_counts(grid, solver, sampling_guidance(method)), batch=1)
    # What a backbone generates besides the mel (text2mel's alignment) stands behind the mel's bands. The prompt's frames are cut
    # off, whether the network gave them a velocity or not.
    mel = made.denormalise(z[0][(condition.valid & ~condition.prompt)[0]][:, : made.bands]).float().cpu()
    if not bool(torch.isfinite(mel).all()):
        raise FloatingPointError(f"the sampled mel of {utterance_id} holds values that are not finite")
    return mel, counts
