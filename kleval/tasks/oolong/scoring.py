"""Scores of OOLONG's two halves: what is read out of an answer, and what it is worth.

Source: abertsch72/oolong @ adbf1cb, src/eval/eval_helpers.py.

synth: what stands behind the last colon; right to the letter, a number the less the farther it is from the right one, a date in any
form. real: what stands in `\\boxed{}`; numbers likewise, a list by how many of the right ones are in it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from datetime import datetime

Gold = str | int | datetime
Parsed = str | int | list[str]

CLOSE = 0.75  # the worth of a number, once for every step it is away from the right one
COMPARISONS = ("more common", "less common", "same frequency")
NUMERIC, DATE = "ANSWER_TYPE.NUMERIC", "ANSWER_TYPE.DATE"
_SHORT = 20
_BOXED = (re.compile(r"\\boxed\{\\text\{([^}]*)\}\}"), re.compile(r"\\boxed[\{]+([^}]*)[}]+"))
_DAYS = (datetime(2001, 1, 1), datetime(2002, 2, 2))


def synth_gold(written: str) -> Gold:
    """The right answer as a row has it, a list of Python values of which the first counts. ValueError where it is none."""
    if "datetime" in written:
        return datetime.strptime(written, "[datetime.date(%Y, %m, %d)]")
    try:
        found = ast.literal_eval(written)[0]
    except (SyntaxError, TypeError, LookupError, MemoryError, RecursionError) as error:
        raise ValueError(f"{written[:40]!r} is no list of answers") from error
    return found if isinstance(found, int) else str(found)


def synth_extract(answer: str) -> str:
    """Behind the last colon, without asterisks and square brackets; without one a short answer, or the last word."""
    if ":" not in answer:
        return answer if len(answer) < _SHORT else (answer.split() or [""])[-1]
    found = answer.split(":")[-1].strip().translate({ord(mark): None for mark in "*[]"})
    said = [phrase for phrase in COMPARISONS if phrase in found]
    return said[0] if said and len(found) >= _SHORT else found


def synth_score(found: str, gold: Gold, kind: str) -> float:
    if found == str(gold):
        return 1.0
    if found in COMPARISONS:
        return float(found in str(gold))
    if kind == NUMERIC:
        return _number(lambda: abs(int(str(gold)) - int(found)))
    return float(kind == DATE and isinstance(gold, datetime) and _names(found, gold))


def _names(text: str, gold: datetime) -> bool:
    """Whether it is that date. Officially what a date leaves out is today's; here such a date is none, whatever the day."""
    from dateutil import parser

    try:
        return {parser.parse(text, default=day) for day in _DAYS} == {gold}
    except (ValueError, OverflowError, TypeError):  # TypeError: compared or made with a time zone
        return False


def _number(away: Callable[[], int]) -> float:
    try:
        return float(CLOSE ** away())
    except (ValueError, OverflowError):  # no number, or one that is too far away to be computed
        return 0.0


def real_parsed(written: str) -> Parsed:
    """A number, else a list where there are commas, else a text."""
    try:
        return int(written)
    except ValueError:
        items = [item.strip() for item in written.split(",") if item.strip()]
        return items if "," in written else written


def real_extract(answer: str) -> Parsed:
    """What the box holds; without one the answer as a text."""
    found = next((match for form in _BOXED if (match := form.search(answer))), None)
    return real_parsed(found[1]) if found else answer


def real_score(found: Parsed, gold: Parsed) -> float:
    if isinstance(gold, int) and isinstance(found, int):
        return _number(lambda: abs(gold - found))
    if isinstance(gold, str) and isinstance(found, str):
        return float(gold.strip().lower() == found.strip().lower())
    if isinstance(gold, list) and isinstance(found, list):
        return len(set(gold) & set(found)) / len(gold) if gold else 0.0
    return 0.0
