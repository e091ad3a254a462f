"""Plays a few-step student in CosyVoice 2. Nothing of the package is changed but the one flow that is given.

A student predicts the average velocity from a time t to a later time r, with its teacher's guidance inside. So the embedding of
time becomes one of both times, and the solver takes the student's own steps, each with one unguided row.

    from cosyvoice.cli.cosyvoice import CosyVoice2
    from imfbench_cosyvoice2 import few_step

    cosyvoice = CosyVoice2("pretrained_models/CosyVoice2-0.5B")
    few_step(cosyvoice.model.flow, "flow.pt", [0.0, 0.5, 1.0])
"""

from itertools import pairwise
from typing import Any

import torch

MIXER = "decoder.estimator.time_embed_mixer.weight"


class TwoTimes(torch.nn.Module):
    """The embedding of times t and r: W·[e_t ; e_r]."""

    def __init__(self, sinusoids: Any, layers: Any, mixer: torch.Tensor) -> None:
        super().__init__()
        self.sinusoids, self.layers = sinusoids, layers
        self.mixer = torch.nn.Parameter(mixer, requires_grad=False)

    def forward(self, times: torch.Tensor) -> torch.Tensor:
        """``times``, (batch, 2), float32: (batch, dim)."""
        both = [self.layers(self.sinusoids(time).to(self.mixer.dtype)) for time in times.unbind(1)]
        return torch.nn.functional.linear(torch.cat(both, -1), self.mixer)


def few_step(flow: Any, checkpoint: str, grid: list[float], streaming: bool = False) -> Any:
    """Put a student's weights into CosyVoice 2's own flow and let its solver take one step for each interval of the grid.

    The number of steps that the software asks for is left aside. Another grid: call this again. ``streaming`` is for a student
    of attention over chunks, which the software asks for in streams alone, and not in their last chunk.
    """
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    mixer = state.pop(MIXER).to(next(flow.parameters()))
    estimator = flow.decoder.estimator
    if isinstance(estimator.time_mlp, TwoTimes):
        estimator.time_embeddings, estimator.time_mlp = estimator.time_mlp.sinusoids, estimator.time_mlp.layers
    flow.load_state_dict(state)
    estimator.time_mlp = TwoTimes(estimator.time_embeddings, estimator.time_mlp, mixer)
    estimator.time_embeddings = torch.nn.Identity()

    def solve_euler(
        x: Any, t_span: Any, mu: Any, mask: Any, spks: Any, cond: Any, streaming: bool = False
    ) -> Any:  # fmt: skip
        for t, r in pairwise(grid):
            times = torch.tensor([[t, r]], device=x.device)
            x = x + (r - t) * estimator(x, mask, mu, times, spks, cond, streaming=streaming)
        return x.float()

    flow.decoder.solve_euler = solve_euler
    vars(flow).pop("inference", None)
    if streaming:
        flow.inference = lambda **given: type(flow).inference(flow, **(given | {"streaming": True}))
    return flow
