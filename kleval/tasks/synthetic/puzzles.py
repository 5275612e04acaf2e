"""Puzzles of the three tests: an endless row of items drawn at random, and the question about the first n of them.

What the paper does not state is chosen here: 26 letters; keys of five digits and values of three; 64 stacks as there, half of the
lines pops where something can be popped. Of a palindrome everything is asked for, as there; of pairs and stacks, where a trained
model is asked at every position, at most ASKED.
"""

from __future__ import annotations

import random
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

PUZZLES_VERSION = "puzzles-1"
ASKED = 16
STACKS = 64
_KEYS, _VALUES = range(10_000, 100_000), range(100, 1000)


@dataclass(frozen=True, slots=True)
class Asked:
    """message: instructions, items and question. prefix: how the answer begins. answers: in their order. depths: percent of the items
    that stand before each of them, where they stand at one place."""

    message: str
    prefix: str
    answers: tuple[str, ...]
    depths: tuple[float, ...] = ()


class Puzzle(Protocol):
    """head: what stands before the items. asks: how what stands behind them begins. joins: what is between answers."""

    head: str
    asks: str
    joins: str

    def items(self, rng: random.Random) -> Iterator[str]: ...

    def ask(self, items: Sequence[str], seed: int) -> Asked:
        """The question about these items. seed: of what is asked for."""
        ...


class Palindrome:
    head = "Read these letters and write them backwards, separated by spaces, and nothing else."
    asks, joins = "", " "

    def items(self, rng: random.Random) -> Iterator[str]:
        while True:
            yield rng.choice(string.ascii_lowercase)

    def ask(self, items: Sequence[str], seed: int) -> Asked:
        return Asked(f"{self.head}\n\n{' '.join(items)}", "Backwards:", tuple(reversed(items)))


class Mqar:
    head = "Each line has a key and its value. Read them: some keys will be asked for."
    asks, joins = "\n\nWrite the values of the keys ", ", "

    def items(self, rng: random.Random) -> Iterator[str]:
        """Lines, until the keys are used up."""
        used: set[int] = set()
        while len(used) < len(_KEYS):
            key = rng.choice(_KEYS)
            if key not in used:
                used.add(key)
                yield f"{key}: {rng.choice(_VALUES)}"

    def ask(self, items: Sequence[str], seed: int) -> Asked:
        places = random.Random(seed).sample(range(len(items)), min(ASKED, len(items)))
        keys, values = zip(*(items[i].split(": ") for i in places), strict=True) if places else ((), ())
        question = f"{self.asks}{', '.join(keys)}, in this order, separated by commas, and nothing else."
        depths = tuple(round(100 * i / len(items), 1) for i in places)
        return Asked("\n".join((self.head, "", *items)) + question, "Values:", values, depths)


class Stack:
    head = (
        f"There are {STACKS} stacks, all of them empty. `push 7 a` puts the letter a on top of stack 7, `pop 7 a` takes it off"
        " again. Read what is done: then some more is taken off."
    )
    asks, joins = "\n\nNow one letter is taken off each of the stacks ", " "

    def items(self, rng: random.Random) -> Iterator[str]:
        held: list[list[str]] = [[] for _ in range(STACKS)]
        while True:
            full = [i for i in range(STACKS) if held[i]]
            if full and rng.random() < 0.5:
                i = rng.choice(full)
                yield f"pop {i + 1} {held[i].pop()}"
            else:
                i = rng.randrange(STACKS)
                held[i].append(rng.choice(string.ascii_lowercase))
                yield f"push {i + 1} {held[i][-1]}"

    def ask(self, items: Sequence[str], seed: int) -> Asked:
        held: list[list[tuple[str, int]]] = [[] for _ in range(STACKS)]
        for at, line in enumerate(items):
            verb, stack, letter = line.split()
            own = held[int(stack) - 1]
            if verb == "push":
                own.append((letter, at))
            else:
                own.pop()
        rng = random.Random(seed)
        pops, answers, depths = list[str](), list[str](), list[float]()
        while len(answers) < ASKED and (full := [i for i in range(STACKS) if held[i]]):
            i = rng.choice(full)
            letter, at = held[i].pop()
            pops.append(str(i + 1))
            answers.append(letter)
            depths.append(round(100 * at / len(items), 1))
        question = (
            f"{self.asks}{', '.join(pops)}, in this order. Write these letters, separated by spaces, and nothing else."
        )
        return Asked("\n".join((self.head, "", *items)) + question, "Letters:", tuple(answers), tuple(depths))


PUZZLES: dict[str, Puzzle] = {"palindrome": Palindrome(), "mqar": Mqar(), "stack": Stack()}
