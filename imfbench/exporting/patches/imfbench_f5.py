"""Plays a few-step student in F5-TTS (package f5-tts). Nothing of the package is changed but the one model that is given.

A student predicts the average velocity from a time t to a later time r, with its teacher's guidance inside. So the embedding of
time becomes one of both times, sampling goes over the student's own grid, and guidance is left out.

    from f5_tts.api import F5TTS
    from imfbench_f5 import few_step

    f5 = F5TTS(model="F5TTS_v1_Base", ckpt_file="TEACHER.safetensors", vocab_file="vocab.txt")
    few_step(f5.ema_model, "model.safetensors", [0.0, 0.5, 1.0])
    f5.infer("prompt.wav", "what the prompt says", "what is to be said", file_wave="said.wav")
"""

from typing import Any

import torch
from safetensors.torch import load_file

MIXER = "transformer.time_embed.mixer.weight"


class TwoTimes(torch.nn.Module):
    """The embedding of a grid's time t and of the time r that follows it: W·[e_t ; e_r]."""

    def __init__(self, embedding: Any, mixer: torch.Tensor, grid: list[float]) -> None:
        super().__init__()
        self.embedding = embedding
        self.mixer = torch.nn.Parameter(mixer, requires_grad=False)
        self.grid = grid

    def forward(self, time: torch.Tensor) -> torch.Tensor:
        """``time``, (batch,): (batch, dim)."""
        grid = torch.tensor(self.grid, device=time.device)
        step = (grid[:-1] - time[:, None].float()).abs().argmin(-1)  # half precision has rounded the time
        sinusoids = [self.embedding.time_embed(grid[at]) for at in (step, step + 1)]
        both = [self.embedding.time_mlp(found.to(self.mixer.dtype)) for found in sinusoids]
        return torch.nn.functional.linear(torch.cat(both, -1), self.mixer)


def few_step(cfm: Any, checkpoint: str, grid: list[float]) -> Any:
    """Put a student's weights into F5-TTS's own ``CFM`` and let its ``sample`` take one step for each interval of the grid.

    ``sample`` then leaves what it is told of steps, guidance and sway aside. Another grid: call this again.
    """
    state = {name.removeprefix("ema_model."): value for name, value in load_file(checkpoint).items()}
    state = {name: value for name, value in state.items() if name not in ("initted", "step")}
    mixer = state.pop(MIXER).to(next(cfm.parameters()))
    transformer = cfm.transformer
    transformer.time_embed = getattr(transformer.time_embed, "embedding", transformer.time_embed)
    cfm.load_state_dict(state)
    transformer.time_embed = TwoTimes(transformer.time_embed, mixer, grid)
    cfm.odeint_kwargs = {"method": "euler", "options": {"grid_constructor": lambda _f, _y, t: t.new_tensor(grid)}}
    unguided = {"steps": 1, "cfg_strength": 0.0, "sway_sampling_coef": None}
    cfm.sample = lambda *given, **options: type(cfm).sample(cfm, *given, **{**options, **unguided})
    return cfm
