"""Documents with a multiple-choice question each, in LongBench v2's six domains (`exams.toml` has their wording).

A document is made of short records of one kind (a chronicle's entries, notices, words of an invented language, lines of
a dialogue, functions, rows of a table). Some of them are what the question and the wrong choices are made of; the others
fill the context and are like them. Easy questions ask for what one record says; hard ones need two records, the latest
of several, or the comparison of four. Everything asked about has an invented name that no other record has.
"""

from __future__ import annotations

import keyword
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from kleval.tasks import lexicon as lx
from kleval.tasks import packaged
from kleval.tasks.draws import distinct
from kleval.tasks.longbench2.official import LETTERS
from kleval.tasks.plain_editions import spread
from kleval.tasks.prose import Split, sentences

EXAMS_VERSION = "exams-1"
_SYLLABLES = lx.syllables("exams")
_MOST_NUMBER = 9000
# Records, what makes others, choices with the right one first, and what the question and the opening name.
Matter = tuple[list[str], Callable[[], str], Sequence[object], Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class Exam:
    """records: that the question is about, in order. fillers: others, without end. places: where each record stands, as a share of the
    others. answer: the right letter."""

    sub_domain: str
    difficulty: str
    question: str
    choices: tuple[str, ...]
    answer: str
    places: tuple[float, ...]
    records: tuple[str, ...] = field(repr=False)
    fillers: Iterator[str] = field(repr=False)
    opening: str
    between: str

    def document(self, fillers: Sequence[str]) -> str:
        return self.between.join([self.opening, *spread(self.records, self.places, fillers)])


class _Writer:
    """Records of a domain. rng: of what is asked about; others: of the fillers, so that how many are taken changes nothing else.
    syllables: the parts of each of an invented word; split: of the sentences."""

    def __init__(self, rng: random.Random, domain: str, hard: bool, syllables: lx.Syllables, split: Split) -> None:
        self.rng, self.others, self.hard = rng, random.Random(rng.getrandbits(64)), hard
        self.wording = packaged.load("longbench2/exams.toml")[domain]
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
        return str(self.wording[key]).format(**values)

    def rows(self, key: str, **columns: Sequence[object]) -> list[str]:
        return [self.say(key, **dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]


def exam(
    rng: random.Random, domain: str, hard: bool, syllables: lx.Syllables = _SYLLABLES, split: Split = "eval"
) -> Exam:
    """A question of that domain."""
    difficulty = "hard" if hard else "easy"
    writer = _Writer(rng, domain, hard, syllables, split)
    records, filler, choices, values = DOMAINS[domain](writer)
    if difficulty not in writer.wording.get("in_order", ()):
        rng.shuffle(records)
    shown = [str(choice) for choice in choices]
    rng.shuffle(shown)
    answer = LETTERS[shown.index(str(choices[0]))]
    places = tuple(sorted(rng.random() for _ in records))
    question, opening = writer.say(difficulty, **values), writer.say("opening", **values)
    told = writer.wording["sub_domain"], difficulty, question, tuple(shown), answer, places
    return Exam(*told, tuple(records), iter(filler, None), opening, writer.wording["between"])


def _thing(rng: random.Random) -> str:
    return f"{rng.choice(lx.ADJECTIVES)} {rng.choice(lx.THINGS)}"


def _phrase(rng: random.Random) -> str:
    return f"{_thing(rng)} in the {rng.choice(lx.PLACES)}"


def _chronicle(w: _Writer) -> Matter:
    town, places, givers = w.title(), w.rng.sample(lx.PLACES, 4), w.titles(4)
    gifts = distinct(lambda: f"the {_thing(w.rng)}", 4)
    teachers = w.titles(2) if w.hard else [""]
    records = w.rows("entry", giver=givers, gift=gifts, place=places)
    if w.hard:
        records += w.rows("taught", teacher=teachers, giver=givers[:2])
    prose = w.prose()

    def filler() -> str:
        kind = w.others.randrange(3)
        if kind == 0:
            return w.say("entry", giver=w.title(), gift=f"the {_thing(w.others)}", place=w.others.choice(lx.PLACES))
        return w.say("taught", teacher=w.title(), giver=w.title()) if kind == 1 else next(prose)

    named = {"town": town, "giver": givers[0], "place": places[0], "teacher": teachers[0]}
    return records, filler, gifts, named


def _notices(w: _Writer) -> Matter:
    towns, item = w.titles(4), _thing(w.rng)
    prices = w.rng.sample(range(10, 900), 4)
    if w.hard:
        order = sorted(zip(prices, towns, strict=True))
        prices, towns = [price for price, _ in order], [town for _, town in order]

    def filler() -> str:
        while (what := _thing(w.others)) == item:
            pass
        return w.say("notice", town=w.title(), item=what, price=w.others.randint(10, 900))

    records = w.rows("notice", town=towns, item=[item] * 4, price=prices)
    return records, filler, towns if w.hard else prices, {"town": towns[0], "item": item}


def _language(w: _Writer) -> Matter:
    quality = noun = ""
    if w.hard:
        (noun, other_noun), (quality, other_quality) = w.rng.sample(lx.THINGS, 2), w.rng.sample(lx.ADJECTIVES, 2)
        n, m, q, r = words = [w.new() for _ in range(4)]
        senses: Sequence[str] = (noun, other_noun, quality, other_quality)
        choices: Sequence[str] = (f"{n} {q}", f"{q} {n}", f"{m} {q}", f"{n} {r}")
    else:
        senses = choices = distinct(lambda: _phrase(w.rng), 4)
        words = [w.new() for _ in senses]

    def filler() -> str:
        while (sense := _phrase(w.others)) in senses:
            pass
        return w.say("word", word=w.new(), sense=sense)

    records = w.rows("word", word=words, sense=senses)
    return records, filler, choices, {"word": words[0], "quality": quality, "noun": noun}


def _dialogue(w: _Writer) -> Matter:
    parcel, speakers, places = w.title(), w.rng.sample(lx.NAMES, 4), w.rng.sample(lx.PLACES, 4)
    parcels = [parcel] * 4 if w.hard else [parcel, *w.titles(3)]
    records = w.rows("moved", speaker=speakers, parcel=parcels, place=places)
    if w.hard:
        records.reverse()
    prose = w.prose()

    def filler() -> str:
        speaker = w.others.choice(lx.NAMES)
        if w.others.randrange(2):
            return w.say("moved", speaker=speaker, parcel=w.title(), place=w.others.choice(lx.PLACES))
        return w.say("said", speaker=speaker, text=next(prose))

    return records, filler, w.rows("choice", place=places), {"speaker": speakers[0], "parcel": parcel}


def _repository(w: _Writer) -> Matter:
    def function(name: str, body: str) -> str:
        return w.say("function", file=w.new(), name=name, body=body)

    def line(source: random.Random) -> tuple[int, int]:
        return source.randint(2, 9), source.randint(10, 99)

    inner, outer = w.new(), w.new()
    (by, plus), (less, x) = line(w.rng), (w.rng.randint(3, 9), w.rng.randint(2, 9))
    records = [function(inner, f"x * {by} + {plus}")]
    right, wrong = x * by + plus, [x * by, x * (by + 1) + plus, x + by + plus]
    if w.hard:
        records.append(function(outer, f"{inner}(x) - {less}"))
        right, wrong = right - less, [right, x - less, (x - less) * by + plus]
    for _ in range(2):
        a, b = line(w.rng)
        records.append(function(w.new(), f"x * {a} + {b}"))
        wrong.append(x * a + b)
    values = list(dict.fromkeys([right, *wrong]))
    while len(values) < len(LETTERS):
        values.append(max(values) + 1)

    def fillers() -> Iterator[str]:
        called = w.new()
        yield function(called, "x + 1")
        while True:
            (a, b), name = line(w.others), w.new()
            calls = w.others.randrange(3) == 0
            yield function(name, f"{called}(x) - {w.others.randint(3, 9)}" if calls else f"x * {a} + {b}")
            called = name

    return records, fillers().__next__, values[: len(LETTERS)], {"name": outer if w.hard else inner, "x": x}


def _table(w: _Writer) -> Matter:
    who, amounts = w.titles(4), w.rng.sample(range(100, _MOST_NUMBER), 4)
    if w.hard:
        amounts.sort(reverse=True)

    def filler() -> str:
        name, amount = w.title(), w.others.randint(100, _MOST_NUMBER)
        return w.say("row", name=name, place=w.others.choice(lx.PLACES), amount=amount)

    records = w.rows("row", name=who, place=[w.rng.choice(lx.PLACES) for _ in who], amount=amounts)
    return records, filler, who if w.hard else amounts, {"name": who[0]}


DOMAINS: dict[str, Callable[[_Writer], Matter]] = {
    "Single-Document QA": _chronicle,
    "Multi-Document QA": _notices,
    "Long In-context Learning": _language,
    "Long-dialogue History Understanding": _dialogue,
    "Code Repository Understanding": _repository,
    "Long Structured Data Understanding": _table,
}
