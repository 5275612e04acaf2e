"""Documents with a multiple-choice question each, in LongBench v2's six domains (`exams.toml` has their wording).

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
from kleval.tasks import packaged
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


class _Writer:
    """Records of a domain. rng: of what is asked about; others: of the fillers, so that how many are taken changes nothing else.
    syllables: the parts of each of an invented word; split: of the sentences."""

    def __init__(self, rng: random.Random, domain: str, hard: bool, syllables: Syllables, split: Split) -> None:
        self.rng, self.others, self.hard = rng, random.Random(rng.getrandbits(64)), hard
        self._wording = packaged.load("longbench2/exams.toml")[domain]
        self._syllables, self._split, self._used = syllables, split, set[str]()

    def new(self) -> str:
        """An invented word, each once."""
        rng = self.rng
        while True:
            made = "".join(map(rng.choice, self._syllables * rng.randint(2, 3)))
            if len(self._used) > 50_000:
                made += "".join(map(rng.choice, self._syllables))
            if made not in self._used and not keyword.iskeyword(made):
                self._used.add(made)
                return made

    def title(self) -> str:
        return self.new().capitalize()

    def titles(self, n: int) -> list[str]:
        return [self.title() for _ in range(n)]

    def prose(self) -> Iterator[str]:
        return sentences(self.others.getrandbits(64), self._split)

    def say(self, key: str, **values: object) -> str:
        return str(self._wording[key]).format(**values)

    def rows(self, key: str, **columns: Sequence[object]) -> list[str]:
        return [self.say(key, **dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]

    def material(
        self, records: Sequence[str], fillers: Iterator[str], choices: Sequence[object], **values: object
    ) -> Material:
        """values: of the opening and the question."""
        opening, question = self.say("opening", **values), self.say("hard" if self.hard else "easy", **values)
        sub_domain, between = self._wording["sub_domain"], self._wording["between"]
        return Material(sub_domain, opening, tuple(records), fillers, between, question, tuple(map(str, choices)))


def exam(rng: random.Random, domain: str, hard: bool, syllables: Syllables = _SYLLABLES, split: Split = "eval") -> Exam:
    """A question of that domain."""
    material = DOMAINS[domain](_Writer(rng, domain, hard, syllables, split))
    right = material.choices[0]
    choices = list(material.choices)
    rng.shuffle(choices)
    places = tuple(sorted(rng.random() for _ in material.records))
    answer = LETTERS[choices.index(right)]
    return Exam(domain, "hard" if hard else "easy", material, tuple(choices), answer, places)


def _thing(rng: random.Random) -> str:
    return f"{rng.choice(lx.ADJECTIVES)} {rng.choice(lx.THINGS)}"


def _distinct(draw: Callable[[], str], n: int) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < n:
        found[draw()] = None
    return list(found)


def _chronicle(w: _Writer) -> Material:
    town, places, givers = w.title(), w.rng.sample(lx.PLACES, 4), w.titles(4)
    gifts = _distinct(lambda: f"the {_thing(w.rng)}", 4)
    teachers = w.titles(2) if w.hard else [""]
    records = w.rows("entry", giver=givers, gift=gifts, place=places)
    if w.hard:
        records += w.rows("taught", teacher=teachers, giver=givers[:2])
    w.rng.shuffle(records)
    prose = w.prose()

    def filler() -> str:
        kind = w.others.randrange(3)
        if kind == 0:
            return w.say("entry", giver=w.title(), gift=f"the {_thing(w.others)}", place=w.others.choice(lx.PLACES))
        return w.say("taught", teacher=w.title(), giver=w.title()) if kind == 1 else next(prose)

    asked = {"town": town, "giver": givers[0], "place": places[0], "teacher": teachers[0]}
    return w.material(records, iter(filler, None), gifts, **asked)


def _notices(w: _Writer) -> Material:
    towns, item = w.titles(4), _thing(w.rng)
    prices = w.rng.sample(range(10, 900), 4)
    if w.hard:
        order = sorted(zip(prices, towns, strict=True))
        prices, towns = [price for price, _ in order], [town for _, town in order]
    records = w.rows("notice", town=towns, item=[item] * 4, price=prices)
    w.rng.shuffle(records)

    def filler() -> str:
        while (what := _thing(w.others)) == item:
            pass
        return w.say("notice", town=w.title(), item=what, price=w.others.randint(10, 900))

    return w.material(records, iter(filler, None), towns if w.hard else prices, town=towns[0], item=item)


def _language(w: _Writer) -> Material:
    def phrase(rng: random.Random) -> str:
        return f"{_thing(rng)} in the {rng.choice(lx.PLACES)}"

    quality = noun = ""
    if w.hard:
        (noun, other_noun), (quality, other_quality) = w.rng.sample(lx.THINGS, 2), w.rng.sample(lx.ADJECTIVES, 2)
        senses, words = [noun, other_noun, quality, other_quality], [w.new() for _ in range(4)]
        n, m, q, r = words
        choices = [f"{n} {q}", f"{q} {n}", f"{m} {q}", f"{n} {r}"]
    else:
        senses = choices = _distinct(lambda: phrase(w.rng), 4)
        words = [w.new() for _ in senses]
    records = w.rows("word", word=words, sense=senses)
    w.rng.shuffle(records)

    def filler() -> str:
        while (sense := phrase(w.others)) in senses:
            pass
        return w.say("word", word=w.new(), sense=sense)

    return w.material(records, iter(filler, None), choices, word=words[0], quality=quality, noun=noun)


def _dialogue(w: _Writer) -> Material:
    parcel, speakers, places = w.title(), w.rng.sample(lx.NAMES, 4), w.rng.sample(lx.PLACES, 4)
    parcels = [parcel] * 4 if w.hard else [parcel, *w.titles(3)]
    records = w.rows("moved", speaker=speakers, parcel=parcels, place=places)
    if w.hard:
        records.reverse()
    else:
        w.rng.shuffle(records)
    prose = w.prose()

    def filler() -> str:
        speaker = w.others.choice(lx.NAMES)
        if w.others.randrange(2):
            return w.say("moved", speaker=speaker, parcel=w.title(), place=w.others.choice(lx.PLACES))
        return w.say("said", speaker=speaker, text=next(prose))

    choices = w.rows("choice", place=places)
    return w.material(records, iter(filler, None), choices, speaker=speakers[0], parcel=parcel)


def _repository(w: _Writer) -> Material:
    def function(name: str, body: str) -> str:
        return w.say("function", file=w.new(), name=name, body=body)

    def numbers(source: random.Random) -> tuple[int, int]:
        return source.randint(2, 9), source.randint(10, 99)

    inner, outer = w.new(), w.new()
    (by, plus), (less, x) = numbers(w.rng), (w.rng.randint(3, 9), w.rng.randint(2, 9))
    records = [function(inner, f"x * {by} + {plus}")]
    right, wrong = x * by + plus, [x * by, x * (by + 1) + plus, x + by + plus]
    if w.hard:
        records.append(function(outer, f"{inner}(x) - {less}"))
        right, wrong = right - less, [right, x - less, (x - less) * by + plus]
    for _ in range(2):
        a, b = numbers(w.rng)
        records.append(function(w.new(), f"x * {a} + {b}"))
        wrong.append(x * a + b)
    w.rng.shuffle(records)
    values = list(dict.fromkeys([right, *wrong]))
    while len(values) < len(LETTERS):
        values.append(max(values) + 1)

    def fillers() -> Iterator[str]:
        called = w.new()
        yield function(called, "x + 1")
        while True:
            (a, b), name = numbers(w.others), w.new()
            calls = w.others.randrange(3) == 0
            yield function(name, f"{called}(x) - {w.others.randint(3, 9)}" if calls else f"x * {a} + {b}")
            called = name

    return w.material(records, fillers(), values[: len(LETTERS)], name=outer if w.hard else inner, x=x)


def _table(w: _Writer) -> Material:
    who, amounts = w.titles(4), w.rng.sample(range(100, _MOST_NUMBER), 4)
    if w.hard:
        amounts.sort(reverse=True)
    records = w.rows("row", name=who, place=[w.rng.choice(lx.PLACES) for _ in who], amount=amounts)
    w.rng.shuffle(records)

    def filler() -> str:
        name, amount = w.title(), w.others.randint(100, _MOST_NUMBER)
        return w.say("row", name=name, place=w.others.choice(lx.PLACES), amount=amount)

    return w.material(records, iter(filler, None), who if w.hard else amounts, name=who[0])


DOMAINS: dict[str, Callable[[_Writer], Material]] = {
    "Single-Document QA": _chronicle,
    "Multi-Document QA": _notices,
    "Long In-context Learning": _language,
    "Long-dialogue History Understanding": _dialogue,
    "Code Repository Understanding": _repository,
    "Long Structured Data Understanding": _table,
}
