"""Number of examples at a length (HELMET @ 4526dfb, configs/icl.yaml, icl_short.yaml).

The table (`tables.toml`) has six lengths. Rule of kleval for all others: between two of them in proportion to the length
(linear, rounded down), below the first and above the last as many per token as there, at least one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from kleval.tasks import packaged

_TABLES = packaged.load("helmet_icl/tables.toml")
LENGTHS: tuple[int, ...] = tuple(_TABLES["lengths"])
SHOTS: dict[str, tuple[int, ...]] = {name: tuple(facts["shots"]) for name, facts in _TABLES["tasks"].items()}

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
