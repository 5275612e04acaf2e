"""Invented intents and utterances: kleval's own data for the tasks.

An intent is something to be done with one kind of thing (`borrow` a ladder), and is said in several ways, with adjectives,
times, places and names that mean nothing for it. Of `trec_coarse`'s shape an intent is what is to be done alone, whatever
the thing; of `clinic150`'s one intent is to say something else altogether, sentences of `prose`. Which things there are
is drawn anew for every sample, so that labels can only be learnt from the examples shown.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kleval.tasks import lexicon as lx
from kleval.tasks.prose import sentences

INTENTS_VERSION = "intents-1"
_TRIES = 20

# {o}: the thing, with article and perhaps adjective; {t}: time; {p}: place; {n}: name.
ACTIONS: dict[str, tuple[str, ...]] = {
    "borrow": (
        "can i borrow {o} {t}",
        "could {n} lend me {o} {t}",
        "i need {o} on loan, only {t}",
        "may i take {o} from the {p} and bring it back {t}",
        "would you let me use {o} {t}, i will bring it back",
    ),
    "return": (
        "i want to give {o} back {t}",
        "where do i hand in {o} that i was lent {t}",
        "i am returning {o} to the {p} {t}",
        "{n} asks how to bring back {o} {t}",
        "here is {o} again, i do not need it any more {t}",
    ),
    "repair": (
        "{o} is broken, who can fix it {t}",
        "please mend {o} in the {p} {t}",
        "{n} wants {o} repaired {t}",
        "can somebody fix {o} {t}",
        "{o} stopped working {t}, it needs repair",
    ),
    "buy": (
        "i would like to buy {o} {t}",
        "do you sell {o} in the {p}, i will take one {t}",
        "{n} wants to purchase {o} {t}",
        "put {o} on my bill, i am buying it {t}",
        "one of your shops has {o}, i want to buy it {t}",
    ),
    "sell": (
        "i have {o} for sale {t}",
        "would the {p} buy {o} from me {t}",
        "{n} wants to get rid of {o} for money {t}",
        "how can i sell {o} {t}",
        "make me an offer for {o}, i am selling it {t}",
    ),
    "lost": (
        "i lost {o} near the {p} {t}",
        "{n} cannot find {o} since we met {t}",
        "did anyone hand in {o} that went missing {t}",
        "{o} has disappeared from the {p} {t}",
        "i must have left {o} somewhere {t}, it is lost",
    ),
    "found": (
        "i found {o} in the {p} {t}",
        "{n} picked up {o} {t}, whose is it",
        "somebody forgot {o} here {t}, i have it",
        "who is the owner of {o} that lay in the {p} {t}",
        "{o} turned up {t}, where shall i leave what i found",
    ),
    "price": (
        "how much is {o} {t}",
        "what does {o} in the {p} cost {t}",
        "tell {n} the price of {o} {t}",
        "is {o} cheaper {t}",
        "what would i have to pay for {o} {t}",
    ),
    "place": (
        "where do you keep {o} {t}",
        "in which corner of the {p} is {o} {t}",
        "{n} asks where {o} stands {t}",
        "show me the way to {o} {t}",
        "on which floor can i see {o} {t}",
    ),
    "cancel": (
        "please cancel my order of {o} {t}",
        "i ordered {o} {t} and do not want it any more",
        "{n} calls off the order for {o} {t}",
        "stop the order, no need to send {o} to the {p} {t}",
        "strike {o} from my order {t}",
    ),
    "delivery": (
        "when will {o} be delivered to the {p} {t}",
        "has the parcel with {o} been sent {t}",
        "{n} is still waiting for {o} to arrive {t}",
        "track the delivery of {o} {t}",
        "{o} should have come by post {t}, where is it now",
    ),
    "clean": (
        "{o} is dirty, please wash it {t}",
        "who cleans {o} in the {p} {t}",
        "{n} wants {o} polished and clean {t}",
        "can you get the stains off {o} {t}",
        "give {o} a good scrub {t}",
    ),
    "use": (
        "how does one use {o} {t}",
        "explain to {n} how {o} works {t}",
        "is there a manual for {o} in the {p} {t}",
        "teach me to handle {o} {t}",
        "which way round do i hold {o} {t}",
    ),
    "paint": (
        "paint {o} in another colour {t}",
        "{n} wants {o} to be blue instead {t}",
        "could {o} in the {p} get a new coat of paint {t}",
        "which colours can i have {o} in {t}",
        "please colour {o} {t}",
    ),
    "wrap": (
        "wrap {o} as a present {t}",
        "{o} is a gift for {n}, put a ribbon on it {t}",
        "do you have gift paper for {o} {t}",
        "pack {o} nicely, it is for a birthday {t}",
        "i give {o} to {n} {t}, please wrap it",
    ),
    "reserve": (
        "reserve {o} for {n} {t}",
        "keep {o} aside for me {t}",
        "is {o} in the {p} still free to book {t}",
        "i want to book {o} {t}",
        "hold {o} until i come {t}",
    ),
    "swap": (
        "i would swap {o} for something else {t}",
        "can i exchange {o} at the {p} {t}",
        "{n} offers a trade, {o} against another {t}",
        "change {o} for a different one {t}",
        "who will trade with me for {o} {t}",
    ),
}

# Task -> how many actions, how many things (0: whatever thing), and whether there are sentences of no intent.
SHAPES: dict[str, tuple[int, int, bool]] = {
    "trec_coarse": (6, 0, False),
    "trec_fine": (10, 5, False),
    "banking77": (11, 7, False),
    "clinic150": (15, 10, True),
    "nlu": (17, 4, False),
}


@dataclass(frozen=True, slots=True)
class Intent:
    """action "": anything that is none of the others. thing "": whatever thing."""

    action: str
    thing: str


class Speaker:
    """Says things, from one random state."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._other: Iterator[str] | None = None

    def utterance(self, intent: Intent) -> str:
        rng = self._rng
        if not intent.action:
            if self._other is None:
                self._other = sentences(rng.getrandbits(48))
            return next(self._other).lower().rstrip(".!?")
        thing = intent.thing or rng.choice(lx.THINGS)
        adjective = f"{rng.choice(lx.ADJECTIVES)} " if rng.random() < 0.7 else ""
        return rng.choice(ACTIONS[intent.action]).format(
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
