"""Extraction of the letter that an answer chooses, and the official table of a run.

Source: THUDM/LongBench @ 2e00731, extract_answer of pred.py and result.py. The form in brackets wins over an earlier bare
letter; a word that begins with A, B, C or D counts as that letter; nothing but these two forms is understood.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

LETTERS = ("A", "B", "C", "D")
_BRACKETS = re.compile(r"The correct answer is \(([A-D])\)")
_BARE = re.compile(r"The correct answer is ([A-D])")
_COMPENSATION = 0.25


@dataclass(frozen=True, slots=True)
class Judged:
    """answer: the right letter. response: what the model said in the last call, None where that or an earlier is empty."""

    difficulty: str
    length: str
    answer: str
    response: str | None


def extract(response: str) -> str | None:
    """The letter, None where the answer has none of the two forms."""
    plain = response.replace("*", "")
    found = _BRACKETS.search(plain) or _BARE.search(plain)
    return found.group(1) if found else None


def official_table(judged: Iterable[Judged], compensated: bool = False) -> dict[str, float]:
    """Overall, Easy, Hard, Short, Medium, Long in percent, rounded to one decimal as result.py prints them.

    Empty responses are left out, as there. compensated: a reply without a letter counts as 0.25. NaN for a part without
    rows, where the official script divides by zero.
    """
    points: dict[str, list[float]] = {name: [] for name in ("Overall", "Easy", "Hard", "Short", "Medium", "Long")}
    for one in judged:
        if one.response is None or one.response == "":
            continue
        letter = extract(one.response.strip())
        point = _COMPENSATION if compensated and letter is None else float(letter == one.answer)
        for name in ("Overall", "Easy" if one.difficulty == "easy" else "Hard", one.length.capitalize()):
            points[name].append(point)
    return {
        name: round(100 * math.fsum(values) / len(values), 1) if values else math.nan for name, values in points.items()
    }
