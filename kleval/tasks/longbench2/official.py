"""Prompts of LongBench v2 (`prompts.toml`), the cut out of their middle, the letter in an answer, and the table of a run, as official.

Source: THUDM/LongBench @ 2e00731, pred.py and result.py. Markers are replaced one after another, so that a marker inside a document
or a question is replaced as well: kept, as the official numbers have it. In an answer the form in brackets wins over an earlier bare
letter; a word that begins with A, B, C or D counts as that letter; nothing but these two forms is understood.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kleval.tasks import packaged
from kleval.tasks.fitting import longest
from kleval.tokenization import Rendered
from kleval.types import Tokenizer

ZERO_SHOT, COT, COT_ANSWER = packaged.load("longbench2/prompts.toml").values()
LETTERS = ("A", "B", "C", "D")
_MARKERS = ("$DOC$", "$Q$", *(f"$C_{letter}$" for letter in LETTERS))
_BRACKETS = re.compile(r"The correct answer is \(([A-D])\)")
_BARE = re.compile(r"The correct answer is ([A-D])")
_COMPENSATION = 0.25
_SEGMENT_CHARS = 4096


def filled(template: str, context: str, question: str, choices: Sequence[str]) -> str:
    """The template with document, question and choices A to D, each without white space around. `$COT$` stays."""
    for marker, value in zip(_MARKERS, (context, question, *choices), strict=True):
        template = template.replace(marker, value.strip())
    return template


def after_document(template: str, context: str, question: str, choices: Sequence[str]) -> str:
    """What the prompt holds behind its document."""
    return filled(template.partition("$DOC$")[2], context, question, choices)


def with_reasoning(answer_template: str, reasoning: str) -> str:
    """The second prompt of chain of thought: `filled` of COT_ANSWER, and what the model said to the first."""
    return answer_template.replace("$COT$", reasoning.strip())


def truncated_ids(ids: Sequence[int], max_len: int) -> list[int]:
    """The first and the last half of max_len tokens, the last one longer where max_len is odd; all of them for 0."""
    if len(ids) <= max_len:
        return list(ids)
    return [*ids[: max_len // 2], *ids[-max_len // 2 :]]


def truncated(tokenizer: Tokenizer, text: str, max_len: int) -> tuple[str, int]:
    """The text without its middle, and how many tokens that takes away; max_len >= 1.

    Official: decode the ids that are kept. Deviation: with a tokenizer that cannot give the text back, the text is cut
    at the characters where those ids begin and end.
    """
    # The official `tokenizer.encode` adds the begin token, `skip_special_tokens` takes it off again.
    begin: str = getattr(tokenizer, "begin", "")
    ids = tokenizer.encode(Rendered.of(begin, text))
    if len(ids) <= max_len:
        return text, 0
    if tokenizer.decode(ids) == begin + text:
        return tokenizer.decode(truncated_ids(ids, max_len)).removeprefix(begin), len(ids) - max_len
    head = max_len // 2
    end = len(text) - _chars(tokenizer, text, max_len - head, at_end=True)
    return text[: _chars(tokenizer, text, head)] + text[end:], len(ids) - max_len


def _chars(tokenizer: Tokenizer, text: str, tokens: int, at_end: bool = False) -> int:
    """About how long its longest beginning, or end, of at most that many tokens is, counted segment by segment."""
    taken = 0

    def count(n: int) -> int:
        """Tokens of the n characters that follow those taken."""
        at = len(text) - taken - n if at_end else taken
        return tokenizer.count(text[at : at + n])

    while taken < len(text):
        segment = min(_SEGMENT_CHARS, len(text) - taken)
        counted = count(segment)
        if counted > tokens:
            return taken + longest(count, tokens, segment)
        tokens -= counted
        taken += segment
    return taken


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
