"""Texts and counts that makers of training samples share: banks of sentences, words and articles, and the filling of a length."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence

from kleval.tasks import articles, prose
from kleval.tasks.articles import Article
from kleval.tokenization import HFTokenizer
from kleval.train import material
from kleval.types import UsageError

CORPUS_SIZE = 400
QUESTION_TOKENS = 50  # of a question for a fact and its answer, about, and what stands around it

# A text, and whether the model is to produce it.
Piece = tuple[str, bool]


class NoRoom(Exception):
    """A sample of that kind does not fit into the length."""


class Desk:
    """tokenizer: with an end token. bank_size: how many sentences to draw texts from."""

    def __init__(self, tokenizer: HFTokenizer, seed: int, bank_size: int = 30_000) -> None:
        if tokenizer.eos_id is None:
            raise UsageError(
                f"tokenizer {tokenizer.name} has no end token: training needs one to teach where answers end"
            )
        self.tokenizer, self.eos_id, self.count = tokenizer, tokenizer.eos_id, tokenizer.count
        pieces = [tokenizer.decode([i]) for i in range(tokenizer.vocab_size)]
        self.words = material.WordMaker(pieces)
        self.plain = [piece for piece in pieces if piece[:1] == " " and piece[1:].isalpha() and piece.isascii()]
        source = prose.sentences(f"nano-{seed}", "train")
        self.bank = [next(source) for _ in range(bank_size)]
        self.lengths = [self.count(f" {sentence}") for sentence in self.bank]
        self.articles = articles.corpus(CORPUS_SIZE, f"nano-{seed}", "train")
        self.questions = [articles.questions(self.articles, f"nano-{seed}", hops) for hops in (1, 2)]

    def prose(self, rng: random.Random, room: int) -> list[str]:
        """Running sentences of at most `room` tokens together."""
        at, found = rng.randrange(len(self.bank)), []
        while room >= self.lengths[at]:
            room -= self.lengths[at]
            found.append(self.bank[at])
            at = (at + 1) % len(self.bank)
        return found

    def strange(self, rng: random.Random) -> str:
        """A short sentence of made-up words and single pieces of the vocabulary: so are texts that training has never shown."""
        words = [
            rng.choice(self.plain)[1:] if rng.random() < 0.5 else self.words.word(rng)
            for _ in range(rng.randrange(2, 7))
        ]
        return " ".join([words[0].capitalize(), *words[1:]]) + "."

    def noise(self, rng: random.Random, room: int) -> list[str]:
        """One line of a few sentences, half the time strange ones, over and over."""
        at, n = rng.randrange(len(self.bank) - 6), rng.randrange(2, 6)
        line = " ".join(self.bank[at : at + n] if rng.random() < 0.5 else (self.strange(rng) for _ in range(n)))
        return [line] * (max(0, room) // (self.count(line) + 1))

    def taken(self, pieces: Iterable[str], room: int, most: int = 10_000) -> list[str]:
        """The first of `pieces` that fit together."""
        found: list[str] = []
        for piece in pieces:
            room -= self.count(piece) + 1
            if room < 0 or len(found) == most:
                break
            found.append(piece)
        return found

    def shown(
        self, rng: random.Random, gold: Sequence[int], room: int, text: Callable[[Article], str], questions: int
    ) -> tuple[list[Article], list[tuple[str, str]]]:
        """The gold articles among as many others as fit, in any order, and at most so many questions for facts of theirs with the
        answers. NoRoom without room for the gold ones."""
        found = [self.articles[i] for i in gold]
        room = self.left(room, *map(text, found))
        questions = min(questions, room // (2 * QUESTION_TOKENS))
        room -= questions * QUESTION_TOKENS
        more = (self.articles[i] for i in rng.sample(range(len(self.articles)), len(self.articles)) if i not in gold)
        for article in more:
            room -= self.count(text(article))
            if room < 0:
                break
            found.append(article)
        rng.shuffle(found)
        known = [(article, fact) for article in found for fact in article.facts]
        asked = rng.sample(known, min(questions, len(known)))
        return found, [(fact.bridge.format(article.title), fact.answers[0]) for article, fact in asked]

    def left(self, room: int, *texts: str) -> int:
        """What of `room` the texts leave. NoRoom when nothing."""
        room -= sum(map(self.count, texts))
        if room < 0:
            raise NoRoom
        return room


def scattered(rng: random.Random, records: Sequence[str], fillers: Sequence[str]) -> list[str]:
    """Records, in their order, at random places between fillers."""
    places = sorted(rng.randrange(len(fillers) + 1) for _ in records)
    found = list(fillers)
    for shift, (place, record) in enumerate(zip(places, records, strict=True)):
        found.insert(place + shift, record)
    return found


Maker = Callable[[Desk, random.Random, int], list[Piece]]


def endless(make: Callable[[], str]) -> Iterator[str]:
    while True:
        yield make()
