"""Articles about an invented world, with questions whose answers are known because the facts were there first.

Towns, people, companies and ships with invented names; every article states its facts in two paragraphs and fills up with
sentences of `prose`. One-hop questions ask for a fact of one article (SQuAD's shape), two-hop questions for a fact of an article
that another one names (HotpotQA's bridge questions). Names are unique within a corpus; names and answers belong to the split that
`prose.belongs_to` says, so that no article of `train` holds a name or an answer of an article of `eval`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from kleval.tasks import lexicon as lx
from kleval.tasks import packaged
from kleval.tasks.prose import Draws, Split, belongs_to, indefinite, sentences

ARTICLES_VERSION = "articles-1"

# What articles of each kind state, and how other articles speak of them.
KINDS: Mapping[str, Mapping[str, Any]] = packaged.load("articles.toml")
_SYLLABLES = lx.syllables("articles")


@dataclass(frozen=True, slots=True)
class Fact:
    """statement: as the article says it. bridge: the question for it, with {} for the article's title."""

    statement: str
    bridge: str
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Article:
    """paragraphs: paragraph i states facts i and i + 2. link: index of the article that fact 0 names."""

    title: str
    kind: str
    paragraphs: tuple[str, ...]
    facts: tuple[Fact, ...]
    link: int

    @property
    def text(self) -> str:
        return " ".join(self.paragraphs)


@dataclass(frozen=True, slots=True)
class Question:
    """gold: indexes into the corpus of the articles that together answer; fact: which fact of the last of them."""

    question: str
    answers: tuple[str, ...]
    gold: tuple[int, ...]
    fact: int


class _Names:
    """Distinct names of one split."""

    def __init__(self, draws: Draws, split: Split) -> None:
        self.draws, self.split, self.used = draws, split, set[str]()

    def new(self) -> str:
        d = self.draws
        while True:
            parts = ("".join(map(d.pick, _SYLLABLES)) for _ in range(2 + d.below(2)))
            name = "".join(parts).capitalize()
            if name not in self.used and name.lower() not in self.used and belongs_to(name) == self.split:
                self.used.add(name)
                return name


@cache
def _belonging(items: tuple[str, ...], split: Split) -> tuple[str, ...]:
    return tuple(item for item in items if belongs_to(item) == split)


def _drawn(draws: Draws, split: Split, what: str | list[int]) -> str:
    """A word of a list, or a number from the first up to before the last; of that split."""
    if isinstance(what, str):
        return draws.pick(_belonging(packaged.words(lx.FILE, what), split))
    first, last = what
    while True:
        text = str(first + draws.below(last - first))
        if belongs_to(text) == split:
            return text


def _facts(draws: Draws, split: Split, kind: str, title: str, link: str) -> tuple[Fact, ...]:
    values = {name: _drawn(draws, split, what) for name, what in KINDS[kind]["draws"].items()}
    values |= {f"a_{name}": indefinite(value) for name, value in values.items()} | {"title": title, "link": link}
    return tuple(
        Fact(statement.format_map(values), bridge, tuple(answer.format_map(values) for answer in answers))
        for statement, bridge, *answers in KINDS[kind]["facts"]
    )


@lru_cache(maxsize=8)
def corpus(n: int, seed: int | str, split: Split = "eval") -> tuple[Article, ...]:
    """n articles (at least 4), about equally many of each kind. Each names another one of a kind that fits."""
    draws = Draws(ARTICLES_VERSION, split, seed)
    names = _Names(draws, split)
    filler = sentences(f"{ARTICLES_VERSION}/{seed}", split)
    kinds = [tuple(KINDS)[i % 4] for i in range(n)]
    titles = [names.new() + (f" {names.new()}" if kind == "person" else "") for kind in kinds]
    found = []
    for kind, title in zip(kinds, titles, strict=True):
        first = tuple(KINDS).index(KINDS[kind]["link"])
        link = first + 4 * draws.below(len(range(first, n, 4)))
        facts = _facts(draws, split, kind, title, titles[link])
        paragraphs = tuple(_paragraph(draws, facts[part::2], filler) for part in range(2))
        found.append(Article(title, kind, paragraphs, facts, link))
    return tuple(found)


def _paragraph(draws: Draws, facts: tuple[Fact, ...], filler: Iterator[str]) -> str:
    lines = [fact.statement for fact in facts]
    for _ in range(2 + draws.below(4)):
        lines.insert(1 + draws.below(len(lines)), next(filler))
    return " ".join(lines)


def questions(articles: tuple[Article, ...], seed: int | str, hops: int = 1) -> list[Question]:
    """Every question of the corpus, shuffled. hops 1: one fact of one article; 2: a fact of the article that another one names."""
    asked = []
    for i, article in enumerate(articles):
        if hops == 1:
            for f, fact in enumerate(article.facts):
                asked.append(Question(fact.bridge.format(article.title), fact.answers, (i,), f))
        else:
            target, through = articles[article.link], KINDS[article.kind]["through"].format(article.title)
            for f, fact in enumerate(target.facts[1:], 1):
                bridge = fact.bridge.replace("the town of {}", "{}")
                asked.append(Question(bridge.format(through), fact.answers, (i, article.link), f))
    draws = Draws(ARTICLES_VERSION, "questions", hops, seed)
    for i in range(len(asked) - 1, 0, -1):
        j = draws.below(i + 1)
        asked[i], asked[j] = asked[j], asked[i]
    return asked
