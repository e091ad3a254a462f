"""Which words were heard otherwise: the edits behind a WER, word by word."""

from __future__ import annotations

from typing import Any

import jiwer

Edit = tuple[str, str, str]
"""What happened ("ok", "sub", "del" or "ins"), the word that was to be said, and the word that was heard; "" for none."""


def edits(reference: Any, hypothesis: Any) -> list[Edit]:
    """The edits that turn a normalised reference into a normalised hypothesis, in order; empty without both texts.

    Args:
        reference: ``reference_normalised`` of an utterance.
        hypothesis: Its ``hypothesis_normalised``; empty is a text of which nothing was heard.
    """
    if not isinstance(reference, str) or not isinstance(hypothesis, str) or not reference.strip():
        return []
    made = jiwer.process_words(reference, hypothesis)
    said, heard = made.references[0], made.hypotheses[0]
    found: list[Edit] = []
    for chunk in made.alignments[0]:
        left = said[chunk.ref_start_idx : chunk.ref_end_idx]
        right = heard[chunk.hyp_start_idx : chunk.hyp_end_idx]
        if chunk.type == "equal":
            found += [("ok", word, word) for word in left]
        elif chunk.type == "substitute":
            found += [("sub", a, b) for a, b in zip(left, right, strict=True)]
        elif chunk.type == "delete":
            found += [("del", word, "") for word in left]
        else:
            found += [("ins", "", word) for word in right]
    return found
