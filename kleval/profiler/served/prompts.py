"""Random prompts of a length in tokens, for any backend that can be timed.

Token ids where the backend takes them, so that prompts are exactly as long as asked; else words, whose tokens the backend has
counted in two short answers, and counts again in every round.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from kleval.backends.timing import generator, random_tokens, random_words
from kleval.types import Request, Timed, TimedRequest, Trace, UsageError

PROBE_WORDS = (20, 120)
POOL_WORDS = 400  # of which ids are taken where a backend names none


class Prompts:
    """kind: `token ids`, or how text is sent. UsageError when made: the backend does not tell how many tokens a text has."""

    def __init__(self, backend: Timed, kind: str, seed: object) -> None:
        self._overhead, self._per_word = 0.0, 1.0
        self._counted_words = 0  # of the longest prompt so far
        self._pool: Sequence[int] = ()
        self._decode = None
        if kind != "token ids":
            self._count_words(backend, seed)
        elif hasattr(backend, "vocabulary"):
            self._pool = backend.vocabulary()
        else:
            text = random_words(POOL_WORDS, generator(seed, "vocabulary"))
            self._pool, self._decode = sorted(set(backend.tokenizer.encode(text))), backend.tokenizer.decode

    def make(self, n_tokens: int, n_out: int, rng: random.Random) -> Request:
        """A request for n_out tokens after n_tokens random ones, or text of about as many."""
        if not self._pool:
            words = max(1, round((n_tokens - self._overhead) / self._per_word))
            return Request("generate", random_words(words, rng), max_new_tokens=n_out)
        ids = tuple(random_tokens(self._pool, n_tokens, rng))
        text = "" if self._decode is None else self._decode(ids)
        return Request("generate", text, max_new_tokens=n_out, token_ids=ids)

    def beginning_as(self, other: Request, share: float, n_tokens: int, n_out: int, rng: random.Random) -> Request:
        """Like `make`, with that share of another prompt of the same length as its beginning."""
        new = self.make(n_tokens, n_out, rng)
        if other.token_ids is None or new.token_ids is None:
            theirs, words = str(other.prompt).split(), str(new.prompt).split()
            kept = round(share * len(theirs))
            return Request("generate", " ".join([*theirs[:kept], *words[kept:]]), max_new_tokens=n_out)
        kept = round(share * n_tokens)
        ids = (*other.token_ids[:kept], *new.token_ids[kept:])
        text = "" if self._decode is None else self._decode(ids)
        return Request("generate", text, max_new_tokens=n_out, token_ids=ids)

    def learn(self, requests: Sequence[Request], traces: Sequence[Trace]) -> None:
        """The longest prompts count words best."""
        counts = [
            (len(str(request.prompt).split()), trace.prompt_tokens)
            for request, trace in zip(requests, traces, strict=True)
            if request.token_ids is None
        ]
        known = [(n, tokens) for n, tokens in counts if tokens is not None and tokens > self._overhead]
        n_words, n_tokens = max(known, default=(0, 0))
        if known and n_words >= self._counted_words:
            self._counted_words, self._per_word = n_words, (n_tokens - self._overhead) / n_words

    def _count_words(self, backend: Timed, seed: object) -> None:
        few, many = PROBE_WORDS
        counts = []
        for n in PROBE_WORDS:
            request = Request("generate", random_words(n, generator(seed, "words", n)), max_new_tokens=2)
            (trace,) = backend.timed([TimedRequest(request)])
            if trace.prompt_tokens is None:
                said = trace.failure.message if trace.failure else "no usage"
                raise UsageError(f"{backend.model} does not tell how many tokens a prompt has: {said}")
            counts.append(trace.prompt_tokens)
        self._per_word = max((counts[1] - counts[0]) / (many - few), 0.01)
        self._overhead = max(counts[0] - few * self._per_word, 0.0)
