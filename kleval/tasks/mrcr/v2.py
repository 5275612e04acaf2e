"""The tasks `mrcr_v2/2needle`, `mrcr_v2/4needle` and `mrcr_v2/8needle`: one call each, the transcript as the user's message.

score: MRCR's, under its protocol `google-v2`, here with random strings as long as Google's.

Transcripts are written from the templates of kleval's MRCR conversations. As in the source (`mrcr_utils.py`): two worked examples, then
turns `User: Write a poem about ducks in formal style.`, each with another text; nearly all requests come as often as the one that is
asked for, in groups that are interleaved at random; the last turn asks for the n-th text of a request behind twelve random characters.
There a language model wrote the texts; here a style is a text's beginning.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from kleval.tasks.draws import distinct
from kleval.tasks.likelihood import without
from kleval.tasks.mrcr import official
from kleval.tasks.mrcr.conversations import BANK, EVALUATED, Conversation, random_string, text_of, turn_of
from kleval.tasks.mrcr.task import GOOGLE, MrcrTask, filled_up
from kleval.tasks.plain_editions import MadeToSize
from kleval.tasks.prose import sentences
from kleval.tasks.sized import SizedTask, digest_of
from kleval.types import Message, Prompt, Sample, UsageError

TRANSCRIPTS_VERSION = "transcripts-1"
HASH_CHARS = 12
NTH, FORMATS, STYLES = (BANK["v2"][key] for key in ("nth", "formats", "styles"))
_ACTIVE = 6  # groups that are interleaved at a time
_FRAME = "======== {}EXAMPLE {} ========\n\n"
_SHOWN = 2  # examples
# What stands around the turns before the last one.
AROUND = f"{_FRAME.format('', _SHOWN + 1)}{{turns}}User: Prepend "
Key = tuple[str, str, str]  # format, topic, style
Shown = tuple[
    Sequence[Key], Sequence[str], str, int
]  # an example: keys and texts, random characters, which is asked for


class MrcrV2Task(MrcrTask):
    version = "1"
    own_protocols = (GOOGLE,)
    official_budget = "none"

    def __init__(self, n_needles: int, edition: str, protocol: str | None, data_dir: Path | None) -> None:
        if edition != "builtin":
            raise UsageError(
                f"mrcr_v2/{n_needles}needle is made by kleval and has no {edition} edition, Google's own files are not read:"
                " leave --edition out"
            )
        values = {"n_needles": n_needles, "longest": official.LONGEST_CHARS, "hash": HASH_CHARS}
        SizedTask.__init__(self, f"mrcr_v2/{n_needles}needle", edition, protocol, (GOOGLE,), values)
        self._open = partial(_builtin, self.id, self.version, n_needles)
        self.also_reads = ""

    def question_alone(self, sample: Sample) -> Prompt:
        """The last turn; the two examples stay."""
        return without(sample.prompt, AROUND, "{turns}", demonstrated=True)

    def _facts(self) -> Mapping[str, Any]:
        return {}

    def _template(self) -> str:
        return question("{hash}", 0, ("{format}", "{topic}", "{style}"))


def _builtin(task_id: str, task_version: str, n_needles: int) -> MadeToSize:
    """Filled up to ctx as MRCR's conversations are."""
    made = filled_up(task_id, task_version, n_needles, lambda rng, chars: transcript(rng, n_needles, chars))
    made.revision = f"kleval {TRANSCRIPTS_VERSION}"
    made.digest = digest_of(made.digest, TRANSCRIPTS_VERSION, FORMATS, STYLES)
    return made


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
    return framed(((one, other), apart, marks[0], 0), ((same, same), _texts(rng, lines, same, 2, 0), marks[1], 1))


def framed(*examples: Shown) -> str:
    """The examples as they stand before a transcript."""
    shown = f"{BANK['introduction']}\n"
    for number, (keys, texts, mark, wanted) in enumerate(examples, 1):
        turns = [turn for key, text in zip(keys, texts, strict=True) for turn in turn_of(request(key), text)]
        asked = turn_of(question(mark, wanted, keys[wanted]), mark + texts[wanted])
        shown += f"{_FRAME.format('', number)}{_flat([*turns, *asked])}{_FRAME.format('END ', number)}"
    return shown + _FRAME.format("", len(examples) + 1)


needles_2, needles_4, needles_8 = (partial(MrcrV2Task, n) for n in (2, 4, 8))
