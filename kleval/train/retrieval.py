"""Training samples in RULER's shapes: needles, pairs, tracking, frequent words, questions over documents; and plain copying.

Each maker fills about `room` tokens with a text and asks about it, several questions one after the other where the text has
answers for them, the more the longer it is: the loss is on answers alone, so a text that is asked once teaches little. The first
question is exactly RULER's.
"""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

from kleval.tasks.ruler.cwe import numbered
from kleval.train import material, templates
from kleval.train.desk import Desk, NoRoom, Piece, endless, scattered

# What a needle question looks like: (kind of value, the haystack, keys, values of each, whether all keys are asked for), and its share.
FORMS: dict[tuple[str, str, int, int, bool], float] = {
    ("numbers", "noise", 1, 1, True): 0.12,
    ("numbers", "prose", 1, 1, True): 0.12,
    ("uuids", "prose", 1, 1, True): 0.10,
    ("numbers", "prose", 4, 1, False): 0.22,
    ("numbers", "needles", 0, 1, False): 0.14,
    ("uuids", "needles", 0, 1, False): 0.08,
    ("numbers", "prose", 1, 4, True): 0.11,
    ("numbers", "prose", 4, 1, True): 0.11,
}
# A text of so many tokens is asked once more for every so many (once for every `_PER_UUID`, where answers are UUIDs), and has as many
# more needles: what is supervised would otherwise thin out with the length.
_PER_QUESTION, _PER_UUID, _MOST_QUESTIONS = 110, 250, 12


