"""Documents with a multiple-choice question each, in LongBench v2's six domains.

A document is made of short records of one kind (a chronicle's entries, notices, words of an invented language, lines of
a dialogue, functions, rows of a table). Some of them are what the question and the wrong choices are made of; the others
fill the context and are like them. Easy questions ask for what one record says; hard ones need two records, the latest
of several, or the comparison of four. Everything asked about has an invented name that no other record has.
"""

from __future__ import annotations

import keyword
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from kleval.tasks import lexicon as lx
from kleval.tasks.longbench2.scoring import LETTERS
from kleval.tasks.prose import Split, sentences

EXAMS_VERSION = "exams-1"
Syllables = tuple[tuple[str, ...], ...]  # the choices for each part of a syllable
_SYLLABLES: Syllables = lx.syllables("exams")
_MOST_NUMBER = 9000


@dataclass(frozen=True, slots=True)
class Material:
    """records: that the question is about, in order. fillers: others, without end. choices: the right one first."""

    sub_domain: str
    opening: str
    records: tuple[str, ...]
    fillers: Iterator[str]
    between: str
    question: str
    choices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Exam:
    """answer: the right letter. places: where each record stands, as a share of the others."""

    domain: str
    difficulty: str
    material: Material = field(repr=False)
    choices: tuple[str, ...]
    answer: str
    places: tuple[float, ...]

    def document(self, fillers: Sequence[str]) -> str:
        at = {int(place * (len(fillers) + 1)) + i: i for i, place in enumerate(self.places)}
        others = iter(fillers)
        total = len(fillers) + len(self.places)
        parts = [self.material.records[at[i]] if i in at else next(others) for i in range(total)]
        return self.material.between.join([self.material.opening, *parts])


class _Names:
    """Invented words, each once, and the prose around them. syllables: the parts of each; split: of the sentences."""

    def __init__(self, rng: random.Random, syllables: Syllables = _SYLLABLES, split: Split = "eval") -> None:
        self._rng, self._used = rng, set[str]()
        self._syllables, self._split = syllables, split

    def new(self) -> str:
        rng = self._rng
        while True:
            made = "".join(map(rng.choice, self._syllables * rng.randint(2, 3)))
            if len(self._used) > 50_000:
                made += "".join(map(rng.choice, self._syllables))
            if made not in self._used and not keyword.iskeyword(made):
                self._used.add(made)
                return made

    def title(self) -> str:
        return self.new().capitalize()

    def prose(self, rng: random.Random) -> Iterator[str]:
        return sentences(rng.getrandbits(64), self._split)


def exam(rng: random.Random, domain: str, hard: bool, syllables: Syllables = _SYLLABLES, split: Split = "eval") -> Exam:
    """A question of that domain. The fillers draw from a state of their own: how many are taken changes nothing else."""
    material = DOMAINS[domain](rng, random.Random(rng.getrandbits(64)), _Names(rng, syllables, split), hard)
    right = material.choices[0]
    choices = list(material.choices)
    rng.shuffle(choices)
    places = tuple(sorted(rng.random() for _ in material.records))
    answer = LETTERS[choices.index(right)]
    return Exam(domain, "hard" if hard else "easy", material, tuple(choices), answer, places)


def _gift(rng: random.Random) -> str:
    return f"the {rng.choice(lx.ADJECTIVES)} {rng.choice(lx.THINGS)}"


def _distinct(draw: Callable[[], str], n: int) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < n:
        found[draw()] = None
    return list(found)


