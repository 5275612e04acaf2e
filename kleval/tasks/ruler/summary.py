"""What RULER's README makes of a model's scores: effective length and averages over lengths.

There is no official code for either. The README's rule, checked against its table (reference Llama-2-7B-chat at 4K =
85.6): the effective length is the longest one such that it and every shorter one reach the threshold.
"""

from __future__ import annotations

from collections.abc import Mapping

THRESHOLD = 85.6


def effective_length(scores: Mapping[int, float], threshold: float = THRESHOLD) -> int | None:
    """scores: length in tokens -> average score in percent. None when the shortest length already falls short."""
    reached = None
    for length in sorted(scores):
        if not scores[length] >= threshold:
            break
        reached = length
    return reached


def weighted_averages(scores: Mapping[int, float]) -> tuple[float, float]:
    """wAvg(inc) and wAvg(dec): weights 1, 2, … n rising and falling from the shortest length to the longest."""
    if not scores:
        raise ValueError("no scores to average")
    values = [scores[length] for length in sorted(scores)]
    n = len(values)
    total = n * (n + 1) / 2
    rising = sum(w * v for w, v in enumerate(values, 1)) / total
    falling = sum((n + 1 - w) * v for w, v in enumerate(values, 1)) / total
    return rising, falling
