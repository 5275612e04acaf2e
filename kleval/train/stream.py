"""The data of the nano recipe: an endless, seeded stream of token batches, the same for every architecture.

Every sample is a text with questions; the loss is on answers only. Batch `i` depends on (seed, i) and its length alone, so a
resumed run sees what an uninterrupted one would have seen. Kinds of sample and their shares are `MIXTURE`, one or more for each
column of the builtin long suite; `retrieval` has RULER's, `reading` the others. Texts come from `material` and the `train` splits;
see there for what keeps them apart from evaluation.

A row is one sample of about the whole length, or several shorter ones one after the other, each closed by the end token. No
sample is ever cut: one that came out longer than its room is made anew with less, and then a kind that fits is taken. A sample's
answer tokens together weigh the square root of their number: a copied function does not drown a number of four tokens.
"""

from __future__ import annotations

import random

import numpy as np

from kleval.tokenization import HFTokenizer
from kleval.train import reading, retrieval
from kleval.train.desk import Desk, Maker, NoRoom, Piece
from kleval.train.loop import IGNORED, Batch

# kind -> maker, share of the samples, fewest tokens that a sample of it takes.
MIXTURE: dict[str, tuple[Maker, float, int]] = {
    "copy": (retrieval.copy, 0.04, 32),
    "pairs": (retrieval.pairs, 0.08, 64),
    "needle": (retrieval.needle, 0.22, 64),
    "track": (retrieval.track, 0.10, 80),
    "common": (retrieval.common, 0.05, 100),
    "frequent": (retrieval.frequent, 0.04, 100),
    "documents": (retrieval.documents, 0.07, 200),
    "conversation": (reading.conversation, 0.07, 250),
    "labels": (reading.labels, 0.07, 100),
    "exam": (reading.exam, 0.08, 160),
    "lookup": (reading.lookup, 0.06, 200),
    "function": (reading.function, 0.05, 200),
    "library": (reading.from_library, 0.04, 400),
    "commit": (reading.commit, 0.03, 250),
}
FAMILIES = ("ruler", "mrcr", "helmet_icl", "longbench2", "frames", "repoqa", "lca")  # whose questions the kinds are of
WHOLE = 0.5  # rows of one sample; the others are packed
SHORTEST = 64
_ATTEMPTS = 4
_SHRINK = 0.9


class Stream:
    """Batches of token ids. tokenizer: with an end token. bank_size: how many sentences to draw texts from."""

    def __init__(self, tokenizer: HFTokenizer, seed: int, bank_size: int = 30_000) -> None:
        self.seed, self.desk = seed, Desk(tokenizer, seed, bank_size)

    def batch(self, index: int, length: int, rows: int) -> Batch:
        """Batch number `index` at `length` tokens per row."""
        ids = np.full((rows, length), self.desk.eos_id, dtype=np.int64)
        labels = np.full((rows, length), IGNORED, dtype=np.int64)
        kinds = np.zeros((rows, length), dtype=np.uint8)
        weights = np.zeros((rows, length), dtype=np.float32)
        for row in range(rows):
            rng = random.Random(f"{self.seed}/{index}/{row}")
            at, whole = 0, rng.random() < WHOLE
            while (room := length - at) >= SHORTEST:
                wanted = room if whole else int(min(room, SHORTEST * (length / SHORTEST) ** rng.random()))
                kind, tokens, produced = self.sample(rng, wanted)
                n = len(tokens) - 1  # the last token is only predicted
                ids[row, at : at + n] = tokens[:-1]
                labels[row, at : at + n] = np.where(produced[1:], tokens[1:], IGNORED)
                kinds[row, at : at + n] = kind
                weights[row, at : at + n] = produced.sum() ** -0.5
                at += n + 1  # the end token stands there
        return Batch(ids, labels, kinds, weights)

    def shares(self) -> dict[str, float]:
        """Kind -> its share of the samples, where all fit."""
        return {name: share for name, (_, share, _) in MIXTURE.items()}

    def sample(self, rng: random.Random, room: int) -> tuple[int, np.ndarray, np.ndarray]:
        """(kind, ids, whether each is to be produced) of at most room + 1 tokens, the end token included."""
        while True:
            fitting = {name: share for name, (_, share, least) in MIXTURE.items() if least <= room}
            kind = rng.choices(list(fitting), list(fitting.values()))[0]
            made = self.made(MIXTURE[kind][0], rng, room)
            if made is not None:
                return list(MIXTURE).index(kind), *made

    def made(self, maker: Maker, rng: random.Random, room: int) -> tuple[np.ndarray, np.ndarray] | None:
        """A sample of that maker, or None where it found no room for one."""
        aim = room
        for _ in range(_ATTEMPTS):
            try:
                pieces = maker(self.desk, rng, aim)
            except NoRoom:
                continue
            tokens, produced = self.encoded(pieces)
            if len(tokens) <= room + 1:
                return tokens, produced
            aim = int(_SHRINK * aim) - (len(tokens) - room)
        return None

    def encoded(self, pieces: list[Piece]) -> tuple[np.ndarray, np.ndarray]:
        """Ids of the pieces and the end token, neighbours of one sort encoded together."""
        tokens: list[int] = []
        produced: list[bool] = []
        text, flag = "", False
        for part, wanted in [*pieces, ("", not pieces[-1][1])]:
            if wanted != flag:
                found = self.desk.tokenizer.encode(text)
                tokens += found
                produced += [flag] * len(found)
                text, flag = "", wanted
            text += part
        return np.array([*tokens, self.desk.eos_id], dtype=np.int64), np.array([*produced, True], dtype=bool)
