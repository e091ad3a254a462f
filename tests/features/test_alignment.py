"""The alignment band: positions by hand, the way there and back, and what the conditions of text2mel may hold."""

from __future__ import annotations

import pytest
import torch

from imfbench.data import Example, join, make_text_condition, text_tokens
from imfbench.features.alignment import (
    BOUNDARY,
    SCALE,
    alignment_band,
    boundary_error,
    even_positions,
    phone_ends,
    positions,
)


def test_positions_by_hand() -> None:
    # phones of 2, 1 and 3 frames
    found = positions(torch.tensor([2.0, 3.0, 6.0]), 6)
    torch.testing.assert_close(found, torch.tensor([0.25, 0.75, 1.5, 2 + 1 / 6, 2.5, 2 + 5 / 6]))


def test_even_phones_have_a_band_of_zeros() -> None:
    ends = torch.tensor([5.0, 10.0, 15.0])
    torch.testing.assert_close(positions(ends, 15), even_positions(3, 15))
    assert alignment_band(ends, 15).abs().max() < 1e-5


def test_band_gives_the_boundaries_back() -> None:
    generator = torch.Generator().manual_seed(0)
    ends = phone_ends(torch.randint(1, 12, (40,), generator=generator).tolist(), 520)
    band = alignment_band(ends, 520)
    assert boundary_error(band, ends) < 0.6  # half a frame is what whole frames can say
    assert boundary_error(torch.zeros_like(band), ends) > 5
    assert boundary_error(band + SCALE, ends) > boundary_error(band, ends) + 5  # one phone off


def test_ends_are_in_frames_of_the_played_speed() -> None:
    # 40 units of 25 ms are a second: 86.13 frames, or at double speed half of it
    assert phone_ends([40, 40], 172).tolist() == pytest.approx([86.13, 172], abs=0.01)
    assert phone_ends([40, 40], 86, speed=2.0).tolist() == pytest.approx([43.07, 86], abs=0.01)


def example(name: str, phones: list[int], units: list[int], frames: int) -> Example:
    mel = torch.arange(frames * 3.0).view(frames, 3)
    return Example(name, "s", mel, torch.tensor(phones), phone_ends(units, frames))


def test_prompt_is_cut_at_phone_boundaries_and_its_band_is_unknown() -> None:
    prompt, target = example("p", [1, 2, 3, 4], [8, 8, 8, 8], 69), example("t", [5, 6], [10, 4], 30)
    mel, tokens, length = join(prompt, target, 20, 30)  # nearest boundaries: 17.2 and 51.7
    assert tokens[: tokens.count_nonzero()].tolist() == [2, 3, BOUNDARY, 5, 6]
    assert length == 52 - 17
    assert mel.shape == (length + 30, 4)
    assert torch.equal(mel[:length, :3], prompt.mel[17:52])
    assert mel[:length, 3].abs().max() == 0
    torch.testing.assert_close(mel[length:, 3:], alignment_band(target.ends, 30))  # type: ignore[arg-type]


def test_a_prompt_has_one_phone_at_least() -> None:
    prompt, target = example("p", [1, 2], [30, 30], 129), example("t", [5, 6], [10, 4], 30)
    assert join(prompt, target, 100, 5)[1][:3].tolist() == [2, BOUNDARY, 5]
    assert join(prompt, target, 124, 5)[1][:3].tolist() == [2, BOUNDARY, 5]


def test_condition_holds_phones_prompt_and_length_alone() -> None:
    mel = torch.randn(20, 3)
    c = make_text_condition(mel, torch.tensor([1, 2]), torch.tensor([3, 4, 5]), 30)
    assert c.tokens[0].tolist() == [1, 2, BOUNDARY, 3, 4, 5] + [0] * 44
    assert c.prompt.sum() == 20
    assert c.prompt_mel.shape == (1, 50, 4)
    assert torch.equal(c.prompt_mel[0, :20, :3], mel)
    assert c.prompt_mel[0, 20:].abs().max() == 0
    assert c.prompt_mel[..., 3].abs().max() == 0


def test_a_length_that_cannot_hold_the_text_is_refused() -> None:
    with pytest.raises(ValueError, match="6 phones do not fit into 5 mel frames"):
        text_tokens(torch.tensor([1, 2]), torch.tensor([3, 4, 5]), 5)
