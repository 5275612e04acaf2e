"""Random states: those that one sample, or a stream of them, draws from.

RULER's official scripts seed Python's and numpy's global states once and draw everything from them, except that each
shuffle gets a fresh state with the same seed. `Draws` holds private copies of the three.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, MutableSequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


class Draws:
    """rng: Python's state. numbers: numpy's legacy state. shuffle: by a fresh state of `seed`, as the scripts do."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = random.Random(seed)

    @cached_property
    def numbers(self) -> np.random.RandomState:
        import numpy as np

        return np.random.RandomState(self.seed % 2**32)

    def shuffle(self, items: MutableSequence[Any]) -> None:
        random.Random(self.seed).shuffle(items)


def own_draws(*parts: object) -> Draws:
    """Draws of one sample alone: seeded by sha256 over what the sample is, so that no other sample matters."""
    digest = hashlib.sha256("|".join(str(p) for p in parts).encode()).digest()
    return Draws(int.from_bytes(digest[:8], "big"))


def distinct(draw: Callable[[], str], n: int) -> tuple[str, ...]:
    """n different ones, in the order in which they were drawn."""
    found: dict[str, None] = {}
    while len(found) < n:
        found[draw()] = None
    return tuple(found)
