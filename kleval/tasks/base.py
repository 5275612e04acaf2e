"""Forms that most tasks share: samples in the data's order, one call (ask once, score the answer), and questions one by one."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

from kleval.tasks.draws import own_draws
from kleval.tasks.fitting import budget_for, fill
from kleval.tasks.prose import sentences
from kleval.tasks.registry import OWN, check_protocol
from kleval.types import (
    Completion,
    ContextTooSmall,
    Failure,
    Prompt,
    Request,
    Sample,
    Score,
    Tokenizer,
    Unfit,
    UsageError,
)

JUDGE_BUDGET = 1024


class InOrder(ABC):
    """`samples` gives the first of `_samples` that fit. grows: whether prompts get longer with ctx; where they do not, one length asks
    all there is to ask."""

    id: str
    grows = True

    def samples(self, tokenizer: Tokenizer, ctx: int, n: int, seed: int) -> Iterator[Sample | Unfit]:
        if ctx < 1 or n < 0:
            raise UsageError(f"{self.id}: ctx must be at least 1 and the number of samples at least 0")
        if not n:
            return
        made = 0
        for sample in self._samples(tokenizer, ctx, seed):
            yield sample
            made += isinstance(sample, Sample)
            if made == n:
                return

    @abstractmethod
    def _samples(self, tokenizer: Tokenizer, ctx: int, seed: int) -> Iterator[Sample | Unfit]:
        """All of them, with an Unfit for each that does not fit; until the data end, or without end."""


def request_of(sample: Sample, temperature: float = 0.0, top_p: float = 1.0) -> Request:
    """What asks a sample's prompt."""
    return Request(
        kind="generate",
        prompt=sample.prompt,
        answer_prefix=sample.answer_prefix,
        max_new_tokens=sample.max_new_tokens,
        stop=sample.stop,
        temperature=temperature,
        top_p=top_p,
    )


class OneCall(ABC):
    """`step` asks the sample's prompt, then hands the answer to `score`."""

    def step(self, sample: Sample, outcomes: Sequence[Completion]) -> Sequence[Request] | Score:
        return self.score(sample, outcomes[0]) if outcomes else (request_of(sample),)

    @abstractmethod
    def score(self, sample: Sample, answer: Completion) -> Score: ...


class Judged(ABC):
    """`step` asks the sample's prompt and then, where the protocol has one, a judge about the answer, before `_score`.

    An empty answer is wrong without asking the judge; a reply of its that says neither is a failure. reply_says: what it has to hold.
    """

    needs_judge: bool
    reply_says: str

    def step(self, sample: Sample, outcomes: Sequence[Completion]) -> Sequence[Request] | Score | Failure:
        if not outcomes:
            return (request_of(sample),)
        answer, right = outcomes[0].text, None
        if self.needs_judge:
            if answer.strip() and len(outcomes) == 1:
                prompt = self._judge_prompt(sample, answer)
                return (Request(kind="judge", prompt=prompt, max_new_tokens=JUDGE_BUDGET),)
            right = self._verdict(outcomes[1].text) if answer.strip() else False
            if right is None:
                said = " ".join(outcomes[1].text.split())[:80]
                return Failure("judge", f"the judge's reply holds no {self.reply_says}: {said!r}")
        return self._score(sample, answer, right)

    @abstractmethod
    def _judge_prompt(self, sample: Sample, answer: str) -> Prompt: ...

    @abstractmethod
    def _verdict(self, reply: str) -> bool | None:
        """None where there is none."""

    @abstractmethod
    def _score(self, sample: Sample, answer: str, right: bool | None) -> Score:
        """right: by the judge, None where none was asked for."""


class Questions(InOrder, OneCall):
    """Task of the plainest form: `question` makes one, and kleval makes it fit, asks it and compares the answer with the reference.

    A `{context}` in the question is filled with prose up to ctx. What a subclass may say besides: id, metric and `score`, version,
    protocol, max_new_tokens (else half as much again as the longest of some references takes, and 16), stop.
    """

    version, metric, edition, protocol = "1", "exact", "own", "own-1"
    data_revision, data_digest = "generated", ""
    max_new_tokens: int | None = None
    stop: tuple[str, ...] = ()

    def __init__(self, edition: str = OWN, protocol: str | None = None, data_dir: Path | None = None) -> None:
        if edition == "official":
            raise UsageError(f"{self.id} makes its questions itself: it has no official edition, use --edition builtin")
        self.edition, self.protocol = edition, check_protocol(self.id, protocol, (self.protocol,))

    @abstractmethod
    def question(self, draw: random.Random) -> tuple[str, str | Sequence[str]]:
        """A question and its reference, or references. draw: random numbers of this question's own."""

    def score(self, sample: Sample, answer: Completion) -> Score:
        return Score({self.metric: float(answer.text.strip() in sample.references)}, extracted=answer.text.strip())

    def _made(self, ctx: int, seed: int, index: object) -> tuple[str, tuple[str, ...]]:
        text, references = self.question(own_draws(self.id, self.version, ctx, seed, index).rng)
        return text, (references,) if isinstance(references, str) else tuple(references)

    def _samples(self, tokenizer: Tokenizer, ctx: int, seed: int) -> Iterator[Sample | Unfit]:
        probes = [one for i in range(_PROBES) for one in self._made(ctx, seed, f"probe-{i}")[1]]
        budget = self.max_new_tokens or budget_for(max(map(tokenizer.count, probes), default=0))
        for index in count():
            text, references = self._made(ctx, seed, index)
            own = self.max_new_tokens or max(budget, budget_for(max(map(tokenizer.count, references), default=0)))
            pieces = sentences(f"{self.id}/{seed}/{index}") if _CONTEXT in text else iter(())

            def build(taken: Sequence[str], text: str = text) -> Prompt:
                return as_prompt(tokenizer, text.replace(_CONTEXT, " ".join(taken)))

            filled = fill(build, pieces, tokenizer, ctx - own)
            if isinstance(filled, int):
                raise ContextTooSmall(f"{self.id} needs {filled + own} tokens, ctx is {ctx}", filled + own)
            yield Sample(
                id=f"{self.id}@{self.edition}-{self.version}/{ctx}/s{seed}/i{index}",
                task=self.id,
                ctx=ctx,
                index=index,
                prompt=filled.prompt,
                references=references,
                max_new_tokens=own,
                prompt_tokens=filled.tokens,
                stop=self.stop,
            )


_PROBES = 16
_CONTEXT = "{context}"


def as_prompt(tokenizer: Tokenizer, text: str) -> Prompt:
    """`text` as the user's message where the tokenizer has a chat template, else as it is."""
    return ({"role": "user", "content": text},) if tokenizer.chat_template_digest else text
