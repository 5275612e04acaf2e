"""Stories in the form of bAbI's first five tasks: a simulated world, its facts one sentence each, a question and its answer.

People walk between places, take and drop things and give them away; what is asked follows from the facts alone. The sentences are
kleval's own (`stories.toml`): no row of bAbI is copied.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from kleval.tasks import packaged

STORIES_VERSION = "stories-1"
FILE = "babilong/stories.toml"
WORDS = packaged.load(FILE)
_PLACES, _THINGS = packaged.words(FILE, "places"), packaged.words(FILE, "things")


@dataclass(frozen=True, slots=True)
class Story:
    """answer: the word; said: how the prompt wants it."""

    facts: Sequence[str]
    question: str
    answer: str
    said: str


@dataclass(slots=True)
class _World:
    """at: person -> place; held: thing -> person; seen: thing -> the places that it was in, the latest last."""

    rng: random.Random
    people: Sequence[str]
    facts: list[str] = field(default_factory=list)
    at: dict[str, str] = field(default_factory=dict)
    held: dict[str, str] = field(default_factory=dict)
    seen: dict[str, list[str]] = field(default_factory=dict)
    gifts: list[dict[str, str]] = field(default_factory=list)

    def move(self) -> None:
        who = self.rng.choice(self.people)
        self.at[who] = self.rng.choice([one for one in _PLACES if one != self.at.get(who)])
        self.facts.append(self.rng.choice(WORDS["move"]).format(who=who, place=self.at[who]))
        for thing in (thing for thing, holder in self.held.items() if holder == who):
            self.seen[thing].append(self.at[who])

    def handle(self, giving: bool) -> bool:
        """Somebody takes a thing or parts with one; False where nobody can."""
        can = []
        for who, place in self.at.items():
            for thing in _THINGS:
                if self.held.get(thing) == who:
                    near = [one for one in self.people if one != who and self.at.get(one, place) == place]
                    can += [("give", who, thing, whom) for whom in near] if giving else [("drop", who, thing, who)]
                elif thing not in self.held and self.seen.get(thing, [place])[-1] == place:
                    can.append(("take", who, thing, who))
        if not can:
            return False
        kind, who, thing, whom = self.rng.choice(can)
        self.facts.append(self.rng.choice(WORDS[kind]).format(who=who, thing=thing, whom=whom))
        self.seen.setdefault(thing, [self.at[who]])
        if kind == "drop":
            del self.held[thing]
            return True
        self.held[thing], self.at[whom] = whom, self.at[who]
        self.gifts += [{"who": who, "thing": thing, "whom": whom}] if kind == "give" else []
        return True


def story(rng: random.Random, name: str) -> Story:
    """A story of that task, whose question has one answer."""
    while True:
        facts, words = _relations(rng) if name == "qa4" else _lived(rng, name)
        form, answer = rng.choice(WORDS["questions"][name])
        question, said = form.format(**words[-1]), answer.format(**words[-1])
        if {answer.format(**one) for one in words if form.format(**one) == question} == {said}:
            return Story(facts, question, said.rstrip(".").split()[-1], said)


def _lived(rng: random.Random, name: str) -> tuple[list[str], list[dict[str, str]]]:
    """Facts, and the words of what may be asked about, what is asked last; until there is something."""
    while True:
        world = _World(rng, WORDS["givers" if name == "qa5" else "people"].split())
        for _ in range(rng.randint(*WORDS["facts"][name])):
            if name == "qa1" or rng.random() < 0.5 or not world.handle(giving=name == "qa5"):
                world.move()
        who, thing = rng.choice(tuple(world.at)), rng.choice(_THINGS)
        seen = world.seen.get(thing, [])
        words = {"qa1": [{"who": who, "answer": world.at[who]}], "qa5": world.gifts}.get(name, [])
        if name == "qa2" and seen:
            words = [{"thing": thing, "answer": seen[-1]}]
        if name == "qa3" and len(seen) > 1:
            words = [{"thing": thing, "place": now, "answer": before} for before, now in pairwise(seen)]
        if words:
            return world.facts, words


def _relations(rng: random.Random) -> tuple[list[str], list[dict[str, str]]]:
    """Two places on two sides of a third, each said from either end."""
    middle, *others = rng.sample(_PLACES, 3)
    sides = rng.sample(sorted(WORDS["opposite"]), 2)
    words = [
        {"one": one, "middle": middle, "side": side, "back": WORDS["opposite"][side]}
        for one, side in zip(others, sides, strict=True)
    ]
    return [rng.choice(WORDS["relation"]).format(**one) for one in words], rng.sample(words, 2)
