"""Mels chunk by chunk against the original's, of its flow and of its whole program; what cannot be streamed is told."""

from __future__ import annotations

import copy
import itertools
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from small_cosyvoice import EXTRA, SMALL, fill, numbers, original_cfm, pair
from torch import Tensor

from imfbench.backbones.cosyvoice2 import CosyVoice2Config, CosyVoice2Flow
from imfbench.backbones.cosyvoice2_checkpoint import state_for_original
from imfbench.backbones.cosyvoice2_sampling import fixed_noise, lay_out
from imfbench.backbones.cosyvoice2_streaming import MelStream
from imfbench.backbones.dit import DiT
from imfbench.backbones.originals import original
from imfbench.building import build_method
from imfbench.exporting.patches.imfbench_cosyvoice2 import few_step
from imfbench.features.hift import SEED, HiFT, generator
from imfbench.features.s3_tokens import TokenRateError
from imfbench.flow.grids import make_grid
from imfbench.method import Method
from imfbench.registry import METHODS
from imfbench.sampling import LengthError, initial_noise, synthesize_mel

SPEAKER = numbers(192, seed=4)
GRIDS = {1: [0.0, 1.0], 2: [0.0, 0.65, 1.0], 3: [0.0, 0.2, 0.7, 1.0]}
TOLERANCE = 2e-4
TRUE = CosyVoice2Config()


def tokens(number: int, seed: int) -> Tensor:
    return torch.randint(SMALL.vocab_size, (number,), generator=torch.Generator().manual_seed(seed))


PROMPT, TARGET, MEL = tokens(5, 1), tokens(19, 2), numbers(10, 80, seed=3)
CUTS = [0, 7, 11, 15, 19]
"""Of the target's tokens where chunks have 4: prompt and first chunk are 12 together; three tokens follow all but the last."""


def teacher(network: CosyVoice2Flow) -> Method:
    cls = METHODS.get("teacher")
    return cls(cls.Config(guidance=0.7), network)


def student(network: CosyVoice2Flow) -> Method:
    """A student that hears both times."""
    found = build_method("intmeanflow", {"teacher_nfe": 2, "guidance": 0.7}, teacher(network))
    with torch.no_grad():
        for name, weight in found.network.named_parameters():
            if "mixer" in name:
                weight.add_(0.1 * numbers(*weight.shape, seed=7))
    return found


def stream(method: Method, grid: Any, noise: Tensor | None = None, **options: Any) -> MelStream:
    times = torch.as_tensor(grid, dtype=torch.float64)
    return MelStream(method, PROMPT, MEL, SPEAKER, times, noise=noise, **options)


def by_the_original(flow: Any, target: Tensor, finalize: bool, streaming: bool = True) -> Tensor:
    """The mel of the target's tokens, but for the three that it only hears, (frames, bands)."""
    found, _ = flow.inference(
        token=target[None], token_len=torch.tensor([len(target)]), prompt_token=PROMPT[None],
        prompt_token_len=torch.tensor([len(PROMPT)]), prompt_feat=MEL[None], prompt_feat_len=torch.tensor([len(MEL)]),
        embedding=SPEAKER[None], streaming=streaming, finalize=finalize,
    )  # fmt: skip
    return found[0].T.clone()


def chunks_of_the_original(flow: Any, target: Tensor, cuts: list[int]) -> list[Tensor]:
    found = []
    for begin, end in itertools.pairwise(cuts):
        last = end == len(target)
        mel = by_the_original(flow, target if last else target[: end + 3], last)
        assert len(mel) == 2 * end
        found.append(mel[2 * begin :])
    return found


def same(found: list[Tensor], expected: list[Tensor]) -> float:
    assert [len(mel) for mel in found] == [len(mel) for mel in expected]
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=TOLERANCE, rtol=1e-4)
    return max(float((mine - theirs).abs().max()) for mine, theirs in zip(found, expected, strict=True))


SHAPES = [
    pytest.param(SMALL, TARGET, CUTS, id="small"),
    # prompt and first chunk are two chunks of 25 together, and five tokens are left
    pytest.param(TRUE, tokens(50, 5), [0, 45, 50], marks=[pytest.mark.slow, pytest.mark.timeout(900)], id="true"),
]


@pytest.mark.parametrize(("config", "target", "cuts"), SHAPES)
def test_each_chunk_of_a_teacher_is_the_originals_at_ten_steps(
    config: CosyVoice2Config, target: Tensor, cuts: list[int]
) -> None:
    flow, ours = pair(config, streaming=True)
    expected = chunks_of_the_original(flow, target, cuts)
    made = stream(teacher(ours), make_grid("sway", 10), fixed_noise(2 * (len(PROMPT) + len(target))))
    found = list(made.mels(target))
    print("teacher, 10 steps:", same(found, expected))
    assert [counts.nfe for counts in made.counts] == [10] * (len(cuts) - 1)
    if config == SMALL:
        other = by_the_original(flow, target[: cuts[1] + 3], False, streaming=False)
        unheard = by_the_original(flow, target[: cuts[1]], True)
        assert (other - found[0]).abs().max() > 0.01, "the mask must matter, or nothing was shown"
        assert (unheard - found[0]).abs().max() > 0.01, "the tokens ahead must matter, or nothing was shown"


