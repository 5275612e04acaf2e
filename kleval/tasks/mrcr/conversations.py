"""Conversations in the shape of openai/mrcr, written from templates (`texts.toml`) over kleval's own prose.

The user asks for small texts ("write a poem about the lamp"), the assistant writes them. One request comes 2, 4 or 8
times, with another text each time; the others share its kind of text or its subject, or neither. The last message asks
for the n-th of the equal ones with a random string before it. As in the official data, the first message begins with a
worked example.
"""

from __future__ import annotations

import random
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any

from kleval.tasks import lexicon as lx
from kleval.tasks import packaged
from kleval.tasks.draws import distinct
from kleval.tasks.plain_editions import Asked, spread
from kleval.tasks.prose import Split, indefinite, sentences
from kleval.types import Message

CONVERSATIONS_VERSION = "conversations-2"
PREFIX_CHARS = 10
BANK = packaged.load("mrcr/texts.toml")
_NEAR_PERCENT = 25
_SHORTEST, _LONGEST = 0.6, 1.3  # of the wanted length of a text
_SHORT_SENTENCE_CHARS = 60
# kind -> what comes before the sentences (with {name}, {place}, {day}), between them, and behind.
KINDS: dict[str, tuple[str, str, str]] = {kind: tuple(parts) for kind, parts in BANK["kinds"].items()}
_TOPICS = (*(f"the {noun}" for noun in (*lx.THINGS, *lx.PLACES, *lx.PEOPLE)), *lx.ABSTRACTS)
ORDINALS: tuple[str, ...] = tuple(BANK["ordinals"])

Request = tuple[str, str]  # kind, topic


@dataclass(frozen=True, slots=True)
class Conversation:
    """wanted: which of the needles, from 0. fillers: other turns, `request\\nanswer`, without end. places: where each
    needle stands, as a share of the other turns."""

    example: str = field(repr=False)
    request: str
    needles: tuple[str, ...] = field(repr=False)
    places: tuple[float, ...]
    wanted: int
    prefix: str
    question: str
    fillers: Iterator[str] = field(repr=False)

    @property
    def reference(self) -> str:
        return self.prefix + self.needles[self.wanted]

    def positions(self, n_fillers: int) -> list[int]:
        """Turn of every needle, counted from 0, among that many others."""
        return [int(place * (n_fillers + 1)) + i for i, place in enumerate(self.places)]

    def messages(self, fillers: Sequence[str]) -> tuple[Message, ...]:
        needles = [f"{self.request}\n{needle}" for needle in self.needles]
        turns = (turn.partition("\n") for turn in spread(needles, self.places, fillers))
        first, *others = [message for asked, _, answered in turns for message in turn_of(asked, answered)]
        return (
            {**first, "content": self.example + first["content"]},
            *others,
            {"role": "user", "content": self.question},
        )

    def asked(self) -> Asked:
        """To be filled with other turns."""

        def told(n_fillers: int) -> tuple[tuple[str, ...], dict[str, Any]]:
            n = len(self.needles)
            turn, turns = self.positions(n_fillers)[self.wanted], n_fillers + n
            meta = {"prefix": self.prefix, "n_needles": n, "request": self.request, "wanted": self.wanted + 1}
            return references, {**meta, "desired_msg_index": 2 * turn + 1, "total_messages": 2 * turns + 1}

        references = (self.reference,)
        return Asked(self.messages, references, pieces=self.fillers, told=told)


@dataclass(frozen=True, slots=True)
class Matter:
    """Of what conversations are made. topics: what texts are about; prefix_chars: of the random string before the answer; passages:
    sentences of the user's documents, which the other turns are then made of."""

    topics: Sequence[str] = _TOPICS
    prefix_chars: int = PREFIX_CHARS
    split: Split = "eval"
    passages: Sequence[str] = ()


EVALUATED = Matter()


def turn_of(asked: str, answered: str) -> tuple[Message, Message]:
    return {"role": "user", "content": asked}, {"role": "assistant", "content": answered}


