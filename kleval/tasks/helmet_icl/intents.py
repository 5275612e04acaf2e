"""Invented intents and utterances: kleval's own data for the tasks.

An intent is something to be done with one kind of thing (`borrow` a ladder), and is said in several ways, with adjectives,
times, places and names that mean nothing for it. Of `trec_coarse`'s shape an intent is what is to be done alone, whatever
the thing; of `clinic150`'s one intent is to say something else altogether, sentences of `prose`. Which things there are
is drawn anew for every sample, so that labels can only be learnt from the examples shown.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from kleval.tasks import lexicon as lx
from kleval.tasks import packaged
from kleval.tasks.prose import Split, sentences

INTENTS_VERSION = "intents-1"
_TRIES = 20

ACTIONS: dict[str, tuple[str, ...]] = {
    action: tuple(said) for action, said in packaged.load("helmet_icl/items.toml")["actions"].items()
}

# Task -> how many actions, how many things (0: whatever thing), and whether there are sentences of no intent.
SHAPES: dict[str, tuple[int, int, bool]] = {
    name: tuple(facts["shape"]) for name, facts in packaged.load("helmet_icl/tables.toml")["tasks"].items()
}


@dataclass(frozen=True, slots=True)
class Intent:
    """action "": anything that is none of the others. thing "": whatever thing."""

    action: str
    thing: str


class Speaker:
    """Says things, from one random state. actions: how each is said; split: of the prose that is no intent."""

    def __init__(
        self, rng: random.Random, actions: Mapping[str, Sequence[str]] = ACTIONS, split: Split = "eval"
    ) -> None:
        self._rng, self._actions, self._split = rng, actions, split
        self._other: Iterator[str] | None = None

    def utterance(self, intent: Intent) -> str:
        rng = self._rng
        if not intent.action:
            if self._other is None:
                self._other = sentences(rng.getrandbits(48), self._split)
            return next(self._other).lower().rstrip(".!?")
        thing = intent.thing or rng.choice(lx.THINGS)
        adjective = f"{rng.choice(lx.ADJECTIVES)} " if rng.random() < 0.7 else ""
        return rng.choice(self._actions[intent.action]).format(
            o=f"the {adjective}{thing}",
            t=rng.choice(lx.TIMES),
            p=rng.choice(lx.PLACES),
            n=rng.choice(lx.NAMES).lower(),
        )

    def another(self, intent: Intent, said: set[str]) -> str:
        """An utterance that is not in `said` as far as trying helps, added to it."""
        text = self.utterance(intent)
        for _ in range(_TRIES):
            if text not in said:
                break
            text = self.utterance(intent)
        said.add(text)
        return text


def draw_intents(rng: random.Random, task: str, n: int) -> list[Intent]:
    """n intents of a task's shape, in random order; n is at most what the shape has."""
    n_actions, n_things, other = SHAPES[task]
    actions = rng.sample(list(ACTIONS), n_actions)
    things = rng.sample(lx.THINGS, n_things) if n_things else [""]
    found = [Intent(action, thing) for action in actions for thing in things]
    if other:
        found.append(Intent("", ""))
    rng.shuffle(found)
    return found[:n]


def rounds(
    rng: random.Random, speaker: Speaker, intents: Sequence[Intent], said: set[str]
) -> Iterator[tuple[int, str]]:
    """(position of the intent, utterance) without end; each round has one of every intent, in random order."""
    while True:
        order = list(range(len(intents)))
        rng.shuffle(order)
        for which in order:
            yield which, speaker.another(intents[which], said)