@pytest.mark.parametrize(("config", "target", "cuts"), SHAPES)
def test_each_chunk_of_a_student_is_the_patched_originals_at_one_to_three_steps(
    config: CosyVoice2Config, target: Tensor, cuts: list[int], tmp_path: Path
) -> None:
    flow, ours = pair(config, streaming=True)
    method, flow = student(ours), copy.deepcopy(flow)
    torch.save(state_for_original(method.network), tmp_path / "flow.pt")  # type: ignore[arg-type]
    noise = fixed_noise(2 * (len(PROMPT) + len(target)))
    made = {}
    for steps, grid in GRIDS.items():
        few_step(flow, str(tmp_path / "flow.pt"), grid)
        made[steps] = list(stream(method, grid, noise).mels(target))
        print(f"student, {steps} steps:", same(made[steps], chunks_of_the_original(flow, target, cuts)))
    assert (made[1][-1] - made[2][-1]).abs().max() > 0.01


class Program:
    """``CosyVoice2Model`` around a flow and a HiFT, with chunks of four tokens and given tokens instead of a language model's."""

    def __init__(self, flow: Any, hift: Any) -> None:
        module = original(
            "cosyvoice.cli.model", extra=EXTRA,
            unused={"cosyvoice.utils.file_utils": {
                "convert_onnx_to_trt": None, "export_cosyvoice2_vllm": None, "logging": logging.getLogger("cosyvoice"),
            }},
        )  # fmt: skip
        self.model = module.CosyVoice2Model(None, flow, hift)
        self.model.token_hop_len = SMALL.chunk
        self.calls: list[tuple[int, int, bool, bool]] = []
        said, spoken = self.model.token2wav, hift.inference

        def noted(**given: Any) -> Any:
            self.calls.append(
                (given["token"].shape[1], given["token_offset"], given["finalize"], given.get("stream", False))
            )
            return said(**given | {"stream": True})

        def seeded(**given: Any) -> Any:
            torch.manual_seed(SEED)
            return spoken(**given)

        self.model.token2wav, hift.inference = noted, seeded

    def __call__(self, target: Tensor) -> Tensor:
        return torch.cat(
            [
                made["tts_speech"][0]
                for made in self.model.tts(
                    flow_embedding=SPEAKER[None], flow_prompt_speech_token=PROMPT[None], prompt_speech_feat=MEL[None],
                    source_speech_token=target[None], stream=True,
                )
            ]
        )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_audio_and_cuts_are_those_of_the_whole_program(tmp_path: Path) -> None:
    """But for its last call, which forgets to ask for chunks; it is asked for them here."""
    original_cfm()
    flow, ours = pair(streaming=True)
    torch.manual_seed(0)
    hift = fill(generator())
    torch.save(hift.state_dict(), tmp_path / "hift.pt")
    program = Program(copy.deepcopy(flow), copy.deepcopy(hift))
    expected = program(TARGET)
    *chunks, last = program.calls
    assert chunks == [(end + 3, begin, False, True) for begin, end in itertools.pairwise(CUTS[:-1])]
    assert last == (19, 15, True, False), "its last call asks for no chunks"
    pieces = [
        torch.from_numpy(piece.copy())
        for piece in HiFT(tmp_path).stream(stream(teacher(ours), make_grid("sway", 10), fixed_noise(48)).mels(TARGET))
    ]
    assert [len(piece) for piece in pieces] == [480 * frames for frames in (14 - 8, 8, 8, 8, 8)]
    found = torch.cat(pieces)
    assert found.shape == expected.shape == (480 * 38,)
    assert expected.std() > 1e-3
    apart = float((found - expected).abs().max() / expected.abs().max())
    print("audio:", apart)
    assert apart < 1e-3
    cut = HiFT(tmp_path)(torch.cat(list(stream(teacher(ours), make_grid("sway", 10), fixed_noise(48)).mels(TARGET))))
    assert (torch.from_numpy(cut) - expected).abs().max() > 5 * (found - expected).abs().max()


def test_all_chunks_together_are_the_mel_of_the_whole_utterance_whatever_comes_at_once() -> None:
    """So that figures of a network with chunks are those of its streaming; and its noise is the utterance's."""
    method = teacher(pair(streaming=True)[1])
    grid = make_grid("sway", 3)
    whole, _ = synthesize_mel(method, lay_out(PROMPT, MEL, TARGET, SPEAKER), "one", grid, noise_seed=5)
    shape = (1, 48, 80)
    assert torch.equal(initial_noise("one", 5, (1, 15_000, 80))[:, :48], initial_noise("one", 5, shape))
    options = {"utterance_id": "one", "noise_seed": 5}
    one_by_one = list(stream(method, grid, **options).mels(TARGET))
    at_once = stream(method, grid, **options)
    pieces = at_once.push(TARGET.tolist())
    assert [2 * (b - a) for a, b in itertools.pairwise(CUTS[:-1])] == [len(piece) for piece in pieces]
    pieces.append(at_once.finish())
    assert all(torch.equal(a, b) for a, b in zip(one_by_one, pieces, strict=True))
    torch.testing.assert_close(torch.cat(pieces), whole, atol=1e-4, rtol=1e-4)


