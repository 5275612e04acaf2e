"""Needle in a haystack: eight of the 13 tasks.

Source: NVIDIA/RULER @ c3f5e3b, scripts/data/synthetic/niah.py: what is drawn, in which order, and every text.
Needles (key, value) lie among noise lines, other needles or sentences of prose; the values of some keys are asked for.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from kleval.tasks.draws import Draws
from kleval.tasks.ruler.haystack import SentenceSource
from kleval.tasks.ruler.spec import NEEDLE, NOISE, TEXTS, Draft, Needles
from kleval.tasks.ruler.words import pairs

# 40 depths from 0 to 100 percent, rounded to whole ones.
DEPTHS = tuple(round(i * 100 / 39) for i in range(40))


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


def _listed(queries: Sequence[str]) -> str:
    return ", ".join(queries[:-1]) + f", and {queries[-1]}" if len(queries) > 1 else queries[0]


@dataclass(frozen=True, slots=True)
class Niah:
    """size: words of essay, sentences of prose, noise lines or distractor needles."""

    needles: Needles
    prose: SentenceSource | None = None

    @property
    def unit(self) -> str:
        return self.prose.unit if self.prose else "lines"

    def step(self, ctx: int) -> int:
        """By how much a sample that is too long is made smaller."""
        if self.needles.haystack == "essay":
            return 500
        return 5 if ctx < 4096 else 25

    def draft(self, draws: Draws, size: int, index: int = 0) -> Draft:
        n = self.needles
        keys: list[str] = []
        values: list[list[str]] = []
        for _ in range(n.keys):
            keys.append(_draw(n.key_type, draws))
            values.append([_draw(n.value_type, draws) for _ in range(n.values)])
        hidden = [
            NEEDLE.format(kind=n.value_type, key=k, value=v) for k, vs in zip(keys, values, strict=True) for v in vs
        ]
        draws.shuffle(hidden)

        if self.prose is not None:
            context = _between_sentences(self.prose.sentences(size), hidden, draws)
        elif n.haystack == "noise":
            context = _between_lines([NOISE] * size, hidden, draws)
        else:
            lines = [
                NEEDLE.format(kind=n.value_type, key=_draw(n.key_type, draws), value=_draw(n.value_type, draws))
                for _ in range(size)
            ]
            context = _between_lines(lines, hidden, draws)

        asked = draws.rng.sample(range(n.keys), n.queries)
        query = _listed([keys[i] for i in asked])
        answers = tuple(v for i in asked for v in values[i])
        one = len(answers) == 1
        kind, texts = (n.value_type[:-1], TEXTS["one"]) if one else (n.value_type, TEXTS["many"])
        text = texts.question.format(kind=kind, context=context, query=query)
        prefix = texts.prefix.format(kind=kind, query=query)
        depths = [round(100 * max(context.find(v), 0) / max(len(context), 1), 1) for v in answers]
        return Draft(text, prefix, answers, {"size": size, "unit": self.unit, "depth_percent": depths})
