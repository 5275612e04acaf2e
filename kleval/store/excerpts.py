"""Excerpts of long prompts: the beginning, what stands around each needle, and the end.

A needle is where a reference stands in the prompt, with the sentence or line around it. Where a reference stands at many places it
marks none, unless the row says at which depth its answer is: then the nearest one counts. A reference that is nowhere in the prompt
as a whole (an answer with a prefix that was asked for) is looked for by its end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kleval.types import Prompt

WHOLE = 8192  # characters up to which a text is its own excerpt
END = 1024  # of the beginning and of the end
AROUND = 1024  # of a needle, itself included unless it is longer
MOST = 8  # needles of a prompt; a reference that stands at more places marks none
SHORTEST = 2  # characters of a reference that is looked for
TAIL = 60  # characters of a long reference that stand for it
SENTENCE = 160  # characters on either side of a reference in which its sentence is looked for
DEEPEST = 5000  # places of a reference among which the nearest to a depth is looked for

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Excerpt:
    """chars: of the whole text. parts: where each begins in it, and its text in runs, every second one a needle."""

    chars: int
    parts: tuple[tuple[int, tuple[str, ...]], ...]

    @property
    def whole(self) -> bool:
        return sum(len(run) for _, runs in self.parts for run in runs) == self.chars

    @property
    def json(self) -> str:
        """`[chars, parts]`, on one line."""
        return json.dumps([self.chars, self.parts], ensure_ascii=False, separators=(",", ":"))


def as_text(prompt: Prompt) -> str:
    """A prompt as one text: messages with their roles before them."""
    return prompt if isinstance(prompt, str) else "\n\n".join(f"[{m['role']}]\n{m['content']}" for m in prompt)


def excerpt(text: str, references: Sequence[str] = (), meta: Mapping[str, Any] | None = None) -> Excerpt:
    """Of a text: all of it up to WHOLE characters. meta: of the row, which may hold `depth_percent`, a number or several."""
    if len(text) <= WHOLE and not references:
        return Excerpt(len(text), ((0, (text,)),))
    found = needles(text, references, _depths(meta or {}))
    return Excerpt(len(text), tuple((begin, _runs(text, begin, end, found)) for begin, end in _windows(text, found)))


def needles(text: str, references: Sequence[str], depths: Sequence[float] = ()) -> list[Span]:
    """Where the references stand, each with its sentence or line, in order and apart."""
    spans: list[Span] = []
    for reference in dict.fromkeys(references):
        if len(reference.strip()) < SHORTEST:
            continue
        places = _places(text, reference, DEEPEST if depths else MOST + 1)
        if not places and len(reference) >= 2 * TAIL:
            reference = reference[-TAIL:]
            places = _places(text, reference, MOST + 1)
        if len(places) > MOST:
            scale = 100 / len(text)
            places = sorted({min(places, key=lambda at, d=depth: abs(at * scale - d)) for depth in depths})  # type: ignore[misc]
        spans += [_sentence(text, at, at + len(reference)) for at in places]
    return _merged(spans, 0)[:MOST]


def _places(text: str, reference: str, most: int) -> list[int]:
    """Where the reference begins in the text, not within a longer word; at most so many."""
    found: list[int] = []
    at = text.find(reference)
    while at >= 0 and len(found) < most:
        end = at + len(reference)
        inside = (at and text[at - 1].isalnum() and reference[0].isalnum()) or (
            end < len(text) and text[end].isalnum() and reference[-1].isalnum()
        )
        if not inside:
            found.append(at)
        at = text.find(reference, end)
    return found


def _sentence(text: str, begin: int, end: int) -> Span:
    before = text[max(0, begin - SENTENCE) : begin]
    after = text[end : end + SENTENCE]
    starts = [match.end() for match in re.finditer(r"\n|[.!?] ", before)]
    stop = re.search(r"\n|[.!?](?=\s|$)", after)
    first = begin - len(before) + starts[-1] if starts else begin if begin > SENTENCE else 0
    last = end + stop.start() + (stop.group() != "\n") if stop else end
    return first, last


def _windows(text: str, found: Sequence[Span]) -> list[Span]:
    """What is shown: all of a short text, else its beginning and end and AROUND characters around each needle."""
    n = len(text)
    if n <= WHOLE:
        return [(0, n)]
    windows = [(0, END), (n - END, n)]
    for begin, end in found:
        beside = max(AROUND // 4, (AROUND - (end - begin)) // 2)
        windows.append((max(0, begin - beside), min(n, min(end, begin + 2 * AROUND) + beside)))
    return _merged(windows, AROUND // 8)


def _merged(spans: Sequence[Span], gap: int) -> list[Span]:
    """In order, those that touch or leave no more than a gap between them as one."""
    found: list[Span] = []
    for begin, end in sorted(spans):
        if found and begin <= found[-1][1] + gap:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((begin, end))
    return found


def _runs(text: str, begin: int, end: int, found: Sequence[Span]) -> tuple[str, ...]:
    runs, at = [], begin
    for first, last in found:
        first, last = max(first, at), min(last, end)
        if first < last:
            runs += [text[at:first], text[first:last]]
            at = last
    return (*runs, text[at:end])


def _depths(meta: Mapping[str, Any]) -> list[float]:
    found = meta.get("depth_percent")
    numbers = found if isinstance(found, (list, tuple)) else [found]
    return [float(n) for n in numbers if isinstance(n, (int, float)) and not isinstance(n, bool)]
