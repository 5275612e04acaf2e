"""Small reasoning problems that are computed: the shape of BIG-Bench Hard with worked examples."""

from __future__ import annotations

import random
from collections.abc import Callable

from kleval.tasks.short.question import Item, Items

BBH_SHOTS = 3
_ASKED = 4
DESCRIPTIONS = {
    "boolean_expressions": "Work out the value of a Boolean expression.",
    "object_counting": "Count the things of one kind in a list.",
    "word_sorting": "Sort a list of words alphabetically.",
}
_PIECES = ("True", "False", "not True", "not False")
_FRUIT = ("apple", "banana", "pear", "plum", "orange", "peach")
_TOOLS = ("hammer", "saw", "drill", "wrench")
_WORDS = ("river", "amber", "stone", "field", "cloud", "lemon", "tiger", "ocean", "maple", "candle", "yellow", "basket")


def _boolean(rng: random.Random) -> tuple[str, str]:
    first, second, third = (rng.choice(_PIECES) for _ in range(3))
    inner, outer = rng.choice(("and", "or")), rng.choice(("and", "or"))
    a, b, c = (_PIECES.index(piece) in (0, 3) for piece in (first, second, third))
    bracket = (a and b) if inner == "and" else (a or b)
    value = (bracket and c) if outer == "and" else (bracket or c)
    asked = f"( {first} {inner} {second} ) {outer} {third} is"
    return (
        asked,
        f"The bracket is {a} {inner} {b} = {bracket}. Then {bracket} {outer} {c} = {value}. So the answer is {value}.",
    )


def _counting(rng: random.Random) -> tuple[str, str]:
    fruit, tools = rng.sample(_FRUIT, rng.randint(2, 4)), rng.sample(_TOOLS, rng.randint(1, 3))
    things = [f"{'an' if thing[0] in 'ao' else 'a'} {thing}" for thing in rng.sample(fruit + tools, len(fruit + tools))]
    listed = ", ".join(things[:-1]) + f" and {things[-1]}"
    return (
        f"I have {listed}. How many fruits do I have?",
        f"The fruits are {', '.join(fruit)}. That makes {len(fruit)}. So the answer is {len(fruit)}.",
    )


def _sorting(rng: random.Random) -> tuple[str, str]:
    words = rng.sample(_WORDS, 4)
    ordered = sorted(words)
    letters = ", ".join(f"{word} begins with {word[0]}" for word in words)
    return f"Sort these words: {' '.join(words)}", f"{letters}. So the answer is {' '.join(ordered)}."


_KINDS: dict[str, Callable[[random.Random], tuple[str, str]]] = {
    "boolean_expressions": _boolean,
    "object_counting": _counting,
    "word_sorting": _sorting,
}


def hard() -> Items:
    """Shots and items, the subtasks in turn."""
    drawn = {kind: _drawn(kind, BBH_SHOTS + _ASKED) for kind in _KINDS}
    shots = [item for made in drawn.values() for item in made[:BBH_SHOTS]]
    asked = [item for row in zip(*(made[BBH_SHOTS:] for made in drawn.values()), strict=True) for item in row]
    return tuple(shots), tuple(asked)


def _drawn(kind: str, n: int) -> list[Item]:
    rng = random.Random(f"kleval-short-1/bbh/{kind}")
    made: dict[str, Item] = {}
    while len(made) < n:
        question, reason = _KINDS[kind](rng)
        answer = reason.rpartition("the answer is ")[2].removesuffix(".")
        text = f"Q: {question}\nA: Let's think step by step.\n"
        made.setdefault(text, Item(text, reason, (answer,), kind))
    return list(made.values())