def copy(desk: Desk, rng: random.Random, room: int) -> list[Piece]:
    """Spans of random words, half the time made-up ones, that come again; the first words of the repetition are the cue."""
    pieces: list[Piece] = []
    while room > 24:
        n = rng.randrange(6, max(7, min(32, room // 3)))
        span = rng.choices(desk.plain, k=n)
        if rng.random() < 0.5:
            span = desk.taken((f" {desk.words.word(rng)}" for _ in range(n)), room // 3)
            if len(span) < 4:
                break
            n = desk.count("".join(span))
        cue = rng.choice((1, 2, 3))
        gap = " " + " ".join(desk.prose(rng, rng.randrange(0, max(1, room - 2 * n)))) if rng.random() < 0.5 else ""
        pieces += [("".join(span) + gap + "".join(span[:cue]), False), ("".join(span[cue:]), True)]
        room -= 2 * n + desk.count(gap)
    if not pieces:
        raise NoRoom
    return pieces


def pairs(desk: Desk, rng: random.Random, room: int) -> list[Piece]:
    """Needles between sentences, all asked for in another order by their own beginnings."""
    n = rng.randrange(2, max(3, min(24, room // 45)))
    keys = list(dict.fromkeys(desk.words.key(rng) if rng.random() < 0.6 else desk.words.word(rng) for _ in range(n)))
    facts = [(key, templates.needle("numbers", key, material.number(rng))) for key in keys]
    tail: list[Piece] = []
    for _, fact in rng.sample(facts, len(facts)):
        cue, _, value = fact.rpartition(":")
        tail += [(f" {cue}:", False), (value, True)]
    space = desk.left(room, *(text for text, _ in tail), *(fact for _, fact in facts))
    join, fillers = (" ", desk.prose(rng, space)) if rng.random() < 0.5 else ("\n", desk.noise(rng, space))
    return [(join.join(scattered(rng, [fact for _, fact in facts], fillers)), False), *tail]


def needle(desk: Desk, rng: random.Random, room: int) -> list[Piece]:
    kind, hay, n_keys, n_values, together = rng.choices(list(FORMS), list(FORMS.values()))[0]
    small = room < 200
    make_value = material.number if kind == "numbers" else material.uuid
    make_key = material.uuid if hay == "needles" and kind == "uuids" else desk.words.key
    per = _PER_UUID if kind == "uuids" else _PER_QUESTION
    further = 0  # needles beside those of RULER's form, each asked for on its own
    if hay == "needles":
        n_keys = max(2, (room - 60) // (60 if kind == "uuids" else 22))
    elif small:
        n_keys, n_values = min(2, n_keys), min(2, n_values)
    elif n_keys * n_values > 1 and rng.random() < 0.5:
        n_keys, n_values = (rng.randint(2, n_keys), 1) if n_keys > 1 else (1, rng.randint(2, n_values))
    elif rng.random() < 0.7:
        further = min(_MOST_QUESTIONS, room // (per * n_values)) - n_keys
    keys = [make_key(rng) for _ in range(n_keys + max(0, further))]
    facts = [(key, make_value(rng)) for key in keys for _ in range(n_values)]
    rng.shuffle(facts)
    if together:
        asked = [keys[:n_keys]]
        if len(keys) > 1 and rng.random() < 0.7:
            asked += [[key] for key in rng.sample(keys, min(len(keys), max(2, further)))]
    else:
        most = min(_MOST_QUESTIONS, 1 + room // per)
        asked = [[key] for key in rng.sample(keys, min(len(keys), most))]
    head, tail = "", list[Piece]()
    for these in asked:
        answers = [value for key in these for owner, value in facts if owner == key]
        head, question, prefix = templates.question(kind, these, len(answers))
        opening, repeated, closing = _around(prefix, templates.listed(these))
        tail += [(question + opening, False), (repeated, True), (closing, False)]
        tail += [(f" {templates.listed(answers)}.", True)]
    head = templates.question(kind, asked[0], len(asked[0]) * n_values)[0]
    needles = [templates.needle(kind, *fact) for fact in facts]
    space = desk.left(room, head, *(text for text, _ in tail))
    if hay == "needles":
        must = {key for these in asked for key in these}
        kept = [text for (key, _), text in zip(facts, needles, strict=True) if key in must]
        others = [text for (key, _), text in zip(facts, needles, strict=True) if key not in must]
        body = "\n".join(scattered(rng, kept, desk.taken(others, desk.left(space, *kept, "\n" * len(kept)))))
    else:
        space = desk.left(space, *(f" {text}" for text in needles))
        fillers = desk.prose(rng, space) if hay == "prose" else desk.noise(rng, space)
        body = (" " if hay == "prose" else "\n").join(scattered(rng, needles, fillers))
    return [(head + body, False), *tail]


def _around(prefix: str, query: str) -> tuple[str, str, str]:
    """An answer prefix cut at what it repeats of the question, which is to be produced as well; blanks go with what follows."""
    before, _, after = prefix.partition(f" {query}")
    return before, f" {query}", after


def track(desk: Desk, rng: random.Random, room: int) -> list[Piece]:
    """Variable tracking, longer ones after a solved example as in RULER."""
    if room < 500 or rng.random() < 0.3:
        return _chain(desk, rng, room)
    example = _chain(desk, rng, min(500, room // 2))
    rest = room - sum(desk.count(text) for text, _ in example)
    return [*example, ("\n\n", False), *_chain(desk, rng, rest)]


def _chain(desk: Desk, rng: random.Random, room: int) -> list[Piece]:
    n_chains = rng.randint(1, max(2, room // 300)) if room > 150 and rng.random() < 0.5 else 1
    lines: list[str] = []
    asked: list[Piece] = []
    head = ""
    for _ in range(n_chains):
        names = [material.variable(rng) for _ in range(5 if room > 350 else rng.choice((2, 3, 4)))]
        value = material.assigned(rng)
        chain = [f"VAR {names[0]} = {value}", *(f"VAR {b} = VAR {a} " for a, b in pairwise(names))]
        lines = scattered(rng, chain, lines)
        head, tail, prefix = templates.track(value, len(names))
        asked += [(tail + prefix, False), (f" {' '.join(names)}", True)]
    space = desk.left(room, head, *(text for text, _ in asked), *(f"{line}\n" for line in lines))
    body = "\n".join(scattered(rng, lines, desk.noise(rng, space)))
    return [(head + body, False), *asked]


def common(desk: Desk, rng: random.Random, room: int) -> list[Piece]:
    """A numbered list, longer ones after a solved example, as in RULER; as many common words as the length allows."""
    if room < 400 or rng.random() < 0.3:
        return _list(desk, rng, room)
    example = _list(desk, rng, min(400, room // 2))
    rest = room - sum(desk.count(text) for text, _ in example)
    return [*example, ("\n", False), *_list(desk, rng, rest)]


def _list(desk: Desk, rng: random.Random, room: int) -> list[Piece]:
    head, tail, prefix = templates.common()
    space = desk.left(room, head, tail, prefix)
    n_common = min(10, max(1, space // 60))
    words = list(dict.fromkeys(desk.words.word(rng) for _ in range(n_common)))
    listed = words * rng.choice((3, 4, 6) if space > 500 else (3,) if space > 200 else (2,))
    space = desk.left(space, numbered(listed), " ", numbered(words))
    for word in desk.taken((f" 100. {desk.words.word(rng)}" for _ in endless(str)), space):
        listed.append(word.rpartition(" ")[2])
    rng.shuffle(listed)
    words.sort(key=listed.index)
    return [(head + numbered(listed) + tail + prefix, False), (f" {numbered(words)}", True)]


def frequent(desk: Desk, rng: random.Random, room: int) -> list[Piece]:
    head, tail, prefix = templates.count()
    words = ["...", *(material.coded_word(rng) for _ in range(rng.randrange(6, 14)))]
    weights = [1 / (i + 1) ** 2 for i in range(len(words))]
    drawn = desk.taken(
        (f" {rng.choices(words, weights)[0]}" for _ in endless(str)), desk.left(room, head, tail, prefix) - 24
    )
    counts = Counter(w[1:] for w in drawn if w != " ...")
    top = [w for w, _ in counts.most_common(3)]
    if len(top) < 3:
        raise NoRoom
    return [(head + "".join(drawn)[1:] + tail + prefix, False), (f" {' '.join(top)}.", True)]


def documents(desk: Desk, rng: random.Random, room: int) -> list[Piece]:
    """Questions over articles: of one article or of two, and more of the same and of other articles."""
    hops = 2 if room > 400 and rng.random() < 0.4 else 1
    first = rng.choice(desk.questions[hops - 1])
    head, tail, prefix = templates.article("\0")
    before, _, after = (tail + prefix).partition("\0")
    space = desk.left(room, head, before + first.question + after, f" {first.answers[0]}")
    n = room // _PER_QUESTION
    shown, more = desk.shown(rng, first.gold, space, lambda article: f"Document 10:\n{article.text}\n\n", n)
    asked = [(first.question, first.answers[0]), *more]
    pieces: list[Piece] = []
    for i, (question, answer) in enumerate(asked):
        pieces += [((before if i == 0 else "\n\nQuestion: ") + question + after, False), (f" {answer}", True)]
    body = "\n\n".join(f"Document {i}:\n{article.text}" for i, article in enumerate(shown, 1))
    return [(head + body, False), *pieces]
