"""The data of the nano recipe: an endless, seeded stream of token batches, the same for every architecture.

Every sample is a text with questions at its end; the loss is on answers only. Batch `i` depends on (seed, i) alone, so a
resumed run sees what an uninterrupted one would have seen. Kinds of sample (weights in `MIXTURE`):

- copy: spans of random tokens, later repeated; the first tokens of the repetition are the cue.
- pairs: `One of the special magic numbers for KEY is: VALUE.` lines between sentences, all asked for in another order.
- needle: RULER's needle question over prose, a repeated noise unit or other needles: one needle, several keys, values or queries.
- track: RULER's variable tracking. common, count: RULER's two frequency questions. article: questions over articles.

A sample that comes out longer than the batch is cut at its end, and then asks nothing or less: all of `article` at 256 tokens,
`count` at 128 and `common` at 1024, half of `needle` at 128 (measured with the shipped tokenizer).

Texts come from `material` and the `train` splits; see there for what keeps them apart from evaluation.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from kleval.tasks import articles, prose
from kleval.tasks.ruler.cwe import numbered
from kleval.tokenization import HFTokenizer
from kleval.train import material, templates
from kleval.types import UsageError

IGNORED = -100
MIXTURE = {"copy": 0.10, "pairs": 0.12, "needle": 0.44, "track": 0.12, "common": 0.08, "count": 0.05, "article": 0.09}
FAMILIES = ("ruler",)  # whose questions the kinds are of

SHORTEST = {"track": 256, "article": 256}  # kinds whose instructions and text do not fit below

Segment = tuple[list[int], bool]  # token ids, whether the model is to produce them


@dataclass(frozen=True, slots=True)
class Batch:
    ids: np.ndarray  # [B, T] int64, right padded with the end token
    labels: np.ndarray  # [B, T] int64: the next token where the model is to produce it, else IGNORED
    kinds: tuple[str, ...]  # per row


class Stream:
    """Batches of token ids. tokenizer: byte-level, with an end token. bank_size: how many sentences to draw texts from."""

    def __init__(self, tokenizer: HFTokenizer, seed: int, bank_size: int = 30_000) -> None:
        if tokenizer.eos_id is None:
            raise UsageError(
                f"tokenizer {tokenizer.name} has no end token: training needs one to teach where answers end"
            )
        self.tokenizer, self.eos_id, self.seed = tokenizer, tokenizer.eos_id, seed
        pieces = [tokenizer.decode([i]) for i in range(tokenizer.vocab_size)]
        self.words = material.WordMaker(pieces)
        source = prose.sentences(f"nano-{seed}", "train")
        self.bank = [next(source) for _ in range(bank_size)]
        self.bank_ids = [tokenizer.encode(" " + sentence) for sentence in self.bank]
        self.plain_ids = [i for i, piece in enumerate(pieces) if piece.strip().isalpha()]
        corpus = articles.corpus(400, f"nano-{seed}", "train")
        self.corpus = [tokenizer.encode(article.text) for article in corpus]
        self.questions = articles.questions(corpus, f"nano-{seed}", hops=1)
        self.makers: dict[str, Callable[[random.Random, int], list[Segment]]] = {
            "copy": self._copy,
            "pairs": self._pairs,
            "needle": self._needle,
            "track": self._track,
            "common": self._common,
            "count": self._count,
            "article": self._article,
        }

    def batch(self, index: int, length: int, rows: int) -> Batch:
        """Batch number `index` at `length` tokens per row."""
        ids = np.full((rows, length), self.eos_id, dtype=np.int64)
        labels = np.full((rows, length), IGNORED, dtype=np.int64)
        kinds = []
        kinds_at_length = [k for k in MIXTURE if length >= SHORTEST.get(k, 0)]
        for row in range(rows):
            rng = random.Random(f"{self.seed}/{index}/{row}")
            kind = rng.choices(kinds_at_length, weights=[MIXTURE[k] for k in kinds_at_length])[0]
            kinds.append(kind)
            flat, produced = _flatten(self.makers[kind](rng, length))
            flat, produced = flat[: length + 1], produced[: length + 1]
            n = len(flat)
            ids[row, : min(n, length)] = flat[:length]
            target = np.where(produced[1:n], flat[1:n], IGNORED)
            labels[row, : n - 1] = target
        return Batch(ids, labels, tuple(kinds))

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text)

    def _filler(self, rng: random.Random, budget_tokens: int, join: str) -> list[list[int]]:
        """Pieces of text of at most budget_tokens together: running prose by sentences, or one unit over and over by lines."""
        if join == " ":
            start = rng.randrange(len(self.bank_ids))
            chosen = (self.bank_ids[(start + i) % len(self.bank_ids)] for i in range(len(self.bank_ids)))
        else:
            picked = rng.sample(range(len(self.bank)), rng.randrange(2, 6))
            unit = self._encode(join + " ".join(self.bank[i] for i in picked))
            chosen = (unit for _ in range(1 + max(0, budget_tokens) // len(unit)))
        out: list[list[int]] = []
        for piece in chosen:
            budget_tokens -= len(piece)
            if budget_tokens < 0:
                break
            out.append(piece)
        return out

    def _answer(self, text: str) -> Segment:
        return [*self._encode(text), self.eos_id], True

    def _copy(self, rng: random.Random, length: int) -> list[Segment]:
        segments: list[Segment] = []
        room = length
        while room > 24:
            n = rng.randrange(6, max(7, min(32, room // 3)))
            span = rng.choices(self.plain_ids, k=n)
            gap = [
                t for s in self._filler(rng, rng.randrange(0, max(1, room - 2 * n)), rng.choice((" ", "\n"))) for t in s
            ]
            cue = rng.choice((1, 2, 3))
            segments += [(span + gap + span[:cue], False), (span[cue:], True)]
            room -= 2 * n + len(gap)
        return segments

    def _scatter(self, rng: random.Random, needles: Sequence[str], budget_tokens: int) -> list[int]:
        """Needles, in their order, at random places between sentences that fill the rest of the budget."""
        join = rng.choice((" ", "\n"))
        encoded = [self._encode(join + needle) for needle in needles]
        sentences = self._filler(rng, budget_tokens - sum(map(len, encoded)), join)
        places = sorted(rng.choices(range(len(sentences) + 1), k=len(encoded)))
        for shift, (place, needle) in enumerate(zip(places, encoded, strict=True)):
            sentences.insert(place + shift, needle)
        return [t for s in sentences for t in s]

    def _pairs(self, rng: random.Random, length: int) -> list[Segment]:
        per_pair = 40
        n = rng.randrange(2, max(3, min(24, length // (2 * per_pair))))
        keys = [self.words.key(rng) if rng.random() < 0.5 else self.words.word(rng) for _ in range(n)]
        values = [material.number(rng) for _ in keys]
        facts = [templates.needle("numbers", k, v) for k, v in zip(keys, values, strict=True)]
        asked = rng.sample(range(n), n)
        tail: list[Segment] = []
        for i in asked:
            cue, _, _ = facts[i].rpartition(":")
            tail += [(self._encode(" " + cue + ":"), False), self._answer(f" {values[i]}.")]
        used = sum(len(ids) for ids, _ in tail)
        return [(self._scatter(rng, facts, length - used), False), *tail]

    def _needle(self, rng: random.Random, length: int) -> list[Segment]:
        wide = length >= 256
        crowd = rng.random() < 0.25
        kind = "uuids" if wide and rng.random() < 0.15 else "numbers"
        make_key = material.uuid if crowd and kind == "uuids" else self.words.key
        make_value = material.number if kind == "numbers" else material.uuid
        n_keys = 1 if crowd else rng.choice((1, 1, 1, 2, 4)) if wide else rng.choice((1, 1, 2))
        n_values = rng.choice((1, 1, 2, 4)) if wide and n_keys == 1 and not crowd else 1
        n_queries = rng.choice((1, 1, 2, n_keys)) if wide else 1
        keys = [make_key(rng) for _ in range(n_keys)]
        asked = rng.sample(keys, min(n_queries, n_keys))
        if crowd:
            keys += [make_key(rng) for _ in range(length // (60 if kind == "uuids" else 25))]
        facts = [(key, make_value(rng)) for key in keys for _ in range(n_values)]
        rng.shuffle(facts)
        answers = [value for key, value in facts if key in asked]
        needles = [templates.needle(kind, key, value) for key, value in facts]
        frame = templates.question(kind, asked, len(answers))
        return self._ask(rng, length, frame, needles, f" {templates.listed(answers)}.", keep=asked if crowd else ())

    def _ask(
        self,
        rng: random.Random,
        length: int,
        frame: tuple[str, str, str],
        needles: Sequence[str],
        answer: str,
        keep: Sequence[str] = (),
    ) -> list[Segment]:
        """A question about needles scattered through text that fills the rest of the length.

        keep: with it, needles are the text: those that hold one of these stay, others while there is room.
        """
        head, tail, prefix = (self._encode(part) for part in frame)
        produced = self._answer(answer)
        room = length - len(head) - len(tail) - len(prefix) - len(produced[0])
        body = self._crowd(needles, keep, room) if keep else self._scatter(rng, needles, room)
        return [(head + body + tail + prefix, False), produced]

    def _crowd(self, needles: Sequence[str], keep: Sequence[str], budget_tokens: int) -> list[int]:
        encoded = [self._encode(("\n" if i else "") + needle) for i, needle in enumerate(needles)]
        kept = {i for i, needle in enumerate(needles) if any(k in needle for k in keep)}
        budget_tokens -= sum(len(encoded[i]) for i in kept)
        for i, ids in enumerate(encoded):
            if i not in kept and len(ids) <= budget_tokens:
                kept.add(i)
                budget_tokens -= len(ids)
        return [t for i in sorted(kept) for t in encoded[i]]

    def _track(self, rng: random.Random, length: int) -> list[Segment]:
        """Variable tracking, longer ones after a solved example as in RULER."""
        if length < 512 or rng.random() < 0.5:
            return self._chain(rng, length)
        (text, _), (answer, _) = self._chain(rng, length // 2)
        example = text + answer[:-1] + self._encode("\n\n")
        return [(example, False), *self._chain(rng, length - len(example))]

    def _chain(self, rng: random.Random, length: int) -> list[Segment]:
        names = [material.variable(rng) for _ in range(rng.choice((2, 3, 4, 5)))]
        value = material.assigned(rng)
        lines = [f"VAR {names[0]} = {value}", *(f"VAR {b} = VAR {a} " for a, b in pairwise(names))]
        return self._ask(rng, length, templates.track(value, len(names)), lines, " " + " ".join(names))

    def _common(self, rng: random.Random, length: int) -> list[Segment]:
        """A numbered list, longer ones after a solved example, as in RULER; as many common words as the length allows."""
        if length < 512 or rng.random() < 0.3:
            return self._list(rng, length)
        (text, _), (answer, _) = self._list(rng, length // 2)
        example = text + answer[:-1] + self._encode("\n")
        return [(example, False), *self._list(rng, length - len(example))]

    def _list(self, rng: random.Random, length: int) -> list[Segment]:
        head, tail, prefix = (self._encode(part) for part in templates.common())
        room = length - len(head) - len(tail) - len(prefix)
        n_common = min(10, max(1, room // 40))
        words = list(dict.fromkeys(self.words.word(rng) for _ in range(n_common)))
        listed = words * rng.choice((3, 4, 6) if room > 200 else (2, 3))
        room -= sum(len(self._encode(f" {w}")) + 3 for w in listed)
        room -= len(self._encode(" " + numbered(words)))
        while room > 8:
            listed.append(self.words.word(rng))
            room -= len(self._encode(f" {listed[-1]}")) + 4
        rng.shuffle(listed)
        words.sort(key=listed.index)
        return [(head + self._encode(numbered(listed)) + tail + prefix, False), self._answer(" " + numbered(words))]

    def _count(self, rng: random.Random, length: int) -> list[Segment]:
        words = ["...", *(material.coded_word(rng) for _ in range(rng.randrange(6, 14)))]
        head, tail, prefix = (self._encode(part) for part in templates.count())
        encoded = {w: self._encode(" " + w) for w in words}
        room = length - len(head) - len(tail) - len(prefix) - 32
        drawn: list[str] = []
        while room > 0:
            word = rng.choices(words, [1 / (i + 1) ** 2 for i in range(len(words))])[0]
            drawn.append(word)
            room -= len(encoded[word])
        top = [w for w, _ in Counter(w for w in drawn if w in words[1:]).most_common(3)]
        body = [t for w in drawn for t in encoded[w]]
        return [(head + body + tail + prefix, False), self._answer(f" {' '.join(top)}.")]

    def _article(self, rng: random.Random, length: int) -> list[Segment]:
        question = rng.choice(self.questions)
        head, tail, prefix = (self._encode(part) for part in templates.article(question.question))
        answer = self._answer(" " + question.answers[0])
        documents = [self.corpus[g] for g in question.gold]
        room = length - len(head) - len(tail) - len(prefix) - len(answer[0]) - sum(len(d) + 6 for d in documents)
        while room > 0:
            extra = rng.choice(self.corpus)
            room -= len(extra) + 6
            if room > 0:
                documents.append(extra)
        rng.shuffle(documents)
        body: list[int] = []
        for i, document in enumerate(documents):
            body += self._encode(f"{'' if i == 0 else chr(10) * 2}Document {i + 1}:\n") + document
        return [(head + body + tail + prefix, False), answer]


def _flatten(segments: list[Segment]) -> tuple[np.ndarray, np.ndarray]:
    flat = np.array([t for ids, _ in segments for t in ids], dtype=np.int64)
    produced = np.array([flag for ids, flag in segments for _ in ids], dtype=bool)
    return flat, produced
