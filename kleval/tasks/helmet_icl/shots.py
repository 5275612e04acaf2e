"""Number of examples at a length (HELMET @ 4526dfb, configs/icl.yaml, icl_short.yaml).

The table has six lengths. Rule of kleval for all others: between two of them in proportion to the length (linear, rounded
down), below the first and above the last as many per token as there, at least one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

LENGTHS = (4096, 8192, 16384, 32768, 65536, 131072)

SHOTS: dict[str, tuple[int, ...]] = {
    "trec_coarse": (200, 400, 800, 1600, 3300, 6600),
    "trec_fine": (200, 400, 800, 1600, 3200, 6400),
    "banking77": (180, 360, 720, 1450, 2900, 5900),
    "clinic150": (220, 440, 880, 1750, 3525, 7050),
    "nlu": (250, 510, 1020, 2040, 4080, 8296),
}

Rule = Literal["table", "interpolated", "extrapolated"]


def shots_at(dataset: str, ctx: int) -> tuple[int, Rule]:
    """(number of examples, where it is from)."""
    table = SHOTS[dataset]
    if ctx in LENGTHS:
        return table[LENGTHS.index(ctx)], "table"
    if ctx < LENGTHS[0]:
        return max(1, ctx * table[0] // LENGTHS[0]), "extrapolated"
    if ctx > LENGTHS[-1]:
        return ctx * table[-1] // LENGTHS[-1], "extrapolated"
    return _between(ctx, LENGTHS, table), "interpolated"


def _between(ctx: int, lengths: Sequence[int], table: Sequence[int]) -> int:
    above = next(i for i, length in enumerate(lengths) if length > ctx)
    low, high = lengths[above - 1], lengths[above]
    return table[above - 1] + (ctx - low) * (table[above] - table[above - 1]) // (high - low)
