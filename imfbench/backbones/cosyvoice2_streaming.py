"""CosyVoice 2's synthesis of speech whose tokens are still being made: the mel comes chunk by chunk.

As its ``CosyVoice2Model.tts(stream=True)`` does, each chunk is sampled with all that stands before it, prompt included, from the
same noise, and what was heard before is cut off. A chunk is sampled as soon as the encoder has the three tokens after it that it
hears (``finalize=False``); the last one has nothing after it (``finalize=True``). Attention over chunks (``streaming: true``) and
causal convolutions keep frames apart from later chunks, so that the chunks together are the mel of the whole utterance.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from imfbench.backbones.cosyvoice2 import LOOKAHEAD, CosyVoice2Flow
from imfbench.backbones.cosyvoice2_sampling import lay_out
from imfbench.devices import Precision, autocast
from imfbench.features.mel import COSYVOICE2
from imfbench.features.s3_tokens import FRAMES_PER_TOKEN
from imfbench.flow.counting import Counts
from imfbench.method import Method
from imfbench.sampling import check_length, initial_noise, synthesize_mel


class MelStream:
    """One utterance: tokens in by :meth:`push`, mels out, the rest by :meth:`finish`; or both by :meth:`mels`.

    The first chunk ends where prompt and target together are whole chunks, those after it have ``chunk`` tokens (25, a second),
    the last has the rest. Noise is that of :func:`imfbench.sampling.synthesize_mel` for the same id and seed.

    Args:
        method: A teacher or student around CosyVoice 2's flow with ``streaming: true``.
        prompt_tokens: S3 tokens of the prompt from 0, (tokens,).
        prompt_mel: Its log-mel, (2 · tokens, bands), give or take two frames.
        speaker: CAM++'s vector, (dims,).
        grid: Times of each chunk's sampling, (steps + 1,).
        utterance_id: With ``noise_seed`` it seeds the noise.
        noise_seed: See ``utterance_id``.
        solver: A name of ``flow.solvers.SOLVERS``.
        device: Where the network is.
        precision: Of its matrix products.
        noise: Frames of noise, (frames, bands), instead of drawn ones, such as the original's (``fixed_noise``).

    Attributes:
        counts: Of each chunk so far: each is sampled with all before it, so that they cost more and more.

    Raises:
        ValueError: The method's network is another one, its frames see all others, or mel or vector are of another size; later,
            the noise given is too short.
        TokenRateError: Prompt tokens and mel are not of one recording.
        LengthError: The prompt is longer than the network takes.
    """

    def __init__(
        self, method: Method, prompt_tokens: Tensor, prompt_mel: Tensor, speaker: Tensor, grid: Tensor, *,
        utterance_id: str = "stream", noise_seed: int = 0, solver: str = "euler", device: torch.device | str = "cpu",
        precision: Precision = "fp32", noise: Tensor | None = None,
    ) -> None:  # fmt: skip
        network = method.network
        if not isinstance(network, CosyVoice2Flow):
            raise ValueError(
                f"{type(network).__name__} makes no mel chunk by chunk: give a teacher or student of CosyVoice 2's flow"
            )
        if not network.config.streaming:
            raise ValueError(
                "the network's frames see all frames (streaming: false), those of tokens that are not made yet among them: "
                "give one with attention over chunks, by `imfbench import … --set streaming=true` and distilled from there"
            )
        sizes = (
            ("the prompt's mel", prompt_mel.shape[-1], network.bands, "bands: make it by cosyvoice_mel, of 24 kHz"),
            ("the speaker's vector", len(speaker), network.config.speaker_dims, "numbers: make it by CamPlus"),
        )
        for what, size, expected, how in sizes:
            if size != expected:
                raise ValueError(f"{what} has {size}, and the network takes {expected} {how}")
        self._method, self._network = method, network
        self._prompt = (prompt_tokens.cpu(), COSYVOICE2.normalise(prompt_mel.float().cpu()))
        self._speaker, self._grid, self._solver = speaker.float().cpu(), grid, solver
        self._id, self._device, self._precision = utterance_id, torch.device(device), precision
        self._tokens: list[int] = []
        self._spoken = 0
        self._finished = False
        self.counts: list[Counts] = []
        before = lay_out(*self._prompt, torch.zeros(0, dtype=torch.int64), self._speaker)
        check_length(before, network.longest, COSYVOICE2)
        held = int(before.prompt.sum()) // FRAMES_PER_TOKEN
        self._first = network.config.chunk + -held % network.config.chunk  # never less than a chunk, as upstream
        # Drawn once for the longest utterance, so that a frame has the same noise in each chunk's sampling.
        shape = (1, network.longest, network.bands)
        self._noise = initial_noise(utterance_id, noise_seed, shape) if noise is None else noise[None]

    def push(self, tokens: Iterable[int]) -> list[Tensor]:
        """Take S3 tokens that were made, from 0; give the mels of the chunks that they complete.

        Returns:
            Log-mels, (frames, bands) each, on the CPU; often none.

        Raises:
            ValueError: A token that the network does not know, or the utterance was finished.
            LengthError: Prompt and target are longer together than the network takes.
        """
        if self._finished:
            raise ValueError("the utterance is finished: another one is another MelStream")
        new = [int(token) for token in tokens]
        known = self._network.config.vocab_size
        if strange := [token for token in new if not 0 <= token < known]:
            raise ValueError(f"token {strange[0]} is none of the {known} that the network knows, 0 to {known - 1}")
        self._tokens += new
        found = []
        while len(self._tokens) - self._spoken >= self._next + LOOKAHEAD:
            end = self._spoken + self._next
            found.append(self._mel(end, self._tokens[end : end + LOOKAHEAD]))
            self._spoken = end
        return found

    def finish(self) -> Tensor:
        """The mel of the tokens that are left, (frames, bands), of no frames if there are none; no token follows them."""
        self._finished = True
        if self._spoken == len(self._tokens):
            return torch.zeros(0, self._network.bands)
        found = self._mel(len(self._tokens), None)
        self._spoken = len(self._tokens)
        return found

    def mels(self, tokens: Iterable[int]) -> Iterator[Tensor]:
        """Each chunk's mel as soon as its tokens are there, and the rest; arguments and errors as for :meth:`push`."""
        for token in tokens:
            yield from self.push([token])
        yield self.finish()

    @property
    def _next(self) -> int:
        """Tokens of the chunk that comes next."""
        return self._first if self._spoken == 0 else self._network.config.chunk

    def _mel(self, end: int, ahead: Sequence[int] | None) -> Tensor:
        """Of the target's tokens from the last chunk's end to ``end``; the chunks before are sampled again, and cut off."""
        condition = lay_out(*self._prompt, torch.tensor(self._tokens[:end], dtype=torch.int64), self._speaker)
        check_length(condition, self._network.longest, COSYVOICE2)
        frames = condition.tokens.shape[1]
        if frames > self._noise.shape[1]:
            raise ValueError(
                f"{frames} frames are to be sampled, but the noise that was given has {self._noise.shape[1]}"
            )
        condition = condition.to(self._device)
        follows = None if ahead is None else torch.tensor([ahead], device=self._device) + 1
        self._network.eval()
        with torch.no_grad(), autocast(self._device, self._precision):
            condition = replace(condition, encoded=self._network.encode(condition, follows))
        mel, counts = synthesize_mel(
            self._method, condition, self._id, self._grid, self._solver, device=self._device, precision=self._precision,
            noise=self._noise[:, :frames],
        )  # fmt: skip
        self.counts.append(counts)
        return mel[FRAMES_PER_TOKEN * self._spoken :]