def _chronicle(rng: random.Random, others: random.Random, names: _Names, hard: bool) -> Material:
    town, places = names.title(), rng.sample(lx.PLACES, 4)
    givers, gifts = [names.title() for _ in range(4)], _distinct(lambda: _gift(rng), 4)

    def entry(giver: str, gift: str, place: str) -> str:
        return f"{giver} gave {gift} to the {place}."

    records = [entry(*each) for each in zip(givers, gifts, places, strict=True)]
    question = f"According to the chronicle, what did {givers[0]} give to the {places[0]}?"
    if hard:
        teachers = [names.title() for _ in range(2)]
        records += [f"{teacher} taught {giver}." for teacher, giver in zip(teachers, givers, strict=False)]
        question = f"According to the chronicle, what did the person give whom {teachers[0]} had taught?"
    rng.shuffle(records)
    prose = names.prose(others)

    def fillers() -> Iterator[str]:
        while True:
            kind = others.randrange(3)
            if kind == 0:
                yield entry(names.title(), _gift(others), others.choice(lx.PLACES))
            elif kind == 1:
                yield f"{names.title()} taught {names.title()}."
            else:
                yield next(prose)

    return Material("Chronicle", f"The chronicle of {town}.", tuple(records), fillers(), "\n\n", question, tuple(gifts))


def _notices(rng: random.Random, others: random.Random, names: _Names, hard: bool) -> Material:
    towns, item = [names.title() for _ in range(4)], f"{rng.choice(lx.ADJECTIVES)} {rng.choice(lx.THINGS)}"
    prices = rng.sample(range(10, 900), 4)

    def notice(town: str, what: str, price: int) -> str:
        return f"Notice from {town}\nFor sale: a piece called the {what}, for {price} crowns."

    if hard:
        order = sorted(zip(prices, towns, strict=True))
        towns, prices = [town for _, town in order], [price for price, _ in order]
        question, choices = f"Which of these towns asks the least for the {item}?", tuple(towns)
    else:
        question = f"How many crowns does the notice from {towns[0]} ask for the {item}?"
        choices = tuple(str(price) for price in prices)
    records = [notice(town, item, price) for town, price in zip(towns, prices, strict=True)]
    rng.shuffle(records)

    def fillers() -> Iterator[str]:
        while True:
            what = f"{others.choice(lx.ADJECTIVES)} {others.choice(lx.THINGS)}"
            if what != item:
                yield notice(names.title(), what, others.randint(10, 900))

    return Material("Notices", "Notices, one per town.", tuple(records), fillers(), "\n\n", question, choices)


def _language(rng: random.Random, others: random.Random, names: _Names, hard: bool) -> Material:
    def phrase(source: random.Random) -> str:
        return f"{source.choice(lx.ADJECTIVES)} {source.choice(lx.THINGS)} in the {source.choice(lx.PLACES)}"

    if hard:
        (noun, other_noun), (quality, other_quality) = rng.sample(lx.THINGS, 2), rng.sample(lx.ADJECTIVES, 2)
        n, m, q, r = (names.new() for _ in range(4))
        records = [
            f"{word} = {sense}" for word, sense in ((n, noun), (m, other_noun), (q, quality), (r, other_quality))
        ]
        question = f'How is "the {quality} {noun}" said in this language?'
        choices: tuple[str, ...] = (f"{n} {q}", f"{q} {n}", f"{m} {q}", f"{n} {r}")
        known = set[str]()
    else:
        senses = _distinct(lambda: phrase(rng), 4)
        words = [names.new() for _ in senses]
        records = [f"{word} = {sense}" for word, sense in zip(words, senses, strict=True)]
        question, choices, known = f'What does "{words[0]}" mean?', tuple(senses), set(senses)
    rng.shuffle(records)

    def fillers() -> Iterator[str]:
        while True:
            sense = phrase(others)
            if sense not in known:
                yield f"{names.new()} = {sense}"

    opening = "Words of a language in which a quality stands behind its noun, with nothing between but a blank."
    return Material("New language", opening, tuple(records), fillers(), "\n", question, choices)


