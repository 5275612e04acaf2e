"""Transcripts in the form of MRCR v2, written from the templates of kleval's MRCR conversations.

As in the source (`mrcr_utils.py`): two worked examples, then turns `User: Write a poem about ducks in formal style.`, each with another
text; nearly all requests come as often as the one that is asked for, in groups that are interleaved at random; the last turn asks for
the n-th text of a request behind twelve random characters. There a language model wrote the texts; here a style is a text's beginning.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from kleval.tasks.draws import distinct
from kleval.tasks.mrcr.conversations import BANK, EVALUATED, Conversation, random_string, text_of, turn_of
from kleval.tasks.prose import sentences
from kleval.types import Message

TRANSCRIPTS_VERSION = "transcripts-1"
HASH_CHARS = 12
NTH, FORMATS, STYLES = (BANK["v2"][key] for key in ("nth", "formats", "styles"))
_ACTIVE = 6  # groups that are interleaved at a time
_FRAME = "======== {}EXAMPLE {} ========\n\n"
_SHOWN = 2  # examples
# What stands around the turns before the last one.
AROUND = f"{_FRAME.format('', _SHOWN + 1)}{{turns}}User: Prepend "
Key = tuple[str, str, str]  # format, topic, style


@dataclass(frozen=True, slots=True)
class Transcript(Conversation):
    """A conversation that is one message of the user, examples first. Its `example` is empty."""

    examples: str = field(repr=False)

    def messages(self, fillers: Sequence[str]) -> tuple[Message, ...]:
        turns = Conversation.messages(self, fillers)
        return ({"role": "user", "content": f"{self.examples}{_flat(turns)}Assistant:"},)


def transcript(rng: random.Random, n_needles: int, text_chars: int) -> Transcript:
    """text_chars: about how long texts are; 0 for single short sentences."""
    lines = sentences(rng.getrandbits(64))
    key = _key(rng)
    needles = _texts(rng, lines, key, n_needles, text_chars)
    wanted, mark = rng.randrange(n_needles), random_string(rng, HASH_CHARS)
    examples, places = _examples(rng, lines), tuple(sorted(rng.random() for _ in range(n_needles)))
    # The other turns draw from a state of their own: how many there are must not change anything else.
    others = _groups(random.Random(rng.getrandbits(64)), key, n_needles, text_chars)
    return Transcript("", request(key), needles, places, wanted, mark, question(mark, wanted, key), others, examples)


def request(key: Key) -> str:
    return str(BANK["v2"]["request"]).format(*key)


def question(mark: str, wanted: int, key: Key) -> str:
    """The last turn. wanted: which of the equal requests, from 0."""
    return str(BANK["v2"]["question"]).format(*key, mark=mark, nth=NTH[wanted])


def _key(rng: random.Random) -> Key:
    return rng.choice(tuple(FORMATS)), rng.choice(EVALUATED.topics), rng.choice(tuple(STYLES))


def _texts(rng: random.Random, lines: Iterator[str], key: Key, n: int, text_chars: int) -> tuple[str, ...]:
    """n different ones."""
    what, _, style = key
    return distinct(lambda: STYLES[style] + text_of(rng, lines, FORMATS[what], text_chars), n)


def _groups(rng: random.Random, asked: Key, n: int, text_chars: int) -> Iterator[str]:
    """Turns `request\\ntext` without end, every request n times and none again after that, except that keys run out."""
    lines, used = sentences(rng.getrandbits(64)), {asked}
    active: list[list[str]] = []
    while True:
        while len(active) < _ACTIVE:
            key = _key(rng)
            if key not in used:
                used.add(key)
                active.append([f"{request(key)}\n{text}" for text in _texts(rng, lines, key, n, text_chars)])
            elif len(used) * 2 > len(FORMATS) * len(EVALUATED.topics) * len(STYLES):
                used = {asked}
        group = rng.choice(active)
        yield group.pop(0)
        if not group:
            active.remove(group)


def _flat(turns: Sequence[Message]) -> str:
    return "".join(f"{turn['role'].capitalize()}: {turn['content']}\n\n" for turn in turns)


def _examples(rng: random.Random, lines: Iterator[str]) -> str:
    """Two, of short texts: the first of two requests, and the second text of one request."""
    one, other, same = _key(rng), _key(rng), _key(rng)
    while other == one:
        other = _key(rng)
    apart = (*_texts(rng, lines, one, 1, 0), *_texts(rng, lines, other, 1, 0))
    marks = [random_string(rng, HASH_CHARS) for _ in range(_SHOWN)]
    return framed((one, other), apart, marks[0], 0, (same, same), _texts(rng, lines, same, 2, 0), marks[1], 1)


def framed(*examples: Any) -> str:
    """The examples as they stand before a transcript. Of each, one after the other: keys, texts, random characters, place asked for."""
    shown = f"{BANK['introduction']}\n"
    for number, (keys, texts, mark, wanted) in enumerate(zip(*[iter(examples)] * 4, strict=True), 1):
        turns = [turn for key, text in zip(keys, texts, strict=True) for turn in turn_of(request(key), text)]
        asked = turn_of(question(mark, wanted, keys[wanted]), mark + texts[wanted])
        shown += f"{_FRAME.format('', number)}{_flat([*turns, *asked])}{_FRAME.format('END ', number)}"
    return shown + _FRAME.format("", len(examples) // 4 + 1)
