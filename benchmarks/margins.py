"""How often "not worse by the margin" is said of word error rates that are worse by the margin, and of equal ones.

    .venv/bin/python benchmarks/margins.py

Utterances have eight to twelve words. The baseline gets words wrong at a rate of 2 %; the system under test loses more: single
words, half an utterance at a time, or whole utterances, which few-step synthesis does. "Level" is the share of test sets of
which the loss of the margin is ruled out at .05 although it is there: 5 % is right. "Power" is the same where both systems are
alike. In brackets stands what Student's test alone would say.
"""

from __future__ import annotations

import argparse

import numpy as np

from imfbench.metrics import rare_losses, stats

RATE = 0.02
KINDS = {"single words": "words", "halves": "halves", "whole utterances": "utterances"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=200, help="test sets drawn for each share")
    parser.add_argument("--sizes", default="10,30,48,172,1000", help="utterances of a test set")
    parser.add_argument("--margins", default="0.02,0.05")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    generator = np.random.default_rng(arguments.seed)
    print("| margin | utterances | " + " | ".join(f"level: {kind}" for kind in KINDS) + " | power |")
    print("| --- " * (3 + len(KINDS)) + "|")
    for margin in map(float, arguments.margins.split(",")):
        for n in map(int, arguments.sizes.split(",")):
            shares = [shown(kind, n, margin, margin, arguments.times, generator) for kind in KINDS.values()]
            shares.append(shown("words", n, margin, 0.0, arguments.times, generator))
            told = [f"{100 * rule:.0f} % ({100 * student:.0f} %)" for rule, student in shares]
            print(f"| {100 * margin:g} points | {n} | {' | '.join(told)} |", flush=True)


def shown(
    kind: str, n: int, margin: float, loss: float, times: int, generator: np.random.Generator
) -> tuple[float, float]:
    """Shares of test sets of which the loss is ruled out: by the rule, and by Student's test alone."""
    counts = np.zeros(2)
    for _ in range(times):
        a, b, words = errors(kind, n, loss, generator)
        first, second = a / words.mean(), b / words.mean()
        for i, lost in enumerate((rare_losses.LOST, None)):
            found = stats.non_inferior(first, second, margin, higher_is_better=False, alpha=0.05, lost=lost)
            counts[i] += found.holds
    rule, student = counts / times
    return float(rule), float(student)


def errors(kind: str, n: int, loss: float, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Edits of the system and of the baseline, and the words of each utterance; the system loses ``loss`` of them more."""
    words = generator.integers(8, 13, n)
    baseline, own = generator.binomial(words, RATE), generator.binomial(words, RATE)
    if kind == "words":
        return own + generator.poisson(loss * words), baseline, words
    if kind == "halves":
        half = (words + generator.integers(0, 2, n)) // 2
        return own + np.where(generator.random(n) < 2 * loss, half, 0), baseline, words
    return np.where(generator.random(n) < loss / (1 - RATE), words, own), baseline, words


if __name__ == "__main__":
    main()