def conversation(rng: random.Random, n_needles: int, text_chars: int, matter: Matter = EVALUATED) -> Conversation:
    """text_chars: about how long the assistant's texts are; 0 for a single short sentence."""
    lines = sentences(rng.getrandbits(64), matter.split)
    kind, topic = rng.choice(tuple(KINDS)), rng.choice(matter.topics)
    needles = distinct(lambda: text_of(rng, lines, kind, text_chars), n_needles)
    wanted = rng.randrange(n_needles)
    prefix = random_string(rng, matter.prefix_chars)
    example = _example(rng, lines, (kind, topic), matter)
    places = tuple(sorted(rng.random() for _ in range(n_needles)))
    # The other turns draw from a state of their own: how many there are must not change anything else.
    state, own = random.Random(rng.getrandbits(64)), matter.passages
    fillers = _read_aloud(state, own, text_chars) if own else _fillers(state, (kind, topic), text_chars, matter)
    question = final_question(prefix, wanted, kind, topic)
    return Conversation(example, _request(kind, topic), needles, places, wanted, prefix, question, fillers)


def _request(kind: str, topic: str) -> str:
    return f"write {indefinite(kind)} about {topic}"


def final_question(prefix: str, wanted: int, kind: str, topic: str) -> str:
    """The last message. wanted: which of the equal requests, from 0."""
    return str(BANK["question"]).format(prefix=prefix, nth=ORDINALS[wanted], kind=kind, topic=topic)


def random_string(rng: random.Random, n_chars: int) -> str:
    """What an answer has to begin with."""
    return "".join(rng.choices(string.ascii_letters + string.digits, k=n_chars))


def text_of(rng: random.Random, lines: Iterator[str], kind: str, text_chars: int) -> str:
    """A text of one of KINDS; 0 characters for a single short sentence."""
    before, between, behind = KINDS[kind]
    wanted_chars = text_chars * rng.uniform(_SHORTEST, _LONGEST)
    taken = [next(line for line in lines if text_chars or len(line) <= _SHORT_SENTENCE_CHARS)]
    chars = len(taken[0])
    while chars < wanted_chars:
        taken.append(next(lines))
        chars += len(taken[-1]) + len(between)
    frame = {"name": rng.choice(lx.NAMES), "place": rng.choice(lx.PLACES), "day": rng.choice(BANK["days"])}
    return before.format(**frame) + between.join(taken) + behind.format(**frame)


def _other(rng: random.Random, key: Request, matter: Matter) -> Request:
    """Another request than `key`."""
    while True:
        kind, topic = rng.choice(tuple(KINDS)), rng.choice(matter.topics)
        near = rng.randrange(100)
        if near < _NEAR_PERCENT:
            kind = key[0]
        elif near < 2 * _NEAR_PERCENT:
            topic = key[1]
        if (kind, topic) != key:
            return kind, topic


def _example(rng: random.Random, lines: Iterator[str], key: Request, matter: Matter) -> str:
    kind, topic = _other(rng, key, matter)
    texts = [text_of(rng, lines, kind, 0) for _ in range(2)]
    wanted, prefix = rng.randrange(2), random_string(rng, matter.prefix_chars)
    turns = "".join(f"User: {_request(kind, topic)}\nAssistant: {text}\n" for text in texts)
    asked = f"User: {final_question(prefix, wanted, kind, topic)}\nAssistant: {prefix}{texts[wanted]}\n"
    return example_frame(turns + asked)


def example_frame(turns: str) -> str:
    """How worked turns are shown before the first message."""
    return f"{BANK['introduction']}\n\n======EXAMPLE======\n{turns}======END EXAMPLE======\n\n"


def _fillers(rng: random.Random, key: Request, text_chars: int, matter: Matter) -> Iterator[str]:
    lines = sentences(rng.getrandbits(64), matter.split)
    while True:
        kind, topic = _other(rng, key, matter)
        yield f"{_request(kind, topic)}\n{text_of(rng, lines, kind, text_chars)}"


def _read_aloud(rng: random.Random, passages: Sequence[str], text_chars: int) -> Iterator[str]:
    """Turns that read on in the user's documents, from a random place, round and round."""
    lines = islice(cycle(passages), rng.randrange(len(passages)), None)
    while True:
        wanted, taken = text_chars * rng.uniform(_SHORTEST, _LONGEST), [next(lines)]
        while sum(map(len, taken)) < wanted:
            taken.append(next(lines))
        yield f"{BANK['read_on']}\n{' '.join(taken)}"