def _dialogue(rng: random.Random, others: random.Random, names: _Names, hard: bool) -> Material:
    parcel, speakers, places = names.title(), rng.sample(lx.NAMES, 4), rng.sample(lx.PLACES, 4)

    def moved(speaker: str, what: str, place: str) -> str:
        return f"{speaker}: I put parcel {what} in the {place}."

    if hard:
        last_first = [moved(speaker, parcel, place) for speaker, place in zip(speakers, places, strict=True)]
        records = last_first[::-1]
        question = f"Where is parcel {parcel} at the end of the conversation?"
    else:
        parcels = [parcel, *(names.title() for _ in range(3))]
        records = [moved(*each) for each in zip(speakers, parcels, places, strict=True)]
        rng.shuffle(records)
        question = f"Where did {speakers[0]} put parcel {parcel}?"
    prose = names.prose(others)

    def fillers() -> Iterator[str]:
        while True:
            speaker = others.choice(lx.NAMES)
            if others.randrange(2):
                yield moved(speaker, names.title(), others.choice(lx.PLACES))
            else:
                yield f"{speaker}: {next(prose)}"

    choices = tuple(f"In the {place}" for place in places)
    return Material("Conversation", "A conversation.", tuple(records), fillers(), "\n", question, choices)


def _repository(rng: random.Random, others: random.Random, names: _Names, hard: bool) -> Material:
    def function(name: str, body: str) -> str:
        return f"# {names.new()}.py\ndef {name}(x):\n    return {body}"

    def numbers(source: random.Random) -> tuple[int, int]:
        return source.randint(2, 9), source.randint(10, 99)

    inner, outer = names.new(), names.new()
    (by, plus), (less, x) = numbers(rng), (rng.randint(3, 9), rng.randint(2, 9))
    records = [function(inner, f"x * {by} + {plus}")]
    right, asked = x * by + plus, inner
    wrong = [x * by, x * (by + 1) + plus, x + by + plus]
    if hard:
        records.append(function(outer, f"{inner}(x) - {less}"))
        right, asked = right - less, outer
        wrong = [right + less, x - less, (x - less) * by + plus]
    for _ in range(2):
        a, b = numbers(rng)
        records.append(function(names.new(), f"x * {a} + {b}"))
        wrong.append(x * a + b)
    rng.shuffle(records)
    values = list(dict.fromkeys([right, *wrong]))
    while len(values) < len(LETTERS):
        values.append(max(values) + 1)

    def fillers() -> Iterator[str]:
        called = names.new()
        yield function(called, "x + 1")
        while True:
            a, b = numbers(others)
            name = names.new()
            yield function(
                name, f"{called}(x) - {others.randint(3, 9)}" if others.randrange(3) == 0 else f"x * {a} + {b}"
            )
            called = name

    question = f"What does {asked}({x}) return?"
    choices = tuple(str(value) for value in values[: len(LETTERS)])
    return Material("Arithmetic", "The files of a repository.", tuple(records), fillers(), "\n\n", question, choices)


def _table(rng: random.Random, others: random.Random, names: _Names, hard: bool) -> Material:
    who, amounts = [names.title() for _ in range(4)], rng.sample(range(100, _MOST_NUMBER), 4)

    def row(name: str, amount: int, source: random.Random) -> str:
        return f"{name},{source.choice(lx.PLACES)},{amount}"

    if hard:
        amounts.sort(reverse=True)
        question, choices = "Which of these names has the largest amount?", tuple(who)
    else:
        question, choices = f"What is the amount of {who[0]}?", tuple(str(amount) for amount in amounts)
    records = [row(name, amount, rng) for name, amount in zip(who, amounts, strict=True)]
    rng.shuffle(records)

    def fillers() -> Iterator[str]:
        while True:
            yield row(names.title(), others.randint(100, _MOST_NUMBER), others)

    return Material("Table", "name,place,amount", tuple(records), fillers(), "\n", question, choices)


DOMAINS: dict[str, Callable[[random.Random, random.Random, _Names, bool], Material]] = {
    "Single-Document QA": _chronicle,
    "Multi-Document QA": _notices,
    "Long In-context Learning": _language,
    "Long-dialogue History Understanding": _dialogue,
    "Code Repository Understanding": _repository,
    "Long Structured Data Understanding": _table,
}
