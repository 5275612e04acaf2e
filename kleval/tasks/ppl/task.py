"""Negative log-likelihood of documents by position: the first ctx tokens of each, in buckets that double from 256 on.

A document is scored whole, from its begin token on, by one likelihood request per bucket: what stands before it is the prompt, the
bucket the continuation. Engines that share prefixes run the text once. Documents of fewer than ctx tokens are passed over at that ctx,
so that every bucket is over the same documents; of one document alone, successive pieces of ctx tokens are the documents.

Buckets end at white space, within a few tokens of their names; each is divided by the tokens that the engine scored in it. The first
word has nothing before it where a tokenizer has no begin token: it is given, not scored.

score: `1/ppl`, the geometric mean of the probability of a token, exp(-NLL) over the whole text, so that it lies in [0, 1] as every
score does. The NLL of each bucket, in nats per token, is in what was extracted (`kleval.tables.positions`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from kleval.tasks.base import InOrder
from kleval.tasks.texts import Document, Documents
from kleval.types import Completion, ContextTooSmall, Request, Sample, Score, TextTooShort, Tokenizer, Unfit

FIRST_BUCKET = 256
LEAST_TOKENS = 32
CLOSE = 0.004  # of a bucket's end, between what was aimed at and where it lies
ROUNDS = 8
LONGEST_WORD = 200  # characters that are looked through for white space
_WORD = re.compile(r"\s*\S+")


class PplTask(InOrder):
    """One file or folder."""

    version, metric, edition, protocol = "1", "1/ppl", "own", "ppl-1"

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self.id = f"ppl/{re.sub(r'[^A-Za-z0-9_.-]', '_', documents.name)}"
        self.data_revision, self.data_digest = documents.name, documents.digest
        self.description = f"negative log-likelihood by position of {documents.name}"

    def card(self) -> dict[str, Any]:
        n = len(self._documents.documents)
        return {
            "description": self.description,
            "source": f"{n} documents of the user's",
            "metric": "1/ppl; NLL by position",
        }

    def _samples(self, tokenizer: Tokenizer, ctx: int, seed: int) -> Iterator[Sample | Unfit]:
        if ctx < LEAST_TOKENS:
            raise ContextTooSmall(f"{self.id} needs {LEAST_TOKENS} tokens, ctx is {ctx}", LEAST_TOKENS)
        documents = self._documents.documents
        longest, made = 0, 0
        pieces = enumerate(documents) if len(documents) > 1 else enumerate(_pieces(documents[0], tokenizer, ctx))
        for index, document in pieces:
            cuts, total = cut(document.text, tokenizer, ctx)
            if cuts:
                made += 1
                yield self._sample(document, index, cuts, total, ctx)
            longest = max(longest, total)
        if not made:
            raise TextTooShort(
                f"no document of {self._documents.name} has {ctx} tokens, the longest has {longest}", longest
            )

    def _sample(self, document: Document, index: int, cuts: Sequence[int], total: int, ctx: int) -> Sample:
        return Sample(
            id=f"{self.id}@own-{self.version}/{ctx}/i{index}",
            task=self.id,
            ctx=ctx,
            index=index,
            prompt=document.text[: cuts[-1]],
            references=(),
            max_new_tokens=0,
            prompt_tokens=total,
            meta={"document": document.name, "cuts": list(cuts), "ends": ends(ctx)},
        )

    def reads_at(self, ctx: int) -> list[int]:
        """Tokens that each request of a sample reads."""
        return ends(ctx)

    def step(self, sample: Sample, outcomes: Sequence[Completion]) -> Sequence[Request] | Score:
        text, cuts = str(sample.prompt), sample.meta["cuts"]
        if not outcomes:
            places = pairwise(cuts)
            return [Request("loglikelihood", text[:begin], continuation=text[begin:end]) for begin, end in places]
        nats = [-(one.logprob_sum or 0.0) for one in outcomes]
        tokens = [one.output_tokens for one in outcomes]
        begins = [0, *sample.meta["ends"][:-1]]
        found = [
            {"from": begin, "to": end, "nll": nll / n, "tokens": n}
            for begin, end, nll, n in zip(begins, sample.meta["ends"], nats, tokens, strict=True)
        ]
        return Score({self.metric: math.exp(-sum(nats) / sum(tokens))}, extracted={"nll": found})


def ends(ctx: int) -> list[int]:
    """Where buckets end, in tokens: 256, 512, ... and ctx."""
    found = []
    end = FIRST_BUCKET
    while end < ctx:
        found.append(end)
        end *= 2
    return [*found, ctx]


def cut(text: str, tokenizer: Tokenizer, ctx: int) -> tuple[list[int], int]:
    """Characters at which a text's buckets begin and end, and the tokens of all of it; no cuts where it has fewer than ctx tokens, and
    then how many it has."""
    first = _WORD.match(text)
    if first is None:
        return [], 0
    found, total = [first.end()], 0
    for end in ends(ctx):
        at, total = _place(text, tokenizer, end, found[-1])
        if total < end * (1 - 4 * CLOSE) - 4 and at >= len(text.rstrip()):
            return [], total
        if at <= found[-1]:
            return [], total
        found.append(at)
    return found, total


def _place(text: str, tokenizer: Tokenizer, tokens: int, least: int) -> tuple[int, int]:
    """The white space at which the text has close to, and no more than, so many tokens; and how many."""
    best, best_tokens = least, 0
    at, per_token = min(len(text), max(least + 1, 4 * tokens)), 4.0
    for _ in range(ROUNDS):
        place = _white(text, at)
        n = tokenizer.count(tokenizer.render(text[:place]))
        if n <= tokens and n > best_tokens:
            best, best_tokens = place, n
        if n <= tokens and (tokens - n <= max(CLOSE * tokens, 2) or place >= len(text)):
            break
        per_token = place / max(n, 1)
        wanted = int(tokens * per_token) if n > tokens else place + int((tokens - n) * per_token)
        wanted = min(wanted, place - 1) if n > tokens else max(wanted, place + 1)
        at = max(least, min(len(text), wanted))
    return best, best_tokens


def _white(text: str, at: int) -> int:
    """The last place up to `at` behind a word; `at` itself where there is no white space near."""
    if at >= len(text):
        return len(text)
    for place in range(at, max(at - LONGEST_WORD, 0), -1):
        if text[place].isspace() and not text[place - 1].isspace():
            return place
    return at


def _pieces(document: Document, tokenizer: Tokenizer, ctx: int) -> Iterator[Document]:
    """Successive pieces that have ctx tokens each; the document itself where it has fewer."""
    begin, n = 0, 0
    while True:
        cuts, _ = cut(document.text[begin:], tokenizer, ctx)
        if not cuts:
            if not n:
                yield document
            return
        n += 1
        yield Document(f"{document.name}#{n}", document.text[begin : begin + cuts[-1]])
        begin += cuts[-1]
