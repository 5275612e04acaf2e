"""Random choice of an item's examples and of its labels' numbers: HELMET's `load_icl`, random state for random state.

princeton-nlp/HELMET @ 4526dfb, `data.py:load_icl`. Per test item a seed from the sha256 of its text; with it a state that
draws the examples, balanced over labels, and another that shuffles the numbers. `Dataset.shuffle` and `train_test_split`
of the package datasets are a permutation by numpy's default generator.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

TEST_ITEMS = 500
TEST_SHARE = 0.1
INSTRUCTION = (
    "Use the provided mapping from the text to label to assign a label to the text."
    ' Only output "label: {label}" and nothing else. '
)
ANSWER_PREFIX = "label:"


@dataclass(frozen=True, slots=True)
class Item:
    """label: its number."""

    text: str
    label: int


@dataclass(frozen=True, slots=True)
class Pool:
    """Items to draw from. by_label: positions of each label's items, labels in the order in which they first come."""

    items: tuple[Item, ...] = field(repr=False)
    by_label: dict[int, list[int]] = field(repr=False)

    @classmethod
    def of(cls, items: Sequence[Item]) -> Pool:
        by_label: dict[int, list[int]] = {}
        for position, item in enumerate(items):
            by_label.setdefault(item.label, []).append(position)
        return cls(tuple(items), by_label)

    def balanced(self, n: int, seed: int) -> list[Item]:
        """n items in rounds: each round has one of every label, in random order; the last round may be cut short.

        No item comes twice before all of its label have come.
        """
        rng = random.Random(seed)
        n_rounds = math.ceil(n / len(self.by_label))
        rounds: list[list[Item]] = [[] for _ in range(n_rounds)]
        for positions in self.by_label.values():
            drawn = rng.sample(range(len(positions)), n_rounds % len(positions))
            while len(drawn) < n_rounds:
                drawn += rng.sample(range(len(positions)), min(n_rounds - len(drawn), len(positions)))
            for which, one in zip(rounds, drawn, strict=True):
                which.append(self.items[positions[one]])
        for which in rounds:
            rng.shuffle(which)
        return [item for which in rounds for item in which][:n]


def item_seed(text: str, seed: int) -> int:
    """31 bits from the item's text and the run's seed."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return (int(digest, 16) + seed) % 2**31


def label_numbers(n_labels: int, seed: int) -> list[int]:
    """Label -> the number that stands for it."""
    numbers = list(range(n_labels))
    random.Random(seed).shuffle(numbers)
    return numbers


def permutation(n: int, seed: int) -> list[int]:
    import numpy as np

    return [int(position) for position in np.random.default_rng(seed).permutation(n)]


def chosen_items(items: Sequence[Item], seed: int, n: int = TEST_ITEMS) -> tuple[Item, ...]:
    """All of them, or n balanced over labels where there are more."""
    if len(items) <= n:
        return tuple(items)
    return tuple(Pool.of([items[position] for position in permutation(len(items), seed)]).balanced(n, seed))


def split(items: Sequence[Item], seed: int) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """(train, test) of data that come without a split: a tenth, rounded up, is for testing."""
    order = permutation(len(items), seed)
    n_test = math.ceil(TEST_SHARE * len(items))
    return tuple(items[i] for i in order[n_test:]), tuple(items[i] for i in order[:n_test])


def example(text: str, number: int) -> str:
    return f"{text}\nlabel: {number}"


def user_message(context: str, question: str) -> str:
    return f"{INSTRUCTION}\n\n{context}\n\n{question}"
