"""Variable tracking: name all variables of an assignment chain hidden in noise, after one solved demonstration.

Source: NVIDIA/RULER @ c3f5e3b, scripts/data/synthetic/variable_tracking.py. The demonstration is made once (three-letter
names, value 12345, up to 500 tokens) and gets fresh names and a fresh value in every sample.
"""

from __future__ import annotations

import string
from dataclasses import replace
from itertools import pairwise

from kleval.tasks.draws import Draws
from kleval.tasks.ruler.spec import NOISE, TEXTS, Draft

TEMPLATE, PREFIX = TEXTS["vt"]
HOPS = 4
DEMO_VALUE = "12345"
DEMO_TOKENS = 500
DEMO_STEP = 5


def chain_names(draws: Draws, letters: int) -> list[str]:
    """HOPS + 1 names. More are appended until that many are distinct; the surplus makes the official code fail."""

    def name() -> str:
        return "".join(draws.rng.choices(string.ascii_uppercase, k=letters))

    names = [name() for _ in range(HOPS + 1)]
    while len(set(names)) < HOPS + 1:
        names.append(name())
    if len(names) > HOPS + 1:
        raise IndexError("a second chain without enough names")
    return names


def chain(draws: Draws, letters: int, value: str | None = None) -> tuple[list[str], str, list[str]]:
    """Names, the value and the assignments of a chain. value: drawn if there is none."""
    names = chain_names(draws, letters)
    value = value or str(draws.numbers.randint(10000, 99999))
    return names, value, [f"VAR {names[0]} = {value}", *(f"VAR {b} = VAR {a} " for a, b in pairwise(names))]


def hide(draws: Draws, assignments: list[str], lines: list[str]) -> None:
    """Insert the assignments among the lines, in their order."""
    for shift, place in enumerate(sorted(draws.rng.sample(range(len(lines)), len(assignments)))):
        lines.insert(place + shift, assignments[shift])


def _question(draws: Draws, size: int, letters: int, given: str | None) -> Draft:
    names, value, assignments = chain(draws, letters, given)
    lines = [NOISE] * size
    hide(draws, assignments, lines)
    context = "\n".join(lines).replace(". \n", ".\n")
    depths = [round(100 * lines.index(c) / len(lines), 1) for c in assignments]
    return Draft(
        TEMPLATE.format(context=context, value=value),
        PREFIX.format(count=HOPS + 1, value=value),
        tuple(names),
        {"size": size, "unit": "lines", "depth_percent": depths},
    )


def demonstration(draws: Draws, size: int, index: int = 0) -> Draft:
    """A short question to be shown with its answer."""
    return _question(draws, size, 3, DEMO_VALUE)


def solved(demo: Draft) -> str:
    """The demonstration as it is shown, names and value not yet replaced."""
    return f"{demo.input}{demo.prefix} {' '.join(demo.answers)}\n"


def renamed(demo: str, draws: Draws) -> str:
    """The demonstration with fresh names, drawn one by one."""
    for name in demo.strip().split()[-HOPS - 1 :]:
        demo = demo.replace(name, "".join(draws.rng.choices(string.ascii_uppercase, k=len(name))))
    return demo


def question(draws: Draws, size: int, index: int = 0) -> Draft:
    """The question alone, among `size` lines of noise: what the official length search measures."""
    return _question(draws, size, 5, None)


def draft(demo: str, draws: Draws, size: int, index: int = 0) -> Draft:
    """The question after a demonstration, as `solved` gives it."""
    asked = question(draws, size)
    demo = renamed(demo, draws).replace(DEMO_VALUE, str(draws.numbers.randint(10000, 99999)))
    return replace(asked, input=f"{demo}\n{asked.input}")
