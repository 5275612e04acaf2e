"""Needle in a haystack: eight of the 13 tasks.

Source: NVIDIA/RULER @ c3f5e3b, scripts/data/synthetic/niah.py: what is drawn, in which order, and every text.
Needles (key, value) lie among noise lines, other needles or sentences of prose; the values of some keys are asked for.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import NamedTuple

from kleval.tasks.draws import Draws
from kleval.tasks.ruler.spec import NEEDLE, NOISE, Draft, Needles
from kleval.tasks.ruler.words import pairs

# 40 depths from 0 to 100 percent, rounded to whole ones.
DEPTHS = tuple(round(i * 100 / 39) for i in range(40))


class Prose(NamedTuple):
    """sentences: of a size. unit: what it counts."""

    sentences: Callable[[int], list[str]]
    unit: str = "sentences"


def _draw(kind: str, draws: Draws) -> str:
    if kind == "numbers":
        return str(draws.rng.randint(10**6, 10**7 - 1))
    if kind == "words":
        return draws.rng.choice(pairs())
    return str(uuid.UUID(int=draws.rng.getrandbits(128), version=4))


def _between_sentences(sentences: list[str], needles: Sequence[str], draws: Draws) -> str:
    places = sorted(int(len(sentences) * (d / 100)) for d in draws.rng.sample(DEPTHS, len(needles)))
    parts: list[str] = []
    last = 0
    for place, needle in zip(places, needles, strict=True):
        parts += [" ".join(sentences[last:place]), needle]
        last = place
    return " ".join([*parts, " ".join(sentences[last:])])


def _between_lines(lines: list[str], needles: Sequence[str], draws: Draws) -> str:
    places = sorted(draws.rng.sample(range(len(lines)), len(needles)), reverse=True)
    # From the back, so that earlier places stay what they are; needles of a lower index end up further down.
    for place, needle in zip(places, needles, strict=True):
        lines.insert(place, needle)
    return "\n".join(lines)


def step(needles: Needles, ctx: int) -> int:
    """By how much a sample that is too long is made smaller."""
    if needles.haystack == "essay":
        return 500
    return 5 if ctx < 4096 else 25


def draft(n: Needles, prose: Prose | None, draws: Draws, size: int, index: int = 0) -> Draft:
    """size: words of essays, sentences of prose, lines of noise or needles. prose: what the needles lie among, if it is that."""

    def needle(key: str, value: str) -> str:
        return NEEDLE.format(kind=n.value_type, key=key, value=value)

    told: list[tuple[str, list[str]]] = []
    for _ in range(n.keys):
        key = _draw(n.key_type, draws)
        told.append((key, [_draw(n.value_type, draws) for _ in range(n.values)]))
    hidden = [needle(key, value) for key, values in told for value in values]
    draws.shuffle(hidden)

    if prose is not None:
        context = _between_sentences(prose.sentences(size), hidden, draws)
    elif n.haystack == "noise":
        context = _between_lines([NOISE] * size, hidden, draws)
    else:
        lines = [needle(_draw(n.key_type, draws), _draw(n.value_type, draws)) for _ in range(size)]
        context = _between_lines(lines, hidden, draws)

    asked = draws.rng.sample(told, n.queries)
    *others, last = [key for key, _ in asked]
    query = f"{', '.join(others)}, and {last}" if others else last
    answers = tuple(value for _, values in asked for value in values)
    kind = n.value_type[:-1] if len(answers) == 1 else n.value_type
    text = n.texts.question.format(kind=kind, context=context, query=query)
    prefix = n.texts.prefix.format(kind=kind, query=query)
    depths = [round(100 * max(context.find(v), 0) / max(len(context), 1), 1) for v in answers]
    return Draft(
        text, prefix, answers, {"size": size, "unit": prose.unit if prose else "lines", "depth_percent": depths}
    )