def test_few_tokens_and_none_are_one_chunk() -> None:
    method = teacher(pair(streaming=True)[1])
    for number, expected in ((9, [18]), (10, [14, 6]), (1, [2]), (0, [0])):
        found = list(stream(method, [0.0, 1.0]).mels(TARGET[:number]))
        assert [len(mel) for mel in found] == expected


def test_what_cannot_be_streamed_is_told() -> None:
    _, ours = pair(streaming=True)
    method = teacher(ours)
    with pytest.raises(ValueError, match=r"see all frames \(streaming: false\).*--set streaming=true"):
        stream(teacher(pair()[1]), [0.0, 1.0])
    cls = METHODS.get("teacher")
    with pytest.raises(ValueError, match="DiT makes no mel chunk by chunk"):
        stream(cls(cls.Config(), DiT(DiT.Config(dim=16, depth=1, heads=2))), [0.0, 1.0])
    with pytest.raises(ValueError, match="token 40 is none of the 40"):
        stream(method, [0.0, 1.0]).push([3, 40])
    ended = stream(method, [0.0, 1.0])
    ended.finish()
    with pytest.raises(ValueError, match="finished"):
        ended.push([1])
    with pytest.raises(TokenRateError, match="the prompt has 10 mel frames and 9 tokens"):
        MelStream(method, TARGET[:9], MEL, SPEAKER, make_grid("uniform", 1))
    with pytest.raises(ValueError, match="mel has 100, and the network takes 80 bands"):
        MelStream(method, PROMPT, numbers(10, 100), SPEAKER, make_grid("uniform", 1))
    with pytest.raises(ValueError, match="vector has 256, and the network takes 192"):
        MelStream(method, PROMPT, MEL, numbers(256), make_grid("uniform", 1))
    with pytest.raises(ValueError, match="20 frames are to be sampled, but the noise that was given has 19"):
        list(stream(method, [0.0, 1.0], fixed_noise(19)).mels(TARGET[:5]))


def test_more_than_the_network_takes_is_refused_before_it_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    method = teacher(pair(streaming=True)[1])
    monkeypatch.setattr(CosyVoice2Flow, "longest", 30)
    with pytest.raises(LengthError, match=r"prompt of 0\.8 s .* network takes 30 \(0\.6 s\): cut the prompt to 0\.6 s"):
        MelStream(method, tokens(20, 3), numbers(40, 80), SPEAKER, make_grid("uniform", 1))
    made = stream(method, [0.0, 1.0])
    assert len(made.push(TARGET[:10].tolist())) == 1
    with pytest.raises(LengthError, match="are 32 mel frames, but the network takes 30"):
        made.push(TARGET[10:].tolist())


def flow_of(**changes: Any) -> CosyVoice2Flow:
    """A flow that is quickly made, and never run."""
    return CosyVoice2Flow(SMALL.model_copy(update={"input_size": 32, **changes}))


@pytest.mark.parametrize("mine", [{"streaming": True}, {"streaming": False}])
def test_a_teacher_with_another_mask_is_refused(mine: dict[str, Any]) -> None:
    cls = METHODS.get("intmeanflow")
    other = teacher(flow_of(streaming=not mine["streaming"]))
    with pytest.raises(ValueError, match=r"student's frames see .* but its teacher's see .*same mask"):
        cls(cls.Config(), flow_of(**mine), other)
    network: Any = build_method("intmeanflow", {"teacher_nfe": 2}, other).network
    assert network.config.mask == other.network.config.mask  # type: ignore[union-attr]


def test_other_chunks_are_another_mask_only_where_there_are_chunks() -> None:
    cls = METHODS.get("intmeanflow")
    with pytest.raises(ValueError, match=r"chunks of 4 tokens.*chunks of 8 tokens"):
        cls(cls.Config(), flow_of(streaming=True), teacher(flow_of(streaming=True, chunk=8)))
    cls(cls.Config(), flow_of(), teacher(flow_of(chunk=8)))
    with pytest.raises(ValueError, match=r"another shape: its settings say chunk 4, not 8"):
        flow_of().start_from(flow_of(chunk=8))


def test_tokens_ahead_are_three_behind_rows_without_padding() -> None:
    _, ours = pair(streaming=True)
    c = lay_out(PROMPT, MEL, TARGET, SPEAKER)
    assert ours.encode(c, torch.ones(1, 3, dtype=torch.int64)).shape == (1, 48, 80)
    for ahead in (torch.ones(1, 2, dtype=torch.int64), torch.zeros(1, 3, dtype=torch.int64)):
        with pytest.raises(ValueError, match="looks 3 tokens ahead"):
            ours.encode(c, ahead)
