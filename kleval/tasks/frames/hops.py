"""Questions over invented articles (`articles`) that take several of them, of kinds that FRAMES has.

chain       a fact of an article that is found through others: the mayor of the birthplace of ...
difference  the years between two events, one of them found through another article
first       which of two towns is older, each found through another article

Every step goes through names that stand in one article alone, so that nothing but the right articles answers.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from kleval.tasks import articles as invented
from kleval.tasks.articles import Article

HOPS_VERSION = "hops-1"
_TRIES = 1000
_FOUNDED = 1

# How many articles a kind takes.
KINDS = {"chain-2": 2, "chain-3": 3, "difference": 3, "chain-4": 4, "first": 4}


@dataclass(frozen=True, slots=True)
class Asked:
    """gold: positions of the articles that together answer."""

    kind: str
    question: str
    answers: tuple[str, ...]
    gold: tuple[int, ...]


def ask(rng: random.Random, articles: Sequence[Article], kind: str) -> Asked:
    """A question of that kind, all of its articles distinct."""
    for _ in range(_TRIES):
        made = _ask(rng, articles, kind)
        if made is not None and len(set(made.gold)) == len(made.gold):
            return made
    raise ValueError(f"{len(articles)} articles are too few for a question of the kind {kind}")


def _ask(rng: random.Random, articles: Sequence[Article], kind: str) -> Asked | None:
    if kind.startswith("chain-"):
        gold, phrase = _walk(articles, rng.randrange(len(articles)), int(kind[-1]))
        fact = rng.choice(articles[gold[-1]].facts[1:])
        return Asked(kind, fact.bridge.replace("the town of {}", "{}").format(phrase), fact.answers, gold)
    gold, phrase = _walk(articles, rng.randrange(len(articles)), 2)
    if kind == "difference":
        other = rng.randrange(len(articles))
        (first, event), (second, other_event) = (_event(articles[i]) for i in (gold[-1], other))
        years = abs(first - second)
        question = f"How many years lie between {event.format(phrase)} and {other_event.format(articles[other].title)}?"
        return Asked(kind, question, (str(years), f"{years} years"), (*gold, other)) if years else None
    others, other_phrase = _walk(articles, rng.randrange(len(articles)), 2)
    towns = [articles[gold[-1]], articles[others[-1]]]
    if any(town.kind != "town" for town in towns):
        return None
    founded = [int(town.facts[_FOUNDED].answers[0]) for town in towns]
    if founded[0] == founded[1]:
        return None
    question = f"Which town was founded first, {phrase} or {other_phrase}?"
    return Asked(kind, question, (towns[founded[1] < founded[0]].title,), (*gold, *others))


def _walk(articles: Sequence[Article], start: int, n: int) -> tuple[tuple[int, ...], str]:
    """(n articles, each named by the one before, how the last is called without its name)."""
    path, phrase = [start], articles[start].title
    while len(path) < n:
        article = articles[path[-1]]
        phrase = invented.KINDS[article.kind]["through"].format(phrase)
        path.append(article.link)
    return tuple(path), phrase


def _event(article: Article) -> tuple[int, str]:
    which, phrase = invented.KINDS[article.kind]["event"]
    return int(article.facts[which].answers[0]), phrase
